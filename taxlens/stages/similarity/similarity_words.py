"""What is said of a run's similarities and spectra."""

from __future__ import annotations

from taxlens.stages.probe.probe_words import DECODED
from taxlens.words.latex_text import escaped
from taxlens.words.run_view import RunView

_MEASURES = {
    "cka": "debiased CKA \\citep{kornblith2019similarity,nguyen2021wide}", "procrustes": "held-out Procrustes rotation",
    "linear_r2": "held-out linear $R^2$ both ways",
}  # fmt: skip
_MEASURES |= {"drift": "drift of activations (size, angle, shift, rank)", "linear_r2_back": "and back"}


def similarity_limits(run: RunView) -> list[str]:
    """Return what similarity cannot show."""
    return [DECODED] if run.has("similarity") else []


def similarity_methods(run: RunView) -> list[str]:
    """Return the methods paragraph of similarity and spectra."""
    if not run.has("similarity"):
        return []
    names = dict.fromkeys("drift" if n.startswith("drift") else n for n in run.table("similarity")["measure"])
    measures = ", ".join(_MEASURES.get(n, escaped(n.replace("_", " "))) for n in names)
    said = f"\\paragraph{{Similarity.}} Of the two models' activations: {measures}."
    if run.has("spectra") and len(run.table("spectra")):
        said += (
            " Gain spectrum: singular values of the ridge map from base to aligned on base's principal components; "
            "loss spectrum: share of base variance that is no longer linearly recoverable; both against a null band."
        )
    return [said]
