"""Which drawings the tables of the tax give."""

from __future__ import annotations

import pandas as pd

from taxlens.figures.drawings import Jobs, Tables, main_metric
from taxlens.stages.tax.bill_figure import draw_bill
from taxlens.stages.tax.item_scatter_figure import draw_item_scatter
from taxlens.stages.tax.ledger_figure import draw_lost_won, draw_two_by_two
from taxlens.stages.tax.other_taxes_figure import draw_costs, draw_divergence, draw_power, draw_prior
from taxlens.stages.tax.tax_figure import draw_tax


def _main_first(frame: pd.DataFrame) -> list[str]:
    """The metrics of a table, that in which a run is told first."""
    names = list(dict.fromkeys(frame["metric"]))
    return sorted(names, key=lambda name: name != main_metric(frame)) if names else []


def tax_drawings(tables: Tables, width: float) -> Jobs:
    """Yield the drawings of kind tax: (file name, function that draws)."""
    frame = tables["tax"]
    for metric in _main_first(frame):
        yield f"tax_{metric}", lambda m=metric: draw_tax(frame, width=width, metric=m)


def two_by_two_drawings(tables: Tables, width: float) -> Jobs:
    """Yield the drawings of kind two_by_two: (file name, function that draws)."""
    frame = tables["tax_2x2"]
    for metric in _main_first(frame):
        yield f"two_by_two_{metric}", lambda m=metric: draw_two_by_two(frame, metric=m, width=width)


def lost_won_drawings(tables: Tables, width: float) -> Jobs:
    """Yield the drawings of kind lost_won: (file name, function that draws)."""
    if "accuracy" in set(tables["tax"]["metric"]):
        yield "lost_won", lambda: draw_lost_won(tables["tax"], width=width)


def costs_drawings(tables: Tables, width: float) -> Jobs:
    """Yield the drawings of kind costs: (file name, function that draws)."""
    frame = tables["costs"]
    if "bill" in tables and "divergence" not in tables:  # a few answers a suite: the bill shows the rest
        frame = frame[frame["measure"] == "refusal_rate"]
    for measure in dict.fromkeys(frame["measure"]):
        yield f"costs_{measure}", lambda m=measure: draw_costs(frame, measure=m, width=width)


def bill_drawings(tables: Tables, width: float) -> Jobs:
    """Yield the drawings of kind bill: (file name, function that draws)."""
    if len(tables["bill"]):
        yield "bill", lambda: draw_bill(tables["bill"], width=width)


def divergence_drawings(tables: Tables, width: float) -> Jobs:
    """Yield the drawings of kind divergence: (file name, function that draws)."""
    frame = tables["divergence"]
    for key in frame[["suite", "template"]].drop_duplicates().itertuples(index=False):
        name = f"divergence_{key.suite}_{key.template}"
        yield name, lambda k=key: draw_divergence(frame, suite=k.suite, template=k.template, width=width)


def prior_drawings(tables: Tables, width: float) -> Jobs:
    """Yield the drawings of kind prior: (file name, function that draws)."""
    if len(tables["prior"]):
        yield "prior", lambda: draw_prior(tables["prior"], width=width)


def power_drawings(tables: Tables, width: float) -> Jobs:
    """Yield the drawings of kind power: (file name, function that draws)."""
    frame = tables["power"]
    known = frame[frame["power"].notna()] if len(frame) else frame
    for metric in dict.fromkeys(known["metric"]) if len(known) else ():
        yield f"power_{metric}", lambda m=metric: draw_power(frame, metric=m, width=width)


def items_drawings(tables: Tables, width: float) -> Jobs:
    """Yield the drawings of kind items: (file name, function that draws)."""
    frame = tables["items"]
    metric = next(
        (name for name in ("probability", "margin", "nll") if name in frame and frame[name].notna().any()), ""
    )
    for key in frame[["suite", "template"]].drop_duplicates().itertuples(index=False) if metric else ():
        yield (
            f"items_{key.suite}_{key.template}",
            lambda k=key: draw_item_scatter(
                frame, suite=k.suite, template=k.template, metric=metric, width=min(width, 3.25)
            ),
        )
