"""Activations as a notebook holds them: the store, and what can be read from it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import pandas as pd

from taxlens.activations.store import Store
from taxlens.core.progress import SILENT, Progress
from taxlens.core.result import Result
from taxlens.readout import probe_store, similarity_store


@dataclass(frozen=True, slots=True, repr=False)
class Curve(Result):
    """A labelled table by layer that plots itself.

    Attributes:
        title: what it is, one line.
        figure: which figure draws it.
        frame: the tidy table [rows, columns].
        more: further tables of the same reading, by name.
    """

    figure: ClassVar[str] = "probe"

    title: str
    frame: pd.DataFrame
    more: dict[str, pd.DataFrame]

    def to_frame(self) -> pd.DataFrame:
        """Return the tidy table [rows, columns]."""
        return self.frame

    def __repr__(self) -> str:
        return self.title


class ProbeCurve(Curve):
    """Accuracy of probes by layer, base and aligned, with controls; `.more["probe_drop"]` holds the drops."""

    __slots__ = ()
    figure: ClassVar[str] = "probe"


class SimilarityCurve(Curve):
    """Similarity of the two models by layer; `.more["spectra"]` holds the spectra if asked for."""

    __slots__ = ()
    figure: ClassVar[str] = "similarity"


def open_activations(path: str | Path) -> Activations:
    """Open a store that was captured before.

    Raises:
        StoreError: if it is truncated, foreign or damaged.
    """
    return Activations(Store.open(Path(path)))


class Activations:
    """The paired, labelled activations in a store.

    Example:
        >>> acts = open_activations("runs/demo/activations.h5")     # doctest: +SKIP
        >>> acts.similarity("cka").plot()                             # doctest: +SKIP
    """

    def __init__(self, store: Store, *, progress: Progress = SILENT) -> None:
        self.store = store
        self._progress = progress

    @property
    def rows(self) -> pd.DataFrame:
        """What each row is: suite, template, item, choice, group, labels, token, position."""
        return self.store.rows

    @property
    def labels(self) -> tuple[str, ...]:
        """Labels that can be probed."""
        from taxlens.readout import labels_of

        return labels_of(self.store)

    def probe(
        self, label: str = "all", *, probe: str = "ridge", permutations: int = 199, seed: int = 0, **options: Any
    ) -> ProbeCurve:
        """Return a label's held-out score by layer in both models, with controls and paired drops."""
        labels = "all" if label == "all" else (label,)
        frame, drops = probe_store(
            self.store,
            labels=labels,
            probe=probe,
            permutations=permutations,
            seed=seed,
            progress=self._progress,
            **options,
        )
        shown = frame[frame["control"].fillna("none") == "none"]
        title = f"ProbeCurve({label!r}, {probe}, {shown['layer'].nunique()} layers, {_best(shown)})"
        return ProbeCurve(title, frame, {"probe_drop": drops})

    def similarity(
        self, measures: str | Sequence[str] = "cka", *, spectra: bool = False, seed: int = 0
    ) -> SimilarityCurve:
        """Return similarity measures of matched layers, and the gain and loss spectra if asked for."""
        named = (measures,) if isinstance(measures, str) else tuple(measures)
        frame, found = similarity_store(self.store, measures=named, spectra=spectra, seed=seed, progress=self._progress)
        low, high = frame["value"].min(), frame["value"].max()
        title = f"SimilarityCurve({', '.join(named)}, {frame['layer_base'].nunique()} layers, {low:.3f} to {high:.3f})"
        return SimilarityCurve(title, frame, {"spectra": found})

    def __repr__(self) -> str:
        sites = ", ".join(self.store.sites)
        return f"Activations({self.store.n_rows} rows, sites {sites}, {len(self.labels)} labels)"

    def _repr_html_(self) -> str:
        import html

        counts = self.rows.groupby(["suite", "template", "kind"]).size().rename("rows").reset_index()
        return f"<p><code>{html.escape(repr(self))}</code></p>{counts.to_html(index=False, border=0)}"


def _best(frame: pd.DataFrame) -> str:
    parts = []
    for model in ("base", "aligned"):
        own = frame[(frame["fitted_on"] == model) & (frame["read_on"] == model)]
        if own.empty:
            continue
        row = own.loc[own["value"].idxmax()]
        parts.append(f"{model} {row['value']:.3f} [{row['low']:.3f}, {row['high']:.3f}] at layer {row['layer']}")
    return "; ".join(parts)
