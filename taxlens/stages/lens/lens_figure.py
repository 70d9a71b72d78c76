"""The answer by layer: both models' probability of the right answer if they ended there."""

from __future__ import annotations

import pandas as pd

from taxlens.core.errors import UsageError, explain
from taxlens.figures.curves import integer_ticks
from taxlens.figures.drawings import Jobs, Tables, main_metric
from taxlens.figures.style import BLUE, GREY, ORANGE, Drawn, interval_words, new_figure, paper_style, unit_of, written


def lens_drawings(tables: Tables, width: float) -> Jobs:
    """Yield the drawings of kind logit_lens: (file name, function that draws)."""
    frame = tables["logit_lens"]
    for key in frame[["suite", "template"]].drop_duplicates().itertuples(index=False):
        yield (
            f"logit_lens_{key.suite}_{key.template}",
            lambda k=key: draw_lens(frame, suite=k.suite, template=k.template, metric=main_metric(frame), width=width),
        )


def draw_lens(
    frame: pd.DataFrame, *, suite: str, template: str = "plain", metric: str = "probability", width: float = 5.5
) -> Drawn:
    """Draw both models' answer by layer with bands, and the difference under it.

    Args:
        frame: logit_lens.csv [rows, columns].
        suite: which suite.
        template: which template.
        metric: "probability" or "margin".
        width: inches.

    Raises:
        UsageError: if the table holds nothing of the kind.
    """
    rows = frame[(frame["suite"] == suite) & (frame["template"] == template) & (frame["metric"] == metric)]
    if rows.empty:
        asked = [("suite", suite), ("template", template), ("metric", metric)]
        raise UsageError(explain("the run holds no logit lens of that kind.", asked))
    unit, scale = unit_of(metric)
    with paper_style():
        figure = new_figure(width, 2.7)
        upper, lower = figure.subplots(2, 1, sharex=True, gridspec_kw={"height_ratios": [2, 1]})
        for axes, model, colour, marker, line in (
            (upper, "base", BLUE, "o", "-"), (upper, "aligned", ORANGE, "s", "--"), (lower, "difference", GREY, "D", "-"),
        ):  # fmt: skip
            mine = rows[rows["model"] == model].sort_values("layer")
            axes.plot(mine["layer"], mine["value"] * scale, color=colour, marker=marker, linestyle=line, label=model)
            axes.fill_between(
                mine["layer"], mine["low"] * scale, mine["high"] * scale, color=colour, alpha=0.2, linewidth=0
            )
        lower.axhline(0, color="black", linewidth=0.5, zorder=0)
        upper.set_ylabel(f"{written(metric)} ({unit})")
        lower.set_ylabel("base - aligned")
        lower.set_xlabel("layer")
        upper.legend(loc="best")
        integer_ticks(lower)
    words = interval_words(rows["n_items"].iloc[0], rows["n_groups"].iloc[0])
    caption = (
        f"Logit lens on {suite} ({template} prompt): {written(metric)} of the right answer ({unit}) if the model ended after "
        f"a layer. Lower panel: base minus aligned. Bands: {words}. At the last layer this is the model itself."
    )
    return Drawn(figure, rows.drop(columns=["suite", "template", "metric"]), caption)
