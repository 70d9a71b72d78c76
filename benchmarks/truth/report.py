"""The page docs/proving-ground.md, made from results."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.truth.acceptance import ASKED
from benchmarks.truth.ground import seconds_spent
from benchmarks.truth.pictures import draw_families, draw_findings, draw_methods
from benchmarks.truth.tables import (
    Rows,
    family_table,
    finding_lines,
    finite,
    method_table,
    methods_of,
    middle,
    of_method,
    refused_lines,
    resampled,
    share,
    technique_table,
    unitless,
)
from benchmarks.truth.worlds import base_folder

FIELD = (
    "one gradient at aligned",
    "graft",
    "restore",
    "activation patch",
    "norm of the change",
    "relative norm",
    "CKA drop by layer",
    "probe drop by layer",
)
"""Baselines of the field: a graft is weight patching and a single swap; a restore is the swap the other way round."""

HEAD = """\
# The proving ground: pairs whose truth is known

Made by `{command}`. World, base and plants are described in `benchmarks/truth/`; every plant is a change of named
components of the embedded base. It is accepted only if the harm alone makes at least 80 % of the tax and everything
else at most 1 % of it (whole suite), and if it is what its family says (below). The suite is `demo:facts`
({items} items), the metric probability. Numbers are medians over accepted plants with a 95 % bootstrap interval over
plants; seeds change the draws of training, the components of truth and decoy, and (from P2 on) the size of the decoy:
twice the harm's norm, equal, none. This page holds {plants} plants, {accepted} of them accepted, and {nulls} null
pairs.
"""

LEGEND = """\
`mass on truth` is the share of positive effect on the planted components; `L1` is the distance to exact Shapley values
over the tax, after scaling to sum to the tax (norms and drops have no unit, so only scaled); `deletion` is the area
under the curve of the tax returned by undoing components in the method's order: 0 is a random order, 1 the best of all
orders; `passes` are forward passes over the suite (a gradient counts three).
"""


def write_report(
    *, plants: Rows, nulls: Rows, plans: Rows, worlds: Rows, findings: dict[str, dict[str, Any]], path: Path, items: int,
    command: str,
) -> None:  # fmt: skip
    """Write the page and its figures.

    Args:
        plants: what `prove` says of each plant.
        nulls: what `null_pair` says of each null.
        plans: what `null_plan` says of each plan for an untaxed suite.
        worlds: what `prove` says of plants on further bases, each with `world`.
        findings: by name.
        path: the page; figures go to `figures/` beside it.
        items: items that methods were asked about.
        command: what makes the page.
    """
    if not any(plant["family"].startswith("P1") and plant["acceptance"]["accepted"] for plant in plants):
        raise ValueError("the page needs at least one accepted plant of P1; run the piece `plants` first")
    accepted = [plant for plant in plants if plant["acceptance"]["accepted"]]
    simple = [plant for plant in accepted if plant["family"].startswith("P1")]
    others = [plant for plant in accepted if not plant["family"].startswith("P1")]
    pictures = path.parent / "figures"
    pictures.mkdir(parents=True, exist_ok=True)
    draw_methods(simple, path=pictures / "proving-ground-methods.png")
    draw_families(accepted, path=pictures / "proving-ground-families.png")
    if findings:
        draw_findings(findings, path=pictures / "proving-ground-findings.png")
    head = HEAD.format(command=command, items=items, plants=len(plants), accepted=len(accepted), nulls=len(nulls))
    text = [
        head,
        "## Targets",
        "",
        *target_table(simple, others, plants, nulls),
        "",
        "## Every method on P1: harm in known components, with a larger, an equal and no decoy",
        "",
        *method_table(simple),
        "",
        LEGEND,
        *comparison(simple, "P1"),
        "",
        "![distance of every method](figures/proving-ground-methods.png)",
        "",
    ]
    if others:
        text += ["## Every method on P2 to P10", "", *method_table(others), "", *comparison(others, "P2 to P10"), ""]
    text += [
        "## By family",
        "",
        *family_table(plants),
        "",
        "![mass on truth by family](figures/proving-ground-families.png)",
        "",
        "What a family asks beside the two tests:",
        "",
        *(f"- {family}: {what}." for family, what in ASKED.items()),
        "",
        "Plants that were not accepted:",
        "",
        *refused_lines(plants),
        "",
        "## Nulls",
        "",
        *null_lines(nulls),
        "",
        *plan_lines(plans),
        "",
        "## Other bases",
        "",
        *world_lines(worlds),
        "",
        "## What it costs",
        "",
        *cost_lines(),
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


def target_table(simple: Rows, others: Rows, plants: Rows, nulls: Rows) -> list[str]:
    """What was to be reached, and what was."""
    lines = ["| what | asked | measured | reached |", "|---|---|---|---|"]

    def row(what: str, asked: str, measured: str, reached: bool) -> None:
        lines.append(f"| {what} | {asked} | {measured} | {'yes' if reached else '**no**'} |")

    path = of_method(simple, "path")
    relative = finite([r["relative_mass"] for r in path])
    row("P1, mass on truth, path over exact Shapley", ">= .9", middle(relative), bool(np.median(relative) >= 0.9))
    tops = [sum(r["top"] for r in path), len(path)]
    row("P1, top k exact, path", ">= 95 %", share(*tops), tops[0] >= 0.95 * tops[1])
    for family in ("P2", "P3", "P4", "P5"):
        found = finite([r["relative_mass"] for r in of_method(_of(others, family), "path")])
        if len(found):
            what = f"{family}, mass on truth, path over exact Shapley ({len(found)} plants)"
            row(what, ">= .7", middle(found), bool(np.median(found) >= 0.7))
    if nulls:
        false = sum(n["false_tax"] or bool(n["false_components"]) for n in nulls)
        row("P9, null pairs with a false alarm", "<= 5 %", share(false, len(nulls)), false <= 0.05 * len(nulls))
    held, asked = (sum(plant["coverage"][i] for plant in plants) for i in (0, 1))
    row(
        "intervals of effects that hold the truth",
        "90-98 %",
        f"{held / asked:.1%} of {asked}",
        0.9 <= held / asked <= 0.98,
    )
    for among, who in ((FIELD, "of the field's baselines"), (None, "of all methods")):
        for key, how in (("raw_distance", "as given"), ("distance", "every answer scaled to the tax")):
            best, ratio, _ = against_best(simple, key=key, among=among)
            says = f"{ratio[0]:.1f} [{ratio[1]:.1f}, {ratio[2]:.1f}] (`{best}`)"
            row(f"P1, L1 to exact: best that does not close {who}, over the path; {how}", ">= 3", says, ratio[0] >= 3)
    return lines


def _of(plants: Rows, family: str) -> list[dict[str, Any]]:
    return [plant for plant in plants if plant["family"].startswith(family)]


def against_best(
    plants: Rows, *, key: str = "distance", among: Sequence[str] | None = None
) -> tuple[str, tuple[float, float, float], dict[str, float]]:
    """The method that comes nearest to exact Shapley of those that do not close, how much farther off than the path
    it is (ratio of medians over the same plants, interval over plants), and every method's median distance."""
    methods = methods_of(plants)
    median = {m: float(np.median([r[key] for r in of_method(plants, m)])) for m in methods}
    closes = {m: of_method(plants, m)[0]["closes"] for m in methods}
    unlike = [
        m
        for m in methods
        if not closes[m] and not (key == "raw_distance" and unitless(m)) and (among is None or m in among)
    ]
    best = min(unlike, key=lambda m: median[m])
    pairs = np.array([[r[key] for r in of_method(plants, m)] for m in (best, "path")]).T
    return best, resampled(pairs, lambda rows: float(np.median(rows[:, 0]) / np.median(rows[:, 1]))), median


def comparison(plants: Rows, name: str) -> list[str]:
    """How the path compares with the best method that does not close, and where it is beaten."""
    best, ratio, median = against_best(plants)
    ahead = {m: d for m, d in median.items() if m not in ("path", "exact Shapley") and d < median["path"]}
    lines = [
        f"On L1 to exact Shapley over the {len(plants)} plants of {name} the path's median is {median['path']:.3f}; the "
        f"best method that does not close is `{best}` with {median[best]:.3f}, {ratio[0]:.1f} times as far "
        f"[{ratio[1]:.1f}, {ratio[2]:.1f}].",
    ]
    if ahead:
        named = ", ".join(f"`{m}` ({d:.3f})" for m, d in sorted(ahead.items(), key=lambda pair: pair[1]))
        lines.append(f"Nearer to exact Shapley than the path here: {named}.")
    else:
        lines.append("No other method here is nearer to exact Shapley than the path.")
    lines.append(
        "`one gradient half way` is the one-node (midpoint) rule of the integral that the path takes to convergence: it "
        "shares the path's distance to exact Shapley (Aumann-Shapley shares of a straight line are not Shapley shares of "
        "coalitions) and adds its own, which shows in the sum. Closing costs more than it brings on L1; it buys the sum."
    )
    raw, given, _ = against_best(plants, key="raw_distance")
    lines.append(
        f"As given, without scaling to a tax that such a method does not know, the best of them is `{raw}`, "
        f"{given[0]:.1f} times as far as the path [{given[1]:.1f}, {given[2]:.1f}]."
    )
    skill = {m: float(np.median(finite([r["deletion"] for r in of_method(plants, m)]))) for m in methods_of(plants)}
    better = {m: v for m, v in skill.items() if m != "exact Shapley" and v > skill["path"] + 1e-9}
    if better:
        named = ", ".join(f"`{m}` ({v:.3f})" for m, v in sorted(better.items(), key=lambda pair: -pair[1]))
        lines.append(f"A better order to undo components in than the path's ({skill['path']:.3f}): {named}.")
    return lines


def cost_lines() -> list[str]:
    """Seconds of processor of what was timed, by the kind of result."""
    kinds: dict[str, list[float]] = {}
    for name, times in seconds_spent().items():
        kinds.setdefault(name.split("-")[0], []).extend(times)
    if not kinds:
        return ["No result in the cache was timed."]
    named = ", ".join(f"{kind} {sum(times):.0f} s in {len(times)}" for kind, times in sorted(kinds.items()))
    total, count = sum(map(sum, kinds.values())), sum(map(len, kinds.values()))
    return [
        f"Of what is cached, {count} trainings and answers were timed: {total:.0f} s of one processor ({named}). A plant is",
        "one training and ten answers; a null pair is two. `--quick` (two plants, three nulls, from nothing) is what CI runs.",
    ]


def plan_lines(plans: Rows) -> list[str]:
    """What plans for a suite that is not taxed moved."""
    if not plans:
        return ["No plan for an untaxed suite was run."]
    most = [max(plan["moved"].items(), key=lambda pair: abs(pair[1])) for plan in plans]
    facts = [abs(plan["moved"]["facts"]) for plan in plans]
    return [
        f"Plans for what is not taxed: on {len(plans)} plants of P1 with the larger decoy, the 2.5 % of neurons "
        f"({plans[0]['undone']} of {plans[0]['units']}) with the largest effect on `demo:comparison`, which is not taxed "
        f"there, were undone. The probability of the right choice in facts, which the harm taxes, moved by at most "
        f"{max(facts):.3f} (median {np.median(facts):.3f}); the suite that moved most did so by "
        f"{max(abs(v) for _, v in most):.3f} at most (median {np.median([abs(v) for _, v in most]):.3f}; "
        f"{', '.join(sorted({task for task, _ in most}))}).",
    ]


def world_lines(worlds: Rows) -> list[str]:
    """One row a base: what the path says of P1 with a larger decoy there."""
    if not worlds:
        return ["No further base was run."]
    lines = [
        "P1 with the larger decoy on bases of another architecture (`gpt2`: GPT-2 layout, layer norms with biases, four",
        "blocks) and of twice the depth (`deep`: eight blocks); `python -m benchmarks.truth.worlds` trains them.",
        "",
        "| base | mastered | plants | accepted | tax | mass, exact | path's mass over exact's | top k exact, path "
        "| L1, path | best that does not close |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for name in dict.fromkeys(plant["world"] for plant in worlds):
        asked = [plant for plant in worlds if plant["world"] == name]
        found = [plant for plant in asked if plant["acceptance"]["accepted"]]
        known = json.loads((base_folder(name) / "mastery.json").read_text(encoding="utf-8"))["mastery"]
        start = f"| {name} | {', '.join(f'{task} {value:.1%}' for task, value in known.items())} | {len(asked)} | {len(found)}"
        if not found:
            lines.append(start + " | - | - | - | - | - | - |")
            continue
        exact, path = (of_method(found, method) for method in ("exact Shapley", "path"))
        best, _, median = against_best(found)
        cells = [
            middle([plant["tax"] for plant in found]), middle([row["mass"] for row in exact]),
            middle([row["relative_mass"] for row in path]), f"{sum(row['top'] for row in path)} of {len(path)}",
            middle([row["distance"] for row in path]), f"`{best}` {median[best]:.2f}",
        ]  # fmt: skip
        lines.append(f"{start} | {' | '.join(cells)} |")
    return lines


def null_lines(nulls: Rows) -> list[str]:
    """What was found where nothing is."""
    if not nulls:
        return ["No null pair was run."]
    taxes = sum(n["false_tax"] for n in nulls)
    parts = sum(bool(n["false_components"]) for n in nulls)
    off = sum(n["any_interval_off_zero"] for n in nulls) / max(1, sum(n["moved"] for n in nulls))
    return [
        f"{len(nulls)} null pairs (a benign tuning of four random components, norm 2 to 6): a tax of more than one point "
        f"was claimed (interval above .01) in {share(taxes, len(nulls))}, a component of more than one point in "
        f"{share(parts, len(nulls))}. Measured taxes lie between {min(n['tax'] for n in nulls):+.4f} and "
        f"{max(n['tax'] for n in nulls):+.4f}; the largest effect of any component is "
        f"{max(n['largest'] for n in nulls):.4f}. Without the one-point margin, {off:.0%} of the moved components have "
        "an interval that leaves out 0: a benign tuning does move answers a little, and the interval is right to say so; "
        "the margin is what keeps it from being called a tax.",
    ]
