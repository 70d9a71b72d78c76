"""What is said of a run's attribution: where the loss sits, how it closes, the methods, and LaTeX tables."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pandas as pd

from taxlens.analysis.interventions.effects import APART_KIND
from taxlens.analysis.interventions.method_registry import METHODS
from taxlens.words.amounts import bare, digits_of, signed, summing, unit_of
from taxlens.words.latex_text import booktabs, escaped, number, span
from taxlens.words.run_view import RunView
from taxlens.words.suite_rows import is_told, main_metric, told_row

if TYPE_CHECKING:
    from rich.table import Table

LEADING = 8
"""Components of a suite in the LaTeX table."""


TENTH = 0.1
"""Share of the loss from which a component is named."""


def attribute_clauses(run: RunView, suite: str) -> list[str]:
    """Return which components hold a suite's loss, as parts that add up to it, where its change is told from none."""
    said = _place(run, suite, main_metric(run)) if is_told(told_row(run, suite)) else ""
    return [said] if said else []


def _place(run: RunView, suite: str, metric: str) -> str:
    if not (run.has("attribution") and run.has("closure")):
        return ""
    frame, closure = run.table("attribution"), run.table("closure")
    here = (frame["suite"] == suite) & (frame["metric"] == metric) & (frame["method"] == "path")
    here &= frame["level"] == "component"
    closed = closure[(closure["suite"] == suite) & (closure["metric"] == metric) & (closure["method"] == "path")]
    if not here.any() or closed.empty or abs(closed["tax"].iloc[0]) < 0.005:
        return ""
    row = closed.iloc[0]
    sign = 1.0 if row["tax"] > 0 else -1.0
    effects = frame[here & (frame["kind"] != APART_KIND)].set_index("component")["effect"] * sign
    tax = sign * float(row["tax"])
    leading = effects[effects >= TENTH * tax].sort_values(ascending=False, kind="stable").head(3)
    apart = sign * float(row["prompt_and_config"]) if "prompt_and_config" in closed else 0.0
    below = float(effects.drop(leading.index).sum())
    residual = tax - float(leading.sum()) - below - apart
    total, parts = summing(tax, [*leading, below, apart, residual], metric, absorb=len(leading))
    *named, others, prompts, missing = parts
    zero = bare(0.0, metric)
    subject = f"{total} {unit_of(metric)[0]}".rstrip() + _which(row, told_row(run, suite))
    if named:
        first, *more = [
            f"{part} {'come ' * (k == 0)}from {name}"
            for k, (part, name) in enumerate(zip(named, leading.index, strict=True))
        ]
        listed = first if not more else f"{', '.join([first, *more[:-1]])} and {more[-1]}"
        count = len(effects) - len(named)
        rest = f"the other component adds {others}" if count == 1 else f"the other {count} components add {others}"
        said = f"of the {subject}, {listed}; {rest}"
    else:
        largest = f"{effects.idxmax()} with {bare(effects.max(), metric)}"
        said = f"the {subject} are spread over {len(effects)} components, {others} in all; the largest is {largest}"
    said += f"; {prompts} come from different prompts or configs of the two models" if prompts != zero else ""
    said += f"; {missing} is unexplained" if missing.lstrip("-") != zero else ""
    return said + ("" if _settled(row) else " (the effects have not settled: see the limits)")


def _which(closed: pd.Series, told: pd.Series) -> str:
    """Words where the attributed items are not those of the headline."""
    same = abs(float(closed["tax"]) - float(told["tax"])) < 5e-4 * max(1.0, abs(float(told["tax"])))
    return "" if same else " on the items that were attributed"


def _settled(closed: pd.Series) -> bool:
    return "closed" not in closed.index or str(closed["closed"]) != "False"


def attribute_limits(run: RunView) -> list[str]:
    """Return how far the effects sum to the tax, and which had not settled."""
    if not run.has("closure"):
        return []
    frame = run.table("closure")
    path = frame[frame["method"] == "path"]
    said = [
        f"The path's effects sum to the measured tax to {path['residual'].abs().max():.1e} at worst. Closure certifies the sum, "
        "not each effect: the quadrature error of each is in attribution.csv, and the path depends on the "
        "parametrisation."
    ]
    if "closed" in path:
        open_ = path[path["closed"].astype(str) == "False"]
        pairs = [
            f"{suite} ({reason})"
            for suite, reason in open_[["suite", "reason"]].drop_duplicates().itertuples(index=False)
        ]
        said += [f"Not closed: {'; '.join(pairs)}."] if pairs else []
    return said


def attribute_terminal(run: RunView) -> Iterator[Table]:
    """Yield the table of how the path's effects sum to each tax."""
    if run.has("closure"):
        yield _closure_table(run.table("closure"))


def _closure_table(frame: pd.DataFrame) -> Table:
    from taxlens.words.terminal_tables import new_table

    apart = _is_apart(frame)
    table = new_table(
        "attribution by the weight path (effects sum to the tax; residual shown)",
        ("suite", "template", "metric"),
        ("tax", "attributed", *(["prompt, config"] if apart else []), "residual", "gradients", "forwards"),
    )
    for row in frame[frame["method"] == "path"].itertuples():
        residual = f"{row.residual:.2e}"
        counts = [str(int(v)) if pd.notna(v) else "-" for v in (row.gradients, row.forwards)]
        sums = (row.tax, row.attributed, *([row.prompt_and_config] if apart else []))
        values = [signed(value, row.metric) for value in sums]
        table.add_row(row.suite, row.template, row.metric, *values, residual, *counts)
    return table


def _is_apart(frame: pd.DataFrame) -> bool:
    """Whether some tax of closure.csv is in part no effect of weights."""
    return "prompt_and_config" in frame and bool(frame["prompt_and_config"].fillna(0).any())


def attribute_methods(run: RunView) -> list[str]:
    """Return the methods paragraph of the attribution."""
    if not run.has("attribution"):
        return []
    frame, section = run.table("attribution"), run.config.attribution
    gradients = (
        sorted(set(run.table("closure").query("method == 'path'")["gradients"].astype(int)))
        if run.has("closure")
        else []
    )
    used = set(frame["method"])
    swaps = [method.words for method in METHODS.values() if method.run is not None and method.name in used]
    items = section.items
    return [
        "\\paragraph{Attribution.} Along "
        "$\\theta(t)=\\theta_{\\mathrm{base}}+t(\\theta_{\\mathrm{aligned}}-\\theta_{\\mathrm{base}})$ the effect of "
        "a component $c$ is "
        "$A_c=\\int_0^1\\langle\\nabla_c M(\\theta(t)),\\Delta_c\\rangle\\,dt$, which sums to the tax: integrated "
        "gradients over weights "
        "\\citep{sundararajan2017axiomatic,aumann1974values} with the base as baseline, or loss change allocation "
        "\\citep{lan2019lca} on a straight path; related are "
        "\\citet{modelshapley2025,eichin2025explaind,kong2024activated,sun2026weight}. The choices' scores are "
        "differentiated and metrics chained from them; nodes are nested, "
        f"{'/'.join(map(str, gradients)) or 'a few'} gradients, tolerance {section.tolerance}, "
        f"{'all items' if items == 'all' else f'{items} items a suite'}. Each effect has a quadrature error and a "
        "group-bootstrap interval."
        + (f" Interventions beside it: {', '.join(swaps)}." if swaps else "")
        + " Localising is not editing \\citep{hase2023does,wang2025editing}."
    ]


def attribute_latex(run: RunView, metric: str) -> dict[str, str]:
    """Return the tables attribution and closure in LaTeX."""
    made = {"attribution": _attribution(run, metric)} if run.has("attribution") else {}
    return made | ({"closure": _closure(run, metric)} if run.has("closure") else {})


def _attribution(run: RunView, metric: str) -> str:
    frame = run.table("attribution")
    here = (frame["metric"] == metric) & (frame["level"] == "component") & (frame["method"] == "path")
    rows = []
    for suite, part in frame[here].groupby("suite", sort=False):
        top = part.loc[part["effect"].abs().sort_values(ascending=False, kind="stable").index[:LEADING]]
        for row in top.itertuples():
            effect = span(row.effect, row.low, row.high, scale=unit_of(metric)[1], digits=digits_of(metric) + 1)
            share = number(row.share, scale=100, digits=0)
            rows.append(
                [
                    escaped(suite),
                    escaped(row.component),
                    effect,
                    f"{row.quadrature_error * unit_of(metric)[1]:.1e}",
                    share,
                ]
            )
    caption = (
        f"Leading components by path attribution, effect on {escaped(metric)} ({unit_of(metric)[0]}; positive is loss) with "
        "95\\,\\% intervals "
        "by group bootstrap, the quadrature error of each effect, and its share of the suite's tax (\\%)."
    )
    heads = ["suite", "component", "effect", "quadrature", "share"]
    return booktabs(heads, rows, caption=caption, label="tab:attribution", left=2)


def _closure(run: RunView, metric: str) -> str:
    frame = run.table("closure")
    apart, rows = _is_apart(frame), []
    for row in frame[frame["metric"] == metric].itertuples():
        found = row._asdict()
        end = found.get("end_error", float("nan"))
        settled = {"True": "yes", "False": "no"}.get(str(found.get("closed")), "--") if row.method == "path" else "--"
        sums = (row.tax, row.attributed, *([row.prompt_and_config] if apart else []))
        cells = [number(v, scale=unit_of(metric)[1], digits=digits_of(metric) + 1) for v in sums]
        rows.append([
            escaped(row.suite), escaped(row.template), escaped(row.method), *cells, f"{row.residual * unit_of(metric)[1]:.1e}",
            "--" if end != end else f"{end:.1e}", f"{int(row.gradients)}/{int(row.forwards)}", settled,
        ])  # fmt: skip
    caption = (
        f"How the account of {escaped(metric)} ({unit_of(metric)[0]}) sums, by method. End error: relative error of the "
        "scores predicted at the aligned end; "
        "settled: by the stopping rule. Only path and Shapley effects are built to sum to the tax."
    )
    heads = [
        "suite",
        "template",
        "method",
        "tax",
        "attributed",
        *(["prompt, config"] if apart else []),
        "residual",
        "end error",
        "gradients/forwards",
        "settled",
    ]
    return booktabs(heads, rows, caption=caption, label="tab:closure", left=3)
