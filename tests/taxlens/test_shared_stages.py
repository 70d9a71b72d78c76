"""Stages done in parts, by hand or by workers, write the tables of one process, to the byte."""

from __future__ import annotations

import json
import os
import random
import signal
import threading
import time
from pathlib import Path

import pytest

from taxlens.cli.app import run_app
from taxlens.core.errors import CheckError
from taxlens.runs.folder import Run
from taxlens.runs.workers import scratch_of, work

CONFIG = """name: shared
pair: {base: demo:base, aligned: demo:planted}
suites:
  - {name: facts, file: few.jsonl}
  - {name: harm, file: harm.jsonl, kind: benefit}
templates: [plain]
tax: {bootstrap: 100}
capture: {layers: [0, 2], shard_bytes: 20000}
attribution: {levels: [component, head], max_gradients: 7, methods: [path], reading: 0}
frontier: {orders: [path, uniform], shares: [0.2], draws: 1, generate: 0, max_gradients: 7}
"""
ITEMS = 7


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    from taxlens import demo

    folder = tmp_path_factory.mktemp("config")
    for name, file, count in (("demo:facts", "few.jsonl", 40), ("demo:harm", "harm.jsonl", 24)):
        lines = demo.resolve_suite(name).read_text(encoding="utf-8").splitlines()
        step = len(lines) // count
        (folder / file).write_text("\n".join(lines[::step][:count]) + "\n", encoding="utf-8")
    (folder / "shared.yaml").write_text(CONFIG, encoding="utf-8")
    return folder / "shared.yaml"


@pytest.fixture
def small_shards(monkeypatch):
    """Several shards of a few items, as a large suite has; only where all is done in this process."""
    monkeypatch.setattr("taxlens.analysis.path.engine.ITEMS", ITEMS)
    monkeypatch.setattr("taxlens.analysis.scoring.choices.PIECE", 16)


def tables(folder: Path) -> dict[str, list[bytes]]:
    """The lines of every table of a run; seconds, which depend on the clock, left out."""
    paths = sorted((folder / "tables").glob("*.csv"))
    return {path.name: [line for line in path.read_bytes().splitlines() if b"seconds" not in line] for path in paths}


def done(*arguments: object) -> None:
    assert run_app([str(one) for one in arguments]) == 0


@pytest.fixture(scope="module")
def whole(config, tmp_path_factory):
    """stage -> the run folder of one process."""
    made: dict[str, Path] = {}

    def run(stage: str) -> Path:
        if stage not in made:
            made[stage] = tmp_path_factory.mktemp("whole") / stage
            done(stage, config, "--out", made[stage])
        return made[stage]

    return run


@pytest.mark.parametrize("stage", ["tax", "attribute"])
def test_parts_by_hand_merge_to_the_tables_of_one_process(small_shards, config, whole, tmp_path, stage):
    for number in (1, 2):
        done(stage, config, "--shard", f"{number}/2", "--out", tmp_path / f"part{number}")
        part = Run.open(tmp_path / f"part{number}")
        assert part.manifest["pieces"] >= 2
        assert not part.tables
        assert part.verify() == []
    done("merge", tmp_path / "part2", tmp_path / "part1", "--out", tmp_path / "merged")
    assert tables(tmp_path / "merged") == tables(whole(stage))
    assert Run.open(tmp_path / "merged").verify() == []


def test_parts_that_are_missing_given_twice_or_of_another_config_are_refused(config, tmp_path, capsys):
    one, other = tmp_path / "one", tmp_path / "other"
    done("tax", config, "--shard", "1/2", "--out", one)
    assert run_app(["merge", str(one), "--out", str(tmp_path / "m")]) == 2
    assert run_app(["merge", str(one), str(one), "--out", str(tmp_path / "m")]) == 2
    assert "missing, or given twice" in capsys.readouterr().err
    done("tax", config, "--shard", "2/2", "--out", other, "--set", "tax.bootstrap=110")
    assert run_app(["merge", str(one), str(other), "--out", str(tmp_path / "m")]) == 3
    assert "parts of different runs" in capsys.readouterr().err
    assert run_app(["probe", str(config), "--shard", "1/2", "--out", str(tmp_path / "p")]) == 2


def test_two_workers_of_this_machine_write_the_tables_and_the_store_of_one_process(config, tmp_path):
    one, two = tmp_path / "one", tmp_path / "two"
    stages = ["--set", "stages=[tax, capture]"]
    done("run", config, "--out", one, "-q", *stages)
    done("run", config, "--out", two, "-q", *stages, "--set", "executor.workers=2")
    assert tables(two) == tables(one)
    shards = [sorted((folder / "activations.shards").glob("*.h5")) for folder in (one, two)]
    assert len(shards[0]) > 1
    assert [path.read_bytes() for path in shards[0]] == [path.read_bytes() for path in shards[1]]
    assert "pieces of tax" in (two / "log.jsonl").read_text()
    assert not scratch_of(Run.open(two)).exists()


def asked(config, tmp_path) -> dict[str, str]:
    """What a run has left for its workers."""
    done("tax", config, "--out", tmp_path / "run")
    run = Run.open(tmp_path / "run")
    signs = tmp_path / "signs"
    signs.mkdir()
    told = {"folder": str(signs), "token": "t"}
    request = {"config": run.manifest["config"], "run": str(run.folder), "stages": ["tax"], "workers": 2, **told}
    (signs / "request.json").write_text(json.dumps(request))
    (signs / "alive").touch()
    return told


def test_a_worker_with_other_weights_or_versions_or_another_folder_is_refused(config, tmp_path):
    told = asked(config, tmp_path)
    entry = Run.open(tmp_path / "run").manifest["stages"]["tax"]
    made = {key: entry[key] for key in ("section", "seed", "versions", "pair", "suites")}
    begun = Path(told["folder"]) / "begun-tax.json"
    begun.write_text(json.dumps({"request": "r", "made": made | {"pair": made["pair"] | {"aligned": "0" * 64}}}))
    with pytest.raises(CheckError, match=r"(?s)other weights.*pair aligned"):
        work(told, 1)
    begun.write_text(json.dumps({"request": "r", "made": made | {"versions": made["versions"] | {"torch": "0"}}}))
    with pytest.raises(CheckError, match=r"(?s)other weights.*version of torch"):
        work(told, 1)
    with pytest.raises(Exception, match="does not see the run's scratch folder"):
        work(told | {"token": "another"}, 1)


def test_an_executor_that_is_not_installed_is_named(config, tmp_path, monkeypatch, capsys):
    import sys

    for kind, package in (("ray", "ray"), ("slurm", "submitit")):
        monkeypatch.setitem(sys.modules, package, None)
        assert run_app(["tax", str(config), "--out", str(tmp_path / kind), "--set", f"executor.kind={kind}"]) == 2
        assert f"taxlens[{kind}]" in capsys.readouterr().err


class Killer(threading.Thread):
    """Kills one of a run's workers, once it works, after a random time."""

    def __init__(self, place: Path, seed: int) -> None:
        super().__init__(daemon=True)
        self.place, self.draw, self.killed = place, random.Random(seed), 0

    def run(self) -> None:
        """Wait for the first worker at work, then a little more."""
        while not (at := sorted(self.place.glob("workers-*/at-*"))):
            time.sleep(0.05)
        time.sleep(self.draw.uniform(0, 8))
        rank = self.draw.choice([path.name.partition("-")[2] for path in at])
        self.killed = json.loads((at[0].parent / f"worker-{rank}.json").read_text())["pid"]
        os.kill(self.killed, signal.SIGKILL)


@pytest.mark.slow
@pytest.mark.guard_trips  # Ray looks for the metadata service of a cloud
@pytest.mark.parametrize("seed", range(10))
def test_two_workers_of_ray_of_which_one_is_killed_write_the_tables_of_one_process(config, tmp_path, seed):
    pytest.importorskip("ray")
    one = config.parent / "one"
    stages = ["--set", "stages=[tax, capture, attribute, frontier]"]
    large = config.parent / "large.yaml"
    large.write_text(CONFIG.replace("few.jsonl", "demo:facts"), encoding="utf-8")
    if not one.exists():
        done("run", large, "--out", one, "-q", *stages)
    killer = Killer(tmp_path / ".two.pieces", seed)
    killer.start()
    how = ["--set", "executor.kind=ray", "--set", "executor.workers=2"]
    done("run", large, "--out", tmp_path / "two", "-q", *stages, *how)
    assert killer.killed
    assert tables(tmp_path / "two") == tables(one)
    for path in sorted((one / "activations.shards").glob("*.h5")):
        assert path.read_bytes() == (tmp_path / "two" / "activations.shards" / path.name).read_bytes()


@pytest.mark.slow
def test_jobs_of_submitit_write_the_tables_of_one_process(config, tmp_path, whole):
    pytest.importorskip("submitit")
    how = ["--set", "executor.kind=slurm", "--set", "executor.cluster=local", "--set", "executor.workers=2"]
    done("tax", config, "--out", tmp_path / "two", *how)
    assert tables(tmp_path / "two") == tables(whole("tax"))
