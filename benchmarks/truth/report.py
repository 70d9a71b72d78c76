"""The page docs/proving-ground.md, made from results."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.truth.pictures import draw_families, draw_methods
from taxlens.demo import model_names, truth

Rows = Sequence[dict[str, Any]]


def spread(values: Sequence[float]) -> str:
    """Median and range of values, as text."""
    kept = np.array([v for v in values if v is not None and np.isfinite(v)])
    if not len(kept):
        return "-"
    if len(kept) == 1:
        return f"{kept[0]:.2f}"
    return f"{np.median(kept):.2f} [{kept.min():.2f}, {kept.max():.2f}]"


def method_table(plants: Rows) -> list[str]:
    """One row a method, over all accepted plants."""
    methods = list(dict.fromkeys(row["method"] for plant in plants for row in plant["rows"]))
    lines = [
        "| method | mass on truth | relative to exact Shapley | L1 to exact, scaled | L1, as given | sum / tax | top k exact | passes |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for method in methods:
        rows = [row for plant in plants for row in plant["rows"] if row["method"] == method]
        cells = [spread([row[key] for row in rows]) for key in ("mass", "relative_mass", "distance", "raw_distance")]
        norms = method.endswith("norm") or "norm of" in method or "drop" in method
        cells[3] = "-" if norms else cells[3]
        cells.append("-" if norms else spread([row["closure"] for row in rows]))
        cells.append(f"{sum(row['top'] for row in rows)} of {len(rows)}")
        cells.append(f"{np.median([row['passes'] for row in rows]):.0f}")
        lines.append(f"| {method} | {' | '.join(cells)} |")
    return lines


def family_table(plants: Rows) -> list[str]:
    """One row a family: acceptance, and what the path and exact Shapley put on the truth."""
    lines = [
        "| family | plants | accepted | tax | harm alone / tax | all but harm / tax | decoy / harm, norm "
        "| mass, exact Shapley | mass, path | L1, path |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for family in dict.fromkeys(plant["family"] for plant in plants):
        found = [plant for plant in plants if plant["family"] == family]
        judged = [plant["acceptance"] for plant in found]
        exact, path = (
            [row for plant in found for row in plant["rows"] if row["method"] == method]
            for method in ("exact Shapley", "path")
        )
        cells = [
            f"{len(found)}",
            f"{sum(a['accepted'] for a in judged)}",
            spread([plant["tax"] for plant in found]),
            spread([a["harm_alone"] for a in judged]),
            spread([a["decoy_alone"] for a in judged]),
            spread([a["ratio"] for a in judged]),
            spread([row["mass"] for row in exact]),
            spread([row["mass"] for row in path]),
            spread([row["distance"] for row in path]),
        ]
        lines.append(f"| {family} | {' | '.join(cells)} |")
    return lines


def technique_table() -> list[str]:
    """One row a shipped technique: what it bought and what it cost."""
    lines = [
        "| pair | harm refused (base -> aligned) | harmless refused | selective benefit | taxes, probability |",
        "|---|---|---|---|---|",
    ]
    for name in model_names():
        if name in ("demo:base", "demo:planted"):
            continue
        found = truth(name)
        before, after = found["refused"]["base"], found["refused"]["aligned"]
        taxes = ", ".join(f"{task} {tax['probability']:+.3f}" for task, tax in found["tax"].items())
        lines.append(
            f"| {name} | {before['harm/plain']:.2f} -> {after['harm/plain']:.2f} "
            f"| {before['harmless/plain']:.2f} -> {after['harmless/plain']:.2f} | {found['benefit']:+.2f} | {taxes} |"
        )
    return lines


def null_lines(nulls: Rows) -> list[str]:
    """What was found where nothing is."""
    if not nulls:
        return ["No null pair was run."]
    taxes = sum(n["false_tax"] for n in nulls)
    parts = sum(bool(n["false_components"]) for n in nulls)
    off = sum(n["any_interval_off_zero"] for n in nulls) / max(1, sum(n["moved"] for n in nulls))
    return [
        f"{len(nulls)} null pairs: a tax of more than one point was claimed (interval above .01) in {taxes}, a component "
        f"of more than one point in {parts}. Measured taxes lie between {min(n['tax'] for n in nulls):+.4f} and "
        f"{max(n['tax'] for n in nulls):+.4f}; the largest effect of any component is "
        f"{max(n['largest'] for n in nulls):.4f}. Without the one-point margin, {off:.0%} of the moved components have "
        "an interval that leaves out 0: a benign tuning does move answers a little, and the interval is right to say so; "
        "the margin is what keeps it from being called a tax.",
    ]


def finding_lines(findings: dict[str, dict[str, Any]]) -> list[str]:
    """One row a finding of the field: whether it holds here, and its numbers."""
    if not findings:
        return ["Not run for this page (`python -m benchmarks.truth` without `--quick` runs them)."]
    lines = ["| finding | holds here | numbers |", "|---|---|---|"]
    for name, found in findings.items():
        numbers = ", ".join(f"{key}: {value}" for key, value in found.items() if key != "holds")
        lines.append(f"| {name} | {'yes' if found['holds'] else 'no'} | {numbers} |")
    return lines


def write_report(plants: Rows, nulls: Rows, findings: dict[str, dict[str, Any]], *, path: Path) -> None:
    """Write the page and its two figures."""
    accepted = [plant for plant in plants if plant["acceptance"]["accepted"]]
    held, asked = (sum(plant["coverage"][i] for plant in plants) for i in (0, 1))
    better, worse = comparison(accepted)
    pictures = path.parent / "figures"
    pictures.mkdir(parents=True, exist_ok=True)
    draw_methods(accepted, path=pictures / "proving-ground-methods.png")
    draw_families(plants, path=pictures / "proving-ground-families.png")
    text = [
        "# The proving ground: pairs whose truth is known",
        "",
        "Made by `python -m benchmarks.truth`. World, base and plants are described in `benchmarks/truth/`; every plant",
        "is a change of named components of the embedded base, and is accepted only if the harm alone makes at least 80 %",
        "of the tax and everything else at most 1 %. The suite is `demo:facts`, the metric probability; medians and",
        f"ranges are over plants; this page holds {len(plants)} plant(s) and {len(nulls)} null pair(s).",
        "",
        "## Every method on every accepted plant",
        "",
        *method_table(accepted),
        "",
        "`mass on truth` is the share of positive effect on the planted components; `L1` is the distance to exact Shapley",
        "values over the tax, after scaling to sum to the tax (norms and drops have no unit, so only scaled).",
        "",
        better,
        worse,
        "",
        "![distance of every method](figures/proving-ground-methods.png)",
        "",
        "## By family",
        "",
        *family_table(plants),
        "",
        "![mass on truth by family](figures/proving-ground-families.png)",
        "",
        "Families whose plants fail the two tests are shown here and left out of the table above: in P2 either change",
        "suffices, in P3 neither does alone, in P4 they work against each other, so that the two tests do not apply as",
        "they stand; exact Shapley is the truth there.",
        "",
        "## Nulls and intervals",
        "",
        *null_lines(nulls),
        "",
        f"Intervals of effects at nominal 95 % held the true mean in {held} of {asked} cases ({held / asked:.1%}).",
        "",
        "## The four techniques",
        "",
        *technique_table(),
        "",
        "## Findings of the field",
        "",
        *finding_lines(findings),
        "",
    ]
    path.write_text("\n".join(text), encoding="utf-8")


def comparison(plants: Rows) -> tuple[str, str]:
    """Two sentences: how the path compares with the best method that does not close, and where it is beaten."""
    methods = list(dict.fromkeys(row["method"] for plant in plants for row in plant["rows"]))
    median, closes = {}, {}
    for method in methods:
        rows = [row for plant in plants for row in plant["rows"] if row["method"] == method]
        median[method] = float(np.median([row["distance"] for row in rows]))
        closes[method] = rows[0]["closes"]
    open_ended = {m: d for m, d in median.items() if not closes[m]}
    best = min(open_ended, key=lambda m: open_ended[m])
    ratio = open_ended[best] / median["path"]
    first = (
        f"On L1 to exact Shapley the path's median is {median['path']:.3f}; the best method that does not close is "
        f"`{best}` with {open_ended[best]:.3f}, {ratio:.1f} times as far."
    )
    ahead = [m for m in methods if m not in ("path", "exact Shapley") and median[m] < median["path"]]
    second = (
        "Nearer to exact Shapley than the path here: " + ", ".join(f"`{m}` ({median[m]:.3f})" for m in ahead) + "."
        if ahead
        else "No other method here is nearer to exact Shapley than the path."
    )
    return first, second
