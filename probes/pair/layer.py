"""One layer of a pair: fit in both models, read in both, with controls, maps, directions and the drop's test."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from taxlens.probes.kinds.cross_validation import rows_of
from taxlens.probes.kinds.probe import Probe
from taxlens.probes.kinds.registry import fit_folds
from taxlens.probes.pair.controls import row_notes, without_massive
from taxlens.probes.pair.result import LayerDrop, ProbeRow
from taxlens.probes.pair.scores import Evaluator, Score
from taxlens.probes.pair.significance import choose_test, corrected_t, equivalence_p, permutation_p
from taxlens.probes.pair.swap import fold_differences, row_cosine, swap_layer
from taxlens.probes.pair.transfer import fold_map
from taxlens.probes.rows.calibration import fit_calibration
from taxlens.probes.rows.folds import Folds
from taxlens.probes.rows.labels import Labels

MODELS = ("base", "aligned")
_REPEATS = 10


@dataclass(frozen=True, slots=True, eq=False)
class LayerPlan:
    """What stays the same over layers.

    Args:
        probe: name of the kind of probe; fitted: what is fitted, that name or an estimator.
        n_rows: rows given, with a label or not.
        labels: of the kept rows.
        folds: of the kept rows.
        shuffles: shuffled copies of the labels.
        task: control task, or None.
        meter: of the labels; task_meter: of the control task.
        maps: maps after which the aligned rows are read too.
        flips: [permutations, groups].
        penalties: relative penalties.
        test: "auto", "swap" or "corrected_t".
        seed: of everything random.
        level: of intervals.
    """

    probe: str
    fitted: Any
    n_rows: int
    labels: Labels
    folds: Folds
    shuffles: tuple[Labels, ...]
    task: Labels | None
    meter: Evaluator
    shuffle_meters: tuple[Evaluator, ...]
    task_meter: Evaluator | None
    maps: tuple[str, ...]
    flips: np.ndarray
    penalties: Sequence[float]
    test: str
    seed: int
    level: float

    def every_label(self) -> list[Labels]:
        """Return the label vectors to fit: the label, its shuffled copies, the control task."""
        return [self.labels, *self.shuffles, *([self.task] if self.task is not None else [])]


@dataclass(frozen=True, slots=True, eq=False)
class LayerOutcome:
    """What one layer gave."""

    rows: list[ProbeRow]
    drop: LayerDrop
    probes: dict[tuple[str, int], Probe]
    readings: dict[tuple[str, str, str], Score]
    notes: list[tuple[str, str]]


def probe_layer(plan: LayerPlan, layer: int, X: np.ndarray, Y: np.ndarray) -> LayerOutcome:
    """Return everything one layer gives.

    Args:
        plan: what stays the same over layers.
        layer: block index.
        X: [n, d] base rows with a label; Y: [n, d] aligned rows.
    """
    data = dict(zip(MODELS, (X, Y), strict=True))
    notes = [note for model in MODELS for note in row_notes(data[model], plan.folds.groups, layer=layer, model=model)]
    fits = {
        model: fit_folds(
            plan.fitted, data[model], plan.every_label(), plan.folds, penalties=plan.penalties, seed=plan.seed
        )
        for model in MODELS
    }
    rows: list[ProbeRow] = []
    readings: dict[tuple[str, str, str], Score] = {}
    for fitted in MODELS:
        for read in MODELS:
            scores, probabilities = _out_of_fold(plan, fits[fitted], data[read], own=fitted == read)
            measured = plan.meter.measure(scores[:, fits[fitted].blocks[0]], probabilities)
            readings[fitted, read, "none"] = measured[plan.meter.main_metric]
            rows += [_row(plan, layer, fitted, read, metric, value) for metric, value in measured.items()]
            if fitted == read:
                rows += _controls(plan, layer, fitted, fits[fitted].blocks, scores)
                notes = [_without_massive(plan, note, read, data[read], measured, scores) for note in notes]
    for name in plan.maps:
        reading, more = _mapped(plan, layer, fits["base"], data, name)
        readings["base", "aligned", name] = reading
        rows += more
    notes += _below_chance(plan, layer, readings)
    return LayerOutcome(
        rows, _drop(plan, layer, data, fits, readings), fitted_probes(plan, layer, fits), readings, notes
    )


def _out_of_fold(plan: LayerPlan, fits: Any, X: np.ndarray, *, own: bool) -> tuple[np.ndarray, np.ndarray | None]:
    """Return out-of-fold scores [n, every q] and calibrated probabilities [n, classes] of the label."""
    block = fits.blocks[0]
    scores = np.empty((len(X), fits.blocks[-1].stop if own else block.stop))
    classes = plan.labels.task != "regression"
    probabilities = np.empty((len(X), len(plan.labels.classes))) if classes else None
    for fold, (_, test) in enumerate(plan.folds):
        scores[test] = fits.read(fold, X[test])[:, : scores.shape[1]]
        if probabilities is not None:
            training, held_out = fits.held_out(fold, X)
            calibration = fit_calibration(held_out, plan.labels.codes[training])
            probabilities[test] = calibration.probabilities(scores[test, block])
    return scores, probabilities


def _row(
    plan: LayerPlan,
    layer: int,
    fitted: str,
    read: str,
    metric: str,
    value: Score,
    *,
    map: str = "none",
    control: str = "none",
) -> ProbeRow:
    low, high = value.interval(plan.level)
    n, groups = len(plan.labels), plan.folds.n_groups
    return ProbeRow(plan.probe, fitted, read, map, control, layer, metric, value.value, low, high, n, groups)


def _controls(plan: LayerPlan, layer: int, model: str, blocks: list[slice], scores: np.ndarray) -> list[ProbeRow]:
    """Return the rows of the shuffled labels (their mean) and of the control task."""
    rows = []
    count = len(plan.shuffles)
    if count:
        each = [m.main(scores[:, b]) for m, b in zip(plan.shuffle_meters, blocks[1 : 1 + count], strict=True)]
        mean = Score(float(np.mean([r.value for r in each])), np.mean([r.draws for r in each], axis=0))
        rows.append(_row(plan, layer, model, model, plan.meter.main_metric, mean, control="shuffled"))
    if plan.task is not None and plan.task_meter is not None:
        reading = plan.task_meter.main(scores[:, blocks[-1]])
        rows.append(_row(plan, layer, model, model, "auc", reading, control="control_task"))
    return rows


def _without_massive(
    plan: LayerPlan,
    note: tuple[str, str],
    model: str,
    X: np.ndarray,
    measured: dict[str, Score],
    scores: np.ndarray,
) -> tuple[str, str]:
    """Return a note on massive rows of this model with the reading with and without the top .1 % of norms."""
    kind, text = note
    if kind != "massive" or f"of {model}" not in text:
        return note
    rows = without_massive(X)
    labels, folds = rows_of(plan.labels, rows), plan.folds
    rest = Evaluator(labels, replace(folds, of_row=folds.of_row[rows], groups=folds.groups[rows]), draws=1, seed=0)
    metric, width = plan.meter.main_metric, plan.labels.targets().shape[1]
    without = rest.main(scores[rows, :width]).value
    return kind, f"{text}: {metric} {measured[metric].value:.3f} with, {without:.3f} without the top .1 %."


def _mapped(
    plan: LayerPlan, layer: int, fits: Any, data: dict[str, np.ndarray], name: str
) -> tuple[Score, list[ProbeRow]]:
    """Return the base's probe read on aligned rows that a map fitted on the training rows brings home."""
    block = fits.blocks[0]
    scores = np.empty((len(plan.labels), block.stop))
    for fold, (train, test) in enumerate(plan.folds):
        home = fold_map(name, data["aligned"][train], data["base"][train])
        scores[test] = fits.read(fold, home(data["aligned"][test]))[:, block]
    measured = plan.meter.measure(scores, None)
    rows = [_row(plan, layer, "base", "aligned", metric, value, map=name) for metric, value in measured.items()]
    return measured[plan.meter.main_metric], rows


def _below_chance(plan: LayerPlan, layer: int, readings: dict[tuple[str, str, str], Score]) -> list[tuple[str, str]]:
    """Note a model's own probe that reads its label clearly below chance: rows leaked, or groups contradict each other."""
    if plan.labels.task != "binary":
        return []
    notes = []
    for model in MODELS:
        own = readings[model, model, "none"]
        spread = float(np.nanstd(own.draws))
        if spread > 0 and own.value < 0.5 - 3.3 * spread:
            text = f"AUC {own.value:.2f} at layer {layer} of {model} is below chance: "
            text += "test rows were used in training (an eraser, a mean, a balance), "
            notes.append(("below_chance", text + "or the answer that is right in one group is wrong in others."))
    return notes


def _drop(
    plan: LayerPlan,
    layer: int,
    data: dict[str, np.ndarray],
    fits: dict[str, Any],
    readings: dict[tuple[str, str, str], Score],
) -> LayerDrop:
    own = [readings[model, model, "none"] for model in MODELS]
    drop = own[0].minus(own[1])
    drift = row_cosine(*data.values())
    cosine, ceiling = direction_cosines(plan, fits)
    test, p, statistic, null = "none", float("nan"), drop.value, np.zeros(0)
    if len(plan.flips):
        test = choose_test(drift, plan.test)
        p, statistic, null = tested_drop(plan, test, data, fits, own)
    no_loss = equivalence_p(drop.value, drop.draws)
    return LayerDrop(layer, drop, p, p, test, statistic, null, cosine, ceiling, no_loss, drift)


def tested_drop(
    plan: LayerPlan, test: str, data: dict[str, np.ndarray], fits: Mapping[str, Any], own: list[Score]
) -> tuple[float, float, np.ndarray]:
    """Return (p, statistic, null) of the drop by the chosen test."""
    X, Y = data.values()
    units = [float(((Z - Z.mean(0)) ** 2).sum()) / Z.shape[1] for Z in (X, Y)]
    relative = [fits[model].typical_penalty() for model in MODELS]
    penalty = [max(u * r, 1e-300) for u, r in zip(units, relative, strict=True)]
    if test == "corrected_t":
        differences = fold_differences(
            X, Y, plan.labels, plan.folds, penalty=(penalty[0], penalty[1]), repeats=_REPEATS, seed=plan.seed
        )
        t, p = corrected_t(differences, n_folds=plan.folds.n_folds)
        return p, t, np.zeros(0)
    swapped = swap_layer(
        X,
        Y,
        plan.labels,
        plan.folds,
        flips=plan.flips,
        penalty=float(np.sqrt(penalty[0] * penalty[1])),
        wanted=(own[0].value, own[1].value),
    )
    return permutation_p(swapped.observed, swapped.null), swapped.observed, swapped.null


def direction_cosines(plan: LayerPlan, fits: Mapping[str, Any]) -> tuple[float, float]:
    """Return the base-aligned cosine of directions from disjoint halves, and its split-half ceiling."""
    if not getattr(fits["base"], "linear", False):
        return float("nan"), float("nan")
    half = plan.folds.n_folds // 2
    halves = (tuple(range(half)), tuple(range(half, 2 * half)))
    unit = {}
    for model in MODELS:
        for side, kept in enumerate(halves):
            rows = fits[model].whole(kept)[0]
            unit[model, side] = rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-300)

    def cosine(a: tuple[str, int], b: tuple[str, int]) -> float:
        return float((unit[a] * unit[b]).sum(1).mean())

    across = (cosine(("base", 0), ("aligned", 1)) + cosine(("base", 1), ("aligned", 0))) / 2
    within = [max(cosine((model, 0), (model, 1)), 0.0) for model in MODELS]
    return across, float(np.sqrt(within[0] * within[1]))


def fitted_probes(plan: LayerPlan, layer: int, fits: Mapping[str, Any]) -> dict[tuple[str, int], Probe]:
    """Return each model's probe of the label fitted on all rows, where the kind is linear."""
    out = {}
    for model in MODELS:
        if getattr(fits[model], "linear", False):
            coefficients, intercept = fits[model].whole()
            source = {
                "layer": layer, "model": model, "n_items": len(plan.labels),
                "n_groups": plan.folds.n_groups, "seed": plan.seed,
            }  # fmt: skip
            out[model, layer] = Probe(
                plan.probe, plan.labels.task, coefficients, intercept,
                plan.labels.classes, fits[model].typical_penalty(), source,
            )  # fmt: skip
    return out
