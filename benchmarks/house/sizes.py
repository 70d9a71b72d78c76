"""Check how the code is laid out: sizes of files and functions, files a folder, and names that stand twice.

No file over 400 lines, no function over 80, one function in ten over 40; at most 16 modules a folder; in one tree no two
modules of one name; no public class name defined twice.

Run: python -m benchmarks.house.sizes
"""

from __future__ import annotations

import ast
import sys
from collections import Counter
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
FOLDERS = ("core", "activations", "probes", "analysis", "taxlens")
MODULES = 16
PLAIN = {"__init__", "__main__"}
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
    long = sum(lines > 40 for _, lines in functions)
    if long > 0.1 * len(functions):
        found.append(f"{long} of {len(functions)} functions are over 40 lines (at most one in ten)")
    print(f"{len(files)} files; {len(functions)} functions, {long} over 40 lines")
    return found + crowded(paths) + twice(paths)


def crowded(paths: list[Path]) -> list[str]:
    """Return the folders that hold more than 16 modules, a line each."""
    counts = Counter(path.parent.relative_to(ROOT).as_posix() for path in paths if path.stem not in PLAIN)
    return [
        f"{folder}/ holds {count} modules (at most {MODULES})" for folder, count in counts.items() if count > MODULES
    ]


def twice(paths: list[Path]) -> list[str]:
    """Return the module names that stand twice in one tree and the public class names defined twice, a line each."""
    stems: dict[tuple[str, str], list[str]] = {}
    classes: dict[str, list[str]] = {}
    for path in paths:
        name = path.relative_to(ROOT)
        if path.stem not in PLAIN:
            stems.setdefault((name.parts[0], path.stem), []).append(name.as_posix())
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                classes.setdefault(node.name, []).append(name.as_posix())
    found = [f"one module name in one tree: {' and '.join(names)}" for names in stems.values() if len(names) > 1]
    return found + [f"class {name} is defined in {', '.join(at)}" for name, at in classes.items() if len(at) > 1]


if __name__ == "__main__":
    rows = breaches()
    print("\n".join(rows))
    sys.exit(1 if rows else 0)
