"""Whether an imported suite, asked of the logged model, gives the logged numbers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from taxlens.activations.items.items import Item, Suite
from taxlens.activations.items.tokens import Row, encode_pair, encode_suite
from taxlens.activations.models.lengths import position_limit
from taxlens.activations.models.loading import load_model
from taxlens.analysis.logs.records import LoggedTask
from taxlens.analysis.scoring.choices import score_rows

AGREES = 1e-3
"""Nats up to which a rescored log-probability counts as the logged one; float32 on other machines differs by about 1e-4."""
_POLICIES: tuple[bool | None, ...] = (None, False, True)
_WORDS = {None: "as the tokenizer adds it, never twice", False: "none", True: "always"}


def check_log(base: LoggedTask, aligned: LoggedTask, model: Any) -> tuple[pd.DataFrame, bool | None]:
    """Ask a task of a model again and compare with both logs.

    The log nearer to what the model says is taken for the model's own. Where the rule by which that log's harness added
    BOS does not give its numbers and another rule does, that one is taken.

    Args:
        base: log of the base model.
        aligned: log of the aligned model.
        model: folder, hub id, or a loaded model.

    Returns:
        One row a log and rule (none where the logs hold no log-probabilities): task, log, bos, items, choices, largest and
        mean difference in nats, other_choice (items whose preferred choice differs), agrees; and the rule that the suite is
        to follow.
    """
    loaded = load_model(model) if isinstance(model, str | Path) else model
    rows = []
    for side, task in (("base", base), ("aligned", aligned)):
        if any(sample.logp is None for sample in task.samples.values()):
            return pd.DataFrame(), base.special_tokens
        first = _compared(task, side, loaded, task.special_tokens)
        rows.append(first)
        if not first["agrees"]:
            rows += [_compared(task, side, loaded, policy) for policy in _POLICIES if policy != task.special_tokens]
    frame = pd.DataFrame(rows)
    best = frame.loc[frame["largest"].idxmin()]
    policy = next(policy for policy, words in _WORDS.items() if words == best["bos"])
    return frame, policy if best["agrees"] else base.special_tokens


def check_notes(frame: pd.DataFrame) -> list[str]:
    """What a check found, one sentence a task: rescored against logged, in nats."""
    notes = []
    for task, rows in frame.groupby("task", sort=False) if len(frame) else ():
        best = rows.loc[rows["largest"].idxmin()]
        said = "gives the logged numbers" if best["agrees"] else "does not give the logged numbers"
        notes.append(
            f"{task}: asked again, the suite {said} of {best['log']}: largest difference {best['largest']:.2g} nats over "
            f"{best['choices']} choices (BOS: {best['bos']})."
        )
    return notes


def _compared(task: LoggedTask, side: str, model: Any, policy: bool | None) -> dict[str, Any]:
    rows, logged = _rows(task, model, policy)
    scored = score_rows(model, rows).logp
    away = np.abs(scored - logged)
    owners = np.array([row.item for row in rows])
    other = sum(
        int(np.argmax(scored[owners == item]) != np.argmax(logged[owners == item]))
        for item in np.unique(owners)
        if (owners == item).sum() > 1
    )
    return {
        "task": task.name,
        "log": side,
        "bos": _WORDS[policy],
        "items": len(set(owners.tolist())),
        "choices": len(rows),
        "largest": float(away.max()),
        "mean": float(away.mean()),
        "other_choice": other,
        "agrees": bool(away.max() <= AGREES),
    }


def _rows(task: LoggedTask, model: Any, policy: bool | None) -> tuple[list[Row], np.ndarray]:
    """Token rows of every logged log-probability, and those log-probabilities."""
    rows: list[Row] = []
    logged: list[float] = []
    limit = position_limit(model)
    for number, (key, sample) in enumerate(task.samples.items()):
        if sample.continuation:
            ids, start = encode_pair(
                model.tokenizer, sample.prompt, sample.continuation, template="plain", special_tokens=policy
            )
            made = [Row(number, 0, tuple(ids), start, "choice")]
        else:
            item = Item(
                key, key, prompt=None if sample.contexts else sample.prompt, choices=sample.choices, gold=sample.gold,
                contexts=sample.contexts, special_tokens=policy,
            )  # fmt: skip
            made = [
                Row(number, row.choice, row.ids, row.start, row.kind)
                for row in encode_suite(Suite(task.name, (item,)), model.tokenizer, max_length=10**9)
            ]
        for row, value in zip(made, sample.logp or ()):
            if limit and len(row.ids) > limit + 1:  # the harness cuts the start of what is too long
                cut = len(row.ids) - limit - 1
                row = Row(row.item, row.choice, row.ids[cut:], max(row.start - cut, 1), row.kind)
            rows.append(row)
            logged.append(value)
    return rows, np.array(logged)
