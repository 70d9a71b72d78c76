"""What is said of a run's tax: the opening clause of each suite, the benefit, the methods, and LaTeX tables."""

from __future__ import annotations

import pandas as pd

from taxlens.analysis.scoring.metrics import shown_metric
from taxlens.words.amounts import amount, bare, digits_of, unit_of, units_of
from taxlens.words.latex_text import booktabs, escaped, number, span
from taxlens.words.run_view import RunView
from taxlens.words.suite_rows import is_told, main_metric, told_row


def tax_clauses(run: RunView, suite: str) -> list[str]:
    """Return how much a suite lost, split into weights and template where both were measured."""
    metric = main_metric(run)
    row, split = told_row(run, suite), _split(run, suite, metric)
    return [_loss(suite, row)] if split is None else _parts_of(suite, metric, split, row)


def tax_closing(run: RunView) -> list[str]:
    """Return what alignment was for: how far each benefit suite rose."""
    return _benefit(run, main_metric(run)) if run.has("tax") else []


def _loss(suite: str, row: pd.Series) -> str:
    span = f"[{bare(row['low'], row['metric'])}, {bare(row['high'], row['metric'])}]"
    if not is_told(row):
        return (
            f"{suite}: no tax shown in {row['metric']} ({amount(row['tax'], row['metric'])} {span}, {row['template']})"
        )
    verb = "lost" if row["tax"] > 0 else "gained"
    low, high = sorted((row["low"], row["high"]) if row["tax"] > 0 else (-row["high"], -row["low"]))
    span = f"[{bare(low, row['metric'])}, {bare(high, row['metric'])}]"
    return f"{suite} {verb} {amount(abs(row['tax']), row['metric'])} {span} of {row['metric']} ({row['template']})"


def _split(run: RunView, suite: str, metric: str) -> pd.DataFrame | None:
    """A suite's change from base in plain to aligned in chat by its parts; None where neither it nor the template's part is told from none."""
    if not run.has("tax_2x2"):
        return None
    frame = run.table("tax_2x2")
    rows = frame[(frame["suite"] == suite) & (frame["metric"] == metric)].set_index("effect")
    if not {"template", "total"} <= set(rows.index) or not (
        is_told(rows.loc["total"]) or is_told(rows.loc["template"])
    ):
        return None
    return rows


def _parts_of(suite: str, metric: str, split: pd.DataFrame, row: pd.Series) -> list[str]:
    """The whole change, what of it is the template, and what the weights."""
    sign = 1 if split.loc["total", "value"] >= 0 else -1
    value = sign * split["value"]
    low, high = sorted(sign * split.loc["total", ["low", "high"]].to_numpy(float))
    whole = (
        f"{suite} {'lost' if sign > 0 else 'gained'} {amount(value['total'], metric)} [{bare(low, metric)}, {bare(high, metric)}] "
        f"of {metric} (base in plain, aligned in chat{'' if is_told(split.loc['total']) else '; not told from none'})"
    )
    said = [whole, f"of these {bare(value['template'], metric)} are the template"]
    interaction = value.get("interaction", 0.0)
    if abs(interaction) > 0.1 * abs(value["total"]):
        said[-1] += f", {bare(interaction, metric)} its interaction with the weights"
    low, high = sorted((sign * row["low"], sign * row["high"]))
    weights = f"{bare(sign * row['tax'], metric)} [{bare(low, metric)}, {bare(high, metric)}]"
    unsure = "" if is_told(row) else ", not told from none"
    return [*said, f"{weights} are the weights ({row['template']} prompt{unsure})"]


def _benefit(run: RunView, metric: str) -> list[str]:
    frame = run.table("tax")
    rows = frame[(frame["metric"] == metric) & (frame["kind"] == "benefit")]
    said = []
    for suite, here in rows.groupby("suite", sort=False):
        row = here.iloc[-1]
        change, span = amount(-row["tax"], metric), f"[{bare(-row['high'], metric)}, {bare(-row['low'], metric)}]"
        said.append(f"What alignment was for: {suite} rose by {change} {span} of {metric} ({row['template']}).")
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
