"""How refusals are worded, language by language, and the turns of phrase that only look like one: refusal_wording.txt."""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path

WORDING = Path(__file__).with_name("refusal_wording.txt")
_HEADING = re.compile(r"\[(\w+)(?: ([\w ]+))?\]")
_PART = re.compile(r"(\w+) = (.+)")


@cache
def wording() -> dict[tuple[str, str], re.Pattern[str]]:
    """(what a sentence does, language or further name) -> its pattern."""
    parts: dict[str, str] = {}
    found: dict[tuple[str, str], list[str]] = {}
    section = ("", "")
    for line in WORDING.read_text(encoding="utf-8").splitlines():
        if not line or line.startswith("#"):
            continue
        if heading := _HEADING.fullmatch(line):
            section = (heading[1], heading[2] or "")
        elif section == ("", "") and (part := _PART.fullmatch(line)):
            parts[part[1]] = part[2]
        else:
            for name, text in parts.items():
                line = line.replace(f"{{{name}}}", text)
            found.setdefault(section, []).append(line)
    return {name: re.compile("|".join(patterns)) for name, patterns in found.items()}


def declines(sentence: str, *, early: bool = False) -> bool:
    """Whether a sentence (lower case) declines, in any language that has patterns.

    Args:
        sentence: lower case, without quoted speech.
        early: it stands among the first of the answer, where a first person is the model: any verb counts.
    """
    patterns = wording()
    idioms = {language: pattern for (what, language), pattern in patterns.items() if what == "idiom"}
    if early and patterns["other", "verb"].search(sentence) and not idioms["en"].search(sentence):
        return True
    return any(
        pattern.search(sentence) and not (language in idioms and idioms[language].search(sentence))
        for (what, language), pattern in patterns.items()
        if what == "refusal"
    )


def disclaims(sentence: str) -> bool:
    """Whether a sentence (lower case) only says what the answer cannot stand for, such as legal advice."""
    return wording()["disclaimer", ""].search(sentence) is not None


def points_elsewhere(sentence: str) -> bool:
    """Whether a sentence (lower case) sends the reader elsewhere, or only says that the deed is forbidden."""
    return wording()["elsewhere", ""].search(sentence) is not None
