"""Claims on a suite's account, each with the control that it passed or failed."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import torch

from taxlens.activations.models.pair import make_pair
from taxlens.analysis.features.account_run import account_dictionaries
from taxlens.analysis.features.feature_account import CANCELS, CLOSES, MOVES, FeatureAccount
from taxlens.analysis.features.feature_tables import FEATURES_CLAIMS
from taxlens.analysis.features.give_back import SuiteStreams, coded_change
from taxlens.core.stats.intervals import ratio_interval

if TYPE_CHECKING:
    from taxlens.activations.items.items import Suite
    from taxlens.activations.models.loading import LoadedModel
    from taxlens.activations.models.pair import ModelPair
    from taxlens.analysis.features.dictionaries.dictionary import Dictionary
    from taxlens.analysis.features.feature_controls import FeatureControls

AGREES = 0.9
"""Correlation of the effects at the cut with those of the path, from which on both are said to agree."""
SAME = 0.7
"""Cosine of what the leading latents of two dictionaries give back, from which on they are said to find the same."""
SLOPE = (0.7, 1.3)
"""Returned over predicted within which the account is said to predict."""
QUIET = 0.1
"""Share of the pair's leading effects that they may have where nothing was aligned."""
Row = tuple[Any, ...]


def claims_frame(
    suite: str,
    account: FeatureAccount,
    *,
    dictionary: pd.DataFrame,
    cut: pd.DataFrame | None,
    controls: FeatureControls | None,
    shuffled: tuple[float, float, float],
) -> pd.DataFrame:
    """Rows of features_claims.csv of one suite and dictionary.

    Args:
        suite: its name.
        account: the account.
        dictionary: the suite's rows of features_dictionary.csv.
        cut: the suite's rows of features_cut.csv, or None.
        controls: what was given back, or None.
        shuffled: what `against_shuffled` returned.
    """
    rows: list[Row] = []
    closure = account.closure_frame().set_index(["suite", "metric"])
    notes = dictionary["note"].dropna().tolist()
    worst = float(dictionary["explained"].astype(float).min())
    rows.append(("", "reads both models", "variance explained, the worse model", worst, np.nan, np.nan, 0.0, not notes))
    value, low, high = shuffled
    rows.append(
        ("", "sees the change", "the same dictionary with its coordinates shuffled", value, low, high, 0.0, low > 0)
    )
    for metric in account.metrics:
        own = closure.loc[(suite, metric)]
        share, moved = abs(float(own["unexplained_share"])), float(own["movement"])
        gain = float(own["explained"]) - float(own["random"])
        rows += [
            (metric, "sums to the tax", "share left unexplained", share, np.nan, np.nan, CLOSES, share <= CLOSES),
            (metric, "has settled", "movement between rules", moved, np.nan, np.nan, MOVES, moved <= MOVES),
            (metric, "does not cancel", "sizes over their sum", float(own["cancellation"]), np.nan, np.nan, CANCELS,
             float(own["cancellation"]) <= CANCELS),
            (metric, "sees the change", "as many random decoders", gain, float(own["margin_low"]), np.nan, 0.0,
             float(own["margin_low"]) > 0),
        ]  # fmt: skip
        if cut is not None:
            agreement = float(cut.set_index("metric").loc[metric, "agreement"])
            rows.append((metric, "holds at a cut", "correlation with the effects at the cut", agreement, np.nan, np.nan,
                         AGREES, agreement >= AGREES))  # fmt: skip
        if controls is not None and metric in controls.taxes:
            rows += _given(controls, metric)
    return _frame(rows, suite, account)


def against_shuffled(
    streams: SuiteStreams, dictionary: Dictionary, groups: np.ndarray, items: np.ndarray, *, draws: int, seed: int
) -> tuple[float, float, float]:
    """Share of the change that a dictionary explains, minus the share of itself with its coordinates shuffled.

    Decoders keep their lengths and the angles between them; what they lose is the model's coordinates.

    Args:
        streams: of the suite.
        dictionary: the dictionary.
        groups: of the account's items; items: their places in `streams.suite`.
        draws, seed: of the bootstrap and of the shuffle.

    Returns:
        The difference, and the ends of its 95 % interval.
    """
    order = torch.randperm(dictionary.d_in, generator=torch.Generator().manual_seed(seed))
    twin = dataclasses.replace(
        dictionary, encoder=dictionary.encoder[:, order], decoder=dictionary.decoder[:, :, order],
        decoder_bias=dictionary.decoder_bias[:, order],
    )  # fmt: skip
    whole = streams.moved.double().square().sum(1)
    left = []
    for one in (dictionary, twin):
        written = coded_change(streams, one).written(None, streams.base)
        left.append((streams.moved - written).double().square().sum(1))
    at = streams.read
    columns = [np.bincount(streams.item[at.numpy()], x[at].numpy(), len(items)) for x in (whole, left[1] - left[0])]
    found = ratio_interval(columns[1][items], columns[0][items], groups, draws=draws, seed=seed)
    return found.value, found.low, found.high


def same_latents(
    found: Mapping[tuple[str, str], FeatureControls], accounts: Mapping[str, FeatureAccount]
) -> pd.DataFrame:
    """Rows of features_claims.csv on dictionaries of one address: whether their leading latents give back the same.

    Args:
        found: controls by (dictionary, suite).
        accounts: by dictionary.
    """
    frames = []
    for (name, suite), mine in found.items():
        rows: list[Row] = []
        for (other, same), theirs in found.items():
            if (
                same != suite
                or other == name
                or accounts[other].dictionary.address != accounts[name].dictionary.address
            ):
                continue
            one, two = mine.vector.mean(0), theirs.vector.mean(0)
            cosine = float(one @ two / max(float(np.linalg.norm(one) * np.linalg.norm(two)), 1e-30))
            rows.append((next(iter(mine.taxes)), "another dictionary finds the same", other, cosine, np.nan, np.nan, SAME,
                         cosine >= SAME))  # fmt: skip
        frames.append(_frame(rows, suite, accounts[name]))
    return FEATURES_CLAIMS.join(frames)


def unaligned_claims(
    pair: ModelPair,
    suites: Sequence[Suite],
    accounts: Mapping[str, FeatureAccount],
    others: Mapping[str, LoadedModel],
    *,
    leading: int = 20,
    **options: Any,
) -> pd.DataFrame:
    """Rows of features_claims.csv on models that were not aligned: the leading latents must carry little there.

    Args:
        pair: the two checkpoints.
        suites: the suites of the accounts.
        accounts: by dictionary.
        others: name to a model that stands in for the aligned one (`rounded`, or a harmless fine-tune).
        leading: latents whose effects are compared.
        options: of `account_run.account_dictionaries`.
    """
    frames = []
    dictionaries = {name: account.dictionary for name, account in accounts.items()}
    for other, model in others.items():
        quiet = account_dictionaries(make_pair(pair.base, model), list(suites), dictionaries, **options)
        for name, account in accounts.items():
            for suite in suites:
                frames.append(
                    _frame([_unaligned(account, quiet[name], suite.name, other, leading)], suite.name, account)
                )
    return FEATURES_CLAIMS.join(frames)


def rounded(model: LoadedModel) -> LoadedModel:
    """The model with the weights of a coarser dtype: bfloat16's seven bits, or five where it is one of 16 bits.

    Args:
        model: the model; left as it is.
    """
    bits = 8 if model.dtype == "float32" else 6
    twin = copy.deepcopy(model.model)
    with torch.no_grad():
        for value in twin.parameters():
            mantissa, exponent = torch.frexp(value.float())
            value.copy_(torch.ldexp(torch.round(mantissa * 2**bits) / 2**bits, exponent).to(value.dtype))
    name = f"{model.source}, weights of {bits} bits"
    return dataclasses.replace(model, model=twin, source=name, sha256=f"{model.sha256}-{bits}")


def _unaligned(account: FeatureAccount, quiet: FeatureAccount, suite: str, other: str, leading: int) -> Row:
    metric = account.metrics[0]
    chosen = account.suites[suite].ranked(metric)[:leading]
    there, here = (np.abs(one.suites[suite].mean(metric)[chosen]).sum() for one in (quiet, account))
    share = float(there / here) if here else np.nan
    return (metric, "is quiet without alignment", other, share, np.nan, np.nan, QUIET, share <= QUIET)


def _given(controls: FeatureControls, metric: str) -> list[Row]:
    """Claims on what the leading latents returned."""
    rows: list[Row] = []
    sides = list(dict.fromkeys(one.side for one in controls.given))
    side = "both" if "both" in sides else sides[0]
    for what, said in (
        ("matched_mass", "others that carry as much of the change"),
        ("matched_rate", "others that fire as often"),
    ):
        lead = controls.ahead(metric, side, what)
        rows.append((metric, "leading latents return more", said, *_ends(lead), 0.0, lead.low > 0))
    slope = controls.slope(metric, "leading", side)
    inside = SLOPE[0] <= slope.value <= SLOPE[1]
    rows.append((metric, "returns what was predicted", "returned over predicted", *_ends(slope), 1.0, inside))
    rivals = {one.what for one in controls.given} - {"leading", "all", "matched_mass", "matched_rate", "eigenvectors"}
    for what in sorted(rivals):
        lead = controls.ahead(metric, side, what)
        rows.append((metric, "latents return more", what, *_ends(lead), 0.0, lead.low > 0))
    return rows


def _ends(interval: Any) -> tuple[float, float, float]:
    return interval.value, interval.low, interval.high


def _frame(rows: Sequence[Row], suite: str, account: FeatureAccount) -> pd.DataFrame:
    head = (suite, account.template, account.name)
    return FEATURES_CLAIMS.frame(
        (*head, claim, control, metric or None, float(value), float(low), float(high), float(bound), bool(passed))
        for metric, claim, control, value, low, high, bound, passed in rows
    )
