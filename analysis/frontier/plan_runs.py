"""Plans measured on held-out items, each kept in a folder as soon as it is measured, so that a killed run resumes."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from taxlens.activations.models.prompts import one_prompting, template_of
from taxlens.analysis.answers.generation import generate
from taxlens.analysis.answers.refusal_rates import refuses
from taxlens.analysis.scoring.evaluator import ChoiceMeasure, Values
from taxlens.analysis.weights.interpolation import mixture
from taxlens.core.artifacts import sha256_text
from taxlens.core.plain_files import read_arrays, write_arrays

if TYPE_CHECKING:
    from taxlens.activations.items.items import Suite
    from taxlens.activations.models.pair import ModelPair
    from taxlens.analysis.frontier.plans import Plan
    from taxlens.analysis.weights.units import Difference

GENERATED = "refused"
"""Metric of a prompt answered by generation: 1 where the answer refuses."""


@dataclass(frozen=True, slots=True, eq=False)
class PlanRuns:
    """Measures plans, and remembers.

    Args:
        pair: the two checkpoints.
        measure: what scores a model on the held-out items.
        difference: the pair's weight difference.
        folder: where measured plans are kept; None keeps nothing.
        prompts: suites whose prompts are answered by generation where that is asked for.
        max_new_tokens: of an answer.
    """

    pair: ModelPair
    measure: ChoiceMeasure
    difference: Difference
    folder: Path | None = None
    prompts: tuple[Suite, ...] = ()
    max_new_tokens: int = 64

    def ends(self) -> tuple[Values, Values]:
        """Values of the base and of the aligned model."""
        return tuple(self._kept(name, lambda m=m: self.measure(m.model)) for name, m in self._models())  # type: ignore[return-value]

    def values(self, plan: Plan) -> Values:
        """Values of the model that the plan describes."""

        def score() -> Values:
            with self.opened(plan) as model:
                return self.measure(model)

        return self._kept(self._name(plan), score)

    def refusals(self, plan: Plan | str) -> Values:
        """By suite, whether each prompt is refused, under a plan's model or "base" or "aligned"."""

        def answer() -> Values:
            if isinstance(plan, str):
                return self._answers(dict(self._models())[plan].model)
            with self.opened(plan) as model:
                return self._answers(model)

        name = plan if isinstance(plan, str) else self._name(plan)
        return self._kept(f"answers {name} {self.max_new_tokens} {[s.sha256 for s in self.prompts]}", answer)

    @contextmanager
    def opened(self, plan: Plan) -> Iterator[Any]:
        """The plan's model, for the length of a block."""
        if plan.open is not None:
            with plan.open() as model:
                yield model
        else:
            with mixture(self.pair, plan.undo, difference=self.difference, level=plan.unit) as model:
                yield model

    def _models(self) -> list[tuple[str, Any]]:
        return [("base", self.pair.base), ("aligned", self.pair.aligned)]

    def _answers(self, model: Any) -> Values:
        found = {}
        for suite in self.prompts:
            chat = template_of(self.pair, self.pair.aligned) is not None
            asked = one_prompting(self.pair, suite, "chat" if chat else "plain")
            answers = generate(
                model,
                asked.tokenizer,
                suite.items,
                template=asked.template,
                chat_template=asked.chat_template,
                max_new_tokens=self.max_new_tokens,
            )
            requests = [item.prompt or "" for item in suite.items]
            found[suite.name] = {GENERATED: refuses(answers, requests=requests)}
        return found

    def _name(self, plan: Plan) -> str:
        if plan.open is not None:
            return f"plan {plan.name}"
        undo = sorted((name, round(float(a), 12)) for name, a in plan.undo.items())
        return f"undo {json.dumps(undo)}"

    def _kept(self, name: str, score: Any) -> Values:
        if self.folder is None:
            return score()
        measure = self.measure
        suites = [(s.name, s.sha256, measure.template_of(s.name)) for s in measure.suites]
        weights = (self.pair.base.sha256, self.pair.aligned.sha256)
        key = sha256_text(json.dumps([name, suites, measure.metrics, weights]))[:32]
        path = self.folder / f"{key}.npz"
        if path.exists():
            return _unflat(path)
        values = score()
        write_arrays(path, {f"{s}\t{m}": v for s, metrics in values.items() for m, v in metrics.items()})
        return values


def _unflat(path: Path) -> Values:
    values: dict[str, dict[str, np.ndarray]] = {}
    for name, kept in read_arrays(path, title="a plan's kept answers cannot be read.", ours=True).items():
        suite, _, metric = name.partition("\t")
        values.setdefault(suite, {})[metric] = kept
    return values
