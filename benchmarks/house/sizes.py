"""Check the size budget: median file <= 150 lines, none over 400; one function in ten over 40 lines, none over 80.

Run: python -m benchmarks.house.sizes
"""

from __future__ import annotations

import ast
import statistics
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
FOLDERS = ("core", "activations", "probes", "analysis", "taxlens")
LINKS = {f"taxlens/{name}" for name in FOLDERS[:4]}


def sources() -> list[Path]:
    """Return the library's Python files, each once."""
    found = [p for folder in FOLDERS for p in sorted((ROOT / folder).rglob("*.py"))]
    return [p for p in found if "/".join(p.relative_to(ROOT).parts[:2]) not in LINKS]


def function_sizes(path: Path) -> list[tuple[str, int]]:
    """Return (place, lines) of every function in a file."""
    kinds = (ast.FunctionDef, ast.AsyncFunctionDef)
    nodes = [n for n in ast.walk(ast.parse(path.read_text(encoding="utf-8"))) if isinstance(n, kinds)]
    name = path.relative_to(ROOT).as_posix()
    return [(f"{name}:{n.lineno} {n.name}()", (n.end_lineno or n.lineno) - n.lineno + 1) for n in nodes]


def breaches() -> list[str]:
    """Return what breaks the budget, a line each."""
    paths = sources()
    files = {p.relative_to(ROOT).as_posix(): len(p.read_text(encoding="utf-8").splitlines()) for p in paths}
    functions = [row for p in paths for row in function_sizes(p)]
    found = [f"{name} has {lines} lines (at most 400)" for name, lines in files.items() if lines > 400]
    found += [f"{place} has {lines} lines (at most 80)" for place, lines in functions if lines > 80]
    median = statistics.median(files.values())
    if median > 150:
        found.append(f"the median file has {median:.0f} lines (at most 150)")
    long = sum(lines > 40 for _, lines in functions)
    if long > 0.1 * len(functions):
        found.append(f"{long} of {len(functions)} functions are over 40 lines (at most one in ten)")
    print(f"{len(files)} files, median {median:.0f} lines; {len(functions)} functions, {long} over 40 lines")
    return found


if __name__ == "__main__":
    rows = breaches()
    print("\n".join(rows))
    sys.exit(1 if rows else 0)
