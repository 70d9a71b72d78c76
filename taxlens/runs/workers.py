"""The workers of a run: the same stages done side by side, each worker its pieces, one process writing the tables."""

from __future__ import annotations

import logging
import secrets
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

from taxlens.config.schema import Config, build_config
from taxlens.core.artifacts import sha256_json, write_json
from taxlens.core.errors import CheckError, TaxlensError, UsageError, explain
from taxlens.core.executors.supervisor import Supervisor, WorkerSigns, WorkOverError
from taxlens.core.executors.worker_call import Executor, WorkerCall
from taxlens.core.json_text import read_json
from taxlens.core.shared_work import MissingResultError, SharedFolder, sharing, writable
from taxlens.runs.context import RunContext
from taxlens.runs.provenance import made_differences
from taxlens.runs.worker_run import WorkerRun
from taxlens.stages import STAGES

if TYPE_CHECKING:
    from taxlens.runs.folder import Run

logger = logging.getLogger(__name__)

MISSED = 200
"""Looks for a piece's result after all workers have left a stage."""

SHARED = tuple(stage.name for stage in STAGES if stage.shared)
"""Stages whose work is cut into pieces."""

Share = Callable[[str, Mapping[str, Any]], AbstractContextManager[Any]]
"""(stage, what it is made from) -> a block in which its loops are shared."""


@contextmanager
def workers_of(run: Run, stages: Sequence[str]) -> Iterator[Share]:
    """Start the workers that a run's config asks for; yields what opens each stage to them.

    Args:
        run: the run.
        stages: what will be done.

    Raises:
        UsageError: the executor cannot be had, or workers do not see the scratch folder.
        TaxlensError: a worker failed, or died more often than it is started again; the piece is named.
    """
    section, wanted = run.config.executor, [name for name in stages if name in SHARED]
    if not wanted or (section.kind == "local" and section.workers == 1):
        yield lambda stage, made: nullcontext()
        return
    folder = scratch_of(run)
    signs = writable(folder / f"workers-{secrets.token_hex(4)}")
    told = {"folder": str(signs), "token": secrets.token_hex(8)}
    asked = {"config": run.manifest["config"], "run": str(run.folder.absolute()), "stages": wanted, **told}
    write_json(asked | {"workers": section.workers}, signs / "request.json")
    (signs / "alive").touch()
    call = WorkerCall("taxlens.runs.workers:work", told, str(signs), section.threads)
    executor = executor_of(run.config, signs)
    supervisor = Supervisor(executor, call, section.retries)
    ended_well = False
    try:
        with supervisor:
            yield lambda stage, made: _shared_stage(stage, made, folder, signs, executor, supervisor)
            (signs / "end").touch()
        ended_well = True
    finally:
        (signs / "end").touch()
        for text in supervisor.lost:
            logger.warning("started again: %s", text)
        shutil.rmtree(signs if not ended_well or section.scratch else folder, ignore_errors=True)


def scratch_of(run: Run) -> Path:
    """The folder of a run's finished pieces: the config's (relative to it), or one beside the run folder."""
    named = run.config.executor.scratch
    place = run.folder.absolute()
    return place.parent / f".{place.name}.pieces" if named is None else run.root / named


def executor_of(config: Config, folder: Path) -> Executor:
    """What starts the workers that a config asks for.

    Args:
        config: the run's config.
        folder: where a queue's files may go.
    """
    asked = config.executor
    if asked.kind == "ray":
        from taxlens.core.executors.ray_actors import RayExecutor

        return RayExecutor(asked.workers, asked.address, asked.cpus, asked.gpus)
    if asked.kind == "slurm":
        from taxlens.core.executors.slurm_jobs import SlurmExecutor

        return SlurmExecutor(asked.workers, folder / "slurm", asked.cluster, asked.cpus, asked.gpus, asked.options)
    from taxlens.core.executors.local_processes import LocalExecutor

    return LocalExecutor(asked.workers)


def request_of(stage: str, made: Mapping[str, Any]) -> str:
    """What all pieces of a stage depend on, as one hash: settings, weights, items and versions."""
    return sha256_json(
        {"stage": stage, **{key: made.get(key) for key in ("section", "seed", "versions", "pair", "suites")}}
    )


@contextmanager
def _shared_stage(
    stage: str, made: Mapping[str, Any], folder: Path, signs: Path, executor: Executor, supervisor: Supervisor
) -> Iterator[None]:
    """A stage that the workers do too; in this process its loops give what they have found."""
    if stage not in SHARED:
        yield
        return
    request = request_of(stage, made)
    write_json({"request": request, "made": dict(made)}, signs / f"begun-{stage}.json")
    first = 1 if executor.joins else 0
    left = [signs / f"left-{stage}-{rank}" for rank in range(first, executor.workers)]
    missed = 0

    def check(_where: str) -> None:
        nonlocal missed
        supervisor.check()
        missed = missed + 1 if left and all(path.exists() for path in left) else 0
        if missed > MISSED:
            fix = "the same code on every machine; then --resume."
            raise TaxlensError(explain("all workers are done and a piece is missing.", [("stage", stage)], fix))

    part = SharedFolder(writable(folder / "pieces"), request, rank=first - 1, count=executor.workers, check=check)
    try:
        with sharing(part):
            yield
    finally:
        (signs / f"over-{stage}").touch()
        logger.info("pieces of %s: %d made here, %d by other workers", stage, part.done["made"], part.done["found"])


def by_hand(job: RunContext) -> Share:
    """What does one part of a stage by itself: its share of the pieces, as far as that goes without the other parts.

    The pieces are the part's only files: `merging.merge_parts` does the stage with them.
    """
    number, count = job.part or (1, 1)

    @contextmanager
    def share(stage: str, made: Mapping[str, Any]) -> Iterator[None]:
        part = SharedFolder(
            writable(job.run.folder / "pieces"), request_of(stage, made), rank=number - 1, count=count, waits=False
        )
        with tempfile.TemporaryDirectory() as own:
            run = WorkerRun(job.run.folder, Path(own), job.config)
            run.root = job.run.root
            context = RunContext(run, progress=job.progress, stages=job.stages)
            declared = next(one for one in STAGES if one.name == stage)
            try:
                with sharing(part):
                    declared.compute(context, context.config.of(declared))
            except MissingResultError:
                logger.info("what is left of %s needs the other parts", stage)
        job.run.note(**context.facts, pieces=part.done["made"])
        yield

    return share


@contextmanager
def from_parts(folders: Sequence[Path], request: str) -> Iterator[None]:
    """Within the block, loops take what parts of a stage have found, and do here what they have not.

    Args:
        folders: of the parts' pieces.
        request: of the stage, as it is done now.
    """
    with tempfile.TemporaryDirectory() as own, sharing(SharedFolder(Path(own), request, beside=tuple(folders))):
        yield


def work(told: Mapping[str, Any], rank: int) -> None:
    """Take part in a run as one of its workers, stage after stage, until it ends.

    Args:
        told: "folder" and "token", as the run wrote them.
        rank: number of this worker.

    Raises:
        UsageError: the folder that this worker sees is not the run's.
        CheckError: this worker reads other weights or items, or runs other versions.
    """
    signs = Path(told["folder"])
    asked = _request(signs, str(told["token"]))
    context: RunContext | None = None
    for place, name in enumerate(asked["stages"]):
        try:
            begun = _begun(signs, asked["stages"][place:], rank)
        except WorkOverError:
            return
        if begun is None:
            continue
        run = WorkerRun(Path(asked["run"]), signs / f"own-{rank}", build_config(asked["config"]["resolved"]))
        run.root = Path(asked["config"]["root"])
        context = context or RunContext(run, stages=asked["stages"])
        context.run = run
        _check_same(begun["made"], context, name)
        check = WorkerSigns(signs, rank, signs / f"over-{name}").check
        part = SharedFolder(signs.parent / "pieces", begun["request"], rank=rank, count=asked["workers"], check=check)
        stage = next(one for one in STAGES if one.name == name)
        try:
            with sharing(part):
                stage.compute(context, context.config.of(stage))
        except WorkOverError:
            continue
        (signs / f"left-{name}-{rank}").touch()


def _request(signs: Path, token: str) -> dict[str, Any]:
    path = signs / "request.json"
    found = (
        read_json(path, title="a worker cannot read what is asked of it.", error=UsageError) if path.is_file() else {}
    )
    if found.get("token") != token:
        rows = [("folder", signs), ("found there", "another run's" if found else "nothing of this run")]
        fix = "executor.scratch: a folder on a file system that all machines share"
        raise UsageError(explain("a worker does not see the run's scratch folder.", rows, fix))
    return found


def _begun(signs: Path, stages: Sequence[str], rank: int) -> dict[str, Any] | None:
    """Wait until the first of some stages has begun, and return what was said of it; None: it is passed over."""
    check = WorkerSigns(signs, rank, signs / "end").check
    paths = [signs / f"begun-{stage}.json" for stage in stages]
    while not paths[0].is_file():
        if any(path.is_file() for path in paths[1:]):
            return None
        check()
        time.sleep(0.1)
    return read_json(paths[0], title="a worker cannot read what stage has begun.")


def _check_same(made: Mapping[str, Any], context: RunContext, stage: str) -> None:
    mine = context.made_from(stage)
    if rows := made_differences(made, mine):
        fix = "install the same versions on every machine, and name files that are the same on all."
        raise CheckError(explain("a worker has other weights, items, settings or versions than the run.", rows, fix))
