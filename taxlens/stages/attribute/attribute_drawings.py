"""Which drawings the tables of attribution give."""

from __future__ import annotations

from dataclasses import replace

import pandas as pd

from taxlens.analysis.interventions.effects import APART_KIND
from taxlens.figures.drawings import Jobs, Tables, main_metric
from taxlens.figures.maps import draw_head_map, draw_layer_map
from taxlens.figures.style import Drawn
from taxlens.stages.attribute.attribution_figure import draw_attribution, is_spread, unsettled
from taxlens.stages.attribute.layer_profile_figure import draw_layer_profile
from taxlens.stages.attribute.methods_figure import draw_methods
from taxlens.stages.attribute.path_figure import draw_profile
from taxlens.stages.attribute.restoration_figure import draw_restoration_profile
from taxlens.stages.attribute.suite_matrix_figure import draw_suite_matrix
from taxlens.stages.attribute.tokens_figure import draw_tokens


def attribution_drawings(tables: Tables, width: float) -> Jobs:
    """Yield the drawings of kind attribution: (file name, function that draws)."""
    frame, closure = tables["attribution"], tables["closure"]
    path = frame[frame["method"] == "path"]
    path = path[(path["level"] == "component") | (path["metric"] == main_metric(path))]
    for key in path[["suite", "metric", "level"]].drop_duplicates().itertuples(index=False):
        name = f"attribution_{key.suite}_{key.metric}" + ("" if key.level == "component" else f"_{key.level}")
        yield (
            name,
            lambda k=key: (
                _spread(frame, closure, k.suite, k.metric, width)
                if k.level == "component" and is_spread(frame, suite=k.suite, metric=k.metric)
                else draw_attribution(
                    frame, closure=closure, suite=k.suite, metric=k.metric, level=k.level, width=width
                )
            ),
        )


def _spread(frame: pd.DataFrame, closure: pd.DataFrame, suite: str, metric: str, width: float) -> Drawn:
    """The map of all components where none of them carries a tenth: bars of the first ten would show the smaller part."""
    drawn = draw_layer_map(frame, suite=suite, metric=metric, width=width)
    doubt = unsettled(closure, suite=suite, metric=metric)
    caption = f"{drawn.caption} No component carries a tenth of the tax, so all of them are shown."
    return replace(drawn, caption=caption + (f" Not settled by the stopping rule: {doubt}." if doubt else ""))


def methods_drawings(tables: Tables, width: float) -> Jobs:
    """Yield the drawings of kind methods: (file name, function that draws)."""
    frame = tables["attribution"]
    if len(frame):
        path = frame[frame["method"] == "path"]
        told = main_metric(path if len(path) else frame)
        frame = frame[(frame["level"] == "component") & (frame["metric"] == told)]
    several = frame.groupby("suite", sort=False)["method"].nunique() if len(frame) else {}
    only = set(frame["method"]) != {"path"}
    for suite, count in several.items():
        if count > 1 or only:
            metric = str(frame["metric"].iloc[0])
            yield (
                f"methods_{suite}_{metric}",
                lambda s=suite, m=metric: draw_methods(frame, suite=s, metric=m, width=width),
            )


def maps_drawings(tables: Tables, width: float) -> Jobs:
    """Yield the drawings of kind maps: (file name, function that draws)."""
    path = tables["attribution"][tables["attribution"]["method"] == "path"]
    path = path[(path["metric"] == main_metric(path)) & (path["kind"] != APART_KIND)]
    for key in path[["suite", "metric"]].drop_duplicates().itertuples(index=False):
        yield (
            f"layer_map_{key.suite}_{key.metric}",
            lambda k=key: draw_layer_map(path, suite=k.suite, metric=k.metric, width=width),
        )
    heads = path[(path["level"] == "head") & path["component"].str.contains(r"\.attn\.(?:h|kv)\d+$")]
    for key in heads[["suite", "metric"]].drop_duplicates().itertuples(index=False):
        yield (
            f"head_map_{key.suite}_{key.metric}",
            lambda k=key: draw_head_map(path, suite=k.suite, metric=k.metric, width=width),
        )


def tokens_drawings(tables: Tables, width: float) -> Jobs:
    """Yield the drawings of kind tokens: (file name, function that draws)."""
    frame = tables["attribution_tokens"]
    frame = frame[frame["metric"] == main_metric(frame)]
    for key in frame[["suite", "metric"]].drop_duplicates().itertuples(index=False):
        part = frame[(frame["suite"] == key.suite) & (frame["metric"] == key.metric)]
        largest = part.groupby("item")["effect"].apply(lambda e: e.abs().sum()).nlargest(6)
        yield (
            f"tokens_{key.suite}_{key.metric}",
            lambda k=key, items=tuple(largest.index): draw_tokens(
                frame, suite=k.suite, items=items, metric=k.metric, width=width
            ),
        )


def profile_drawings(tables: Tables, width: float) -> Jobs:
    """Yield the drawings of kind path: (file name, function that draws)."""
    frame = tables["path"]
    for metric in dict.fromkeys(frame["metric"]):
        if metric != "perplexity":
            yield f"path_{metric}", lambda m=metric: draw_profile(frame, metric=m, width=width)


def restoration_drawings(tables: Tables, width: float) -> Jobs:
    """Yield the drawings of kind restoration: (file name, function that draws)."""
    frame = tables["restoration"]
    for metric in dict.fromkeys(frame["metric"]):
        yield (
            f"restoration_profile_{metric}",
            lambda m=metric: draw_restoration_profile(frame, metric=m, width=width),
        )


def layer_profile_drawings(tables: Tables, width: float) -> Jobs:
    """Yield the drawings of kind layer_profile: (file name, function that draws)."""
    frame = tables["attribution"]
    frame = frame[(frame["method"] == "path") & (frame["metric"] == main_metric(frame))] if len(frame) else frame
    for key in frame[["suite", "metric"]].drop_duplicates().itertuples(index=False) if len(frame) else ():
        yield (
            f"layer_profile_{key.suite}",
            lambda k=key: draw_layer_profile(
                frame, suite=k.suite, metric=k.metric, drops=tables.get("probe_drop"),
                similarity=tables.get("similarity"), restoration=tables.get("restoration"), width=width,
            ),
        )  # fmt: skip


def suite_matrix_drawings(tables: Tables, width: float) -> Jobs:
    """Yield the drawings of kind suite_matrix: (file name, function that draws)."""
    frame = tables["attribution"]
    frame = frame[(frame["method"] == "path") & (frame["metric"] == main_metric(frame))] if len(frame) else frame
    if len(frame) and frame["suite"].nunique() > 1:
        metric = str(frame["metric"].iloc[0])
        yield "suite_matrix", lambda: draw_suite_matrix(frame, metric=metric, width=width)
