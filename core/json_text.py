"""JSON from files that nobody vouches for: bounded in size, depth and digits, no key twice, no half characters."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from taxlens.core.artifacts import sha256_json, write_json
from taxlens.core.errors import CheckError, StoreError, TaxlensError, explain

MOST_CHARACTERS = 1 << 28
"""Longest JSON text that is read."""
MOST_DEPTH = 64
"""Deepest nesting of lists and objects."""
MOST_DIGITS = 308
"""Longest whole number, in decimal digits: what a float can still hold."""


class JsonError(ValueError):
    """A text is not JSON that taxlens reads; `reason` says why in a few words, `column` where if that is known."""

    def __init__(self, reason: str, column: int | None = None) -> None:
        super().__init__(reason)
        self.reason, self.column = reason, column


def parse_json(text: str, *, size: int = MOST_CHARACTERS, finite: bool = True, unicode: bool = True) -> Any:
    """Return the value of a JSON text.

    Args:
        text: the text.
        size: most characters.
        finite: refuse NaN and infinity (and numbers too large for a float); else they are read as such.
        unicode: refuse texts that UTF-8 cannot hold (lone surrogates); else the caller checks them.

    Raises:
        JsonError: it is no JSON, too long, too deep, repeats a key, or holds a number or text that cannot be kept.

    Example:
        >>> parse_json('{"a": [1, 2.5]}')
        {'a': [1, 2.5]}
    """
    if len(text) > size:
        raise JsonError(f"{len(text)} characters, at most {size} are read")
    try:
        numbers = {"parse_constant": _no_constant, "parse_float": _finite} if finite else {}
        value = json.loads(text, object_pairs_hook=_once, parse_int=_whole, **numbers)
    except json.JSONDecodeError as error:
        raise JsonError(error.msg, error.colno) from error
    except RecursionError as error:
        raise JsonError(f"nested deeper than {MOST_DEPTH}") from error
    _check(value, 0, unicode)
    return value


def read_json(path: Path | str, *, title: str, error: type[TaxlensError] = CheckError, fix: str | None = None) -> Any:
    """Return the value of a JSON file.

    Args:
        path: the file.
        title: the error's first line.
        error: class to raise.
        fix: what to try.

    Raises:
        TaxlensError: of class `error`, if the file cannot be read or is no such JSON.
    """
    try:
        return parse_json(Path(path).read_bytes().decode("utf-8-sig"))
    except (OSError, UnicodeDecodeError, JsonError) as reason:
        said = (getattr(reason, "strerror", None) or str(reason)).splitlines()[0]
        raise error(explain(title, [("file", path), ("reason", said)], fix)) from reason


def write_sealed(value: dict[str, Any], path: Path | str) -> Path:
    """Write an object as a JSON file that holds the hash of its content under "seal", and return the path."""
    plain = json.loads(json.dumps(value, allow_nan=False))
    return write_json(plain | {"seal": sha256_json(plain)}, path)


def read_sealed(path: Path | str, *, title: str, fix: str, needed: bool = True) -> dict[str, Any]:
    """Return the object that `write_sealed` wrote, without its seal.

    Args:
        path: the file.
        title: the error's first line.
        fix: what to try.
        needed: refuse a file without a seal, as older versions wrote them.

    Raises:
        StoreError: the file cannot be read, is no object, or is not as it was written.
    """
    found = read_json(path, title=title, error=StoreError, fix=fix)
    kept = {key: inside for key, inside in found.items() if key != "seal"} if isinstance(found, dict) else {}
    sealed = "seal" in found if kept else True
    if not kept or ((sealed or needed) and found.get("seal") != sha256_json(kept)):
        raise StoreError(explain(title, [("file", path), ("reason", "changed since it was written")], fix))
    return kept


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        seen: set[str] = set()
        twice = next(key for key, _ in pairs if key in seen or seen.add(key))  # type: ignore[func-returns-value]
        raise JsonError(f"the key {twice[:80]!r} stands twice")
    return found


def _no_constant(name: str) -> float:
    raise JsonError(f"{name} is no JSON number")


def _whole(digits: str) -> int:
    if len(digits.lstrip("-")) > MOST_DIGITS:
        raise JsonError(f"a number of {len(digits)} digits")
    return int(digits)


def _finite(text: str) -> float:
    value = float(text)
    if value in (float("inf"), float("-inf")):
        raise JsonError(f"the number {text[:40]} is too large")
    return value


def _check(value: Any, depth: int, unicode: bool) -> None:
    if isinstance(value, str):
        _check_text(value, unicode)
    elif isinstance(value, list | dict):
        if depth >= MOST_DEPTH:
            raise JsonError(f"nested deeper than {MOST_DEPTH}")
        for key in value if isinstance(value, dict) else ():
            _check_text(key, unicode)
        for inside in value.values() if isinstance(value, dict) else value:
            _check(inside, depth + 1, unicode)


def _check_text(text: str, unicode: bool) -> None:
    if unicode and not text.isascii():
        try:
            text.encode("utf-8")
        except UnicodeEncodeError as error:
            raise JsonError(f"half a character (a lone surrogate) in {ascii(text)[:80]}") from error
