"""Notebooks with outputs from the scripts in examples/: `python -m benchmarks.house.notebooks [NAME...]` writes examples/NAME.ipynb.

A script's cells are run in order, in a folder of their own, as a notebook does: what is printed, and what a cell's last line
shows (html, picture, text). Nothing of Jupyter is needed to make or to test them.
"""

from __future__ import annotations

import argparse
import ast
import base64
import contextlib
import io
import json
import os
import re
import tempfile
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "examples"


def cells_of(script: Path) -> list[tuple[str, str]]:
    """Return (kind, source) of each cell of a percent script; a text cell without its comment marks."""
    found = []
    for part in script.read_text(encoding="utf-8").split("# %%")[1:]:
        head, _, body = part.partition("\n")
        if "[markdown]" in head:
            found.append(("markdown", re.sub(r"^# ?", "", body.strip(), flags=re.MULTILINE)))
        else:
            found.append(("code", body.strip()))
    return found


def run_cell(source: str, names: dict[str, Any]) -> tuple[str, Any]:
    """Run a cell and return what it printed and what its last line shows."""
    tree = ast.parse(source)
    last = tree.body.pop() if tree.body and isinstance(tree.body[-1], ast.Expr) else None
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        exec(compile(tree, "cell", "exec"), names)
        shown = None if last is None else eval(compile(ast.Expression(last.value), "cell", "eval"), names)
    return printed.getvalue(), shown


def outputs_of(printed: str, shown: Any, number: int) -> list[dict[str, Any]]:
    """Return a cell's outputs in the notebook format; no path of the machine is left in them."""
    found: list[dict[str, Any]] = []
    if printed:
        found.append({"name": "stdout", "output_type": "stream", "text": _lines(_scrubbed(printed))})
    if shown is None:
        return found
    data: dict[str, Any] = {"text/plain": _lines(_scrubbed(repr(shown)))}
    if hasattr(shown, "_repr_png_"):
        data = {"image/png": base64.b64encode(shown._repr_png_()).decode(), "text/plain": ["a figure"]}
    elif hasattr(shown, "_repr_html_"):
        data = {"text/html": _lines(_scrubbed(shown._repr_html_()))} | data
    found.append({"data": data, "execution_count": number, "metadata": {}, "output_type": "execute_result"})
    return found


def notebook_of(script: Path) -> dict[str, Any]:
    """Run a script's cells in an empty folder and return the notebook."""
    made, number, names = [], 0, {"__name__": "__main__"}
    before = Path.cwd()
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        try:
            for place, (kind, source) in enumerate(cells_of(script)):
                cell: dict[str, Any] = {
                    "cell_type": kind,
                    "id": f"cell-{place}",
                    "metadata": {},
                    "source": _lines(source),
                }
                if kind == "code":
                    number += 1
                    outputs = outputs_of(*run_cell(source, names), number)
                    cell |= {"execution_count": number, "outputs": outputs}
                made.append(cell)
        finally:
            os.chdir(before)
    kernel = {"display_name": "Python 3", "language": "python", "name": "python3"}
    return {
        "cells": made,
        "metadata": {"kernelspec": kernel, "language_info": {"name": "python"}},
        "nbformat": 4,
        "nbformat_minor": 5,
    }


def _lines(text: str) -> list[str]:
    return text.splitlines(keepends=True)


def _scrubbed(text: str) -> str:
    """The text without the folders of the machine."""
    for folder in (str(ROOT.resolve()), str(ROOT), tempfile.gettempdir()):
        text = text.replace(folder, "...")
    return re.sub(r"\.\.\./tmp\w+", "...", text)


def main() -> None:
    """Write the notebooks."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*")
    chosen = parser.parse_args().names or [path.stem for path in sorted(EXAMPLES.glob("*.py"))]
    for name in chosen:
        book = notebook_of(EXAMPLES / f"{name}.py")
        out = EXAMPLES / f"{name}.ipynb"
        out.write_text(json.dumps(book, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
        print(f"{out}  {out.stat().st_size / 1e3:.0f} kB")


if __name__ == "__main__":
    main()
