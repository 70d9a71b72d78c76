"""What the terminal shows of a measured tax: the sentence, the ledger, and the taxes beside accuracy."""

from __future__ import annotations

from collections.abc import Iterator

import pandas as pd
from rich.table import Table

from taxlens.words.amounts import signed, units_of
from taxlens.words.run_view import RunView
from taxlens.words.terminal_tables import new_table, span


def tax_terminal(run: RunView) -> Iterator[str | Table]:
    """Yield the notes, the ledger, and a table for each of the other taxes that were measured."""
    if not run.has("tax"):
        return
    yield from (f"note: {note}" for note in (run.manifest.get("tax") or {}).get("notes", ()))
    yield from tax_tables(run)


def tax_tables(run: RunView) -> Iterator[Table]:
    """Yield the ledger, then a table for each of the other taxes that the run measured."""
    yield ledger_table(run.table("tax"), run.config.tax.interval)
    shown = (
        ("prior", _prior),
        ("bill", _bill),
        ("costs", _costs),
        ("divergence", _divergence),
        ("surrogate", _surrogate),
    )
    whole = run.has("divergence") and len(run.table("divergence"))  # else a few answers a suite: the bill is all
    for name, show in shown:
        if name == "costs" and not whole:
            continue
        if run.has(name) and len(frame := run.table(name)):
            yield show(frame)
    if run.has("power") and len(frame := run.table("power")):
        yield _power(frame)


def ledger_table(frame: pd.DataFrame, interval: str) -> Table:
    """Return the ledger: every row of a tax table, with what must be read beside the net number."""
    table = new_table(
        f"tax ({units_of(frame['metric'])}; positive is loss; 95 % by {interval} group bootstrap; p flips whole groups, "
        "Holm over suites)",
        ("suite", "kind", "template", "metric"),
        ("base", "aligned", "tax", "95 %", "by group", "p", "lost", "won", "items", "groups"),
    )
    for row in frame.itertuples():
        counts = [str(int(v)) if pd.notna(v) else "-" for v in (row.lost, row.won, row.n_items, row.n_groups)]
        p = f"{row.p_adjusted:.3g}" if pd.notna(row.p_adjusted) else "-"
        base, aligned = (signed(v, row.metric).lstrip("+") for v in (row.base, row.aligned))
        taxes = (signed(row.tax, row.metric), span(row.low, row.high, row.metric), signed(row.macro_tax, row.metric))
        table.add_row(row.suite, row.kind, row.template, row.metric, base, aligned, *taxes, p, *counts)
    return table


def _prior(frame: pd.DataFrame) -> Table:
    table = new_table(
        "knowledge or prior? (what remains of a tax after PMI, and what goes)",
        ("suite", "template", "metric"),
        ("tax", "knowledge", "95 %", "calibration", "95 %"),
    )
    wide = frame[frame["part"] != "shift"]
    for (suite, template, metric), rows in wide.groupby(["suite", "template", "metric"], sort=False):
        part = rows.set_index("part")
        cells = [signed(part.loc["tax", "value"], str(metric))]
        for name in ("knowledge", "calibration"):
            found = part.loc[name]
            cells += [signed(found["value"], str(metric)), span(found["low"], found["high"], str(metric))]
        table.add_row(str(suite), str(template), str(metric), *cells)
    return table


def _bill(frame: pd.DataFrame) -> Table:
    table = new_table(
        "the alignment tax bill (positive is loss; answers of a suite without generate: true are of a few items)",
        ("tax", "suite", "template", "measure"),
        ("base", "aligned", "cost", "95 %", "unit", "items", "groups"),
    )
    for row in frame.itertuples():
        scale = 100.0 if row.unit == "points" else 1.0
        ends = "-" if pd.isna(row.low) else rf"\[{scale * row.low:+.3g}, {scale * row.high:+.3g}]"
        numbers = (f"{scale * row.base:.3g}", f"{scale * row.aligned:.3g}", f"{scale * row.cost:+.3g}", ends, row.unit)
        table.add_row(row.tax, row.suite, row.template, row.measure, *numbers, str(row.n_items), str(row.n_groups))
    return table


def _costs(frame: pd.DataFrame) -> Table:
    table = new_table(
        "costs of the answers (refusal_rate on a capability suite is over-refusal)",
        ("suite", "kind", "template", "measure"),
        ("base", "aligned", "change", "95 %", "items", "groups"),
    )
    for row in frame.itertuples():
        ends = "-" if pd.isna(row.low) else rf"\[{row.low:+.3g}, {row.high:+.3g}]"
        numbers = (f"{row.base:.3g}", f"{row.aligned:.3g}", f"{row.change:+.3g}", ends)
        table.add_row(row.suite, row.kind, row.template, row.measure, *numbers, str(row.n_items), str(row.n_groups))
    return table


def _divergence(frame: pd.DataFrame) -> Table:
    table = new_table(
        "where aligned's answers part from base (shares of token positions; kl in nats, KL(aligned || base))",
        ("suite", "template", "measure"),
        ("all positions", "95 %", "position 0", "last position"),
    )
    for (suite, template, measure), rows in frame.groupby(["suite", "template", "measure"], sort=False):
        every, places = rows[rows["position"].isna()].iloc[0], rows[rows["position"].notna()]
        values = [f"{v:.3f}" for v in (places["value"].iloc[0], places["value"].iloc[-1])]
        ends = rf"\[{every['low']:.3f}, {every['high']:.3f}]"
        table.add_row(str(suite), str(template), str(measure), f"{every['value']:.3f}", ends, *values)
    return table


def _surrogate(frame: pd.DataFrame) -> Table:
    table = new_table(
        "does the likelihood of base's own right answers stand for exact match? (AUC 1 perfect, .5 not at all)",
        ("suite", "template"),
        ("nats lost", "95 %", "AUC", "correlation", "answers", "lost"),
    )
    for row in frame.itertuples():
        fits = [f"{v:.2f}" if pd.notna(v) else "-" for v in (row.auc, row.correlation)]
        numbers = (f"{row.tax:+.3f}", span(row.low, row.high, "nll"), *fits, str(row.n_items), str(row.n_lost))
        table.add_row(row.suite, row.template, *numbers)
    return table


def _power(frame: pd.DataFrame) -> Table:
    table = new_table(
        "power: chance to detect a tax of 1, 2, 5, 10 points at the 5 % level; smallest tax detected with 80 % power",
        ("suite", "template", "metric"),
        ("1", "2", "5", "10", "smallest", "items", "groups"),
    )
    for (suite, template, metric), rows in frame.groupby(["suite", "template", "metric"], sort=False):
        first = rows.iloc[0]
        shares = [f"{100 * v:.0f} %" if pd.notna(v) else "-" for v in rows["power"]]
        smallest = f"{100 * first['smallest_seen']:.1f}" if pd.notna(first["smallest_seen"]) else "-"
        counts = (str(int(first["n_items"])), str(int(first["n_groups"])))
        table.add_row(str(suite), str(template), str(metric), *shares, smallest, *counts)
    return table
