"""The ledger of a tax: two models' metrics on the same items become rows with intervals and tests.

Where the numbers come from (scored here, generated, or read from another
harness's logs) makes no difference: one home for every table of differences.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import pandas as pd

from taxlens.analysis.scoring.metrics import Metric, metric_of
from taxlens.analysis.tax.tax_tables import TAX
from taxlens.core.errors import UsageError, explain
from taxlens.core.stats.intervals import (
    cluster_standard_error,
    group_index,
    group_means,
    holm,
    mcnemar_exact,
    mean_interval,
    sign_flip_p,
    tost_p,
)
from taxlens.core.stats.rounding import around_zero, is_rounding

EQUIVALENCE_MARGIN = 0.02
"""What counts as no tax, for metrics in 0..1; metrics in nats have no default margin."""


@dataclass(frozen=True, slots=True)
class Paired:
    """Two models' metrics on the same items, in one template.

    Attributes:
        suite: name of the suite.
        kind: ``capability`` or ``benefit``.
        template: ``plain``, ``chat``, or what the harness that made the log called it.
        items: [n] item ids.
        groups: [n] item groups.
        base: {metric: [n]} of the base model.
        aligned: {metric: [n]} of the aligned model, the same metrics.
        own: metrics of the caller's own among them, by name.
    """

    suite: str
    kind: str
    template: str
    items: tuple[str, ...]
    groups: np.ndarray
    base: Mapping[str, np.ndarray]
    aligned: Mapping[str, np.ndarray]
    own: Mapping[str, Metric] = field(default_factory=dict)

    def __post_init__(self) -> None:
        sizes = {len(values) for side in (self.base, self.aligned) for values in side.values()}
        if set(self.base) != set(self.aligned) or sizes - {len(self.items)} or len(self.groups) != len(self.items):
            rows = [("base", sorted(self.base)), ("aligned", sorted(self.aligned)), ("items", len(self.items))]
            raise UsageError(explain(f"the two models of {self.suite} are not measured on the same items.", rows))

    def metric(self, name: str) -> Metric:
        """What is known of a metric: the registered one, or the caller's own."""
        return self.own.get(name) or metric_of(name)

    def loss(self, metric: str) -> np.ndarray:
        """What each item lost in a metric, [n]: positive is loss."""
        return self.metric(metric).sign * (self.base[metric] - self.aligned[metric])

    def changes(self, metric: str = "accuracy") -> np.ndarray:
        """[n] 'lost' (right to wrong), 'won' (wrong to right) or '' for each item."""
        moved = self.base[metric] - self.aligned[metric]
        return np.where(moved > 0, "lost", np.where(moved < 0, "won", ""))


def tax_frame(
    measured: Sequence[Paired],
    *,
    bootstrap: int = 2000,
    seed: int = 0,
    margin: float = EQUIVALENCE_MARGIN,
    interval: str = "percentile",
) -> pd.DataFrame:
    """The rows of tax.csv.

    ``p`` is exact McNemar for metrics that are right or wrong, and the group sign-flip test
    for the others (``p_test`` says which; ``p_group`` is always the latter, which
    stays honest where whole groups flip together, and equals McNemar's where every item is its own
    group). ``p_adjusted`` is Holm's over the suites of a metric and template, of ``p_group``. ``lost`` and ``won`` count items right in
    one model only; metrics that are no hits repeat those of accuracy.

    Args:
        measured: one entry a suite and template.
        bootstrap: draws of the group bootstrap.
        seed: of the draws; the same for every row.
        margin: half width of "no tax" for metrics in 0..1.
        interval: ``percentile`` or ``bca``.

    Returns:
        One row a suite, template and metric, with the columns of `TAX`.
    """
    rows = [
        _row(paired, metric, bootstrap=bootstrap, seed=seed, margin=margin, interval=interval)
        for paired in measured
        for metric in paired.base
    ]
    frame = pd.DataFrame(rows, columns=list(TAX.names))
    for _, index in frame.groupby(["metric", "template"], sort=False).groups.items():
        frame.loc[index, "p_adjusted"] = holm(frame.loc[index, "p_group"].to_numpy(dtype=float))
    return frame


def _row(paired: Paired, metric: str, *, bootstrap: int, seed: int, margin: float, interval: str) -> dict[str, object]:
    loss, groups = paired.loss(metric), paired.groups
    found = mean_interval(loss, groups, draws=bootstrap, seed=seed, method=interval)
    hits = metric if paired.metric(metric).hit else "accuracy" if "accuracy" in paired.base else None
    changes = paired.changes(hits) if hits else np.empty(0)
    lost, won = int((changes == "lost").sum()), int((changes == "won").sum())
    low, high = around_zero(found.value, found.low, found.high)
    flip = sign_flip_p(np.where(is_rounding(loss), 0.0, loss), groups, seed=seed)
    exact = paired.metric(metric).hit
    means = group_means(loss, groups)
    macro = mean_interval(means, range(len(means)), draws=bootstrap, seed=seed, method=interval)
    single, within = np.arange(len(loss)), paired.metric(metric).equivalence(margin)
    return {
        "suite": paired.suite,
        "kind": paired.kind,
        "metric": metric,
        "template": paired.template,
        "base": float(paired.base[metric].mean()),
        "aligned": float(paired.aligned[metric].mean()),
        "tax": found.value,
        "low": float(low),
        "high": float(high),
        "p": mcnemar_exact(lost, won) if exact else flip,
        "lost": lost if hits else None,
        "won": won if hits else None,
        "n_items": found.n_items,
        "n_groups": found.n_groups,
        "p_test": "mcnemar_exact" if exact else "group_sign_flip",
        "p_group": flip,
        "p_equivalent": tost_p(loss, groups, within) if within else np.nan,
        "macro_tax": macro.value,
        "macro_low": macro.low,
        "macro_high": macro.high,
        "paired_error": cluster_standard_error(loss, groups),
        "unpaired_error": float(
            np.hypot(
                cluster_standard_error(paired.base[metric], single),
                cluster_standard_error(paired.aligned[metric], single),
            )
        ),
    }


def few_groups(measured: Sequence[Paired]) -> list[str]:
    """A note for each suite whose groups are too few for its intervals (under ten), or for any (one)."""
    notes = {}
    for paired in measured:
        _, n_groups = group_index(paired.groups)
        if n_groups == 1:
            notes[paired.suite] = f"{paired.suite}: one group: no interval."
        elif n_groups < 10:
            notes[paired.suite] = f"{paired.suite}: only {n_groups} groups, its intervals are not to be trusted."
    return list(notes.values())
