"""Workers as actors of a Ray cluster, or of one that is started on this machine (pip install 'taxlens[ray]')."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from taxlens.core.errors import UsageError, explain
from taxlens.core.executors.worker_call import REFUSED, WorkerCall, perform


@dataclass(frozen=True, slots=True, eq=False)
class RayWorker:
    """An actor and the call that it does."""

    ray: Any
    actor: Any
    result: Any

    def ended(self) -> str | None:
        """None while it works, blank once it is done, else what it died of."""
        ready, _ = self.ray.wait([self.result], timeout=0)
        if not ready:
            return None
        try:
            return self.ray.get(self.result)
        except self.ray.exceptions.RayError as error:
            return f"{type(error).__name__}: {str(error).strip().splitlines()[0][:200]}"

    def stop(self) -> None:
        """End it, whatever it does."""
        self.ray.kill(self.actor, no_restart=True)


@dataclass(slots=True, eq=False)
class RayExecutor:
    """Actors of a Ray cluster.

    Args:
        workers: how many actors.
        address: of a cluster, or "auto" for the one that this machine belongs to; blank: one is started here, and
            ended when the work is.
        cpus, gpus: that Ray sets aside for each.

    Raises:
        UsageError: Ray is not installed, or there is no such cluster.
    """

    workers: int
    address: str = ""
    cpus: int = 1
    gpus: float = 0
    joins: bool = False
    _ray: Any = field(init=False)
    _own: bool = field(init=False, default=False)

    def __post_init__(self) -> None:
        try:
            import ray  # pyright: ignore[reportMissingImports]
        except ImportError as error:
            fix = "pip install 'taxlens[ray]', or executor: {kind: local}"
            raise UsageError(explain("Ray is not installed.", [("executor", "ray")], fix)) from error
        self._ray = ray
        if ray.is_initialized():
            return
        # of a cluster that starts here: its workers do the run's own work, and nothing is told to anybody
        os.environ.setdefault("RAY_worker_niceness", "0")
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        here = {} if self.address else {"num_cpus": self.workers * self.cpus, "include_dashboard": False}
        for last in (False, False, True):  # on a busy machine Ray's own limit of 30 s is short
            try:
                ray.init(address=self.address or "local", log_to_driver=False, configure_logging=False, **here)
                break
            except Exception as error:  # Ray raises bare ones
                ray.shutdown()
                if last:
                    said = (str(error).strip() or type(error).__name__).splitlines()[0]
                    rows = [("address", self.address or "a cluster on this machine"), ("Ray says", said)]
                    fix = "start it, leave address out, or executor: {kind: local}"
                    raise UsageError(explain("the Ray cluster cannot be had.", rows, fix)) from error
        self._own = True

    def start(self, call: WorkerCall, rank: int) -> RayWorker:
        """Start an actor for the worker of a rank."""
        remote = self._ray.remote(num_cpus=self.cpus, num_gpus=self.gpus, max_restarts=0)(_Actor)
        actor = remote.remote()
        return RayWorker(self._ray, actor, actor.perform.remote(call, rank))

    def close(self) -> None:
        """Leave the cluster; one that was started here ends."""
        if self._own:
            self._ray.shutdown()


class _Actor:
    """Does one call in a process of its own."""

    def perform(self, call: WorkerCall, rank: int) -> str:
        """Do the call (see `worker_call.perform`), unless this machine does not see the shared folder."""
        if not Path(call.folder).is_dir():
            rows = [("folder", call.folder), ("worker", rank)]
            return REFUSED + explain(
                "a worker does not see the shared folder.", rows, "executor.scratch: a shared folder"
            )
        return perform(call, rank)
