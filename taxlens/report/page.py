"""The page: the answer, the figures, the tables, how to reproduce. One file, no network, no script."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jinja2
import pandas as pd

from taxlens.core.artifacts import atomic_path
from taxlens.report.answer import headline
from taxlens.report.limits import limits
from taxlens.report.pictures import pictures
from taxlens.stages.section import Section
from taxlens.words.amounts import bare, unit_of
from taxlens.words.run_view import RunView
from taxlens.words.suite_rows import by_loss, main_metric

if TYPE_CHECKING:
    from taxlens.runs.context import RunContext

MOST_ROWS = 25


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


def stage_report(job: RunContext, section: Section) -> None:
    """Write report.html."""
    job.run.checked("figures")
    write_report(job.run)


def _content(run: RunView) -> dict[str, Any]:
    manifest, answers = run.manifest, headline(run)
    first, groups = pictures(run.folder / "figures", suites=by_loss(run))
    facts = {key: value for key, value in (manifest["pair"] or {}).items() if key not in ("notes", "weights sha256")}
    return {
        "name": run.config.name,
        "answer": answers[0],
        "further": answers[1:],
        "ledger": ledger(run),
        "ledger_unit": f"{main_metric(run).capitalize()}, in {unit_of(main_metric(run))[0]}",
        "figures": first,
        "groups": groups,
        "tables": [_table(run, name) for name in run.tables],
        "limits": limits(run),
        "pair": facts,
        "weights": (manifest["pair"] or {}).get("weights sha256", {}),
        "suites": manifest["suites"],
        "versions": manifest["versions"],
        "stages": manifest.get("stages", {}),
        "config": json.dumps(manifest["config"]["given"], indent=1, ensure_ascii=False),
        "seed": manifest["seed"],
    }


def ledger(run: RunView) -> list[dict[str, str]]:
    """Return the taxes of the main metric as the page's first table: one row a suite and template."""
    if not run.has("tax"):
        return []
    frame, metric = run.table("tax"), main_metric(run)
    rows = []
    for row in frame[frame["metric"] == metric].itertuples():
        found = row._asdict()
        tax, low, high = (bare(value, metric) for value in (row.tax, row.low, row.high))
        rows.append(
            {
                "suite": f"{row.suite}{' (benefit)' if row.kind == 'benefit' else ''}",
                "template": row.template,
                "tax": f"{tax} [{low}, {high}]",
                "base": bare(row.base, metric),
                "aligned": bare(row.aligned, metric),
                "lost, won": _pair(found.get("lost"), found.get("won")),
                "items, groups": _pair(row.n_items, row.n_groups),
            }
        )
    return rows


def _pair(one: Any, two: Any) -> str:
    return ", ".join("-" if one is None or pd.isna(one) else f"{int(one)}" for one in (one, two))


def _table(run: RunView, name: str) -> dict[str, Any]:
    frame = run.table(name)
    shown = frame.head(MOST_ROWS)
    rows = [[_cell(value) for value in row] for row in shown.itertuples(index=False)]
    return {
        "name": name,
        "columns": list(frame.columns),
        "rows": rows,
        "total": len(frame),
        "more": max(0, len(frame) - MOST_ROWS),
    }


def _cell(value: Any) -> str:
    if pd.isna(value):
        return ""
    if isinstance(value, float):
        return f"{value:.4g}"
    text = str(value)
    return text if len(text) <= 120 else f"{text[:117]}..."
