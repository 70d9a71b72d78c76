"""Whether the latents that the account names hold what it says: given back on other items, beside controls and rivals.

Latents are chosen on one half of the groups and given back on the other, and the other way round, so that every item
is measured with a choice that it did not make. Controls carry as much of the change as the leading latents do. Rivals
need no dictionary: the mean difference, principal components of the change, a probe's direction, random directions,
leading eigenvectors of change and gradient.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import torch

from taxlens.activations.hooks.sites import Address
from taxlens.analysis.features.account_run import LOG_ODDS
from taxlens.analysis.features.feature_tables import FEATURES_CONTROLS
from taxlens.analysis.features.give_back import ChangeCodes, SuiteStreams, coded_change, suite_streams
from taxlens.analysis.scoring.metrics import smooth_metrics
from taxlens.core.stats.intervals import Interval, ratio_interval
from taxlens.core.vocabularies import RIVALS
from taxlens.probes.rows.folds import group_folds

if TYPE_CHECKING:
    from taxlens.activations.items.items import Suite
    from taxlens.activations.models.pair import ModelPair
    from taxlens.analysis.features.feature_account import FeatureAccount
    from taxlens.analysis.path.chain_rule import ScoreMetric

Tensor = torch.Tensor
SIDES = ("restored", "removed")


@dataclass(frozen=True, slots=True, eq=False)
class Given:
    """One intervention, measured on every item by a choice made on the other half.

    Args:
        what: "leading", "all", "matched_mass", "matched_rate" or a rival.
        draw: of those drawn at random.
        count: latents or directions.
        side: "restored", "removed" or "both" (their mean).
        returned: metric to what came back of each item's tax [items].
        predicted: metric to the same by the account, or None.
        mass: share of the change's squared length that it carries.
    """

    what: str
    draw: int
    count: int
    side: str
    returned: Mapping[str, np.ndarray]
    predicted: Mapping[str, np.ndarray] | None
    mass: float


@dataclass(frozen=True, slots=True, eq=False)
class FeatureControls:
    """Controls of one suite's account.

    Args:
        suite, template, dictionary: names.
        taxes: metric to measured tax of each item [items].
        groups: of the items.
        given: the interventions.
        vector: what the leading latents give back on every item, mean over its positions [items, d], to compare seeds.
        draws, seed: of the bootstrap.
    """

    suite: str
    template: str
    dictionary: str
    taxes: Mapping[str, np.ndarray]
    groups: np.ndarray
    given: Sequence[Given]
    vector: np.ndarray
    draws: int = 2000
    seed: int = 0

    def share(self, one: Given, metric: str) -> Interval:
        """Share of the tax that one intervention returned, with its interval."""
        return ratio_interval(one.returned[metric], self.taxes[metric], self.groups, draws=self.draws, seed=self.seed)

    def ahead(self, metric: str, side: str = "restored", control: str = "matched_mass") -> Interval:
        """Leading latents' share minus the mean share of controls: above 0 where the account knew which mattered."""
        leading = next(one for one in self.given if one.what == "leading" and one.side == side)
        others = [one.returned[metric] for one in self.given if one.what == control and one.side == side]
        gain = leading.returned[metric] - np.mean(others, axis=0)
        return ratio_interval(gain, self.taxes[metric], self.groups, draws=self.draws, seed=self.seed)

    def slope(self, metric: str, what: str = "leading", side: str = "restored") -> Interval:
        """Returned over predicted: 1 where the account says what giving back does."""
        one = next(one for one in self.given if one.what == what and one.side == side)
        assert one.predicted is not None
        return ratio_interval(
            one.returned[metric], one.predicted[metric], self.groups, draws=self.draws, seed=self.seed
        )

    def best(self, metric: str, side: str = "restored") -> tuple[str, float]:
        """Which of leading latents and rivals returned most of the tax, and the share."""
        shares = {
            one.what: self.share(one, metric).value
            for one in self.given if one.side == side and one.what in ("leading", *RIVALS)
        }  # fmt: skip
        name = max(shares, key=lambda key: shares[key])
        return name, shares[name]

    def to_frame(self) -> pd.DataFrame:
        """Rows of features_controls.csv."""
        rows = []
        for one in self.given:
            for metric, tax in self.taxes.items():
                share = self.share(one, metric)
                predicted = np.nan
                if one.predicted is not None and metric in one.predicted:
                    predicted = float(one.predicted[metric].sum() / tax.sum())
                rows.append((
                    self.suite, self.template, metric, self.dictionary, one.what, one.draw, one.count, one.side,
                    predicted, share.value, share.low, share.high, one.mass,
                ))  # fmt: skip
        return FEATURES_CONTROLS.frame(rows)


def control_features(
    pair: ModelPair,
    suite: Suite,
    account: FeatureAccount,
    *,
    leading: int = 20,
    draws: int = 8,
    rivals: Sequence[str] = RIVALS,
    sides: Sequence[str] = SIDES,
    metrics: Sequence[str] = (),
    seed: int = 0,
) -> FeatureControls:
    """Give back what the account names, cross-fitted by group, beside matched controls and rivals.

    Args:
        pair: the two checkpoints.
        suite: a suite of the account, its items alike.
        account: the account.
        leading: latents that are given back together.
        draws: control sets.
        rivals: which of `RIVALS` to measure.
        sides: "restored" and "removed".
        metrics: of the account; by default its first and the log-odds.
        seed: of folds and draws.
    """
    found = account.suites[suite.name]
    own = suite.subset(found.places.tolist())
    dictionary = account.dictionary
    streams = suite_streams(pair, own, Address(dictionary.site, dictionary.layer), template=account.template)
    codes = coded_change(streams, dictionary)
    folds = group_folds(found.groups, n_folds=2, seed=seed).of_row
    work = _Work(account, suite.name, streams, codes, folds, tuple(metrics) or (account.metrics[0], "log_odds"), seed)
    given = []
    for side in sides:
        given += work.latents(side, leading, draws)
        given += [work.rival(name, side) for name in rivals]
    given += _both(given)
    taxes = {m: found.taxes[m] for m in work.names}
    return FeatureControls(
        suite.name, account.template, account.name, taxes, found.groups, given, work.vector(leading),
        account.draws, account.seed,
    )  # fmt: skip


def _both(given: Sequence[Given]) -> list[Given]:
    """The mean of the two sides, where both were measured: the path lies between them."""
    removed = {(one.what, one.draw): one for one in given if one.side == "removed"}
    out = []
    for one in given:
        other = removed.get((one.what, one.draw))
        if one.side == "restored" and other is not None:
            mean = {m: (values + other.returned[m]) / 2 for m, values in one.returned.items()}
            out.append(dataclasses.replace(one, side="both", returned=mean))
    return out


class _Work:
    """Interventions on one suite."""

    def __init__(
        self,
        account: FeatureAccount,
        suite: str,
        streams: SuiteStreams,
        codes: ChangeCodes,
        folds: np.ndarray,
        names: tuple[str, ...],
        seed: int,
    ) -> None:

        self.found, self.streams, self.codes, self.folds, self.names = (
            account.suites[suite],
            streams,
            codes,
            folds,
            names,
        )
        self.metrics: dict[str, str | ScoreMetric] = {name: LOG_ODDS if name == "log_odds" else name for name in names}
        self.main, self.seed = names[0], seed
        self.position_fold = np.where(streams.item >= 0, folds[streams.item], -1)
        self.whole = float(streams.moved.double().square().sum())
        self.chosen = [self.found.ranked(self.main, items=folds != fold) for fold in range(2)]

    def latents(self, side: str, leading: int, draws: int) -> list[Given]:
        """Leading latents, all latents, and controls matched in mass and in rate."""
        sets = [order[:leading] for order in self.chosen]
        out = [self._given("leading", 0, side, sets), self._given("all", 0, side, [None, None])]
        for draw in range(draws):
            others = self._matched(sets, draw, self.codes.mass(), whole=True)
            out.append(self._given("matched_mass", draw, side, others))
            if all(len(one) + len(mine) == used for one, mine, used in zip(others, sets, self._in_use())):
                break  # it takes all the others to carry as much: there is one such set
        for draw in range(max(1, draws // 2)):
            out.append(
                self._given("matched_rate", draw, side, self._matched(sets, draw, self.codes.count(), whole=False))
            )
        return out

    def _in_use(self) -> list[int]:
        return [int((self.codes.mass() > 0).sum())] * 2

    def rival(self, name: str, side: str) -> Given:
        """One rival, fitted on each half and measured on the other."""
        put = torch.zeros_like(self.streams.base)
        count = 0
        for fold in range(2):
            fit, inside = self._positions(1 - fold), self._positions(fold)
            rows, count = _FIT[name](self, fit, inside)
            put[inside] = rows.to(put)
        return Given(
            name, 0, count, side, self.streams.returned(put, self.metrics, side), None,
            float(put.double().square().sum()) / self.whole,
        )  # fmt: skip

    def vector(self, leading: int) -> np.ndarray:
        """What the leading latents give back, mean over each item's positions, [items, d]."""
        put = self._put([order[:leading] for order in self.chosen])
        out = torch.zeros(len(self.found.items), put.shape[1], dtype=torch.float64)
        at = self.streams.read.nonzero()[:, 0]
        out.index_add_(0, torch.as_tensor(self.streams.item)[at], put[at].double())
        return out.numpy()

    def _put(self, sets: Sequence[np.ndarray | None]) -> Tensor:
        put = torch.zeros_like(self.streams.base)
        for fold, latents in enumerate(sets):
            inside = torch.as_tensor(self.position_fold == fold)
            put[inside] = self.codes.written(latents, put)[inside]
        return put

    def _given(self, what: str, draw: int, side: str, sets: Sequence[np.ndarray | None]) -> Given:
        put = self._put(sets)
        predicted = {}
        for name in self.names:
            values = self.found.values[name]
            column = np.zeros(values.shape[0])
            for fold, latents in enumerate(sets):
                mine = self.folds == fold
                part = values[mine] if latents is None else values[mine][:, latents]
                column[mine] = np.asarray(part.sum(axis=1)).ravel()
            predicted[name] = column
        count = int((self.found.tokens_on > 0).sum()) if sets[0] is None else len(sets[0])
        mass = float(put.double().square().sum()) / self.whole
        return Given(what, draw, count, side, self.streams.returned(put, self.metrics, side), predicted, mass)

    def _matched(self, sets: Sequence[np.ndarray], draw: int, weight: np.ndarray, *, whole: bool) -> list[np.ndarray]:
        """Other latents: as many of them as carry the leaders' mass, or one for each leader of like rate."""
        out = []
        for fold, leaders in enumerate(sets):
            rng = np.random.default_rng([self.seed, draw, fold, int(whole)])
            others = np.setdiff1d(np.flatnonzero(weight > 0), leaders)
            if not len(others):
                out.append(others)
            elif whole:
                order = rng.permutation(others)
                total = np.cumsum(weight[order])
                out.append(order[: int(np.searchsorted(total, weight[leaders].sum())) + 1])
            else:
                picked: list[int] = []
                for leader in leaders:
                    left = np.setdiff1d(others, picked)
                    if not len(left):
                        break
                    near = left[np.argsort(np.abs(np.log(weight[left]) - np.log(max(weight[leader], 1e-12))))[:5]]
                    picked.append(int(rng.choice(near)))
                out.append(np.array(picked, dtype=np.int64))
        return out

    def _positions(self, fold: int) -> Tensor:
        return (torch.as_tensor(self.position_fold == fold) & self.streams.read).nonzero()[:, 0]

    def last_positions(self, fit: Tensor) -> Tensor:
        """The last position that is read of every input, among `fit`."""
        item, place = self.streams.item[fit.numpy()], self.streams.place[fit.numpy()]
        ends = np.flatnonzero((np.diff(item, append=-2) != 0) | (np.diff(place, append=-1) < 0))
        return fit[torch.as_tensor(ends)]


Fit = Callable[[_Work, Tensor, Tensor], tuple[Tensor, int]]
"""(work, positions to fit on, positions to give back at) -> (what is given back there, number of directions)."""
DIRECTIONS = 20


def _adl(work: _Work, fit: Tensor, inside: Tensor) -> tuple[Tensor, int]:
    """The mean difference, at every position that is read."""
    return work.streams.moved[fit].mean(0, keepdim=True).expand(len(inside), -1), 1


def _pca(work: _Work, fit: Tensor, inside: Tensor) -> tuple[Tensor, int]:
    """The change's share along its own leading principal components (not centred)."""
    moved = work.streams.moved.double()
    vectors = torch.linalg.eigh(moved[fit].T @ moved[fit])[1][:, -DIRECTIONS:]
    return moved[inside] @ vectors @ vectors.T, DIRECTIONS


def _random_rank(work: _Work, fit: Tensor, inside: Tensor) -> tuple[Tensor, int]:
    """The change's share along as many random directions."""
    generator = torch.Generator().manual_seed(work.seed + 1)
    d = work.streams.base.shape[1]
    vectors = torch.linalg.qr(torch.randn(d, min(DIRECTIONS, d), generator=generator, dtype=torch.float64))[0]
    return work.streams.moved.double()[inside] @ vectors @ vectors.T, vectors.shape[1]


def _probe(work: _Work, fit: Tensor, inside: Tensor) -> tuple[Tensor, int]:
    """The change's share along one direction: class means of the two models at the last position that is read."""
    last = work.last_positions(fit)
    direction = (work.streams.base[last] - work.streams.aligned[last]).double().mean(0)
    direction = direction / direction.norm().clamp_min(1e-12)
    moved = work.streams.moved.double()[inside]
    return (moved @ direction)[:, None] * direction, 1


def _eigenvectors(work: _Work, fit: Tensor, inside: Tensor) -> tuple[Tensor, int]:
    """The change's share along five leading eigenvectors of the symmetric part of change times gradient.

    A warning and no rival: they are fitted to the tax and can return more than there is, on items never seen.
    """
    metric = work.metrics[work.main] if work.main in smooth_metrics() else work.metrics.get("log_odds", "probability")
    gradients = work.streams.gradient(metric)
    moved = work.streams.moved.double()
    product = moved[fit].T @ gradients[fit].double()
    values, vectors = torch.linalg.eigh((product + product.T) / 2)
    leading = vectors[:, torch.argsort(-values.abs())[:5]]
    return moved[inside] @ leading @ leading.T, 5


_FIT: dict[str, Fit] = {
    "adl": _adl, "pca": _pca, "probe": _probe, "random_rank": _random_rank, "eigenvectors": _eigenvectors,
}  # fmt: skip
