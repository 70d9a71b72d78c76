"""Whether a plant is what its family says: the two tests of every plant, and what a family asks beside them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

HIDDEN = 2.0
"""Norm that harm of P8 may have at most."""
ASKED = {
    "P2": "each harmed component alone makes at least 80 % of the tax",
    "P3": "no harmed component alone makes more than 20 % of the tax",
    "P4": "the first harmed component alone makes at least 130 % of the tax, the second takes the rest back",
    "P5": "no harmed component alone makes more than 60 % of the tax",
    "P6": "the change of every harmed matrix has rank one",
    "P8": f"the norm of the harm is at most {HIDDEN:g}, a half or less of what P1's is (at 1 it taxes a point or two, and no decoy is that quiet)",
    "P10": "the change of every harmed matrix has rank four at most, and the pair is loaded through PEFT",
}
"""What a family asks of its plants beside the two tests (harm alone >= 80 %, all else <= 1 % of the tax)."""


def alone(table: np.ndarray, players: Sequence[str], planted: Sequence[str]) -> dict[str, float]:
    """Tax of the base with one planted component's change, over the whole tax.

    Args:
        table: value of every coalition of the players, bit by player.
        players: names, by bit.
        planted: the components that hold the harm.
    """
    tax = float(table[0] - table[-1])
    return {part: float(table[0] - table[1 << players.index(part)]) / tax for part in planted if part in players}


def family_holds(family: str, singles: Mapping[str, float], facts: Mapping[str, Any]) -> bool:
    """Whether a plant passes what its family asks beside the two tests.

    Args:
        family: its name, for instance "P2 redundant".
        singles: what `alone` gives, in the order of the plant's truth.
        facts: `rank`, the largest rank of a harmed matrix's change, and `norm`, that of the whole harm.
    """
    shares = list(singles.values())
    rules = {
        "P2": lambda: min(shares) >= 0.8,
        "P3": lambda: max(shares) <= 0.2,
        "P4": lambda: shares[0] >= 1.3 and shares[1] <= 0.2,
        "P5": lambda: max(shares) <= 0.6,
        "P6": lambda: facts["rank"] == 1,
        "P8": lambda: facts["norm"] <= 1.001 * HIDDEN,
        "P10": lambda: facts["rank"] <= 4,
    }
    rule = rules.get(family.split()[0].rstrip(","))
    return rule is None or bool(rule())
