"""The run folder: made once, locked, hashed, resumed by the same config only, honest about how it ended."""

import json
import logging
from dataclasses import replace

import pandas as pd
import pytest

from taxlens.core.errors import CheckError, ConfigError, UsageError
from taxlens.runs import running
from taxlens.runs.folder import Run
from taxlens.runs.running import run, summary
from taxlens.stages import STAGES

pytestmark = pytest.mark.made_up_tables
CONFIG = """name: small
pair: {base: a, aligned: b}
suites:
  - {name: facts, file: facts.jsonl}
stages: [tax, report]
"""


@pytest.fixture
def config(tmp_path):
    path = tmp_path / "c.yaml"
    path.write_text(CONFIG, encoding="utf-8")
    return path


@pytest.fixture
def done(monkeypatch, put):
    """Replace the two stages by ones that write a small table each, and list the order they ran in."""
    order = []

    def write(name):
        def stage(job, section):
            order.append(name)
            put(job.run, "tax" if name == "tax" else "closure", pd.DataFrame({"metric": ["accuracy"], "tax": [0.1]}))

        return stage

    small = (replace(s, compute=write(s.name), figures=()) for s in STAGES if s.name in ("tax", "report"))
    monkeypatch.setattr(running, "STAGES", tuple(small))
    return order


def test_a_run_leaves_tables_and_a_manifest_that_verifies(config, tmp_path, done):
    finished = run(config, out=tmp_path / "r")
    manifest = json.loads((tmp_path / "r" / "run.json").read_text())
    assert done == ["tax", "report"]
    assert manifest["status"] == "success"
    assert set(finished.outputs) == {"tables/tax.csv", "tables/closure.csv"}
    assert manifest["stages"]["tax"]["status"] == "success"
    assert manifest["config"]["resolved"]["tax"]["bootstrap"] == 2000
    assert manifest["config"]["given"]["name"] == "small"
    assert finished.verify() == []
    assert summary(finished)["tax"][0]["tax"] == 0.1


def test_a_changed_missing_or_new_file_is_named(config, tmp_path, done):
    finished = run(config, out=tmp_path / "r")
    (tmp_path / "r" / "tables" / "tax.csv").write_text("metric,tax\naccuracy,9\n")
    (tmp_path / "r" / "tables" / "closure.csv").unlink()
    (tmp_path / "r" / "stray.txt").write_text("x")
    with pytest.raises(CheckError) as caught:
        finished.check()
    text = str(caught.value)
    assert "changed: tables/tax.csv" in text
    assert "missing: tables/closure.csv" in text
    assert "not in the manifest: stray.txt" in text


def test_a_folder_that_exists_is_refused_without_resume(config, tmp_path, done):
    run(config, out=tmp_path / "r")
    with pytest.raises(UsageError, match="the run folder exists already"):
        run(config, out=tmp_path / "r")


def test_resume_does_no_stage_twice(config, tmp_path, done):
    run(config, out=tmp_path / "r", stages=["tax"])
    run(config, out=tmp_path / "r", resume=True)
    assert done == ["tax", "report"]


def test_resume_by_another_config_is_refused_and_says_what_differs(config, tmp_path, done):
    run(config, out=tmp_path / "r")
    with pytest.raises(CheckError, match=r"seed\s+0 -> 7"):
        run(config, out=tmp_path / "r", resume=True, overrides=["seed=7"])


def test_a_run_folder_is_gone_on_with_stage_by_stage(config, tmp_path, done):
    run(config, out=tmp_path / "r", stages=["tax"])
    again = run(tmp_path / "r", stages=["report"])
    assert again.tables == ("closure", "tax")
    with pytest.raises(UsageError, match="its own output"):
        run(tmp_path / "r", out=tmp_path / "other")


def test_a_failed_stage_is_an_error_in_the_manifest_and_in_the_log(config, tmp_path, done, monkeypatch):
    def fail(job, section):
        raise ConfigError("no such suite")

    tax, report = running.STAGES
    monkeypatch.setattr(running, "STAGES", (tax, replace(report, compute=fail)))
    with pytest.raises(ConfigError):
        run(config, out=tmp_path / "r")
    opened = Run.open(tmp_path / "r")
    assert opened.manifest["status"] == "error"
    assert opened.manifest["error"] == "ConfigError: no such suite"
    assert opened.manifest["stages"]["report"]["status"] == "error"
    rows = [json.loads(line) for line in (tmp_path / "r" / "log.jsonl").read_text().splitlines()]
    assert rows[-1]["message"] == "run ended by ConfigError"


def test_an_interrupted_run_is_cancelled(config, tmp_path, done, monkeypatch):
    def interrupt(job, section):
        raise KeyboardInterrupt

    tax, report = running.STAGES
    monkeypatch.setattr(running, "STAGES", (tax, replace(report, compute=interrupt)))
    with pytest.raises(KeyboardInterrupt):
        run(config, out=tmp_path / "r")
    assert Run.open(tmp_path / "r").manifest["status"] == "cancelled"


def test_two_processes_cannot_hold_one_folder(config, tmp_path, done):
    opened = run(config, out=tmp_path / "r")
    with opened.locked(), pytest.raises(UsageError, match="another process"), Run.open(tmp_path / "r").locked():
        pass


def test_no_run_folder_is_told_as_such(tmp_path):
    with pytest.raises(UsageError, match="not a run folder"):
        Run.open(tmp_path)


def test_an_unknown_table_lists_those_there_are(config, tmp_path, done):
    finished = run(config, out=tmp_path / "r")
    with pytest.raises(UsageError, match="closure, tax"):
        finished.table("taxes")


def test_the_log_handler_is_gone_after_a_run(config, tmp_path, done):
    run(config, out=tmp_path / "r")
    assert logging.getLogger("taxlens").handlers == []


def test_html_escapes_the_name(config, tmp_path, done):
    finished = run(config, out=tmp_path / "r<b>")
    assert "<b>" not in finished._repr_html_().replace("<p>", "")
