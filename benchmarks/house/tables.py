"""Print a run's tables as the README shows them: tax, closure, leading components, restoration.

Run: python -m benchmarks.house.tables runs/smollm2
"""

from __future__ import annotations

import sys
from collections.abc import Iterable

import pandas as pd

from taxlens.runs.folder import Run


def rows(header: list[str], body: Iterable[Iterable[object]]) -> str:
    """Return a Markdown table."""
    lines = ["| " + " | ".join(header) + " |", "|" + "---|" * len(header)]
    return "\n".join([*lines, *("| " + " | ".join(str(cell) for cell in row) + " |" for row in body)])


def amount(value: float, metric: str) -> str:
    """Return a value in points or nats."""
    return f"{value:+.3f}" if metric in ("nll", "margin") else f"{100 * value:+.1f}"


def tax_table(run: Run, metrics: tuple[str, ...] = ("accuracy", "probability")) -> str:
    """Return the tax table: a row a suite, template and metric."""
    frame = run.table("tax")
    body = [
        (
            r.suite,
            r.template,
            r.metric,
            amount(r.base, r.metric).lstrip("+"),
            amount(r.aligned, r.metric).lstrip("+"),
            f"**{amount(r.tax, r.metric)}** [{amount(r.low, r.metric)}, {amount(r.high, r.metric)}]",
            f"{r.lost} / {r.won}",
            f"{r.n_items} / {r.n_groups}",
        )
        for r in frame[frame["metric"].isin(metrics)].itertuples()
    ]
    return rows(["suite", "template", "metric", "base", "aligned", "tax [95 %]", "lost / won", "items / groups"], body)


def closure_table(run: Run) -> str:
    """Return how the path attribution closed: a row a suite and metric."""
    frame = run.table("closure")
    body = [
        (
            r.suite,
            r.template,
            r.metric,
            amount(r.tax, r.metric),
            amount(r.attributed, r.metric),
            f"{r.residual:.1e}",
            r.gradients,
            f"{r.end_error:.1e}",
        )
        for r in frame[frame["method"] == "path"].itertuples()
    ]
    header = ["suite", "template", "metric", "tax", "attributed", "residual", "gradients", "end-point error of scores"]
    return rows(header, body)


def leading_table(run: Run, most: int = 5) -> str:
    """Return the leading components of every suite by probability."""
    frame = run.table("attribution")
    path = frame[(frame["method"] == "path") & (frame["metric"] == "probability") & (frame["level"] == "component")]
    body = []
    for suite, part in path.groupby("suite", sort=False):
        top = part.reindex(part["effect"].abs().sort_values(ascending=False, kind="stable").index).head(most)
        body.append((suite, ", ".join(f"{r.component} {amount(r.effect, 'probability')}" for r in top.itertuples())))
    return rows(["suite", "leading components (points of probability)"], body)


def restoration_table(run: Run, metric: str = "probability") -> str:
    """Return the restoration table: a row a plan, all taxed suites at once; random draws as mean and largest."""
    frame = run.table("frontier")
    total = frame[(frame["suite"].fillna("") == "") & (frame["metric"] == metric)]
    named = total["plan"].where(total["order"] != "random", total["plan"].str.rpartition("-d")[0])
    body = []
    for name, part in total.groupby(named, sort=False):
        body.append((name, f"{100 * part['share_undone'].iloc[0]:.1f} %", len(part), *_measured(part)))
    header = [
        "plan",
        "units undone",
        "plans",
        "update energy",
        "tax returned [95 %]",
        "benefit kept [95 %]",
        "by generation",
    ]
    return rows(header, body)


def matched_table(run: Run) -> str:
    """Return every order's best plan that keeps the margin of the benefit, and how far path is ahead of it."""
    body = []
    for r in run.table("frontier_matched").itertuples():
        spans = [
            _span(getattr(r, c), getattr(r, f"{c}_low"), getattr(r, f"{c}_high"))
            for c in ("returned", "benefit_kept", "path_ahead")
        ]
        body.append((r.order, "none keeps it" if pd.isna(r.plan) else r.plan, *spans))
    return rows(["order", "plan", "tax returned [95 %]", "benefit kept [95 %]", "path is ahead by [95 %]"], body)


def _measured(part: pd.DataFrame) -> tuple[str, ...]:
    first = part.iloc[0]
    energy = f"{100 * part['energy_undone'].mean():.1f} %"
    generated = f"{first['benefit_generated']:.2f}" if pd.notna(first["benefit_generated"]) else ""
    if len(part) > 1:
        spread = [
            f"{100 * part[c].mean():.0f} % (largest {100 * part[c].max():.0f})" for c in ("returned", "benefit_kept")
        ]
        return energy, *spread, generated
    spans = [_span(first[c], first[f"{c}_low"], first[f"{c}_high"]) for c in ("returned", "benefit_kept")]
    return energy, *spans, generated


def _span(value: float, low: float, high: float) -> str:
    return "" if pd.isna(value) else f"{100 * value:.0f} % [{100 * low:.0f}, {100 * high:.0f}]"


def main() -> None:
    """Print every table that the run has."""
    run = Run.open(sys.argv[1])
    if run.has("tax"):
        print(tax_table(run), end="\n\n")
    if run.has("closure"):
        print(closure_table(run), leading_table(run), sep="\n\n", end="\n\n")
    if run.has("frontier"):
        print(restoration_table(run), matched_table(run), sep="\n\n")


if __name__ == "__main__":
    main()
