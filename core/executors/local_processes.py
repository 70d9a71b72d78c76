"""Workers as processes of this machine; the process that starts them is one of them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from taxlens.core.executors.worker_call import WorkerCall


@dataclass(frozen=True, slots=True, eq=False)
class LocalWorker:
    """A process.

    Args:
        process: as it was started.
        log: where its output goes.
    """

    process: subprocess.Popen[bytes]
    log: Path

    def ended(self) -> str | None:
        """None while it works, blank once it is done, else what it died of."""
        code = self.process.poll()
        if code is None:
            return None
        if code < 0:
            return f"signal {signal.Signals(-code).name}"
        return "" if code == 0 else f"exit code {code}, see {self.log}"

    def stop(self) -> None:
        """End it, whatever it does."""
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()


@dataclass(frozen=True, slots=True)
class LocalExecutor:
    """Processes of this machine.

    Args:
        workers: how many work, this one among them.
    """

    workers: int
    joins: bool = True

    def start(self, call: WorkerCall, rank: int) -> LocalWorker:
        """Start the worker of a rank in a process of its own."""
        log = Path(call.folder) / f"worker-{rank}.log"
        command = [sys.executable, "-m", "taxlens.core.executors.worker_call", call.text(), str(rank)]
        with open(log, "ab") as stream:
            environment = os.environ | {"OMP_NUM_THREADS": str(call.threads)}
            process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=stream, stderr=stream, env=environment)
        return LocalWorker(process, log)

    def close(self) -> None:
        """Nothing is held."""
