"""The questions that the report answers, in order: each with its lead, its pictures, and what to run where nothing was measured."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from taxlens.report.pictures import Picture
from taxlens.words.run_view import RunView


@dataclass(frozen=True, slots=True)
class Question:
    """A question of the report.

    Args:
        key: anchor on the page.
        title: the question.
        lead: how to read what stands under it.
        groups: headings of figures that belong to it.
        tables: it was answered if the run has one of these.
        absent: what stands there if the run has none of them.
    """

    key: str
    title: str
    lead: str
    groups: tuple[str, ...] = ()
    tables: tuple[str, ...] = ()
    absent: str = ""


QUESTIONS = (
    Question(
        "bill", "How much did it cost?",
        "Tax is base minus aligned on the same items and the same prompt. An interval that holds 0 shows no loss.",
        ("Tax",), ("tax",), "No tax was measured in this run: `taxlens tax RUN` measures it.",
    ),
    Question(
        "where", "Where in the network?",
        "Effects of a method that closes add up to the tax; positive is loss. Layers count from 0: 2.mlp is the MLP of the third block.",
        ("Attribution", "By layer", "Features", "Tokens"), ("attribution", "features"),
        "The tax was not attributed in this run: `taxlens attribute RUN` does it.",
    ),
    Question(
        "state", "Gone or only hidden?",
        "Suppressed: still there, not used. Rotated: there, read by another direction. Erased: no longer readable, and not relearned quickly.",
        ("State", "Probes", "Similarity and spectra"), ("states",),
        "Whether what was lost is gone or only hidden was not tested in this run: `taxlens diagnose RUN` "
        "tests it. Probes and similarity alone cannot tell.",
    ),
    Question(
        "price", "What does it cost to get it back?",
        "Each plan undoes a part of the update. Tax returned and benefit kept are measured on items that the plan was not chosen on.",
        ("Getting it back", "Editors"), ("frontier", "editors"),
        "Not measured in this run: `taxlens frontier RUN` measures what comes back, and what is kept, when parts of the update are undone.",
    ),
    Question("sure", "How sure is this?", "What these numbers can and cannot show. Read it before quoting them."),
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class AnsweredQuestion:
    """A question with what the run has for it: pictures shown, and further ones by heading."""

    key: str
    title: str
    lead: str
    figures: list[Picture]
    folds: list[tuple[str, list[Picture]]]


def answered(
    run: RunView, shown: Sequence[Picture], groups: Sequence[tuple[str, list[Picture]]]
) -> list[AnsweredQuestion]:
    """Return the questions with their pictures.

    Args:
        run: the run; what it lacks is said in its place.
        shown: pictures that are shown at once.
        groups: the others by heading; those under no question's heading stand under the last.
    """
    known = {group for question in QUESTIONS for group in question.groups}
    found = []
    for question in QUESTIONS:
        last = question is QUESTIONS[-1]

        def here(group: str, question: Question = question, last: bool = last) -> bool:
            return group in question.groups or (last and group not in known)

        answered = not question.tables or any(run.has(table) for table in question.tables)
        found.append(
            AnsweredQuestion(
                question.key,
                question.title,
                question.lead if answered else question.absent.replace("RUN", run.folder.name),
                [picture for picture in shown if here(picture.group)],
                [(title, some) for title, some in groups if here(title)],
            )
        )
    return found
