"""Gated edits: prompt by prompt the edited or the aligned model, by a gate that reads the prompt, beside one that knows.

A gate decides once, from the aligned model's state at the end of the prompt, so a gated model's outcome is exactly the
edited model's on the prompts that it lets through and the aligned model's on the others. The oracle twin lets through
whatever is not in the harmful suite: the most that any gate could reach with this edit.

References:
    Gates on a direction's cosine: SCANS, arXiv 2408.11491; on a condition vector: CAST, arXiv 2409.05907; oracle twins:
    arXiv 2605.20262. Their thresholds were set per test set; here one is fixed on validation prompts.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from taxlens.activations.items.items import Suite
from taxlens.analysis.answers.refusal_rates import JudgeError
from taxlens.analysis.editors.compare import EditorComparison
from taxlens.analysis.editors.editor_tables import MEASURED
from taxlens.analysis.editors.held_out import HeldOutMeasure, HeldValues
from taxlens.analysis.editors.kinds.refusal_directions import mean_states, prompt_rows, states_of
from taxlens.analysis.editors.outcome import outcome
from taxlens.analysis.editors.task import EditTask
from taxlens.core.errors import UsageError, explain

Decisions = Mapping[str, np.ndarray]
"""Suite to whether each item's prompt is let through to the edited model, bool [items]."""


@dataclass(frozen=True, slots=True, eq=False)
class Gate:
    """Lets a prompt through where its last state's cosine with the harm direction is below a threshold.

    Args:
        layer: block whose input is read.
        centre: [d] taken off the state first: the mean of both kinds of training prompts.
        direction: [d] from harmless to harmful prompts.
        threshold: cosine.
        accuracy: balanced accuracy on validation prompts, 0..1.
    """

    layer: int
    centre: np.ndarray
    direction: np.ndarray
    threshold: float
    accuracy: float

    def cosines(self, states: np.ndarray) -> np.ndarray:
        """Cosine of each state [n, d] with the direction, [n]."""
        away = states - self.centre
        return away @ self.direction / np.maximum(np.linalg.norm(away, axis=1) * np.linalg.norm(self.direction), 1e-30)


def fit_gate(task: EditTask) -> Gate:
    """The gate that tells harmful from other prompts best on validation prompts, layer and threshold chosen there.

    Raises:
        UsageError: a kind of prompt has no validation prompts to choose on.
    """
    states, _ = mean_states(task)
    kinds = {"harm": [task.harm], "other": [task.harmless, *task.taxed]}
    seen = {
        kind: [row for name in names for row in prompt_rows(task, name, task.validation)]
        for kind, names in kinds.items()
    }
    empty = [kind for kind, rows in seen.items() if not rows]
    if empty:
        raise UsageError(explain("a gate needs prompts of both kinds to choose on.", [("none of", ", ".join(empty))]))
    read = {kind: states_of(task, rows) for kind, rows in seen.items()}
    best: Gate | None = None
    for layer in range(1, read["harm"].shape[0]):
        harm, harmless = states.harm[layer, -1], states.harmless[layer, -1]
        plain = Gate(layer, (harm + harmless) / 2, harm - harmless, 0.0, 0.0)
        high, low = (plain.cosines(read[kind][layer]) for kind in ("harm", "other"))
        cuts = np.unique(np.concatenate([high, low]))
        cuts = np.concatenate([[cuts[0] - 1e-6], (cuts[1:] + cuts[:-1]) / 2, [cuts[-1] + 1e-6]])
        right = np.array([(np.mean(high >= cut) + np.mean(low < cut)) / 2 for cut in cuts])
        place = int(np.argmax(right))
        if best is None or right[place] > best.accuracy:
            best = Gate(layer, plain.centre, plain.direction, float(cuts[place]), float(right[place]))
    if best is None:
        raise UsageError(explain("a gate needs a model of two blocks or more.", ()))
    return best


def decided(task: EditTask, gate: Gate) -> Decisions:
    """What a gate lets through of the held-out prompts; an item without a prompt is let through."""
    found = {}
    for name, suite in task.held.items():
        asked = [place for place, item in enumerate(suite.items) if (item.prompt or "").strip()]
        through = np.ones(len(suite), dtype=bool)
        if asked:
            rows = prompt_rows(task, name, {name: suite.subset(asked)})
            through[asked] = gate.cosines(states_of(task, rows)[gate.layer]) < gate.threshold
        found[name] = through
    return found


def oracle(task: EditTask) -> Decisions:
    """What a gate that knows lets through: everything but harmful prompts."""
    return {name: np.full(len(suite), name != task.harm) for name, suite in task.held.items()}


def gated_values(held: HeldOutMeasure, edited: HeldValues, through: Decisions) -> HeldValues:
    """Held-out values of a gated model: the edited model's where the gate lets through, else aligned's.

    Suites beside the task's own are taken from the edited model.
    """
    aligned = held.aligned
    choices = {
        suite: {
            metric: np.where(through[suite], value, aligned.choices[suite][metric]) if suite in through else value
            for metric, value in metrics.items()
        }
        for suite, metrics in edited.choices.items()
    }
    answered = {
        suite: np.where(through[suite], refused, aligned.answered[suite]) for suite, refused in edited.answered.items()
    }
    kept = _places(held.task.held[held.task.harmless], held.distant)
    let = through[held.task.harmless][kept]
    distances = {name: np.where(let, value, aligned.distances[name]) for name, value in edited.distances.items()}
    return HeldValues(choices, distances, answered)


def gated_frame(
    found: EditorComparison, editors: Sequence[str] | None = None, *, error: JudgeError | None = None
) -> pd.DataFrame:
    """Editors of a comparison behind a gate: two rows each, the fitted gate and the one that knows.

    Args:
        found: editors on one task, measured.
        editors: names of measured editors; None: all that work on activations.
        error: of the judge of answers, as the comparison was given it.

    Returns:
        Columns editor, gate ("fitted", "oracle"), layer and accuracy of the fitted gate (balanced, on validation
        prompts), harm_through (share of held-out harmful prompts that reach the edited model), then every column of
        `MEASURED` with its interval. A row's free numbers and setting are those of the editor's own row.

    Raises:
        UsageError: an editor that was not measured, or no prompts to fit the gate on.
    """
    task = found.held.task
    names = (
        [row.editor.name for row in found.rows if row.editor.family == "activations"] if editors is None else editors
    )
    rows = [found.row(name) for name in names]
    gate = fit_gate(task)
    decisions = {"fitted": decided(task, gate), "oracle": oracle(task)}
    lines = []
    for row in rows:
        for kind, through in decisions.items():
            known = gate if kind == "fitted" else None
            line: dict[str, object] = {
                "editor": row.editor.name, "gate": kind, "layer": known.layer if known else np.nan,
                "accuracy": known.accuracy if known else 1.0, "harm_through": float(through[task.harm].mean()),
            }  # fmt: skip
            values = gated_values(found.held, row.values, through)
            told = outcome(found.held, values, error=error, draws=found.draws, seed=found.seed).columns
            for name in MEASURED:
                interval = told.get(name)
                for end in ("value", "low", "high"):
                    line[name if end == "value" else f"{name}_{end}"] = getattr(interval, end, np.nan)
            lines.append(line)
    return pd.DataFrame(lines)


def _places(whole: Suite, part: Suite) -> np.ndarray:
    index = {item.id: place for place, item in enumerate(whole.items)}
    return np.array([index[item.id] for item in part.items], dtype=int)
