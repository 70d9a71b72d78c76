"""Every latent in both models, and the dictionary in both models, on a suite's own tokens."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import torch

from taxlens.analysis.features.change_codes import codes_in_use
from taxlens.analysis.features.dictionaries.dictionary import Dictionary
from taxlens.analysis.features.feature_tables import FEATURES_DICTIONARY, FEATURES_LATENTS
from taxlens.analysis.features.give_back import SuiteStreams
from taxlens.core.stats.intervals import group_index, sum_intervals
from taxlens.probes.rows.folds import group_folds

if TYPE_CHECKING:
    from collections.abc import Sequence

Tensor = torch.Tensor
CHUNK = 1024
KEEPS, GONE = 0.8, 0.3
"""Held-out R^2 of a refitted direction, as a share of the base's own, that says a feature is there, or is gone."""
FIRES = (0.9, 1.1)
"""Activity of aligned over base between which a latent fires as before."""
READ_WORSE = 0.1
"""Fall of variance explained from base to aligned above which the aligned model is not read."""


@dataclass(frozen=True, slots=True, eq=False)
class LatentActivity:
    """Codes of both models on a suite, summed over the positions of each item.

    Args:
        items: places of the items with positions that are read.
        positions: read, of each item [items].
        mean_base, mean_aligned: mean code of an item's positions, float64 [items, width].
        rate_base, rate_aligned: share of all positions at which a latent is on [width].
        on_base, on_aligned: mean code where on [width]; 0 where it never is.
    """

    items: np.ndarray
    positions: np.ndarray
    mean_base: np.ndarray
    mean_aligned: np.ndarray
    rate_base: np.ndarray
    rate_aligned: np.ndarray
    on_base: np.ndarray
    on_aligned: np.ndarray


def latent_activity(streams: SuiteStreams, dictionary: Dictionary) -> LatentActivity:
    """Return how often and how strongly each latent is on in both models."""
    at = streams.read.nonzero()[:, 0]
    item = torch.as_tensor(streams.item)[at]
    names, place = torch.unique(item, return_inverse=True)
    shape = (2, len(names), dictionary.width)
    sums, on = torch.zeros(shape, dtype=torch.float64), torch.zeros(2, dictionary.width, dtype=torch.float64)
    for piece, rows in zip(at.split(CHUNK), place.split(CHUNK)):
        for model, codes in enumerate(
            codes_in_use(dictionary, streams.base[piece].float(), streams.aligned[piece].float())
        ):
            sums[model].index_add_(0, rows, codes.double())
            on[model] += (codes > 0).double().sum(0)
    count = torch.bincount(place, minlength=len(names)).double()
    mean = (sums / count[:, None]).numpy()
    where_on = (sums.sum(1) / on.clamp_min(1)).numpy()
    rates = (on / max(1, len(at))).numpy()
    return LatentActivity(names.numpy(), count.numpy(), mean[0], mean[1], rates[0], rates[1], where_on[0], where_on[1])


def changed_latents(
    difference: np.ndarray, groups: Sequence[object] | np.ndarray, *, draws: int = 999, seed: int = 0
) -> tuple[np.ndarray, np.ndarray]:
    """p values that each latent's mean difference is 0, alone and adjusted over all by the largest statistic.

    Signs of whole groups are flipped together for all latents. The statistic is the sum over groups over the root of
    its sum of squares, whose square root does not depend on signs.

    Args:
        difference: [items, latents].
        groups: of the items.
        draws: sign patterns.
        seed: of the draws.

    Returns:
        p [latents] and adjusted p [latents]; 1 where nothing differs.
    """
    index, count = group_index(groups)
    totals = np.zeros((count, difference.shape[1]))
    np.add.at(totals, index, difference)
    size = np.sqrt((totals**2).sum(0))
    unit = np.divide(totals, size, out=np.zeros_like(totals), where=size > 0)
    measured = np.abs(unit.sum(0))
    signs = np.random.default_rng(seed).choice([-1.0, 1.0], size=(draws, count))
    drawn = np.abs(signs @ unit)
    alone = (1 + (drawn >= measured - 1e-12).sum(0)) / (draws + 1)
    largest = drawn.max(axis=1)
    adjusted = (1 + (largest[:, None] >= measured - 1e-12).sum(0)) / (draws + 1)
    return np.where(size > 0, alone, 1.0), np.where(size > 0, adjusted, 1.0)


def latents_frame(
    streams: SuiteStreams,
    dictionary: Dictionary,
    latents: Sequence[int] | np.ndarray,
    *,
    name: str,
    template: str,
    draws: int = 999,
    seed: int = 0,
) -> pd.DataFrame:
    """Rows of features_latents.csv for some latents; p values are adjusted over all that fire.

    Args:
        streams: the suite in both models.
        dictionary: the dictionary.
        latents: which to list.
        name, template: for the table.
        draws, seed: of the sign flips and of the bootstrap.
    """
    found = latent_activity(streams, dictionary)
    groups = np.array([streams.suite.items[int(i)].group for i in found.items], dtype=object)
    listed = np.asarray(latents, dtype=np.int64)
    fires = np.flatnonzero(found.rate_base + found.rate_aligned > 0)
    difference = found.mean_aligned - found.mean_base
    p, adjusted = np.ones(dictionary.width), np.ones(dictionary.width)
    if len(fires):
        p[fires], adjusted[fires] = changed_latents(difference[:, fires], groups, draws=draws, seed=seed)
    low, high = sum_intervals(difference[:, listed], groups, draws=max(draws, 999), seed=seed)
    nu = _scaling(streams, dictionary, listed)
    refit = _refitted(streams, dictionary, listed, groups, found.items, seed)
    norms = dictionary.decoder.norm(dim=2)
    ratio = (
        (norms[-1] / norms.sum(0).clamp_min(1e-12)).numpy()
        if dictionary.role == "crosscoder"
        else np.full(dictionary.width, np.nan)
    )
    rows = []
    for n, j in enumerate(listed):
        state = _state(dictionary, found, int(j), nu[0][n], (refit[0][n], refit[1][n]), (low[n], high[n]))
        rows.append((
            streams.suite.name, template, name, str(j), found.rate_base[j], found.rate_aligned[j], found.on_base[j],
            found.on_aligned[j], difference[:, j].mean(), low[n], high[n], p[j], adjusted[j], nu[0][n], nu[1][n],
            ratio[j], refit[0][n], refit[1][n], state or None,
        ))  # fmt: skip
    return FEATURES_LATENTS.frame(rows)


def dictionary_frame(streams: SuiteStreams, dictionary: Dictionary, *, name: str, template: str) -> pd.DataFrame:
    """Rows of features_dictionary.csv: how the dictionary reads each model (a difference dictionary: the change)."""
    at = streams.read.nonzero()[:, 0]
    excluded = int((streams.real & ~streams.read).sum())
    which = ("change",) if dictionary.role == "difference" else ("base", "aligned")
    rows, shares = [], []
    for number, model in enumerate(which):
        x = {"change": streams.aligned - streams.base, "base": streams.base, "aligned": streams.aligned}[model]
        put, facts = _reconstructed(streams, dictionary, x, at, number)
        recovered = np.nan
        if model != "change":
            stream = x.clone()
            stream[at] = put
            recovered = _recovered(streams, model, x, stream, at)
        shares.append(facts[0])
        note = ""
        if facts[0] <= 0:
            note = "explains no variance: another model's or another site's dictionary"
        elif model == "aligned" and shares[0] - facts[0] > READ_WORSE:
            note = "this dictionary does not read the aligned model"
        rows.append((
            streams.suite.name, template, name, model, *facts, excluded, len(at), recovered, note or None,
        ))  # fmt: skip
    return FEATURES_DICTIONARY.frame(rows)


def _reconstructed(
    streams: SuiteStreams, dictionary: Dictionary, x: Tensor, at: Tensor, number: int
) -> tuple[Tensor, tuple[float, float, float, float]]:
    """The reconstruction at the positions read, and (variance explained, active, never, error norm)."""
    put, on, fired = [], 0.0, torch.zeros(dictionary.width, dtype=torch.bool)
    for piece in at.split(CHUNK):
        given = x[piece].float()
        if dictionary.role == "crosscoder":
            given = torch.stack([streams.base[piece], streams.aligned[piece]], dim=1).float()
        codes = dictionary.encode(given)
        out = dictionary.decode(codes, given)
        put.append(out[:, number] if dictionary.role == "crosscoder" else out)
        on += float((codes > 0).sum())
        fired |= (codes > 0).any(0)
    whole, held = x[at].float(), torch.cat(put)
    mean = torch.zeros_like(whole[:1]) if dictionary.role == "difference" else whole.mean(0, keepdim=True)
    total = float((whole - mean).square().sum())
    left = float((whole - held).square().sum())
    norm = float(((whole - held).norm(dim=1) / whole.norm(dim=1).clamp_min(1e-12)).mean())
    return held, (1 - left / total if total else 0.0, on / max(1, len(at)), float((~fired).float().mean()), norm)


def _recovered(streams: SuiteStreams, model: str, own: Tensor, stream: Tensor, at: Tensor) -> float:
    """Share of the gold choice's log-probability, over zeros at the positions read, that the reconstruction keeps."""
    empty = own.clone()
    empty[at] = 0
    plain, held, none = (
        streams.values(scores, "nll").mean()
        for scores in (streams.scores[model], streams.scored(model, stream), streams.scored(model, empty))
    )
    return float((none - held) / (none - plain)) if none != plain else float("nan")


def _scaling(streams: SuiteStreams, dictionary: Dictionary, listed: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """How much of each latent the aligned model holds over the base: in what other latents leave, in reconstructions.

    With F the base's code (aligned's, where the base's is never on) and X a model's error with the latent's own part
    put back, beta = d'(X'F) / (|d|^2 |F|^2); the figure is aligned's beta over base's, each with its model's decoder.

    References:
        Minder et al. 2504.02922, equation 5.
    """
    if dictionary.role == "difference":
        blank = np.full(len(listed), np.nan)
        return blank, blank
    at = streams.read.nonzero()[:, 0]
    latents = torch.as_tensor(listed)
    sums = torch.zeros(2, 2, len(listed), dtype=torch.float64)
    power = torch.zeros(2, len(listed), dtype=torch.float64)
    crosses = torch.zeros(2, 2, 2, len(listed), dtype=torch.float64)  # whose code is F, model, error or reconstruction
    for piece in at.split(CHUNK):
        both = torch.stack([streams.base[piece], streams.aligned[piece]], dim=1).float()
        codes = codes_in_use(dictionary, both[:, 0], both[:, 1])
        for model in range(2):
            x = both if dictionary.role == "crosscoder" else both[:, model]
            out = dictionary.decode(codes[model], x)
            out = out[:, model] if dictionary.role == "crosscoder" else out
            d = dictionary.directions(model)[latents]
            own = codes[model][:, latents] * d.square().sum(1)
            left = (both[:, model] - out) @ d.T + own
            held = (out - dictionary.decoder_bias[min(model, len(dictionary.decoder_bias) - 1)]) @ d.T
            for whose in range(2):
                f = codes[whose][:, latents]
                crosses[whose, model, 0] += (f * left).double().sum(0)
                crosses[whose, model, 1] += (f * held).double().sum(0)
        for whose in range(2):
            power[whose] += codes[whose][:, latents].double().square().sum(0)
    whose = torch.where(power[0] > 0, 0, 1)
    for kind in range(2):
        for model in range(2):
            d = dictionary.directions(model)[latents].double().square().sum(1)
            beta = torch.where(whose == 0, crosses[0, model, kind], crosses[1, model, kind])
            sums[kind, model] = beta / (d * torch.where(whose == 0, power[0], power[1])).clamp_min(1e-30)
    nu = sums[:, 1] / torch.where(sums[:, 0].abs() > 1e-12, sums[:, 0], torch.full_like(sums[:, 0], float("nan")))
    return nu[0].numpy(), nu[1].numpy()


def _refitted(
    streams: SuiteStreams,
    dictionary: Dictionary,
    listed: np.ndarray,
    groups: np.ndarray,
    items: np.ndarray,
    seed: int,
) -> tuple[np.ndarray, np.ndarray]:
    """Held-out R^2 of ridge directions for the base's codes, fitted on base rows and on aligned rows [listed] each."""
    blank = np.full(len(listed), np.nan)
    if dictionary.role == "difference" or len(set(groups)) < 4:
        return blank, blank
    at = streams.read.nonzero()[:, 0]
    codes = torch.cat([
        codes_in_use(dictionary, streams.base[p].float(), streams.aligned[p].float())[0][:, torch.as_tensor(listed)]
        for p in at.split(CHUNK)
    ]).double()  # fmt: skip
    fold_of = group_folds(groups, n_folds=2, seed=seed).of_row
    places = np.searchsorted(items, streams.item[at.numpy()])
    fold = torch.as_tensor(fold_of[places])
    found = []
    for stream in (streams.base, streams.aligned):
        x = stream[at].double()
        left, total = torch.zeros(len(listed), dtype=torch.float64), torch.zeros(len(listed), dtype=torch.float64)
        for one in range(2):
            train, test = fold != one, fold == one
            mean, shift = x[train].mean(0), codes[train].mean(0)
            gram = (x[train] - mean).T @ (x[train] - mean)
            ridge = 1e-2 * gram.diagonal().mean() * torch.eye(len(gram), dtype=gram.dtype)
            slope = torch.linalg.solve(gram + ridge, (x[train] - mean).T @ (codes[train] - shift))
            left += (codes[test] - shift - (x[test] - mean) @ slope).square().sum(0)
            total += (codes[test] - shift).square().sum(0)
        found.append(torch.where(total > 0, 1 - left / total.clamp_min(1e-30), torch.nan).numpy())
    return found[0], found[1]


def _state(
    dictionary: Dictionary,
    found: LatentActivity,
    latent: int,
    nu: float,
    refit: tuple[float, float],
    interval: tuple[float, float],
) -> str:
    """The state of a feature, in the words of `analysis.state`: by activity, then by what a refitted direction finds."""
    if dictionary.role == "difference":
        return ""
    base, aligned = found.mean_base[:, latent].mean(), found.mean_aligned[:, latent].mean()
    if base == 0:
        return "gained" if aligned > 0 else ""
    activity = aligned / base
    if not np.isfinite(refit).all() or refit[0] <= GONE:
        return "undetermined"
    kept = refit[1] / refit[0]
    if FIRES[0] <= activity <= FIRES[1]:
        return "intact" if kept >= KEEPS else "undetermined"
    if interval[0] <= 0 <= interval[1]:
        return "undetermined"
    if activity > FIRES[1]:
        return "gained"
    if kept < GONE:
        return "erased"
    if kept < KEEPS:
        return "attenuated"
    # the content is there in a direction of its own: along the old one (attenuated, suppressed), or not (rotated)
    along = nu if np.isfinite(nu) else 1.0
    if along < GONE:
        return "rotated"
    return "suppressed" if activity < GONE else "attenuated"
