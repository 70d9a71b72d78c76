"""Tables as the page shows them: the rows that matter most, what each column means, and how many rows there are in all."""

from __future__ import annotations

from typing import Any

import pandas as pd

from taxlens.stages import TABLES
from taxlens.words.run_view import RunView
from taxlens.words.suite_rows import by_loss, main_metric

MOST_ROWS = 80
"""Of one table."""

_LEADING = (("level", "component"), ("method", "path"), ("control", "none"))


def shown_table(run: RunView, name: str) -> dict[str, Any]:
    """Return a table for the page: name, what a row is, columns with their meaning, cells as text, and words on its size.

    Of a table of more than `MOST_ROWS` rows those are kept that speak of the main metric, of whole components, of path
    effects and of readings without a control, the suite that lost most first.
    """
    frame, declared = run.table(name), TABLES.get(name)
    kept, note = frame, ""
    if len(frame) > MOST_ROWS:
        kept, by = _leading(run, frame)
        kept = kept.head(MOST_ROWS)
        note = f"{len(kept)} of {len(frame)} rows{f': {by}' if by else ''}. Sorting and filters act on these."
    meaning = {column: facts.words for column, facts in declared.columns.items()} if declared else {}
    blank = [column for column in kept if kept[column].isna().all() and len(kept)]
    kept = kept.drop(columns=blank)
    return {
        "name": name,
        "row": f"A row: {declared.row}" if declared else name,
        "columns": [(str(column), meaning.get(str(column), "")) for column in kept.columns],
        "rows": [[_cell(value) for value in row] for row in kept.itertuples(index=False)],
        "words": f"{len(frame)} {'row' if len(frame) == 1 else 'rows'}{f'; a row: {declared.row}' if declared else ''}",
        "note": note,
    }


def _leading(run: RunView, frame: pd.DataFrame) -> tuple[pd.DataFrame, str]:
    said, kept = [], frame
    for column, value in (("metric", main_metric(run)), *_LEADING):
        if column in kept and (kept[column] == value).any() and not (kept[column] == value).all():
            kept = kept[kept[column] == value]
            said.append(f"{column} {value}")
    if "suite" in kept:
        rank = {suite: n for n, suite in enumerate(by_loss(run))}
        order = kept["suite"].map(rank).fillna(len(rank)).sort_values(kind="stable").index
        kept = kept.loc[order]
    if "effect" in kept and "suite" in kept:
        size = kept["effect"].abs().rank(ascending=False)
        rank_of = kept["suite"].map({suite: n for n, suite in enumerate(dict.fromkeys(kept["suite"]))})
        kept = kept.assign(_rank=rank_of, _size=size).sort_values(["_rank", "_size"], kind="stable")
        kept = kept.drop(columns=["_rank", "_size"])
        said.append("largest effects first")
    return kept, ", ".join(said)


def _cell(value: Any) -> str:
    if pd.isna(value):
        return ""
    if isinstance(value, float):
        return f"{value:.4g}"
    text = str(value)
    return text if len(text) <= 120 else f"{text[:117]}..."
