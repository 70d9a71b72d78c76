"""Figures: fonts that venues accept, the venue's width, the same bytes twice, the plotted numbers beside each, nothing clipped."""

import re

import numpy as np
import pandas as pd
import pytest
from pypdf import PdfReader

from benchmarks.house.legible import illegible
from taxlens.core.errors import UsageError
from taxlens.figures.curves import draw_similarity_curves
from taxlens.figures.maps import draw_head_map, draw_layer_map
from taxlens.figures.save import save_figure
from taxlens.figures.style import VENUES, new_figure, width_of
from taxlens.stages import FIGURES as KINDS
from taxlens.stages.attribute.attribution_figure import attribution_rows, draw_attribution
from taxlens.stages.attribute.path_figure import draw_profile
from taxlens.stages.attribute.tokens_figure import draw_tokens
from taxlens.stages.diagnose.states_figure import draw_states
from taxlens.stages.figures.drawing import draw_result
from taxlens.stages.frontier.figure1 import draw_figure1
from taxlens.stages.frontier.frontier_figure import by_order, draw_predicted, draw_restoration, efficient
from taxlens.stages.probe.probe_figure import draw_probe_curves
from taxlens.stages.similarity.directions_figure import draw_direction_effects, draw_direction_names
from taxlens.stages.similarity.similarity_map_figure import draw_similarity_map
from taxlens.stages.similarity.spectra_figure import draw_spectra
from taxlens.stages.tax.ledger_figure import draw_lost_won, draw_two_by_two
from taxlens.stages.tax.tax_figure import draw_tax

rng = np.random.default_rng(0)


def spans(frame, name):
    return frame.assign(low=frame[name] - 0.02, high=frame[name] + 0.02)


@pytest.fixture(scope="module")
def tables():
    suites = ["facts", "a suite with a long name", "harm"]
    tax = pd.DataFrame(
        [
            (s, "benefit" if s == "harm" else "capability", m, t)
            for s in suites
            for m in ("accuracy", "nll")
            for t in ("plain", "chat")
        ],
        columns=["suite", "kind", "metric", "template"],
    ).assign(tax=lambda f: rng.normal(size=len(f)) / 5, lost=7, won=3, n_items=100, n_groups=20)
    two = pd.DataFrame(
        [(s, "accuracy", e) for s in suites for e in ("weights", "template", "interaction", "total")],
        columns=["suite", "metric", "effect"],
    ).assign(value=lambda f: rng.normal(size=len(f)) / 5)
    names = [f"{layer}.{kind}" for layer in range(12) for kind in ("attn", "mlp", "norm")]
    components = ["embed", *names, "final_norm", "unembed"]
    parts = pd.DataFrame({"component": components, "effect": rng.normal(size=len(components)) / 50}).assign(
        level="component",
        kind=lambda f: f["component"].str.split(".").str[-1].replace({"final_norm": "norm"}),
        layer=lambda f: pd.to_numeric(f["component"].str.split(".").str[0], errors="coerce").fillna(-1),
    )
    heads = pd.DataFrame({"component": [f"{layer}.attn.h{h}" for layer in range(12) for h in range(9)]}).assign(
        level="head", kind="attn", effect=lambda f: rng.normal(size=len(f)) / 90, layer=0
    )
    attribution = spans(pd.concat([parts, heads]).assign(suite="facts", metric="accuracy", method="path"), "effect")
    attribution["share"] = 0.1
    total = parts["effect"].sum()
    closure = pd.DataFrame(
        [("facts", "plain", "accuracy", "path", total + 0.01, total, 0.01)],
        columns=["suite", "template", "metric", "method", "tax", "attributed", "residual"],
    )
    layers = range(12)
    probes = pd.DataFrame(
        [("facts", "correct", "plain", l, f, r, c) for l in layers
         for f, r, c in (("base", "base", "none"), ("aligned", "aligned", "none"), ("base", "aligned", "none"), ("base", "base", "shuffled"))],
        columns=["suite", "label", "template", "layer", "fitted_on", "read_on", "control"],
    ).assign(metric="auc", map="none", value=lambda f: rng.uniform(0.4, 1, len(f)), n_items=100, n_groups=20)  # fmt: skip
    similarity = pd.DataFrame(
        [("", t, l, l, m) for t in ("plain", "chat") for l in layers for m in ("cka", "procrustes", "drift")],
        columns=["suite", "template", "layer_base", "layer_aligned", "measure"],
    ).assign(value=lambda f: rng.uniform(0.4, 1, len(f)), n_items=100)
    crossed = pd.DataFrame(
        [("", "plain", a, b, "cka", 1 - abs(a - b) / 20, 100) for a in layers for b in layers],
        columns=["suite", "template", "layer_base", "layer_aligned", "measure", "value", "n_items"],
    )
    drops = spans(probes[probes["read_on"] == "aligned"].drop_duplicates("layer").assign(drop=0.1), "drop").assign(
        p_adjusted=0.03, cosine=0.4, ceiling=0.5
    )
    names = pd.DataFrame(
        [("plain", "resid_post", l, "gain", r, k, e, f"a rather long name {l} of {k}", 2.5, 3.0)
         for l in (1, 5) for r in range(2) for k in ("token", "probe", "item") for e in "+-" for _ in range(4)],
        columns=["template", "site", "layer", "spectrum", "rank", "kind", "end", "name", "value", "null"],
    )  # fmt: skip
    tested = pd.DataFrame(
        [(s, "plain", 5, k, "accuracy", 0.1) for s in suites for k in ("ablate", "inject")],
        columns=["suite", "template", "layer", "intervention", "metric", "value"],
    ).assign(random=0.01, random_extreme=0.02, n_items=40, n_groups=9)
    spectra = pd.DataFrame(
        [("plain", l, s, r) for l in layers for s in ("gain", "loss") for r in range(20)],
        columns=["template", "layer", "spectrum", "rank"],
    ).assign(
        value=lambda f: f["rank"] / 20,
        null_low=lambda f: f["rank"] / 20 - 0.1,
        null_high=lambda f: f["rank"] / 20 + 0.1,
    )
    path = pd.DataFrame(
        [(s, "accuracy", t) for s in suites for t in np.linspace(0, 1, 7)], columns=["suite", "metric", "t"]
    ).assign(template="plain", value=lambda f: 1 - f["t"] ** 2, chord=lambda f: 1 - f["t"])
    frontier = pd.DataFrame(
        [(f"{o}-{x}-{d}", o, d, x, s) for o in ("path", "one_gradient", "random", "uniform") for x in (0.01, 0.025, 0.05)
         for d in range(3 if o == "random" else 1) for s in ("", "facts")],
        columns=["plan", "order", "draw", "share_undone", "suite"],
    ).assign(metric="accuracy", returned=lambda f: rng.uniform(0, 1, len(f)), benefit_kept=0.97,
             tax_predicted=lambda f: rng.uniform(0, 0.3, len(f)), tax=lambda f: f["tax_predicted"] + 0.01)  # fmt: skip
    for name in ("returned", "benefit_kept"):
        frontier[f"{name}_low"], frontier[f"{name}_high"] = frontier[name] - 0.1, frontier[name] + 0.1
    states = pd.DataFrame(
        [
            ("facts", "plain", "resid_post", l, s)
            for l, s in zip(layers, ["intact", "suppressed", "rotated", "erased"] * 3)
        ],
        columns=["suite", "template", "site", "layer", "state"],
    )
    tokens = pd.DataFrame(
        [("facts", "accuracy", "", i, 0, t, f" word{t}") for i in ("facts/1", "facts/2") for t in range(8)],
        columns=["suite", "metric", "component", "item", "choice", "token", "text"],
    ).assign(effect=lambda f: rng.normal(size=len(f)) / 50)
    return {
        "tax": spans(tax, "tax"), "two": spans(two, "value"), "attribution": attribution, "closure": closure,
        "probes": spans(probes, "value"), "similarity": spans(similarity, "value"), "spectra": spectra, "path": path,
        "frontier": frontier, "states": states, "tokens": tokens,
        "crossed": crossed, "drops": drops, "names": names, "tested": spans(tested, "value"),
    }  # fmt: skip


FIGURES = {
    "tax": lambda t, w: draw_tax(t["tax"], metric="accuracy", width=w),
    "two_by_two": lambda t, w: draw_two_by_two(t["two"], metric="accuracy", width=w),
    "lost_won": lambda t, w: draw_lost_won(t["tax"], width=w),
    "attribution": lambda t, w: draw_attribution(
        t["attribution"], closure=t["closure"], suite="facts", metric="accuracy", width=w
    ),
    "layer_map": lambda t, w: draw_layer_map(t["attribution"], suite="facts", metric="accuracy", width=w),
    "head_map": lambda t, w: draw_head_map(t["attribution"], suite="facts", metric="accuracy", width=w),
    "probe": lambda t, w: draw_probe_curves(t["probes"], suite="facts", label="correct", template="plain", width=w),
    "probe_drop": lambda t, w: draw_probe_curves(
        t["probes"], suite="facts", label="correct", template="plain", drops=t["drops"], width=w
    ),
    "similarity": lambda t, w: draw_similarity_curves(t["similarity"], width=w),
    "similarity_map": lambda t, w: draw_similarity_map(t["crossed"], width=w),
    "directions": lambda t, w: draw_direction_names(t["names"], width=w),
    "direction_effects": lambda t, w: draw_direction_effects(t["tested"], metric="accuracy", width=w),
    "spectra": lambda t, w: draw_spectra(t["spectra"], template="plain", width=w),
    "path": lambda t, w: draw_profile(t["path"], metric="accuracy", width=w),
    "restoration": lambda t, w: draw_restoration(t["frontier"], metric="accuracy", width=w),
    "figure1": lambda t, w: draw_figure1(
        t["frontier"], attribution=t["attribution"], closure=t["closure"], metric="accuracy", width=w
    ),
    "states": lambda t, w: draw_states(t["states"], width=w),
    "tokens": lambda t, w: draw_tokens(
        t["tokens"], suite="facts", items=("facts/1", "facts/2"), metric="accuracy", width=w
    ),
}


@pytest.mark.parametrize("name", FIGURES)
def test_every_figure_has_venue_fonts_width_and_no_clipped_or_tiny_text(name, tables, tmp_path):
    drawn = FIGURES[name](tables, width_of("neurips"))
    save_figure(drawn, tmp_path, name)
    page = PdfReader(tmp_path / f"{name}.pdf").pages[0]
    assert float(page.mediabox.width) / 72 == pytest.approx(5.5, abs=0.01)
    kinds = {font.get_object()["/Subtype"] for font in page["/Resources"]["/Font"].values()}
    assert "/Type3" not in kinds
    assert illegible(drawn.figure) == []
    assert len(drawn.caption) > 40


@pytest.mark.parametrize("venue, width", [("acl", "page"), ("acl", "column")])
@pytest.mark.parametrize("name", [name for name in FIGURES if name != "figure1"])
def test_every_figure_fits_page_and_column_without_text_on_text(name, venue, width, tables):
    assert illegible(FIGURES[name](tables, width_of(venue, width)).figure) == []


def test_text_on_text_outside_the_canvas_or_too_small_is_found():
    figure = new_figure(2, 1)
    figure.set_layout_engine("none")
    figure.text(0.1, 0.5, "one word")
    assert illegible(figure) == []
    figure.text(0.12, 0.5, "another")
    figure.text(0.9, 0.2, "too far to the right")
    figure.text(0.1, 0.8, "tiny", fontsize=4)
    said = " ".join(illegible(figure))
    assert "'one word' and 'another' overlap" in said
    assert "'too far to the right' leaves the canvas" in said
    assert "'tiny' is set in 4 points" in said


@pytest.mark.parametrize("name", ["tax", "attribution", "similarity"])
def test_a_figure_is_the_same_bytes_on_a_second_run(name, tables, tmp_path):
    for folder in ("one", "two"):
        save_figure(FIGURES[name](tables, 5.5), tmp_path / folder, name)
    for path in (tmp_path / "one").iterdir():
        assert path.read_bytes() == (tmp_path / "two" / path.name).read_bytes(), path.name


def test_the_csv_beside_the_bar_is_what_is_drawn_and_ends_in_the_tax(tables, tmp_path):
    drawn = FIGURES["attribution"](tables, 5.5)
    save_figure(drawn, tmp_path, "a")
    written = pd.read_csv(tmp_path / "a.csv")
    bars = drawn.figure.axes[0].patches
    np.testing.assert_allclose([bar.get_width() / 100 for bar in bars], written["effect"], rtol=1e-9)
    assert list(written["component"].tail(2)) == ["unexplained", "measured tax"]
    assert written["effect"].iloc[:-1].sum() == pytest.approx(written["effect"].iloc[-1])


def test_the_csv_beside_the_curves_is_what_is_drawn(tables):
    drawn = FIGURES["probe"](tables, 5.5)
    lines = [line for line in drawn.figure.axes[0].lines if not line.get_label().startswith("_")]
    np.testing.assert_array_equal(np.concatenate([line.get_ydata() for line in lines]), drawn.plotted["value"])


def test_unchanged_components_are_not_among_the_leading(tables):
    frame = tables["attribution"].copy()
    frame.loc[frame["component"] != "3.mlp", "effect"] = 0.0
    rows = attribution_rows(frame, tables["closure"], suite="facts", metric="accuracy")
    assert list(rows["component"]) == ["3.mlp", "38 others", "unexplained", "measured tax"]


def test_a_front_joins_the_plans_that_no_other_beats_in_both():
    plans = pd.DataFrame({"benefit_kept": [1.0, 0.9, 0.95, 0.8, 0.9], "returned": [0.0, 0.5, 0.2, 0.4, 0.3]})
    front, rest = efficient(plans)
    assert front.index.tolist() == [0, 2, 1]  # from all of the benefit downwards, each with more of the tax
    assert sorted(rest.index) == [3, 4]


def test_what_cannot_be_drawn_says_what_is_there(tables):
    with pytest.raises(UsageError, match="accuracy, nll"):
        draw_tax(tables["tax"], metric="margin")
    with pytest.raises(UsageError, match="no path attribution"):
        draw_attribution(tables["attribution"], closure=tables["closure"], suite="fact", metric="accuracy")
    with pytest.raises(UsageError, match="must be one of"):
        width_of("neurip")
    with pytest.raises(UsageError, match="predicted"):
        draw_predicted(tables["frontier"], metric="margin")


def test_a_result_draws_its_first_figure(tables):
    assert draw_result("tax", tables["tax"]).plotted["metric"].iloc[0] == "accuracy"
    with pytest.raises(UsageError, match="unknown drawing"):
        draw_result("tax", tables["tax"], name="tax_margin")


def test_random_draws_of_one_share_are_one_point_however_many_units_each_touches():
    rows = pd.DataFrame(
        {"plan": ["random-2.5%-d00", "random-2.5%-d01", "path-2.5%"], "order": ["random", "random", "path"]}
    ).assign(share_undone=[0.2, 0.3, 0.025], returned=[0.1, 0.3, 0.4], benefit_kept=[0.6, 0.8, 0.9])
    for name in ("returned", "benefit_kept"):
        rows[f"{name}_low"], rows[f"{name}_high"] = rows[name] - 0.01, rows[name] + 0.01
    found = by_order(rows).set_index("order")
    assert found.loc["random", ["draws", "returned", "returned_low", "returned_high"]].tolist() == [2, 0.2, 0.1, 0.3]
    assert found.loc["path", "returned_low"] == pytest.approx(0.39)


def test_every_venue_has_a_column_and_a_page():
    assert all(0 < column <= page for column, page in VENUES.values())
    assert all(re.fullmatch(r"[a-z0-9_]+", name) for name in KINDS)
