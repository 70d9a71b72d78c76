"""Tables of docs/proving-ground.md, made from results. Every interval is over plants (seeds), at 95 %."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from scipy.stats import beta

from taxlens.demo import model_names, truth

Rows = Sequence[dict[str, Any]]
DRAWS = 2000


def finite(values: Sequence[float | None]) -> np.ndarray:
    """The values that are numbers."""
    return np.array([v for v in values if v is not None and np.isfinite(v)], dtype=float)


def resampled(values: np.ndarray, statistic: Callable[[np.ndarray], float] = np.median) -> tuple[float, float, float]:
    """A statistic over plants with its bootstrap interval (percentiles, plants drawn with replacement)."""
    rng = np.random.default_rng(0)
    drawn = [statistic(values[rng.integers(len(values), size=len(values))]) for _ in range(DRAWS)]
    low, high = np.quantile(drawn, [0.025, 0.975])
    return float(statistic(values)), float(low), float(high)


def middle(values: Sequence[float | None], *, digits: int = 2) -> str:
    """Median and its interval, as text; without one for fewer than three plants."""
    kept = finite(values)
    if not len(kept):
        return "-"
    if len(kept) < 3:
        return f"{np.median(kept):.{digits}f}"
    value, low, high = resampled(kept)
    return f"{value:.{digits}f} [{low:.{digits}f}, {high:.{digits}f}]"


def share(count: int, total: int) -> str:
    """A share with its exact binomial (Clopper-Pearson) interval, as text."""
    low = 0.0 if count == 0 else float(beta.ppf(0.025, count, total - count + 1))
    high = 1.0 if count == total else float(beta.ppf(0.975, count + 1, total - count))
    return f"{count} of {total} ({count / total:.1%} [{low:.1%}, {high:.1%}])"


def of_method(plants: Rows, method: str) -> list[dict[str, Any]]:
    """One method's rows, a plant each."""
    return [row for plant in plants for row in plant["rows"] if row["method"] == method]


def methods_of(plants: Rows) -> list[str]:
    """Methods in the order in which they were asked."""
    return list(dict.fromkeys(row["method"] for plant in plants for row in plant["rows"]))


def unitless(method: str) -> bool:
    """Whether a method's values have no unit of the metric, so that only their proportions mean something."""
    return "norm of" in method or method == "relative norm" or "drop" in method


def method_table(plants: Rows) -> list[str]:
    """One row a method, over all given plants."""
    lines = [
        "| method | mass on truth | relative to exact Shapley | L1 to exact, scaled | L1, as given | sum / tax "
        "| top k exact | deletion | passes |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for method in methods_of(plants):
        rows = of_method(plants, method)
        cells = [middle([row[key] for row in rows]) for key in ("mass", "relative_mass", "distance")]
        for key in ("raw_distance", "closure"):
            cells.append("-" if unitless(method) else middle([row[key] for row in rows]))
        cells.append(f"{sum(row['top'] for row in rows)} of {len(rows)}")
        cells.append(middle([row["deletion"] for row in rows]))
        cells.append(f"{np.median([row['passes'] for row in rows]):.0f}")
        lines.append(f"| {method} | {' | '.join(cells)} |")
    return lines


def family_table(plants: Rows) -> list[str]:
    """One row a family: acceptance, and what the path and exact Shapley say of accepted plants."""
    lines = [
        "| family | plants | accepted | tax | harm alone / tax | largest single / tax | decoy / harm, norm "
        "| mass, exact | path's mass over exact's | L1, path | top k exact, path | deletion, path |",
        "|---|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for family in dict.fromkeys(plant["family"] for plant in plants):
        asked = [plant for plant in plants if plant["family"] == family]
        found = [plant for plant in asked if plant["acceptance"]["accepted"]]
        exact, path = (of_method(found, method) for method in ("exact Shapley", "path"))
        cells = [
            f"{len(asked)}",
            f"{len(found)}",
            middle([plant["tax"] for plant in found]),
            middle([plant["acceptance"]["harm_alone"] for plant in found]),
            middle([max(plant["alone"].values()) for plant in found]),
            middle([plant["acceptance"]["ratio"] for plant in found if plant["decoy"]]),
            middle([row["mass"] for row in exact]),
            middle([row["relative_mass"] for row in path]),
            middle([row["distance"] for row in path]),
            f"{sum(row['top'] for row in path)} of {len(path)}",
            middle([row["deletion"] for row in path]),
        ]
        lines.append(f"| {family} | {' | '.join(cells)} |")
    return lines


def refused_lines(plants: Rows) -> list[str]:
    """Which plants were not accepted, and by which test."""
    lines = []
    for plant in plants:
        judged = plant["acceptance"]
        if judged["accepted"]:
            continue
        why = (
            f"harm alone {judged['harm_alone']:.2f}, all else {judged['decoy_alone']:+.3f} of the tax"
            if not judged["two_tests"]
            else f"singles {', '.join(f'{part} {value:.2f}' for part, value in plant['alone'].items())}"
        )
        lines.append(f"- {plant['family']}, seed {plant['seed']}: {why}.")
    return lines or ["None."]


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


def finding_lines(findings: dict[str, dict[str, Any]]) -> list[str]:
    """One row a finding of the field: whether it holds here, and its numbers."""
    if not findings:
        return ["Not run for this page (`python -m benchmarks.truth` without `--quick` runs them)."]
    lines = ["| finding | holds here | numbers |", "|---|---|---|"]
    for name, found in findings.items():
        numbers = ", ".join(f"{key}: {value}" for key, value in found.items() if key != "holds")
        lines.append(f"| {name} | {'yes' if found['holds'] else 'no'} | {numbers} |")
    return [*lines, "", "![what the field found, looked for here](figures/proving-ground-findings.png)"]
