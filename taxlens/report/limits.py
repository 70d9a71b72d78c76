"""What a reader of a run must know before quoting it: evidence and limits, from the run's own tables and manifest."""

from __future__ import annotations

from taxlens.stages import STAGES
from taxlens.words.run_view import RunView
from taxlens.words.suite_rows import capital


def limits(run: RunView) -> list[str]:
    """Return sentences on what this run can and cannot show: the run's own, each stage's, then the notes it left."""
    said = [
        "Intervals are 95 % by group bootstrap over items. They generalise to other items of the same kind, not to other "
        "training runs: one pair of checkpoints was compared."
    ]
    said += _small(run)
    said += [sentence for stage in STAGES if stage.words.limits for sentence in stage.words.limits(run)]
    notes = list((run.manifest.get("pair") or {}).get("notes") or [])
    told = any("chat template" in note for note in notes)
    for stage in STAGES:
        left = (run.manifest.get(stage.name) or {}).get("notes") or []
        notes += [note for note in left if not (told and "chat template" in note)]
    return list(dict.fromkeys([*said, *(capital(note).rstrip(".") + "." for note in notes if note)]))


def _small(run: RunView) -> list[str]:
    few = [
        f"{name} ({facts['groups']})" for name, facts in run.manifest["suites"].items() if facts.get("groups", 99) < 20
    ]
    return [f"Suites of fewer than 20 groups, whose intervals are rough: {', '.join(few)}."] if few else []
