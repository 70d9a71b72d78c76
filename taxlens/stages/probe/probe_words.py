"""What is said of a run's probes."""

from __future__ import annotations

from taxlens.words.latex_text import escaped
from taxlens.words.run_view import RunView
from taxlens.words.suite_rows import is_told, told_row

DECODED = "Similarity and probes read what can be decoded; they do not show what the model uses."


def probe_clauses(run: RunView, suite: str) -> list[str]:
    """Return what the probe of the right answer shows of a suite whose change is told from none, or why it shows nothing."""
    said = _decodable(run, suite) if is_told(told_row(run, suite)) else ""
    return [said] if said else []


def _decodable(run: RunView, suite: str) -> str:
    if not run.has("probe_drop"):
        return ""
    frame = run.table("probe_drop")
    rows = frame[(frame["suite"] == suite) & (frame["label"] == "correct")].dropna(subset=["p_adjusted"])
    if rows.empty:
        return ""
    blind = cannot_tell(run, suite)
    if blind:
        return blind
    lost = rows.loc[(rows["p_adjusted"] < 0.05) & (rows["drop"] > 0), "layer"]
    layers = sorted({int(layer) for layer in lost})
    if layers:
        return f"the right answer is less decodable at layers {', '.join(map(str, layers))}"
    count = rows["layer"].nunique()
    if "p_no_loss" in rows and (rows["p_no_loss"] < 0.05).all():
        return f"the right answer is as decodable as before at all {count} layers"
    return f"a probe of the right answer shows no drop at {count} layers, but does not exclude one"


def cannot_tell(run: RunView, suite: str) -> str:
    """Return why the probe of the right answer says nothing of a suite; blank where it does.

    It says nothing where base's best layer does not exceed what position and last token alone read, or where it reads
    no better than chance.
    """
    if not run.has("probes"):
        return ""
    frame = run.table("probes")
    here = (frame["suite"] == suite) & (frame["label"] == "correct") & (frame["fitted_on"] == "base")
    here &= (frame["read_on"] == "base") & (frame["metric"] == "auc")
    control = frame["control"].fillna("none")
    own, confound = frame[here & (control == "none")], frame[here & (control == "confound")]
    if own.empty:
        return ""
    best = own.loc[own["value"].idxmax()]
    if not best["low"] > 0.5:
        return f"the probe of the right answer cannot tell: it reads no better than chance (AUC {best['value']:.2f})"
    if len(confound) and not best["low"] > confound["value"].max():
        return (
            f"the probe of the right answer cannot tell: the last token and the position alone read it at AUC "
            f"{confound['value'].max():.2f}, the best layer at {best['value']:.2f}"
        )
    return ""


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
