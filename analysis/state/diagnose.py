"""Lost or only hidden: the state of a taxed capability, layer by layer, with its evidence and the rule that fired."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar

import numpy as np
import pandas as pd

from taxlens.activations.items.out_of_memory import until_it_fits
from taxlens.activations.items.sampling import at_most
from taxlens.analysis.scoring.shared_prompt_table import lay_out
from taxlens.analysis.state.component_use import component_use
from taxlens.analysis.state.evidence import Bench, base_reading, layer_evidence, probe_evidence, removed
from taxlens.analysis.state.relearning import relearned_share
from taxlens.analysis.state.state_tables import EVIDENCE, STATES
from taxlens.analysis.state.upper_layers import Half
from taxlens.analysis.state.verdict import (
    KEPT_RULES,
    NEGLIGIBLE,
    Evidence,
    Verdict,
    damaged_layers,
    judge,
    judge_layers,
    placed_at,
)
from taxlens.core.errors import ItemError, UsageError, explain, one_of
from taxlens.core.progress import SILENT, Progress
from taxlens.core.result import Result
from taxlens.core.stats.intervals import Interval, mean_interval
from taxlens.probes.rows.folds import balanced_folds

if TYPE_CHECKING:
    from taxlens.activations.items.items import Suite
    from taxlens.activations.models.pair import ModelPair
    from taxlens.analysis.interventions.steering import Steering

MOST_CLASSES = 64
"""Most different answers for which the label "answer" is probed."""

SITE = "resid_post"

BATCH = 2048
"""Padded tokens of a batch; halved where memory runs out."""


@dataclass(frozen=True, slots=True, eq=False)
class Diagnosis(Result):
    """The state of one suite's capability.

    Args:
        suite: its name.
        template: prompt template.
        label: what was probed: "correct" or "answer".
        tax: probability of the right choice lost, with interval ends and counts.
        evidence: layer to statistics; -1: of the whole model (M, Q).
        verdicts: layer to verdict; -1: overall.
        shares: layer to the share of the tax that arises there; -1: all.
        where: the layer at which the overall verdict was read; -1 where there is no tax.
        steerings: (layer, rank) to the steering that Z was measured with (fitted without the last fold); rank 0: the
            ablation of one direction that A was measured with.
        notes: what a reader must know.
    """

    figure: ClassVar[str] = "states"

    suite: str
    template: str
    label: str
    tax: tuple[float, float, float]
    evidence: Mapping[int, tuple[Evidence, ...]]
    verdicts: Mapping[int, Verdict]
    shares: Mapping[int, float]
    where: int
    steerings: Mapping[tuple[int, int], Steering] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    @property
    def state(self) -> str:
        """The overall state."""
        return self.verdicts[-1].state

    @property
    def placed(self) -> int:
        """The layer by which the damage is all there: `where` or one below it; -1 where there is no tax."""
        return placed_at(self.evidence, self.where) if self.where >= 0 else -1

    def value(self, statistic: str, layer: int, *, control: str = "") -> float:
        """One statistic's value; nan where it was not had."""
        for one in self.evidence[layer]:
            if (one.statistic, one.control) == (statistic, control):
                return one.value
        return float("nan")

    def to_frame(self) -> pd.DataFrame:
        """Rows of states.csv: one a layer, and one overall (layer blank)."""
        rows = [
            (self.suite, self.template, SITE, _layer(layer), v.state, self.shares.get(layer, np.nan), v.reason)
            for layer, v in sorted(self.verdicts.items())
        ]
        return STATES.frame(rows).astype({"layer": "Int64"})

    def evidence_frame(self) -> pd.DataFrame:
        """Rows of evidence.csv."""
        rows = [
            (self.suite, self.template, SITE, _layer(layer), e.statistic, e.value, e.low, e.high, e.control, e.note)
            for layer, found in sorted(self.evidence.items())
            for e in found
        ]
        return EVIDENCE.frame(rows).astype({"layer": "Int64"})

    def steering(self, *, layer: int | None = None, rank: int | None = None) -> Steering:
        """The steering that was measured at a layer (by default where the verdict was read) and rank (the best; 0: the ablation).

        Raises:
            UsageError: none was measured there.
        """
        layer = self.where if layer is None else layer
        ranks = [r for at, r in self.steerings if at == layer and (r > 0 or rank == 0)]
        if not ranks or (rank is not None and rank not in ranks):
            have = ", ".join(f"layer {at} rank {r}" for at, r in self.steerings) or "none"
            raise UsageError(explain("no steering was measured there.", [("have", have)]))
        best = max(ranks, key=lambda r: self.value(f"Z{r}", layer)) if rank is None else rank
        return self.steerings[layer, best]

    def __repr__(self) -> str:
        value, low, high = self.tax
        place = f"at layer {self.placed}" + (f", read at {self.where}" if self.placed < self.where else "")
        at = f" ({place})" if self.where >= 0 else ""
        return f"{self.suite}: {self.state}{at}; tax {value:+.3f} [{low:.3f}, {high:.3f}]; {self.verdicts[-1].reason}"


def diagnose(
    pair: ModelPair,
    suite: Suite,
    *,
    template: str = "plain",
    layers: str | Sequence[int] = "auto",
    label: str = "auto",
    other: Suite | None = None,
    items: int | str = "all",
    relearn: bool | str = True,
    effects: Mapping[int, float] | None = None,
    folds: int = 4,
    draws: int = 1000,
    seed: int = 0,
    progress: Progress = SILENT,
) -> Diagnosis:
    """Say in which state a capability is: intact, suppressed, rotated, attenuated, erased, rerouted, undetermined.

    At each layer the aligned model's stream is probed (D, X), read by the base's upper layers after a rotation
    (S), replaced by the base's (I), steered with few vectors (Z), and its label directions are measured (gain)
    and removed (U); all held out by group, with intervals. The rules are in `verdict.RULES`. A few layers are
    looked at first, then the ones between which the damage appears. The overall verdict is that of the first
    layer at which the damage is in the stream.

    Args:
        pair: the two checkpoints.
        suite: items with choices.
        template: "plain" or "chat".
        layers: layers to look at, "all", or "auto": five, refined where the damage appears.
        label: "correct" (right against wrong choice), "answer" (which answer, at the last prompt token), the name
            of a label of the items (at the same token), or "auto": the one of the first two that the base's own probe
            reads better, where few different answers occur in several groups; else "correct".
        other: another suite, whose steering vector is the control of Z1.
        items: most items to use (spread over groups, seeded), or "all".
        relearn: "never" (or False), "always", or "if needed" (or True): run Q where everything else says erased (D is then read by a
            small network too). Without Q a capability is never called erased.
        effects: layer to path effect, for the share of the tax; by default the steps of I.
        folds: group folds of every fit.
        draws: of the group bootstrap.
        seed: of folds, foils and draws.
        progress: told of each layer.

    Returns:
        The diagnosis.

    Raises:
        ItemError: too few items or groups.
        UsageError: an unknown label or layer.

    References:
        Jain et al. 2024 (wrappers), Lee et al. 2024 (bypassed, not removed), Arditi et al. 2024 (one direction),
        Wu et al. 2024 (rotation), Xu et al. 2025 (reversible and irreversible forgetting).
    """
    suite = at_most(suite, items, seed=seed) if isinstance(items, int) else suite
    relearn = {True: "if needed", False: "never"}.get(relearn, relearn)
    bench = _bench(pair, suite, template, folds=folds, draws=draws, seed=seed)
    depth = pair.aligned.anatomy.n_layers
    if isinstance(layers, str):
        one_of(layers, ("auto", "all"), what="choice of layers")
    refined = layers == "auto"
    first = _coarse(depth) if refined else sorted(set(range(depth) if isinstance(layers, str) else layers))
    if any(not 0 <= layer < depth for layer in first):
        raise UsageError(explain("a layer is out of range.", [("got", first), ("allowed", f"0 to {depth - 1}")]))
    work = _Work(pair, suite, template, bench, other, relearn, draws, seed, progress)
    work.choose_label(label, first)
    tax = mean_interval(bench.lost(), bench.groups, draws=draws, seed=seed)
    work.found[-1] = [Evidence("M", tax.value, tax.low, tax.high)]
    if tax.low <= 0 or tax.high <= NEGLIGIBLE:
        return work.without_tax(first, tax)
    work.look(first)
    if refined:
        work.refine(depth)
    return work.finish(tax, effects)


def _bench(pair: ModelPair, suite: Suite, template: str, *, folds: int, draws: int, seed: int) -> Bench:
    size = [BATCH]

    def read() -> tuple[Half, Half]:
        table = lay_out(pair, suite, template=template, batch_tokens=size[0])
        halves = Half(pair.base, table), Half(pair.aligned, table)
        names = np.unique(table.groups.astype(str))
        if len(names) < 2 * folds or len(table.items) < 16:
            rows = [("suite", suite.name), ("items", len(table.items)), ("groups", len(names))]
            fix = f"at least 16 items in {2 * folds} groups."
            raise ItemError(explain("too few items or groups to diagnose.", rows, fix))
        for half in halves:
            half.read([])
        return halves

    def smaller() -> bool:
        size[0] //= 2
        return size[0] > 0

    base, aligned = until_it_fits(read, smaller, what=f"diagnose {suite.name}")
    groups = base.table.groups.astype(str)
    fold = balanced_folds(np.searchsorted(np.unique(groups), groups), folds, seed)
    return Bench(base, aligned, fold, draws=draws, seed=seed)


class _Work:
    """A diagnosis under way."""

    def __init__(
        self, pair: ModelPair, suite: Suite, template: str, bench: Bench, other: Suite | None, relearn: str,
        draws: int, seed: int, progress: Progress,
    ) -> None:  # fmt: skip
        self.pair, self.suite, self.template, self.bench = pair, suite, template, bench
        self.relearn, self.draws, self.seed, self.progress = relearn, draws, seed, progress
        self.other = other
        self.found: dict[int, list[Evidence]] = {}
        self.notes: list[str] = []

    def choose_label(self, label: str, layers: Sequence[int]) -> None:
        """Settle what is probed, and say so where it was not the contract's label."""
        if label != "auto":
            known = sorted({name for item in self.suite.items for name in item.labels})
            one_of(label, ["auto", "correct", "answer", *known], what="label")
            self.bench.label = label
            return
        self._read(layers)
        if not self._answers_recur():
            return
        correct = base_reading(self.bench, layers)
        self.bench.label = "answer"
        answer = base_reading(self.bench, layers)
        if answer > correct:
            self.notes.append(
                f"the answer itself is probed: the base's probe reads it to {answer:.2f} of what can be read, and "
                f"`correct` to {correct:.2f}"
            )
        else:
            self.bench.label = "correct"

    def _answers_recur(self) -> bool:
        """Whether few answers occur, most items' in several groups: only then can a probe of the answer generalise."""
        table = self.bench.table
        golds = [table.suite.items[i].choices[g].strip() for i, g in zip(table.items, table.gold, strict=True)]
        frame = pd.DataFrame({"gold": golds, "group": table.groups})
        several = frame.groupby("gold")["group"].transform("nunique") >= 3
        return bool(1 < frame.gold.nunique() <= MOST_CLASSES and several.mean() >= 0.6)

    def look(self, layers: Sequence[int]) -> None:
        """Gather the evidence of layers that have none yet."""
        new = [layer for layer in layers if layer not in self.found]
        if not new:
            return
        self._read(new)
        if self.other is not None:
            self.bench.other = self._other(new)
        probed = probe_evidence(self.bench, new)
        with self.progress.task("diagnose", total=len(new), unit="layers") as task:
            for layer in new:
                self.found[layer] = [*probed[layer], *layer_evidence(self.bench, layer)]
                task.advance(1, note=f"layer {layer}")

    def refine(self, depth: int, *, most: int = 10) -> None:
        """Halve the gap in which the damage appears until it is one layer wide, within a number of layers."""
        while sum(layer >= 0 for layer in self.found) < most:
            seen = sorted(layer for layer in self.found if layer >= 0)
            damaged = damaged_layers(self.found)
            upper = damaged[0] if damaged else depth
            below = [layer for layer in seen if layer < upper]
            lower = below[-1] if below else -1
            if upper - lower <= 1 or upper == depth:
                return
            self.look([(lower + upper) // 2])

    def without_tax(self, layers: Sequence[int], tax: Interval) -> Diagnosis:
        """A capability that is kept: intact, or rerouted where the base's components no longer carry it and others do."""
        self._read(layers)
        probed, used = probe_evidence(self.bench, layers), component_use(self.bench, layers)
        for layer in layers:
            directions = removed(self.bench, layer)
            self.found[layer] = [*probed[layer], *([directions] if directions else []), *used[layer]]
        verdicts = {layer: judge(self.found[layer], KEPT_RULES[1:]) for layer in layers}
        overall, uses = list(self.found[-1]), [one for layer in layers for one in used[layer]]
        if len(uses) > 1:
            least, most = min(uses, key=lambda u: u.high), max(uses, key=lambda u: u.low)
            overall += [Evidence("U least", least.value, least.low, least.high)]
            overall += [Evidence("U most", most.value, most.low, most.high)]
        self.found[-1] = overall
        verdicts[-1] = judge(overall, KEPT_RULES)
        if verdicts[-1].state == "rerouted":
            self.notes.append("rerouted is an experimental verdict")
        return self._diagnosis(tax, verdicts, dict.fromkeys(verdicts, float("nan")), -1)

    def finish(self, tax: Interval, effects: Mapping[int, float] | None) -> Diagnosis:
        """Judge every layer, then the whole by the first damaged one; run what `erased` hangs on."""
        hanging = self._would_be_erased([Evidence("D", 0.0, 0.0, 0.0, "network")])
        if hanging:
            for layer, network in probe_evidence(self.bench, hanging, probe="mlp").items():
                self.found[layer] += network
            hanging = self._would_be_erased([])
        more: list[Evidence] = []
        if self.relearn == "always" or (self.relearn == "if needed" and hanging):
            more = relearned_share(
                self.pair, self.suite, template=self.template, draws=self.draws, seed=self.seed, progress=self.progress
            )
            self.found[-1] += more
        verdicts, where = judge_layers(self.found, more=more)
        layers = sorted(layer for layer in self.found if layer >= 0)
        return self._diagnosis(tax, verdicts, _shares(layers, self.found, effects), where)

    def _would_be_erased(self, assumed: Sequence[Evidence]) -> list[int]:
        """Damaged layers that would be called erased if relearning failed and what is assumed were found."""
        more = [Evidence("Q", 0.0, 0.0, 0.0), *assumed]
        return [n for n in damaged_layers(self.found) if judge([*self.found[n], *more]).state == "erased"]

    def _read(self, layers: Sequence[int]) -> None:
        for half in (self.bench.base, self.bench.aligned):
            half.read(layers)

    def _other(self, layers: Sequence[int]) -> tuple[Half, Half]:
        table = lay_out(self.pair, self.other, template=self.template)  # type: ignore[arg-type]
        halves = (Half(self.pair.base, table), Half(self.pair.aligned, table))
        for half in halves:
            half.read(layers)
        return halves

    def _diagnosis(
        self, tax: Interval, verdicts: Mapping[int, Verdict], shares: Mapping[int, float], where: int
    ) -> Diagnosis:
        return Diagnosis(
            suite=self.suite.name, template=self.template, label=self.bench.label,
            tax=(tax.value, tax.low, tax.high),
            evidence={layer: tuple(found) for layer, found in self.found.items()},
            verdicts=verdicts, shares=shares, where=where, steerings=dict(self.bench.steerings),
            notes=tuple(self.notes),
        )  # fmt: skip


def _coarse(depth: int) -> list[int]:
    """Five layers from the first to the last (all of a small model)."""
    return sorted({int(layer) for layer in np.linspace(0, depth - 1, 5).round()})


def _shares(
    layers: Sequence[int], found: Mapping[int, Sequence[Evidence]], effects: Mapping[int, float] | None
) -> dict[int, float]:
    """Share of the tax by layer: of the path effects where they are given, else the steps of I."""
    if effects is not None:
        total = sum(effects.values())
        return {layer: effects.get(layer, 0.0) / total for layer in layers} | {-1: 1.0}
    shares, before = {}, 0.0
    for layer in layers:
        now = next(one.value for one in found[layer] if one.statistic == "I")
        shares[layer], before = now - before, now
    return shares | {-1: 1.0}


def _layer(layer: int) -> object:
    return pd.NA if layer < 0 else layer
