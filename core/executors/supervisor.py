"""Workers watched while others wait for them: those that die are started again, and what fails is said by its piece."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from taxlens.core import errors
from taxlens.core.errors import TaxlensError, explain
from taxlens.core.executors.worker_call import REFUSED, Executor, Worker, WorkerCall
from taxlens.core.json_text import read_json

LOOK, BEAT, SILENCE = 0.2, 5.0, 300.0
"""Seconds between two looks at the workers, between two signs of life, and without one until a worker gives up."""


class WorkOverError(Exception):
    """The stage that a worker takes part in is over, or whoever asked for it is gone."""


@dataclass(slots=True, eq=False)
class Supervisor:
    """Starts workers and watches them from a thread.

    Args:
        executor: where they run.
        call: what they do; its folder holds what they say of themselves.
        retries: how often a worker may die at the same piece before the work fails.
    """

    executor: Executor
    call: WorkerCall
    retries: int
    failed: TaxlensError | None = None
    lost: list[str] = field(default_factory=list)
    _workers: dict[int, Worker] = field(default_factory=dict)
    _deaths: dict[tuple[int, str], int] = field(default_factory=dict)
    _over: threading.Event = field(default_factory=threading.Event)
    _thread: threading.Thread | None = None

    def __enter__(self) -> Supervisor:
        for rank in range(1 if self.executor.joins else 0, self.executor.workers):
            self._workers[rank] = self.executor.start(self.call, rank)
        self._thread = threading.Thread(target=self._watch, name="taxlens workers", daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._over.set()
        if self._thread is not None:
            self._thread.join()
        for worker in self._workers.values():
            worker.stop()
        self.executor.close()

    def check(self, _where: str = "") -> None:
        """Raise what has failed."""
        if self.failed is not None:
            raise self.failed

    def _watch(self) -> None:
        folder, beat = Path(self.call.folder), 0.0
        while not self._over.wait(LOOK) and self.failed is None:
            if time.monotonic() - beat > BEAT:
                (folder / "alive").write_text(str(time.time()))
                beat = time.monotonic()
            try:
                for rank, worker in list(self._workers.items()):
                    self._look(rank, worker)
            except TaxlensError as error:
                self.failed = error
            except Exception as error:  # the main thread must hear of whatever stops the watch
                self.failed = TaxlensError(explain("workers cannot be watched any more.", [("reason", error)]))

    def _look(self, rank: int, worker: Worker) -> None:
        ended = worker.ended()
        if ended is None:
            return
        folder = Path(self.call.folder)
        if (folder / f"failed-{rank}.json").is_file():
            raise _said(read_json(folder / f"failed-{rank}.json", title="a worker failed and did not say how."), rank)
        if ended.startswith(REFUSED):
            raise TaxlensError(ended.removeprefix(REFUSED))
        if ended == "":
            del self._workers[rank]
            return
        at = folder / f"at-{rank}"
        piece = at.read_text(encoding="utf-8") if at.is_file() else "none yet: it was still being started"
        self._deaths[rank, piece] = self._deaths.get((rank, piece), 0) + 1
        self.lost.append(f"worker {rank} ({ended}) at {piece}")
        if self._deaths[rank, piece] > self.retries:
            raise TaxlensError(_lost_piece(piece, self._deaths[rank, piece], ended, folder))
        self._workers[rank] = self.executor.start(self.call, rank)


@dataclass(slots=True, eq=False)
class WorkerSigns:
    """A worker's side of it: where it is, and whether it is still wanted.

    Args:
        folder: of the call.
        rank: the worker's.
        over: a file whose presence says that the work is over.
    """

    folder: Path
    rank: int
    over: Path
    _beat: tuple[float, float] = (0.0, 0.0)

    def check(self, where: str = "") -> None:
        """Note where this worker is, unless it is blank.

        Raises:
            WorkOverError: the work is over, or whoever asked for it has not been heard of for five minutes.
        """
        if where:
            (self.folder / f"at-{self.rank}").write_text(where, encoding="utf-8")
        if self.over.exists() or (self.folder / "end").exists() or not self._heard():
            raise WorkOverError

    def _heard(self) -> bool:
        try:
            beat = (self.folder / "alive").stat().st_mtime
        except OSError:
            beat = 0.0
        if beat != self._beat[0] or not self._beat[1]:
            self._beat = (beat, time.monotonic())
        return time.monotonic() - self._beat[1] < SILENCE


def _said(told: dict[str, Any], rank: int) -> TaxlensError:
    """A worker's error, of its own kind."""
    kind = getattr(errors, str(told.get("type")), TaxlensError)
    known = isinstance(kind, type) and issubclass(kind, TaxlensError)
    return (kind if known else TaxlensError)(f"{told.get('text')}\n  worker  {rank}")


def _lost_piece(piece: str, tries: int, ended: str, folder: Path) -> str:
    rows = [("piece", piece), ("tries", tries), ("last end", ended), ("finished pieces", folder)]
    fix = "look whether it ran out of memory: smaller batches, or fewer workers. Finished pieces are not done again."
    return explain("a piece of work loses its worker every time.", rows, fix)
