"""What is said of a run's features."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pandas as pd

from taxlens.core.vocabularies import RIVALS
from taxlens.words.latex_text import booktabs, escaped, number
from taxlens.words.run_view import RunView

if TYPE_CHECKING:
    from rich.table import Table

_SAID = {
    "leading": "the leading latents", "adl": "the mean difference", "pca": "principal components of the change",
    "probe": "one probe direction", "random_rank": "random directions", "eigenvectors": "eigenvectors fitted to the tax",
}  # fmt: skip


def features_clauses(run: RunView, suite: str) -> list[str]:
    """Return who returned most of a suite's tax, and how much the leading latents did; of each dictionary."""
    if not run.has("features_controls"):
        return []
    frame = run.table("features_controls")
    said = []
    for name, mine in frame[(frame["suite"] == suite) & (frame["side"] == "restored")].groupby(
        "dictionary", sort=False
    ):
        mine = mine[mine["metric"] == mine["metric"].iloc[0]]
        rows = mine[mine["what"].isin([what for what in ("leading", *RIVALS) if what != "eigenvectors"])].set_index(
            "what"
        )
        if "leading" not in rows.index:
            continue
        best, leading = str(rows["returned"].astype(float).idxmax()), rows.loc["leading"]
        told = f"{_SAID[best]} returned most of it on held-out items ({float(rows.loc[best, 'returned']):.0%})"
        if best != "leading":
            told += f", the leading latents of {name} {float(leading['returned']):.0%}"
        said.append(told)
    return said


def features_limits(run: RunView) -> list[str]:
    """Return which dictionaries' latents may not be read, and why; and which do not read a model."""
    if not run.has("features_closure"):
        return []
    frame = run.table("features_closure")
    said = []
    for (suite, name), mine in frame.groupby(["suite", "dictionary"], sort=False):
        verdict = mine["verdict"].iloc[0]
        if isinstance(verdict, str) and verdict:
            said.append(f"The latents of {name} may not be read one by one on {suite}: {verdict}.")
    if run.has("features_claims"):
        said += _failed_claims(run.table("features_claims"))
    if run.has("features_dictionary"):
        notes = run.table("features_dictionary")
        for row in notes[notes["note"].notna()].itertuples():
            said.append(f"{row.dictionary} on {row.suite}, {row.model}: {row.note}.")
    return said


def _failed_claims(claims: pd.DataFrame) -> list[str]:
    """One sentence a suite and dictionary: how many claims passed, and what the others failed against."""
    said = []
    for (suite, name), mine in claims.groupby(["suite", "dictionary"], sort=False):
        first = mine["metric"].dropna().iloc[0] if mine["metric"].notna().any() else ""
        mine = mine[mine["metric"].isna() | (mine["metric"] == first)]
        failed = mine[~mine["passed"].astype(bool)]
        if len(failed):
            against = "; ".join(f"{row.claim} (against {row.control}: {row.value:.2g})" for row in failed.itertuples())
            said.append(
                f"{name} on {suite} passed {len(mine) - len(failed)} of {len(mine)} controls, and not: {against}."
            )
    return said


def features_terminal(run: RunView) -> Iterator[Table]:
    """Yield the table of accounts and the table of what was given back."""
    from taxlens.words.terminal_tables import plain_table

    if not run.has("features_closure"):
        return
    closure = run.table("features_closure")
    first = closure.groupby(["suite", "dictionary"], sort=False).head(1)
    columns = [
        "suite", "dictionary", "metric", "tax", "latents", "error", "excluded", "above", "unexplained", "explained", "random",
        "verdict",
    ]  # fmt: skip
    yield plain_table("the tax in features", first[columns])
    if run.has("features_controls"):
        frame = run.table("features_controls")
        mine = frame[frame["metric"].isin(set(first["metric"]))]
        mine = mine.groupby(["suite", "dictionary", "what", "side"], sort=False)[["predicted", "returned"]].mean()
        yield plain_table("share of the tax returned on held-out items", mine.reset_index())


def features_methods(run: RunView) -> list[str]:
    """Return the methods paragraph of the features."""
    if not run.has("features_closure"):
        return []
    closure = run.table("features_closure")
    names = ", ".join(escaped(name) for name in dict.fromkeys(closure["dictionary"]))
    return [
        f"\\paragraph{{Features.}} The residual stream is read by dictionaries ({names}). Along the path of the weights the "
        "derivative of each score through the stream is split over the decoders in use at every token, by least squares on "
        "the stream's change; latents, the error that the decoders leave, tokens left out (BOS and norms beyond ten medians) "
        "and the components above sum to the tax. Latents are read where the decoders explain more of the change than as "
        "many random ones, and are given back on groups that they were not chosen on, beside other latents that carry as "
        "much of the change, the mean difference, principal components, a probe direction and random directions."
    ]


def features_latex(run: RunView, metric: str) -> dict[str, str]:
    """Return the table of accounts in LaTeX."""
    if not run.has("features_closure"):
        return {}
    frame = run.table("features_closure")
    kept = frame[frame["metric"] == (metric if metric in set(frame["metric"]) else frame["metric"].iloc[0])]
    rows = [_row(row) for row in kept.itertuples()]
    heads = ["suite", "dictionary", "tax", "latents", "error", "excluded", "above", "explained", "random"]
    caption = (
        "The tax in features: parts of the tax, and the share of the change that decoders and random decoders explain."
    )
    return {"features": booktabs(heads, rows, caption=caption, label="tab:features", left=2)}


def _row(row: pd.Series) -> list[str]:
    parts = [number(float(v), digits=3) for v in (row.tax, row.latents, row.error, row.excluded, row.above)]
    shares = [number(float(v), digits=0, scale=100) for v in (row.explained, row.random)]
    return [escaped(row.suite), escaped(row.dictionary), *parts, *shares]
