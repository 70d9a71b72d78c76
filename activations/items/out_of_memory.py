"""When memory runs out: the batch is halved, the run goes on, and the log says so."""

from __future__ import annotations

import gc
import logging
from collections.abc import Callable, Sequence
from typing import TypeVar

import torch

from taxlens.core.errors import TaxlensError, explain

logger = logging.getLogger(__name__)

Member = TypeVar("Member")
Made = TypeVar("Made")


def memory_ran_out(error: BaseException) -> bool:
    """Whether an error says that memory ran out, on a device or on the host."""
    if isinstance(error, TaxlensError):
        return False
    text = str(error).lower()
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or ("memory" in text and "alloc" in text)


def check_memory(error: BaseException, *, what: str) -> None:
    """Tell an error that says that memory ran out as such, where others are told as something wrong with a file.

    Raises:
        TaxlensError: if the error says so.
    """
    if memory_ran_out(error):
        rows = [("reason", (str(error).splitlines() or ["-"])[0][:200])]
        fix = "a smaller dtype, another device (pair.device), or a machine with more memory."
        raise TaxlensError(explain(f"memory runs out: {what}.", rows, fix)) from error


def give_back_memory() -> None:
    """Return what nothing uses any more to the device; call it outside the `except` block, which holds the frames."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def in_halves(work: Callable[[Sequence[Member]], Made], batch: Sequence[Member], *, what: str) -> list[Made]:
    """Do a batch whole, or in halves of halves where memory runs out; what each part gave, in the batch's order.

    Args:
        work: of a batch; it leaves nothing behind where it fails.
        batch: at least one member.
        what: what is done, for the log.

    Raises:
        TaxlensError: memory runs out with one member.
    """
    made, fits = _tried(lambda: work(batch))
    if fits:
        return [made]  # type: ignore[list-item]
    give_back_memory()
    if len(batch) < 2:
        raise TaxlensError(one_too_large(what))
    logger.warning("memory ran out: %s goes on with batches of %d instead of %d", what, len(batch) // 2, len(batch))
    half = len(batch) // 2
    return in_halves(work, batch[:half], what=what) + in_halves(work, batch[half:], what=what)


def until_it_fits(work: Callable[[], Made], smaller: Callable[[], bool], *, what: str) -> Made:
    """Do a work again, cut smaller each time, until memory does.

    Args:
        work: the whole work, from its beginning.
        smaller: cuts it smaller; False where it cannot be.
        what: what is done, for the log.

    Raises:
        TaxlensError: memory runs out and the work cannot be cut any smaller.
    """
    while True:
        made, fits = _tried(work)
        if fits:
            return made  # type: ignore[return-value]
        give_back_memory()
        if not smaller():
            raise TaxlensError(one_too_large(what))
        logger.warning("memory ran out: %s goes on with batches of half the size", what)


def one_too_large(what: str) -> str:
    """What to say where a single sequence is too large."""
    fix = "a smaller dtype for the model, shorter items, attribution.recompute, or device: cpu."
    return explain(f"memory runs out with a single sequence: {what}.", (), fix)


def _tried(work: Callable[[], Made]) -> tuple[Made | None, bool]:
    """What a work gives, and whether it did; after this the failed work's frames hold no memory."""
    try:
        return work(), True
    except (torch.OutOfMemoryError, MemoryError, RuntimeError) as error:
        if not memory_ran_out(error):
            raise
    return None, False
