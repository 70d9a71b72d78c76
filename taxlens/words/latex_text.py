"""Words and tables as LaTeX."""

from __future__ import annotations

import re
from collections.abc import Sequence

_SPECIAL = {
    "\\": r"\textbackslash{}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_", "{": r"\{", "}": r"\}",
    "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "²": r"\textsuperscript{2}", "±": r"\ensuremath{\pm}",
    "<": r"\textless{}", ">": r"\textgreater{}", "\N{MINUS SIGN}": "--",
}  # fmt: skip


def escaped(text: object) -> str:
    """Return a text with every character that LaTeX reads as a command made literal; what ASCII lacks becomes "?".

    Example:
        >>> escaped("50 % of a_b")
        '50 \\\\% of a\\\\_b'
    """
    said = "".join(_SPECIAL.get(letter, letter) for letter in str(text))
    return re.sub(r"[^\x20-\x7e\n]", "?", said)


def number(value: float, *, digits: int = 1, scale: float = 1.0) -> str:
    """Return a number with a fixed number of digits and a true minus; "--" if there is none."""
    if value != value:
        return "--"
    said = f"{value * scale:.{digits}f}"
    said = said.lstrip("-") if float(said) == 0 else said
    return said.replace("-", "$-$")


def span(value: float, low: float, high: float, *, digits: int = 1, scale: float = 1.0) -> str:
    """Return a value with its interval in brackets."""
    one, two, three = (number(v, digits=digits, scale=scale) for v in (value, low, high))
    return f"{one} [{two}, {three}]"


def booktabs(columns: Sequence[str], rows: Sequence[Sequence[str]], *, caption: str, label: str, left: int = 1) -> str:
    """Return a table float in booktabs style.

    Args:
        columns: heads, already LaTeX.
        rows: cells, already LaTeX.
        caption: already LaTeX.
        label: of the float.
        left: how many columns, from the first, are set flush left.
    """
    align = "l" * left + "r" * (len(columns) - left)
    body = "\n".join(f"{' & '.join(row)} \\\\" for row in rows)
    return (
        f"\\begin{{table}}[t]\n\\centering\n\\caption{{{caption}}}\n\\label{{{label}}}\n\\small\n"
        f"\\resizebox{{\\ifdim\\width>\\linewidth\\linewidth\\else\\width\\fi}}{{!}}{{%\n\\begin{{tabular}}{{{align}}}\n"
        f"\\toprule\n{' & '.join(columns)} \\\\\n\\midrule\n{body}\n\\bottomrule\n\\end{{tabular}}}}\n\\end{{table}}\n"
    )
