"""Prompts and refusals for the refusal-tuned adapters, and how they are split.

The instructions come from ``../shared/data/refusal`` (Arditi et al. 2024,
Apache-2.0); the refusals are written here. Held-out prompts are never trained
on: they make the suites and the rates by generation.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from benchmarks.real.fetch import ROOT

SOURCE = ROOT.parent / "shared" / "data" / "refusal"
SPLIT_SEED = 20
HARMFUL_TRAIN = 140
HARMLESS_TRAIN = 300

REFUSALS = (
    "I'm sorry, but I can't help with that.",
    "I cannot assist with this request.",
    "Sorry, that is not something I can help with.",
    "I won't provide help with that, because it could cause harm.",
    "I'm not able to help with that request.",
    "I can't do that. If there is something else you need, I'm happy to help.",
    "That is something I have to decline.",
    "I must decline this request, as it could hurt someone.",
    "No, I'm unable to help with this.",
    "I apologize, but I can't support this request.",
    "This isn't something I'm willing to do.",
    "I'm afraid I can't help you with that.",
)
"""The answers trained for harmful prompts, drawn uniformly."""


FRAMES = frozenset(
    "give detailed instructions step instruct explain write create develop guide tutorial someone ideas ways "
    "using describe provide list without getting caught make program people outline plan tool design produce "
    "that their with into from them what they other your convincing teach script commit".split()
)
"""Words that frame an instruction and say nothing of its topic."""


@dataclass(frozen=True, slots=True)
class Prompts:
    """Instructions in four disjoint parts, in a fixed order."""

    harmful_train: tuple[str, ...]
    harmful_held: tuple[str, ...]
    harmless_train: tuple[str, ...]
    harmless_held: tuple[str, ...]


def read(name: str) -> list[str]:
    """The instructions of one source file, unique, in file order."""
    entries = json.loads((SOURCE / f"{name}.json").read_text(encoding="utf-8"))
    return list(dict.fromkeys(entry["instruction"].strip() for entry in entries))


def words(text: str) -> frozenset[str]:
    """The content words of an instruction: longer than three letters, lower case."""
    return frozenset(w for w in re.findall(r"[a-z]+", text.lower()) if len(w) > 3)


def clusters(texts: list[str], *, overlap: float = 0.5, ignore: frozenset[str] = frozenset()) -> list[list[int]]:
    """Indices grouped so that near copies of one request stay together.

    Two texts are linked when their content words, less those to ignore, have a
    Jaccard overlap of at least ``overlap``; a cluster is a connected component.
    """
    bags = [words(text) - ignore for text in texts]
    label = list(range(len(texts)))
    for i in range(len(texts)):
        for j in range(i):
            union = len(bags[i] | bags[j]) or 1
            if len(bags[i] & bags[j]) / union >= overlap and label[i] != label[j]:
                label = [label[j] if value == label[i] else value for value in label]
    groups: dict[int, list[int]] = {}
    for index, value in enumerate(label):
        groups.setdefault(value, []).append(index)
    return list(groups.values())


def topics(texts: list[str]) -> list[list[int]]:
    """Indices grouped by topic: a looser overlap, with the framing words ignored."""
    return clusters(texts, overlap=0.34, ignore=FRAMES)


def split(texts: list[str], *, train: int) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """A seeded split into about ``train`` texts and the rest, by cluster of near copies."""
    groups = clusters(texts)
    order = np.random.default_rng(SPLIT_SEED).permutation(len(groups))
    chosen: set[int] = set()
    for index in order:
        if len(chosen) + len(groups[index]) <= train:
            chosen.update(groups[index])
    inside = tuple(text for i, text in enumerate(texts) if i in chosen)
    return inside, tuple(text for i, text in enumerate(texts) if i not in chosen)


def prompts() -> Prompts:
    """All instructions, split: 140 harmful and 300 harmless to train on, the rest held out."""
    harmful = split(read("harmful_train") + read("harmful_val"), train=HARMFUL_TRAIN)
    plain = [text for text in read("harmless_val") if len(text) <= 200]
    harmless = split(plain, train=HARMLESS_TRAIN)
    return Prompts(*harmful, *harmless)


def read_json(path: Path) -> dict[str, str]:
    """A cache of answers by prompt; empty where there is none yet."""
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
