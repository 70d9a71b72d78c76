"""Drawings of several runs, and of the proving ground."""

from __future__ import annotations

from taxlens.figures.drawings import Jobs, Tables
from taxlens.figures.run_comparison import draw_comparison
from taxlens.stages.attribute.truth_figure import draw_proving_ground


def comparison_drawings(tables: Tables, width: float) -> Jobs:
    """Yield the drawings of kind comparison: (file name, function that draws)."""
    frame = tables["comparison"]
    metrics = list(dict.fromkeys(frame["metric"]))
    for metric in sorted(metrics, key=lambda m: (m != "probability", metrics.index(m))):
        yield f"comparison_{metric}", lambda m=metric: draw_comparison(frame, metric=m, width=width)


def proving_ground_drawings(tables: Tables, width: float) -> Jobs:
    """Yield the drawings of kind proving_ground: (file name, function that draws)."""
    yield "proving_ground", lambda: draw_proving_ground(tables["proving_ground"], width=width)
