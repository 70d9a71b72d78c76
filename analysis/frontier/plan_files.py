"""Plans on disk: what each undoes and what was measured, so that a checkpoint can be written from a run folder."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from taxlens.core.artifacts import write_json
from taxlens.core.errors import CheckError, UsageError, explain, one_of
from taxlens.core.json_text import read_json

if TYPE_CHECKING:
    from taxlens.analysis.frontier.front import Frontier

FORMAT = 1
"""Version of the plans file."""


@dataclass(frozen=True, slots=True)
class PlanRecord:
    """One plan as a run folder keeps it.

    Args:
        name: the plan's name in frontier.csv.
        unit: level of its units.
        order: how the units were chosen.
        undo: unit name to coefficient.
        energy_undone: share of the update's energy that it takes away.
        n_units: units undone.
        measured: figures measured on held-out items: "returned", "benefit_kept" (each value, low, high), "metric",
            "suites" (suite name to tax before, after and share returned), "benefit" (suite names), "n_items".
        margin: share of the benefit below which the plan is refused unless the loss is accepted.
        base, aligned: sha256 of the weights that it was made for.
    """

    name: str
    unit: str
    order: str
    undo: Mapping[str, float]
    energy_undone: float
    n_units: int
    measured: Mapping[str, Any]
    margin: float
    base: str
    aligned: str

    @property
    def benefit_kept(self) -> float:
        """Share of the benefit kept, or of the refusals of harm alone, whichever is less, as measured."""
        return min(float(self.measured[key]["value"]) for key in ("benefit_kept", "harm_kept"))


def write_plans(front: Frontier, path: Path | str, *, base: str, aligned: str) -> Path:
    """Write every plan that is a mixture of the pair's weights, with what was measured, as one JSON file.

    Args:
        front: the measured frontier.
        path: the file, "plans.json" in a run's folder.
        base: sha256 of the base's weights.
        aligned: sha256 of the aligned model's weights.
    """
    plans = {
        plan.name: {
            "unit": plan.unit, "order": plan.order, "undo": dict(plan.undo), "n_units": plan.n_units,
            "energy_undone": plan.energy_undone, "measured": _measured(front, plan.name), "margin": front.margin,
        }
        for plan in front.plans
        if plan.open is None
    }  # fmt: skip
    whole = {"format": FORMAT, "base": base, "aligned": aligned, "recommended": front.recommended, "plans": plans}
    return write_json(whole, path)


def read_plan(path: Path | str, name: str) -> PlanRecord:
    """The plan of that name; "recommended" is the recommended one.

    Raises:
        UsageError: no plans file, no such plan, none was recommended, or refusals of harm alone were not measured.
    """
    path = Path(path)
    if not path.is_file():
        fix = "run taxlens frontier first."
        raise UsageError(explain("this run has no measured plans.", [("looked for", path)], fix))
    fix = "measure the frontier again: taxlens frontier RUN."
    stored = read_json(path, title="the plans cannot be read.", fix=fix)
    try:
        if stored["format"] != FORMAT:
            raise ValueError(f"format {stored['format']}, known is {FORMAT}")
        plans, recommended = dict(stored["plans"]), stored["recommended"]
    except (KeyError, TypeError, ValueError) as error:
        raise CheckError(explain("the plans cannot be read.", [("file", path), ("reason", error)], fix)) from error
    if name == "recommended":
        name = recommended
        if not name:
            rows = [("plans", ", ".join(plans))]
            raise UsageError(explain("no plan met the rule for a recommendation.", rows, "name one of the plans."))
    one_of(name, list(plans), what="plan")
    try:
        record = PlanRecord(name=name, base=stored["base"], aligned=stored["aligned"], **plans[name])
    except (KeyError, TypeError) as error:
        raise CheckError(explain("the plan cannot be read.", [("file", path), ("reason", error)], fix)) from error
    if "harm_kept" not in record.measured:
        rows = [("file", path), ("plan", name)]
        raise UsageError(explain("this plan was measured before refusals of harm were told apart.", rows, fix))
    return record


def _measured(front: Frontier, name: str) -> dict[str, Any]:
    metric = front.metric
    suites = {}
    for suite in front.taxed:
        aligned, base = (float(end[suite][metric].mean()) for end in (front.aligned, front.base))
        here = float(front.values[name][suite][metric].mean())
        suites[suite] = {"base": base, "aligned": aligned, "restored": here, "held_out": front.held_out[suite]}
    returned, kept, harmless = front.returned(name), front.benefit_kept(name), front.harmless_nats(name)
    return {
        "metric": metric,
        "suites": suites,
        "returned": _interval(returned),
        "benefit_kept": _interval(kept),
        "harm_kept": _interval(front.harm_kept(name)),
        "harmless": None if harmless is None else _interval(harmless),
        "benefit_nats": _interval(front.benefit_nats(name)),
        "benefit": list(front.benefit.suites),
        "benefit_generated": _number(front.benefit_generated(name)),
        "n_items": returned.n_items,
        "n_groups": returned.n_groups,
    }


def _interval(interval: Any) -> dict[str, float | None]:
    return {key: _number(getattr(interval, key)) for key in ("value", "low", "high")}


def _number(value: float) -> float | None:
    return float(value) if math.isfinite(value) else None
