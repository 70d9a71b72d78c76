"""The notebooks in examples/ run from top to bottom, and what each cell shows can be shown."""

import ast
import json
import os
import re
from pathlib import Path

import pandas as pd
import pytest

import taxlens
from benchmarks.house.notebooks import cells_of, run_cell
from taxlens.figures.style import Drawn

EXAMPLES = Path(__file__).parents[2] / "examples"
SCRIPTS = sorted(EXAMPLES.glob("*.py"))


@pytest.fixture(scope="module")
def ran(tmp_path_factory):
    """Each script run once, in an empty folder: its names, and what its cells showed."""
    found = {}

    def run(name):
        if name not in found:
            before, names = Path.cwd(), {"__name__": "__main__"}
            os.chdir(tmp_path_factory.mktemp(name))
            try:
                code = [source for kind, source in cells_of(EXAMPLES / f"{name}.py") if kind == "code"]
                shown = [run_cell(source, names)[1] for source in code]
            finally:
                os.chdir(before)
            found[name] = (names, shown)
        return found[name]

    return run


def test_there_are_three_notebooks_that_begin_with_what_they_are_for():
    assert [path.stem for path in SCRIPTS] == ["diff_layers", "explain_gap", "restore_checkpoint"]
    for path in SCRIPTS:
        kind, source = cells_of(path)[0]
        assert kind == "markdown"
        assert source.startswith("# ")


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.stem)
def test_the_notebook_is_the_script_with_what_its_cells_show(path):
    book = json.loads(path.with_suffix(".ipynb").read_text(encoding="utf-8"))
    assert (book["nbformat"], book["metadata"]["kernelspec"]["name"]) == (4, "python3")
    assert [(cell["cell_type"], "".join(cell["source"])) for cell in book["cells"]] == cells_of(path)
    assert len({cell["id"] for cell in book["cells"]}) == len(book["cells"])
    for cell in book["cells"]:
        if cell["cell_type"] == "code":
            last = ast.parse("".join(cell["source"])).body[-1]
            assert bool(cell["outputs"]) or not isinstance(last, ast.Expr), "".join(cell["source"])
    kinds = {kind for cell in book["cells"] for out in cell.get("outputs", ()) for kind in out.get("data", ())}
    assert {"image/png", "text/html"} <= kinds
    text = path.with_suffix(".ipynb").read_text(encoding="utf-8")
    assert not re.search(r"/(?:work|home|root|tmp|Users)/", text)
    assert len(text) < 1_000_000


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", [path.stem for path in SCRIPTS])
def test_every_cell_runs_and_shows_itself(name, ran):
    for shown in ran(name)[1]:
        if shown is not None and not isinstance(shown, pd.Series):
            assert hasattr(shown, "_repr_html_") or isinstance(shown, Drawn), type(shown)


@pytest.mark.filterwarnings("ignore")
def test_the_layers_notebook_finds_the_planted_components_and_closes(ran):
    names = ran("diff_layers")[0]
    assert names["found"] == names["planted"]
    assert names["effects"].sum() == pytest.approx(names["measured"], abs=0.01 * names["measured"])


@pytest.mark.filterwarnings("ignore")
def test_the_gap_notebook_scores_what_the_harness_logged(ran):
    names = ran("explain_gap")[0]
    assert names["again"] == names["logged"] > 0.4
    assert set(names["changed"]["change"]) <= {"lost", "won"}


@pytest.mark.filterwarnings("ignore")
def test_the_restoration_notebook_writes_a_checkpoint_without_the_tax(ran):
    names = ran("restore_checkpoint")[0]
    tax = {which: float(names[which].tax(names["facts"], templates=("plain",)).to_frame().set_index("metric").loc["probability", "tax"])
           for which in ("pair", "again")}  # fmt: skip
    assert tax["again"] < 0.1 * tax["pair"]


@pytest.fixture(scope="module")
def two_runs(tmp_path_factory):
    """Two recipes of refusal on the embedded base, their taxes only."""
    folder = tmp_path_factory.mktemp("runs")
    suites = "suites=[{name: facts, file: 'demo:facts'}, {name: harm, file: 'demo:harm', kind: benefit}]"
    from taxlens.demo import demo_config

    made = []
    for pair in ("refusal", "rlhf"):
        config, chosen = demo_config(pair)
        asked = [*chosen, suites, "templates=[plain]", "stages=[tax]", "tax.bootstrap=200"]
        made.append(taxlens.run(config, out=folder / pair, overrides=asked))
    return made


def test_two_runs_stand_side_by_side_as_table_html_and_figure(two_runs):
    both = taxlens.compare(two_runs)
    frame = both.to_frame()
    assert list(dict.fromkeys(frame["run"])) == ["demo-refusal", "demo-rlhf"]
    facts = frame[(frame["suite"] == "facts") & (frame["metric"] == "probability")].set_index("run")["tax"]
    assert facts["demo-refusal"] > facts["demo-rlhf"] > 0
    assert "<table" in both._repr_html_()
    drawn = both.plot()
    assert set(drawn.plotted["run"]) == {"demo-refusal", "demo-rlhf"}
    assert drawn.figure.axes[0].get_xlabel().startswith("tax in probability")


def test_suites_of_one_name_and_other_items_are_not_drawn_on_one_row(two_runs):
    both = taxlens.compare(two_runs)
    assert both.different == ()
    before = two_runs[1].manifest["suites"]["facts"]["sha256"]
    two_runs[1].manifest["suites"]["facts"]["sha256"] = "beef" + before[4:]
    try:
        assert both.different == ("facts",)
        assert "not the same items in all: facts" in repr(both)
        assert {"facts #beef", f"facts #{before[:4]}"} <= set(both.to_frame()["suite"])
        assert "harm" in set(both.to_frame()["suite"])
    finally:
        two_runs[1].manifest["suites"]["facts"]["sha256"] = before


def test_pair_run_and_store_complete_by_tab_with_what_they_can_do(two_runs, ran):
    names = ran("diff_layers")[0]
    assert {"tax", "capture", "attribute", "diagnose", "frontier", "restore", "restoration"} <= set(dir(names["pair"]))
    assert {"probe", "similarity", "rows", "labels"} <= set(dir(names["acts"]))
    assert {"table", "tables", "verify", "config"} <= set(dir(two_runs[0]))
    for thing in (names["pair"], names["acts"], two_runs[0]):
        assert not [name for name in dir(thing) if name.startswith("_")]
        assert "<" in thing._repr_html_()
