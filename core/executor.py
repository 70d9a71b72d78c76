"""Independent pieces of work, done here or in several processes: the same pieces, in one fixed order.

A piece is a number and a plain description (paths, hashes, numbers: no weights, no tensors). What does it is made once
in every worker by `prepare` (which loads the models) and called once for every piece. Results come back in the order
of the pieces whoever was first, so that sums and files do not depend on the number of workers; which pieces there are
is the caller's, so that the cut is part of what was asked.

A result may be kept under the piece's key in a folder that all workers share: what is there is not done again, so that
a lost worker costs its piece in hand and no more.
"""

from __future__ import annotations

import hashlib
import importlib
import json
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, field
from multiprocessing import get_context
from pathlib import Path
from typing import Any, Protocol

from taxlens.core.artifacts import atomic_path
from taxlens.core.errors import TaxlensError, UsageError, explain
from taxlens.core.plain_files import read_plain, write_plain


@dataclass(frozen=True, slots=True)
class Work:
    """What is done to every piece, in words that travel: two functions by name, and what they are told.

    Args:
        prepare: "module:function" of the request, called once in a worker; what it returns stays there.
        run: "module:function" of (what `prepare` returned, piece), called once a piece.
        request: plain values (json) that say what is asked: paths, hashes, options, and where the work was cut.
    """

    prepare: str
    run: str
    request: Mapping[str, Any] = field(default_factory=dict)

    def key(self, piece: Any) -> str:
        """The name under which a piece's result is kept: it changes with the request, the functions and the piece."""
        said = json.dumps([self.prepare, self.run, dict(self.request), piece], sort_keys=True, default=str)
        return hashlib.sha256(said.encode("utf-8")).hexdigest()[:32]


class Executor(Protocol):
    """Does pieces of work."""

    def map(self, work: Work, pieces: Sequence[Any], *, done: Callable[[int], None] = ...) -> Iterator[Any]:
        """Yield what `work` gives for each piece, in their order; `done` is told the number of each finished piece."""
        ...


@dataclass(frozen=True, slots=True)
class LocalExecutor:
    """Pieces in this process, or in several processes of this machine.

    Args:
        workers: processes; 1 does everything here.
        retries: how often a piece is tried again after its worker died.
        scratch: folder where results are kept by key, or None.
        threads: BLAS threads of each worker.
    """

    workers: int = 1
    retries: int = 3
    scratch: Path | None = None
    threads: int = 1

    def map(
        self, work: Work, pieces: Sequence[Any], *, done: Callable[[int], None] = lambda number: None
    ) -> Iterator[Any]:
        """Yield what `work` gives for each piece, in their order.

        Raises:
            TaxlensError: a piece failed, or its worker died more often than `retries`; the piece is named.
        """
        if self.workers <= 1:
            yield from _here(work, pieces, self.scratch, done)
            return
        found: dict[int, Any] = {}
        tries = dict.fromkeys(range(len(pieces)), 0)
        left = [n for n in tries if not _kept(self.scratch, work, pieces[n], found, n, done)]
        while left:
            lost = self._round(work, pieces, left, found, done)
            for number in lost:
                tries[number] += 1
                if tries[number] > self.retries:
                    raise TaxlensError(lost_piece(pieces[number], tries[number], self.scratch))
            left = sorted(lost)
        for number in range(len(pieces)):
            yield found.pop(number)

    def _round(
        self, work: Work, pieces: Sequence[Any], left: Sequence[int], found: dict[int, Any], done: Callable[[int], None]
    ) -> list[int]:
        """Try pieces once; returns those whose worker died before it gave a result."""
        lost: list[int] = []
        count = min(self.workers, len(left))
        with ProcessPoolExecutor(
            count, mp_context=get_context("spawn"), initializer=_begin, initargs=(work, self.threads)
        ) as pool:
            waiting: dict[int, Future[Any]] = {n: pool.submit(_one, work, pieces[n], self.scratch) for n in left}
            for number, future in waiting.items():
                try:
                    found[number] = future.result()
                    done(number)
                except BrokenProcessPool:
                    if not _kept(self.scratch, work, pieces[number], found, number, done):
                        lost.append(number)
                except TaxlensError as error:
                    for other in waiting.values():
                        other.cancel()
                    raise type(error)(f"{error}\n  piece  {pieces[number]!r}") from error
        return lost


def executor_of(*, workers: int = 1, retries: int = 3, scratch: str | Path | None = None) -> LocalExecutor:
    """Return what does the pieces on this machine.

    Args:
        workers: processes.
        retries: of a piece whose worker was lost.
        scratch: a folder that every worker sees; finished pieces are kept there.

    Raises:
        UsageError: fewer than one worker, or a folder that cannot be written.
    """
    if workers < 1:
        raise UsageError(explain("an executor needs a worker.", [("workers", workers)], "workers: 1"))
    return LocalExecutor(workers, retries, None if scratch is None else _writable(Path(scratch)))


def parts_of(total: int, size: int) -> list[tuple[int, int]]:
    """Cut `total` things into spans of `size`: the cut depends on the two numbers alone, never on who does it."""
    return [(start, min(start + size, total)) for start in range(0, total, size)]


def share_of(pieces: Sequence[Any], number: int, count: int) -> list[Any]:
    """The pieces that worker `number` (from 1) of `count` does by hand, side by side in the order of the pieces.

    Raises:
        UsageError: the number is not among 1..count.
    """
    if not 1 <= number <= count:
        raise UsageError(explain("no such share.", [("got", f"{number}/{count}")], f"1/{count} to {count}/{count}"))
    return list(pieces[len(pieces) * (number - 1) // count : len(pieces) * number // count])


def named(function: str) -> Callable[..., Any]:
    """The function of a "module:function" name."""
    module, _, name = function.partition(":")
    return getattr(importlib.import_module(module), name)


def lost_piece(piece: Any, tries: int, scratch: Path | None) -> str:
    """What to say of a piece whose workers died."""
    rows = [("piece", repr(piece)[:200]), ("tries", tries), ("kept results", scratch or "none: no scratch folder")]
    fix = "look whether a worker ran out of memory; smaller batches, or fewer workers. Finished pieces are not done again."
    return explain("a piece of work loses its worker every time.", rows, fix)


def _begin(work: Work, threads: int) -> None:
    """Make a worker ready: its thread limits before anything is loaded, then what `prepare` gives."""
    from threadpoolctl import threadpool_limits

    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    threadpool_limits(threads)
    _STATE[work.prepare] = named(work.prepare)(dict(work.request))


_STATE: dict[str, Any] = {}
"""What `prepare` gave in this worker."""


def _one(work: Work, piece: Any, scratch: Path | None) -> Any:
    return _done(work, piece, _STATE[work.prepare], scratch)


def _done(work: Work, piece: Any, state: Any, scratch: Path | None) -> Any:
    result = named(work.run)(state, piece)
    if scratch is not None:
        write_plain(scratch / f"{work.key(piece)}.npz", result)
    return result


def _here(work: Work, pieces: Iterable[Any], scratch: Path | None, done: Callable[[int], None]) -> Iterator[Any]:
    state: list[Any] = []
    for number, piece in enumerate(pieces):
        found: dict[int, Any] = {}
        if not _kept(scratch, work, piece, found, number, done):
            state = state or [named(work.prepare)(dict(work.request))]
            found[number] = _done(work, piece, state[0], scratch)
            done(number)
        yield found[number]


def _kept(
    scratch: Path | None, work: Work, piece: Any, found: dict[int, Any], number: int, done: Callable[[int], None]
) -> bool:
    """Whether a piece's result lies in the shared folder; if so it is put into `found`."""
    path = None if scratch is None else scratch / f"{work.key(piece)}.npz"
    if path is None or not path.is_file():
        return False
    found[number] = read_plain(path)
    done(number)
    return True


def _writable(folder: Path) -> Path:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with atomic_path(folder / "writable") as path:
            path.write_text("yes")
    except OSError as error:
        rows = [("scratch", folder), ("system says", error)]
        raise UsageError(explain("workers cannot write there.", rows, "name a folder that all workers see.")) from error
    return folder
