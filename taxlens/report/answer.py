"""The answer: what every stage says of each suite, a short paragraph a suite, from a run's tables."""

from __future__ import annotations

from taxlens.stages import STAGES
from taxlens.words.run_view import RunView
from taxlens.words.suite_rows import by_loss, capital


def headline(run: RunView) -> list[str]:
    """Return the answer: a paragraph for each suite, the one that lost most first, then what alignment was for.

    Args:
        run: a run; what was not measured is not spoken of.
    """
    words = [stage.words for stage in STAGES]
    sentences = []
    for suite in by_loss(run):
        clauses = [clause for one in words if one.clauses for clause in one.clauses(run, suite)]
        first, *others = clauses
        sentences.append(" ".join([f"{first}.", *(f"{capital(clause)}." for clause in others)]))
    sentences += [sentence for one in words if one.closing for sentence in one.closing(run)]
    if sentences:
        return sentences
    return ["The run holds no capability suite." if run.has("tax") else "No tax was measured in this run."]
