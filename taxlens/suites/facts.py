"""Suites of knowledge and skill: capitals, arithmetic, agreement, translation, common sense."""

from __future__ import annotations

import numpy as np

from taxlens.activations.items.items import Item
from taxlens.suites.tables import choice_item, draw, lines

LANGUAGES = ("Spanish", "French", "German")
OPERATIONS = {"plus": lambda a, b: a + b, "minus": lambda a, b: a - b, "times": lambda a, b: a * b}
SIGNS = {"plus": "+", "minus": "-", "times": "x"}


def capitals() -> list[Item]:
    """Capital of a country and country of a capital; foils of the same region; group = country."""
    generator = np.random.default_rng(101)
    items = []
    for line in lines("capitals"):
        region, rest = line.split(": ")
        pairs = [tuple(entry.split("=")) for entry in rest.split(", ")]
        for country, capital in pairs:
            for way, prompt, right, others in (
                ("of", f"The capital of {country} is", capital, [c for _, c in pairs if c != capital]),
                ("is", f"{capital} is the capital of", country, [c for c, _ in pairs if c != country]),
            ):
                items.append(
                    choice_item(
                        generator,
                        identity=f"{country}/{way}",
                        group=country,
                        prompt=prompt,
                        right=right,
                        wrong=draw(generator, others, 3),
                        labels={"region": region, "way": way},
                    )
                )
    return items


def arithmetic() -> list[Item]:
    """Sums, differences and products of small numbers; near misses as foils; group = operation and operand."""
    generator = np.random.default_rng(102)
    items = []
    for name, operation in OPERATIONS.items():
        firsts = range(12, 92, 5) if name != "times" else range(3, 13)
        for first in firsts:
            seconds = (7, 9, 11, 4) if name != "times" else (4, 6, 7, 8, 9)
            for second in seconds:
                right = operation(first, second)
                near = [right + step for step in (-10, -2, -1, 1, 2, 10) if right + step > 0]
                wrong = [str(near[int(i)]) for i in generator.choice(len(near), 3, replace=False)]
                items.append(
                    choice_item(
                        generator,
                        identity=f"{name}/{first}/{second}",
                        group=f"{name} {first}",
                        prompt=f"{first} {SIGNS[name]} {second} =",
                        right=str(right),
                        wrong=wrong,
                        labels={"operation": name},
                    )
                )
    return items


def agreement() -> list[Item]:
    """Is or are, past a noun of the same or the other number; group = the subject noun."""
    generator = np.random.default_rng(103)
    items = []
    for line in lines("agreement"):
        nouns, rest = line.split(": ")
        for number, noun in zip(("singular", "plural"), nouns.split("/")):
            for between in (phrase for pair in rest.split(", ") for phrase in pair.split("/")):
                items.append(
                    choice_item(
                        generator,
                        identity=f"{noun}/{between}",
                        group=nouns.split("/")[0],
                        prompt=f"The {noun} {between}",
                        right="is" if number == "singular" else "are",
                        wrong=["are" if number == "singular" else "is"],
                        labels={"number": number},
                    )
                )
    return items


def translation() -> list[Item]:
    """A common English word in Spanish, French or German; foils of the same language; group = the word."""
    generator = np.random.default_rng(104)
    table = {}
    for line in lines("translation"):
        word, rest = line.split(": ")
        table[word] = rest.split(", ")
    items = []
    for word, foreign in table.items():
        for column, language in enumerate(LANGUAGES):
            others = sorted({row[column] for other, row in table.items() if other != word})
            items.append(
                choice_item(
                    generator,
                    identity=f"{word}/{language}",
                    group=word,
                    prompt=f"The {language} word for '{word}' is",
                    right=foreign[column],
                    wrong=draw(generator, others, 3),
                    labels={"language": language},
                )
            )
    return items


def common_sense() -> list[Item]:
    """Everyday tools, places, causes, properties and people; group = the right answer."""
    generator = np.random.default_rng(105)
    items, family, number = [], "", 0
    for line in lines("common_sense"):
        if line.startswith("["):
            family, number = line.strip("[]"), 0
            continue
        prompt, right, *wrong = line.split("|")
        items.append(
            choice_item(
                generator,
                identity=f"{family}/{number}",
                group=right,
                prompt=prompt,
                right=right,
                wrong=wrong,
                labels={"family": family},
            )
        )
        number += 1
    return items
