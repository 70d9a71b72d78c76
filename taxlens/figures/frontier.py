"""What comes back, and at what price: restoration curve, predicted against measured, and the composite figure 1."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from matplotlib.ticker import MaxNLocator

from taxlens.core.errors import UsageError, explain
from taxlens.figures.style import GREY, SERIES, Drawn, new_figure, paper_style, unit_of

_ORDERS = ("path", "one_gradient", "magnitude", "smallest", "random", "uniform", "per_layer", "learned_mask")
_FIRST: dict[str, tuple[str, str, str]] = dict(zip(_ORDERS, [*SERIES, (GREY, "x", "-"), (GREY, "+", "--")]))


def total_rows(frame: pd.DataFrame, metric: str) -> pd.DataFrame:
    """Return the rows of frontier.csv that speak of all taxed suites at once (a blank suite), of one metric."""
    suite = frame["suite"].fillna("")
    rows = frame[(suite == "") & (frame["metric"] == metric)]
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
    return pd.DataFrame(found)


def draw_restoration(frame: pd.DataFrame, *, metric: str = "probability", width: float = 5.5) -> Drawn:
    """Draw the share of the tax returned, and of the benefit kept, against the share of units undone, by order.

    Args:
        frame: frontier.csv [rows, columns].
        metric: which metric.
        width: inches.
    """
    curves = by_order(total_rows(frame, metric))
    curves = curves[curves["order"].isin(_ORDERS)]
    with paper_style():
        figure = new_figure(width, 2.4)
        left, right = figure.subplots(1, 2)
        for name, axes, title in (("returned", left, "tax returned"), ("benefit_kept", right, "benefit kept")):
            for order, part in curves[curves["order"] != "uniform"].groupby("order", sort=False):
                _curve(axes, part.sort_values("share_undone"), name, str(order))
            axes.axhline(1.0 if name == "benefit_kept" else 0.0, color=GREY, linewidth=0.6)
            axes.set_title(f"{title} (share)", loc="left")
            axes.set_xlabel("share of units undone (%)")
            axes.xaxis.set_major_locator(MaxNLocator(6, prune="both"))
        handles, labels = left.get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside upper center", ncols=5)
    caption = (
        f"Share of the tax in {metric} that comes back, and share of the benefit that stays, when units are undone in each "
        "order; measured on held-out items. Whiskers: 95 % joint intervals by group bootstrap; random: mean, smallest and "
        "largest of the draws of equal energy."
    )
    return Drawn(figure, curves, caption)


def draw_predicted(frame: pd.DataFrame, *, metric: str = "probability", width: float = 5.5) -> Drawn:
    """Draw measured against predicted tax, a dot a plan and suite, with the identity, slope and R^2.

    Args:
        frame: frontier.csv [rows, columns].
        metric: which metric.
        width: inches.
    """
    rows = frame[(frame["suite"].fillna("") != "") & (frame["metric"] == metric)].dropna(
        subset=["tax_predicted", "tax"]
    )
    if rows.empty:
        raise UsageError(explain("the front holds no predicted plans.", [("metric", metric)]))
    with paper_style():
        figure = new_figure(min(width, 3.4), 3.0)
        axes = figure.subplots()
        slope, r2 = _scatter(axes, rows, metric)
        axes.legend(loc="upper left")
    caption = (
        f"Measured against predicted tax in {metric} on held-out items, a dot a plan and suite ({len(rows)}); line: identity. "
        f"Slope {slope:.2f}, R² {r2:.2f}."
    )
    return Drawn(figure, rows[["plan", "order", "suite", "tax_predicted", "tax"]], caption)


def draw_figure1(
    frame: pd.DataFrame,
    *,
    attribution: pd.DataFrame,
    closure: pd.DataFrame,
    metric: str = "probability",
    width: float = 5.5,
) -> Drawn:
    """Draw the composite: (A) benefit kept against tax returned, (B) predicted against measured, (C) the leading components.

    Args:
        frame: frontier.csv [rows, columns].
        attribution: attribution.csv [rows, columns].
        closure: closure.csv [rows, columns].
        metric: which metric.
        width: inches.
    """
    curves = by_order(total_rows(frame, metric))
    rows = frame[(frame["suite"].fillna("") != "") & (frame["metric"] == metric)].dropna(
        subset=["tax_predicted", "tax"]
    )
    taxed = closure[(closure["metric"] == metric) & (closure["method"] == "path")]
    suite = str(taxed.loc[taxed["tax"].abs().idxmax(), "suite"])
    with paper_style():
        figure = new_figure(width, 2.5)
        first, second, third = figure.subplots(1, 3)
        for order, part in curves.groupby("order", sort=False):
            colour, marker, dash = _FIRST.get(str(order), (GREY, ".", ":"))
            line = part.sort_values("share_undone")
            dash = "" if order == "random" else dash
            first.plot(
                line["benefit_kept"],
                line["returned"],
                color=colour,
                marker=marker,
                linestyle=dash or "none",
                label=order,
            )
        first.axvline(0.95, color=GREY, linewidth=0.6)
        first.set_xlabel("share of benefit kept")
        first.set_ylabel("share of tax returned")
        first.set_title("A", loc="left", fontweight="bold")
        slope, r2 = _scatter(second, rows, metric)
        for axes in (first, second):
            axes.xaxis.set_major_locator(MaxNLocator(3, prune="both"))
        second.set_title("B", loc="left", fontweight="bold")
        shown = _leading(third, attribution, suite, metric)
        third.set_title("C", loc="left", fontweight="bold")
        figure.legend(*first.get_legend_handles_labels(), loc="outside upper center", ncols=4)
    caption = (
        f"(A) Share of benefit kept against share of tax returned in {metric} on held-out items, by order; grey: 95 % of the "
        f"benefit. (B) Measured against predicted tax, a dot a plan and suite; slope {slope:.2f}, R² {r2:.2f}. (C) Leading "
        f"components of {suite} by path attribution."
    )
    plotted = pd.concat([curves.assign(panel="A"), rows.assign(panel="B"), shown.assign(panel="C")], ignore_index=True)
    keep = [
        "panel",
        "order",
        "share_undone",
        "returned",
        "benefit_kept",
        "plan",
        "suite",
        "tax_predicted",
        "tax",
        "component",
        "effect",
    ]
    return Drawn(figure, plotted[[c for c in keep if c in plotted]], caption)


def _curve(axes: Any, line: pd.DataFrame, name: str, order: str) -> None:
    colour, marker, dash = _FIRST[order]
    x, y = 100 * line["share_undone"], line[name]
    errors = np.abs([y - line[f"{name}_low"], line[f"{name}_high"] - y])
    axes.errorbar(
        x, y, yerr=np.nan_to_num(errors), color=colour, marker=marker, linestyle=dash, elinewidth=0.6, label=order
    )


def _scatter(axes: Any, rows: pd.DataFrame, metric: str) -> tuple[float, float]:
    unit, scale = unit_of(metric)
    x, y = rows["tax_predicted"].to_numpy(float), rows["tax"].to_numpy(float)
    slope, start = np.polyfit(x, y, 1) if len(x) > 1 and np.ptp(x) > 0 else (float("nan"), float("nan"))
    left, total = float(((y - slope * x - start) ** 2).sum()), float(((y - y.mean()) ** 2).sum())
    for (order, part), (colour, marker, _) in zip(rows.groupby("order", sort=False), SERIES * 4):
        axes.plot(
            part["tax_predicted"] * scale,
            part["tax"] * scale,
            color=colour,
            marker=marker,
            linestyle="none",
            label=order,
        )
    ends = np.array([min(x.min(), y.min()), max(x.max(), y.max())]) * scale
    axes.plot(ends, ends, color="black", linewidth=0.6)
    axes.set_xlabel(f"predicted tax ({unit})")
    axes.set_ylabel(f"measured tax ({unit})")
    return float(slope), 1 - left / total if total else float("nan")


def _leading(axes: Any, attribution: pd.DataFrame, suite: str, metric: str) -> pd.DataFrame:
    here = (attribution["suite"] == suite) & (attribution["metric"] == metric) & (attribution["level"] == "component")
    rows = attribution[here & (attribution["method"] == "path")]
    top = rows.loc[rows["effect"].abs().sort_values(ascending=False, kind="stable").index[:8]]
    unit, scale = unit_of(metric)
    axes.barh(range(len(top)), top["effect"] * scale, color=SERIES[0][0])
    axes.set_yticks(range(len(top)), list(top["component"]))
    axes.invert_yaxis()
    axes.axvline(0, color="black", linewidth=0.6)
    axes.set_xlabel(f"effect ({unit})")
    return top[["component", "effect"]]
