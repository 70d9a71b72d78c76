"""Figures of the taxes beside accuracy: legible at page and column width, plotted numbers, refusals, drawn by results."""

import numpy as np
import pandas as pd
import pytest

from benchmarks.house.legible import illegible
from taxlens.core.errors import UsageError
from taxlens.stages import FIGURES
from taxlens.stages.tax.other_taxes_figure import draw_costs, draw_divergence, draw_power, draw_prior

SUITES = ("capital_cities", "harmless_requests")
N = {"n_items": 192, "n_groups": 48}


def around(value):
    return {"value": value, "low": value - 0.05, "high": value + 0.05}


COSTS = pd.DataFrame([
    {"suite": suite, "kind": "capability", "template": template, "measure": measure, "base": 0.1, "aligned": 0.4,
     "change": 0.3, "low": 0.2, "high": 0.4, "base_low": 0.05, "base_high": 0.15, "aligned_low": 0.3,
     "aligned_high": 0.5} | N
    for suite in SUITES for template in ("plain", "chat") for measure in ("refusal_rate", "seconds_per_item")
])  # fmt: skip
DIVERGENCE = pd.DataFrame([
    {"suite": "harmless_requests", "template": "chat", "position": position, "measure": measure} | around(value) | N
    for position in [None, *range(12)]
    for measure, value in (("kl", 2.0 / (1 + (position or 0))), ("unshifted", 0.6), ("marginal", 0.3), ("shifted", 0.1))
])  # fmt: skip
PRIOR = pd.DataFrame([
    {"suite": suite, "template": template, "metric": metric, "part": part} | around(value) | N
    for suite in SUITES for template in ("plain", "chat")
    for metric, part, value in (
        ("probability", "tax", 0.3), ("probability", "knowledge", 0.1), ("probability", "calibration", 0.2),
        ("prior_kl", "shift", 0.4),
    )
])  # fmt: skip
POWER = pd.DataFrame([
    {"suite": suite, "template": template, "metric": "accuracy", "tax": tax, "power": min(1.0, 9 * tax),
     "items_needed": 100, "groups_needed": 30, "smallest_seen": 0.08, "icc": 0.1} | N
    for suite in SUITES for template in ("plain", "chat") for tax in (0.01, 0.02, 0.05, 0.1)
])  # fmt: skip
DRAW = {
    "costs": lambda width: draw_costs(COSTS, measure="refusal_rate", width=width),
    "seconds": lambda width: draw_costs(COSTS, measure="seconds_per_item", width=width),
    "divergence": lambda width: draw_divergence(DIVERGENCE, suite="harmless_requests", template="chat", width=width),
    "prior": lambda width: draw_prior(PRIOR, width=width),
    "power": lambda width: draw_power(POWER, width=width),
}


@pytest.mark.parametrize("width", [5.5, 3.03])
@pytest.mark.parametrize("name", DRAW)
def test_every_figure_is_legible_at_its_final_width(name, width):
    assert illegible(DRAW[name](width).figure) == []


def test_the_plotted_numbers_are_the_tables():
    shown = DRAW["divergence"](5.5).plotted
    assert len(shown) == 12 * 4
    assert np.allclose(shown.loc[shown["measure"] == "kl", "value"], [2 / (1 + p) for p in range(12)])
    assert DRAW["prior"](5.5).plotted["metric"].unique().tolist() == ["probability"]
    assert DRAW["costs"](5.5).plotted["aligned_high"].tolist() == [0.5] * 4
    assert DRAW["power"](5.5).plotted["power"].max() == pytest.approx(0.9)


def test_captions_say_which_interval_it_is():
    assert "192 items in 48 groups" in DRAW["costs"](5.5).caption
    assert "over batches of prompts" in DRAW["seconds"](5.5).caption
    assert "after each choice's log-probability without the prompt" in DRAW["prior"](5.5).caption


@pytest.mark.parametrize(
    "draw",
    [
        lambda: draw_costs(COSTS, measure="charm"),
        lambda: draw_divergence(DIVERGENCE, suite="facts", template="chat"),
        lambda: draw_prior(PRIOR, metric="accuracy"),
        lambda: draw_power(POWER.assign(power=np.nan)),
    ],
)
def test_nothing_to_draw_is_said(draw):
    with pytest.raises(UsageError, match="nothing to draw"):
        draw()


def test_the_registry_draws_each_from_its_table():
    tables = {"costs": COSTS, "divergence": DIVERGENCE, "prior": PRIOR, "power": POWER}
    for name, frame in tables.items():
        assert list(dict(FIGURES[name].jobs({name: frame}, 5.5))), name
    assert not dict(FIGURES["power"].jobs({"power": POWER.assign(power=np.nan)}, 5.5))  # no item changed: no figure
