"""The hand-written tables behind the suites, and how an item is put together from a row."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from taxlens.activations.items.items import Item, Label

TEXT = Path(__file__).parent / "text"


def lines(name: str) -> list[str]:
    """The lines of a table, without comments and blank ones."""
    text = (TEXT / f"{name}.txt").read_text(encoding="utf-8")
    return [line for line in text.splitlines() if line.strip() and not line.startswith("#")]


def choice_item(
    generator: np.random.Generator,
    *,
    identity: str,
    group: str,
    prompt: str,
    right: str,
    wrong: Sequence[str],
    labels: dict[str, Label],
) -> Item:
    """An item whose right choice stands at a random place; every choice gets its leading space."""
    choices = [f" {text}" for text in wrong]
    gold = int(generator.integers(len(choices) + 1))
    choices.insert(gold, f" {right}")
    return Item(id=identity, group=group, prompt=prompt, choices=tuple(choices), gold=gold, labels=labels)


def draw(generator: np.random.Generator, options: Sequence[str], count: int) -> list[str]:
    """``count`` different options at random, in random order."""
    return [options[int(i)] for i in generator.choice(len(options), count, replace=False)]
