"""From a store to similarity: matched layers, layer by layer maps, spectra and what their directions are called."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from threading import Lock

import numpy as np
import pandas as pd

from taxlens.activations.store.store import Store
from taxlens.analysis.directions.naming import Vocabulary
from taxlens.core.direction import Direction
from taxlens.core.memory import refuse_beyond_memory
from taxlens.core.parallel import in_order
from taxlens.core.progress import SILENT, Progress
from taxlens.probes.kinds.crossfit import whole_groups
from taxlens.probes.similarity.accumulation import Gathered, gather
from taxlens.probes.similarity.drift import drift_by_position
from taxlens.probes.similarity.layer_map import layer_map
from taxlens.probes.similarity.similarity import similarity
from taxlens.probes.spectra.spectra import Spectra
from taxlens.probes.spectra.spectra import spectra as spectra_of
from taxlens.stages.probe.store_probes import heads_of, ordered
from taxlens.stages.similarity.direction_names import leading_directions, name_directions
from taxlens.stages.similarity.similarity_tables import DIRECTIONS, DRIFT_POSITIONS, SIMILARITY, SPECTRA

MAP_ROWS = 4096

MATRICES = 44
"""Square matrices of a site's width, in float64, that the similarity of one layer holds at most."""


@dataclass(frozen=True, slots=True, eq=False)
class SimilarityTables:
    """What comparing a store gave.

    Args:
        similarity: similarity.csv [rows, columns].
        spectra: spectra.csv.
        positions: drift_positions.csv: drift by token position.
        names: directions.csv: what the directions beyond the null are called.
        found: the spectra behind them, by (template, site).
        centres: mean of base's rows [d] by (template, site, layer).
    """

    similarity: pd.DataFrame
    spectra: pd.DataFrame
    positions: pd.DataFrame
    names: pd.DataFrame
    found: Mapping[tuple[str, str], Spectra]
    centres: Mapping[tuple[str, str, int], np.ndarray]

    def directions(self, template: str, site: str, *, top: int) -> list[Direction]:
        """Return the leading directions beyond the null at every layer of a site, at most `top` a spectrum."""
        spectra = self.found.get((template, site))
        return [] if spectra is None else leading_directions(spectra, top=top)


def similarity_store(
    store: Store,
    *,
    measures: Sequence[str] = ("cka", "procrustes", "linear_r2", "drift"),
    map: Sequence[str] = ("cka",),
    map_rows: int = MAP_ROWS,
    spectra: bool = True,
    name_directions: int = 3,
    probes: Mapping[tuple[str, int], Mapping[str, Direction]] | None = None,
    vocabulary: Vocabulary | None = None,
    heads: bool = True,
    seed: int = 0,
    progress: Progress = SILENT,
) -> SimilarityTables:
    """Compare both models' activations at every site, all suites together, by template.

    Args:
        store: the store.
        measures: measures of matched layers.
        map: measures of every base layer against every aligned layer ("cka" is fast, others are not).
        map_rows: most rows of a map: whole groups, drawn by the seed.
        spectra: whether to compute the gain and loss spectra too.
        name_directions: directions beyond the null to name, a spectrum and layer.
        probes: base's probe directions by (site, layer) and name, to compare directions with.
        vocabulary: base's unembedding, for the tokens that directions of the stream promote.
        heads: compare sites that have heads head by head too.
        seed: of intervals, nulls and samples.
        progress: shows layer by layer.

    Returns:
        The tables; `suite` is blank: all suites' rows count.
    """
    rows = store.rows
    templates = [str(one) for one in dict.fromkeys(rows["template"])]
    places = [(t, site) for t in templates for site in store.sites]
    made: dict[str, list[pd.DataFrame]] = {name: [] for name in ("similarity", "spectra", "positions", "names")}
    found: dict[tuple[str, str], Spectra] = {}
    centres = {}
    reader = _Reader(store, measures, spectra, name_directions, probes or {}, vocabulary, heads, seed)
    with progress.task("similarity", total=sum(len(store.layers(site)) for _, site in places), unit="layers") as task:
        for template, site in places:
            index = np.flatnonzero((rows["template"] == template).to_numpy())
            groups = (rows["suite"].astype(str) + "/" + rows["group"].astype(str)).to_numpy()[index]
            named = {"suite": "", "template": template, "site": site}
            width = int(np.prod(store.shape(site)))
            fix = "leave the site out of capture.sites, or give the machine more memory."
            refuse_beyond_memory(f"similarity at {site}, {width} wide,", MATRICES * 8 * width**2, fix)
            work = partial(reader.layer, site, index=index, groups=groups)
            for layer, one in zip(
                store.layers(site), in_order(work, store.layers(site), most=2, width=width), strict=True
            ):
                for name, frame in one.frames.items():
                    made[name].append(frame.assign(**named))
                if one.spectra is not None:
                    found[template, site] = (
                        found[template, site] + one.spectra if (template, site) in found else one.spectra
                    )
                    centres[template, site, layer] = one.centre
                task.advance(note=f"{site}.{layer}")
            for measure in map:
                table = _map(store, site, index, groups, measure, map_rows, seed, progress)
                made["similarity"].append(table.assign(**named))
    return SimilarityTables(
        _without_twins(ordered(made["similarity"], SIMILARITY)),
        ordered(made["spectra"], SPECTRA),
        ordered(made["positions"], DRIFT_POSITIONS),
        ordered(made["names"], DIRECTIONS),
        found,
        centres,
    )


@dataclass(frozen=True, slots=True, eq=False)
class _Layer:
    """What one matched layer gives: frames by table, its spectra, base's mean row."""

    frames: dict[str, pd.DataFrame]
    spectra: Spectra | None
    centre: np.ndarray


class _Reader:
    """Reads matched layers of a store, several at once; only one reads the file at a time."""

    def __init__(
        self,
        store: Store,
        measures: Sequence[str],
        spectra: bool,
        name_top: int,
        probes: Mapping[tuple[str, int], Mapping[str, Direction]],
        vocabulary: Vocabulary | None,
        heads: bool,
        seed: int,
    ) -> None:
        self.store, self.measures, self.spectra, self.name_top = store, list(measures), spectra, name_top
        self.probes, self.vocabulary, self.heads, self.seed = probes, vocabulary, heads, seed
        self.keep = 4096 if {"mutual_knn", "rsa"} & set(measures) else 0
        self.positions = store.rows["position"].to_numpy()
        self.lock = Lock()

    def layer(self, site: str, layer: int, *, index: np.ndarray, groups: np.ndarray) -> _Layer:
        """Return everything of one matched layer, in one pass over its rows (one more a head)."""
        heads = heads_of(self.store, site, wanted=self.heads)
        whole = self._gather(site, layer, None, index, groups)
        alike = []
        for head in heads if self.measures else ():
            gathered = whole if head is None else self._gather(site, layer, head, index, groups)
            options = {"measures": self.measures, "layer": layer, "site": site, "seed": self.seed}
            alike.append(similarity(gathered, **options).to_frame().assign(head=head))
        frames = {
            "similarity": pd.concat(alike, ignore_index=True) if alike else pd.DataFrame(),
            "positions": _positions(whole, self.measures).assign(layer=layer),
        }
        got = spectra_of(whole, layer=layer, site=site, seed=self.seed) if self.spectra and len(index) >= 8 else None
        if got is not None:
            frames["spectra"] = got.to_frame()
            known = self.probes.get((site, layer), {})
            with self.lock:
                args = (self.store, index, groups, got, whole, self.name_top, known, self.vocabulary)
                frames["names"] = name_directions(*args)
        return _Layer(frames, got, whole.total.mean_x())

    def _gather(self, site: str, layer: int, head: int | None, index: np.ndarray, groups: np.ndarray) -> Gathered:
        blocks = self._blocks(site, layer, index)
        return gather(
            blocks, groups, positions=self.positions[index], head=head, keep=self.keep, seed=self.seed
        )  # fmt: skip

    def _blocks(self, site: str, layer: int, index: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        blocks = self.store.blocks(site, layer, rows=index)
        while True:
            with self.lock:
                block = next(blocks, None)
            if block is None:
                return
            yield block


def _positions(gathered: Gathered, measures: Sequence[str]) -> pd.DataFrame:
    if "drift" not in measures:
        return pd.DataFrame()
    places = drift_by_position(gathered.drift)
    rows = [(place.position, place.cosine, place.relative_norm, place.n) for place in places]
    return pd.DataFrame(rows, columns=["position", "cosine", "relative_norm", "n_items"])


def _map(
    store: Store,
    site: str,
    index: np.ndarray,
    groups: np.ndarray,
    measure: str,
    most: int,
    seed: int,
    progress: Progress,
) -> pd.DataFrame:
    """Return one measure of every base layer against every aligned layer."""
    chosen = whole_groups(np.unique(groups, return_inverse=True)[1], np.arange(len(index)), most=most, seed=seed)
    layers = store.layers(site)
    readers = [
        lambda layer, model=model: store.read(site, layer, model=model, rows=index[chosen])
        for model in ("base", "aligned")
    ]
    options = {"groups": groups[chosen], "measure": measure, "site": site, "seed": seed, "progress": progress}
    return layer_map(*readers, layers, **options).to_frame().assign(head=None)


def _without_twins(frame: pd.DataFrame) -> pd.DataFrame:
    """A map's diagonal that repeats a matched layer, which has more rows behind it, is left out."""
    keys = ["template", "site", "layer_base", "layer_aligned", "measure", "head"]
    return frame.drop_duplicates([key for key in keys if key in frame], ignore_index=True)
