"""The figures of docs/proving-ground.md."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from textwrap import wrap
from typing import Any

import matplotlib
import pandas as pd

from taxlens.figures.save import save_figure
from taxlens.figures.truth import draw_proving_ground

matplotlib.use("Agg")
from matplotlib import pyplot

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
    names = list(dict.fromkeys(plant["family"] for plant in plants))
    figure, axes = pyplot.subplots(figsize=(5.5, 3.0), layout="constrained")
    looks = {"exact Shapley": ("s", "#5e3c99", -0.12), "path": ("o", "#e66101", 0.12)}
    for method, (marker, colour, shift) in looks.items():
        for place, family in enumerate(names):
            rows = [r for p in plants if p["family"] == family for r in p["rows"] if r["method"] == method]
            label = method if place == 0 else None
            axes.plot(
                [r["mass"] for r in rows],
                [place + shift] * len(rows),
                marker,
                ms=5,
                color=colour,
                label=label,
                mfc="none",
            )
    axes.set_yticks(range(len(names)), names)
    axes.set_xlim(0, 1.02)
    axes.grid(axis="x", lw=0.4, color="#cccccc")
    axes.invert_yaxis()
    axes.set_xlabel("share of positive effect on the planted components")
    axes.legend(loc="lower left", frameon=False)
    figure.savefig(path, dpi=150, metadata={"Software": None})
    pyplot.close(figure)


def draw_findings(findings: Mapping[str, Mapping[str, Any]], *, path: Path) -> None:
    """One small panel a finding, each from the numbers in the table beside it."""
    figure, axes = pyplot.subplots(2, 3, figsize=(8.4, 4.6), layout="constrained")
    for panel, (name, found) in zip(axes.flat, findings.items()):
        bars = _bars(found)
        shades = ["#5e3c99" if i % 2 == 0 else "#e66101" for i in range(len(bars))]
        panel.bar(range(len(bars)), list(bars.values()), color=shades, width=0.6)
        for place, value in enumerate(bars.values()):
            panel.annotate(f"{value:.2f}", (place, max(value, 0)), ha="center", va="bottom", fontsize=7)
        panel.set_xticks(range(len(bars)), list(bars), fontsize=7)
        panel.set_title("\n".join(wrap(name, 38)), fontsize=8)
        panel.tick_params(axis="y", labelsize=7)
        panel.set_ylim(min(0.0, *bars.values()), max(bars.values()) * 1.15)
        panel.spines[["top", "right"]].set_visible(False)
    for panel in axes.flat[len(findings) :]:
        panel.set_axis_off()
    figure.savefig(path, dpi=150, metadata={"Software": None})
    pyplot.close(figure)


def _bars(found: Mapping[str, Any]) -> dict[str, float]:
    """What a finding's panel shows: label to height."""
    if "direct" in found:
        return {f"{task}\n{how}": found[how][task] for task in ("harm", "harmless") for how in ("direct", "retained")}
    if "kl_by_answer_token" in found:
        return {f"answer\ntoken {i + 1}": value for i, value in enumerate(found["kl_by_answer_token"])}
    if "unsteered" in found:
        plain, best = found["unsteered"], found["best"]
        return {
            "harm": plain["harm"], "harm,\nremoved": best["removed"],
            "harmless": plain["harmless"], "harmless,\nadded": best["induced"],
        }  # fmt: skip
    if "suppressed" in found:
        return {
            f"{state}\n{when}": found[state][when] for state in ("suppressed", "erased") for when in ("before", "after")
        }
    if "returned_by_undoing" in found:
        undone = found["returned_by_undoing"]
        return {"first triple\nundone": undone["first"], "last triple\nundone": undone["last"]}
    return {"one\ncoefficient": found["capability_uniform"], "one a\nlayer": found["capability_by_layer"]}
