"""Q: does a little training on other items bring the capability back on held-out ones?"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

import numpy as np

from taxlens.activations.items.items import Suite
from taxlens.analysis.frontier.trained_plans import training
from taxlens.analysis.scoring.evaluator import ChoiceMeasure
from taxlens.analysis.state.verdict import Evidence
from taxlens.core.progress import SILENT, Progress
from taxlens.core.stats.intervals import ratio_interval
from taxlens.probes.rows.folds import balanced_folds

if TYPE_CHECKING:
    from taxlens.activations.models.pair import ModelPair

EVERY = 15
"""Training steps between two looks at what has come back on the items trained on."""


def relearned_share(
    pair: ModelPair, suite: Suite, *, template: str = "plain", steps: int = 120, rate: float = 0.01, items: int = 24,
    draws: int = 1000, seed: int = 0, progress: Progress = SILENT,
) -> list[Evidence]:  # fmt: skip
    """Share of the tax that comes back on one half of the groups after a few steps of training on the other.

    Both halves are trained on in turn and read on the other, so every item is read held out. A capability that
    is only hidden returns for items that were never trained on; one that is erased has to be learned item by
    item. The control trains on the same prompts with the answers dealt out at random among the items: what
    returns there is the habit of answering, and nothing known; it takes as many steps. Training stops as soon as
    it has brought back four fifths of the tax on its own items. Training that does not even bring back half there
    says nothing, and Q is then left out with a note.

    Args:
        pair: the two checkpoints; the aligned one is trained in place and put back to the bit.
        suite: the taxed suite.
        template: "plain" or "chat".
        steps: of Adam on the likelihood of the right answers, at most.
        rate: step size, as a share of each weight matrix's root mean square.
        items: items a step.
        draws: of the group bootstrap.
        seed: of the halves and the draws.
        progress: told of each half.

    Returns:
        Q, and Q of control "shuffled".

    References:
        Spurious forgetting, arXiv 2501.13453; reversible and irreversible forgetting, Xu et al. 2025.
    """
    kept = Suite(suite.name, tuple(item for item in suite.items if item.choices), suite.kind, suite.source)
    measure = ChoiceMeasure(pair, (kept,), template=template, metrics=("probability",))
    ends = [measure(m.model)[kept.name]["probability"] for m in (pair.base, pair.aligned)]
    lost = ends[0] - ends[1]
    options: dict[str, Any] = {"template": {kept.name: template}, "rate": rate, "items": items, "seed": seed}
    first = balanced_folds(np.unique(kept.groups.astype(str), return_inverse=True)[1], 2, seed) == 0
    found, took = [], [steps, steps]
    with progress.task("relearn", total=4, unit="halves") as task:
        for control in ("", "shuffled"):
            back, own = np.zeros(len(kept)), np.zeros(len(kept))
            for place, side in enumerate((first, ~first)):
                lesson = kept.subset(np.flatnonzero(side))
                stop = None if control else _Enough(measure, kept.name, ends[1], lost, side)
                lesson = shuffled_answers(lesson, seed=seed) if control else lesson
                with training(pair, [lesson], steps=took[place], enough=stop, every=EVERY, **options) as model:
                    gained = measure(model)[kept.name]["probability"] - ends[1]
                took[place] = min(steps, stop.asked * EVERY) if stop else took[place]
                back[~side], own[side] = gained[~side], gained[side]
                task.advance(1)
            share = ratio_interval(back, lost, kept.groups, draws=draws, seed=seed)
            learned = float(own.sum() / lost.sum())
            note = f"{took[0]} and {took[1]} steps; on its own items: {learned:.0%}"
            if not control and learned < 0.5:
                note += ", too little to judge by"
                found.append(Evidence("Q", np.nan, np.nan, np.nan, control, note))
                continue
            found.append(Evidence("Q", share.value, share.low, share.high, control, note))
    return found


class _Enough:
    """Whether training has brought back four fifths of the tax on its own items; counts how often it was asked."""

    def __init__(
        self, measure: ChoiceMeasure, suite: str, aligned: np.ndarray, lost: np.ndarray, side: np.ndarray
    ) -> None:
        self.measure, self.suite, self.aligned, self.lost, self.side = measure, suite, aligned, lost, side
        self.asked = 0

    def __call__(self, model: Any) -> bool:
        self.asked += 1
        gained = self.measure(model)[self.suite]["probability"] - self.aligned
        return bool(gained[self.side].sum() >= 0.8 * self.lost[self.side].sum())


def shuffled_answers(suite: Suite, *, seed: int) -> Suite:
    """The suite with the right answers dealt out at random among its items, as the only change."""
    order = np.random.default_rng(seed).permutation(len(suite))
    items = []
    for item, other in zip(suite.items, order, strict=True):
        donor = suite.items[int(other)]
        answer = donor.choices[donor.gold or 0]
        wrong = next((choice for choice in item.choices if choice != answer), " ")
        prompt = item.context(item.gold or 0) if item.contexts else item.prompt
        asked = dataclasses.replace(item, prompt=prompt, contexts=())
        items.append(dataclasses.replace(asked, choices=(answer, wrong), gold=0, also_right=()))
    return Suite(suite.name, tuple(items), suite.kind, suite.source)
