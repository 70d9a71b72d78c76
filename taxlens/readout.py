"""From a store to probes and similarity: which rows, which labels, which groups, one layer in memory at a time."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pandas as pd

from taxlens.activations.store import Store
from taxlens.core.errors import UsageError, explain, one_of
from taxlens.core.progress import SILENT, Progress
from taxlens.probes.gather import gather
from taxlens.probes.labels import ProbeWarning
from taxlens.probes.linear import adjust_family, probe_pair
from taxlens.probes.similarity import similarity
from taxlens.probes.spectra import spectra as spectra_of

logger = logging.getLogger(__name__)
PROMPTS = ("prompt", "text")
PROBE_COLUMNS = [
    "suite", "template", "label", "site", "layer", "probe", "fitted_on", "read_on", "map", "control", "metric", "value",
    "low", "high", "n_items", "n_groups",
]  # fmt: skip
DROP_COLUMNS = ["suite", "template", "label", "site", "layer", "drop", "low", "high", "p", "p_adjusted", "ceiling"]
SIMILARITY_COLUMNS = [
    "suite", "template", "site", "layer_base", "layer_aligned", "measure", "value", "low", "high", "null", "n_items",
]  # fmt: skip
SPECTRA_COLUMNS = ["suite", "template", "site", "layer", "spectrum", "rank", "value", "null_low", "null_high"]


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
    probe: str = "ridge",
    permutations: int = 199,
    seed: int = 0,
    progress: Progress = SILENT,
    **options: Any,
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Probe every label of every suite and template at every site and layer of both models.

    Args:
        store: the store.
        labels: "all", or which labels.
        probe: which probe.
        permutations: swap-and-refit permutations a label.
        seed: of folds, bootstrap and permutations.
        progress: shows label by label.
        options: passed to `probes.linear.probe_pair`.

    Returns:
        probes.csv and probe_drop.csv [rows, columns]. Drops are adjusted over all layers and labels of the store.

    Raises:
        UsageError: if a named label is unknown, or no label can be probed (with each one's reason).
    """
    names = labels_of(store) if labels == "all" else tuple(one_of(n, labels_of(store), what="label") for n in labels)
    keys = store.rows[["suite", "template"]].drop_duplicates().itertuples(index=False)
    cases = [(key.suite, key.template, label, site) for key in keys for label in names for site in store.sites]
    found, reasons = [], []
    with progress.task("probe", total=len(cases), unit="labels") as task:
        for case in cases:
            suite, template, label, site = case
            index, y, groups = label_rows(store, suite=suite, template=template, label=label)
            if len(index):
                try:
                    result = _probe(store, site, index, y, groups, probe, permutations, seed, options)
                    found.append((case, result))
                except UsageError as error:
                    reasons.append((f"{suite}, {template}, {label}", str(error).splitlines()[0]))
                    logger.warning("no probe of %s in %s, %s: %s", label, suite, template, error)
            task.advance(note=f"{suite} {label}")
    if names and not found and reasons:
        raise UsageError(explain("no label of the store can be probed.", reasons))
    return _probe_tables(found)


def _probe(
    store: Store,
    site: str,
    index: np.ndarray,
    y: np.ndarray,
    groups: np.ndarray,
    probe: str,
    permutations: int,
    seed: int,
    options: dict[str, Any],
) -> Any:
    rows = store.rows
    ids = [f"{item}" for item in rows["item"].to_numpy()[index]]
    confounds = {"position": rows["position"].to_numpy()[index], "token": rows["token"].to_numpy()[index]}
    varied = {name: values for name, values in confounds.items() if len(set(values)) > 1}
    given = {"keys": confounds["token"], "confounds": varied or None, "item_ids": ids} | options

    def layers() -> Iterator[tuple[int, np.ndarray, np.ndarray]]:
        for layer in store.layers(site):
            base, aligned = (store.read(site, layer, model=model, rows=index) for model in ("base", "aligned"))
            yield layer, base.reshape(len(index), -1), aligned.reshape(len(index), -1)

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ProbeWarning)  # every warning stands in the result's notes
        return probe_pair(layers, y, groups, probe=probe, permutations=permutations, seed=seed, **given)


def _probe_tables(found: list[tuple[tuple[str, str, str, str], Any]]) -> tuple[pd.DataFrame, pd.DataFrame]:
    if not found:
        return pd.DataFrame(columns=PROBE_COLUMNS), pd.DataFrame(columns=DROP_COLUMNS)
    adjusted = adjust_family([result for _, result in found])
    probes, drops = [], []
    for ((suite, template, label, site), _), result in zip(found, adjusted):
        named = {"suite": suite, "template": template, "label": label, "site": site}
        probes.append(result.to_frame().assign(**named))
        drops.append(result.drop_frame().assign(**named))
    return _ordered(probes, PROBE_COLUMNS), _ordered(drops, DROP_COLUMNS)


def similarity_store(
    store: Store,
    *,
    measures: Sequence[str] = ("cka", "procrustes", "linear_r2", "drift"),
    spectra: bool = False,
    seed: int = 0,
    progress: Progress = SILENT,
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Compare both models' activations at every site and matched layer, all suites together, by template.

    Args:
        store: the store.
        measures: which measures.
        spectra: whether to compute the gain and loss spectra too.
        seed: of intervals and nulls.
        progress: shows layer by layer.

    Returns:
        similarity.csv and spectra.csv [rows, columns]; `suite` is blank: all suites' rows count.
    """
    keep = 4096 if {"mutual_knn", "rsa"} & set(measures) else 0
    rows = store.rows
    templates = list(dict.fromkeys(rows["template"]))
    cases = [(t, site, layer) for t in templates for site in store.sites for layer in store.layers(site)]
    alike, found = [], []
    with progress.task("similarity", total=len(cases), unit="layers") as task:
        for template, site, layer in cases:
            index = np.flatnonzero((rows["template"] == template).to_numpy())
            groups = (rows["suite"].astype(str) + "/" + rows["group"].astype(str)).to_numpy()[index]
            gathered = gather(store.blocks(site, layer, rows=index), groups, keep=keep, seed=seed)
            named = {"suite": "", "template": template, "site": site}
            alike.append(
                similarity(gathered, measures=list(measures), layer=layer, site=site).to_frame().assign(**named)
            )
            if spectra and len(index) >= 8:
                found.append(spectra_of(gathered, layer=layer, site=site).to_frame().assign(**named))
            task.advance(note=f"{site}.{layer}")
    return _ordered(alike, SIMILARITY_COLUMNS), _ordered(found, SPECTRA_COLUMNS)


def _ordered(frames: list[pd.DataFrame], columns: list[str]) -> pd.DataFrame:
    frames = [frame for frame in frames if not frame.empty]
    if not frames:
        return pd.DataFrame(columns=columns)
    joined = pd.concat(frames, ignore_index=True)
    return joined[[*columns, *[c for c in joined.columns if c not in columns]]]
