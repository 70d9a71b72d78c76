"""Suites from the shapes in which benchmarks are published: minimal pairs, statements, questions, gaps.

Each builder takes rows (mappings, as a JSON line or a CSV row holds them), finds the fields under their usual names
and makes items that are scored as lm-evaluation-harness scores such a task with its default delimiter, one space.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from taxlens.activations.items.item_tables import SEPARATORS, table_rows
from taxlens.activations.items.items import Item, Suite, json_object, numbered_lines, suite_text
from taxlens.core.errors import ConfigError, ItemError, UsageError, explain, one_of
from taxlens.suites.fields import answer_index, choices_of, field, grouped, truth_of

Rows = Iterable[Mapping[str, Any]]

ASK_TRUTH = "Statement: {statement}\nTrue or false? Answer:"
ASK_QUESTION = "Question: {question}\nAnswer:"
LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"


def minimal_pairs(
    rows: Rows, *, name: str = "pairs", group_by: str | None = None, kind: str = "capability", source: str = ""
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

    return _suite(rows, fill, name=name, group_by=group_by, kind=kind, source=source)


def true_false(
    rows: Rows,
    *,
    name: str = "statements",
    ask: str = ASK_TRUTH,
    answers: tuple[str, str] = ("True", "False"),
    group_by: str | None = None,
    kind: str = "capability",
    source: str = "",
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

    return _suite(rows, fill, name=name, group_by=group_by, kind=kind, source=source)


def statements(
    rows: Rows, *, name: str = "statements", group_by: str | None = None, kind: str = "capability", source: str = ""
) -> Suite:
    """Whole texts with the label ``truth``: captured and probed, never scored. Fields as `true_false` reads them.

    Example:
        >>> statements([{"statement": "Ice is cold.", "truth": "true"}]).items[0].labels
        {'truth': 1}
    """

    def fill(row: Mapping[str, Any], where: str) -> dict[str, Any]:
        return {"text": str(field(row, "statement", where)), "labels": {"truth": truth_of(row, where)}}

    return _suite(rows, fill, name=name, group_by=group_by, kind=kind, source=source)


def questions(
    rows: Rows,
    *,
    name: str = "questions",
    ask: str = ASK_QUESTION,
    letters: bool = False,
    group_by: str | None = None,
    kind: str = "capability",
    source: str = "",
) -> Suite:
    """Items of a question with choices, as in ARC, HellaSwag, PIQA or MMLU.

    Args:
        rows: with ``question`` (or prompt, query, ctx, goal), choices (a list ``choices``, ``endings`` or ``options``;
            ARC's ``{"text": [...], "label": [...]}``; or columns choice_0 ..., A B C D, ending0 ..., sol1 sol2) and
            the answer (``answer``, ``gold``, ``label``, ``answerKey``: index, letter, or the choice's text).
        name: of the suite.
        ask: how it is asked; ``{question}`` stands for the question.
        letters: list the choices under letters in the prompt and score the letters alone, as in MMLU.
        group_by: field that groups the items (see `minimal_pairs`).
        kind: "capability" or "benefit".
        source: where the rows come from, for errors.

    Raises:
        ItemError: a row without question, choices or answer, or whose answer names none of the choices.
        UsageError: ``ask`` has no place for the question, or not every row has the field ``group_by``.

    Example:
        >>> row = {"question": "What is cold?", "choices": ["fire", "ice"], "answer": "B"}
        >>> suite = questions([row], ask="{question}", letters=True)
        >>> suite.items[0].prompt, suite.items[0].choices, suite.items[0].gold
        ('What is cold?\\nA. fire\\nB. ice\\nAnswer:', (' A', ' B'), 1)

    References:
        Hendrycks et al. 2021, arXiv 2009.03300 (MMLU); Clark et al. 2018, arXiv 1803.05457 (ARC).
    """
    _check_place(ask, "{question}")

    def fill(row: Mapping[str, Any], where: str) -> dict[str, Any]:
        choices, names = choices_of(row, where)
        prompt = ask.replace("{question}", str(field(row, "question", where)).strip())
        said: Sequence[str] = choices
        if letters:
            said = LETTERS[: len(choices)]
            listed = "".join(f"\n{letter}. {choice}" for letter, choice in zip(said, choices))
            prompt = f"{prompt.removesuffix('Answer:').rstrip()}{listed}\nAnswer:"
        gold = answer_index(row, choices, names, where)
        return {"prompt": prompt, "choices": tuple(f" {choice}" for choice in said), "gold": gold}

    return _suite(rows, fill, name=name, group_by=group_by, kind=kind, source=source)


def gaps(
    rows: Rows, *, name: str = "gaps", group_by: str | None = None, kind: str = "capability", source: str = ""
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
        before, gap, rest = str(field(row, "sentence", where)).partition("_")
        if not gap or not rest.strip():
            rows_ = [("at", where), ("sentence", repr(before + gap + rest))]
            raise ItemError(explain("a sentence has no gap '_' with words after it.", rows_, "mark the gap by _."))
        options = [str(field(row, f"option{number}", where)) for number in (1, 2)]
        answer = str(field(row, "answer", where)).strip()
        one_of(answer, ("1", "2"), what=f"answer at {where}:", error=ItemError)
        contexts = tuple(before + option for option in options)
        return {"contexts": contexts, "choices": (f" {rest.strip()}",) * 2, "gold": int(answer) - 1}

    return _suite(rows, fill, name=name, group_by=group_by, kind=kind, source=source)


SHAPES: dict[str, Callable[..., Suite]] = {
    "minimal_pairs": minimal_pairs,
    "true_false": true_false,
    "statements": statements,
    "questions": questions,
    "gaps": gaps,
}
"""The builders by the name that a config's ``format`` gives."""

_OPTIONS = {"ask": ("true_false", "questions"), "letters": ("questions",)}


def read_shape(
    path: Path | str, *, shape: str, name: str | None = None, kind: str = "capability", **options: Any
) -> Suite:
    """Read a JSON-lines, CSV or TSV file of a published benchmark as a suite.

    Args:
        path: the file.
        shape: which of `SHAPES`.
        name: the suite's name; by default the file's name without its ending.
        kind: "capability" or "benefit".
        options: what the builder takes: ``group_by``, ``ask``, ``letters``; None stands for its default.

    Raises:
        ConfigError: an option that the shape does not take.
        ItemError: the file cannot be read, or a row cannot be used.
    """
    path = Path(path)
    build = SHAPES[one_of(shape, list(SHAPES), what="format of a suite", error=ConfigError)]
    given = {option: value for option, value in options.items() if value not in (None, False)}
    for option in given:
        if option in _OPTIONS and shape not in _OPTIONS[option]:
            rows = [("suite", path), ("format", shape), (option, repr(given[option]))]
            fix = f"{option} goes with format: {' or '.join(_OPTIONS[option])}"
            raise ConfigError(explain(f"a suite of {shape} takes no {option!r}.", rows, fix))
    text = suite_text(path)
    if path.suffix.lower() in SEPARATORS:
        rows_: Sequence[Mapping[str, Any]] = [row for _, row in table_rows(text, path)]
    else:
        rows_ = [json_object(line, where=where) for where, line in numbered_lines(text, path)]
    return build(rows_, name=name or path.stem, kind=kind, source=str(path), **given)


def _suite(
    rows: Rows,
    fill: Callable[[Mapping[str, Any], str], dict[str, Any]],
    *,
    name: str,
    group_by: str | None,
    kind: str,
    source: str,
) -> Suite:
    given = list(rows)
    ids, groups = grouped(given, group_by, source or name)
    items = [
        Item(id=item_id, group=group, **fill(row, f"{source or name}, row {number}"))
        for number, (row, item_id, group) in enumerate(zip(given, ids, groups), start=1)
    ]
    return Suite(name, tuple(items), kind=kind, source=source)


def _check_place(ask: str, place: str) -> None:
    if place not in ask:
        raise UsageError(explain(f"the way of asking has no place {place}.", [("ask", repr(ask))], f"ask: '{place}'"))
