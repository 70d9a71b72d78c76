"""Workers as jobs of a Slurm queue, through submitit (pip install 'taxlens[slurm]')."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from taxlens.core.errors import UsageError, explain
from taxlens.core.executors.worker_call import WorkerCall, perform


@dataclass(frozen=True, slots=True, eq=False)
class SlurmWorker:
    """A job."""

    job: Any

    def ended(self) -> str | None:
        """None while it waits or works, blank once it is done, else what it died of."""
        if not self.job.done():
            return None
        try:
            return str(self.job.result())
        except Exception as error:  # whatever submitit makes of a job that was killed, timed out or never began
            return f"job {self.job.job_id}: {str(error).strip().splitlines()[0][:200]}"

    def stop(self) -> None:
        """Cancel it."""
        if not self.job.done():
            self.job.cancel()


@dataclass(slots=True, eq=False)
class SlurmExecutor:
    """Jobs of a Slurm queue, one a worker.

    Args:
        workers: how many jobs.
        folder: where submitit keeps its files; seen by the queue's machines.
        cluster: "slurm"; or submitit's "local" (processes) for a try without a queue.
        cpus, gpus: of each job.
        options: further options of submitit's `update_parameters`, such as slurm_partition or timeout_min.

    Raises:
        UsageError: submitit is not installed, there is no queue, or it does not know an option.
    """

    workers: int
    folder: Path
    cluster: str = "slurm"
    cpus: int = 1
    gpus: int = 0
    options: Mapping[str, Any] = field(default_factory=dict)
    joins: bool = False
    _queue: Any = field(init=False)

    def __post_init__(self) -> None:
        try:
            import submitit  # pyright: ignore[reportMissingImports]
        except ImportError as error:
            fix = "pip install 'taxlens[slurm]', or executor: {kind: local}"
            raise UsageError(explain("submitit is not installed.", [("executor", "slurm")], fix)) from error
        asked = {"name": "taxlens", "cpus_per_task": self.cpus, "timeout_min": 1440} | dict(self.options)
        asked |= {"gpus_per_node": self.gpus} if self.gpus else {}
        try:
            self._queue = submitit.AutoExecutor(folder=str(self.folder), cluster=self.cluster)
            self._queue.update_parameters(**asked)
        except (RuntimeError, ValueError, NameError, TypeError) as error:
            rows = [("cluster", self.cluster), ("options", dict(self.options)), ("submitit says", error)]
            raise UsageError(
                explain("jobs cannot be sent to a Slurm queue.", rows, "run it where sbatch is.")
            ) from error

    def start(self, call: WorkerCall, rank: int) -> SlurmWorker:
        """Send the job of the worker of a rank."""
        return SlurmWorker(self._queue.submit(perform, call, rank))

    def close(self) -> None:
        """Nothing is held."""
