"""Activations as pictures: both models' prompts on two axes, and along the direction of what alignment was for."""

from __future__ import annotations

import numpy as np
import pandas as pd

from taxlens.activations.store.store import Store
from taxlens.core.progress import SILENT, Progress
from taxlens.stages.similarity.similarity_tables import ACTIVATION_PLANE, REFUSAL_DIRECTION, REFUSAL_PROJECTIONS

SITE = "resid_post"
PROMPTS = 60
"""Most prompts of one suite; of more, so many spread over the suite."""

_FEWEST = 4


def activation_plane(store: Store, *, progress: Progress = SILENT) -> pd.DataFrame:
    """Return activation_plane.csv: each prompt's last token in both models, on the two leading axes of both together.

    The axes are the principal components of base's and aligned's rows pooled, layer by layer; the sign is chosen so that
    aligned lies to the right of base and above it on average. What two axes hold is in the column `share`.

    Args:
        store: activations with the site `resid_post`; without it the table is empty.
        progress: shows layer by layer.
    """
    frames = []
    for template, rows in _prompts(store).items():
        layers = store.layers(SITE)
        with progress.task("plane of activations", total=len(layers), unit="layers") as task:
            for layer in layers:
                both = [
                    store.read(SITE, layer, model=model, rows=rows.index.to_numpy()) for model in ("base", "aligned")
                ]
                points, share = plane_of(*both)
                for model, xy in zip(("base", "aligned"), points, strict=True):
                    frames.append(
                        rows[["suite", "item"]].assign(
                            template=template, layer=layer, model=model, x=xy[:, 0], y=xy[:, 1], share=share
                        )
                    )
                task.advance(note=f"{template} {layer}")
    return ACTIVATION_PLANE.join(frames)


def plane_of(base: np.ndarray, aligned: np.ndarray) -> tuple[tuple[np.ndarray, np.ndarray], float]:
    """Return both models' rows [n, 2] on the two leading principal axes of their pooled rows, and the variance these hold.

    Args:
        base: [n, d].
        aligned: [n, d].

    Example:
        >>> (one, other), share = plane_of(np.eye(3), np.eye(3) + [9.0, 0, 0])
        >>> one.shape, bool((other[:, 0] > one[:, 0]).all())
        ((3, 2), True)
    """
    pooled = np.concatenate([base, aligned]).astype(np.float64)
    pooled -= pooled.mean(axis=0)
    values, vectors = np.linalg.eigh(pooled @ pooled.T)  # rows are few, columns may be many
    values, vectors = np.clip(values[::-1], 0, None), vectors[:, ::-1]
    whole = float(values.sum())
    points = vectors[:, :2] * np.sqrt(values[:2])
    n = len(base)
    moved = points[n:].mean(axis=0) - points[:n].mean(axis=0)
    points = points * np.where(moved < 0, -1.0, 1.0)
    return (points[:n], points[n:]), float(values[:2].sum() / whole) if whole else 0.0


def refusal_tables(
    store: Store, benefits: set[str], *, seed: int = 0, progress: Progress = SILENT
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return refusal_projections.csv and refusal_direction.csv: both models' prompts along aligned's direction.

    The direction of a layer is the mean of aligned's rows on the prompts of the benefit suites minus the mean on those of
    the capability suites, a suite a weight (the difference of means of arXiv 2406.11717). It is fitted on one half of the
    groups and read on the other, both ways, so that no prompt is read by a direction that it helped to fit. Values are
    scaled by the fitted half of aligned: 0 is its mean on capability prompts, 1 its mean on benefit prompts.

    Args:
        store: activations with the site `resid_post`.
        benefits: names of the suites that alignment was for.
        seed: of the halves.
        progress: shows layer by layer.

    Returns:
        Both tables; empty where a template lacks prompts of either kind.
    """
    projections, directions = [], []
    for template, rows in _prompts(store).items():
        asked = rows["suite"].isin(benefits).to_numpy()
        halves = _halves(rows, seed)
        if min(_fewest(asked, halves), _fewest(~asked, halves)) < _FEWEST:
            continue
        layers = store.layers(SITE)
        with progress.task("direction of the benefit", total=len(layers), unit="layers") as task:
            for layer in layers:
                both = {
                    m: store.read(SITE, layer, model=m, rows=rows.index.to_numpy()).astype(float)
                    for m in ("base", "aligned")
                }
                suites = rows["suite"].astype(str).to_numpy()
                values = {model: held_out(both["aligned"], X, asked, suites, halves) for model, X in both.items()}
                for model, value in values.items():
                    kind = np.where(asked, "benefit", "capability")
                    named = rows[["suite", "item"]].assign(
                        kind=kind, template=template, layer=layer, model=model, value=value
                    )
                    projections.append(named)
                whole = [difference(X, asked, suites) for X in both.values()]
                norms = [float(np.linalg.norm(d)) for d in whole]
                cosine = float(whole[0] @ whole[1] / (norms[0] * norms[1])) if min(norms) > 0 else float("nan")
                directions.append(
                    (template, layer, cosine, norms[0], norms[1], *(_auc(v, asked) for v in values.values()), len(rows))
                )
                task.advance(note=f"{template} {layer}")
    return REFUSAL_PROJECTIONS.join(projections), REFUSAL_DIRECTION.frame(directions)


def difference(X: np.ndarray, asked: np.ndarray, suites: np.ndarray) -> np.ndarray:
    """Return the mean of the rows that are asked for minus the mean of the others, each suite with one weight [d]."""

    def mean(mask: np.ndarray) -> np.ndarray:
        return np.mean([X[mask & (suites == name)].mean(axis=0) for name in dict.fromkeys(suites[mask])], axis=0)

    return mean(asked) - mean(~asked)


def held_out(
    fitted: np.ndarray, X: np.ndarray, asked: np.ndarray, suites: np.ndarray, halves: np.ndarray
) -> np.ndarray:
    """Return each row's place along the direction fitted on the other half: 0 and 1 are the two means there [n].

    Args:
        fitted: [n, d] rows that the direction is fitted on.
        X: [n, d] rows that are read.
        asked: [n] rows of what alignment was for.
        suites: [n] suite of each row.
        halves: [n] 0 or 1.
    """
    out = np.full(len(X), np.nan)
    for half in (0, 1):
        there, here = halves != half, halves == half
        direction = difference(fitted[there], asked[there], suites[there])
        size = float(direction @ direction)
        if size == 0:
            continue
        others = there & ~asked
        names = dict.fromkeys(suites[others])
        start = np.mean([fitted[others & (suites == name)].mean(axis=0) for name in names], axis=0) @ direction
        out[here] = (X[here] @ direction - start) / size
    return out


def _prompts(store: Store) -> dict[str, pd.DataFrame]:
    """The last token of at most `PROMPTS` prompts of each suite, by template; the index says the store's row."""
    if SITE not in store.sites:
        return {}
    rows = store.rows
    rows = rows[rows["kind"] == "prompt"]
    found = {}
    for template, part in rows.groupby("template", sort=False):
        last = part.loc[part.groupby(["suite", "item"], sort=False)["position"].idxmax()]
        few = [one.iloc[np.unique(np.linspace(0, len(one) - 1, min(len(one), PROMPTS)).astype(int))]
               for _, one in last.groupby("suite", sort=False)]  # fmt: skip
        chosen = pd.concat(few).sort_index() if few else part[:0]
        if len(chosen) >= _FEWEST:
            found[str(template)] = chosen
    return found


def _halves(rows: pd.DataFrame, seed: int) -> np.ndarray:
    """0 or 1 for each row: whole groups, half of each suite's."""
    groups = rows["suite"].astype(str) + "/" + rows["group"].astype(str)
    rng, place = np.random.default_rng(seed), {}
    for _, own in groups.groupby(rows["suite"].astype(str), sort=True):
        names = sorted(set(own))
        for n, at in enumerate(rng.permutation(len(names))):
            place[names[at]] = n % 2
    return groups.map(place).to_numpy()


def _fewest(mask: np.ndarray, halves: np.ndarray) -> int:
    return min(int((mask & (halves == half)).sum()) for half in (0, 1))


def _auc(values: np.ndarray, asked: np.ndarray) -> float:
    """Chance that a row that is asked for lies further than another; ties count half."""
    known = np.isfinite(values)
    one, other = values[known & asked], values[known & ~asked]
    if not len(one) or not len(other):
        return float("nan")
    return float((np.sign(one[:, None] - other[None, :]).mean() + 1) / 2)
