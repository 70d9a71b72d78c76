"""From a store to probes: which rows, which labels, which groups, one layer in memory at a time."""

from __future__ import annotations

import logging
import re
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from taxlens.activations.store.store import Store
from taxlens.core.errors import UsageError, explain, one_of
from taxlens.core.progress import SILENT, Progress
from taxlens.core.table import Table
from taxlens.probes.pair.probe_pair import adjust_family, probe_pair
from taxlens.probes.pair.result import PairProbe
from taxlens.probes.rows.labels import ProbeWarning
from taxlens.stages.probe.probe_files import save_probes
from taxlens.stages.probe.probe_tables import PROBE_DROP, PROBES

logger = logging.getLogger(__name__)
PROMPTS = ("prompt", "text")


class Case(NamedTuple):
    """What one probing reads: a label of a suite in a template, at a site, of one head or (None) whole rows."""

    suite: str
    template: str
    label: str
    site: str
    head: int | None = None

    @property
    def file(self) -> str:
        """Name of its file of probes."""
        parts = [*self[:4], *([] if self.head is None else [f"h{self.head}"])]
        return "_".join(re.sub(r"[^\w.-]", "-", part) for part in parts) + ".safetensors"


@dataclass(frozen=True, slots=True, eq=False)
class ProbeTables:
    """What probing a store gave.

    Args:
        probes: probes.csv [rows, columns].
        drops: probe_drop.csv [rows, columns], p adjusted over all layers, heads and labels of the store.
        found: the results behind them, with their fitted probes and notes.
    """

    probes: pd.DataFrame
    drops: pd.DataFrame
    found: tuple[tuple[Case, PairProbe], ...]

    def save(self, folder: Path | str) -> list[Path]:
        """Write every case's fitted probes as safetensors and JSON into a folder and return the paths."""
        return [
            save_probes(result.probes, Path(folder) / case.file, about=case._asdict())
            for case, result in self.found
            if result.probes
        ]


def heads_of(store: Store, site: str, *, wanted: bool) -> tuple[int | None, ...]:
    """Return what to read of a site's rows: None for whole rows, then each head where rows have heads."""
    shape = store.shape(site)
    return (None, *(range(shape[0]) if wanted and len(shape) == 2 else ()))


def labels_of(store: Store) -> tuple[str, ...]:
    """Return the labels that a store's rows carry: the items' own, and `correct` where items have choices."""
    rows = store.rows
    own = [column.removeprefix("label.") for column in rows.columns if column.startswith("label.")]
    return (*(("correct",) if rows["correct"].notna().any() else ()), *own)


def label_rows(store: Store, *, suite: str, template: str, label: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return what probing a label of a suite reads.

    `correct` is read at the last token of gold and foil rows; every other label at prompt and text rows.

    Args:
        store: the store.
        suite: which suite.
        template: which template.
        label: which label.

    Returns:
        Row numbers [n], the labels' values [n], the groups [n]; all empty if no such row carries the label.
    """
    rows = store.rows
    here = (rows["suite"] == suite) & (rows["template"] == template)
    if label == "correct":
        here &= rows["kind"].isin(["gold", "foil"]) & rows["correct"].notna()
        values = rows["correct"]
    else:
        column = f"label.{label}"
        values = rows[column] if column in rows else pd.Series([None] * len(rows), index=rows.index)
        here &= rows["kind"].isin(PROMPTS) & values.notna()
    index = np.flatnonzero(here.to_numpy())
    return index, values.to_numpy()[index], rows["group"].to_numpy()[index]


def probe_store(
    store: Store,
    *,
    labels: str | Sequence[str] = "all",
    probe: Any = "ridge",
    permutations: int = 199,
    heads: bool = True,
    seed: int = 0,
    progress: Progress = SILENT,
    **options: Any,
) -> ProbeTables:
    """Probe every label of every suite and template at every site and layer of both models.

    Args:
        store: the store.
        labels: "all", or which labels.
        probe: a kind of probe by name, or an estimator with fit and predict.
        permutations: swap-and-refit permutations a label.
        heads: read sites that have heads head by head too.
        seed: of folds, bootstrap and permutations.
        progress: shows label by label.
        options: passed to `probes.linear.probe_pair`.

    Raises:
        UsageError: if a named label is unknown, or no label can be probed (with each one's reason).
    """
    names = labels_of(store) if labels == "all" else tuple(one_of(n, labels_of(store), what="label") for n in labels)
    keys = store.rows[["suite", "template"]].drop_duplicates().itertuples(index=False)
    places = [(site, head) for site in store.sites for head in heads_of(store, site, wanted=heads)]
    cases = [Case(str(k.suite), str(k.template), n, s, h) for k in keys for n in names for s, h in places]
    found, reasons = [], []
    with progress.task("probe", total=len(cases), unit="labels") as task:
        for case in cases:
            rows = label_rows(store, suite=case.suite, template=case.template, label=case.label)
            if len(rows[0]):
                try:
                    found.append((case, _probe(store, case, *rows, probe, permutations, seed, options)))
                except UsageError as error:
                    reasons.append((f"{case.suite}, {case.template}, {case.label}", str(error).splitlines()[0]))
                    logger.warning("no probe of %s in %s, %s: %s", case.label, case.suite, case.template, error)
            task.advance(note=f"{case.suite} {case.label}")
    if names and not found and reasons:
        raise UsageError(explain("no label of the store can be probed.", reasons))
    return _tables(found)


def _probe(
    store: Store,
    case: Case,
    index: np.ndarray,
    y: np.ndarray,
    groups: np.ndarray,
    probe: Any,
    permutations: int,
    seed: int,
    options: dict[str, Any],
) -> PairProbe:
    rows = store.rows
    ids = [f"{item}" for item in rows["item"].to_numpy()[index]]
    confounds = {"position": rows["position"].to_numpy()[index], "token": rows["token"].to_numpy()[index]}
    varied = {name: values for name, values in confounds.items() if len(set(values)) > 1}
    given = {"keys": confounds["token"], "confounds": varied or None, "item_ids": ids} | options

    def layers() -> Iterator[tuple[int, np.ndarray, np.ndarray]]:
        for layer in store.layers(case.site):
            base, aligned = (store.read(case.site, layer, model=model, rows=index) for model in ("base", "aligned"))
            if case.head is not None:
                base, aligned = base[:, case.head], aligned[:, case.head]
            yield layer, base.reshape(len(index), -1), aligned.reshape(len(index), -1)

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ProbeWarning)  # every warning stands in the result's notes
        return probe_pair(layers, y, groups, probe=probe, permutations=permutations, seed=seed, **given)


def _tables(found: list[tuple[Case, PairProbe]]) -> ProbeTables:
    if not found:
        return ProbeTables(PROBES.frame([]), PROBE_DROP.frame([]), ())
    adjusted = [(case, result) for (case, _), result in zip(found, adjust_family([r for _, r in found]), strict=True)]
    probes = [result.to_frame().assign(**case._asdict()) for case, result in adjusted]
    drops = [result.drop_frame().assign(**case._asdict()) for case, result in adjusted]
    for case, result in adjusted:
        for note in result.notes:
            logger.info("probe of %s in %s, %s: %s", case.label, case.suite, case.template, note)
    return ProbeTables(ordered(probes, PROBES), ordered(drops, PROBE_DROP), tuple(adjusted))


def ordered(frames: Sequence[pd.DataFrame], table: Table) -> pd.DataFrame:
    """Return frames [rows, columns] stacked as a table has them; `head` as a whole number or blank."""
    joined = table.join(frame.astype({"head": "Int64"}) if "head" in frame else frame for frame in frames)
    return joined[[name for name in table.names if name in joined]]
