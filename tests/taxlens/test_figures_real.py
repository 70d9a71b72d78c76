"""Every kind of figure on tables of real runs: fonts, width, legibility at column and page width, the same bytes, the plotted numbers.

The tables in `figure_tables/` are thinned from runs on SmolLM2 (states, evidence and restoration: from the embedded pair) by
`python -m benchmarks.house.figure_tables`.
"""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from pypdf import PdfReader

from benchmarks.house.legible import illegible
from taxlens.config.schema import build_config
from taxlens.figures.save import save_figure
from taxlens.figures.style import width_of
from taxlens.runs.folder import Run
from taxlens.stages import FIGURES
from taxlens.stages.figures.drawing import draw_run

HERE = Path(__file__).parent / "figure_tables"
ROOT = Path(__file__).parents[2]
NOT_OF_A_RUN = {"comparison", "proving_ground"}
VALUES = {
    "tax": ["tax"], "two_by_two": ["value"], "lost_won": ["lost", "won"], "probe": ["value"], "similarity": ["value"],
    "spectra": ["value"], "attribution": ["effect"], "methods": ["effect"], "maps": ["effect"], "path": ["value"],
    "evidence": ["value"], "restoration": ["restored", "step"], "comparison": ["tax"], "proving_ground": ["mass", "distance"],
    "figure1": ["returned", "measured"], "frontier": [],
}  # fmt: skip


def tables_of(names):
    words = dict.fromkeys(
        ("suite", "template", "component", "item", "group", "text", "control", "map", "held_out"), str
    )
    read = {"keep_default_na": False, "na_values": [""], "dtype": words}
    found = {name: pd.read_csv(HERE / f"{name}.csv", **read) for name in names if (HERE / f"{name}.csv").is_file()}
    if "comparison" in names:
        tax = pd.read_csv(HERE / "tax.csv")
        found["comparison"] = pd.concat(
            [tax.assign(run="selective"), tax.assign(run="another recipe", tax=tax["tax"] * 0.9)]
        )
    if "proving_ground" in names:
        rng = np.random.default_rng(0)
        rows = [(f, s, m, rng.uniform(0.2, 1), rng.lognormal(-1, 1), p) for f in ("P1", "P2") for s in range(3)
                for m, p in (("exact Shapley", 128), ("path", 30), ("graft and restore, normalised", 16))]  # fmt: skip
        found["proving_ground"] = pd.DataFrame(rows, columns=["family", "seed", "method", "mass", "distance", "passes"])
    return found


def jobs_of(kind, inches):
    tables = tables_of((*FIGURES[kind].tables, *FIGURES[kind].optional))
    if not set(FIGURES[kind].tables) <= set(tables):
        return {}
    return dict(FIGURES[kind].jobs(tables, inches))


DRAWN = [kind for kind in FIGURES if jobs_of(kind, 5.5)]


def test_every_kind_that_needs_no_further_stage_is_drawn_from_the_real_tables():
    assert {"tax", "two_by_two", "lost_won", "probe", "similarity", "spectra", "attribution", "methods", "maps", "tokens", "path",
            "states", "evidence", "restoration", "frontier", "figure1", "comparison", "proving_ground"} <= set(DRAWN)  # fmt: skip


@pytest.mark.parametrize("venue, width", [("neurips", "page"), ("acl", "column")])
@pytest.mark.parametrize("kind", DRAWN)
def test_a_real_figure_is_legible_at_its_final_width(kind, venue, width):
    if kind == "figure1" and width == "column":
        pytest.skip("the composite is one page wide")
    for name, draw in list(jobs_of(kind, width_of(venue, width)).items())[:2]:
        assert illegible(draw().figure) == [], name


@pytest.mark.parametrize("kind", DRAWN)
def test_a_real_figure_has_venue_fonts_width_and_the_same_bytes_twice(kind, tmp_path):
    width = "page" if kind == "figure1" else "column"
    name, draw = next(iter(jobs_of(kind, width_of("acl", width)).items()))
    for folder in ("one", "two"):
        save_figure(draw(), tmp_path / folder, name)
    for path in (tmp_path / "one").iterdir():
        assert path.read_bytes() == (tmp_path / "two" / path.name).read_bytes(), path.name
    page = PdfReader(tmp_path / "one" / f"{name}.pdf").pages[0]
    assert float(page.mediabox.width) / 72 == pytest.approx(width_of("acl", width), abs=0.01)
    assert "/Type3" not in {font.get_object()["/Subtype"] for font in page["/Resources"]["/Font"].values()}


def drawn_numbers(figure):
    found = []
    for axes in figure.axes:
        for line in axes.lines:
            found += [np.asarray(line.get_xdata(), float), np.asarray(line.get_ydata(), float)]
        found += [np.array([bar.get_width(), bar.get_height()]) for bar in axes.patches if hasattr(bar, "get_width")]
        found += [np.asarray(image.get_array(), float).ravel() for image in axes.images]
    numbers = np.concatenate([np.atleast_1d(part).ravel() for part in found])
    return np.unique(np.round(numbers[np.isfinite(numbers)], 9))


@pytest.mark.parametrize("kind", [kind for kind in DRAWN if VALUES.get(kind)])
def test_the_csv_beside_a_real_figure_is_what_is_drawn(kind, tmp_path):
    name, draw = next(iter(jobs_of(kind, 5.5).items()))
    drawn = draw()
    save_figure(drawn, tmp_path, name)
    written, shown = pd.read_csv(tmp_path / f"{name}.csv"), drawn_numbers(drawn.figure)
    for column in VALUES[kind]:
        values = written[column].dropna().to_numpy(float)
        assert len(values)
        near = np.min(
            [np.abs(shown[:, None] - sign * scale * values).min(0) / scale for sign in (1, -1) for scale in (1, 100)],
            axis=0,
        )
        assert near.max() < 1e-7, (column, values[near.argmax()])


def test_a_run_is_redrawn_from_its_tables_alone(tmp_path, put):
    values = {"name": "small", "pair": {"base": "a", "aligned": "b"}, "suites": [{"name": "facts", "file": "f"}]}
    run = Run.create(build_config(values), tmp_path / "r", given=values, root=tmp_path)
    for name, frame in tables_of(["attribution", "closure"]).items():
        put(run, name, frame)
    paths = draw_run(run, venue="acl", width="column", only="attribution")
    assert {path.suffix for path in paths} == {".pdf", ".png", ".svg", ".csv", ".txt"}
    assert {path.stem for path in paths} == {
        f"attribution_{suite}_probability{level}"
        for suite in ("agreement", "overrefusal")
        for level in ("", "_head", "_singular")
    }


@pytest.mark.slow
@pytest.mark.parametrize("name", ["demo", "smollm2", "smollm2-frontier"])
def test_every_figure_of_a_whole_run_is_legible(name):
    folder = ROOT / "runs" / name
    if not (folder / "run.json").is_file():
        pytest.skip(f"no run in {folder}")
    run = Run.open(folder)
    said = {}
    for kind in FIGURES.values():
        if all(run.has(table) for table in kind.tables):
            tables = {table: run.table(table) for table in (*kind.tables, *kind.optional) if run.has(table)}
            said |= {figure: found for figure, draw in kind.jobs(tables, 5.5) if (found := illegible(draw().figure))}
    assert said == {}
