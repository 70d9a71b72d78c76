"""Which drawings the tables of the features give."""

from __future__ import annotations

import pandas as pd

from taxlens.figures.drawings import Jobs, Tables
from taxlens.stages.features.feature_map_figure import draw_feature_map, draw_given_back
from taxlens.stages.features.latent_figure import draw_latent
from taxlens.stages.features.waterfall_figure import draw_waterfall

PANELS = 3
"""Latents of an account that get a panel of their own."""


def _accounts(frame: pd.DataFrame) -> list[tuple[str, str, str]]:
    """(suite, dictionary, first metric) of every account, in order."""
    pairs = frame[["suite", "dictionary"]].drop_duplicates()
    found = []
    for suite, dictionary in pairs.itertuples(index=False):
        metric = frame.loc[(frame["suite"] == suite) & (frame["dictionary"] == dictionary), "metric"].iloc[0]
        found.append((str(suite), str(dictionary), str(metric)))
    return found


def _file(kind: str, *parts: str) -> str:
    return kind + "_" + "_".join("".join(c if c.isalnum() or c in "-." else "-" for c in part) for part in parts)


def features_drawings(tables: Tables, width: float) -> Jobs:
    """Yield the waterfalls: (file name, function that draws)."""
    frame, closure = tables["features"], tables["features_closure"]
    for suite, name, metric in _accounts(frame):
        yield (
            _file("features", suite, name),
            lambda s=suite, d=name, m=metric: draw_waterfall(
                frame, closure, suite=s, metric=m, dictionary=d, width=width
            ),
        )


def latent_drawings(tables: Tables, width: float) -> Jobs:
    """Yield the panels of the leading latents of every account."""
    features, latents, names = tables["features"], tables["features_latents"], tables["features_names"]
    contexts = tables.get("features_contexts")
    for suite, name, metric in _accounts(features):
        mine = features[
            (features["suite"] == suite) & (features["dictionary"] == name) & (features["metric"] == metric)
            & (features["level"] == "latent")
        ]  # fmt: skip
        listed = set(latents.loc[(latents["suite"] == suite) & (latents["dictionary"] == name), "latent"].astype(str))
        order = mine.reindex(mine["effect"].abs().sort_values(ascending=False, kind="stable").index)
        for latent in [str(one) for one in order["latent"] if str(one) in listed][:PANELS]:
            yield (
                _file("latent", suite, name, latent),
                lambda s=suite, d=name, j=latent: draw_latent(
                    features, latents, names, suite=s, dictionary=d, latent=j, contexts=contexts, width=width
                ),
            )


def map_drawings(tables: Tables, width: float) -> Jobs:
    """Yield the feature maps."""
    features, latents = tables["features"], tables["features_latents"]
    for suite, name, metric in _accounts(features):
        if ((latents["suite"] == suite) & (latents["dictionary"] == name)).any():
            yield (
                _file("feature_map", suite, name),
                lambda s=suite, d=name, m=metric: draw_feature_map(
                    features, latents, suite=s, metric=m, dictionary=d, width=width
                ),
            )


def controls_drawings(tables: Tables, width: float) -> Jobs:
    """Yield what was given back."""
    frame = tables["features_controls"]
    for suite, name, metric in _accounts(frame):
        yield (
            _file("given_back", suite, name),
            lambda s=suite, d=name, m=metric: draw_given_back(frame, suite=s, metric=m, dictionary=d, width=width),
        )
