"""Loops whose rounds are independent, done here or by several processes: the same results, in the same order.

A stage runs alike in every process that takes part. Where it comes to a loop of independent pieces (`shared`), each
process does its own pieces, puts their results into a folder that all see, and reads the others' from there. Which
pieces there are follows from what is asked, never from how many processes there are, so that tables do not depend on
it. A result is kept under its piece's name: a process that is lost and begins anew reads what is there and goes on.
"""

from __future__ import annotations

import json
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from taxlens.core.artifacts import sha256_text
from taxlens.core.errors import TaxlensError, UsageError, explain
from taxlens.core.plain_files import read_plain, write_plain

Unit = TypeVar("Unit", bound="str | int | tuple[Any, ...]")
PAUSE = 0.05
"""Seconds between two looks for another process's result."""


class MissingResultError(Exception):
    """A process that works alone on its share has done all of it that can be done without the others' results."""


def never(_where: str) -> None:
    """The check of a process that nobody watches."""


@dataclass(slots=True, eq=False)
class SharedFolder:
    """One process's part in the loops of a stage.

    Args:
        folder: where results are kept, seen by every process.
        request: what all results depend on: the stage, its settings, weights, items, versions.
        rank: number of this process from 0; -1: it does nothing itself and waits for the others.
        count: processes that do pieces.
        waits: wait for the others' results; else the stage is left (`MissingResultError`) once one is missing.
        check: called with where this process is, between pieces and while it waits; raises to stop it.
        beside: further folders with results, to read from.
        done: numbers of results that were made here, and that were found.
    """

    folder: Path
    request: str
    rank: int = 0
    count: int = 1
    waits: bool = True
    check: Callable[[str], None] = never
    beside: tuple[Path, ...] = ()
    done: dict[str, int] = field(default_factory=lambda: {"made": 0, "found": 0})
    _calls: dict[str, int] = field(default_factory=dict)
    _inside: bool = False

    def each(self, name: str, units: Sequence[Unit], work: Callable[[Unit], Any]) -> Iterator[Any]:
        """Yield work(unit) of every unit in their order, whoever did it."""
        call = self._calls[name] = self._calls.get(name, 0) + 1
        keys = [self.key(call, name, unit) for unit in units]
        mine = [number for number in range(len(units)) if number % self.count == self.rank]
        for number, key in enumerate(keys):
            while (path := self._found(key)) is None:
                own = next((n for n in mine if self._found(keys[n]) is None), None)
                if own is not None:
                    self._do(keys[own], f"{name}, {units[own]}", work, units[own])
                elif not self.waits:
                    raise MissingResultError
                else:
                    self.check("")
                    time.sleep(PAUSE)
            self.done["found"] += number not in mine
            yield read_plain(path)

    def key(self, call: int, name: str, unit: Any) -> str:
        """The name under which a piece's result is kept.

        Args:
            call: how often a loop of this name has been come to.
            name: the loop's name; it says what the loop is about (hashes of items, options).
            unit: the piece.
        """
        return sha256_text(json.dumps([self.request, call, name, unit], ensure_ascii=False))[:32]

    def _do(self, key: str, where: str, work: Callable[[Unit], Any], unit: Unit) -> None:
        self.check(where)
        self._inside = True
        try:
            result = work(unit)
        except TaxlensError as error:
            raise type(error)(f"{error}\n  piece  {where}") from error
        finally:
            self._inside = False
        write_plain(self.folder / f"{key}.npz", result)
        self.done["made"] += 1
        self.check("")

    def _found(self, key: str) -> Path | None:
        places = (folder / f"{key}.npz" for folder in (self.folder, *self.beside))
        return next((path for path in places if path.is_file()), None)


_ACTIVE: ContextVar[SharedFolder | None] = ContextVar("shared_work", default=None)


def shared(name: str, units: Sequence[Unit], work: Callable[[Unit], Any]) -> Iterator[Any]:
    """Yield work(unit) of every unit in their order: done here, or by all processes that take part in the stage.

    Args:
        name: what is done, in words; errors and progress name it.
        units: the pieces: numbers, texts, or tuples of these. They and the work must be the same in every process.
        work: what is done to a piece; it gives plain values (see `plain_files`) and changes nothing else.

    Example:
        >>> list(shared("squares", [1, 2, 3], lambda n: n * n))
        [1, 4, 9]
    """
    active = _ACTIVE.get()
    return map(work, units) if active is None or active._inside else active.each(name, units, work)


@contextmanager
def sharing(part: SharedFolder) -> Iterator[SharedFolder]:
    """Within the block, `shared` loops are this process's part of a work of several."""
    token = _ACTIVE.set(part)
    try:
        yield part
    finally:
        _ACTIVE.reset(token)


def active_part() -> SharedFolder | None:
    """This process's part where it shares a stage's work, for work that is cut in a way of its own."""
    return _ACTIVE.get()


def writable(folder: Path) -> Path:
    """Return a folder, made where it is missing, in which this process can write.

    Raises:
        UsageError: it cannot.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        rows = [("scratch", folder), ("system says", error)]
        raise UsageError(explain("workers cannot write there.", rows, "name a folder that all workers see.")) from error
    return folder
