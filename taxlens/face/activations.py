"""Activations as a notebook holds them: the store, and what can be read from it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pandas as pd

from taxlens.activations.store.store import Store
from taxlens.core.direction import Direction
from taxlens.core.errors import UsageError, explain, one_of
from taxlens.core.progress import SILENT, Progress
from taxlens.core.result import Result
from taxlens.face.layer_arrays import LayerArrays, chosen_layers
from taxlens.face.notebook_progress import face_progress
from taxlens.probes.pair.result import PairProbe
from taxlens.stages.probe.probe_section import ProbeSection
from taxlens.stages.probe.store_probes import ProbeTables, probe_store
from taxlens.stages.section import asked
from taxlens.stages.similarity.similarity_section import SimilaritySection
from taxlens.stages.similarity.store_similarity import SimilarityTables, similarity_store


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


@dataclass(frozen=True, slots=True, repr=False)
class ProbeCurve(Curve):
    """Accuracy of probes by layer, base and aligned, with controls; `.more["probe_drop"]` holds the drops.

    Attributes:
        tables: everything behind it: each label's result, with its fitted probes.
    """

    figure: ClassVar[str] = "probe"

    tables: ProbeTables

    def shown_frame(self) -> pd.DataFrame:
        """One row a layer of each label: the leading score of both models."""
        frame = self.frame
        metric = next((name for name in HEADLINES if (frame["metric"] == name).any()), "")
        own = (frame["metric"] == metric) & (frame["fitted_on"] == frame["read_on"])
        for column in ("control", "map"):
            own &= (frame[column].fillna("none") == "none") if column in frame else True
        where = [name for name in ("suite", "template", "label", "site", "head", "layer") if name in frame]
        where = [name for name in where if frame.loc[own, name].notna().any()]
        rows = frame[own].set_index([*where, "read_on"])["value"].unstack("read_on").reset_index()
        rows.columns.name = None
        return rows.rename(columns={model: f"{metric}, {model}" for model in ("base", "aligned")})

    def companions(self) -> dict[str, pd.DataFrame]:
        """Return the drops, which the figure marks layers by."""
        return self.more

    @property
    def results(self) -> dict[tuple[object, ...], PairProbe]:
        """The result of each (suite, template, label, site, head): its probes, directions, notes, joint draws."""
        return {tuple(case): result for case, result in self.tables.found}

    def save(self, folder: str | Path) -> list[Path]:
        """Write the fitted probes as safetensors and JSON and return the paths (`taxlens.stages.probe.probe_files.load_probes`)."""
        return self.tables.save(folder)


@dataclass(frozen=True, slots=True, repr=False)
class SimilarityCurve(Curve):
    """Similarity of the two models by layer; `.more` holds spectra, drift_positions and directions (names).

    Attributes:
        tables: everything behind it, with the spectra.
    """

    figure: ClassVar[str] = "similarity"

    tables: SimilarityTables

    def directions(self, *, template: str = "plain", site: str = "resid_post", top: int = 3) -> list[Direction]:
        """Return the directions beyond the null of the spectra, at most `top` a spectrum and layer."""
        return self.tables.directions(template, site, top=top)


class SimilarityMap(SimilarityCurve):
    """Similarity of every base layer and every aligned layer."""

    __slots__ = ()
    figure: ClassVar[str] = "similarity_map"


def open_activations(path: str | Path) -> Activations:
    """Open a store that was captured before.

    Raises:
        StoreError: if it is truncated, foreign or damaged.
    """
    return Activations(Store.open(Path(path)), progress=face_progress())


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

    def __getitem__(self, address: Any) -> LayerArrays:
        """Return the activations of both models at an address: `acts["resid_post", 7]`, `acts["resid_post", 2:5]`.

        A site alone stands for all of its layers. The result is read when it is asked for an array:
        `.to_numpy("base")`, `.to_torch()`, `.to_xarray()`, `.to_anndata()`; `.rows` says what each row is.

        Raises:
            UsageError: for a site or layer that the store does not hold.
        """
        site, layers = address if isinstance(address, tuple) else (address, slice(None))
        chosen, single = chosen_layers(self.store, site, layers)
        held = self.store.layers(site)
        for layer in chosen:
            if layer not in held:
                asked = [("site", site), ("layer", layer), ("held", f"{held[0]} to {held[-1]} ({len(held)})")]
                raise UsageError(explain("the store does not hold this layer.", asked, f"acts[{site!r}, {held[0]}]"))
        return LayerArrays(self.store, site, chosen, np.arange(self.store.n_rows), single)

    @property
    def labels(self) -> tuple[str, ...]:
        """Labels that can be probed."""
        from taxlens.stages.probe.store_probes import labels_of

        return labels_of(self.store)

    def probe(self, label: str = "all", *, probe: Any = None, seed: int = 0, **options: Any) -> ProbeCurve:
        """Return a label's held-out score by layer in both models, with controls and paired drops.

        Args:
            label: one of `labels`, or "all".
            probe: "ridge", "logistic", "diff_of_means", "lda", "mlp", "mdl", or an estimator with fit and predict
                (scikit-learn's), cloned for every fold; by default the config's.
            seed: of folds, intervals and permutations.
            options: of the config's section `probes` (permutations, heads), and of `probes.pair.probe_pair.probe_pair`.

        Raises:
            UsageError: for an unknown label or probe, or a label that cannot be probed.
        """
        shared = {name: options.pop(name) for name in ("permutations", "heads") if name in options}
        shared |= {"probe": probe} if isinstance(probe, str) else {}
        chosen = asked(ProbeSection, shared | {"labels": "all" if label == "all" else (label,)}, probe_store)
        chosen |= {"probe": probe} if probe is not None else {}
        found = probe_store(self.store, **chosen, seed=seed, progress=self._progress, **options)
        probe = chosen["probe"]
        shown = found.probes[found.probes["control"].fillna("none") == "none"]
        kind = probe if isinstance(probe, str) else type(probe).__name__
        title = f"ProbeCurve({label!r}, {kind}, {shown['layer'].nunique()} layers, {_best(shown)})"
        return ProbeCurve(title, found.probes, {"probe_drop": found.drops}, found)

    def similarity(
        self,
        measures: str | Sequence[str] | None = None,
        *,
        layers: str = "matched",
        seed: int = 0,
        **options: Any,
    ) -> SimilarityCurve:
        """Return similarity measures by layer, and the gain and loss spectra if asked for.

        Args:
            measures: one name or several (see `probes.similarity.similarity`); by default the config's.
            layers: "matched", or "all": every base layer against every aligned layer (debiased CKA is fast there).
            seed: of intervals and nulls.
            options: of the config's section `similarity`: spectra, name_directions.

        Raises:
            UsageError: if a measure or option is unknown, or `layers` is neither.

        Example:
            >>> acts.similarity("cka", layers="all").plot()               # doctest: +SKIP
        """
        given = {} if measures is None else {"measures": (measures,) if isinstance(measures, str) else tuple(measures)}
        every = one_of(layers, ("matched", "all"), what="layers") == "all"
        chosen = asked(SimilaritySection, options | given, similarity_store)
        chosen |= {"measures": (), "map": chosen["measures"]} if every else {"map": ()}
        found = similarity_store(self.store, **chosen, seed=seed, progress=self._progress)
        frame = found.similarity
        spans = (
            [f"{name} {_span(frame, name)}" for name in dict.fromkeys(frame["measure"])] if len(frame) else ["no rows"]
        )
        count = frame["layer_base"].nunique()
        words = f"{count} x {frame['layer_aligned'].nunique()}" if every else f"{count}"
        title = f"SimilarityCurve({words} layers, {', '.join(spans)})"
        more = {"spectra": found.spectra, "drift_positions": found.positions, "directions": found.names}
        return (SimilarityMap if every else SimilarityCurve)(title, frame, more, found)

    def __dir__(self) -> list[str]:
        return [name for name in super().__dir__() if not name.startswith("_")]

    def __repr__(self) -> str:
        sites = ", ".join(self.store.sites)
        return f"Activations({self.store.n_rows} rows, sites {sites}, {len(self.labels)} labels)"

    def _repr_html_(self) -> str:
        import html

        counts = self.rows.groupby(["suite", "template", "kind"]).size().rename("rows").reset_index()
        return f"<p><code>{html.escape(repr(self))}</code></p>{counts.to_html(index=False, border=0)}"


def _span(frame: pd.DataFrame, measure: str) -> str:
    values = frame.loc[frame["measure"] == measure, "value"]
    return f"{values.min():.3f} to {values.max():.3f}"


HEADLINES = ("auc", "compression", "r2", "balanced_accuracy")
"""The score that a probe leads with: the first of these that it has."""


def _best(frame: pd.DataFrame) -> str:
    metric = next((name for name in HEADLINES if (frame["metric"] == name).any()), "")
    parts = []
    for model in ("base", "aligned"):
        own = frame[(frame["fitted_on"] == model) & (frame["read_on"] == model) & (frame["metric"] == metric)]
        if own["value"].notna().any():
            row = own.loc[own["value"].idxmax()]
            span = f"[{row['low']:.3f}, {row['high']:.3f}]"
            parts.append(f"{model} {metric} {row['value']:.3f} {span} at layer {int(row['layer'])}")
    return "; ".join(parts)
