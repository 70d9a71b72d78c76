"""The page docs/proving-ground.md, made from results."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.truth.page.pictures import draw_families, draw_findings, draw_methods
from benchmarks.truth.page.sections import (
    against_best,
    comparison,
    cost_lines,
    null_lines,
    plan_lines,
    processor_seconds,
    state_lines,
    world_lines,
)
from benchmarks.truth.page.tables import (
    Rows,
    family_table,
    finding_lines,
    finite,
    method_table,
    middle,
    of_method,
    refused_lines,
    share,
    technique_table,
)
from benchmarks.truth.plants.acceptance import ASKED

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

Made by `{command}`.

World, base and plants are described in `benchmarks/truth/`; every plant is a change of named components of the embedded
base. It is accepted only if the harm alone makes at least 80 % of the tax and everything else at most 1 % of it (whole
suite), and if it is what its family says (below). The suite is `demo:facts` ({items} items), the metric probability.
Numbers are medians over accepted plants with a 95 % bootstrap interval over plants (none for fewer than three); seeds
change the draws of training, the components of truth and decoy, and (from P2 on) the size of the decoy: twice the harm's
norm, equal, none.

This page holds {plants} plants, {accepted} of them accepted, and {nulls} null pairs. `python -m benchmarks.truth` without
further options goes on from there to 10 plants of every family, 110 null pairs and two further bases; where a family has
fewer below, its other plants were not run.
"""

WHY = """\
Why the path is not three times nearer after scaling: `one gradient half way` is the one-node (midpoint) rule of the
integral that the path takes to convergence. It shares the path's distance to exact Shapley (shares of a straight line,
Aumann-Shapley, are not shares of coalitions) and adds its own, which shows in the sum and not in the proportions.
Closing buys the sum; sampled Shapley and the mean of graft and restore are nearer because they average coalitions.
"""

LEGEND = """\
`mass on truth` is the share of positive effect on the planted components; `L1` is the distance to exact Shapley values
over the tax, after scaling to sum to the tax (norms and drops have no unit, so only scaled); `deletion` is the area
under the curve of the tax returned by undoing components in the method's order: 0 is a random order, 1 the best of all
orders; `passes` are forward passes over the suite (a gradient counts three).
"""


def write_report(
    *, plants: Rows, nulls: Rows, plans: Rows, worlds: Rows, states: Rows, findings: dict[str, dict[str, Any]], path: Path,
    items: int, command: str,
) -> None:  # fmt: skip
    """Write the page and its figures.

    Args:
        plants: what `prove` says of each plant.
        nulls: what `null_pair` says of each null.
        plans: what `null_plan` says of each plan for an untaxed suite.
        worlds: what `prove` says of plants on further bases, each with `world`.
        states: what `accept_state` says of state plants, each with `state` and `seed`.
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
        *every_method(simple, others),
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
        "## States of a capability",
        "",
        *state_lines(states),
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


def every_method(simple: Rows, others: Rows) -> list[str]:
    """How every method did on P1, and on what else was accepted."""
    text = [
        "## Every method on P1: harm in known components, with a larger, an equal and no decoy",
        "",
        *method_table(simple),
        "",
        LEGEND,
        *comparison(simple, "P1"),
        "",
        WHY,
        "![mass and distance of every method](figures/proving-ground-methods.png)",
        "",
        "Distances below .001 are drawn at .001; the numbers are in [proving-ground-methods.csv](figures/proving-ground-methods.csv).",
        "",
    ]
    if others:
        text += ["## Every method on P2 to P10", "", *method_table(others), "", *comparison(others, "P2 to P10"), ""]
    return text


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
    hours = sum(map(sum, processor_seconds().values())) / 3600
    row("all that this page holds, from nothing", "<= 4 h on 2 cores", f"{hours:.1f} h of one processor", hours <= 4)
    return lines


def _of(plants: Rows, family: str) -> list[dict[str, Any]]:
    return [plant for plant in plants if plant["family"].startswith(family)]
