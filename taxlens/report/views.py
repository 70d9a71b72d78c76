"""Pictures that can be touched: the plotted numbers of a figure, as the marks that the page's script draws."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from taxlens.words.amounts import digits_of, unit_of
from taxlens.words.run_view import RunView
from taxlens.words.suite_rows import main_metric

MOST_MARKS = 600
"""Of one picture; of more, those whose value is largest are kept, and the page says of how many."""

_PLACE = re.compile(r"^(\d+)\.")


@dataclass(frozen=True, slots=True)
class View:
    """How the plotted numbers of a kind of figure are drawn on the page.

    Args:
        shape: "bars" (one row a mark, from zero), "cascade" (each bar begins where the last ended), "lines" (value by x),
            "points" (x against y) or "cells" (a row and a column a mark).
        value: column of what is drawn (of points: upwards).
        label: columns whose words name a mark.
        x: column of lines and points to the right; of cells the column's name.
        row: column of cells that names the row.
        low, high: columns of the interval.
        series: columns that tell lines, colours and shapes apart.
        panel: column that tells panels apart.
        scaled: whether the values are in the run's main metric; or the panels that are.
        words: what the value is.
        across: what x is.
    """

    shape: str
    value: str
    label: tuple[str, ...] = ()
    x: str = ""
    row: str = ""
    low: str = "low"
    high: str = "high"
    series: tuple[str, ...] = ()
    panel: str = ""
    scaled: bool | tuple[str, ...] = True
    words: str = ""
    across: str = ""


VIEWS: dict[str, View] = {
    "tax": View("bars", "tax", ("suite", "template"), series=("template",), panel="kind", words="tax"),
    "two_by_two": View("bars", "value", ("suite", "effect"), series=("effect",), panel="kind", words="change, positive is loss"),
    "attribution": View("cascade", "effect", ("component",), series=("kind",), words="effect, positive is loss"),
    "features": View("cascade", "effect", ("component",), series=("kind",), words="effect, positive is loss"),
    "methods": View("bars", "effect", ("component", "method"), series=("method",), words="effect, positive is loss"),
    "items": View("points", "aligned", ("item",), x="base", series=("change",), words="aligned", across="base"),
    "layer_profile": View("lines", "value", x="layer", panel="panel", scaled=("tax",), across="layer"),
    "logit_lens": View("lines", "value", x="layer", series=("model",), words="right answer", across="layer"),
    "probe": View(
        "lines", "value", x="layer", series=("series",), scaled=False, words="held-out score", across="layer"
    ),
    "similarity": View("lines", "value", x="layer", series=("series",), panel="measure", scaled=False, across="layer"),
    "layer_map": View("cells", "effect", x="layer", row="kind", words="effect, positive is loss"),
    "head_map": View("cells", "effect", words="effect, positive is loss"),
    "suite_matrix": View("cells", "effect", x="suite", row="component", words="effect, positive is loss"),
    "similarity_map": View(
        "cells", "value", x="layer_aligned", row="layer_base", scaled=False, words="similarity", across="aligned's layer"
    ),
    "states": View("cells", "state", x="layer", row="suite", scaled=False, words="state"),
    "evidence": View(
        "lines", "value", x="layer", series=("statistic", "control"), panel="statistic", scaled=False, across="layer"
    ),
    "front": View(
        "points", "returned", ("order", "share_undone"), x="benefit_kept", low="returned_low", high="returned_high",
        series=("order",), scaled=False, words="share of tax returned", across="share of benefit kept",
    ),
    "predicted": View(
        "points", "measured", ("plan", "suite"), x="predicted", series=("order",), words="measured effect",
        across="predicted effect",
    ),
    "path": View("lines", "value", x="t", series=("suite",), panel="metric", scaled=False, across="base (0) to aligned (1)"),
    "power": View("lines", "power", x="tax", series=("suite", "template"), scaled=False, words="power", across="tax (share)"),
}  # fmt: skip
"""By the beginning of a figure's file name; a figure of another name is shown as printed."""


def view_of(run: RunView, name: str) -> dict[str, Any] | None:
    """Return a figure as the page's script draws it, or None if it is only shown as printed.

    Args:
        run: the run; its main metric says the unit.
        name: the figure's file name without ending.

    Returns:
        shape, words, named (words of a panel of its own), across, digits (after the point, of values in the main metric),
        of (how many marks there are in all), and marks: lists of panel, series, label, x, row, value,
        low, high, component, layer; a number that is undefined is None. Values in the main metric stand in its unit.
    """
    kinds = [kind for kind in VIEWS if name == kind or name.startswith(f"{kind}_")]
    path = run.folder / "figures" / f"{name}.csv"
    if not kinds or not path.is_file():
        return None
    view, frame = VIEWS[max(kinds, key=len)], _read(path)
    if view.shape == "cascade" and "layer" in frame:  # no component carries a tenth: the map of all of them
        view = VIEWS["layer_map"]
    if view.panel == "kind":
        frame = _with_kinds(run, frame)
    needed = [view.value, *view.label, *filter(None, (view.x, view.row, view.panel))]
    if frame.empty or any(column not in frame for column in needed):
        return None
    marks = _marks(frame, view, *unit_of(_metric(run, frame)))
    kept = marks
    if len(marks) > MOST_MARKS:
        order = sorted(range(len(marks)), key=lambda n: -_reach(marks[n]))[:MOST_MARKS]
        kept = [marks[n] for n in sorted(order)]
    metric = _metric(run, frame)
    scaled = view.scaled is True
    unit = f" ({unit_of(metric)[0]})" if scaled and unit_of(metric)[0] else ""
    return {
        "shape": view.shape,
        "words": view.words + unit,
        "named": {"benefit": f"gain{unit}"} if view.panel == "kind" and view.value == "tax" else {},
        "across": view.across + (unit if view.shape == "points" else ""),
        "digits": digits_of(metric) if scaled else None,
        "of": len(marks),
        "marks": kept,
    }


def _with_kinds(run: RunView, frame: pd.DataFrame) -> pd.DataFrame:
    """The frame with what each suite is for; a gain of what alignment was for is positive."""
    if "kind" not in frame and "suite" in frame and run.has("tax"):
        frame = frame.assign(kind=frame["suite"].map(run.table("tax").groupby("suite")["kind"].first()))
    if "kind" in frame and {"tax", "low", "high"} <= set(frame):
        gains = frame["kind"] == "benefit"
        ends = {"low": -frame["high"], "high": -frame["low"], "tax": -frame["tax"]}
        frame = frame.assign(**{name: frame[name].where(~gains, values) for name, values in ends.items()})
    return frame


def _read(path: Path) -> pd.DataFrame:
    try:
        return pd.read_csv(path, keep_default_na=False, na_values=[""])
    except ValueError:  # a file without columns
        return pd.DataFrame()


def _metric(run: RunView, frame: pd.DataFrame) -> str:
    named = frame["metric"].dropna().unique() if "metric" in frame else []
    return str(named[0]) if len(named) == 1 else main_metric(run) or "probability"


def _marks(frame: pd.DataFrame, view: View, unit: str, scale: float) -> list[list[Any]]:
    scaled = np.full(len(frame), view.scaled is True)
    if isinstance(view.scaled, tuple):
        scaled = frame[view.panel].isin(view.scaled).to_numpy()
    factor = np.where(scaled, scale, 1.0)
    words = frame[view.value].dtype == object or not pd.api.types.is_numeric_dtype(frame[view.value])
    values = list(frame[view.value]) if words else _numbers(frame[view.value], factor)
    ends = [
        _numbers(frame[end], factor) if end in frame and not words else [None] * len(frame)
        for end in (view.low, view.high)
    ]
    across = _across(frame, view, factor)
    rows = []
    for n, record in enumerate(frame.to_dict("records")):
        component = str(record.get("component") or "") if isinstance(record.get("component"), str) else ""
        row, column = across[n]
        label = ", ".join(str(record[name]) for name in view.label if record[name] == record[name])
        series = ", ".join(_said(record.get(name)) for name in view.series)
        rows.append(
            [
                _panel(record[view.panel], unit) if view.panel else "", series.strip(", "), label, column, row, values[n],
                ends[0][n], ends[1][n], component, _layer(record, component),
            ]
        )  # fmt: skip
    return rows


def _across(frame: pd.DataFrame, view: View, factor: np.ndarray) -> list[tuple[Any, Any]]:
    """Row and column (or x) of every mark."""
    if view.shape == "cells" and not view.x:  # a head's name holds both: 3.attn.h2
        parts = [str(name).split(".") for name in frame["component"]]
        return [(part[-1], int(part[0]) if part[0].isdigit() else part[0]) for part in parts]
    columns: list[Any] = [""] * len(frame)
    if view.x:
        numeric = pd.api.types.is_numeric_dtype(frame[view.x])
        columns = _numbers(frame[view.x], factor if view.shape == "points" else np.ones(len(frame))) if numeric else [
            str(v) for v in frame[view.x]
        ]  # fmt: skip
    rows = [_plain(value) for value in frame[view.row]] if view.row else [""] * len(frame)
    return list(zip(rows, columns, strict=True))


def _layer(record: dict[Any, Any], component: str) -> int | None:
    found = record.get("layer", record.get("layer_base"))
    if isinstance(found, (int, float)) and found == found and found >= 0:
        return int(found)
    place = _PLACE.match(component)
    return int(place[1]) if place else None


def _numbers(column: pd.Series, factor: np.ndarray) -> list[float | int | None]:
    found = pd.to_numeric(column, errors="coerce").to_numpy(float) * factor
    return [_short(value) for value in found]


def _short(value: float) -> float | int | None:
    if not np.isfinite(value):
        return None
    said = float(f"{value:.5g}")
    return int(said) if said.is_integer() else said


def _plain(value: Any) -> Any:
    return _short(float(value)) if isinstance(value, (int, float)) else str(value)


def _said(value: Any) -> str:
    return "" if value is None or value != value else str(value)


_PANELS = {
    "tax": "tax",
    "probe": "drop of the probe of the right answer",
    "cka": "CKA",
    "restored": "tax restored (share)",
}


def _panel(value: Any, unit: str) -> str:
    words = _PANELS.get(_said(value), _said(value).replace("_", " "))
    return f"{words} ({unit})" if value == "tax" and unit else words


def _reach(mark: list[Any]) -> float:
    value, x = mark[5], mark[3]
    if not isinstance(value, (int, float)):
        return 0.0
    return abs(value - x) if isinstance(x, (int, float)) else abs(value)
