"""What is said of a run's probes."""

from __future__ import annotations

from taxlens.words.latex_text import escaped
from taxlens.words.run_view import RunView
from taxlens.words.suite_rows import is_told, told_row

DECODED = "Similarity and probes read what can be decoded; they do not show what the model uses."


def probe_clauses(run: RunView, suite: str) -> list[str]:
    """Return at which layers the right answer became less decodable, of a suite whose change is told from none."""
    said = _decodable(run, suite) if is_told(told_row(run, suite)) else ""
    return [said] if said else []


def _decodable(run: RunView, suite: str) -> str:
    if not run.has("probe_drop"):
        return ""
    frame = run.table("probe_drop")
    rows = frame[(frame["suite"] == suite) & (frame["label"] == "correct")].dropna(subset=["p_adjusted"])
    if rows.empty:
        return ""
    lost = rows.loc[(rows["p_adjusted"] < 0.05) & (rows["drop"] > 0), "layer"]
    layers = sorted({int(layer) for layer in lost})
    if not layers:
        return f"no probe drop of the right answer at any of {rows['layer'].nunique()} layers"
    return f"the right answer is less decodable at layers {', '.join(map(str, layers))}"


def probe_limits(run: RunView) -> list[str]:
    """Return what probes cannot show."""
    return [DECODED] if run.has("probes") else []


def probe_methods(run: RunView) -> list[str]:
    """Return the methods paragraph of the probes."""
    if not run.has("probes"):
        return []
    section, sites = run.config.probes, ", ".join(escaped(site) for site in run.config.capture.sites)
    return [
        f"\\paragraph{{Probes.}} Activations are read at {sites}, both models on the same tokens. "
        f"Probes ({escaped(section.probe)}) are fitted in folds that keep groups whole; a drop is "
        "tested by swapping the models' rows by group and refitting "
        f"({section.permutations} permutations), with the maximum over layers and labels; shuffled labels "
        "and control tasks \\citep{hewitt2019designing} stand beside."
    ]
