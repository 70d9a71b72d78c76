"""A run's tables for a paper: booktabs, with captions that hold the numbers' kind, intervals and counts."""

from __future__ import annotations

from taxlens.figures.run_view import RunView
from taxlens.report.answer import NATS, main_metric
from taxlens.report.tex import booktabs, escaped, number, span

LEADING = 8
"""Components of a suite in the attribution table."""


def paper_tables(run: RunView) -> dict[str, str]:
    """Return the run's tables as LaTeX by name; what was not run is left out."""
    metric = main_metric(run) or "probability"
    makers = {"tax": _tax, "two_by_two": _two_by_two, "attribution": _attribution, "closure": _closure,
              "states": _states, "frontier": _frontier}  # fmt: skip
    needs = {"two_by_two": "tax_2x2"}
    return {name: make(run, metric) for name, make in makers.items() if run.has(needs.get(name, name))}


def unit(metric: str) -> str:
    """Return the unit that a metric's values are printed in."""
    return "nats" if metric in NATS else "points"


def _scale(metric: str) -> float:
    return 1.0 if metric in NATS else 100.0


def _digits(metric: str) -> int:
    return 2 if metric in NATS else 1


def _tax(run: RunView, metric: str) -> str:
    frame = run.table("tax")
    shown = [m for m in dict.fromkeys([metric, "accuracy"]) if m in set(frame["metric"])]
    rows = []
    for row in frame[frame["metric"].isin(shown)].sort_values(["suite", "template"], kind="stable").itertuples():
        kind, digits = {"scale": _scale(str(row.metric))}, _digits(str(row.metric))
        counts = [f"{int(v)}" if v == v else "--" for v in (row.lost, row.won)]
        cells = [number(row.base, digits=digits, **kind), number(row.aligned, digits=digits, **kind)]
        rows.append([
            escaped(row.suite), escaped(row.template), escaped(row.metric), *cells,
            span(row.tax, row.low, row.high, digits=digits, **kind), "/".join(counts), f"{int(row.n_items)}/{int(row.n_groups)}",
        ])  # fmt: skip
    caption = (
        "Tax of every suite: base minus aligned on the same items, in points (nll and margin in nats); positive is "
        "loss. "
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
            span(*by.loc[e, ["value", "low", "high"]], scale=_scale(metric), digits=_digits(metric)) for e in effects
        ]
        rows.append([escaped(suite), *cells])
    caption = (
        f"The change in {escaped(metric)} ({unit(metric)}) from base with the plain prompt to aligned with the chat "
        "prompt as the "
        "sum of the weights' effect, the template's and their interaction; 95\\,\\% intervals by group bootstrap."
    )
    return booktabs(["suite", *effects], rows, caption=caption, label="tab:twobytwo")


def _attribution(run: RunView, metric: str) -> str:
    frame = run.table("attribution")
    here = (frame["metric"] == metric) & (frame["level"] == "component") & (frame["method"] == "path")
    rows = []
    for suite, part in frame[here].groupby("suite", sort=False):
        top = part.loc[part["effect"].abs().sort_values(ascending=False, kind="stable").index[:LEADING]]
        for row in top.itertuples():
            effect = span(row.effect, row.low, row.high, scale=_scale(metric), digits=_digits(metric) + 1)
            share = number(row.share, scale=100, digits=0)
            rows.append(
                [escaped(suite), escaped(row.component), effect, f"{row.quadrature_error * _scale(metric):.1e}", share]
            )
    caption = (
        f"Leading components by path attribution, effect on {escaped(metric)} ({unit(metric)}; positive is loss) with "
        "95\\,\\% intervals "
        "by group bootstrap, the quadrature error of each effect, and its share of the suite's tax (\\%)."
    )
    heads = ["suite", "component", "effect", "quadrature", "share"]
    return booktabs(heads, rows, caption=caption, label="tab:attribution", left=2)


def _closure(run: RunView, metric: str) -> str:
    frame = run.table("closure")
    rows = []
    for row in frame[frame["metric"] == metric].itertuples():
        found = row._asdict()
        end = found.get("end_error", float("nan"))
        settled = {"True": "yes", "False": "no"}.get(str(found.get("closed")), "--") if row.method == "path" else "--"
        cells = [number(v, scale=_scale(metric), digits=_digits(metric) + 1) for v in (row.tax, row.attributed)]
        rows.append([
            escaped(row.suite), escaped(row.template), escaped(row.method), *cells, f"{row.residual * _scale(metric):.1e}",
            "--" if end != end else f"{end:.1e}", f"{int(row.gradients)}/{int(row.forwards)}", settled,
        ])  # fmt: skip
    caption = (
        f"How the account of {escaped(metric)} ({unit(metric)}) sums, by method. End error: relative error of the "
        "scores predicted at the aligned end; "
        "settled: by the stopping rule. Only path and Shapley effects are built to sum to the tax."
    )
    heads = [
        "suite",
        "template",
        "method",
        "tax",
        "attributed",
        "residual",
        "end error",
        "gradients/forwards",
        "settled",
    ]
    return booktabs(heads, rows, caption=caption, label="tab:closure", left=3)


def _states(run: RunView, metric: str) -> str:
    frame = run.table("states")
    overall = frame[frame["layer"].isna()]
    rows = [
        [escaped(r.suite), escaped(r.template), escaped(r.state), escaped(str(r.reason)[:90])]
        for r in overall.itertuples()
    ]
    caption = "State of each capability and the rule that fired; evidence by layer stands in evidence.csv."
    return booktabs(["suite", "template", "state", "reason"], rows, caption=caption, label="tab:states", left=4)


def _frontier(run: RunView, metric: str) -> str:
    frame = run.table("frontier")
    rows = frame[(frame["suite"].fillna("") == "") & (frame["metric"] == metric)]
    single = rows[rows["draw"] < 0]
    shown = [[
        escaped(str(r.order).replace("_", " ")), number(r.share_undone, scale=100), number(r.energy_undone, scale=100),
        span(r.returned, r.returned_low, r.returned_high, scale=100, digits=0),
        span(r.benefit_kept, r.benefit_kept_low, r.benefit_kept_high, scale=100, digits=0),
    ] for r in single.itertuples()]  # fmt: skip
    drawn = rows[rows["draw"] >= 0]
    for _, part in drawn.groupby(drawn["plan"].str.replace(r"-d\d+$", "", regex=True), sort=False):
        values = [part[c] for c in ("returned", "benefit_kept")]
        cells = [
            f"{number(v.mean(), scale=100, digits=0)} ({number(v.min(), scale=100, digits=0)} to "
            f"{number(v.max(), scale=100, digits=0)})"
            for v in values
        ]
        shares = [number(part[c].mean(), scale=100) for c in ("share_undone", "energy_undone")]
        shown.append([f"random, {len(part)} draws", *shares, *cells])
    caption = (
        f"Parts of the update undone, in each order: share of the tax in {escaped(metric)} returned and of the "
        "benefit kept (\\%), measured on held-out items; "
        "brackets: 95\\,\\% joint intervals by group bootstrap; random draws have the energy of the path plan: mean "
        "(smallest to largest)."
    )
    heads = ["order", "units undone (\\%)", "energy (\\%)", "tax returned", "benefit kept"]
    return booktabs(heads, shown, caption=caption, label="tab:frontier")
