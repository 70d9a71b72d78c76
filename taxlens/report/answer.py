"""The answer: what every stage says of each suite, in a sentence a suite, from a run's tables."""

from __future__ import annotations

from taxlens.stages import STAGES
from taxlens.words.run_view import RunView
from taxlens.words.suite_rows import by_loss


def headline(run: RunView) -> list[str]:
    """Return the sentences that answer, the suite that lost most first, each put together from the stages' clauses.

    Args:
        run: a run; what was not measured is not spoken of.
    """
    words = [stage.words for stage in STAGES]
    sentences = []
    for suite in by_loss(run):
        clauses = [clause for one in words if one.clauses for clause in one.clauses(run, suite)]
        sentences.append("; ".join(clauses) + ".")
    sentences += [sentence for one in words if one.closing for sentence in one.closing(run)]
    if sentences:
        return sentences
    return ["The run holds no capability suite." if run.has("tax") else "No tax was measured in this run."]
