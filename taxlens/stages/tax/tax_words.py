"""What is said of a run's tax: the opening clause of each suite, the benefit, the methods, and LaTeX tables."""

from __future__ import annotations

import pandas as pd

from taxlens.analysis.scoring.metrics import shown_metric
from taxlens.words.amounts import amount, bracketed, digits_of, levels, summing, unit_of, units_of
from taxlens.words.latex_text import booktabs, escaped, number, span
from taxlens.words.run_view import RunView
from taxlens.words.suite_rows import is_told, main_metric, told_row


def tax_clauses(run: RunView, suite: str) -> list[str]:
    """Return how much a suite lost with one prompt for both models, and the template's part where it is told from none."""
    row = told_row(run, suite)
    return [_loss(suite, row) + _turned(run, suite, str(row["template"])), *_template(run, suite, str(row["metric"]))]


def tax_closing(run: RunView) -> list[str]:
    """Return what alignment was for: how each benefit suite changed; and what both models' answers refuse."""
    return [*_benefit(run, main_metric(run)), *_refusals(run)] if run.has("tax") else []


def _refusals(run: RunView) -> list[str]:
    """How often both models' answers refuse, of benefit suites and where harmless prompts are refused more often."""
    if not run.has("costs"):
        return []
    frame = run.table("costs")
    said = []
    for row in frame[frame["measure"] == "refusal_rate"].to_dict("records"):
        if row["kind"] == "benefit":
            what = f"{row['suite']}: refused by generation"
        elif row["low"] > 0:
            what = f"Over-refusal: harmless prompts of {row['suite']} are refused by generation"
        else:
            continue
        before, after, change, low, high = (100 * float(row[n]) for n in ("base", "aligned", "change", "low", "high"))
        said.append(
            f"{what} in {before:.0f} % of base's and {after:.0f} % of aligned's answers "
            f"({change:+.0f} points [{low:.0f}, {high:.0f}], {row['n_items']} prompts)."
        )
    return said


def _loss(suite: str, row: pd.Series) -> str:
    metric = row["metric"]
    if pd.isna(row["low"]):
        return f"{suite}: {amount(row['tax'], metric)} of tax in {_measured(row)}; one group: no interval"
    if not is_told(row):
        return f"{suite}: no loss shown, {amount(row['tax'], metric)} {_span(row)} of {_measured(row)}"
    verb = "lost" if row["tax"] > 0 else "gained"
    span = _span(row) if row["tax"] > 0 else _span(-row[["low", "high"]].rename({"low": "high", "high": "low"}), metric)
    return f"{suite} {verb} {amount(abs(row['tax']), metric)} {span} of {_measured(row)}"


def _span(row: pd.Series, metric: str = "") -> str:
    low, high = sorted((float(row["low"]), float(row["high"])))
    return bracketed(low, high, metric or row["metric"])


def _measured(row: pd.Series) -> str:
    """What was measured: the metric, both models' level, the prompt and the items."""
    metric = str(row["metric"])
    known = [levels(row["base"], row["aligned"], metric)] if {"base", "aligned"} <= set(row.index) else []
    known.append(f"{row['template']} prompt for both")
    known += [f"{int(row['n_items'])} items"] if "n_items" in row.index else []
    return f"{shown_metric(metric).words or metric} ({', '.join(known)})"


def _turned(run: RunView, suite: str, template: str) -> str:
    """How many items went from right to wrong, and the other way; blank without accuracy."""
    frame = run.table("tax")
    here = (frame["suite"] == suite) & (frame["template"] == template) & (frame["metric"] == "accuracy")
    if not here.any() or "lost" not in frame or pd.isna(frame.loc[here, "lost"].iloc[0]):
        return ""
    lost, won = (int(frame.loc[here, name].iloc[0]) for name in ("lost", "won"))
    if not lost and not won:
        return "; no item turned from right to wrong"
    return f"; {lost} items went from right to wrong, {won or 'none'} the other way"


def _template(run: RunView, suite: str, metric: str) -> list[str]:
    """The change from base in plain to aligned in chat by its parts, where the template's is told from none and counts."""
    if not run.has("tax_2x2"):
        return []
    frame = run.table("tax_2x2")
    rows = frame[(frame["suite"] == suite) & (frame["metric"] == metric)].set_index("effect")
    names = [name for name in ("weights", "template", "interaction") if name in rows.index]
    if not {"template", "total"} <= set(rows.index):
        return []
    counts = 10.0 ** -shown_metric(metric).digits * 10 / shown_metric(metric).scale
    beside = [name for name in names if name != "weights" and is_told(rows.loc[name])]
    if not any(abs(rows.loc[name, "value"]) >= counts for name in beside):
        return []
    total = float(rows.loc["total", "value"])
    sign = 1 if total >= 0 else -1
    said, parts = summing(sign * total, [sign * float(rows.loc[name, "value"]) for name in names], metric)
    what = {"weights": "the weights", "template": "the template", "interaction": "their interaction"}
    listed = ", ".join(f"{part} from {what[name]}" for part, name in zip(parts, names, strict=True))
    verb = "loss" if sign > 0 else "gain"
    return [f"from base in plain to aligned in chat the {verb} is {said} {unit_of(metric)[0]}: {listed}".rstrip()]


def _benefit(run: RunView, metric: str) -> list[str]:
    frame = run.table("tax")
    rows = frame[(frame["metric"] == metric) & (frame["kind"] == "benefit")]
    said = []
    for suite, here in rows.groupby("suite", sort=False):
        row = here.iloc[0]
        verb = "rose" if row["tax"] < 0 else "fell"
        change = f"{verb} by {amount(abs(row['tax']), metric)} {_span(-row[['low', 'high']] if verb == 'rose' else row, metric)}"
        if not is_told(row):
            change = f"did not change measurably ({amount(-row['tax'], metric)} {_span(-row[['low', 'high']], metric)})"
        said.append(f"What alignment was for: on {suite} {_measured(row)} {change}.")
    return said


def tax_methods(run: RunView) -> list[str]:
    """Return the methods paragraph of the tax."""
    if not run.has("tax"):
        return []
    section, seed = run.config.tax, run.manifest["seed"]
    suites = ", ".join(
        f"{escaped(n)} ({f['items']} items in {f['groups']} groups)" for n, f in run.manifest["suites"].items()
    )
    split = (
        " The change from base with the plain prompt to aligned with the chat prompt is split into the weights' "
        "effect, the template's and their interaction."
        if run.has("tax_2x2") else ""
    )  # fmt: skip
    prior = (
        " Metrics are repeated after the choices' prior is removed \\citep{holtzman2021surface}."
        if section.prior
        else ""
    )
    return [
        "\\paragraph{Tax.} The tax of a suite is base minus aligned on the same items, positive for loss, scored by "
        "the summed log-probability of each choice as "
        f"in \\citet{{gao2024harness}}: {suites}. Intervals are 95\\,\\% by bootstrap of whole groups "
        f"({section.bootstrap} draws, seed {seed}) "
        "\\citep{miller2024adding}; accuracy is tested by exact McNemar \\citep{mcnemar1947note}, other metrics by "
        "sign flips of groups, with Holm's "
        f"correction over suites \\citep{{holm1979simple}}.{split}{prior} Metrics: {_metrics(run)}."
    ]


def _metrics(run: RunView) -> str:
    """Every metric of the tax table with what it is and its unit."""
    known = [shown_metric(str(name)) for name in dict.fromkeys(run.table("tax")["metric"])]
    return "; ".join(
        f"{escaped(one.name)}, {escaped(one.meaning)}{f' (in {one.unit})' if one.unit else ''}" for one in known
    )


def tax_latex(run: RunView, metric: str) -> dict[str, str]:
    """Return the tables tax and two_by_two in LaTeX."""
    made = {"tax": _tax(run, metric)} if run.has("tax") else {}
    return made | ({"two_by_two": _two_by_two(run, metric)} if run.has("tax_2x2") else {})


def _tax(run: RunView, metric: str) -> str:
    frame = run.table("tax")
    shown = [m for m in dict.fromkeys([metric, "accuracy"]) if m in set(frame["metric"])]
    rows = []
    for row in frame[frame["metric"].isin(shown)].sort_values(["suite", "template"], kind="stable").itertuples():
        kind, digits = {"scale": unit_of(str(row.metric))[1]}, digits_of(str(row.metric))
        counts = [f"{int(v)}" if pd.notna(v) else "--" for v in (row.lost, row.won)]
        cells = [number(row.base, digits=digits, **kind), number(row.aligned, digits=digits, **kind)]
        rows.append([
            escaped(row.suite), escaped(row.template), escaped(row.metric), *cells,
            span(row.tax, row.low, row.high, digits=digits, **kind), "/".join(counts), f"{int(row.n_items)}/{int(row.n_groups)}",
        ])  # fmt: skip
    caption = (
        f"Tax of every suite: base minus aligned on the same items, in {escaped(units_of(shown))}; positive is loss. "
        "Brackets: 95\\,\\% intervals by group bootstrap."
    )
    heads = ["suite", "template", "metric", "base", "aligned", "tax", "lost/won", "items/groups"]
    return booktabs(heads, rows, caption=caption, label="tab:tax", left=3)


def _two_by_two(run: RunView, metric: str) -> str:
    frame = run.table("tax_2x2")
    here = frame[frame["metric"] == metric]
    effects = [e for e in ("weights", "template", "interaction", "total") if e in set(here["effect"])]
    rows = []
    for suite, part in here.groupby("suite", sort=False):
        by = part.set_index("effect")
        cells = [
            span(*by.loc[e, ["value", "low", "high"]], scale=unit_of(metric)[1], digits=digits_of(metric))
            for e in effects
        ]
        rows.append([escaped(suite), *cells])
    caption = (
        f"The change in {escaped(metric)} ({unit_of(metric)[0]}) from base with the plain prompt to aligned with the chat "
        "prompt as the "
        "sum of the weights' effect, the template's and their interaction; 95\\,\\% intervals by group bootstrap."
    )
    return booktabs(["suite", *effects], rows, caption=caption, label="tab:twobytwo")
