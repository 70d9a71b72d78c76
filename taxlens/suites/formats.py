"""Suites from the shapes in which benchmarks are published: minimal pairs, statements, questions, gaps.

Each builder takes rows (mappings, as a JSON line or a CSV row holds them), finds the fields under their usual names
and makes items that are scored as lm-evaluation-harness scores such a task with its default delimiter, one space.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from taxlens.activations.items.item_files import file_rows
from taxlens.activations.items.items import Suite
from taxlens.core.errors import ConfigError, ItemError, UsageError, explain, one_of
from taxlens.suites.building import Rows, build_suite
from taxlens.suites.fields import field, gap_of, truth_of
from taxlens.suites.questions import questions

ASK_TRUTH = "Statement: {statement}\nTrue or false? Answer:"


def minimal_pairs(
    rows: Rows,
    *,
    name: str = "pairs",
    group_by: str | None = None,
    kind: str = "capability",
    source: str = "",
    **shared: Any,
) -> Suite:
    """Items of two whole sentences of which the good one should be likelier, as in BLiMP.

    The prompt is empty, so all tokens of both sentences are scored (after BOS, or EOS where there is none). The good
    sentence is choice 0, as in lm-eval, where a tie counts as right.

    Args:
        rows: with ``sentence_good`` and ``sentence_bad`` (or good/bad, grammatical/ungrammatical).
        name: of the suite.
        group_by: field that groups the items; by default the first usual one whose values repeat (`fields.GROUPS`).
        kind: "capability" or "benefit".
        source: where the rows come from, for errors.
        shared: ``fields`` and ``skip`` (see `read_shape`).

    Raises:
        ItemError: a row without one of the two sentences.
        UsageError: not every row has the field ``group_by``.

    Example:
        >>> suite = minimal_pairs([{"sentence_good": "The cats sleep.", "sentence_bad": "The cats sleeps."}])
        >>> suite.items[0].prompt, suite.items[0].choices
        ('', (' The cats sleep.', ' The cats sleeps.'))

    References:
        Warstadt et al. 2020, arXiv 1912.00582 (BLiMP).
    """

    def fill(row: Mapping[str, Any], where: str) -> dict[str, Any]:
        pair = (field(row, "good", where), field(row, "bad", where))
        return {"prompt": "", "choices": tuple(f" {str(text).strip()}" for text in pair), "gold": 0}

    return build_suite(rows, fill, name=name, group_by=group_by, kind=kind, source=source, **shared)


def true_false(
    rows: Rows,
    *,
    name: str = "statements",
    ask: str = ASK_TRUTH,
    answers: tuple[str, str] = ("True", "False"),
    group_by: str | None = None,
    kind: str = "capability",
    source: str = "",
    **shared: Any,
) -> Suite:
    """Items that ask whether a statement is true; each has the label ``truth``, for probes.

    Args:
        rows: with ``statement`` (or sentence, claim, text) and ``truth`` (or label, answer): 1/0, true/false, yes/no.
        name: of the suite.
        ask: how it is asked; ``{statement}`` stands for the statement.
        answers: the choices for true and for false.
        group_by: field that groups the items (see `minimal_pairs`).
        kind: "capability" or "benefit".
        source: where the rows come from, for errors.
        shared: ``fields`` and ``skip`` (see `read_shape`).

    Raises:
        ItemError: a row without a statement, or whose truth is neither.
        UsageError: ``ask`` has no place for the statement, or not every row has the field ``group_by``.

    Example:
        >>> suite = true_false([{"statement": "Ice is cold.", "truth": 1}, {"statement": "Ice is hot.", "truth": 0}])
        >>> [item.gold for item in suite.items], suite.items[1].labels
        ([0, 1], {'truth': 0})
    """
    _check_place(ask, "{statement}")
    choices = tuple(f" {answer}" for answer in answers)

    def fill(row: Mapping[str, Any], where: str) -> dict[str, Any]:
        truth = truth_of(row, where)
        prompt = ask.replace("{statement}", str(field(row, "statement", where)).strip())
        return {"prompt": prompt, "choices": choices, "gold": 1 - truth, "labels": {"truth": truth}}

    return build_suite(rows, fill, name=name, group_by=group_by, kind=kind, source=source, **shared)


def statements(
    rows: Rows,
    *,
    name: str = "statements",
    group_by: str | None = None,
    kind: str = "capability",
    source: str = "",
    **shared: Any,
) -> Suite:
    """Whole texts with the label ``truth``: captured and probed, never scored. Fields as `true_false` reads them.

    Example:
        >>> statements([{"statement": "Ice is cold.", "truth": "true"}]).items[0].labels
        {'truth': 1}
    """

    def fill(row: Mapping[str, Any], where: str) -> dict[str, Any]:
        return {"text": str(field(row, "statement", where)), "labels": {"truth": truth_of(row, where)}}

    return build_suite(rows, fill, name=name, group_by=group_by, kind=kind, source=source, **shared)


def gaps(
    rows: Rows,
    *,
    name: str = "gaps",
    group_by: str | None = None,
    kind: str = "capability",
    source: str = "",
    **shared: Any,
) -> Suite:
    """Items of a sentence with a gap, filled by either option, whose rest is scored, as in Winogrande.

    Each choice has its own context (the sentence up to and with the option), and the choices are equal: what is
    compared is how likely the rest of the sentence is after either.

    Args:
        rows: with ``sentence`` (the gap is ``_``), ``option1``, ``option2`` and ``answer`` (1 or 2).
        name: of the suite.
        group_by: field that groups the items (see `minimal_pairs`).
        kind: "capability" or "benefit".
        source: where the rows come from, for errors.
        shared: ``fields`` and ``skip`` (see `read_shape`).

    Raises:
        ItemError: a row without a gap, an option or an answer.

    Example:
        >>> row = {"sentence": "The cup fell off the box as the _ shook.", "option1": "cup", "option2": "box", "answer": "2"}
        >>> gaps([row]).items[0].contexts[1], gaps([row]).items[0].choices[1]
        ('The cup fell off the box as the box', ' shook.')

    References:
        Sakaguchi et al. 2020, arXiv 1907.10641; lm-evaluation-harness, ``tasks/winogrande``.
    """

    def fill(row: Mapping[str, Any], where: str) -> dict[str, Any]:
        before, gap, rest = gap_of(str(field(row, "sentence", where)))
        if not gap or not rest.strip():
            rows_ = [("at", where), ("sentence", repr(before + gap + rest))]
            raise ItemError(explain("a sentence has no gap '_' with words after it.", rows_, "mark the gap by _."))
        options = [str(field(row, f"option{number}", where)) for number in (1, 2)]
        answer = str(field(row, "answer", where)).strip()
        one_of(answer, ("1", "2"), what=f"answer at {where}:", error=ItemError)
        contexts = tuple(before + option for option in options)
        return {"contexts": contexts, "choices": (f" {rest.strip()}",) * 2, "gold": int(answer) - 1}

    return build_suite(rows, fill, name=name, group_by=group_by, kind=kind, source=source, **shared)


SHAPES: dict[str, Callable[..., Suite]] = {
    "minimal_pairs": minimal_pairs,
    "true_false": true_false,
    "statements": statements,
    "questions": questions,
    "gaps": gaps,
}
"""The builders by the name that a config's ``format`` gives."""

_OPTIONS = {"ask": ("true_false", "questions"), "letters": ("questions",), "first_answer": ("questions",)}


def format_names() -> tuple[str, ...]:
    """What a config's ``format`` may be: taxlens's own items, a shape, or a benchmark by name."""
    from taxlens.suites.benchmarks import BENCHMARKS

    return ("items", *SHAPES, *BENCHMARKS)


def read_shape(
    path: Path | str, *, shape: str, name: str | None = None, kind: str = "capability", **options: Any
) -> Suite:
    """Read a file of a published benchmark as a suite: JSON lines or an array, CSV, TSV, parquet, a saved dataset.

    Args:
        path: the file.
        shape: which of `SHAPES`, or a benchmark by its name (`taxlens.suites.benchmarks.BENCHMARKS`).
        name: the suite's name; by default the file's name without its ending.
        kind: "capability" or "benefit".
        options: what the builder takes: ``group_by``, ``ask``, ``letters``, ``first_answer``; ``fields``, usual name ->
            name in the file; ``skip``, which items are left out (of `SKIPS`). None stands for its default.

    Raises:
        ConfigError: an option that the shape does not take.
        ItemError: the file cannot be read, or a row cannot be used.
    """
    from taxlens.suites.benchmarks import BENCHMARKS

    path = Path(path)
    builders = SHAPES | BENCHMARKS
    build = builders[one_of(shape, list(builders), what="format of a suite", error=ConfigError)]
    given = {option: value for option, value in options.items() if value not in (None, (), {}) and value is not False}
    for option in given:
        if option in _OPTIONS and shape not in _OPTIONS[option]:
            rows = [("suite", path), ("format", shape), (option, repr(given[option]))]
            fix = f"{option} goes with format: {' or '.join(_OPTIONS[option])}"
            raise ConfigError(explain(f"a suite of {shape} takes no {option!r}.", rows, fix))
    rows_ = [row for _, row in file_rows(path)]
    return build(rows_, name=name or Path(path.name.removesuffix(".gz")).stem, kind=kind, source=str(path), **given)


def _check_place(ask: str, place: str) -> None:
    if place not in ask:
        raise UsageError(explain(f"the way of asking has no place {place}.", [("ask", repr(ask))], f"ask: '{place}'"))
