"""How figures look: venue widths, type that venues accept, colours that survive grey and colour blindness."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import matplotlib as mpl
import pandas as pd
from matplotlib.figure import Figure

from taxlens.analysis.scoring.metrics import shown_metric
from taxlens.core.errors import one_of
from taxlens.core.vocabularies import VENUES, WIDTHS
from taxlens.words.amounts import unit_of

# Okabe and Ito (2008): told apart with every common colour blindness; here ordered by falling contrast on white.
BLUE, ORANGE, GREEN, PURPLE, SKY, RED, YELLOW, GREY = (
    "#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#A0312F", "#E69F00", "#7F7F7F",
)  # fmt: skip
SERIES = (
    (BLUE, "o", "-"),
    (ORANGE, "s", "--"),
    (GREEN, "^", "-."),
    (PURPLE, "D", ":"),
    (SKY, "v", "-"),
    (YELLOW, "P", "--"),
)
BLACK = "#000000"
KINDS = {"attn": BLUE, "mlp": ORANGE, "norm": GREEN, "embed": PURPLE, "unembed": SKY, "selection": YELLOW}
DIVERGING = "PuOr"

_RULES: dict[str, Any] = {
    "pdf.fonttype": 42,
    "ps.fonttype": 42,
    "svg.fonttype": "path",
    "svg.hashsalt": "taxlens",
    "font.family": "STIXGeneral",
    "mathtext.fontset": "stix",
    "font.size": 8,
    "axes.titlesize": 8,
    "axes.labelsize": 8,
    "xtick.labelsize": 7,
    "ytick.labelsize": 7,
    "legend.fontsize": 7,
    "axes.linewidth": 0.6,
    "lines.linewidth": 1.0,
    "lines.markersize": 3.0,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "legend.frameon": False,
    "figure.dpi": 110,
    "savefig.dpi": 200,
    "figure.constrained_layout.use": True,
}


@dataclass(frozen=True, slots=True, eq=False)
class Drawn:
    """A drawn figure, exactly the numbers it shows [rows, columns], and its caption."""

    figure: Figure
    plotted: pd.DataFrame
    caption: str

    def _repr_png_(self) -> bytes:
        import io

        stream = io.BytesIO()
        with paper_style():
            self.figure.savefig(stream, format="png", dpi=150)
        return stream.getvalue()


@contextmanager
def paper_style() -> Iterator[None]:
    """Draw inside this block with the rules above; the caller's settings come back afterwards."""
    with mpl.rc_context():
        mpl.rcdefaults()
        mpl.rcParams.update(_RULES)  # type: ignore[call-overload]
        yield


def width_of(venue: str = "neurips", width: str = "page") -> float:
    """Return the width in inches of a column or page at a venue.

    Raises:
        UsageError: if the venue or the width is not known.
    """
    one_of(venue, list(VENUES), what="venue")
    return VENUES[venue][WIDTHS.index(one_of(width, WIDTHS, what="width"))]


_WRITTEN = {
    "auc": "AUC", "cka": "CKA", "cca": "CCA", "svcca": "SVCCA", "pwcca": "PWCCA", "gulp": "GULP", "rsa": "RSA", "r2": "R²",
    "mdl": "MDL", "knn": "kNN",
}  # fmt: skip


def written(name: str) -> str:
    """Return a table's name of a measure or metric as a paper writes it: "linear_r2" is "linear R²"."""
    return shown_metric(name).words or " ".join(_WRITTEN.get(part, part) for part in name.split("_"))


def effect_label(what: str, metric: str, *, width: float) -> str:
    """Return an axis label such as "effect on NLL (nats); positive is loss", short where the figure is a column wide."""
    unit = unit_of(metric)[0]
    label = f"{what} {written(metric)}{f' ({unit})' if unit else ''}"
    return label if width < 4.5 else f"{label}; positive is loss"


def new_figure(width: float, height: float) -> Figure:
    """Return an empty figure of the given size in inches (outside pyplot: nothing global)."""
    figure = Figure(figsize=(width, height), layout="constrained")
    figure.get_layout_engine().set(w_pad=0.06, wspace=0.05)  # type: ignore[union-attr]
    return figure


def interval_words(n_items: object, n_groups: object, *, level: float = 0.95) -> str:
    """Return the caption's words on intervals: which, and of how many items and groups."""
    return f"{100 * level:.0f} % intervals by group bootstrap over {n_items} items in {n_groups} groups"
