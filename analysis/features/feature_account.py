"""The account in features: latents, error, excluded tokens and the components above, which sum to the tax."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import pandas as pd

from taxlens.analysis.features.dictionaries.dictionary import Dictionary
from taxlens.analysis.features.feature_tables import FEATURES, FEATURES_CLOSURE, FEATURES_ITEMS, FEATURES_TOKENS
from taxlens.analysis.path.adaptive_quadrature import SMALL
from taxlens.core.errors import CheckError, explain
from taxlens.core.result import Result
from taxlens.core.stats.intervals import Interval, mean_interval, ratio_interval, sum_intervals

if TYPE_CHECKING:
    from taxlens.activations.items.items import Suite
    from taxlens.analysis.path.attribution import Attribution

CANCELS = 3.0
"""Sum of the latents' sizes over the size of their sum, above which they are not read one by one."""
MOVES = 0.1
"""Movement between nested rules, as a share of the tax, above which they are not read."""
CLOSES = 0.01
"""Share of the tax that may stay unexplained."""


@dataclass(frozen=True, slots=True, eq=False)
class SuiteFeatures:
    """One suite's account. Effects are signed as the tax.

    Args:
        suite: its name.
        items, groups: of the items.
        places: their places in the suite.
        taxes: metric to tax of each item [items].
        values: metric to effects, sparse [items, width].
        coarse: metric to mean effect by the coarser rule [width], NaN without one.
        error, excluded, above, apart: metric to one number an item; apart: what other prompts or configs are worth.
        coarse_error: metric to the mean error by the coarser rule, NaN without one.
        mass, tokens_on, switched, sizes: by latent, summed over items [width].
        change: squared length of the change, and what decoders and random decoders leave of it [items, 3].
        excluded_change: squared length of the change at excluded tokens [items].
        tokens: by item, (choice, place, latent, effect in the first metric) of single tokens.
        gradients: taken.
        closed: whether the walk met its stop rules.
    """

    suite: str
    items: tuple[str, ...]
    groups: np.ndarray
    places: np.ndarray
    taxes: Mapping[str, np.ndarray]
    values: Mapping[str, Any]
    coarse: Mapping[str, np.ndarray]
    error: Mapping[str, np.ndarray]
    excluded: Mapping[str, np.ndarray]
    above: Mapping[str, np.ndarray]
    apart: Mapping[str, np.ndarray]
    coarse_error: Mapping[str, float]
    mass: np.ndarray
    tokens_on: np.ndarray
    switched: np.ndarray
    sizes: np.ndarray
    change: np.ndarray
    excluded_change: np.ndarray
    tokens: Mapping[int, tuple[np.ndarray, ...]]
    gradients: int
    closed: bool

    def mean(self, metric: str) -> np.ndarray:
        """Mean effect of each latent [width]."""
        return np.asarray(self.values[metric].mean(axis=0)).ravel()

    def terms(self, metric: str) -> dict[str, np.ndarray]:
        """What is no latent, by item: error, excluded tokens, components above, other prompts, what is unexplained."""
        latents = np.asarray(self.values[metric].sum(axis=1)).ravel()
        held = {"error": self.error[metric], "excluded": self.excluded[metric], "above": self.above[metric]}
        if np.any(self.apart[metric]):
            held["prompts"] = self.apart[metric]
        return held | {"unexplained": self.taxes[metric] - latents - sum(held.values())}

    def movement(self, metric: str, listed: np.ndarray) -> float:
        """Sum of the sizes of what the listed latents, the rest of them as one, and the error changed by from the coarser rule.

        NaN where there was no coarser rule.
        """
        moved = self.mean(metric) - self.coarse[metric]
        rest = moved.sum() - moved[listed].sum()
        error = self.error[metric].mean() - self.coarse_error[metric]
        return float(np.abs(moved[listed]).sum() + abs(rest) + abs(error))

    def cancellation(self, metric: str) -> float:
        """Sum of the latents' sizes over the size of their sum; infinite where they sum to nothing."""
        mean = self.mean(metric)
        return float(np.abs(mean).sum() / abs(mean.sum())) if mean.sum() else float("inf")

    def ranked(self, metric: str, *, items: np.ndarray | None = None) -> np.ndarray:
        """Latents in use, the one that holds most of the tax first.

        Args:
            metric: whose effects.
            items: bool [items] or places: on which items.
        """
        kept = self.values[metric] if items is None else self.values[metric][items]
        mean = np.asarray(kept.mean(axis=0)).ravel() * np.sign(float(self.taxes[metric].mean()) or 1.0)
        order = np.argsort(-mean, kind="stable")
        return order[self.tokens_on[order] > 0]


@dataclass(frozen=True, slots=True, eq=False)
class FeatureAccount(Result):
    """Effects of a dictionary's latents on the tax of suites, with what the dictionary misses and whether it may speak.

    Args:
        template: of the prompts.
        name: of the dictionary, for tables.
        dictionary: the dictionary.
        reading: how the change was coded.
        suites: what was found, by suite.
        attribution: the effects of the weights, off the same walk.
        listed: latents that tables list one by one.
        draws, seed: of the group bootstrap.
        words: token id to text.
    """

    figure: ClassVar[str] = "features"

    template: str
    name: str
    dictionary: Dictionary
    reading: str
    suites: Mapping[str, SuiteFeatures]
    attribution: Attribution
    listed: int = 40
    draws: int = 2000
    seed: int = 0
    words: Mapping[int, str] = field(default_factory=dict)

    @property
    def metrics(self) -> tuple[str, ...]:
        """Metrics of the account, the first being the one that latents are ranked by."""
        return tuple(next(iter(self.suites.values())).taxes)

    def explained(self, suite: str) -> tuple[Interval, float, float]:
        """Share of the change that the decoders in use explain, random ones' share, and the low end of the margin."""
        found = self.suites[suite]
        whole, left, chance = found.change.T
        if whole.sum() <= 0:
            return mean_interval(np.zeros(len(whole)), found.groups, draws=self.draws, seed=self.seed), 0.0, 0.0
        options = {"draws": self.draws, "seed": self.seed}
        margin = ratio_interval(chance - left, whole, found.groups, **options)
        return (
            ratio_interval(whole - left, whole, found.groups, **options),
            float(1 - chance.sum() / whole.sum()),
            margin.low,
        )

    def verdict(self, suite: str, metric: str) -> str:
        """Why the latents of a suite may not be read one by one, in words; empty where they may."""
        found = self.suites[suite]
        share, chance, margin = self.explained(suite)
        tax = float(found.taxes[metric].mean())
        reasons = []
        if found.change.sum() <= 0:
            return "the stream does not change on this suite"
        if margin <= 0:
            reasons.append(f"explains {share.value:.0%} of the change, as many random decoders {chance:.0%}")
        interval = mean_interval(found.taxes[metric], found.groups, draws=self.draws, seed=self.seed)
        if not interval.excludes(0.0):
            reasons.append("there is no tax to explain")
        scale = max(abs(tax), SMALL)
        moved = found.movement(metric, self.chosen(suite))
        if abs(found.terms(metric)["unexplained"].mean()) > CLOSES * scale:
            reasons.append(f"closes to {abs(found.terms(metric)['unexplained'].mean()) / scale:.1%} of the tax")
        if found.cancellation(metric) > CANCELS:
            reasons.append(f"latents cancel: sizes sum to {found.cancellation(metric):.1f} times their sum")
        if np.isfinite(moved) and moved > MOVES * scale:
            reasons.append(f"effects still move by {moved / scale:.2f} of the tax between rules")
        return "; ".join(reasons)

    def ranked(self, suite: str, metric: str = "", *, anyway: bool = False) -> list[tuple[int, float]]:
        """Latents and mean effects, the one that holds most of the tax first.

        Raises:
            CheckError: the latents may not be read (`verdict` says why); `anyway` ranks all the same.
        """
        metric = metric or self.metrics[0]
        reason = self.verdict(suite, metric)
        if reason and not anyway:
            rows = [("suite", suite), ("metric", metric), ("why", reason)]
            raise CheckError(
                explain("this dictionary's latents are not ranked.", rows, "anyway=True, or another dictionary.")
            )
        mean = self.suites[suite].mean(metric)
        return [(int(j), float(mean[j])) for j in self.suites[suite].ranked(metric)]

    def to_frame(self) -> pd.DataFrame:
        """Rows of features.csv: the listed latents, the rest of them as one, and the terms beside them."""
        return FEATURES.join(self._effects(name, metric) for name in self.suites for metric in self.metrics)

    def chosen(self, suite: str) -> np.ndarray:
        """Latents that tables list: largest mean size in the first metric."""
        found = self.suites[suite]
        mean = np.abs(found.mean(self.metrics[0]))
        order = np.argsort(-mean, kind="stable")[: self.listed]
        return order[found.tokens_on[order] > 0]

    def _effects(self, suite: str, metric: str) -> pd.DataFrame:
        found, chosen = self.suites[suite], self.chosen(suite)
        table = found.values[metric]
        alone = np.asarray(table[:, chosen].todense())
        rest = np.asarray(table.sum(axis=1)).ravel() - alone.sum(1)
        terms = {"rest": rest} | found.terms(metric)
        columns = np.column_stack([alone, *terms.values()])
        low, high = sum_intervals(columns, found.groups, draws=self.draws, seed=self.seed)
        effect, tax = columns.mean(0), float(found.taxes[metric].mean())
        moved = np.full(len(effect), np.nan)
        moved[: len(chosen)] = np.abs(found.mean(metric) - found.coarse[metric])[chosen]
        moved[list(terms).index("error") + len(chosen)] = abs(found.error[metric].mean() - found.coarse_error[metric])
        whole = max(float(found.change[:, 0].sum()), 1e-30)
        blank = [np.nan] * len(terms)
        return pd.DataFrame({
            "suite": suite, "template": self.template, "metric": metric, "dictionary": self.name,
            "level": ["latent"] * len(chosen) + ["term"] * len(terms),
            "latent": [str(j) for j in chosen] + list(terms), "effect": effect, "low": low, "high": high,
            "share": effect / tax if tax else np.nan, "quadrature_error": moved,
            "tokens": [*found.tokens_on[chosen], *blank], "mass": [*(found.mass[chosen] / whole), *blank],
            "switched": [*(found.switched[chosen] / np.maximum(found.sizes[chosen], 1e-30)), *blank],
        })  # fmt: skip

    def closure_frame(self) -> pd.DataFrame:
        """Rows of features_closure.csv: how each account closes, and whether its latents may be read."""
        rows = []
        for name, found in self.suites.items():
            share, chance, margin = self.explained(name)
            for metric in self.metrics:
                tax, terms = float(found.taxes[metric].mean()), found.terms(metric)
                scale = tax or np.nan
                rows.append({
                    "suite": name, "template": self.template, "metric": metric, "dictionary": self.name,
                    "address": self.dictionary.address, "reading": self.reading, "tax": tax,
                    "latents": float(found.mean(metric).sum()), "prompts": 0.0, **{k: float(v.mean()) for k, v in terms.items()},
                    "unexplained_share": float(terms["unexplained"].mean()) / scale,
                    "error_share": float(terms["error"].mean()) / scale,
                    "cancellation": found.cancellation(metric), "movement": found.movement(metric, self.chosen(name)) / abs(scale),
                    "switched": float(found.switched.sum() / max(found.sizes.sum(), 1e-30)),
                    "explained": share.value, "explained_low": share.low, "random": chance, "margin_low": margin,
                    "gate": margin > 0, "verdict": self.verdict(name, metric) or None, "gradients": found.gradients,
                    "n_items": len(found.items), "n_groups": len(set(found.groups)),
                })  # fmt: skip
        return FEATURES_CLOSURE.frame(rows)

    def items_frame(self) -> pd.DataFrame:
        """Rows of features_items.csv: the listed latents by item."""
        rows = []
        for name, found in self.suites.items():
            for metric in self.metrics:
                for latent in self.chosen(name):
                    column = np.asarray(found.values[metric][:, [latent]].todense()).ravel()
                    rows += [
                        (name, self.template, metric, self.name, str(latent), item, float(value))
                        for item, value in zip(found.items, column)
                    ]
        return FEATURES_ITEMS.frame(rows)

    def tokens_frame(self, suites: Sequence[Suite], *, top: int = 10) -> pd.DataFrame:
        """Rows of features_tokens.csv: the `top` latents by token, in the first metric, of the items that were kept.

        Args:
            suites: the suites that were walked, for the ids of items.
            top: latents of each suite.
        """
        rows, metric = [], self.metrics[0]
        for suite in suites:
            found = self.suites[suite.name]
            wanted = set(self.chosen(suite.name)[:top].tolist())
            names = dict(zip(found.places.tolist(), found.items))
            for place, (choice, token, ids, latent, effect) in found.tokens.items():
                rows += [
                    (suite.name, self.template, metric, self.name, str(int(j)), names[place], int(c), int(t),
                     self.words.get(int(i), "") or None, float(e))
                    for c, t, i, j, e in zip(choice, token, ids, latent, effect) if int(j) in wanted
                ]  # fmt: skip
        return FEATURES_TOKENS.frame(rows)

    def companions(self) -> dict[str, pd.DataFrame]:
        """Return the closure, which the figure draws beside the effects."""
        return {"features_closure": self.closure_frame()}

    def __repr__(self) -> str:
        name, found = next(iter(self.suites.items()))
        metric = self.metrics[0]
        share, chance, _ = self.explained(name)
        state = self.verdict(name, metric)
        terms = {key: float(value.mean()) for key, value in found.terms(metric).items()}
        told = f"NOT to be read: {state}" if state else f"first latent {found.ranked(metric)[0]}"
        return (
            f"FeatureAccount of {name} {metric} at {self.dictionary.address}: tax {found.taxes[metric].mean():+.4g} = "
            f"latents {found.mean(metric).sum():+.4g} + error {terms['error']:+.4g} + excluded {terms['excluded']:+.4g} + "
            f"above {terms['above']:+.4g} (unexplained {terms['unexplained']:+.2g}); explains {share.value:.0%} of the "
            f"change (random {chance:.0%}); {told}"
        )
