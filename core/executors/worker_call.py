"""What every worker does, wherever it runs: one function by name, with plain arguments, its failure left as a file."""

from __future__ import annotations

import json
import os
import socket
import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol

from taxlens.core.artifacts import write_json
from taxlens.core.errors import TaxlensError
from taxlens.core.lazy import Lazy

REFUSED = "refused: "
"""How a worker's end begins where starting it again would not help."""


@dataclass(frozen=True, slots=True)
class WorkerCall:
    """What workers are asked to do.

    Args:
        function: "module:function" of (arguments, rank).
        arguments: plain values.
        folder: a folder that all workers and their starter see: who works, where, and what failed stands there.
        threads: threads of a worker's array work.
    """

    function: str
    arguments: Mapping[str, Any]
    folder: str
    threads: int = 1

    def text(self) -> str:
        """The call in one line, for a command."""
        return json.dumps(asdict(self))


class Worker(Protocol):
    """One worker under way."""

    def ended(self) -> str | None:
        """None while it works, blank once it is done, else what it died of."""
        ...

    def stop(self) -> None:
        """End it, whatever it does."""
        ...


class Executor(Protocol):
    """Starts workers.

    Args:
        workers: how many do pieces.
        joins: whether the process that starts them is one of these.
    """

    workers: int
    joins: bool

    def start(self, call: WorkerCall, rank: int) -> Worker:
        """Start the worker of a rank."""
        ...

    def close(self) -> None:
        """Let go of what workers ran on."""
        ...


def perform(call: WorkerCall, rank: int) -> str:
    """Do a call as the worker of a rank; returns blank, or what failed, which is also left as `failed-RANK.json`.

    Only errors that taxlens raises on purpose are left as a file: doing the work again would not help. Anything else
    ends the worker, and it is started again.
    """
    from threadpoolctl import threadpool_limits

    folder = Path(call.folder)
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    os.environ["OMP_NUM_THREADS"] = str(call.threads)
    try:
        write_json({"pid": os.getpid(), "host": socket.gethostname()}, folder / f"worker-{rank}.json")
        with threadpool_limits(call.threads):
            Lazy(call.function)(dict(call.arguments), rank)
    except TaxlensError as error:
        write_json({"type": type(error).__name__, "text": str(error)}, folder / f"failed-{rank}.json")
        return REFUSED + str(error)
    return ""


if __name__ == "__main__":
    sys.exit(3 if perform(WorkerCall(**json.loads(sys.argv[1])), int(sys.argv[2])) else 0)
