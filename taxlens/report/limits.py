"""What a reader of a run must know before quoting it: evidence and limits, from the run's own tables and manifest."""

from __future__ import annotations

from taxlens.figures.run_view import RunView


def limits(run: RunView) -> list[str]:
    """Return sentences on what this run can and cannot show."""
    said = [
        "Intervals are 95 % by group bootstrap over items; they speak of other items of the same kind, not of other "
        "training seeds: one pair of checkpoints was compared."
    ]
    said += _small(run) + _closure(run) + _readouts(run) + _states(run) + _front(run)
    notes = list((run.manifest.get("pair") or {}).get("notes") or [])
    told = any("chat template" in note for note in notes)
    notes += [n for n in (run.manifest.get("tax") or {}).get("notes") or [] if not (told and "chat template" in n)]
    notes += list((run.manifest.get("frontier") or {}).get("notes") or [])
    return [*said, *(note[0].upper() + note[1:].rstrip(".") + "." for note in notes if note)]


def _small(run: RunView) -> list[str]:
    few = [
        f"{name} ({facts['groups']})" for name, facts in run.manifest["suites"].items() if facts.get("groups", 99) < 20
    ]
    return [f"Suites of fewer than 20 groups, whose intervals are rough: {', '.join(few)}."] if few else []


def _closure(run: RunView) -> list[str]:
    if not run.has("closure"):
        return []
    frame = run.table("closure")
    path = frame[frame["method"] == "path"]
    said = [
        f"The path's effects sum to the measured tax to {path['residual'].abs().max():.1e} at worst. Closure "
        "certifies the sum, "
        "not each effect: the quadrature error of each stands in attribution.csv, and the path depends on the "
        "parametrisation."
    ]
    if "closed" in path:
        open_ = path[path["closed"].astype(str) == "False"]
        pairs = [
            f"{suite} ({reason})"
            for suite, reason in open_[["suite", "reason"]].drop_duplicates().itertuples(index=False)
        ]
        said += [f"Not settled by the stopping rule: {'; '.join(pairs)}."] if pairs else []
    return said


def _readouts(run: RunView) -> list[str]:
    if not (run.has("probes") or run.has("similarity")):
        return []
    return ["Similarity and probes read what can be decoded; they do not show what the model uses."]


def _states(run: RunView) -> list[str]:
    if not run.has("states"):
        return []
    frame = run.table("states")
    overall = frame[frame["layer"].isna()]
    return [
        f"{row.suite} is called {row.state} because: {row.reason}."
        for row in overall.itertuples()
        if isinstance(row.reason, str)
    ]


def _front(run: RunView) -> list[str]:
    if not run.has("frontier"):
        return []
    frame = run.table("frontier")
    kinds = ", ".join(sorted(set(frame["held_out"].dropna()))) if "held_out" in frame else "items"
    return [
        "Plans were chosen on one half of the items and measured on the other; held out are "
        f"{kinds}. Returned shares are of the summed tax of the suites that lost."
    ]
