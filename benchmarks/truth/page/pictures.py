"""The figures of docs/proving-ground.md."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from textwrap import wrap
from typing import Any

import pandas as pd
from matplotlib.figure import Figure

from benchmarks.truth.proving import FAMILIES
from taxlens.figures.save import save_figure
from taxlens.figures.style import BLUE, GREY, ORANGE, new_figure, paper_style
from taxlens.stages.attribute.truth_figure import draw_proving_ground

Rows = Sequence[dict[str, Any]]


def draw_methods(plants: Rows, *, path: Path) -> None:
    """Mass on the truth and distance to exact Shapley by method, every plant a dot: the figure `proving_ground`, as five files.

    Distances below .001 (sampled Shapley is exact for two players) are drawn there.
    """
    rows = [
        {"family": plant["family"], "seed": plant.get("seed", number)} | row | {"distance": max(row["distance"], 1e-3)}
        for number, plant in enumerate(plants)
        for row in plant["rows"]
    ]
    save_figure(draw_proving_ground(pd.DataFrame(rows)), path.parent, path.stem)


def draw_families(plants: Rows, *, path: Path) -> None:
    """Mass on the planted components by family: exact Shapley beside the path."""
    names = sorted({plant["family"] for plant in plants}, key=list(FAMILIES).index)
    looks = {"exact Shapley": ("s", BLUE, -0.12), "path": ("o", ORANGE, 0.12)}
    with paper_style():
        figure = new_figure(5.5, 0.8 + 0.22 * len(names))
        axes = figure.subplots()
        for method, (marker, colour, shift) in looks.items():
            for place, family in enumerate(names):
                rows = [r for p in plants if p["family"] == family for r in p["rows"] if r["method"] == method]
                label = method if place == 0 else None
                at = [place + shift] * len(rows)
                axes.plot([r["mass"] for r in rows], at, marker, ms=3.5, color=colour, label=label, mfc="none")
        axes.set_yticks(range(len(names)), names)
        axes.set_ylim(len(names) - 0.5, -0.5)
        axes.set_xlim(0, 1.02)
        axes.grid(axis="x", lw=0.3, color=GREY)
        axes.set_xlabel("share of positive effect on the planted components")
        axes.legend(loc="lower left")
        _save(figure, path)


def draw_findings(findings: Mapping[str, Mapping[str, Any]], *, path: Path) -> None:
    """One small panel a finding, each from the numbers in the table beside it."""
    with paper_style():
        figure = new_figure(6.75, 3.9)
        axes = figure.subplots(2, 3)
        for panel, (name, found) in zip(axes.flat, findings.items()):
            unit, bars = _bars(found)
            shades = [BLUE if i % 2 == 0 else ORANGE for i in range(len(bars))]
            panel.bar(range(len(bars)), list(bars.values()), color=shades, width=0.6)
            for place, value in enumerate(bars.values()):
                panel.annotate(f"{value:.2f}", (place, max(value, 0)), ha="center", va="bottom", fontsize=6)
            panel.set_xticks(range(len(bars)), list(bars), fontsize=6)
            panel.set_title("\n".join(wrap(name, 38)), fontsize=7)
            panel.set_ylabel(unit)
            panel.set_ylim(min(0.0, *bars.values()), max(bars.values()) * 1.15)
        for panel in axes.flat[len(findings) :]:
            panel.set_axis_off()
        _save(figure, path)


def _save(figure: Figure, path: Path) -> None:
    figure.savefig(path, dpi=200, metadata={"Software": None})


def _bars(found: Mapping[str, Any]) -> tuple[str, dict[str, float]]:
    """What a finding's panel shows: the unit, and label to height."""
    if "direct" in found:
        rates = {f"{task}\n{how}": found[how][task] for task in ("harm", "harmless") for how in ("direct", "retained")}
        return "refusal rate", rates
    if "kl_by_answer_token" in found:
        return "KL(aligned || base), nats", {
            f"token {i + 1}": value for i, value in enumerate(found["kl_by_answer_token"])
        }
    if "unsteered" in found:
        plain, best = found["unsteered"], found["best"]
        return "refusal rate", {
            "harm": plain["harm"], "harm,\nremoved": best["removed"],
            "harmless": plain["harmless"], "harmless,\nadded": best["induced"],
        }  # fmt: skip
    if "suppressed" in found:
        return "accuracy of facts", {
            f"{state}\n{when}": found[state][when] for state in ("suppressed", "erased") for when in ("before", "after")
        }
    if "returned_by_undoing" in found:
        undone = found["returned_by_undoing"]
        return "share of the tax returned", {
            "first triple\nundone": undone["first"],
            "last triple\nundone": undone["last"],
        }
    bars = {"one\ncoefficient": found["capability_uniform"], "one a\nlayer": found["capability_by_layer"]}
    return "probability at .9 of the benefit", bars
