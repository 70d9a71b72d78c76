"""Sections of docs/proving-ground.md in words, made from results."""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import partial

import numpy as np

from benchmarks.truth.ground import if_ready, seconds_spent
from benchmarks.truth.page.tables import (
    Rows,
    finite,
    methods_of,
    middle,
    of_method,
    refused_lines,
    resampled,
    share,
    unitless,
)
from benchmarks.truth.worlds.worlds import WORLDS, base_folder


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
    raw, given, _ = against_best(plants, key="raw_distance")
    lines.append(
        f"As given, without scaling to a tax that such a method does not know, the best of them is `{raw}`, "
        f"{given[0]:.1f} times as far as the path [{given[1]:.1f}, {given[2]:.1f}]."
    )
    skill = {m: float(np.median(finite([r["deletion"] for r in of_method(plants, m)]))) for m in methods_of(plants)}
    better = {m: v for m, v in skill.items() if m != "exact Shapley" and v > skill["path"] + 0.001}
    if better:
        named = ", ".join(f"`{m}` ({v:.3f})" for m, v in sorted(better.items(), key=lambda pair: -pair[1]))
        lines.append(f"A better order to undo components in than the path's ({skill['path']:.3f}): {named}.")
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


def plan_lines(plans: Rows) -> list[str]:
    """What plans for a suite that is not taxed moved."""
    if not plans:
        return ["No plan for an untaxed suite was run."]
    first, tasks = plans[0], list(plans[0]["moved"])
    lines = [
        f"Plans for what is not taxed: on {len(plans)} plants of P1 with the larger decoy, the 2.5 % of units at the level of",
        f"neurons ({first['undone']} of {first['units']}) with the largest effect on `demo:comparison` (measured tax "
        f"{middle([plan['tax'] for plan in plans], digits=3)}) were undone. Nothing else may move; the rows say how far the",
        "probability of the right choice (harm: of the refusal) did, and how far random plans of the same size move it.",
        "",
        "| suite | moved by the plan | largest move | moved by random plans, in size |",
        "|---|---|---|---|",
    ]
    for task in tasks:
        moved = [plan["moved"][task] for plan in plans]
        chance = middle([plan["random"][task] for plan in plans], digits=3)
        lines.append(f"| {task} | {middle(moved, digits=3)} | {max(moved, key=abs):+.3f} | {chance} |")
    far = sorted(task for task in tasks if max(abs(plan["moved"][task]) for plan in plans) > 0.02)
    if far:
        lines += [
            "",
            f"**Not kept** (a move above .02): {', '.join(far)}. What little moves `demo:comparison` sits in units that carry "
            "other changes too, so a plan made for a tax that is not there undoes part of those. Taxlens makes plans for "
            "taxed suites; do not make one for a suite whose tax has an interval that holds 0.",
        ]
    return lines


def world_lines(worlds: Rows) -> list[str]:
    """One row a base and family: what the path says of plants there."""
    if not worlds:
        return ["No further base was run."]
    lines = [
        "P1 with the larger decoy, P5 (and P6) on bases of another architecture (`gpt2`: GPT-2 layout, layer norms with biases, four",
        "blocks) and of twice the depth (`deep`: eight blocks); `python -m benchmarks.truth.worlds.worlds` trains them. They are smaller",
        "and more loosely trained than the embedded base, so every change is trained for 600 steps there.",
        "",
        "| base | mastered | family | plants | accepted | tax | mass, exact | path's mass over exact's | top k exact, path "
        "| L1, path | best that does not close |",
        "|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for name, family in dict.fromkeys((plant["world"], plant["family"]) for plant in worlds):
        asked = [plant for plant in worlds if (plant["world"], plant["family"]) == (name, family)]
        found = [plant for plant in asked if plant["acceptance"]["accepted"]]
        known = json.loads((base_folder(name) / "mastery.json").read_text(encoding="utf-8"))["mastery"]
        masters = ", ".join(f"{task} {value:.1%}" for task, value in known.items())
        start = f"| {name} | {masters} | {family} | {len(asked)} | {len(found)}"
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
    failed = [plant | {"family": f"{plant['world']}, {plant['family']}"} for plant in worlds]
    if not all(plant["acceptance"]["accepted"] for plant in worlds):
        lines += ["", "Not accepted:", "", *refused_lines(failed)]
    return lines


def state_lines(states: Rows) -> list[str]:
    """What state plants are by direct inspection, over seeds."""
    if not states:
        return ["No state plant was judged for this page."]
    lines = [
        "Plants whose state is known, judged by weights, streams and answers and never by `taxlens diagnose`; what diagnose",
        "says of them, on seeds that its thresholds were not set on, is in [state.md](state.md)",
        "(`python -m benchmarks.truth.page.confusion`).",
        "",
        "| state | plants | accepted | tax | accuracy lost | returned by undoing it by hand | differences left, over base's "
        "| tax of the silenced part alone |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for state in dict.fromkeys(one["state"] for one in states):
        mine = [one for one in states if one["state"] == state]
        cells = [middle([one[key] for one in mine]) for key in ("tax", "accuracy_lost", "undone", "left", "silent")]
        lines.append(f"| {state} | {len(mine)} | {sum(one['accepted'] for one in mine)} | {' | '.join(cells)} |")
    return lines


def cost_lines() -> list[str]:
    """Seconds of processor of what was timed, by the kind of result."""
    kinds = processor_seconds()
    if not kinds:
        return ["No result in the cache was timed."]
    named = ", ".join(f"{kind} {sum(times):.0f} s in {len(times)}" for kind, times in sorted(kinds.items()))
    total, count = sum(map(sum, kinds.values())), sum(map(len, kinds.values()))
    return [
        f"Of what is cached, {count} trainings and answers were timed: {total:.0f} s of one processor ({named}). A plant is",
        "one training and ten answers; a null pair is two. `--quick` (two plants, three nulls, from nothing) is what CI runs.",
    ]


def processor_seconds() -> dict[str, list[float]]:
    """Seconds of one processor, by kind of result: what the page holds, without the states planted in the real model."""
    kinds: dict[str, list[float]] = {}
    for name, times in seconds_spent().items():
        if not name.startswith("hooked"):
            kinds.setdefault(name.split("-")[0], []).extend(times)
    bases = [if_ready(partial(base_folder, name)) for name in WORLDS]
    facts = [json.loads((folder / "mastery.json").read_text(encoding="utf-8")) for folder in bases if folder]
    trained = [float(fact["seconds"]) for fact in facts]
    return kinds | ({"base": trained} if trained else {})
