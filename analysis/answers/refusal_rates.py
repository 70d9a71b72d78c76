"""Rates of refusal, with the error of whoever judged the answers in their intervals.

A judge that finds a share s of the refusals (sensitivity) and passes a share c of the other answers (specificity) counts
r = s p + (1 - c)(1 - p) where p is true, so that p = (r + c - 1) / (s + c - 1): Rogan and Gladen. Both s and c are known
from labelled answers only as well as their number allows. Each draw of a group bootstrap of r is therefore put through
that formula with its own s and c, drawn from Beta(right + 1/2, wrong + 1/2). A change of the rate is divided by
s + c - 1 alone: false alarms of the judge cancel.

The rate that is printed is what the judge counted. Its interval is the one of the true rate, drawn out to the count
where that lies beyond it.

References:
    Rogan and Gladen 1978 (doi 10.1093/oxfordjournals.aje.a112510); Lang and Reiczigel 2014 (both errors in the interval).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import ClassVar

import numpy as np
import pandas as pd

from taxlens.analysis.answers.labelled import LabelledAnswer, labelled_answers
from taxlens.analysis.answers.refusals import Judge, is_refusal
from taxlens.core.errors import UsageError, explain
from taxlens.core.result import Result
from taxlens.core.stats.intervals import Interval, group_counts, group_index
from taxlens.core.stats.tails import ends, tails, welch_tail


@dataclass(frozen=True, slots=True, repr=False)
class JudgeError(Result):
    """How often a judge of refusals is right on labelled answers.

    Attributes:
        counts: (refusals found, refusals missed, other answers passed, other answers called refusals).
        by_kind: one row a kind: kind, refuses, right, answers.
    """

    figure: ClassVar[str] = ""

    counts: tuple[int, int, int, int]
    by_kind: pd.DataFrame

    @property
    def sensitivity(self) -> float:
        """Share of the refusals that are found, 0..1."""
        return self.counts[0] / (self.counts[0] + self.counts[1])

    @property
    def specificity(self) -> float:
        """Share of the other answers that are passed, 0..1."""
        return self.counts[2] / (self.counts[2] + self.counts[3])

    def balanced_accuracy(self, *, draws: int = 20000, seed: int = 0) -> Interval:
        """Mean of sensitivity and specificity, with its 95 % interval from the Beta draws of both."""
        drawn = np.sort(np.mean(self.draws(draws, seed=seed), axis=0))
        low, high = drawn[int(0.025 * draws)], drawn[int(0.975 * draws) - 1]
        value = (self.sensitivity + self.specificity) / 2
        n = sum(self.counts)
        return Interval(value, float(low), float(high), 0.95, n, n, f"Beta posterior, {draws} draws")

    def draws(self, draws: int, *, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
        """Sensitivity [draws] and specificity [draws] from Beta(right + 1/2, wrong + 1/2)."""
        rng = np.random.default_rng([seed, 18])
        found, missed, passed, alarms = self.counts
        return rng.beta(found + 0.5, missed + 0.5, draws), rng.beta(passed + 0.5, alarms + 0.5, draws)

    def to_frame(self) -> pd.DataFrame:
        """One row a kind of answer: kind, refuses, right, answers."""
        return self.by_kind.copy()

    def __repr__(self) -> str:
        return (
            f"JudgeError: balanced accuracy {self.balanced_accuracy()}, sensitivity {self.sensitivity:.3f}, "
            f"specificity {self.specificity:.3f}"
        )


def judge_error(judge: Judge | None = None, answers: Sequence[LabelledAnswer] | None = None) -> JudgeError:
    """How often a judge of refusals is right.

    Args:
        judge: ``judge(request, answer)``; None: the package's rule.
        answers: labelled answers; by default those held back.

    Raises:
        UsageError: the answers are all refusals, or none is.

    Example:
        >>> judge_error().balanced_accuracy().value > 0.95
        True
    """
    if answers is None:
        if judge is None:
            return _rule_error()
        answers = labelled_answers("held back")
    if len({answer.refuses for answer in answers}) < 2:
        rows = [("answers", len(answers)), ("refusals", sum(a.refuses for a in answers))]
        raise UsageError(explain("a judge's error needs refusals and other answers.", rows))
    said = [bool(judge(a.request, a.answer)) if judge else is_refusal(a.answer, a.request) for a in answers]
    frame = pd.DataFrame({"kind": [a.kind for a in answers], "refuses": [int(a.refuses) for a in answers]})
    frame["right"] = [int(s == a.refuses) for s, a in zip(said, answers)]
    by_kind = frame.groupby(["kind", "refuses"], sort=False)["right"].agg(right="sum", answers="count").reset_index()
    right, refuses = frame["right"].to_numpy(), frame["refuses"].to_numpy() == 1
    counts = (right[refuses].sum(), (1 - right[refuses]).sum(), right[~refuses].sum(), (1 - right[~refuses]).sum())
    return JudgeError((int(counts[0]), int(counts[1]), int(counts[2]), int(counts[3])), by_kind)


@cache
def _rule_error() -> JudgeError:
    return judge_error(None, labelled_answers("held back"))


def refuses(answers: Sequence[str], *, requests: Sequence[str] | None = None, judge: Judge | None = None) -> np.ndarray:
    """1 where an answer refuses, else 0, float64 [answers]: by the rule, or by a judge that also sees the request.

    Raises:
        UsageError: a judge without one request an answer.
    """
    if judge is None:
        asked = [""] * len(answers) if requests is None else requests
        return np.array([float(is_refusal(answer, request)) for answer, request in zip(answers, asked, strict=True)])
    if requests is None or len(requests) != len(answers):
        raise UsageError("a judge needs the request of every answer: pass requests, one an answer.")
    return np.array([float(bool(judge(request, answer))) for request, answer in zip(requests, answers)])


def refusal_rate(
    answers: Sequence[str],
    groups: Sequence[object] | None = None,
    *,
    requests: Sequence[str] | None = None,
    judge: Judge | None = None,
    error: JudgeError | None = None,
    draws: int = 2000,
    seed: int = 0,
) -> Interval:
    """The share of answers that refuse, in 0..1, with an interval of groups and of the judge's error.

    Args:
        answers: [n] one answer a prompt.
        groups: [n] the group of each prompt; every prompt its own group where absent.
        requests: [n] the prompts, for a judge.
        judge: who judges; None: the rule.
        error: the judge's error; by default measured on the answers held back (a call of the judge each).
        draws: bootstrap draws.
        seed: of the bootstrap.

    Returns:
        The share that was counted, with its interval (see the module).

    Example:
        >>> refusal_rate(["I cannot help with that.", "Of course: first, ..."]).value
        0.5
    """
    counted = refuses(answers, requests=requests, judge=judge)
    names = range(len(counted)) if groups is None else groups
    return rate_intervals({"rate": counted}, list(names), error=error or judge_error(judge), draws=draws, seed=seed)[
        "rate"
    ]


def rate_intervals(
    columns: dict[str, np.ndarray],
    groups: Sequence[object] | np.ndarray,
    *,
    error: JudgeError,
    changes: Sequence[tuple[str, str, str]] = (),
    draws: int = 2000,
    seed: int = 0,
) -> dict[str, Interval]:
    """Intervals of several judged rates on the same items, and of their changes, all resampled together.

    Args:
        columns: name -> [n] 1 where the judge saw a refusal, else 0.
        groups: [n] groups of the items.
        error: of the judge, the same for all columns.
        changes: (name, first, second): second minus first.
        draws: bootstrap draws.
        seed: of the draws.
    """
    index, n_groups = group_index(np.asarray(groups))
    names, values = list(columns), np.stack(list(columns.values()), axis=1)
    sizes = np.bincount(index, minlength=n_groups).astype(np.float64)
    centre = values.mean(axis=0)
    totals = np.stack([np.bincount(index, column, n_groups) for column in (values - centre).T], axis=1)
    counts = group_counts(n_groups, draws=draws, seed=seed)
    replicates = (counts @ totals) / (counts @ sizes)[:, None] + centre
    sensitivity, specificity = (drawn[:, None] for drawn in error.draws(draws, seed=seed))
    scale = np.maximum(sensitivity + specificity - 1, 1e-6)
    true = np.clip((replicates + specificity - 1) / scale, 0, 1)
    low, high = ends(true, tails(totals, 0.95))
    low, high = _all_alike(centre, low, high, n_groups, error)
    words = f"group bootstrap of the rate, error of the judge included, {draws} draws"

    def made(value: float, below: float, above: float) -> Interval:
        return Interval(value, min(below, value), max(above, value), 0.95, len(index), n_groups, words)

    found = {name: made(float(centre[n]), float(low[n]), float(high[n])) for n, name in enumerate(names)}
    for name, first, second in changes:
        one, two = names.index(first), names.index(second)
        moved = (replicates[:, two] - replicates[:, one])[:, None] / scale
        tail = tails((totals[:, two] - totals[:, one])[:, None], 0.95)
        below, above = ends(np.clip(moved, -1, 1), tail)
        found[name] = made(float(centre[two] - centre[one]), float(below[0]), float(above[0]))
    return found


def rate_gap(
    columns: Sequence[np.ndarray],
    groups: Sequence[Sequence[object] | np.ndarray],
    *,
    error: JudgeError,
    draws: int = 2000,
    seed: int = 0,
) -> Interval:
    """The judged rate of one set of prompts minus that of another, resampled together (of one set alone: its rate).

    Both rates of a draw are put right with the same sensitivity and specificity, so that false alarms cancel as far as they
    do. Where no answer of a set refuses, or every one does, the exact bound over its groups is added to that end.

    Args:
        columns: one or two sets: [n] 1 where the judge saw a refusal, else 0.
        groups: the groups of each set's prompts.
        error: of the judge.
        draws: bootstrap draws.
        seed: of the draws.

    Returns:
        The difference that was counted, in -1..1, with its interval.
    """
    sensitivity, specificity = error.draws(draws, seed=seed)
    scale = np.maximum(sensitivity + specificity - 1, 1e-6)
    drawn, deviations, room = np.zeros(draws), [], [0.0, 0.0]
    value, n_items, n_groups = 0.0, 0, 0
    for place, (column, names) in enumerate(zip(columns, groups, strict=True)):
        sign = -1.0 if place else 1.0
        index, count = group_index(np.asarray(names))
        sizes = np.bincount(index, minlength=count).astype(np.float64)
        counts = group_counts(count, draws=draws, seed=seed + 7919 * place)
        rates = (counts @ np.bincount(index, column, count)) / (counts @ sizes)
        drawn += sign * np.clip((rates + specificity - 1) / scale, 0, 1)
        deviations.append(sign * np.bincount(index, column - column.mean(), count) / len(column))
        if column.mean() in (0, 1):
            towards = 0 if (column.mean() == 1) == (sign > 0) else 1  # the end that unseen answers would move
            room[towards] += (1 - 0.025 ** (1 / count)) / max(error.sensitivity + error.specificity - 1, 1e-6)
        value, n_items, n_groups = value + sign * float(column.mean()), n_items + len(column), n_groups + count
    low, high = (float(end[0]) for end in ends(drawn[:, None], welch_tail(deviations, 0.95)))
    least, words = -1.0 if len(columns) > 1 else 0.0, "group bootstrap of the rates, error of the judge included"
    low, high = max(low - room[0], least), min(high + room[1], 1.0)
    return Interval(value, min(low, value), max(high, value), 0.95, n_items, n_groups, f"{words}, {draws} draws")


def _all_alike(
    rates: np.ndarray, low: np.ndarray, high: np.ndarray, n_groups: int, error: JudgeError
) -> tuple[np.ndarray, np.ndarray]:
    """Where no answer refuses, or every one does, resampling shows no spread: the exact bound over groups stands in."""
    unseen = 1 - 0.025 ** (1 / n_groups)
    scale = max(error.sensitivity + error.specificity - 1, 1e-6)
    high = np.where(rates == 0, np.maximum(high, np.clip(unseen / scale, 0, 1)), high)
    low = np.where(rates == 1, np.minimum(low, np.clip(1 - unseen / scale, 0, 1)), low)
    return low, high
