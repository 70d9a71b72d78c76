"""The answer in a sentence, from a run's tables."""

from __future__ import annotations

import pandas as pd

from taxlens.figures.run_view import RunView

NATS = ("nll", "margin", "kl")
"""Metrics in nats; all others are shares."""
RETURNED = 0.05
"""Share of the tax that a plan must return to be named where none is recommended."""
KEPT = 0.95
"""Share of the benefit that a plan must keep to be named where none is recommended."""


def amount(value: float, metric: str) -> str:
    """Return a loss as read aloud: "12.4 points", "0.31 nats"."""
    return f"{_bare(value, metric)} {'nats' if metric in NATS else 'points'}"


def main_metric(run: RunView) -> str:
    """Return the metric that a run is told in: probability, or the tax table's first; blank without that table."""
    if not run.has("tax"):
        return ""
    metrics = run.table("tax")["metric"]
    return "probability" if "probability" in set(metrics) else str(metrics.iloc[0])


def by_loss(run: RunView) -> list[str]:
    """Return the capability suites, the largest tax first (each in the template in which it is localised)."""
    if not run.has("tax"):
        return []
    frame = run.table("tax")
    rows = frame[(frame["metric"] == main_metric(run)) & (frame["kind"] == "capability")]
    found = {str(suite): _row(run, str(suite), here)["tax"] for suite, here in rows.groupby("suite", sort=False)}
    return sorted(found, key=lambda suite: -float(found[suite]))


def headline(run: RunView) -> list[str]:
    """Return the sentences that answer, most important first: the largest loss, what of it is the template, the
    weights' part, its place, its state and its price.

    Args:
        run: a finished run with at least its tax table.
    """
    if not run.has("tax"):
        return [_capital(price) for price in _price(run, "probability")] or ["No tax was measured in this run."]
    tax, metric = run.table("tax"), main_metric(run)
    rows = tax[(tax["metric"] == metric) & (tax["kind"] == "capability")]
    chosen = {suite: _row(run, suite, rows[rows["suite"] == suite]) for suite in by_loss(run)}
    if not chosen:
        return [*map(_capital, [*_benefit(run, metric), *_price(run, metric)])] or [
            "The run holds no capability suite."
        ]
    sentences = []
    for place, (suite, row) in enumerate(chosen.items()):
        split = _split(run, suite, metric)
        parts = [_loss(suite, row)] if split is None else _parts_of(suite, metric, split, row)
        if _sure(row):
            parts += [_place(run, suite, metric), _state(run, suite)]
        if place == 0:
            parts += [price.rstrip(".") for price in _price(run, metric)]
        sentences.append("; ".join(part for part in parts if part) + ".")
    return [*sentences, *_benefit(run, metric)]


def _capital(sentence: str) -> str:
    return sentence[:1].upper() + sentence[1:]


def _row(run: RunView, suite: str, rows: pd.DataFrame) -> pd.Series:
    return rows[rows["template"] == _localised(run, suite, rows)].iloc[0]


def _localised(run: RunView, suite: str, rows: pd.DataFrame) -> str:
    if run.has("closure"):
        closure = run.table("closure")
        found = closure.loc[closure["suite"] == suite, "template"]
        if len(found) and str(found.iloc[0]) in set(rows["template"]):
            return str(found.iloc[0])
    return str(rows["template"].iloc[0])


def _sure(row: pd.Series) -> bool:
    return bool(row["low"] > 0 or row["high"] < 0)


def _loss(suite: str, row: pd.Series) -> str:
    span = f"[{_bare(row['low'], row['metric'])}, {_bare(row['high'], row['metric'])}]"
    if not _sure(row):
        return (
            f"{suite}: no tax shown in {row['metric']} ({amount(row['tax'], row['metric'])} {span}, {row['template']})"
        )
    verb = "lost" if row["tax"] > 0 else "gained"
    low, high = sorted((row["low"], row["high"]) if row["tax"] > 0 else (-row["high"], -row["low"]))
    span = f"[{_bare(low, row['metric'])}, {_bare(high, row['metric'])}]"
    return f"{suite} {verb} {amount(abs(row['tax']), row['metric'])} {span} of {row['metric']} ({row['template']})"


def _bare(value: float, metric: str) -> str:
    said = f"{value:.3g}" if metric in NATS else f"{100 * value:.1f}"
    return said.lstrip("-") if float(said) == 0 else said


def _split(run: RunView, suite: str, metric: str) -> pd.DataFrame | None:
    """A suite's change from base in plain to aligned in chat by its parts; None where neither it nor the template's part is told from none."""
    if not run.has("tax_2x2"):
        return None
    frame = run.table("tax_2x2")
    rows = frame[(frame["suite"] == suite) & (frame["metric"] == metric)].set_index("effect")
    if not {"template", "total"} <= set(rows.index) or not (_sure(rows.loc["total"]) or _sure(rows.loc["template"])):
        return None
    return rows


def _parts_of(suite: str, metric: str, split: pd.DataFrame, row: pd.Series) -> list[str]:
    """The whole change, what of it is the template, and what the weights."""
    sign = 1 if split.loc["total", "value"] >= 0 else -1
    value = sign * split["value"]
    low, high = sorted(sign * split.loc["total", ["low", "high"]].to_numpy(float))
    whole = (
        f"{suite} {'lost' if sign > 0 else 'gained'} {amount(value['total'], metric)} [{_bare(low, metric)}, {_bare(high, metric)}] "
        f"of {metric} (base in plain, aligned in chat{'' if _sure(split.loc['total']) else '; not told from none'})"
    )
    said = [whole, f"of these {_bare(value['template'], metric)} are the template"]
    interaction = value.get("interaction", 0.0)
    if abs(interaction) > 0.1 * abs(value["total"]):
        said[-1] += f", {_bare(interaction, metric)} its interaction with the weights"
    low, high = sorted((sign * row["low"], sign * row["high"]))
    weights = f"{_bare(sign * row['tax'], metric)} [{_bare(low, metric)}, {_bare(high, metric)}]"
    unsure = "" if _sure(row) else ", not told from none"
    return [*said, f"{weights} are the weights ({row['template']} prompt{unsure})"]


def _place(run: RunView, suite: str, metric: str) -> str:
    if not (run.has("attribution") and run.has("closure")):
        return ""
    frame, closure = run.table("attribution"), run.table("closure")
    here = (frame["suite"] == suite) & (frame["metric"] == metric) & (frame["method"] == "path")
    here &= frame["level"] == "component"
    closed = closure[(closure["suite"] == suite) & (closure["metric"] == metric) & (closure["method"] == "path")]
    if not here.any() or closed.empty or abs(closed["tax"].iloc[0]) < 0.005:
        return ""
    top = frame[here].sort_values("effect", ascending=closed["tax"].iloc[0] < 0, kind="stable").head(3)
    top = top[top["share"] >= 0.01]
    parts = [f"{100 * row.share:.0f} % in {row.component}" for row in top.itertuples()]
    said = ", ".join(parts) if parts else "in no single component"
    return f"the weights' part sits {said} (unexplained: {closed['residual'].iloc[0]:.1e})"


def _state(run: RunView, suite: str) -> str:
    parts = [_decodable(run, suite)]
    if run.has("states"):
        frame = run.table("states")
        overall = frame[(frame["suite"] == suite) & frame["layer"].isna()]
        parts += [str(overall["state"].iloc[0])] if len(overall) else []
    return ": ".join(part for part in parts if part)


def _decodable(run: RunView, suite: str) -> str:
    if not run.has("probe_drop"):
        return ""
    frame = run.table("probe_drop")
    rows = frame[(frame["suite"] == suite) & (frame["label"] == "correct")].dropna(subset=["p_adjusted"])
    if rows.empty:
        return ""
    lost = rows.loc[(rows["p_adjusted"] < 0.05) & (rows["drop"] > 0), "layer"]
    layers = sorted({int(layer) for layer in lost})
    if not layers:
        return f"no probe drop of the right answer at any of {rows['layer'].nunique()} layers"
    return f"the right answer is less decodable at layers {', '.join(map(str, layers))}"


def _benefit(run: RunView, metric: str) -> list[str]:
    frame = run.table("tax")
    rows = frame[(frame["metric"] == metric) & (frame["kind"] == "benefit")]
    said = []
    for suite, here in rows.groupby("suite", sort=False):
        row = here.iloc[-1]
        change, span = amount(-row["tax"], metric), f"[{_bare(-row['high'], metric)}, {_bare(-row['low'], metric)}]"
        said.append(f"What alignment was for: {suite} rose by {change} {span} of {metric} ({row['template']}).")
    return said


def _price(run: RunView, metric: str) -> list[str]:
    plan = (run.manifest.get("frontier") or {}).get("recommended")
    if not run.has("frontier"):
        return []
    frame = run.table("frontier")
    rows = frame[(frame["suite"].fillna("") == "") & (frame["metric"] == metric)]
    if rows.empty:
        return []
    if plan and (rows["plan"] == plan).any():
        row, start = rows[rows["plan"] == plan].iloc[0], "undoing"
    else:
        single = rows[(rows["draw"] < 0) & ~rows["plan"].str.contains("-without-")] if "draw" in rows else rows[:0]
        keeping = single[(single["benefit_kept"] >= KEPT) & (single["returned"] >= RETURNED)]
        if keeping.empty:
            return [f"no plan that was measured returns {RETURNED:.0%} of it and keeps {KEPT:.0%} of the benefit."]
        row, start = (
            keeping.loc[keeping["returned"].idxmax()],
            f"of the plans that keep {KEPT:.0%} of the benefit, undoing",
        )
    kept = f", keeping {100 * row['benefit_kept']:.0f} % of the benefit" if "benefit_kept" in row else ""
    share, returned = f"{100 * row['share_undone']:.1f} %", f"{100 * row['returned']:.0f} %"
    span = f"[{100 * row['returned_low']:.0f}, {100 * row['returned_high']:.0f}]"
    named = f"{start} {share} of the update's units ({row['plan']})"
    return [f"{named} returns {returned} {span} of the tax on held-out items{kept}."]
