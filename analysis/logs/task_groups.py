"""Groups of tasks, such as the 57 subjects of MMLU: one suite, one row of the ledger, the subjects as its groups."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from taxlens.analysis.logs.pairing import TOTALS_TOLERANCE
from taxlens.analysis.logs.records import LoggedTask
from taxlens.analysis.tax.ledger import Paired


def groups_in(base: Mapping[str, LoggedTask], aligned: Mapping[str, LoggedTask]) -> dict[str, list[str]]:
    """{group: its tasks that both logs hold}, of every group with two tasks or more; outer groups before inner ones."""
    found: dict[str, list[str]] = {}
    depth: dict[str, int] = {}
    for name, task in base.items():
        if name in aligned:
            for place, group in enumerate(task.groups):
                found.setdefault(group, []).append(name)
                depth[group] = place
    return {group: names for group, names in sorted(found.items(), key=lambda entry: depth[entry[0]]) if len(names) > 1}


def grouped_pair(
    group: str, parts: Sequence[Paired], base: Mapping[str, float], aligned: Mapping[str, float]
) -> tuple[Paired, list[str]]:
    """The tasks of a group as one entry of the ledger, its subjects as groups.

    A harness adds up a group over all documents, or over the means of its tasks: which of the two is read from the log's
    own aggregates, and said where neither fits. By task, every document counts by what makes the tasks equal.

    Args:
        group: name of the group.
        parts: its tasks.
        base: the log's own aggregates of the group for the base model; empty where it has none.
        aligned: the same of the aligned model.
    """
    common = [metric for metric in parts[0].base if all(metric in part.base for part in parts)]
    sizes = np.array([len(part.items) for part in parts], dtype=np.float64)
    by_task = np.repeat(sizes.sum() / (len(parts) * sizes), sizes.astype(int))
    values: list[dict[str, np.ndarray]] = []
    notes: list[str] = []
    for side, logged in (("base", base), ("aligned", aligned)):
        found = {}
        for metric in common:
            column = np.concatenate([getattr(part, side)[metric] for part in parts])
            said = logged.get(metric)
            fits = [
                c
                for c in (column, column * by_task)
                if said is None or abs(c.mean() - said) <= TOTALS_TOLERANCE * max(1, abs(said))
            ]
            found[metric] = fits[0] if fits else column
            if not fits:
                notes.append(
                    f"{group}: {metric} over all documents is {column.mean():.6g}, the {side} log's own is {said:.6g}."
                )
        values.append(found)
    templates = {part.template for part in parts}
    paired = Paired(
        suite=group,
        kind=parts[0].kind,
        template=templates.pop() if len(templates) == 1 else "mixed",
        items=tuple(f"{part.suite}/{item}" for part in parts for item in part.items),
        groups=np.array([part.suite for part in parts for _ in part.items], dtype=object),
        base=values[0],
        aligned=values[1],
    )
    return paired, notes
