"""What a probe is asked to read: labels recognised as binary, multi-class or regression, missing ones left out."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from taxlens.core.errors import UsageError, explain, one_of

TASKS = ("auto", "binary", "multiclass", "regression")
MANY_CLASSES = 50
_MOST_INTEGER_CLASSES = 20


class ProbeWarning(UserWarning):
    """A probe's number may mislead; the text says why. The same text is in the result's `notes`."""


@dataclass(frozen=True, slots=True, eq=False)
class Labels:
    """Labels of the rows that have one.

    Args:
        task: "binary", "multiclass" or "regression".
        classes: class names in sorted order (empty for regression).
        codes: [n] class index of each kept row (zeros for regression).
        values: [n] float64 label of each kept row (the class index for classes).
        keep: [n] rows of the input that have a label.
        notes: what was left out and what to be careful about.
    """

    task: str
    classes: tuple[Any, ...]
    codes: np.ndarray
    values: np.ndarray
    keep: np.ndarray
    notes: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.keep)

    def targets(self) -> np.ndarray:
        """Return [n, q] float64 targets: +-1 (binary: one column, second class positive; else one a class)."""
        if self.task == "regression":
            return self.values[:, None]
        if self.task == "binary":
            return np.where(self.codes == 1, 1.0, -1.0)[:, None]
        return np.where(self.codes[:, None] == np.arange(len(self.classes)), 1.0, -1.0)

    def strata(self) -> np.ndarray:
        """Return [n] codes to balance folds by: the class, or the fifth of the range for regression."""
        if self.task != "regression":
            return self.codes
        edges = np.quantile(self.values, [0.2, 0.4, 0.6, 0.8])
        return np.searchsorted(edges, self.values, side="right")


def read_labels(y: Sequence[Any] | np.ndarray, *, groups: np.ndarray, task: str = "auto") -> Labels:
    """Return the labels of the rows that have one, and what kind they are.

    Strings, booleans and integers of at most 20 values are classes; other numbers are regression. None,
    NaN and "" are missing. A class whose rows all lie in one group cannot be read on a group that the
    probe has not seen: its rows are left out with a warning.

    Args:
        y: [n] labels.
        groups: [n] group of each row.
        task: "auto", "binary", "multiclass" or "regression".

    Returns:
        Labels of the kept rows.

    Raises:
        UsageError: if the lengths differ, no label is left, or fewer than two classes (or values) are.

    Example:
        >>> labels = read_labels(["a", "b", None, "a", "b"], groups=np.array([0, 1, 2, 3, 4]))
        >>> labels.task, labels.classes, labels.keep.tolist()
        ('binary', ('a', 'b'), [0, 1, 3, 4])
    """
    one_of(task, TASKS, what="task")
    raw = np.asarray(y, dtype=object).ravel()
    if len(raw) != len(groups):
        rows = [("labels", len(raw)), ("groups", len(groups))]
        raise UsageError(explain("labels and groups must have one entry a row.", rows))
    present = np.array([not _missing(value) for value in raw], dtype=bool)
    notes = []
    if not present.all():
        notes.append(f"{(~present).sum()} of {len(raw)} rows have no label and are left out.")
    keep = np.flatnonzero(present)
    kind = _kind(raw[keep], task)
    if kind == "regression":
        values = raw[keep].astype(np.float64)
        if len(np.unique(values)) < 2:
            raise UsageError(explain("a label needs two different values.", [("rows with a label", len(keep))]))
        return Labels(kind, (), np.zeros(len(keep), dtype=np.int64), values, keep, tuple(notes))
    return _classes(raw, keep, groups, task, notes)


def _classes(raw: np.ndarray, keep: np.ndarray, groups: np.ndarray, task: str, notes: list[str]) -> Labels:
    names = np.array([_name(value) for value in raw[keep]], dtype=object)
    classes, codes = np.unique(names, return_inverse=True)
    pairs = np.unique(np.stack([codes, np.unique(groups[keep], return_inverse=True)[1]]), axis=1)[0]
    lonely = np.bincount(pairs, minlength=len(classes)) < 2
    if lonely.any():
        shown = ", ".join(repr(name) for name in classes[lonely][:3])
        notes.append(
            f"{lonely.sum()} of {len(classes)} classes lie in a single group and are left out (first: {shown})."
        )
        kept = ~lonely[codes]
        keep, names = keep[kept], names[kept]
        classes, codes = np.unique(names, return_inverse=True) if len(names) else (classes[:0], codes[:0])
    if len(classes) < 2:
        rows = [
            ("rows with a label", len(keep)),
            ("classes in two or more groups", ", ".join(map(repr, classes)) or "none"),
            ("expected", "at least two classes, each in at least two groups"),
        ]
        raise UsageError(explain("a label needs two classes that groups share.", rows, "another label or groups."))
    if task == "binary" and len(classes) != 2:
        raise UsageError(explain("a binary label has two classes.", [("got", len(classes))], "task='multiclass'."))
    if len(classes) > MANY_CLASSES:
        notes.append(
            f"label has {len(classes)} classes, {len(keep) / len(classes):.1f} rows a class: the macro average "
            "hides classes that are too small to be read."
        )
    kind = "binary" if len(classes) == 2 and task != "multiclass" else "multiclass"
    return Labels(kind, tuple(classes), codes, codes.astype(np.float64), keep, tuple(notes))


def warn(notes: Sequence[str]) -> None:
    """Issue each note as a ProbeWarning."""
    for note in notes:
        warnings.warn(note, ProbeWarning, stacklevel=3)


def _missing(value: Any) -> bool:
    return value is None or (isinstance(value, str) and value == "") or bool(value != value)


def _name(value: Any) -> Any:
    if isinstance(value, bool | np.bool_):
        return int(value)
    if isinstance(value, float | np.floating) and float(value).is_integer():
        return int(value)
    return value.item() if isinstance(value, np.generic) else value


def _kind(values: np.ndarray, task: str) -> str:
    if task != "auto":
        return "regression" if task == "regression" else "classes"
    numbers = [isinstance(v, int | float | np.integer | np.floating | np.bool_) for v in values]
    if not numbers or not all(numbers):
        if any(numbers):
            raise UsageError(explain("labels mix text and numbers.", [("first", repr(values[0]))]))
        return "classes"
    as_float = values.astype(np.float64)
    whole = np.all(as_float == np.round(as_float))
    return "classes" if whole and len(np.unique(as_float)) <= _MOST_INTEGER_CLASSES else "regression"
