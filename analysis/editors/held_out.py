"""What an edited model does on held-out items: choices, whole answers, and distance from both ends of the pair."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch

from taxlens.activations.items.items import Suite
from taxlens.activations.items.sampling import at_most
from taxlens.activations.items.tokens import Row
from taxlens.activations.models.lengths import network
from taxlens.analysis.answers.generation import generate
from taxlens.analysis.answers.refusal_rates import refuses
from taxlens.analysis.answers.refusals import Judge
from taxlens.analysis.editors.objective import token_log_probabilities
from taxlens.analysis.editors.task import EditTask
from taxlens.analysis.scoring.evaluator import ChoiceMeasure, Values
from taxlens.core.artifacts import sha256_text
from taxlens.core.errors import StoreError, UsageError, explain, understood
from taxlens.core.plain_files import read_arrays, write_arrays

METRICS = ("accuracy", "probability", "margin", "nll")
REFUSED = "refused"
"""Metric of a prompt answered by generation: 1 where the answer refuses."""
TOKENS = 16
"""Tokens of a harmless answer that divergences are averaged over."""
DISTANCES = ("kl_base_first", "kl_base", "kl_aligned_first", "kl_aligned", "nll_token")
"""Columns of each harmless item: divergences from both ends at the answer's first token and over 16, nats a token, and
the answer's negative log-likelihood a token."""

Answers = Callable[[str, Any, Sequence[Suite]], Mapping[str, Sequence[str]]]
"""(name of a model, model, suites) to each suite's answers: where answers are kept or made elsewhere."""


@dataclass(frozen=True, slots=True, eq=False)
class HeldValues:
    """One model on the held-out items.

    Args:
        choices: suite, metric and item's value, as choices are scored.
        distances: column of `DISTANCES` to a value a harmless item.
        answered: suite to 1 where the whole answer refuses, else 0; empty where nothing was generated.
        answers: suite to the answers.
    """

    choices: Values
    distances: Mapping[str, np.ndarray]
    answered: Mapping[str, np.ndarray] = field(default_factory=dict)
    answers: Mapping[str, Sequence[str]] = field(default_factory=dict)


class HeldOutMeasure:
    """Measures models on a task's held-out items; both ends are measured once.

    Args:
        task: items and roles.
        others: further capability suites, held out whole, so that what alignment improved is seen as well.
        template: template of those.
        tokens: longest answer by generation; 0: nothing is generated. A rule is passed by a model that refuses late:
            100 or more.
        judge: who says which answers refuse; None: the package's rule.
        answers: makes answers, where they are kept; None: they are generated.
        distance_items: harmless items that divergences are taken on.
        ends: values of the base and of the aligned model, where this measure gave them before; None: measured.
    """

    def __init__(
        self, task: EditTask, *, others: Sequence[Suite] = (), template: Mapping[str, str] | None = None, tokens: int = 0,
        judge: Judge | None = None, answers: Answers | None = None, distance_items: int = 60,
        ends: tuple[HeldValues, HeldValues] | None = None,
    ) -> None:  # fmt: skip
        self.task, self.tokens, self.judge = task, tokens, judge
        self.others = tuple(suite for suite in others if suite.name not in task.suites)
        self._answers = answers or self._generated
        held = [task.held[name] for name in task.suites]
        templates = dict(task.template) | dict(template or {})
        for suite in self.others:
            templates.setdefault(suite.name, "plain")
        self.measure = ChoiceMeasure(task.pair, (*held, *self.others), template=templates, metrics=METRICS)
        self.distant = at_most(task.held[task.harmless], distance_items, seed=task.seed)
        self._rows = _gold_rows(task, self.distant)
        self._ends: dict[str, list[torch.Tensor]] = {}
        if ends is None:
            self.read_ends()
        self.base, self.aligned = ends or (
            self("base", task.pair.base.model),
            self("aligned", task.pair.aligned.model),
        )

    @cached_property
    def fingerprint(self) -> str:
        """Hash of the task and of everything that is measured: rows with another one were measured otherwise."""
        judge = "" if self.judge is None else getattr(self.judge, "__qualname__", type(self.judge).__qualname__)
        told = [self.tokens, judge, [suite.sha256 for suite in self.others], [item.id for item in self.distant.items]]
        return sha256_text(repr([self.task.fingerprint, *told]))[:16]

    @property
    def groups(self) -> dict[str, np.ndarray]:
        """Each suite's groups."""
        return self.measure.groups

    def __call__(self, name: str, model: Any) -> HeldValues:
        """Values of a model; its name is what answers are kept under."""
        distances = self._distances(model)
        choices = self.measure(model)
        if not self.tokens:
            return HeldValues(choices, distances)
        wanted = self.task.taxed if name == "base" else self.task.suites  # the base's refusals of harm count nowhere
        suites = [self.task.held[s] for s in wanted if self._asked(s)]
        answers = self._answers(name, model, suites)
        refused = {
            suite.name: refuses(answers[suite.name], requests=[i.prompt or "" for i in suite.items], judge=self.judge)
            for suite in suites
        }
        return HeldValues(choices, distances, refused, answers)

    def _asked(self, name: str) -> bool:
        return all((item.prompt or "").strip() for item in self.task.held[name].items)

    def _generated(self, _name: str, model: Any, suites: Sequence[Suite]) -> dict[str, list[str]]:
        found = {}
        for suite in suites:
            asked = self.task.prompting(suite)
            found[suite.name] = generate(
                model, asked.tokenizer, suite.items, template=asked.template,
                chat_template=asked.chat_template, max_new_tokens=self.tokens,
            )  # fmt: skip
        return found

    def read_ends(self) -> None:
        """Read both ends on the harmless items that divergences are taken on, once. Call it while no end is edited."""
        for name in ("base", "aligned"):
            if name not in self._ends:
                model = getattr(self.task.pair, name).model
                self._ends[name] = [_read(model, row).half() for row in self._rows]

    def _distances(self, model: Any) -> dict[str, np.ndarray]:
        columns = np.zeros((len(DISTANCES), len(self._rows)))
        for place, row in enumerate(self._rows):
            logp = _read(model, row)
            targets = torch.tensor(row.ids[row.start :])[: len(logp)]
            for k, end in enumerate(("base", "aligned")):
                if end not in self._ends:
                    raise UsageError(explain("an end of the pair was not read before the edit.", [("end", end)]))
                reference = self._ends[end][place].float()
                each = (reference.exp() * (reference - logp)).sum(-1).clamp(min=0)
                columns[2 * k, place], columns[2 * k + 1, place] = float(each[0]), float(each.mean())
            columns[4, place] = -float(logp.gather(1, targets[:, None]).mean())
        return dict(zip(DISTANCES, columns, strict=True))


def save_values(values: HeldValues, path: Path | str) -> Path:
    """Write choices, distances and judged answers as one npz file; the answers' words are not in it."""
    arrays = {f"choice\t{s}\t{m}": v for s, metrics in values.choices.items() for m, v in metrics.items()}
    arrays |= {f"distance\t{name}": v for name, v in values.distances.items()}
    arrays |= {f"answered\t{s}": v for s, v in values.answered.items()}
    return write_arrays(Path(path), arrays)


def load_values(path: Path | str) -> HeldValues:
    """What `save_values` wrote, without answers.

    Raises:
        StoreError: the file is damaged.
    """
    choices: dict[str, dict[str, np.ndarray]] = {}
    others: dict[str, dict[str, np.ndarray]] = {"distance": {}, "answered": {}}
    title = "kept answers of an editor cannot be read."
    arrays = read_arrays(path, title=title, ours=True)
    with understood(title, file=path, fix="delete it: it will be made again.", error=StoreError):
        for name, held in arrays.items():
            kind, *rest = name.split("\t")
            if kind == "choice":
                choices.setdefault(rest[0], {})[rest[1]] = held
            else:
                others[kind][rest[0]] = held
    return HeldValues(choices, others["distance"], others["answered"])


@torch.no_grad()
def _read(model: Any, row: Row) -> torch.Tensor:
    """Log-probabilities at the row's first answer tokens, float32 [tokens, vocabulary]."""
    return token_log_probabilities(network(model), [row])[0].float().cpu()


def _gold_rows(task: EditTask, suite: Suite) -> list[Row]:
    """The gold answer's row of some harmless held-out items, from the answer's own first token, cut to what is read.

    A choice's row may begin at tokens that the template writes before every answer; those say nothing of a model.
    """
    asked = task.prompting(suite)
    opened: dict[int, tuple[int, ...]] = {}
    if all((item.prompt or "").strip() for item in suite.items):
        opened = {row.item: tuple(row.ids) for row in asked.prompt_rows(suite)}
    found = []
    for row in asked.rows(suite):
        if row.choice == suite.items[row.item].gold:
            before = opened.get(row.item, ())
            own = tuple(row.ids[: len(before)]) == before and row.start < len(before) < len(row.ids)
            start = len(before) if own else row.start
            found.append(Row(row.item, row.choice, row.ids[: start + TOKENS], start, row.kind))
    return found
