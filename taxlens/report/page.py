"""The page: the answer, then six questions with pictures that can be touched, tables, how to reproduce. One file, no network."""

from __future__ import annotations

import base64
import hashlib
import importlib.resources
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jinja2
import pandas as pd
import yaml

from taxlens.core.artifacts import atomic_path
from taxlens.report.answer import headline
from taxlens.report.limits import limits
from taxlens.report.pictures import pictures, without_last
from taxlens.report.sections import answered
from taxlens.report.shown_tables import MOST_ROWS, shown_table
from taxlens.report.views import view_of
from taxlens.stages.section import Section
from taxlens.words.amounts import bare, unit_of
from taxlens.words.places import short_place
from taxlens.words.run_view import RunView
from taxlens.words.suite_rows import by_loss, main_metric, told_row

if TYPE_CHECKING:
    from taxlens.runs.context import RunContext

MOST_BYTES = 2_900_000
"""Of the page; pictures that find no room in it are linked."""


def write_report(run: RunView) -> Path:
    """Write `report.html` into the run's folder and return its path.

    Args:
        run: a run with tables and figures (what is missing is left out).
    """
    environment = jinja2.Environment(loader=jinja2.PackageLoader("taxlens.report"), autoescape=True, trim_blocks=True)
    template, content = environment.get_template("report.html.jinja"), _content(run)
    told = {suite: str(told_row(run, suite)["template"]) for suite in by_loss(run)}
    first, groups = pictures(run.folder / "figures", suites=by_loss(run), templates=told)
    over = 1
    while over > 0:
        page = template.render(**content, sections=answered(run, first, groups))
        over = len(page.encode()) - MOST_BYTES
        first, groups, dropped = without_last(first, groups, over)
        if not dropped:
            break
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
    script = _asset("report.js")
    return {
        "name": run.config.name,
        "answer": answers[0],
        "further": answers[1:],
        "ledger": ledger(run),
        "ledger_unit": f"{main_metric(run).capitalize()}, in {unit_of(main_metric(run))[0]}",
        "tables": [shown_table(run, name) for name in run.tables],
        "most_rows": MOST_ROWS,
        "limits": limits(run),
        "facts": _facts(manifest),
        "config": yaml.safe_dump(short_place(manifest["config"]["given"]), sort_keys=False, allow_unicode=True),
        "seed": manifest["seed"],
        "style": _asset("report.css"),
        "script": script,
        "script_hash": f"sha256-{base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()}",
        "data": _inside_script({"views": _views(run)}),
    }


def _views(run: RunView) -> dict[str, Any]:
    names = sorted(path.stem for path in (run.folder / "figures").glob("*.png"))
    found = {name: view_of(run, name) for name in names}
    return {name: view for name, view in found.items() if view is not None}


def _asset(name: str) -> str:
    return (importlib.resources.files("taxlens.report") / "templates" / name).read_text(encoding="utf-8")


def _inside_script(data: dict[str, Any]) -> str:
    """JSON that no tag or comment can end: whatever the run's words hold."""
    text = json.dumps(data, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    for letter in "<>&\u2028\u2029":
        text = text.replace(letter, f"\\u{ord(letter):04x}")
    return text


def _facts(manifest: dict[str, Any]) -> list[tuple[str, str]]:
    """What was compared, on what, with which versions, as pairs of name and words."""
    pair = manifest["pair"] or {}
    rows = [(key, short_place(value)) for key, value in pair.items() if key not in ("notes", "weights sha256")]
    rows += [(f"weights of {key}, sha256", value) for key, value in pair.get("weights sha256", {}).items()]
    for name, facts in manifest["suites"].items():
        rows.append(
            (f"suite {name}", f"{facts.get('items')} items in {facts['groups']} groups, sha256 {facts['sha256'][:16]}")
        )
    for name, facts in manifest.get("stages", {}).items():
        if name != "report":  # this page is being written
            seconds = f", {facts['seconds']:.0f} s" if facts.get("seconds") is not None else ""
            rows.append((f"stage {name}", f"{facts['status']}{seconds}"))
    return [*rows, *manifest["versions"].items()]


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
                "prompt": row.template,
                "tax": f"{tax} [{low}, {high}]",
                "base -> aligned": f"{bare(row.base, metric)} -> {bare(row.aligned, metric)}",
                "lost, won": _pair(found.get("lost"), found.get("won")),
                "items, groups": _pair(row.n_items, row.n_groups),
            }
        )
    return rows


def _pair(one: Any, two: Any) -> str:
    return ", ".join("-" if one is None or pd.isna(one) else f"{int(one)}" for one in (one, two))
