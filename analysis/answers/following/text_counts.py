"""Words, sentences, paragraphs and lists of an answer, counted as the instructions of IFEval mean them."""

from __future__ import annotations

import re

_SHORT = frozenset(
    "mr mrs ms dr prof st jr sr vs etc inc ltd co corp no vol fig al approx dept est gen gov hon rev sen rep capt col lt "
    "sgt jan feb mar apr jun jul aug sep sept oct nov dec e.g i.e u.s u.k p.s p.p.s a.m p.m ph.d".split()
)
_END = re.compile(r"[.!?]+[\"'”’)\]*]*(?=\s|$)|[。！？]")
_CAPITAL = re.compile(r"[^\W_]+(?:[-.&/][^\W_]+)*")


def count_words(text: str) -> int:
    """Words: runs of letters, digits and underscores."""
    return len(re.findall(r"\w+", text))


def count_capital_words(text: str) -> int:
    """Words all of whose letters are capitals; a compound with hyphens is one."""
    return sum(word.isupper() for word in _CAPITAL.findall(text))


def count_sentences(text: str) -> int:
    """Sentences: what ends in . ! or ?, abbreviations and initials aside; a last one needs no mark.

    Line breaks alone end no sentence. IFEval's own code counts with a trained splitter (NLTK's Punkt); the two may differ
    where an abbreviation ends a sentence.

    Example:
        >>> count_sentences("Dr. Ada came at 5 p.m. on Monday. She left! Why?")
        3
    """
    count, start = 0, 0
    for found in _END.finditer(text):
        if _is_short(text, found):
            continue
        if re.search(r"\w", text[start : found.start()]):
            count += 1
        start = found.end()
    return count + bool(re.search(r"\w", text[start:]))


def _is_short(text: str, found: re.Match[str]) -> bool:
    """Whether a full stop belongs to an abbreviation, an initial or a number of a list."""
    if found[0][0] != "." or found[0].startswith(".."):
        return False
    before = re.search(r"(\S+)$", text[: found.start()])
    word = before[1].lower().lstrip("(\"'") if before else ""
    after = text[found.end() :].lstrip()
    if word in _SHORT or re.fullmatch(r"(?:[a-z]\.)+[a-z]", word):
        return bool(after) and (not after[0].isupper() or word in ("mr", "mrs", "ms", "dr", "prof", "st"))
    if re.fullmatch(r"[a-z]", word):
        return before is not None and before[1].isupper() and bool(after) and word != "i"
    line = text[text.rfind("\n", 0, found.start()) + 1 : found.start()]
    return bool(re.fullmatch(r"\s*\d{1,3}", line))


def count_bullets(text: str) -> int:
    """Points of a list: lines that begin with one ``*`` or with ``-``."""
    stars = re.findall(r"^\s*\*[^\*].*$", text, flags=re.MULTILINE)
    return len(stars) + len(re.findall(r"^\s*-.*$", text, flags=re.MULTILINE))


def count_highlights(text: str) -> int:
    """Parts between single or double stars that hold something."""
    single = [part.strip("*").strip() for part in re.findall(r"\*[^\n\*]*\*", text)]
    double = [part.removeprefix("**").removesuffix("**").strip() for part in re.findall(r"\*\*[^\n\*]*\*\*", text)]
    return sum(map(bool, single)) + sum(map(bool, double))


def divided(text: str) -> int | None:
    """Paragraphs that ``***`` parts; None where one between two others is empty."""
    parts = re.split(r"\s?\*\*\*\s?", text)
    count = len(parts)
    for place, part in enumerate(parts):
        if part.strip():
            continue
        if place not in (0, len(parts) - 1):
            return None
        count -= 1
    return count


def first_word(text: str, paragraph: int) -> tuple[int, str]:
    """(paragraphs that hold something, first word of one of them in lower case); parted by empty lines, counted from 1."""
    parts = text.split("\n\n")
    count = sum(bool(part.strip()) for part in parts)
    if not 1 <= paragraph <= count or not parts[paragraph - 1].strip():
        return count, ""
    word = parts[paragraph - 1].split()[0].lstrip("'").lstrip('"')
    return count, re.split(r"[.,?!'\"]", word)[0].lower()
