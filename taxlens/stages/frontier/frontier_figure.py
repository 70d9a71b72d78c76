"""What comes back, and at what price: restoration curve, front, and predicted against measured."""

from __future__ import annotations

from itertools import cycle

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import FixedLocator, MaxNLocator, NullFormatter, NullLocator

from taxlens.analysis.frontier.orders import ORDERS
from taxlens.core.errors import UsageError, explain
from taxlens.figures.style import BLACK, GREY, SERIES, Drawn, new_figure, paper_style, written
from taxlens.words.amounts import unit_of

_MORE = (
    (GREY, "x", "-"),
    (BLACK, "+", "--"),
    (GREY, "*", "-."),
    (BLACK, "D", ":"),
    (GREY, "h", "-"),
    (BLACK, "8", "--"),
)
KEPT = 0.95
"""Share of the benefit at which orders are compared."""

FAINT = 0.25
"""Opacity of plans that another plan of their order beats in both."""


def looks() -> dict[str, tuple[str, str, str]]:
    """Return colour, marker and dashes of every order."""
    further = (((GREY, BLACK)[n % 2], marker, "-") for n, marker in enumerate("<>HdpX1234"))
    return dict(zip(ORDERS, cycle([*SERIES, *_MORE, *further])))


def total_rows(frame: pd.DataFrame, metric: str) -> pd.DataFrame:
    """Return the rows of frontier.csv that speak of all taxed suites at once (a blank suite), of one metric; no plan that left one out."""
    suite = frame["suite"].fillna("")
    rows = frame[(suite == "") & (frame["metric"] == metric) & ~frame["plan"].str.contains("-without-")]
    if rows.empty:
        have = ", ".join(sorted(set(frame["metric"].dropna())))
        raise UsageError(explain("the front holds no such metric.", [("metric", metric), ("has", have)]))
    return rows


def by_order(rows: pd.DataFrame) -> pd.DataFrame:
    """Return one row an order and share: plans as measured, random draws as mean with their smallest and largest."""
    found = []
    drawn_together = rows["plan"].str.replace(r"-d\d+$", "", regex=True)
    for (order, _), part in rows.groupby(["order", drawn_together], sort=False):
        first = part.iloc[0]
        row = {"order": order, "share_undone": part["share_undone"].mean(), "draws": len(part)}
        for name in ("returned", "benefit_kept"):
            several = len(part) > 1
            row[name] = part[name].mean()
            row[f"{name}_low"] = part[name].min() if several else first[f"{name}_low"]
            row[f"{name}_high"] = part[name].max() if several else first[f"{name}_high"]
        found.append(row)
    curves = pd.DataFrame(found)
    rank = curves["order"].map({order: place for place, order in enumerate(ORDERS)}).fillna(len(ORDERS))
    return curves.assign(rank=rank).sort_values(["rank", "share_undone"], kind="stable").drop(columns="rank")


def left_out_rows(frame: pd.DataFrame, metric: str, *, least: float = 0.02, most: int = 2) -> pd.DataFrame:
    """Return the rows of plans that were chosen without a suite, measured on that suite.

    Args:
        frame: frontier.csv [rows, columns].
        metric: which metric.
        least: suites whose whole tax is smaller are left out (a ratio of small numbers).
        most: how many suites, the largest taxes first.
    """
    names = [f"{value}{end}" for value in ("returned", "benefit_kept") for end in ("", "_low", "_high")]
    rows = frame[(frame["held_out"] == "suite") & (frame["metric"] == metric)] if "held_out" in frame else frame[:0]
    if rows.empty:
        return pd.DataFrame(columns=["order", "share_undone", "draws", *names])
    rows = rows.assign(whole=whole_taxes(rows))
    sizes = rows.groupby("suite")["whole"].median().sort_values(ascending=False)
    chosen = list(sizes[sizes >= least].index[:most])
    rows = rows[rows["suite"].isin(chosen)].dropna(subset=["returned", "benefit_kept"])
    rows = rows.assign(order="path, without " + rows["suite"].astype(str), draws=1)
    return rows.sort_values(["order", "share_undone"], kind="stable")[["order", "share_undone", "draws", *names]]


def whole_taxes(rows: pd.DataFrame) -> pd.Series:
    """Return the tax of each row's suite where nothing is undone: tax / (1 - returned), the median over its plans."""
    left = 1 - rows["returned"]
    whole = (rows["tax"] / left).where(left.abs() > 0.05)
    return rows["suite"].map(whole.groupby(rows["suite"]).median())


def draw_restoration(frame: pd.DataFrame, *, metric: str = "probability", width: float = 5.5) -> Drawn:
    """Draw the share of the tax returned, and of the benefit kept, against the share of units undone, by order.

    Args:
        frame: frontier.csv [rows, columns].
        metric: which metric.
        width: inches.
    """
    rows = total_rows(frame, metric)
    curves = by_order(rows[~rows["plan"].str.contains("-keep")])  # one plan an order and share
    curves = curves[(curves["order"] != "uniform") & (curves["share_undone"] > 0)]
    with paper_style():
        figure = new_figure(width, 2.5)
        left, right = figure.subplots(1, 2)
        for name, axes, title in (
            ("returned", left, "tax returned (share)"),
            ("benefit_kept", right, "benefit kept (share)"),
        ):
            for order, part in curves.groupby("order", sort=False):
                _curve(axes, part, name, str(order))
            axes.axhline(1.0 if name == "benefit_kept" else 0.0, color=GREY, linewidth=0.6)
            axes.set_title(title, loc="left")
            axes.set_xlabel("share of units undone (%)")
            _log_shares(axes, 100 * curves["share_undone"])
        columns = 3 if width < 4.5 else 6
        figure.legend(*left.get_legend_handles_labels(), loc="outside upper center", ncols=columns)
    caption = (
        f"Share of the tax in {written(metric)} that comes back, and share of the benefit that stays, when units are undone in each "
        "order; measured on held-out items. Whiskers: 95 % joint intervals by group bootstrap; random: mean, smallest and "
        "largest of the draws of equal energy."
    )
    return Drawn(figure, curves, caption)


def draw_front(frame: pd.DataFrame, *, metric: str = "probability", width: float = 5.5) -> Drawn:
    """Draw the share of the benefit kept against the share of the tax returned: a curve an order, with bands.

    Args:
        frame: frontier.csv [rows, columns].
        metric: which metric.
        width: inches.
    """
    with paper_style():
        figure = new_figure(width, 2.9)
        axes = figure.subplots()
        plotted = front_panel(axes, frame, metric)
        columns = 2 if width < 4.5 else 4
        figure.legend(*axes.get_legend_handles_labels(), loc="outside upper center", ncols=columns)
    return Drawn(figure, plotted, f"{front_words(frame, metric)}.")


def front_words(frame: pd.DataFrame, metric: str) -> str:
    """Return what the front shows, for a caption."""
    apart = "held_out" in frame and set(total_rows(frame, metric)["held_out"]) == {"answers"}
    return (
        f"Share of the benefit kept (x) against share of the tax in {written(metric)} returned (y) on held-out items"
        f"{' that share neither group nor answer with those that plans were chosen on' if apart else ''}, a curve an order "
        "through its plans that none of its own beats in both (the others faint); "
        f"bands: 95 % joint intervals by group bootstrap. Grey line: {KEPT:.0%} of the benefit, where orders are compared"
    )


def front_panel(axes: Axes, frame: pd.DataFrame, metric: str) -> pd.DataFrame:
    """Draw the front into axes and return what was drawn [rows, columns]."""
    parts = [by_order(total_rows(frame, metric)), left_out_rows(frame, metric)]
    curves = pd.concat([part for part in parts if len(part)], ignore_index=True)
    faint = False
    for order, part in curves.groupby("order", sort=False):
        colour, marker, dash = _look(str(order))
        if len(part) == 1:  # no curve: there is nothing between it and undoing nothing
            axes.vlines(part["benefit_kept"], part["returned_low"], part["returned_high"], color=colour, linewidth=0.6)
            axes.plot(
                part["benefit_kept"],
                part["returned"],
                color=colour,
                marker=marker,
                linestyle="none",
                label=_said(str(order)),
            )
            continue
        line, rest = efficient(pd.concat([_START, part], ignore_index=True))
        axes.plot(rest["benefit_kept"], rest["returned"], color=colour, marker=marker, linestyle="none", alpha=FAINT)
        faint |= len(rest) > 0
        axes.fill_between(
            line["benefit_kept"], line["returned_low"], line["returned_high"], color=colour, alpha=0.12, linewidth=0
        )
        axes.plot(
            line["benefit_kept"], line["returned"], color=colour, marker=marker, linestyle=dash, label=_said(str(order))
        )
    if faint:
        axes.plot([], [], color=GREY, marker="o", linestyle="none", alpha=FAINT, label="beaten by its own order")
    axes.axvline(KEPT, color=GREY, linewidth=0.8, label=f"{KEPT:.0%} of the benefit")
    axes.axhline(0, color="black", linewidth=0.4)
    axes.set_xlabel("share of benefit kept (right is better)")
    axes.set_ylabel("share of tax returned (up is better)")
    low = max(-0.5, float(curves["benefit_kept"].min()) - 0.08)
    high = min(1.3, float(curves["returned_high"].max()))
    axes.set_xlim(low, max(1.05, float(curves["benefit_kept"].max()) + 0.03))
    axes.set_ylim(min(-0.05, float(curves["returned"].min()) - 0.05), max(0.2, high * 1.05))
    axes.xaxis.set_major_locator(MaxNLocator(4))
    axes.yaxis.set_major_locator(MaxNLocator(5))
    return curves


def efficient(plans: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return the plans of one order that no other of it beats in both tax returned and benefit kept, and the rest."""
    ordered = plans.sort_values(["benefit_kept", "returned"], ascending=False, kind="stable")
    best = ordered["returned"].cummax().shift(fill_value=-np.inf)
    return ordered[ordered["returned"] > best], ordered[ordered["returned"] <= best]


_START = pd.DataFrame(
    [(0.0, 0.0, 0.0, 0.0, 1.0)], columns=["share_undone", "returned", "returned_low", "returned_high", "benefit_kept"]
)


def effect_rows(frame: pd.DataFrame, metric: str) -> pd.DataFrame:
    """Return predicted and measured effect of each plan on each taxed suite: the tax that it takes back.

    The tax of a suite is what no plan returns: tax / (1 - returned).

    Args:
        frame: frontier.csv [rows, columns].
        metric: which metric.

    Returns:
        plan, order, suite, predicted, measured, in the metric's unit.
    """
    rows = frame[(frame["suite"].fillna("") != "") & (frame["metric"] == metric)].dropna(
        subset=["tax_predicted", "tax"]
    )
    if rows.empty:
        raise UsageError(explain("the front holds no predicted plans.", [("metric", metric)]))
    taxes = whole_taxes(rows)
    found = rows[["plan", "order", "suite"]].assign(
        predicted=taxes - rows["tax_predicted"], measured=taxes - rows["tax"]
    )
    return found.dropna().reset_index(drop=True)


def fitted(rows: pd.DataFrame) -> tuple[float, float]:
    """Return slope and R^2 of measured over predicted effects (nan where all predictions are equal)."""
    x, y = rows["predicted"].to_numpy(float), rows["measured"].to_numpy(float)
    if len(x) < 3 or np.ptp(x) == 0:
        return float("nan"), float("nan")
    slope, start = np.polyfit(x, y, 1)
    total = float(((y - y.mean()) ** 2).sum())
    return float(slope), 1 - float(((y - slope * x - start) ** 2).sum()) / total if total else float("nan")


def draw_predicted(frame: pd.DataFrame, *, metric: str = "probability", width: float = 5.5) -> Drawn:
    """Draw measured against predicted effect, a dot a plan and suite, with the identity, slope and R^2.

    Args:
        frame: frontier.csv [rows, columns].
        metric: which metric.
        width: inches.
    """
    rows = effect_rows(frame, metric)
    slope, r2 = fitted(rows)
    with paper_style():
        figure = new_figure(width, 2.7)
        axes = figure.subplots()
        predicted_panel(axes, rows, metric)
        figure.legend(*axes.get_legend_handles_labels(), loc="outside right upper")
    return Drawn(figure, rows, f"{predicted_words(rows, metric, slope, r2)}.")


def predicted_words(rows: pd.DataFrame, metric: str, slope: float, r2: float) -> str:
    """Return what predicted against measured shows, for a caption."""
    return (
        f"Measured against predicted effect (tax in {written(metric)} taken back) on held-out items, a dot a plan and suite ({len(rows)}); "
        f"line: identity. Slope {slope:.2f}, R² {r2:.2f}"
    )


def predicted_panel(axes: Axes, rows: pd.DataFrame, metric: str) -> None:
    """Draw predicted against measured effects [rows, columns] into axes."""
    unit, scale = unit_of(metric)
    for order, part in rows.groupby("order", sort=False):
        colour, marker, _ = _look(str(order))
        axes.plot(
            part["predicted"] * scale, part["measured"] * scale, color=colour, marker=marker, linestyle="none",
            label=_said(str(order)),
        )  # fmt: skip
    both = rows[["predicted", "measured"]].to_numpy(float) * scale
    ends = [both.min(initial=0.0), both.max(initial=0.0)] if not both.size else [both.min(), both.max()]
    axes.plot(ends, ends, color="black", linewidth=0.6)
    axes.set_xlabel(f"predicted effect ({unit})")
    axes.set_ylabel(f"measured effect ({unit})")
    axes.xaxis.set_major_locator(MaxNLocator(4))
    axes.yaxis.set_major_locator(MaxNLocator(5))


def _look(order: str) -> tuple[str, str, str]:
    """Colour, marker and dash of an order; of the path without a suite the path's colour, dotted."""
    known = looks()
    if order in known:
        return known[order]
    return (known["path"][0], "d", ":") if order.startswith("path,") else (BLACK, "p", ":")


def _said(order: str) -> str:
    return order.replace("_", " ")


def _curve(axes: Axes, line: pd.DataFrame, name: str, order: str) -> None:
    colour, marker, dash = _look(order)
    x = 100 * line["share_undone"]
    axes.vlines(x, line[f"{name}_low"], line[f"{name}_high"], color=colour, linewidth=0.6)
    axes.plot(x, line[name], color=colour, marker=marker, linestyle=dash, label=_said(order))


def _log_shares(axes: Axes, shares: pd.Series) -> None:
    axes.set_xscale("log")
    axes.set_xlim(float(shares.min()) * 0.8, float(shares.max()) * 1.25)
    marks = [m for m in (0.1, 0.25, 0.5, 1, 2.5, 5, 10, 25, 50, 100) if shares.min() * 0.9 <= m <= shares.max() * 1.1]
    axes.xaxis.set_major_locator(FixedLocator(marks))
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_minor_formatter(NullFormatter())
