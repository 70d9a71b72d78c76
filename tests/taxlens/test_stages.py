"""A stage is one object and one line: everything else that speaks of stages finds it there."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from taxlens.stages import FIGURES, STAGES, TABLES
from taxlens.stages.section import Section
from taxlens.stages.stage import figures_of, tables_of

HERE = Path(__file__).parent
CONFIG = """name: small
pair: {base: demo:base, aligned: demo:planted}
suites:
  - {name: facts, file: facts.jsonl}
templates: [plain]
tax: {bootstrap: 100}
stages: [tax, lengths, figures, report]
lengths: {most: 7}
"""
SCRIPT = """
import json, sys
import fake_stage
fake_stage.register()
from taxlens.cli.app import run_app
for line in json.loads(sys.argv[1]):
    print("$", *line, flush=True)
    print("code", run_app(line), flush=True)
"""
NOTEBOOK = """
import fake_stage
fake_stage.register()
import taxlens
pair = taxlens.load_pair("demo:base", "demo:planted")
found = pair.lengths([taxlens.suite("demo:facts")], most=3)
print("lengths" in dir(pair), len(found.to_frame()), found.plot().caption)
from benchmarks.house.contract_page import blocks, config_page, tables_page
print("`taxlens lengths`" in blocks()["stages"], "## `lengths`" in config_page(), "### prompt_lengths.csv" in tables_page())
"""


def python(code, *arguments, cwd):
    root = HERE.parents[1]
    environment = os.environ | {
        "PYTHONPATH": os.pathsep.join((str(root), str(HERE), os.environ["PYTHONPATH"])),
        "COLUMNS": "120",
    }
    return subprocess.run(
        [sys.executable, "-c", code, *arguments], capture_output=True, text=True, cwd=cwd, env=environment, check=False
    )


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    from taxlens.demo import resolve

    folder = tmp_path_factory.mktemp("fake")
    lines = resolve_lines(resolve)
    (folder / "facts.jsonl").write_text("\n".join(lines[::6]) + "\n", encoding="utf-8")
    (folder / "c.yaml").write_text(CONFIG, encoding="utf-8")
    return folder


def resolve_lines(resolve):
    from taxlens.demo.catalogue import resolve_suite

    return resolve_suite("demo:facts").read_text(encoding="utf-8").splitlines()


@pytest.fixture(scope="module")
def told(folder):
    again = ["lengths", "r"]
    lines = [
        ["--help"], ["run", "c.yaml", "--out", "r"], ["report", "r", "--latex"], again, [*again, "--json"], [*again, "--dry-run"],
        [*again, "--dry-run", "--set", "lengths.suites=[fact]"], ["run", "c.yaml", "--out", "s", "--set", "lengths.mosst=3"],
    ]  # fmt: skip
    done = python(SCRIPT, json.dumps(lines), cwd=folder)
    assert done.returncode == 0, done.stderr
    return done


def test_the_command_line_and_the_terminal_know_a_new_stage(told):
    assert "lengths      Count the letters of prompts." in told.stdout
    assert "7 prompts counted" in told.stdout


def test_run_report_and_paper_know_a_new_stage(told, folder):
    run = folder / "r"
    manifest = json.loads((run / "run.json").read_text(encoding="utf-8"))
    assert manifest["stages"]["lengths"]["status"] == "success"
    assert manifest["config"]["resolved"]["lengths"] == {"most": 7, "suites": []}
    assert (run / "tables" / "prompt_lengths.csv").read_text(encoding="utf-8").startswith("suite,item,letters\n")
    assert (run / "figures" / "prompt_lengths.pdf").is_file()
    page = (run / "report.html").read_text(encoding="utf-8")
    for said in ("Its prompts were counted.", "Letters are no tokens.", "Lengths of 7 prompts.", "prompt_lengths"):
        assert said in page
    assert "Prompts were counted" in (run / "latex" / "methods.tex").read_text(encoding="utf-8")
    assert (run / "latex" / "table_lengths.tex").is_file()


def test_json_the_dry_run_and_its_checks_know_a_new_stage(told):
    parts = [part.splitlines() for part in told.stdout.split("$ ")[1:]]
    assert [part[-1] for part in parts] == ["code 0"] * 6 + ["code 2"] * 2
    assert len(json.loads(parts[4][1])["prompt_lengths"]) == 7
    assert any("about 30 s, 2 MB on disk" in line for line in parts[5])
    for said in ("unknown suite 'fact'", "Try: facts", "unknown config key 'lengths.mosst'"):
        assert said in told.stderr


def test_the_notebook_and_the_contract_know_a_new_stage(folder):
    done = python(NOTEBOOK, cwd=folder)
    assert done.stdout.splitlines() == ["True 3 Lengths of 3 prompts.", "True True True"], done.stderr


def test_every_stage_is_declared_whole():
    names = [stage.name for stage in STAGES]
    keys = [stage.key for stage in STAGES if stage.key]
    assert len(set(names)) == len(names)
    assert len(set(keys)) == len(keys)
    for stage in STAGES:
        assert len(stage.help) <= 45, stage.name
        assert issubclass(stage.section, Section)
        assert stage.compute.load()
        assert set(stage.needs) | set(stage.uses) <= set(names)
        assert set(stage.summary) <= {table.name for table in stage.tables}
        for lazy in (
            stage.check,
            stage.cost,
            stage.notebook,
            *(getattr(stage.words, n) for n in stage.words.__slots__),
        ):
            assert lazy is None or callable(lazy.load())
        for figure in stage.figures:
            assert callable(figure.jobs.load())


def test_a_table_or_figure_is_declared_by_one_stage_only():
    assert set(TABLES) == {table.name for stage in STAGES for table in stage.tables}
    assert set(FIGURES) == {figure.name for stage in STAGES for figure in stage.figures}
    with pytest.raises(ValueError, match="declared twice"):
        tables_of([*STAGES, STAGES[0]])
    with pytest.raises(ValueError, match="declared twice"):
        figures_of([*STAGES, STAGES[0]])


def test_the_contracts_pages_are_those_of_the_stages():
    from benchmarks.house.contract_page import DOCS, pages

    for name, text in pages().items():
        assert (DOCS / name).read_text(encoding="utf-8") == text, (
            f"docs/{name}: python -m benchmarks.house.contract_page"
        )


@pytest.mark.parametrize("metrics", [["nll"], ["margin", "accuracy_norm"]], ids="-".join)
def test_any_subset_of_the_metrics_runs_to_the_report(tmp_path, folder, metrics):
    from taxlens.runs.running import run

    config = tmp_path / "c.yaml"
    said = f"\ntax: {{bootstrap: 100, metrics: [{', '.join(metrics)}]}}\nstages: [tax, figures, report]\n"
    head = CONFIG.split("tax:")[0].replace("facts.jsonl", str(folder / "facts.jsonl"))
    config.write_text(head + said, encoding="utf-8")
    done = run(config, out=tmp_path / "r")
    assert done.manifest["status"] == "success"
    assert set(done.table("tax")["metric"]) == set(metrics)
    assert done.table("power").empty
    assert (tmp_path / "r" / "tables" / "power.csv").read_text(encoding="utf-8").startswith("suite,template,metric,tax")
