"""One layer of a pair by its online code: how many bits a label costs given base's rows and given aligned's."""

from __future__ import annotations

import numpy as np

from taxlens.core.errors import UsageError, explain
from taxlens.probes.kinds.crossfit import RidgeFits
from taxlens.probes.kinds.mdl import code_bits, compression_draws
from taxlens.probes.pair.controls import row_notes
from taxlens.probes.pair.layer import MODELS, LayerOutcome, LayerPlan, direction_cosines, fitted_probes, tested_drop
from taxlens.probes.pair.result import LayerDrop, ProbeRow
from taxlens.probes.pair.scores import Score
from taxlens.probes.pair.significance import choose_test
from taxlens.probes.pair.swap import row_cosine
from taxlens.probes.rows.labels import Labels


def code_readings(plan: LayerPlan, X: np.ndarray, labels: Labels) -> dict[str, Score]:
    """Return `compression` (uniform over online bits; about 1 where nothing is read) and `code_length` in bits.

    Args:
        plan: what stays the same over layers.
        X: [n, d] rows.
        labels: the plan's, or a shuffled copy.
    """
    group, weights = plan.folds.groups, plan.meter.weights
    bits = code_bits(X, labels, group, seed=plan.seed)
    uniform = float(np.log2(len(labels.classes)))
    drawn = compression_draws(bits, uniform, group, weights)
    length = weights @ np.bincount(group, weights=bits)
    return {
        "compression": Score(float(uniform * len(bits) / bits.sum()), drawn),
        "code_length": Score(float(bits.sum()), length),
    }


def code_layer(plan: LayerPlan, layer: int, X: np.ndarray, Y: np.ndarray) -> LayerOutcome:
    """Return the codes of one layer, their drop in compression, and its test.

    Each model is coded by itself: the same groups are sent in the same order. The drop is tested as for every
    other kind of probe, by swap-and-refit of ridge probes (their AUC), which share the code's penalties' rule.

    Args:
        plan: what stays the same over layers.
        layer: block index.
        X: [n, d] base rows with a label; Y: [n, d] aligned rows.

    Raises:
        UsageError: for regression labels, or maps, which a code has no use for.
    """
    if plan.maps:
        raise UsageError(explain("the online code reads no mapped rows.", [("maps", plan.maps)], "probe='ridge'."))
    data = dict(zip(MODELS, (X, Y), strict=True))
    notes = [note for model in MODELS for note in row_notes(data[model], plan.folds.groups, layer=layer, model=model)]
    rows: list[ProbeRow] = []
    readings: dict[tuple[str, str, str], Score] = {}
    counts = (len(plan.labels), plan.folds.n_groups)
    for model in MODELS:
        found = code_readings(plan, data[model], plan.labels)
        readings[model, model, "none"] = found["compression"]
        for control, measured in (("none", found), *(("shuffled", m) for m in _shuffled(plan, data[model]))):
            for metric, value in measured.items():
                ends = value.interval(plan.level)
                rows.append(
                    ProbeRow(plan.probe, model, model, "none", control, layer, metric, value.value, *ends, *counts)
                )
    targets = [plan.labels.targets()]
    fits = {m: RidgeFits(data[m], targets, plan.folds, penalties=plan.penalties, seed=plan.seed) for m in MODELS}
    drop = _drop(plan, layer, data, fits, readings)
    return LayerOutcome(rows, drop, fitted_probes(plan, layer, fits), readings, notes)


def _shuffled(plan: LayerPlan, X: np.ndarray) -> list[dict[str, Score]]:
    """The readings of one shuffled copy of the label, if there is any."""
    return [code_readings(plan, X, labels) for labels in plan.shuffles[:1]]


def _drop(
    plan: LayerPlan,
    layer: int,
    data: dict[str, np.ndarray],
    fits: dict[str, RidgeFits],
    readings: dict[tuple[str, str, str], Score],
) -> LayerDrop:
    drop = readings["base", "base", "none"].minus(readings["aligned", "aligned", "none"])
    drift = row_cosine(*data.values())
    cosine, ceiling = direction_cosines(plan, fits)
    test, p, statistic, null = "none", float("nan"), drop.value, np.zeros(0)
    if len(plan.flips):
        test = choose_test(drift, plan.test)
        p, statistic, null = tested_drop(plan, test, data, fits, [_auc(plan, fits[m], data[m]) for m in MODELS])
    return LayerDrop(layer, drop, p, p, test, statistic, null, cosine, ceiling, float("nan"), drift)


def _auc(plan: LayerPlan, fits: RidgeFits, X: np.ndarray) -> Score:
    scores = np.empty((len(X), fits.blocks[0].stop))
    for fold, (_, test) in enumerate(plan.folds):
        scores[test] = fits.read(fold, X[test])
    return plan.meter.main(scores)
