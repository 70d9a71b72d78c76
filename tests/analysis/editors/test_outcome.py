"""Columns of an edit on values whose answer is known: harm alone, harmless alone, and what an average would hide."""

from types import SimpleNamespace

import numpy as np
import pytest

from taxlens.analysis.answers.refusal_rates import JudgeError
from taxlens.analysis.editors.held_out import DISTANCES, HeldValues
from taxlens.analysis.editors.outcome import items_to_certify, outcome
from taxlens.core.errors import UsageError

N = 40
PERFECT = JudgeError((10**9, 0, 10**9, 0), None)


def values(probability, margin, refused=None):
    """Constant suites: name -> probability and margin; name -> answers that refuse, of N."""
    choices = {
        s: {"probability": np.full(N, p), "margin": np.full(N, margin.get(s, 0.0))} for s, p in probability.items()
    }
    answered = {s: (np.arange(N) < k).astype(float) for s, k in (refused or {}).items()}
    return HeldValues(choices, {name: np.full(N, 0.5) for name in DISTANCES}, answered)


def held(base, aligned):
    groups = {s: np.array([str(i) for i in range(N)], dtype=object) for s in base.choices}
    task = SimpleNamespace(taxed=("look",), harm="harm", harmless="ok")
    return SimpleNamespace(task=task, base=base, aligned=aligned, groups=groups, judge=None)


BASE = values({"look": 0.9, "harm": 0.1, "ok": 0.9, "maths": 0.5, "cities": 0.6}, {"harm": -8, "ok": 4}, {"look": 0})
ALIGNED = values(
    {"look": 0.1, "harm": 0.9, "ok": 0.9, "maths": 0.7, "cities": 0.4}, {"harm": 8, "ok": 1},
    {"look": 32, "harm": 40, "ok": 4},
)  # fmt: skip


def columns(*args):
    return outcome(held(BASE, ALIGNED), values(*args), error=PERFECT, draws=200)


def test_a_gap_that_is_kept_hides_refusals_of_harm_that_are_lost():
    edited = columns(
        {"look": 0.5, "harm": 0.6, "ok": 0.95, "maths": 0.7, "cities": 0.4}, {"harm": 4, "ok": 5},
        {"look": 8, "harm": 24, "ok": 0},
    )  # fmt: skip
    assert edited["gap_kept"].value == pytest.approx((12 + 1) / (16 - 3))  # a nat lost is bought with a nat won
    assert edited["harm_kept"].value == pytest.approx(0.75)
    assert edited["harmless_nats"].value == pytest.approx(4)
    assert edited["harm_generated"].value == pytest.approx(0.6)
    assert edited["harmless_generated"].value == pytest.approx(40 / 36)
    assert edited["gap_generated"].value == pytest.approx(24 / 36)
    assert edited["returned_generated"].value == pytest.approx(24 / 32)
    assert edited["returned"].value == pytest.approx(0.5)
    assert edited.harm.value == edited["harm_generated"].value


def test_suites_that_improved_and_suites_that_were_damaged_are_told_apart():
    edited = columns({"look": 0.9, "harm": 0.5, "ok": 0.85, "maths": 0.5, "cities": 0.6}, {"harm": 0, "ok": 0})
    assert edited.partition == {"look": "damaged", "ok": "neutral", "maths": "improved", "cities": "damaged"}
    assert edited["healed"].value == pytest.approx(1)
    assert edited["preserved"].value == pytest.approx(0)  # mere reversion heals all and preserves nothing
    assert edited["unharmed"].value == pytest.approx(-0.05)
    assert edited["retained"].value == pytest.approx(0.5)
    assert "harm_generated" not in edited


def test_the_aligned_model_itself_returns_nothing_and_keeps_all():
    edited = outcome(held(BASE, ALIGNED), ALIGNED, error=PERFECT, draws=200)
    assert [edited[c].value for c in ("returned", "harm_kept", "gap_kept", "preserved")] == pytest.approx([0, 1, 1, 1])
    assert edited["harm_generated"].value == 1
    assert 0.9 < edited["harm_generated"].low < 0.92  # no loss among 40 refusals certifies no more than that


def test_the_judges_false_alarms_widen_the_share_of_harm():
    rough = JudgeError((90, 10, 80, 20), None)
    both = [
        outcome(held(BASE, ALIGNED), values(dict.fromkeys(BASE.choices, 0.5), {}, {"look": 8, "harm": 30, "ok": 0}),
                error=error, draws=400)["harm_generated"] for error in (PERFECT, rough)
    ]  # fmt: skip
    assert both[0].value == both[1].value
    assert both[1].high - both[1].low > both[0].high - both[0].low


def test_the_number_of_prompts_that_a_constraint_needs():
    assert items_to_certify(0.95) == 72
    assert 0.025 ** (1 / 72) >= 0.95 > 0.025 ** (1 / 71)
    with pytest.raises(UsageError, match="lies between"):
        items_to_certify(1.0)
