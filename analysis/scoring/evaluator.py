"""A scoring function that interventions share: any model of a pair in, each item's metrics out."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from taxlens.activations.models.prompts import as_asked, asked_apart, one_prompting
from taxlens.analysis.scoring.choices import score_suite
from taxlens.analysis.scoring.metrics import metric_of
from taxlens.core.errors import UsageError, explain

if TYPE_CHECKING:
    from taxlens.activations.items.items import Suite
    from taxlens.activations.models.pair import ModelPair

Values = Mapping[str, Mapping[str, np.ndarray]]
"""Suite name -> metric name -> one number an item, float64 [items]."""

MeasureFunction = Callable[[Any], Values]
"""What an intervention needs: a model (as a mixture yields it) to its values."""


MEASURED = ("accuracy", "probability", "margin", "nll")
"""Metrics of every item where none are named."""


@dataclass(frozen=True, slots=True)
class ChoiceMeasure:
    """Score every item of some suites on whatever model it is called with.

    Args:
        pair: the two models; every model is asked alike, as `one_prompting` says.
        suites: suites whose items have choices.
        template: "plain" or "chat", the same for every model; or suite name to template.
        metrics: names of `metrics.item_metrics`.
        batch_tokens: padded tokens in a batch.

    Example:
        >>> measure = ChoiceMeasure(pair, (facts,))                       # doctest: +SKIP
        >>> measure(pair.base.model)["facts"]["probability"].mean()       # doctest: +SKIP
        0.82
    """

    pair: ModelPair
    suites: tuple[Suite, ...]
    template: str | Mapping[str, str] = "plain"
    metrics: tuple[str, ...] = MEASURED
    batch_tokens: int = 4096

    def __call__(self, model: Any) -> dict[str, dict[str, np.ndarray]]:
        """The items' metrics under `model`, by suite and metric, each float64 [items]."""
        values: dict[str, dict[str, np.ndarray]] = {}
        for suite in self.suites:
            scores = score_suite(
                model,
                suite,
                prompting=one_prompting(self.pair, suite, self.template_of(suite.name)),
                batch_tokens=self.batch_tokens,
            )
            values[suite.name] = scores.metrics(self.metrics)
        return values

    def asked_apart(self) -> dict[tuple[str, str], np.ndarray]:
        """The loss of each item where each model is asked in its own prompt, of suites in which the two prompts differ."""
        apart = [s for s in self.suites if asked_apart(self.pair, s, self.template_of(s.name))]
        values = []
        for model in (self.pair.base, self.pair.aligned):
            own = {s.name: as_asked(self.pair, model, self.template_of(s.name)) for s in apart}
            scores = {
                s.name: score_suite(model, s, prompting=own[s.name], batch_tokens=self.batch_tokens) for s in apart
            }
            values.append({name: found.metrics(self.metrics) for name, found in scores.items()})
        return losses(values[1], values[0])

    def template_of(self, suite: str) -> str:
        """The template that a suite is scored in."""
        return self.template if isinstance(self.template, str) else self.template[suite]

    @property
    def groups(self) -> dict[str, np.ndarray]:
        """Each suite's groups, one an item that has choices, in the order of the values."""
        return {s.name: np.array([i.group for i in s.items if i.choices], dtype=object) for s in self.suites}


def losses(worse: Values, better: Values) -> dict[tuple[str, str], np.ndarray]:
    """By (suite, metric), what each item lost from `better` to `worse`: positive is loss, float64 [items].

    Raises:
        UsageError: an item's value is not finite; the suite, metric and item's place are named.
    """
    lost: dict[tuple[str, str], np.ndarray] = {}
    for suite, metrics in worse.items():
        for metric, value in metrics.items():
            change = metric_of(metric).sign * (better[suite][metric] - value)
            bad = np.flatnonzero(~np.isfinite(change))
            if len(bad):
                rows = [("suite", suite), ("metric", metric), ("items", f"{len(bad)}, first {bad[0]}")]
                raise UsageError(explain("an item's metric is not finite.", rows, "drop the items named."))
            lost[suite, metric] = change
    return lost


def named(suites: Sequence[Suite], name: str) -> Suite:
    """The suite of that name.

    Raises:
        UsageError: there is none; the names that exist are listed.
    """
    for suite in suites:
        if suite.name == name:
            return suite
    rows = [("suites", ", ".join(suite.name for suite in suites) or "none")]
    raise UsageError(explain(f"there is no suite {name!r}.", rows))
