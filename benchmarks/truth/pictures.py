"""The two figures of docs/proving-ground.md."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np

matplotlib.use("Agg")
from matplotlib import pyplot

Rows = Sequence[dict[str, Any]]


def draw_methods(plants: Rows, *, path: Path) -> None:
    """Distance to exact Shapley by method: every plant a dot, the median a bar."""
    methods = list(dict.fromkeys(row["method"] for plant in plants for row in plant["rows"]))
    methods = [m for m in methods if m != "exact Shapley"]
    found = {m: [row["distance"] for plant in plants for row in plant["rows"] if row["method"] == m] for m in methods}
    methods.sort(key=lambda m: -float(np.median(found[m])))
    figure, axes = pyplot.subplots(figsize=(5.5, 3.6), layout="constrained")
    for place, method in enumerate(methods):
        axes.plot(found[method], [place] * len(found[method]), "o", ms=4, mfc="none", color="#5e3c99")
        axes.plot([float(np.median(found[method]))], [place], "|", ms=14, mew=2, color="#e66101")
    axes.set_yticks(range(len(methods)), methods)
    axes.set_xscale("log")
    axes.set_xlabel("L1 distance to exact Shapley, over the tax (bar: median)")
    figure.savefig(path, dpi=150, metadata={"Software": None})
    pyplot.close(figure)


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
    axes.set_xlabel("share of positive effect on the planted components")
    axes.legend(loc="lower left", frameon=False)
    figure.savefig(path, dpi=150, metadata={"Software": None})
    pyplot.close(figure)
