"""An attribution's results: effects by unit, item and token, with intervals, quadrature error and closure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np
import pandas as pd

from taxlens.analysis.interventions.effect_tables import (
    ATTRIBUTION,
    ATTRIBUTION_ITEMS,
    ATTRIBUTION_TOKENS,
    CLOSURE,
    PATH,
)
from taxlens.analysis.interventions.effects import APART, APART_KIND
from taxlens.analysis.path.barrier import Walkability
from taxlens.core.errors import CheckError, UsageError, explain
from taxlens.core.result import Result
from taxlens.core.stats.intervals import mean_interval, sum_intervals
from taxlens.core.stats.rounding import around_zero, share_of


@dataclass(frozen=True, slots=True, eq=False)
class TokenEffects:
    """Effects of components by token of each (item, choice) row.

    Args:
        item: the token's item, int64 [tokens], counted within the suite's attributed items.
        choice: its choice, int64 [tokens].
        place: its place in the row, int64 [tokens]; the last token of a row is predicted and never read.
        ids: its token id, int64 [tokens].
        values: by metric, [tokens, components].
        words: text of each token id.
    """

    item: np.ndarray
    choice: np.ndarray
    place: np.ndarray
    ids: np.ndarray
    values: Mapping[str, np.ndarray]
    words: Mapping[int, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, eq=False)
class SuiteEffects:
    """What the weight path found on one suite. Effects are signed as the tax: positive is loss.

    Args:
        suite: its name.
        items: ids of the attributed items.
        groups: their groups.
        units: by level, unit names.
        layers: by level, block index of each unit, -1 outside the blocks.
        kinds: by level, "attn", "mlp", "norm", "embed" or "unembed" of each unit.
        values: by (metric, level), effects float64 [items, units].
        errors: by (metric, level), change of the mean effect between the last two nested rules [units]; NaN where
            there was one rule.
        taxes: by metric, measured tax of each item, both models as they are asked [items].
        tokens: effects by token, if they were kept.
        times: points on the path where all scores are known: both ends and the nodes, ascending.
        profile: by metric, its mean at those times.
        missed: by item, error of the scores predicted at t = 1, nats, summed over choices [items].
        moved: by item, how far the scores moved, nats, summed over choices [items].
        gradients, forwards: passes over the items (the most of any shard).
        seconds: time spent.
        closed: whether every stop rule was met, in every shard.
        reason: the one that was not.
        grazes: by metric, items whose margin merely touched zero.
        rewalked: items that were walked again by finer rules because the walk of all did not resolve them.
        apart: by metric, what of each item's tax is no effect of weights: the two models are asked in other prompts,
            or compute by other configs [items]; empty where both are the same.
        causes: what differs, in words.
    """

    suite: str
    items: tuple[str, ...]
    groups: np.ndarray
    units: Mapping[str, tuple[str, ...]]
    layers: Mapping[str, np.ndarray]
    kinds: Mapping[str, tuple[str, ...]]
    values: Mapping[tuple[str, str], np.ndarray]
    errors: Mapping[tuple[str, str], np.ndarray]
    taxes: Mapping[str, np.ndarray]
    tokens: TokenEffects | None
    times: np.ndarray
    profile: Mapping[str, np.ndarray]
    missed: np.ndarray
    moved: np.ndarray
    gradients: int
    forwards: int
    seconds: float
    closed: bool
    reason: str
    grazes: Mapping[str, int]
    rewalked: int = 0
    apart: Mapping[str, np.ndarray] = field(default_factory=dict)
    causes: tuple[str, ...] = ()

    def by_weights(self, metric: str) -> np.ndarray:
        """What each item lost along the path, where both models read the same rows by the same config [items]."""
        return self.taxes[metric] - self.apart[metric] if metric in self.apart else self.taxes[metric]

    def open(self, metric: str) -> str:
        """Why the account of a metric is not closed, in words; empty where it is."""
        if metric not in self.apart:
            return self.reason
        found = f"{float(self.apart[metric].mean()):+.3g} of the tax is no effect of weights: {'; '.join(self.causes)}"
        return f"{found}; {self.reason}" if self.reason else found

    @property
    def end_error(self) -> float:
        """Error of the scores predicted at t = 1 as a share of their move, all items together; 0 is perfect."""
        total = float(self.moved.sum())
        return float(self.missed.sum()) / total if total else 0.0

    @property
    def worst_end_error(self) -> float:
        """The same for the worst item, as a share of the mean item's move."""
        total = float(self.moved.mean())
        return float(self.missed.max()) / total if total else 0.0

    def residual(self, metric: str) -> np.ndarray:
        """What each item's tax keeps unexplained, [items]."""
        return self.by_weights(metric) - self.values[metric, "component"].sum(axis=1)


@dataclass(frozen=True, slots=True, eq=False)
class Attribution(Result):
    """Effects on the tax by component, head, neuron, singular triple, item and token, with how well they close.

    Args:
        template: the prompt template that both models were scored in.
        suites: what was found, by suite name.
        fallbacks: modules whose type has no rule of its own and that were differentiated forward.
        tolerance: share of the tax that the stop rules allowed.
        draws, seed: of the group bootstrap.
        method: "path", or "one_gradient" for the first-order estimate.
        walkability: perplexity along the path and its barrier, if it was taken.
        beside: the same of metrics that were walked on their own (functions of the logits), by suite name, one a metric.
    """

    figure: ClassVar[str] = "attribution"

    template: str
    suites: Mapping[str, SuiteEffects]
    fallbacks: tuple[str, ...] = ()
    tolerance: float = 0.01
    draws: int = 2000
    seed: int = 0
    method: str = "path"
    walkability: Walkability | None = None
    beside: tuple[Mapping[str, SuiteEffects], ...] = ()

    def effects(self, suite: str, metric: str, level: str = "component") -> tuple[tuple[str, ...], np.ndarray]:
        """Names of the units of a level, and their effect on each item, float64 [items, units].

        Raises:
            UsageError: a suite, metric or level that was not attributed.
        """
        found = self.found(suite, metric)
        if (metric, level) not in found.values:
            rows = [
                ("has", ", ".join(f"{m} by {k}" for name, one in self.walks() if name == suite for m, k in one.values))
            ]
            raise UsageError(explain(f"{suite} was not attributed in {metric} by {level}.", rows))
        return found.units[level], found.values[metric, level]

    def walks(self) -> list[tuple[str, SuiteEffects]]:
        """Suite name and effects of every walk: all metrics of the scores together, each metric of the logits alone."""
        return [pair for walked in (self.suites, *self.beside) for pair in walked.items()]

    def found(self, suite: str, metric: str) -> SuiteEffects:
        """The walk that holds a suite's effects on a metric.

        Raises:
            UsageError: a suite that was not attributed.
        """
        if suite not in self.suites:
            raise UsageError(explain(f"no suite {suite!r} was attributed.", [("has", ", ".join(self.suites))]))
        return next((one for name, one in self.walks() if name == suite and metric in one.taxes), self.suites[suite])

    def taxes(self, suite: str, metric: str) -> np.ndarray:
        """The measured tax of each item, float64 [items]."""
        self.effects(suite, metric)
        return self.found(suite, metric).taxes[metric]

    def total(self, suite: str, metric: str) -> float:
        """Sum of the components' mean effects: the tax, up to the residual."""
        return float(self.effects(suite, metric)[1].mean(axis=0).sum())

    @property
    def closed(self) -> bool:
        """Whether every suite met the stop rules within the bound on gradients, and all of its tax is on the path."""
        return all(found.closed and not found.apart for _, found in self.walks())

    def ranked(
        self, suite: str, metric: str, *, level: str = "component", anyway: bool = False
    ) -> list[tuple[str, float]]:
        """Units by mean effect, largest loss first.

        Raises:
            CheckError: the path crosses a barrier of perplexity above `profile.LIMIT`, so that effects describe
                broken models in between; `anyway` ranks all the same.
        """
        if self.walkability is not None and not self.walkability.fit and not anyway:
            raise CheckError(self.walkability.refusal())
        names, values = self.effects(suite, metric, level)
        mean = values.mean(axis=0)
        return [(names[i], float(mean[i])) for i in np.argsort(-mean, kind="stable")]

    def to_frame(self) -> pd.DataFrame:
        """Rows of attribution.csv: one a unit, with interval, quadrature error and share of the tax.

        Where the two models are asked in different prompts or compute by different configs, a row `APART` of every
        level holds what that is worth, so that the rows still sum to the measured tax.
        """
        frames = []
        for name, found in self.walks():
            for (metric, level), values in found.values.items():
                names, layers = [*found.units[level]], [*found.layers[level]]
                kinds, errors = [*found.kinds[level]], [*found.errors[metric, level]]
                if metric in found.apart:
                    values = np.column_stack([values, found.apart[metric]])
                    names, layers, kinds, errors = [*names, APART], [*layers, -1], [*kinds, APART_KIND], [*errors, 0.0]
                effect = values.mean(axis=0)
                low, high = around_zero(effect, *sum_intervals(values, found.groups, draws=self.draws, seed=self.seed))
                tax = float(found.taxes[metric].mean())
                frame = pd.DataFrame({"component": names, "layer": layers, "kind": kinds})
                frame = frame.assign(
                    suite=name, template=self.template, metric=metric, level=level, method=self.method,
                    effect=effect, low=low, high=high, quadrature_error=errors,
                    share=share_of(effect, tax),
                )  # fmt: skip
                frames.append(frame[list(ATTRIBUTION.required)])
        return pd.concat(frames, ignore_index=True)

    def items_frame(self, *, levels: Sequence[str] = ("component",)) -> pd.DataFrame:
        """Rows of attribution_items.csv: each unit's effect on each item."""
        frames = []
        for name, found in self.walks():
            for (metric, level), values in found.values.items():
                if level not in levels:
                    continue
                names = list(found.units[level])
                if metric in found.apart:
                    values, names = np.column_stack([values, found.apart[metric]]), [*names, APART]
                frame = pd.DataFrame(values, columns=names).assign(item=list(found.items))
                frame = frame.melt(id_vars="item", var_name="component", value_name="effect")
                frame = frame.assign(suite=name, template=self.template, metric=metric, method=self.method, level=level)
                frames.append(frame[list(ATTRIBUTION_ITEMS.names)])
        return pd.concat(frames, ignore_index=True)

    def tokens_frame(self, *, text: Mapping[int, str] | None = None, top: int = 4) -> pd.DataFrame:
        """Rows of attribution_tokens.csv: effect by token, of all components (blank) and of the `top` largest.

        Args:
            text: token id to text, instead of the tokenizer's.
            top: components of each metric to list beside the total.
        """
        frames = []
        for name, found in self.walks():
            if found.tokens is None:
                continue
            tokens = found.tokens
            words = [(text or tokens.words).get(int(i), str(int(i))) for i in tokens.ids]
            for metric, values in tokens.values.items():
                largest = np.argsort(-np.abs(found.values[metric, "component"].mean(axis=0)))[:top]
                shown = [("", values.sum(axis=1))] + [
                    (found.units["component"][c], values[:, c]) for c in largest if values[:, c].any()
                ]
                for component, effect in shown:
                    frame = pd.DataFrame(
                        {
                            "item": np.array(found.items, dtype=object)[tokens.item],
                            "choice": tokens.choice,
                            "token": tokens.place,
                            "text": words,
                            "effect": effect,
                        }
                    ).assign(suite=name, template=self.template, metric=metric, method=self.method)
                    frame = frame.assign(level="component", component=component)
                    frames.append(frame[list(ATTRIBUTION_TOKENS.names)])
        return ATTRIBUTION_TOKENS.join(frames)

    def companions(self) -> dict[str, pd.DataFrame]:
        """Return the closure, which the figure draws beside the effects."""
        return {"closure": self.closure_frame()}

    def closure_frame(self) -> pd.DataFrame:
        """Rows of closure.csv, and beside its columns: worst item, end-point error, whether and why (not) closed.

        `prompt_and_config` is what of the tax is no effect of weights (0 where both models are asked the same by the
        same config); the residual is what then stays unexplained. `barrier` is the largest excess of perplexity over
        the line between its ends, `fit` whether the path may be walked for all that; both blank where perplexity was
        not taken.
        """
        rows, fit = [], self.walkability
        for name, found in self.walks():
            for metric, tax in found.taxes.items():
                whole, residual = float(tax.mean()), found.residual(metric)
                rows.append({
                    "suite": name, "template": self.template, "metric": metric, "method": self.method,
                    "tax": whole, "attributed": float(found.by_weights(metric).mean()) - float(residual.mean()),
                    "prompt_and_config": float(found.apart[metric].mean()) if metric in found.apart else 0.0,
                    "residual": float(residual.mean()),
                    "residual_share": float(share_of(residual.mean(), whole)),
                    "gradients": found.gradients, "forwards": found.forwards,
                    "worst_item": float(np.abs(residual).max()), "end_error": found.end_error,
                    "worst_end_error": found.worst_end_error, "grazes": found.grazes.get(metric, 0),
                    "rewalked": found.rewalked, "closed": found.closed and metric not in found.apart,
                    "reason": found.open(metric),
                    "barrier": fit.barrier if fit else np.nan, "fit": fit.fit if fit else None,
                })  # fmt: skip
        return CLOSURE.frame(rows)

    def path_frame(self) -> pd.DataFrame:
        """Rows of path.csv: every metric at both ends and every node, and the chord between its ends."""
        rows = []
        for name, found in self.walks():
            for metric, values in found.profile.items():
                for t, value in zip(found.times, values):
                    chord = float(values[0] + t * (values[-1] - values[0]))
                    rows.append((name, self.template, metric, float(t), float(value), chord))
        if self.walkability is not None:
            rows += [("perplexity", self.template, "perplexity", *row) for row in self.walkability.rows()]
        return PATH.frame(rows)

    def __repr__(self) -> str:
        name, found = next(iter(self.suites.items()))
        metric = next(iter(found.taxes))
        tax = found.taxes[metric]
        interval = mean_interval(tax, found.groups, draws=self.draws, seed=self.seed)
        effect = found.values[metric, "component"].mean(axis=0)
        top = int(np.argmax(np.abs(effect)))
        state = f"NOT closed: {why}" if (why := found.open(metric)) else "closed"
        if self.walkability is not None and not self.walkability.fit:
            state += f", perplexity barrier too high ( {self.walkability.barrier:.0%})"
        return (
            f"Attribution of {name} {metric}: tax {interval.value:+.4g} [{interval.low:.4g}, {interval.high:.4g}], "
            f"attributed {effect.sum():+.4g}, first {found.units['component'][top]} {effect[top]:+.4g}; n={len(tax)} "
            f"items in {len(set(found.groups))} groups, {found.gradients} gradients, {state}"
        )
