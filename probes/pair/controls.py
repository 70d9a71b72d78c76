"""Controls that a probe must beat: shuffled labels, confounds alone, arbitrary labels; and guards on the rows."""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from taxlens.core.errors import UsageError, explain
from taxlens.probes.rows.labels import Labels

MASSIVE = 20.0  # a row whose norm is this many times the median is massive
_MOST_LEVELS = 50


def shuffled(labels: Labels, groups: np.ndarray, *, seed: int) -> Labels:
    """Return the labels dealt out anew: by group where a group has one label, by row otherwise.

    Args:
        labels: to shuffle.
        groups: [n] group codes of the kept rows.
        seed: of the permutation.
    """
    rng = np.random.default_rng([seed, 1])
    first = np.unique(groups, return_index=True)[1]
    codes = np.unique(groups, return_inverse=True)[1]
    if (labels.values == labels.values[first][codes]).all():
        order = first[rng.permutation(len(first))][codes]
    else:
        order = rng.permutation(len(labels))
    return replace(labels, codes=labels.codes[order], values=labels.values[order])


def control_task(labels: Labels, keys: Sequence[Any] | np.ndarray, folds: np.ndarray, *, seed: int) -> Labels | None:
    """Return arbitrary labels that depend on a key alone, or None where selectivity is undefined.

    A probe strong enough to read labels hashed on the key (last token, template, subject) memorises; only
    its excess over them is the representation's. With no key in two folds nothing can be memorised and
    the control is undefined.

    Args:
        labels: whose number of classes and rows the control copies.
        keys: [n] key of each kept row.
        folds: [n] fold of each kept row.
        seed: of the hash.

    References: Hewitt and Liang 2019, arXiv 1909.03368.
    """
    names = np.asarray([str(key) for key in keys])
    if len(names) != len(labels):
        raise UsageError(explain("keys must have one entry a row.", [("keys", len(names)), ("rows", len(labels))]))
    unique, codes = np.unique(names, return_inverse=True)
    spread = np.unique(np.stack([codes, folds]), axis=1)[0]
    if (np.bincount(spread, minlength=len(unique)) < 2).all():
        return None
    order = np.argsort([zlib.crc32(f"{seed}/{name}".encode()) for name in unique], kind="stable")
    n_classes = max(len(labels.classes), 2)
    dealt = np.empty(len(unique), dtype=np.int64)
    dealt[order] = np.arange(len(unique)) % n_classes
    mine = dealt[codes]
    if len(np.unique(mine)) < 2:
        return None
    classes = labels.classes or (0, 1)
    task = "binary" if len(classes) == 2 else "multiclass"
    return Labels(task, tuple(classes), mine, mine.astype(np.float64), labels.keep)


def confound_features(confounds: Mapping[str, Sequence[Any] | np.ndarray], keep: np.ndarray) -> np.ndarray:
    """Return [n, c] features of position, length, token, template: numbers standardised, names one-hot.

    Names beyond the 50 most frequent of a confound share no column.

    Args:
        confounds: name to [rows] values.
        keep: rows to take.

    Raises:
        UsageError: if none varies.
    """
    columns = []
    for values in confounds.values():
        column = np.asarray(values)[keep]
        if column.dtype.kind in "iuf" and np.isfinite(column.astype(np.float64)).all():
            number = column.astype(np.float64)
            if number.std() > 0:
                columns.append(((number - number.mean()) / number.std())[:, None])
            if len(np.unique(column)) > _MOST_LEVELS or column.dtype.kind == "f":
                continue
        names, codes, counts = np.unique(column.astype(str), return_inverse=True, return_counts=True)
        if len(names) > 1:
            frequent = np.argsort(-counts, kind="stable")[:_MOST_LEVELS]
            columns.append((codes[:, None] == frequent).astype(np.float64))
    if not columns:
        rows = [("confounds", ", ".join(confounds) or "none")]
        raise UsageError(explain("no confound varies over the rows.", rows, "leave confounds out."))
    return np.hstack(columns)


def check_rows(X: np.ndarray, *, layer: int, model: str, ids: Sequence[Any]) -> None:
    """Refuse rows that hold NaN or infinite values, naming the items.

    Raises:
        UsageError: with layer, model and the first items concerned.
    """
    bad = np.flatnonzero(~np.isfinite(X).all(axis=tuple(range(1, X.ndim))))
    if len(bad):
        shown = ", ".join(str(ids[row]) for row in bad[:3])
        rows = [("layer", layer), ("model", model), ("rows", len(bad)), ("items", shown)]
        fix = "leave these items out, or capture again in float32 if float16 overflowed."
        raise UsageError(explain("activations hold NaN or infinite values.", rows, fix))


def row_notes(X: np.ndarray, groups: np.ndarray, *, layer: int, model: str) -> list[tuple[str, str]]:
    """Return (kind, text) of what to be careful about in rows X [n, d]: massive, constant, copied.

    Args:
        X: [n, d] rows of one model.
        groups: [n] group codes.
        layer: for the text.
        model: for the text.
    """
    notes = []
    where = f"layer {layer} of {model}"
    norm = np.linalg.norm(X, axis=1)
    massive = int((norm > MASSIVE * np.median(norm)).sum())
    if massive:
        text = f"{massive} rows of {where} have more than {MASSIVE:.0f} times the median norm (first tokens?)"
        notes.append(("massive", text))
    still = int((np.ptp(X[:, X[-1] == X[0]], axis=0) == 0).sum())
    if still == X.shape[1]:
        notes.append(("constant", f"all features of {where} are constant: nothing can be read there."))
    elif still:
        notes.append(("constant", f"{still} of {X.shape[1]} features of {where} are constant."))
    copies = _copies(X, groups)
    if copies:
        text = f"{copies} rows of {where} equal a row of another group: groups may be too fine, and copies leak."
        notes.append(("copied", text))
    return notes


def without_massive(X: np.ndarray, *, share: float = 0.001) -> np.ndarray:
    """Return the rows of X [n, d] that are left without the top share of norms (at least one row goes).

    Args:
        X: rows.
        share: of rows to leave out.
    """
    norm = np.linalg.norm(X, axis=1)
    gone = max(1, round(share * len(X)))
    return np.sort(np.argsort(norm, kind="stable")[:-gone])


def _copies(X: np.ndarray, groups: np.ndarray) -> int:
    """Return how many rows equal, bit for bit, a row of another group."""
    first: dict[int, int] = {}
    count = 0
    rows = np.ascontiguousarray(X)
    for row, group in zip(rows, groups, strict=True):
        count += first.setdefault(hash(row.tobytes()), group) != group
    return count
