"""The taxes beside accuracy: what PMI removes, costs of answers, where answers part, what a suite can see."""

from __future__ import annotations

import pandas as pd
from matplotlib.ticker import MaxNLocator

from taxlens.core.errors import UsageError, explain
from taxlens.figures.style import (
    BLUE,
    GREEN,
    GREY,
    ORANGE,
    SERIES,
    Drawn,
    interval_words,
    new_figure,
    paper_style,
    written,
)
from taxlens.words.amounts import unit_of

SHARES = (("unshifted", BLUE, ""), ("marginal", ORANGE, "////"), ("shifted", GREEN, "...."))


def draw_divergence(frame: pd.DataFrame, *, suite: str, template: str, width: float = 5.5) -> Drawn:
    """Draw where in the answer the two models part: KL by position, and the shares of shifted positions.

    Args:
        frame: divergence.csv [rows, columns].
        suite: which suite.
        template: which template.
        width: inches.

    Raises:
        UsageError: the table has no position of that suite and template.
    """
    rows = frame[(frame["suite"] == suite) & (frame["template"] == template) & frame["position"].notna()]
    if rows.empty:
        raise UsageError(explain("nothing to draw.", [("suite", suite), ("template", template)]))
    kl = rows[rows["measure"] == "kl"]
    with paper_style():
        figure = new_figure(width, 2.0)
        left, right = figure.subplots(1, 2)
        left.fill_between(kl["position"].astype(int), kl["low"], kl["high"], color=BLUE, alpha=0.25, linewidth=0)
        left.plot(kl["position"].astype(int), kl["value"], color=BLUE, marker="o")
        left.set_ylim(bottom=0)
        left.set_xlabel("token of the answer")
        left.set_ylabel("KL(aligned || base), nats")
        below = pd.Series(0.0, index=range(len(kl)))
        for measure, colour, hatch in SHARES:
            part = rows[rows["measure"] == measure].reset_index(drop=True)
            right.bar(
                part["position"].astype(int), part["value"], bottom=below, width=0.9, color=colour, hatch=hatch,
                edgecolor="white", linewidth=0, label=measure,
            )  # fmt: skip
            below = below + part["value"]
        for axes in (left, right):
            axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        right.set_ylim(0, 1)
        right.set_xlabel("token of the answer")
        right.set_ylabel("share of answers")
        figure.legend(loc="outside upper right", ncols=3)
    caption = (
        f"Where aligned's own answers to {suite} ({template}) part from base. Left: KL of the next-token "
        "distributions "
        f"by position; band: {interval_words(int(kl['n_items'].max()), int(kl['n_groups'].max()))}. Right: positions "
        "whose token is base's first choice (unshifted), second or third (marginal), or later (shifted)."
    )
    columns = ["position", "measure", "value", "low", "high", "n_items", "n_groups"]
    return Drawn(figure, rows[columns].reset_index(drop=True), caption)


def draw_costs(frame: pd.DataFrame, *, measure: str, width: float = 5.5) -> Drawn:
    """Draw one cost of both models' answers, every suite and template with its intervals.

    Args:
        frame: costs.csv [rows, columns].
        measure: which measure.
        width: inches.

    Raises:
        UsageError: the table has no row of that measure.
    """
    rows = frame[frame["measure"] == measure].reset_index(drop=True)
    if rows.empty:
        have = [("measure", measure), ("in the table", ", ".join(dict.fromkeys(frame["measure"])))]
        raise UsageError(explain("nothing to draw.", have))
    with paper_style():
        figure = new_figure(width, 0.85 + 0.34 * len(rows))
        axes = figure.subplots()
        for side, colour, marker, shift in (("base", BLUE, "o", -0.14), ("aligned", ORANGE, "s", 0.14)):
            places = [place + shift for place in range(len(rows))]
            axes.hlines(places, rows[f"{side}_low"], rows[f"{side}_high"], color=colour, linewidth=1.2)
            axes.plot(rows[side], places, marker=marker, color=colour, linestyle="", markersize=4, label=side)
        axes.set_yticks(range(len(rows)), [f"{r.suite}, {r.template}" for r in rows.itertuples()])
        axes.set_ylim(len(rows) - 0.5, -0.5)
        axes.set_xlabel(measure.replace("_", " "))
        figure.legend(loc="outside upper center", ncols=2)
    counts = interval_words(_span(rows["n_items"]), _span(rows["n_groups"]))
    over = "95 % intervals over batches of prompts, in one run" if measure == "seconds_per_item" else counts
    caption = f"{measure.replace('_', ' ').capitalize()} of both models' answers. {over}."
    columns = ["suite", "kind", "template", "measure", "base", "base_low", "base_high", "aligned", "aligned_low"]
    return Drawn(figure, rows[[*columns, "aligned_high", "change", "low", "high", "n_items", "n_groups"]], caption)


def draw_prior(frame: pd.DataFrame, *, metric: str = "probability", width: float = 5.5) -> Drawn:
    """Draw how much of each tax remains after PMI (knowledge), and how much it removes (calibration).

    Args:
        frame: prior.csv [rows, columns].
        metric: which metric's rows to draw.
        width: inches.

    Raises:
        UsageError: the table has no row of that metric.
    """
    rows = frame[(frame["metric"] == metric) & (frame["part"] != "shift")].reset_index(drop=True)
    if rows.empty:
        raise UsageError(explain("nothing to draw.", [("metric", metric)]))
    unit, scale = unit_of(metric)
    keys = list(rows[["suite", "template"]].drop_duplicates().itertuples(index=False))
    parts = (("knowledge", BLUE, ""), ("calibration", ORANGE, "////"), ("tax", GREY, ""))
    with paper_style():
        figure = new_figure(width, 0.9 + 0.45 * len(keys))
        axes = figure.subplots()
        for y, key in enumerate(keys):
            here = rows[(rows["suite"] == key.suite) & (rows["template"] == key.template)].set_index("part")
            for place, (part, colour, hatch) in enumerate(parts):
                at, row = y + (place - 1) * 0.24, here.loc[part]
                label = part if y == 0 else None
                axes.barh(at, row["value"] * scale, 0.22, color=colour, hatch=hatch, edgecolor="white", label=label)
                axes.plot([row["low"] * scale, row["high"] * scale], [at, at], color="black", linewidth=0.7)
        axes.axvline(0, color="black", linewidth=0.6)
        axes.set_yticks(range(len(keys)), [f"{key.suite}, {key.template}" for key in keys])
        axes.set_ylim(len(keys) - 0.5, -0.5)
        axes.set_xlabel(f"tax in {written(metric)} ({unit}); positive is loss")
        figure.legend(loc="outside upper center", ncols=3)
    counts = interval_words(_span(rows["n_items"]), _span(rows["n_groups"]))
    caption = (
        f"Knowledge or prior? The tax in {written(metric)} is what remains after each choice's log-probability without the "
        f"prompt is subtracted (knowledge), plus what that removes (calibration). Whiskers: {counts}."
    )
    return Drawn(figure, rows[["suite", "template", "metric", "part", "value", "low", "high", "n_items"]], caption)


def draw_power(frame: pd.DataFrame, *, metric: str = "accuracy", width: float = 5.5) -> Drawn:
    """Draw how likely each suite is to see a tax, by its size.

    Args:
        frame: power.csv [rows, columns].
        metric: which metric's rows to draw.
        width: inches.

    Raises:
        UsageError: the table has no such row with a known power.
    """
    rows = frame[(frame["metric"] == metric) & frame["power"].notna()].reset_index(drop=True)
    if rows.empty:
        raise UsageError(explain("nothing to draw.", [("metric", metric), ("reason", "no item changed")]))
    with paper_style():
        figure = new_figure(width, 2.3)
        axes = figure.subplots()
        suites, templates = (list(dict.fromkeys(rows[name])) for name in ("suite", "template"))
        for (suite, template), part in rows.groupby(["suite", "template"], sort=False):
            number, first = suites.index(suite), template == templates[0]
            colour, marker = SERIES[number % len(SERIES)][0], (SERIES + SERIES[::-1])[number % (2 * len(SERIES))][1]
            axes.plot(100 * part["tax"], part["power"], color=colour, marker=marker, linestyle="-" if first else ":",
                      markerfacecolor=colour if first else "white", label=f"{suite}, {template}")  # fmt: skip
        axes.axhline(0.8, color="black", linewidth=0.6, linestyle=":")
        axes.set_ylim(0, 1.02)
        axes.set_xlabel(f"tax in {written(metric)} (points)")
        axes.set_ylabel("probability of seeing it")
        figure.legend(loc="outside right upper")
    caption = (
        f"Power: the probability that a two-sided test at .05 detects a tax in {written(metric)} of the given size "
        "with the items and groups at hand; dotted: 80 % power."
    )
    columns = ["suite", "template", "metric", "tax", "power", "items_needed", "groups_needed", "n_items", "n_groups"]
    return Drawn(figure, rows[columns], caption)


def _span(values: pd.Series) -> str:
    low, high = int(values.min()), int(values.max())
    return str(low) if low == high else f"{low} to {high}"
