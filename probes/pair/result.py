"""The result of probing a pair: tables by layer, drops with adjusted p, and the probes themselves."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import pandas as pd

from taxlens.core.direction import Direction
from taxlens.core.errors import UsageError, explain
from taxlens.core.result import Result
from taxlens.probes.kinds.probe import Probe
from taxlens.probes.pair.scores import Score
from taxlens.probes.pair.significance import adjust

DROP_COLUMNS = (
    "layer", "drop", "low", "high", "p", "p_adjusted", "ceiling", "cosine", "p_no_loss", "test", "n_items", "n_groups",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class ProbeRow:
    """One fact of probes.csv: which probe, fitted on which model, read on which, and what it gave.

    Args:
        probe: kind of probe.
        fitted_on: "base" or "aligned".
        read_on: "base" or "aligned".
        map: "none", "procrustes" or "ridge" (read rows are first mapped into the fitted model's space).
        control: "none", "shuffled", "confound" or "control_task".
        layer: block index; None where no layer is read (confounds).
        metric: "auc", "balanced_accuracy", "log_loss", "ece", "snr", "r2", "compression" or "code_length".
        value: out of fold; NaN where undefined.
        low: lower end of the group-bootstrap interval.
        high: upper end.
        n_items: rows read.
        n_groups: groups resampled.
    """

    probe: str
    fitted_on: str
    read_on: str
    map: str
    control: str
    layer: int | None
    metric: str
    value: float
    low: float
    high: float
    n_items: int
    n_groups: int


@dataclass(frozen=True, slots=True, eq=False)
class LayerDrop:
    """The drop of one layer: the base's own probe minus the aligned one's own.

    Args:
        layer: block index.
        drop: reading of the difference, with joint draws.
        p: two-sided p of its test, NaN where none was made.
        p_adjusted: over the family (layers, and labels after `adjust_family`).
        test: "swap", "corrected_t" or "none".
        statistic: what was tested (the drop in the shared basis, or the corrected t).
        null: [permutations] of it under swaps (empty for other tests).
        cosine: of the base's and the aligned probe's directions, fitted on disjoint halves of the groups.
        ceiling: what that cosine would be if only sampling stood between them (split halves of each model).
        p_no_loss: TOST p that the drop is within the margin of no loss.
        drift: mean cosine of base and aligned rows.
    """

    layer: int
    drop: Score
    p: float
    p_adjusted: float
    test: str
    statistic: float
    null: np.ndarray
    cosine: float
    ceiling: float
    p_no_loss: float
    drift: float


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class PairProbe(Result):
    """What a label's probes read in both models of a pair, layer by layer.

    Positive drop: the aligned model's own probe reads the label less well than the base's own. A drop is
    evidence of change, not of cause; no drop is shown by `p_no_loss`, not by a large p.

    Args:
        probe: kind of probe.
        metric: headline metric, "auc" (chance .5), "r2" (chance 0) or "compression" (mdl; chance 1).
        rows: facts of probes.csv.
        drops: one a layer, in the order of layers.
        probes: (model, layer) to the probe fitted on all rows.
        readings: (fitted_on, read_on, map) to the headline reading by layer, with joint draws.
        n_items: rows read.
        n_groups: groups.
        level: of the intervals.
        notes: what to be careful about; also issued as ProbeWarning.
    """

    figure = "probe"
    probe: str
    metric: str
    rows: tuple[ProbeRow, ...]
    drops: tuple[LayerDrop, ...]
    probes: Mapping[tuple[str, int], Probe]
    readings: Mapping[tuple[str, str, str], Mapping[int, Score]]
    n_items: int
    n_groups: int
    level: float = 0.95
    notes: tuple[str, ...] = field(default=())

    @property
    def layers(self) -> tuple[int, ...]:
        """Layers in the order they were read."""
        return tuple(drop.layer for drop in self.drops)

    @property
    def chance(self) -> float:
        """Value of the headline metric where nothing is read."""
        return {"auc": 0.5, "compression": 1.0}.get(self.metric, 0.0)

    def to_frame(self) -> pd.DataFrame:
        """Return the columns of probes.csv that a probe knows (suite, template, label, site are the caller's)."""
        names = list(ProbeRow.__dataclass_fields__)
        frame = pd.DataFrame([[getattr(row, name) for name in names] for row in self.rows], columns=names)
        frame["layer"] = frame["layer"].astype("Int64")
        return frame

    def drop_frame(self) -> pd.DataFrame:
        """Return the columns of probe_drop.csv, one row a layer."""
        rows = []
        for drop in self.drops:
            low, high = drop.drop.interval(self.level)
            rows.append(
                [drop.layer, drop.drop.value, low, high, drop.p, drop.p_adjusted, drop.ceiling, drop.cosine]
                + [drop.p_no_loss, drop.test, self.n_items, self.n_groups]
            )
        return pd.DataFrame(rows, columns=list(DROP_COLUMNS))

    def flagged(self, *, alpha: float = 0.05) -> tuple[int, ...]:
        """Return the layers whose adjusted p is at most alpha, with a positive drop from a base that reads above chance.

        Where base itself does not read the label there is nothing to lose, whatever the test in its basis says.
        """
        base = self.readings.get(("base", "base", "none"), {})
        return tuple(
            d.layer
            for d in self.drops
            if d.p_adjusted <= alpha and d.drop.value > 0 and base[d.layer].value > self.chance
        )

    def direction(self, *, layer: int, model: str = "base", site: str = "", label: object = None) -> Direction:
        """Return the unit direction of a layer's probe (see `Probe.direction`)."""
        if (model, layer) not in self.probes:
            rows = [("got", f"{model}, layer {layer}"), ("layers", ", ".join(map(str, self.layers)))]
            raise UsageError(explain("no linear probe there.", rows))
        return self.probes[model, layer].direction(site=site, layer=layer, label=label)

    def __repr__(self) -> str:
        if not self.drops:
            return f"PairProbe({self.probe}, no layers)"
        worst = max(self.drops, key=lambda drop: drop.drop.value)
        low, high = worst.drop.interval(self.level)
        tested = "" if np.isnan(worst.p_adjusted) else f", p_adjusted={worst.p_adjusted:.3g}"
        return (
            f"PairProbe({self.probe}: largest {self.metric} drop {worst.drop.value:+.3f} [{low:.3f}, {high:.3f}] "
            f"at layer {worst.layer} of {len(self.drops)}{tested}, n={self.n_items} items in {self.n_groups} groups)"
        )


def adjust_family(results: Sequence[PairProbe]) -> list[PairProbe]:
    """Return the results with p adjusted over all their layers and labels together.

    Probes of one call share their flips by group name and seed, so labels read on different rows of the same
    groups are permuted jointly.

    Args:
        results: of the same pair, groups, seed and number of permutations.

    Raises:
        UsageError: if the numbers of permutations differ.
    """
    drops = [drop for result in results for drop in result.drops]
    sizes = {len(drop.null) for drop in drops if drop.test == "swap"}
    if len(sizes) > 1:
        rows = [("permutations", sorted(sizes))]
        raise UsageError(explain("a family needs the same permutations throughout.", rows))
    count = sizes.pop() if sizes else 0
    nulls = np.stack([d.null if d.test == "swap" else np.zeros(count) for d in drops], axis=1)
    adjusted = adjust(
        [d.test for d in drops], np.array([d.statistic for d in drops]), nulls, np.array([d.p for d in drops])
    )
    out, start = [], 0
    for result in results:
        end = start + len(result.drops)
        mine = tuple(replace(d, p_adjusted=float(p)) for d, p in zip(result.drops, adjusted[start:end], strict=True))
        out.append(replace(result, drops=mine))
        start = end
    return out
