"""The 25 kinds of verifiable instructions of IFEval: whether a text keeps to one, from its published definition.

A text is strict where it keeps to the instruction as it stands, loose where one of eight readings of it does: with or
without its first line, its last line, both, and the stars of markup. An empty text keeps to nothing.

References:
    Zhou et al. 2023, arXiv 2311.07911 (the instructions, strict and loose accuracy).
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any

from taxlens.analysis.answers.following.languages import language_of
from taxlens.analysis.answers.following.text_counts import (
    count_bullets,
    count_capital_words,
    count_highlights,
    count_sentences,
    count_words,
    divided,
    first_word,
)
from taxlens.core.errors import ItemError, explain, one_of

Arguments = Mapping[str, Any]
Check = Callable[[str, Arguments], bool]
_ANSWERS = ("My answer is yes.", "My answer is no.", "My answer is maybe.")


def follows(text: str, instruction: Arguments) -> bool:
    """Whether a text keeps to an instruction, as it stands.

    Args:
        text: the answer.
        instruction: ``{"id": "length_constraints:number_words", "num_words": 50, "relation": "at least"}``.

    Raises:
        ItemError: the kind is unknown, or lacks an argument.

    Example:
        >>> follows("one two", {"id": "length_constraints:number_words", "num_words": 2, "relation": "at least"})
        True
    """
    kind = one_of(str(instruction.get("id")), list(CHECKS), what="instruction", error=ItemError)
    given = {name: value for name, value in instruction.items() if value is not None}
    if not text.strip():
        return False
    try:
        return CHECKS[kind](text, given)
    except (KeyError, TypeError, ValueError, re.error) as error:
        rows = [("instruction", kind), ("given", ", ".join(map(str, given))), ("reason", repr(error))]
        raise ItemError(
            explain("an instruction cannot be checked.", rows, "give every argument of its kind.")
        ) from error


def follows_loosely(text: str, instruction: Arguments) -> bool:
    """Whether a text, or it without its first line, last line or stars, keeps to an instruction."""
    return any(follows(reading, instruction) for reading in readings(text))


def readings(text: str) -> list[str]:
    """The eight readings of a text that count as loose."""
    lines = text.split("\n")
    parts = (lines, lines[1:], lines[:-1], lines[1:-1])
    whole = [text, *("\n".join(part).strip() for part in parts[1:])]
    return [*whole, *(part.replace("*", "") for part in whole)]


def _compared(count: int, relation: str, number: int) -> bool:
    if relation not in ("less than", "at least"):
        raise ValueError(f"relation {relation!r} is neither 'less than' nor 'at least'")
    return count < number if relation == "less than" else count >= number


def _keywords(text: str, given: Arguments) -> bool:
    return all(re.search(keyword, text, flags=re.IGNORECASE) for keyword in given["keywords"])


def _keyword_frequency(text: str, given: Arguments) -> bool:
    found = re.findall(given["keyword"], text, flags=re.IGNORECASE)
    return _compared(len(found), given["relation"], given["frequency"])


def _forbidden(text: str, given: Arguments) -> bool:
    return not any(re.search(rf"\b{word}\b", text, flags=re.IGNORECASE) for word in given["forbidden_words"])


def _letter_frequency(text: str, given: Arguments) -> bool:
    count = Counter(text.lower())[str(given["letter"]).lower()]
    return _compared(count, given["let_relation"], given["let_frequency"])


def _language(text: str, given: Arguments) -> bool:
    found = language_of(text)
    return found is None or found.partition("-")[0] == str(given["language"]).partition("-")[0]


def _postscript(text: str, given: Arguments) -> bool:
    marker = str(given["postscript_marker"])
    known = {"P.P.S": r"\s*p\.\s?p\.\s?s.*$", "P.S.": r"\s*p\.\s?s\..*$"}
    pattern = known.get(marker, rf"\s*{marker.lower()}.*$")
    return bool(re.findall(pattern, text.lower(), flags=re.MULTILINE))


def _sections(text: str, given: Arguments) -> bool:
    parts = re.split(rf"\s?{given['section_spliter']}\s?\d+\s?", text)
    return len(parts) - 1 >= given["num_sections"]


def _nth_paragraph(text: str, given: Arguments) -> bool:
    count, word = first_word(text, given["nth_paragraph"])
    return count == given["num_paragraphs"] and word == str(given["first_word"]).lower()


def _json(text: str, _given: Arguments) -> bool:
    inner = text.strip()
    for fence in ("```json", "```Json", "```JSON", "```"):
        inner = inner.removeprefix(fence)
    try:
        json.loads(inner.removesuffix("```").strip())
    except (ValueError, RecursionError):
        return False
    return True


def _title(text: str, _given: Arguments) -> bool:
    return any(found.lstrip("<").rstrip(">").strip() for found in re.findall(r"<<[^\n]+>>", text))


def _two_responses(text: str, _given: Arguments) -> bool:
    parts = text.split("******")
    filled = [part.strip() for part in parts if part.strip()]
    inner_empty = any(not part.strip() for part in parts[1:-1])
    return not inner_empty and len(filled) == 2 and filled[0] != filled[1]


def _repeats(text: str, given: Arguments) -> bool:
    return text.strip().lower().startswith(str(given["prompt_to_repeat"]).strip().lower())


def _ends(text: str, given: Arguments) -> bool:
    return text.strip().strip('"').lower().endswith(str(given["end_phrase"]).strip().lower())


def _in_english(text: str) -> bool:
    return language_of(text) in (None, "en")


def _quoted(text: str) -> bool:
    inner = text.strip()
    return len(inner) > 1 and inner[0] == inner[-1] == '"'


CHECKS: dict[str, Check] = {
    "keywords:existence": _keywords,
    "keywords:frequency": _keyword_frequency,
    "keywords:forbidden_words": _forbidden,
    "keywords:letter_frequency": _letter_frequency,
    "language:response_language": _language,
    "length_constraints:number_sentences": lambda text, given: _compared(
        count_sentences(text), given["relation"], given["num_sentences"]
    ),
    "length_constraints:number_paragraphs": lambda text, given: divided(text) == given["num_paragraphs"],
    "length_constraints:number_words": lambda text, given: _compared(
        count_words(text), given["relation"], given["num_words"]
    ),
    "length_constraints:nth_paragraph_first_word": _nth_paragraph,
    "detectable_content:number_placeholders": lambda text, given: (
        len(re.findall(r"\[.*?\]", text)) >= given["num_placeholders"]
    ),
    "detectable_content:postscript": _postscript,
    "detectable_format:number_bullet_lists": lambda text, given: count_bullets(text) == given["num_bullets"],
    "detectable_format:constrained_response": lambda text, _given: any(said in text for said in _ANSWERS),
    "detectable_format:number_highlighted_sections": lambda text, given: (
        count_highlights(text) >= given["num_highlights"]
    ),
    "detectable_format:multiple_sections": _sections,
    "detectable_format:json_format": _json,
    "detectable_format:title": _title,
    "combination:two_responses": _two_responses,
    "combination:repeat_prompt": _repeats,
    "startend:end_checker": _ends,
    "startend:quotation": lambda text, _given: _quoted(text),
    "change_case:capital_word_frequency": lambda text, given: _compared(
        count_capital_words(text), given["capital_relation"], given["capital_frequency"]
    ),
    "change_case:english_capital": lambda text, _given: text.isupper() and _in_english(text),
    "change_case:english_lowercase": lambda text, _given: text.islower() and _in_english(text),
    "punctuation:no_comma": lambda text, _given: "," not in text,
}
"""Kind of instruction -> (text, its arguments) -> whether the text keeps to it."""
