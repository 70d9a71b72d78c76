"""By default a run draws the leading figures: the main metric, and of figures for each suite those of the suites that lost."""

import numpy as np
import pandas as pd
import pytest

from taxlens.core.errors import UsageError
from taxlens.stages.attribute.layer_profile_figure import draw_layer_profile, layer_rows
from taxlens.stages.attribute.suite_matrix_figure import draw_suite_matrix
from taxlens.stages.figures.drawing import leading_rows, leading_suites
from taxlens.stages.tax.item_scatter_figure import draw_item_scatter, paired_items


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
