"""Questions with choices, a passage before them where they have one: the commonest shape of benchmarks."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from taxlens.activations.items.item_files import records
from taxlens.activations.items.items import Suite
from taxlens.core.errors import ItemError, UsageError, explain
from taxlens.suites.benchmarks import copa_item, hellaswag_item
from taxlens.suites.building import Rows, build_suite
from taxlens.suites.choices import LETTERS, choices_of
from taxlens.suites.fields import NAMES, answer_index, check_first, field, passage_of, renamed

ASK_QUESTION = "Question: {question}\nAnswer:"
_PLACE = re.compile(r"\{(\w+)\}")


def questions(
    rows: Rows,
    *,
    name: str = "questions",
    ask: str | None = None,
    letters: bool = False,
    first_answer: int | None = None,
    group_by: str | None = None,
    kind: str = "capability",
    source: str = "",
    **shared: Any,
) -> Suite:
    """Items of a question with choices, as in ARC, PIQA or MMLU; a passage (context, article, ...) stands before it.

    Args:
        rows: with ``question`` (or prompt, query, goal, ...), choices (`choices_of`) and the answer (``answer``, ``gold``,
            ``label``, ``answerKey``, ...: index, letter, or the choice's text).
        name: of the suite.
        ask: how it is asked; ``{question}`` stands for the question, ``{passage}`` for the passage, and the name of any
            field for that field. By default "Question: ...", after the passage where there is one.
        letters: list the choices under letters in the prompt and score the letters alone, as in MMLU.
        first_answer: number of the first choice in numbered answers, 0 or 1; None: 0, but asked about where no answer is 0.
        group_by: field that groups the items (see `minimal_pairs`).
        kind: "capability" or "benefit".
        source: where the rows come from, for errors.
        shared: ``fields`` and ``skip`` (see `read_shape`).

    Raises:
        ItemError: a row without question, choices or answer, or whose answer names none of the choices; more than 26
            lettered choices.
        UsageError: ``ask`` has no place for the question, or a passage that it leaves out, or not every row has the field
            ``group_by``.

    Example:
        >>> row = {"question": "What is cold?", "choices": ["fire", "ice"], "answer": "B"}
        >>> suite = questions([row], ask="{question}", letters=True)
        >>> suite.items[0].prompt, suite.items[0].choices, suite.items[0].gold
        ('What is cold?\\nA. fire\\nB. ice\\nAnswer:', (' A', ' B'), 1)

    References:
        Hendrycks et al. 2021, arXiv 2009.03300 (MMLU); Clark et al. 2018, arXiv 1803.05457 (ARC).
    """
    given = [dict(row) for row in records(rows)]
    if fields := shared.pop("fields", None):
        given = renamed(given, fields, source or name)
    if ask is not None:
        _check_question(ask, given, source or name)
    if first_answer is None:
        numbered = [row for row in given if not _self_named(row)]
        check_first([(_answer(row), _count(row)) for row in numbered], source or name)

    def fill(row: Mapping[str, Any], where: str) -> dict[str, Any]:
        if ask is None and not letters and (special := _special(row)):
            return special(row, where)
        choices = choices_of(row, where)
        prompt = asked(row, where, ask)
        said: Sequence[str] = choices.texts
        if letters:
            if len(choices.texts) > len(LETTERS):
                rows_ = [("at", where), ("choices", len(choices.texts))]
                raise ItemError(
                    explain(f"there are {len(LETTERS)} letters, and more choices.", rows_, "letters: false")
                )
            said = LETTERS[: len(choices.texts)]
            listed = "".join(f"\n{letter}. {choice}" for letter, choice in zip(said, choices.texts))
            prompt = f"{prompt.removesuffix('Answer:').rstrip()}{listed}\nAnswer:"
        right = choices.right or (answer_index(row, choices.texts, choices.names, where, first=first_answer or 0),)
        return {
            "prompt": prompt, "choices": tuple(f" {choice}" for choice in said), "gold": right[0], "also_right": right[1:],
        }  # fmt: skip

    return build_suite(given, fill, name=name, group_by=group_by, kind=kind, source=source, **shared)


def _special(row: Mapping[str, Any]) -> Callable[[Mapping[str, Any], str], dict[str, Any]] | None:
    """The builder of a benchmark whose rows no plain question would ask rightly; None for all others."""
    if isinstance(row.get("activity_label"), str) and row.get("endings") and ("ctx" in row or "ctx_a" in row):
        return hellaswag_item
    return copa_item if row.get("question") in ("cause", "effect") and row.get("premise") else None


def asked(row: Mapping[str, Any], where: str, ask: str | None) -> str:
    """A row's question as it is asked: by ``ask``, or as a question after its passage."""
    question = str(field(row, "question", where)).strip()
    used = next(name for name in NAMES["question"] if row.get(name) not in (None, ""))
    passage = passage_of(row, (used, "ctx_a") if used == "ctx" else (used,))
    if ask is None:
        text = ASK_QUESTION.replace("{question}", question)
        return f"{passage}\n{text}" if passage else text
    values = {str(name): str(value).strip() for name, value in row.items()}
    values |= {"question": question, "passage": passage or ""}
    return _PLACE.sub(lambda place: values.get(place[1], place[0]), ask)


def _check_question(ask: str, rows: Sequence[Mapping[str, Any]], source: str) -> None:
    """A way of asking has a place for the question, and for the passage where rows have one."""
    places = set(_PLACE.findall(ask))
    if not places & {"question", *NAMES["question"]}:
        raise UsageError(
            explain("the way of asking has no place {question}.", [("ask", repr(ask))], "ask: '{question}'")
        )
    for row in rows[:1]:
        used = next((n for n in NAMES["question"] if row.get(n) not in (None, "")), "")
        left = next((n for n in NAMES["passage"] if n != used and row.get(n) not in (None, "", [], {})), None)
        if left and not (used == "ctx" and left == "ctx_a") and not places & {"passage", left}:
            rows_ = [("suite", source), ("ask", repr(ask)), ("field", left), ("begins", repr(str(row[left])[:60]))]
            fix = f"ask: '{{passage}}\\n{ask}', or take the field out of the file."
            raise UsageError(explain("the way of asking leaves the passage out.", rows_, fix))


def _answer(row: Mapping[str, Any]) -> Any:
    return next((row[name] for name in NAMES["answer"] if row.get(name) not in (None, "")), None)


def _self_named(row: Mapping[str, Any]) -> bool:
    """Whether a row says itself which choice is right or what its choices are called, or its answer is a choice's text."""
    try:
        choices = choices_of(row, "")
    except ItemError:
        return True
    value = _answer(row)
    return bool(choices.right or choices.names) or value is None or str(value).strip() in choices.texts


def _count(row: Mapping[str, Any]) -> int:
    return len(choices_of(row, "").texts)
