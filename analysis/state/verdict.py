"""From evidence to a state: the thresholds, the rules and their order, in one place.

A rule fires when the interval of every statistic that it names clears its threshold. Rules are tried in the order
of `RULES`; where none fires the state is undetermined, and the reason names the rule that came nearest.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

STATES = ("intact", "suppressed", "rotated", "rerouted", "attenuated", "erased", "undetermined")
"""What a capability can be found to be."""


@dataclass(frozen=True, slots=True)
class Evidence:
    """One statistic with its interval, at one layer or overall.

    Args:
        statistic: D, X, S, I, Z1, Z4, Z16, U, gain, Q or M.
        value: the estimate; nan where it could not be had.
        low: lower end of its interval.
        high: upper end.
        control: what it is a control of ("random", "shuffled", "other suite"); blank for the statistic itself.
        note: why it could not be had.
    """

    statistic: str
    value: float
    low: float
    high: float
    control: str = ""
    note: str = ""

    def __str__(self) -> str:
        name = f"{self.statistic} ({self.control})" if self.control else self.statistic
        return f"{name} {self.value:.2f} [{self.low:.2f}, {self.high:.2f}]"


@dataclass(frozen=True, slots=True)
class Test:
    """A statistic above or below a threshold, by its interval.

    Args:
        statistics: names of which one must pass ("Z1", "Z4", "Z16").
        least: the interval's lower end must reach it.
        most: the interval's upper end must not pass it.
        control: that this is asked of a control.
        optional: passes where the statistic could not be had.
    """

    statistics: tuple[str, ...]
    least: float = -math.inf
    most: float = math.inf
    control: str = ""
    optional: bool = False

    def passes(self, found: Mapping[tuple[str, str], Evidence]) -> bool:
        """Whether any of the statistics passes."""
        seen = [found[name, self.control] for name in self.statistics if (name, self.control) in found]
        seen = [one for one in seen if math.isfinite(one.value)]
        if not seen:
            return self.optional
        return any(one.low >= self.least and one.high <= self.most for one in seen)

    def __str__(self) -> str:
        name = " or ".join(self.statistics) + (f" ({self.control})" if self.control else "")
        bounds = [f">= {self.least:g}"] * math.isfinite(self.least) + [f"<= {self.most:g}"] * math.isfinite(self.most)
        return f"{name} {' and '.join(bounds)}"


@dataclass(frozen=True, slots=True)
class StateRule:
    """A state, and all that must pass for it."""

    state: str
    tests: tuple[Test, ...]

    def __str__(self) -> str:
        return ", ".join(str(test) for test in self.tests)


DAMAGED = 0.3
"""A layer is judged where injecting the base's stream returns at least this share of the tax (I, lower end)."""

RULES = (
    StateRule("intact", (Test(("I",), most=0.15),)),
    StateRule("attenuated", (Test(("D",), least=0.8), Test(("X",), least=0.5), Test(("gain",), most=0.85))),
    StateRule("rotated", (
        Test(("D",), least=0.8), Test(("X",), most=0.55), Test(("S",), least=0.8), Test(("Z1",), most=0.3),
    )),
    StateRule("suppressed", (
        Test(("D",), least=0.8), Test(("X",), least=0.6), Test(("Z1", "Z4", "Z16"), least=0.5),
        Test(("Z16",), most=0.2, control="random"),
    )),
    StateRule("erased", (
        Test(("D",), most=0.4), Test(("D",), most=0.4, control="network"), Test(("S",), most=0.4),
        Test(("I",), least=0.6), Test(("Z16",), most=0.2), Test(("Q",), most=0.3),
    )),
)  # fmt: skip
"""Rules of one layer of a taxed capability, in their order of precedence."""

KEPT_RULES = (
    StateRule("rerouted", (Test(("U least",), most=0.5), Test(("U most",), least=1.1))),
    StateRule("intact", (Test(("D",), least=0.8, optional=True),)),
)
"""Rules of a capability without a tax (rerouted is experimental)."""

NEGLIGIBLE = 0.02
"""A tax whose whole interval lies below this (probability of the right choice) is none."""

UNDECODABLE = 0.15
"""Base probes that read less than this above chance make D and X meaningless: they are left out."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """A state and why.

    Args:
        state: one of `STATES`.
        reason: the rule that fired with its evidence, or what kept the nearest rule from firing.
    """

    state: str
    reason: str


def judge(evidence: Sequence[Evidence], rules: Sequence[StateRule] = RULES) -> Verdict:
    """The first rule whose every test passes, or undetermined with the nearest rule's failing tests.

    Args:
        evidence: statistics of one layer.
        rules: in order of precedence.

    Example:
        >>> judge([Evidence("I", 0.02, -0.05, 0.08)]).state
        'intact'
    """
    found = {(one.statistic, one.control): one for one in evidence}
    for rule in rules:
        if all(test.passes(found) for test in rule.tests):
            return Verdict(rule.state, f"{_seen(rule, found)} (rule: {rule})")
    nearest = min(rules, key=lambda rule: sum(not test.passes(found) for test in rule.tests) / len(rule.tests))
    failed = [test for test in nearest.tests if not test.passes(found)]
    return Verdict(
        "undetermined", f"nearest is {nearest.state}; not met: {'; '.join(_short(t, found) for t in failed)}"
    )


def judge_layers(
    found: Mapping[int, Sequence[Evidence]], *, more: Sequence[Evidence] = ()
) -> tuple[dict[int, Verdict], int]:
    """The verdict of every layer of a taxed capability and, at key -1, the overall one; and the layer it was read at.

    The overall verdict is that of the first layer whose stream carries the damage (I, lower end, at `DAMAGED`) and
    that a rule decides; where none is decided, that of the first damaged layer. Where the damage is (`placed_at`) may be below.

    Args:
        found: layer to its statistics; keys below 0 are passed over.
        more: evidence that holds for every layer (Q).
    """
    layers = sorted(layer for layer in found if layer >= 0)
    verdicts = {layer: judge([*found[layer], *more]) for layer in layers}
    damaged = damaged_layers(found)
    decided = [layer for layer in damaged if verdicts[layer].state not in ("undetermined", "intact")]
    where = decided[0] if decided else damaged[0] if damaged else layers[-1]
    verdicts[-1] = verdicts[where]
    if not damaged:
        reason = "no layer's stream carries the damage with an interval: " + verdicts[where].reason
        verdicts[-1] = Verdict("undetermined", reason)
    if decided and (first := placed_at(found, where)) < where:
        reason = f"decided at layer {where}, whose damage is all there at layer {first}: {verdicts[where].reason}"
        verdicts[-1] = Verdict(verdicts[where].state, reason)
    return verdicts, where


def placed_at(found: Mapping[int, Sequence[Evidence]], where: int) -> int:
    """The first damaged layer whose stream carries as much of the tax (I, upper end) as the layer that a verdict was read at.

    What is lost there was not lost later. A layer that carries no damage is its own place.
    """
    whole = _end(found[where], "I", "value")
    return next((layer for layer in damaged_layers(found) if _end(found[layer], "I", "high") >= whole), where)


def damaged_layers(found: Mapping[int, Sequence[Evidence]]) -> list[int]:
    """Layers whose stream carries the damage: injecting the base's returns a share of the tax."""
    return [layer for layer in sorted(found) if layer >= 0 and lower_end(found[layer], "I") >= DAMAGED]


def lower_end(found: Sequence[Evidence], statistic: str) -> float:
    """Lower end of a statistic's interval, minus infinity where it was not had."""
    return _end(found, statistic, "low")


def _end(found: Sequence[Evidence], statistic: str, end: str) -> float:
    return next((getattr(one, end) for one in found if one.statistic == statistic and not one.control), -math.inf)


def _seen(rule: StateRule, found: Mapping[tuple[str, str], Evidence]) -> str:
    keys = [(name, test.control) for test in rule.tests for name in test.statistics]
    return ", ".join(str(found[key]) for key in dict.fromkeys(keys) if key in found)


def _short(test: Test, found: Mapping[tuple[str, str], Evidence]) -> str:
    seen = [str(found[name, test.control]) for name in test.statistics if (name, test.control) in found]
    return f"{test}: {', '.join(seen) if seen else 'not run'}"
