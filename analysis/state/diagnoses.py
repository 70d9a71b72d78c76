"""Every capability of a run diagnosed, and the tables that come of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import pandas as pd

from taxlens.activations.items.sampling import at_most
from taxlens.analysis.state.diagnose import Diagnosis, diagnose
from taxlens.analysis.state.state_tables import EVIDENCE, STATES
from taxlens.core.errors import ItemError
from taxlens.core.progress import SILENT, Progress
from taxlens.core.result import Result
from taxlens.core.shared_work import shared

if TYPE_CHECKING:
    from taxlens.activations.items.items import Suite
    from taxlens.activations.models.pair import ModelPair
    from taxlens.analysis.interventions.steering import Steering


CONTROL_ITEMS = 64
"""Items of the other suite that a control vector is fitted on."""


@dataclass(frozen=True, slots=True, eq=False)
class Diagnoses(Result):
    """Diagnoses of several suites, and the suites that could not be diagnosed with the reason."""

    figure: ClassVar[str] = "states"

    found: tuple[Diagnosis, ...]
    skipped: tuple[tuple[str, str, str], ...] = ()

    def to_frame(self) -> pd.DataFrame:
        """Rows of states.csv; a suite that could not be diagnosed is undetermined, with the reason."""
        rows = [
            (suite, template, "resid_post", pd.NA, "undetermined", float("nan"), why)
            for suite, template, why in self.skipped
        ]
        frames = [one.to_frame() for one in self.found]
        if rows:
            frames.append(STATES.frame(rows).astype({"layer": "Int64"}))
        return STATES.join(frames)

    def evidence_frame(self) -> pd.DataFrame:
        """Rows of evidence.csv."""
        frames = [one.evidence_frame() for one in self.found]
        return EVIDENCE.join(frames)

    def steerings(self) -> dict[str, Steering]:
        """By suite, the best steering where the verdict was read, with its measured share as provenance.

        Where ablating one direction was tried there, that is given too, as "SUITE-ablation".
        """
        found = {}
        for one in self.found:
            if any(layer == one.where for layer, _ in one.steerings):
                best = one.steering()
                found[one.suite] = _with_shares(one, best, f"Z{best.rank}", kind="shift")
            if (one.where, 0) in one.steerings:
                ablation = one.steerings[one.where, 0]
                found[f"{one.suite}-ablation"] = _with_shares(one, ablation, "A", kind="ablation")
        return found

    def __repr__(self) -> str:
        return "\n".join(
            [*map(repr, self.found), *(f"{suite}: not diagnosed: {why}" for suite, _, why in self.skipped)]
        )


def _with_shares(found: Diagnosis, steering: Steering, statistic: str, *, kind: str) -> Steering:
    shares = {c or "returned": found.value(statistic, found.where, control=c) for c in ("", "random")}
    facts = {"suite": found.suite, "template": found.template, "state": found.state, "kind": kind}
    steering.measured.update(facts | shares)
    return steering


def diagnose_suites(
    pair: ModelPair,
    suites: Sequence[Suite],
    *,
    template: Mapping[str, str],
    layers: str | Sequence[int] = "auto",
    items: int | str = "all",
    relearn: bool | str = True,
    effects: Mapping[str, Mapping[int, float]] | None = None,
    draws: int = 1000,
    seed: int = 0,
    progress: Progress = SILENT,
) -> Diagnoses:
    """Diagnose each suite; each one's control vector is fitted on the next suite of the same template.

    Args:
        pair: the two checkpoints.
        suites: capability suites.
        template: suite name to template.
        layers, items, relearn: as for `diagnose`.
        effects: suite name to path effect by layer.
        draws, seed: as for `diagnose`.
        progress: told of each layer.
    """
    by_name = {suite.name: suite for suite in suites}

    def one(name: str) -> Diagnosis | str:
        suite, place = by_name[name], list(by_name).index(name)
        others = [s for s in (*suites[place + 1 :], *suites[:place]) if template[s.name] == template[name]]
        try:
            return diagnose(
                pair, suite, template=template[name], layers=layers, items=items, relearn=relearn,
                other=at_most(others[0], CONTROL_ITEMS, seed=seed) if others else None,
                effects=(effects or {}).get(name), draws=draws, seed=seed, progress=progress,
            )  # fmt: skip
        except ItemError as error:
            return str(error).splitlines()[0]

    found = dict(zip(by_name, shared("diagnose", list(by_name), one), strict=True))
    skipped = tuple((name, template[name], why) for name, why in found.items() if isinstance(why, str))
    return Diagnoses(tuple(one for one in found.values() if isinstance(one, Diagnosis)), skipped)
