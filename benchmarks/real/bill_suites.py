"""Write the suites of the four techniques' bill: `configs/techniques/suites`.

    python -m benchmarks.real.bill_suites

Eight suites of capabilities: samples of the embedded ones (facts, agreement, arithmetic, word translation, common
sense, format), reading of two facts made by rule here, and plain prose. Over-refusal, harm and harmless are those of
`configs/smollm2` with the choices' ends made alike: every choice ends in the same full stop, so that its last token
says nothing of which choice it is.
"""

from __future__ import annotations

import argparse
import re
from dataclasses import replace
from pathlib import Path

import numpy as np

from benchmarks.real.fetch import ROOT
from benchmarks.real.suites import OUT as SMOLLM2
from benchmarks.real.suites import TEXT, Entry, write
from taxlens import suites
from taxlens.activations.items.items import Item, read_suite
from taxlens.activations.items.sampling import at_most

OUT = ROOT / "configs" / "techniques" / "suites"
SEED = 11
SAMPLED = {"capitals": 64, "agreement": 48, "arithmetic": 48, "translation": 48, "common_sense": 64, "format": 36}
"""Embedded suite -> items taken, one of each group in turn."""
EVEN = {"overrefusal": 150, "harm": 150, "harmless": 150}
"""Suites whose choices are made to end alike -> items taken."""
NAMES = ("Anna", "Ben", "Clara", "David", "Emma", "Felix", "Grace", "Henry", "Iris", "Jack", "Kate", "Leo")
THINGS = (
    "key", "book", "coin", "letter", "hammer", "cup", "ring", "map", "scarf", "ticket", "candle", "watch", "spoon", "stamp",
    "glove", "pencil",
)  # fmt: skip
PLACES = (
    "drawer",
    "basket",
    "box",
    "bag",
    "cupboard",
    "bucket",
    "garage",
    "kitchen",
    "cellar",
    "garden",
    "car",
    "suitcase",
)


def fields(item: Item) -> Entry:
    """What a file says of an item, without its id."""
    entry: Entry = {"prompt": item.prompt, "choices": list(item.choices), "gold": item.gold, "group": item.group}
    return entry | ({"labels": dict(item.labels)} if item.labels else {})


def even(choice: str) -> str:
    """A choice's first sentence, ended in a full stop: of an unfinished one, what stands behind its last comma is cut off.

    Example:
        >>> even(" To burn a candle well, you need to place a wick on the")
        ' To burn a candle well.'
    """
    words = re.split(r"(?<=[a-z]{2})[.!?] ", choice)[0].split()
    breaks = [n for n, word in enumerate(words[:-1], start=1) if n >= 4 and word[-1] in ",:;.!?"]
    kept = words[: breaks[-1]] if breaks else words
    return " " + " ".join(kept).rstrip(",:;.!?*\"'`-( ") + "."


def ended_alike(name: str, most: int) -> list[Entry]:
    """A suite of `configs/smollm2` whose choices all end in the same token."""
    suite = at_most(read_suite(SMOLLM2 / f"{name}.jsonl"), most, seed=SEED)
    items = [replace(item, choices=tuple(even(choice) for choice in item.choices)) for item in suite.items]
    return [fields(item) for item in items if len(set(item.choices)) == len(item.choices)]


def reading(stories: int = 24) -> list[Entry]:
    """Where a thing is, of two that a passage puts somewhere: two questions a story, group = story."""
    rng = np.random.default_rng(SEED)
    entries = []
    for story in range(stories):
        people = rng.choice(NAMES, 2, replace=False)
        things = rng.choice(THINGS, 2, replace=False)
        places = rng.choice(PLACES, 4, replace=False)
        told = " ".join(f"{who} left the {what} in the {where}." for who, what, where in zip(people, things, places))
        for asked in range(2):
            order = rng.permutation(4)
            choices = [f" {places[k]}" for k in order]
            prompt = f"{told} Later they both went home. The {things[asked]} is still in the"
            gold = int(np.flatnonzero(order == asked)[0])
            entries.append({"prompt": prompt, "choices": choices, "gold": gold, "group": f"story {story}"})
    return entries


def prose() -> list[Entry]:
    """Plain sentences: the right choice is how one goes on, the other its words in another order. Read it in nats."""
    rng = np.random.default_rng(SEED)
    entries = []
    text = (TEXT / "prose.txt").read_text(encoding="utf-8")
    for number, line in enumerate(line for line in text.splitlines() if line and not line.startswith("#")):
        start, end = (part.strip() for part in line.split("|"))
        words = end.split()
        mixed = [words[k] for k in rng.permutation(len(words) - 1)] + words[-1:]
        choices = [f" {end}", f" {' '.join(mixed)}"]
        gold = int(rng.integers(2))
        choices = choices if gold == 0 else choices[::-1]
        entries.append({"prompt": start, "choices": choices, "gold": gold, "group": f"sentence {number}"})
    return entries


def main(out: Path = OUT) -> None:
    """Write all of them."""
    argparse.ArgumentParser(description=__doc__.splitlines()[0]).parse_args()
    out.mkdir(parents=True, exist_ok=True)
    for name, most in SAMPLED.items():
        write(name, [fields(item) for item in at_most(suites.load(name), most, seed=SEED).items], out)
    write("reading", reading(), out)
    write("prose", prose(), out)
    for name, most in EVEN.items():
        write(name, ended_alike(name, most), out)


if __name__ == "__main__":
    main()
