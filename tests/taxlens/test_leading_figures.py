"""By default a run draws the leading figures: the main metric, and of figures for each suite those of the suites that lost."""

import numpy as np
import pandas as pd
import pytest

from benchmarks.house.legible import illegible
from taxlens.core.errors import UsageError
from taxlens.figures.style import VENUES
from taxlens.stages import FIGURES
from taxlens.stages.attribute.attribute_drawings import attribution_drawings
from taxlens.stages.attribute.attribution_figure import is_spread
from taxlens.stages.attribute.layer_profile_figure import draw_layer_profile, layer_rows
from taxlens.stages.attribute.suite_matrix_figure import draw_suite_matrix
from taxlens.stages.figures.drawing import leading_rows, leading_suites
from taxlens.stages.similarity.similarity_drawings import similarity_drawings
from taxlens.stages.tax.item_scatter_figure import draw_item_scatter, paired_items
from taxlens.stages.tax.other_taxes_figure import draw_power


class Tables:
    """A run as the figures see it: tables by name."""

    def __init__(self, **tables):
        self._tables = tables

    def has(self, name):
        return name in self._tables

    def table(self, name):
        return self._tables[name]


def tax(rows):
    columns = ["suite", "kind", "metric", "template", "tax", "low", "high"]
    return pd.DataFrame(rows, columns=columns)


def test_the_leading_suites_are_those_that_surely_lost_much():
    run = Tables(tax=tax([
        ("facts", "capability", "probability", "plain", 0.4, 0.3, 0.5),
        ("copy", "capability", "probability", "plain", 0.03, 0.01, 0.05),
        ("sums", "capability", "probability", "plain", 0.2, 0.1, 0.3),
        ("unsure", "capability", "probability", "plain", 0.3, -0.1, 0.7),
        ("harm", "benefit", "probability", "plain", -0.9, -0.95, -0.8),
        ("facts", "capability", "nll", "plain", 4.0, 3.0, 5.0),
    ]))  # fmt: skip
    assert leading_suites(run) == ["facts", "sums"]


def test_without_a_sure_loss_the_largest_tax_stands_alone():
    rows = [
        ("a", "capability", "probability", "plain", 0.01, -0.1, 0.1),
        ("b", "capability", "probability", "plain", 0.02, -1, 1),
    ]
    assert leading_suites(Tables(tax=tax(rows))) == ["b"]
    assert leading_suites(Tables()) == []


def test_rows_of_other_metrics_suites_and_templates_are_left_out_only_where_there_is_a_drawing_for_each():
    frame = tax([
        (suite, "capability", metric, template, value, 0.1, 0.9)
        for suite, value in (("facts", 0.5), ("copy", 0.05))
        for metric in ("accuracy", "probability")
        for template in ("plain", "chat")
    ])  # fmt: skip
    run = Tables(tax=frame)
    each = leading_rows(run, {"attribution": frame}, each=True)["attribution"]
    assert set(each["suite"]) == {"facts"}
    assert set(each["metric"]) == {"probability"}
    assert set(each["template"]) == {"plain"}
    whole = leading_rows(run, {"tax": frame}, each=False)["tax"]
    assert set(whole["suite"]) == {"facts", "copy"}
    assert set(whole["template"]) == {"plain", "chat"}


def effects(suites=("facts", "copy"), n=40):
    rng = np.random.default_rng(0)
    rows = [
        (suite, "probability", "component", "path", f"{k}.mlp", k, rng.normal() / 20)
        for suite in suites
        for k in range(n)
    ]
    return pd.DataFrame(rows, columns=["suite", "metric", "level", "method", "component", "layer", "effect"])


def test_the_matrix_keeps_every_suites_sum_whatever_is_summed_up():
    frame = effects()
    plotted = draw_suite_matrix(frame).plotted
    drawn = plotted.groupby("suite")["effect"].sum()
    assert drawn.to_dict() == pytest.approx(frame.groupby("suite")["effect"].sum().to_dict())
    assert plotted["component"].nunique() < frame["component"].nunique()


def test_one_suite_makes_no_matrix():
    with pytest.raises(UsageError, match="two suites"):
        draw_suite_matrix(effects(suites=("facts",)))


def test_the_layer_profile_holds_the_sum_of_each_layers_effects_and_nothing_of_other_suites():
    frame = pd.concat(
        [effects(n=6), effects(n=6).assign(component=lambda f: f["component"].str.replace("mlp", "attn"))]
    )
    rows = layer_rows(frame, suite="facts", metric="probability")
    mine = frame[frame["suite"] == "facts"].groupby("layer")["effect"].sum()
    assert rows.set_index("layer")["value"].to_numpy() == pytest.approx(mine.to_numpy())
    drops = pd.DataFrame({"suite": "facts", "template": "plain", "label": "correct", "site": "resid_post",
                          "layer": range(6), "drop": 0.1, "low": 0.0, "high": 0.2})  # fmt: skip
    assert len(draw_layer_profile(frame, suite="facts", drops=drops).figure.axes) == 2
    assert len(draw_layer_profile(frame, suite="copy", drops=drops).figure.axes) == 1


def items():
    rows = []
    for k in range(6):
        for model, p in (("base", 0.9), ("aligned", 0.9 - 0.15 * k)):
            rows.append(("facts", f"facts/{k}", f"g{k}", "plain", model, int(p > 0.5), p))
    return pd.DataFrame(rows, columns=["suite", "item", "group", "template", "model", "correct", "probability"])


def test_the_scatter_says_which_items_were_lost():
    found = paired_items(items(), suite="facts", metric="probability", template="plain")
    assert list(found["change"]) == ["kept"] * 3 + ["lost"] * 3
    drawn = draw_item_scatter(items(), suite="facts")
    assert drawn.plotted["aligned"].to_numpy() == pytest.approx(0.9 - 0.15 * np.arange(6))
    with pytest.raises(UsageError, match="no items"):
        draw_item_scatter(items(), suite="facts", template="chat")


KINDS = ("attn", "mlp", "norm", "embed", "unembed", "selection")


def effects_of_every_kind(largest=0.3):
    rows = [
        (f"{n % 3}.{kind}" if n < 3 else kind, n % 3 if n < 3 else -1, kind, largest / (n + 1))
        for n, kind in enumerate(KINDS)
    ]
    frame = pd.DataFrame(rows, columns=["component", "layer", "kind", "effect"])
    frame = frame.assign(suite="facts", metric="probability", method="path", level="component")
    return frame.assign(low=frame["effect"] - 0.01, high=frame["effect"] + 0.01)


def closure_of(frame, **more):
    tax = frame["effect"].sum()
    facts = {"suite": "facts", "metric": "probability", "method": "path", "tax": tax, "residual": 0.0}
    return pd.DataFrame([facts | more])


@pytest.mark.parametrize("width", sorted({inches for pair in VENUES.values() for inches in pair}))
def test_a_legend_of_every_kind_stays_on_the_page_at_every_venue(width):
    frame = effects_of_every_kind()
    drawn = dict(attribution_drawings({"attribution": frame, "closure": closure_of(frame)}, width))[
        "attribution_facts_probability"
    ]()
    assert illegible(drawn.figure) == []
    assert set(KINDS) <= set(drawn.plotted["kind"])


def test_where_no_component_carries_a_tenth_a_map_of_all_stands_in_for_the_bars():
    rows = [(f"{layer}.{kind}", layer, kind, 0.01) for layer in range(15) for kind in ("attn", "mlp")]
    frame = pd.DataFrame(rows, columns=["component", "layer", "kind", "effect"])
    frame = frame.assign(suite="facts", metric="probability", method="path", level="component", low=0.0, high=0.02)
    drawn = dict(attribution_drawings({"attribution": frame, "closure": closure_of(frame)}, 5.5))[
        "attribution_facts_probability"
    ]()
    assert len(drawn.plotted) == 30
    assert "No component carries a tenth of the tax" in drawn.caption
    one = frame.assign(effect=frame["effect"].where(frame["component"] != "3.mlp", 0.2))
    assert not is_spread(one, suite="facts", metric="probability")
    bars = dict(attribution_drawings({"attribution": one, "closure": closure_of(one)}, 5.5))[
        "attribution_facts_probability"
    ]()
    assert "measured tax" in set(bars.plotted["component"])
    doubt = closure_of(frame, closed=False, reason="effects still change by 7 %")
    said = dict(attribution_drawings({"attribution": frame, "closure": doubt}, 5.5))[
        "attribution_facts_probability"
    ]().caption
    assert "Not settled by the stopping rule: effects still change by 7 %" in said


def test_figures_of_text_are_drawn_only_when_asked_for():
    assert FIGURES["directions"].asked
    assert not any(figure.asked for name, figure in FIGURES.items() if name != "directions")


def test_every_suite_has_a_look_of_its_own_in_the_picture_of_power():
    frame = pd.DataFrame(
        [(f"s{n}", template, "probability", tax, 0.5, 10, 5, 100, 20) for n in range(8) for template in ("plain", "chat") for tax in (0.01, 0.1)],
        columns=["suite", "template", "metric", "tax", "power", "items_needed", "groups_needed", "n_items", "n_groups"],
    )  # fmt: skip
    (axes,) = draw_power(frame, metric="probability").figure.axes
    looks = [
        (line.get_color(), line.get_marker(), line.get_linestyle()) for line in axes.lines if line.get_label()[0] == "s"
    ]
    assert len(set(looks)) == 16


def test_parts_of_drift_have_a_figure_of_their_own():
    rows = [
        (name, layer, layer, 0.9) for name in ("cka", "drift", "drift_rank", "linear_r2_back") for layer in range(3)
    ]
    frame = pd.DataFrame(rows, columns=["measure", "layer_base", "layer_aligned", "value"])
    frame = frame.assign(
        suite=None, template="plain", site="resid_post", low=0.8, high=1.0, null=0.0, n_items=50, n_groups=9
    )
    jobs = dict(similarity_drawings({"similarity": frame}, 5.5))
    assert set(jobs["similarity"]().plotted["measure"]) == {"cka", "drift"}
    assert set(jobs["similarity_parts"]().plotted["measure"]) == {"drift_rank", "linear_r2_back"}
