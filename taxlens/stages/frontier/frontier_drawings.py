"""Which drawings the tables of the frontier give."""

from __future__ import annotations

from taxlens.figures.drawings import Jobs, Tables
from taxlens.stages.frontier.figure1 import draw_figure1
from taxlens.stages.frontier.frontier_figure import draw_front, draw_predicted, draw_restoration, effect_rows


def frontier_drawings(tables: Tables, width: float) -> Jobs:
    """Yield the drawings of kind frontier: (file name, function that draws)."""
    frame = tables["frontier"]
    for metric in dict.fromkeys(frame.loc[frame["suite"].fillna("") == "", "metric"]):
        yield f"restoration_{metric}", lambda m=metric: draw_restoration(frame, metric=m, width=width)
        yield f"front_{metric}", lambda m=metric: draw_front(frame, metric=m, width=width)
        if len(effect_rows(frame, metric)):
            yield f"predicted_{metric}", lambda m=metric: draw_predicted(frame, metric=m, width=width)


def figure1_drawings(tables: Tables, width: float) -> Jobs:
    """Yield the drawings of kind figure1: (file name, function that draws)."""
    frame = tables["frontier"]
    metrics = [m for m in ("probability", "nll") if m in set(frame.loc[frame["suite"].fillna("") == "", "metric"])]
    if metrics:
        yield (
            "figure1",
            lambda: draw_figure1(
                frame,
                attribution=tables["attribution"],
                closure=tables["closure"],
                truth=tables.get("truth"),
                metric=metrics[0],
                width=width,
            ),
        )
