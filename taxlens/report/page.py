"""The page: the answer, the figures, the tables, how to reproduce. One file, no network, no script."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Any

import jinja2

from taxlens.core.artifacts import atomic_path
from taxlens.report.answer import headline
from taxlens.view import RunView

MOST_ROWS = 40
MOST_BYTES = 1_700_000  # of figures inside the page; further ones are linked


def write_report(run: RunView) -> Path:
    """Write `report.html` into the run's folder and return its path.

    Args:
        run: a run with tables and figures (what is missing is left out).
    """
    environment = jinja2.Environment(loader=jinja2.PackageLoader("taxlens.report"), autoescape=True, trim_blocks=True)
    page = environment.get_template("report.html.jinja").render(**_content(run))
    path = run.folder / "report.html"
    with atomic_path(path) as temporary:
        temporary.write_text(page, encoding="utf-8")
    return path


def _content(run: RunView) -> dict[str, Any]:
    manifest = run.manifest
    return {
        "name": run.config.name,
        "answers": headline(run),
        "figures": _figures(run.folder / "figures"),
        "tables": [_table(run, name) for name in run.tables],
        "pair": manifest["pair"] or {},
        "suites": manifest["suites"],
        "versions": manifest["versions"],
        "seed": manifest["seed"],
    }


def _figures(folder: Path) -> list[dict[str, str]]:
    found, size = [], 0
    for path in sorted(folder.glob("*.png"), key=_importance):
        caption = path.with_suffix(".txt")
        size += path.stat().st_size
        found.append(
            {
                "name": path.stem,
                "data": base64.b64encode(path.read_bytes()).decode("ascii") if size <= MOST_BYTES else "",
                "caption": caption.read_text(encoding="utf-8").strip() if caption.is_file() else path.stem,
            }
        )
    return found


def _importance(path: Path) -> tuple[int, str]:
    order = (
        "figure1",
        "tax_probability",
        "two_by_two_probability",
        "attribution",
        "restoration",
        "predicted",
        "states",
        "similarity",
        "probe",
        "tax",
    )
    rank = next((i for i, start in enumerate(order) if path.stem.startswith(start)), len(order))
    return rank, path.stem


def _table(run: RunView, name: str) -> dict[str, Any]:
    frame = run.table(name)
    shown = frame.head(MOST_ROWS)
    rows = [[_cell(value) for value in row] for row in shown.itertuples(index=False)]
    return {"name": name, "columns": list(frame.columns), "rows": rows, "more": max(0, len(frame) - MOST_ROWS)}


def _cell(value: Any) -> str:
    if isinstance(value, float):
        return "" if value != value else f"{value:.4g}"
    return str(value)
