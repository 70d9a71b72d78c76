"""Suites by name: a file, or one of the embedded ones."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from taxlens.activations.items.items import Suite
from taxlens.config.schema import EMBEDDED_BENEFITS
from taxlens.inputs.resolve import resolve_suite


def suite(
    file: str | Path, *, kind: str | None = None, name: str | None = None, format: str = "items", **options: Any
) -> Suite:
    """Return a suite: a JSON-lines or CSV file, or an embedded one (`demo:facts`, `suite:capitals`).

    Args:
        file: path of the file, or `demo:NAME`, or `suite:NAME`.
        kind: "capability", or "benefit" for what alignment was for; by default capability, but for the embedded
            `demo:harm` and `suite:refuse_harmful`.
        name: the suite's name (default: the file's).
        format: "items", or how a published benchmark is laid out: "minimal_pairs", "true_false", "statements",
            "questions" or "gaps" (`taxlens.suites.formats`).
        options: of such a format: `group_by`, `ask`, `letters`.

    Raises:
        ConfigError: the file is missing, or an option does not go with the format.
        ItemError: an item cannot be used.

    Example:
        >>> import taxlens
        >>> len(taxlens.suite("demo:facts")) >= 150
        True
    """
    text = str(file)
    short = name or Path(text.removeprefix("demo:").removeprefix("suite:")).stem
    kind = kind or ("benefit" if text in EMBEDDED_BENEFITS else "capability")
    return resolve_suite(short, text, kind=kind, root=".", shape=format, **options)
