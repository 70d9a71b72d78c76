"""Probe a pair: one call reads a label in both models, layer by layer, with controls, intervals and tests."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from taxlens.core.errors import UsageError, explain, one_of
from taxlens.core.parallel import in_order
from taxlens.core.progress import SILENT, Progress
from taxlens.core.vocabularies import PROBES
from taxlens.probes.kinds.crossfit import RidgeFits
from taxlens.probes.kinds.estimator import probe_name
from taxlens.probes.kinds.ridge import PENALTIES
from taxlens.probes.pair.controls import check_rows, confound_features, control_task, shuffled
from taxlens.probes.pair.layer import LayerOutcome, LayerPlan, probe_layer
from taxlens.probes.pair.mdl_layer import code_layer, code_readings
from taxlens.probes.pair.result import PairProbe, ProbeRow, adjust_family
from taxlens.probes.pair.scores import Evaluator, Score
from taxlens.probes.pair.swap import group_flips
from taxlens.probes.pair.transfer import MAPS
from taxlens.probes.rows.folds import group_codes, group_folds
from taxlens.probes.rows.labels import read_labels, warn

Layers = (
    Mapping[int, tuple[np.ndarray, np.ndarray]]
    | Iterable[tuple[int, np.ndarray, np.ndarray]]
    | Callable[[], Iterable[tuple[int, np.ndarray, np.ndarray]]]
)


def probe_pair(
    layers: Layers,
    y: Sequence[Any] | np.ndarray,
    groups: Sequence[Any] | np.ndarray | str | None,
    *,
    probe: Any = "ridge",
    task: str = "auto",
    n_folds: int = 5,
    penalties: Sequence[float] = PENALTIES,
    shuffles: int = 3,
    confounds: Mapping[str, Sequence[Any] | np.ndarray] | None = None,
    keys: Sequence[Any] | np.ndarray | None = None,
    maps: Sequence[str] = (),
    permutations: int = 199,
    test: str = "auto",
    bootstrap: int = 1000,
    seed: int = 0,
    level: float = 0.95,
    item_ids: Sequence[Any] | None = None,
    progress: Progress = SILENT,
) -> PairProbe:
    """Return what a label's probes read in base and aligned rows of every layer.

    Probes are fitted and read out of fold, in folds that keep groups whole; penalties are chosen inside
    each training part, per model by the same rule. The table has {base, aligned} fitted x {base, aligned}
    read, controls, and intervals by a bootstrap over groups of the out-of-fold readings (joint over layers,
    cells and labels with the same groups; the fits are held fixed, so the intervals leave out training
    variance). The drop (base's own minus aligned's own) is tested by swap-and-refit permutations with max-T
    over layers, or by the corrected t where the pair has drifted apart.

    Args:
        layers: {layer: (X_base [n, d], X_aligned [n, d])}, or an iterable of (layer, X_base, X_aligned), or a
            function that returns one; two layers are held at a time. Rows of heads [n, h, d_head] are flattened.
        y: [n] labels: classes (text, booleans, few integers) or numbers; None, NaN and "" are missing.
        groups: [n] group of each row, required; "items" says that rows stand alone (warned).
        probe: ridge, logistic, diff_of_means, lda, mlp, or mdl (online code: bits instead of AUC); or any estimator
            with fit and predict (scikit-learn's), cloned for every fold and fitted with its own settings.
        task: "auto", "binary", "multiclass" or "regression".
        n_folds: group folds.
        penalties: relative penalties (times the mean eigenvalue).
        shuffles: shuffled copies of the label, whose mean reading is the control "shuffled".
        confounds: name to [n] values (position, length, token, template) for the control "confound".
        keys: [n] key of the control task (last token, template, subject).
        maps: "procrustes", "ridge": read aligned rows by the base's probe after a map to the base's space.
        permutations: swaps; 0 makes no test.
        test: "auto", "swap" or "corrected_t".
        bootstrap: draws of the intervals.
        seed: of folds, shuffles, swaps and draws.
        level: of the intervals.
        item_ids: [n] names for error messages.
        progress: told of each layer.

    Returns:
        PairProbe; its `notes` are also issued as ProbeWarning.

    Raises:
        UsageError: for labels, groups or rows that cannot be probed, saying which.

    Example:
        >>> rng = np.random.default_rng(0)
        >>> y, groups = np.tile([0, 1], 60), np.repeat(np.arange(30), 4)
        >>> X = rng.normal(size=(120, 8)) + 2 * y[:, None]
        >>> result = probe_pair({3: (X, rng.normal(size=(120, 8)))}, y, groups, permutations=19)
        >>> result.layers, result.drops[0].drop.value > 0.3
        ((3,), True)

    References: METHODS of the package, section on probes; Hewitt and Liang 2019; Nadeau and Bengio 2003;
        Westfall and Young 1993.
    """
    kind = probe_name(probe, PROBES)
    for name in maps:
        one_of(name, MAPS, what="map")
    plan, notes = _plan(
        y, groups, keys, probe=kind, fitted=probe, task=task, n_folds=n_folds, penalties=penalties, shuffles=shuffles,
        maps=tuple(maps), permutations=permutations, test=test, bootstrap=bootstrap, seed=seed, level=level,
    )  # fmt: skip
    ids = item_ids if item_ids is not None else range(len(y))
    outcomes = _read_layers(plan, layers, ids, notes, progress)
    extra = [] if confounds is None else _confound_rows(plan, confounds, outcomes, notes)
    return _collect(plan, outcomes, extra, notes)


def _read_layers(
    plan: LayerPlan, layers: Layers, ids: Sequence[Any], notes: list[str], progress: Progress
) -> dict[int, LayerOutcome]:
    """Return what every layer gives, two layers in memory at a time (one on one core)."""
    outcomes = {}
    probed = code_layer if plan.probe == "mdl" else probe_layer

    def rows() -> Iterator[tuple[int, np.ndarray, np.ndarray]]:
        for layer, X, Y in _each(layers):
            X, Y = _rows(X, Y, layer, plan.n_rows, plan.labels.keep, ids)
            if len(X) * (plan.folds.n_folds - 1) / plan.folds.n_folds < X.shape[1]:
                notes.append(
                    f"fewer training rows than dimensions ({len(X)} rows, d = {X.shape[1]}): the penalty decides."
                )
            yield layer, X, Y

    with progress.task(f"probe {plan.probe}", total=_count(layers), unit="layers") as ticker:
        for layer, outcome in in_order(lambda one: (one[0], probed(plan, *one)), rows(), most=2, width=plan.n_rows):
            outcomes[layer] = outcome
            ticker.advance(1, note=f"layer {layer}")
    if not outcomes:
        raise UsageError(explain("no layers to probe.", [("layers", "none")]))
    return outcomes


def _plan(
    y: Sequence[Any] | np.ndarray,
    groups: Sequence[Any] | np.ndarray | str | None,
    keys: Sequence[Any] | np.ndarray | None,
    *,
    task: str,
    n_folds: int,
    shuffles: int,
    permutations: int,
    bootstrap: int,
    seed: int,
    **rest: Any,
) -> tuple[LayerPlan, list[str]]:
    """Return what stays the same over layers, and notes on labels, groups and folds."""
    codes, notes = group_codes(groups, len(y))
    labels = read_labels(y, groups=codes, task=task)
    folds = group_folds(codes[labels.keep], labels.strata(), n_folds=n_folds, seed=seed)
    notes += [*labels.notes, *folds.notes]
    copies = tuple(shuffled(labels, folds.groups, seed=seed + i) for i in range(shuffles))
    control = None
    if keys is not None:
        control = control_task(labels, np.asarray(keys)[labels.keep], folds.of_row, seed=seed)
        if control is None:
            notes.append("selectivity undefined: no key of the control task occurs in two folds.")
    names = np.asarray(groups if not isinstance(groups, str) else codes)[labels.keep]

    def meter(of: Any) -> Evaluator:
        return Evaluator(of, folds, draws=bootstrap, seed=seed)

    plan = LayerPlan(
        n_rows=len(y), labels=labels, folds=folds, shuffles=copies, task=control, meter=meter(labels),
        shuffle_meters=tuple(meter(c) for c in copies), task_meter=None if control is None else meter(control),
        flips=group_flips(names, permutations=permutations, seed=seed), seed=seed, **rest,
    )  # fmt: skip
    return plan, notes


def _collect(plan: LayerPlan, outcomes: dict[int, LayerOutcome], extra: list[ProbeRow], notes: list[str]) -> PairProbe:
    kinds: dict[str, list[str]] = {}
    for outcome in outcomes.values():
        for kind, text in outcome.notes:
            kinds.setdefault(kind, []).append(text)
    for texts in kinds.values():
        notes.append(texts[0] + (f" ({len(texts) - 1} more like it)" if len(texts) > 1 else ""))
    notes = list(dict.fromkeys(notes))
    warn(notes)
    readings: dict[tuple[str, str, str], dict[int, Any]] = {}
    for layer, outcome in outcomes.items():
        for cell, reading in outcome.readings.items():
            readings.setdefault(cell, {})[layer] = reading
    result = PairProbe(
        plan.probe, _headline(plan),
        (*(row for outcome in outcomes.values() for row in outcome.rows), *extra),
        tuple(outcome.drop for outcome in outcomes.values()),
        {key: probe for outcome in outcomes.values() for key, probe in outcome.probes.items()},
        readings, len(plan.labels), plan.folds.n_groups, plan.level, tuple(notes),
    )  # fmt: skip
    return adjust_family([result])[0]


def _headline(plan: LayerPlan) -> str:
    return "compression" if plan.probe == "mdl" else plan.meter.main_metric


def _confound_rows(
    plan: LayerPlan,
    confounds: Mapping[str, Sequence[Any] | np.ndarray],
    outcomes: dict[int, LayerOutcome],
    notes: list[str],
) -> list[ProbeRow]:
    """Return the readings of the label from confounds alone, and note a base that does not exceed them."""
    features = confound_features(confounds, plan.labels.keep)
    reading, metric = _read_confounds(plan, features), _headline(plan)
    best = max((o.readings["base", "base", "none"] for o in outcomes.values()), key=lambda r: r.value)
    low = best.minus(reading).interval(plan.level)[0]
    if not low > 0:
        notes.append(
            f"the label is read from confounds alone ({', '.join(confounds)}) at {metric} "
            f"{reading.value:.2f}; the best layer's {best.value:.2f} does not exceed it: the probe may read the format."
        )
    bounds = reading.interval(plan.level)
    n, groups = len(plan.labels), plan.folds.n_groups
    kind = "mdl" if plan.probe == "mdl" else "ridge"
    return [
        ProbeRow(kind, m, m, "none", "confound", None, metric, reading.value, *bounds, n, groups)
        for m in ("base", "aligned")
    ]


def _read_confounds(plan: LayerPlan, features: np.ndarray) -> Score:
    """Return the headline reading of the label from features [n, f] that are no activations."""
    if plan.probe == "mdl":
        return code_readings(plan, features, plan.labels)["compression"]
    fits = RidgeFits(features, [plan.labels.targets()], plan.folds, penalties=plan.penalties, seed=plan.seed)
    scores = np.empty((len(plan.labels), fits.blocks[0].stop))
    for fold, (_, test) in enumerate(plan.folds):
        scores[test] = fits.read(fold, features[test])
    return plan.meter.main(scores)


def _rows(X: Any, Y: Any, layer: int, n: int, keep: np.ndarray, ids: Sequence[Any]) -> tuple[np.ndarray, np.ndarray]:
    """Return labelled rows of both models as float64 [n, d], refusing wrong shapes and NaN."""
    out = []
    for model, Z in (("base", X), ("aligned", Y)):
        Z = np.asarray(Z)
        if Z.ndim < 2 or len(Z) != n:
            rows = [("layer", layer), ("model", model), ("got", Z.shape), ("expected", f"[{n}, d]")]
            raise UsageError(explain("rows and labels do not match.", rows))
        check_rows(Z, layer=layer, model=model, ids=ids)
        out.append(np.ascontiguousarray(Z.reshape(n, -1)[keep], dtype=np.float64))
    if out[0].shape != out[1].shape:
        rows = [("layer", layer), ("base", out[0].shape), ("aligned", out[1].shape)]
        raise UsageError(explain("base and aligned rows have different widths.", rows))
    return out[0], out[1]


def _each(layers: Layers) -> Iterator[tuple[int, Any, Any]]:
    if isinstance(layers, Mapping):
        for layer in layers:
            X, Y = layers[layer]
            yield layer, X, Y
    else:
        yield from layers() if callable(layers) else layers


def _count(layers: Layers) -> int | None:
    return len(layers) if hasattr(layers, "__len__") else None  # type: ignore[arg-type]
