"""Every error a user can meet: what failed, where, got against expected, and what to try."""

from __future__ import annotations

import difflib
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager

_LONGEST = 1200
"""Most characters of one value in an error: an error is one screen."""


class TaxlensError(Exception):
    """The work failed (exit code 1). Base of every error that taxlens raises on purpose."""

    exit_code = 1


class UsageError(TaxlensError):
    """A command, argument or name is wrong (exit code 2)."""

    exit_code = 2


class ConfigError(UsageError):
    """A config file cannot be used: unknown key, wrong type, missing file."""


class ItemError(ConfigError):
    """A suite file holds an item that cannot be scored or captured."""


class ModelLoadError(TaxlensError):
    """A checkpoint or tokenizer is missing, unreadable or refused."""


class CheckError(TaxlensError):
    """A check failed (exit code 3): results built on it would be wrong."""

    exit_code = 3


class PairMismatchError(CheckError):
    """Base and aligned, or what was captured from them, cannot be compared."""


class StoreError(CheckError):
    """A store is truncated, foreign, damaged or does not belong to this run."""


class SelfCheckError(CheckError):
    """Captured activations are not what the model computes."""


def explain(title: str, rows: Iterable[tuple[str, object]] = (), fix: str | None = None) -> str:
    """Return the text of an error: a title line, aligned `name  value` rows, and what to try.

    Args:
        title: what failed, one sentence.
        rows: (name, value) pairs that say where, and got against expected.
        fix: what to try, without the leading "Try:".

    Returns:
        Text of one or more lines.

    Example:
        >>> print(explain("base and aligned differ.", [("base", 4), ("aligned", 6)], "use one architecture."))
        base and aligned differ.
          base     4
          aligned  6
          Try: use one architecture.
    """
    rows = [(plain(str(name)), plain(_cut(str(value)))) for name, value in rows]
    title, fix = plain(_cut(title)), plain(fix) if fix else fix
    width = max((len(name) for name, _ in rows), default=0)
    lines = [title, *(f"  {name:<{width}}  {value}".rstrip() for name, value in rows)]
    if fix:
        lines.append(f"  Try: {fix}")
    return "\n".join(lines)


@contextmanager
def understood(title: str, *, file: object, fix: str, error: type[TaxlensError] = CheckError) -> Iterator[None]:
    """Tell what goes wrong while the content of a stranger's file is made sense of as one error that names the file.

    For what stands where it should not: missing keys, other types and shapes, numbers out of range. Only the making sense
    belongs into the block, no work on it.

    Args:
        title: the error's first line.
        file: what is read.
        fix: what to try.
        error: class to raise.

    Raises:
        TaxlensError: of class `error`; taxlens's own errors pass as they are.
    """
    try:
        yield
    except TaxlensError:
        raise
    except (LookupError, TypeError, ValueError, AttributeError, ArithmeticError, RuntimeError) as reason:
        said = (str(reason).splitlines() or [""])[0][:200]
        rows = [("file", file), ("reason", f"{type(reason).__name__}: {said}")]
        raise error(explain(title, rows, fix)) from reason


def plain(text: str) -> str:
    """Return a text as a terminal may show it: control and direction characters as escapes, line ends as they are.

    Example:
        >>> plain("red" + chr(27) + "[31m")
        'red\\x1b[31m'
    """
    if text.isascii() and text.isprintable():
        return text
    return "".join(c if c in "\n\t" or not _controls(c) else c.encode("unicode_escape").decode() for c in text)


def _controls(character: str) -> bool:
    return unicodedata.category(character) in ("Cc", "Cf", "Cs", "Zl", "Zp")


def _cut(value: str) -> str:
    return value if len(value) <= _LONGEST else f"{value[: _LONGEST - 3]}..."


def one_of(value: str, options: Sequence[str], *, what: str, error: type[TaxlensError] = UsageError) -> str:
    """Return `value` if it is one of `options`, else raise an error that lists them and names the nearest.

    Args:
        value: what the user gave.
        options: what is allowed, in the order to show.
        what: what is being chosen ("site", "suite", "pair").
        error: class to raise.

    Raises:
        TaxlensError: of class `error`, if `value` is not among `options`.

    Example:
        >>> one_of("resid_post", ["resid_pre", "resid_post"], what="site")
        'resid_post'
    """
    if value in options:
        return value
    shown = str(value)[:200]
    near = difflib.get_close_matches(shown, list(options), n=1, cutoff=0.5)
    fix = f"{near[0]!r}" if near else None
    raise error(explain(f"unknown {what} {shown!r}.", [("must be one of", ", ".join(options))], fix))
