"""The waterfall of a suite's account: from what lies above, over the error, latent by latent, to the measured tax."""

from __future__ import annotations

import pandas as pd
from matplotlib.patches import Patch

from taxlens.core.errors import UsageError, explain
from taxlens.figures.style import BLACK, BLUE, GREY, ORANGE, SKY, YELLOW, Drawn, effect_label, new_figure, paper_style
from taxlens.words.amounts import unit_of

TERMS = {"above": "components above", "excluded": "excluded tokens", "error": "error", "prompts": "other prompts"}


def draw_waterfall(
    frame: pd.DataFrame,
    closure: pd.DataFrame,
    *,
    suite: str,
    metric: str,
    dictionary: str,
    top: int = 12,
    width: float = 5.5,
) -> Drawn:
    """Draw the parts of a suite's tax one after another, ending in the tax; what is unexplained is drawn too.

    Args:
        frame: features.csv [rows, columns].
        closure: features_closure.csv [rows, columns].
        suite, metric, dictionary: which account.
        top: latents that are drawn one by one; the others are one bar.
        width: inches.

    Raises:
        UsageError: there is no such account.
    """
    mine = frame[(frame["suite"] == suite) & (frame["metric"] == metric) & (frame["dictionary"] == dictionary)]
    if mine.empty:
        raise UsageError(explain("no such account of features.", [("suite", suite), ("metric", metric)]))
    facts = closure[
        (closure["suite"] == suite) & (closure["metric"] == metric) & (closure["dictionary"] == dictionary)
    ].iloc[0]
    bars = _bars(mine, float(facts["tax"]), top)
    bars[["start", "effect", "low", "high"]] *= unit_of(metric)[1]
    height = 0.9 + 0.17 * len(bars)
    with paper_style():
        figure = new_figure(width, height)
        axes = figure.subplots()
        for place, row in enumerate(bars.itertuples()):
            axes.barh(place, row.effect, left=row.start, height=0.72, color=_COLOURS[row.kind])
            if row.low == row.low:
                middle = row.start + row.effect
                axes.plot(
                    [middle - row.effect + row.low, middle - row.effect + row.high], [place, place], color=BLACK, lw=0.6
                )
            if place + 1 < len(bars):
                axes.plot([row.start + row.effect] * 2, [place - 0.36, place + 1.36], color=GREY, lw=0.5)
        axes.axvline(0, color=BLACK, lw=0.6)
        axes.set_yticks(range(len(bars)), bars["label"])
        axes.set_ylim(len(bars) - 0.4, -0.6)
        axes.tick_params(left=False)
        axes.set_xlabel(effect_label("running sum of", metric, width=width))
        shown = [(name, colour) for name, colour in _COLOURS.items() if name in set(bars["kind"])]
        handles = [Patch(color=colour, label=name) for name, colour in shown]
        figure.legend(handles=handles, loc="outside upper center", ncols=5 if width > 4.5 else 3)
    return Drawn(figure, bars, _caption(facts, suite, metric, dictionary, len(mine), top))


_COLOURS = {"not at this layer": GREY, "error": YELLOW, "latent": BLUE, "other latents": SKY, "tax": ORANGE}


def _bars(mine: pd.DataFrame, tax: float, top: int) -> pd.DataFrame:
    """Label, kind, start, effect and interval of every bar, in order."""
    by = mine.set_index("latent")
    latents = mine[mine["level"] == "latent"]
    leading = latents.reindex(latents["effect"].abs().sort_values(ascending=False, kind="stable").index)
    shown, others = leading.head(top).sort_values("effect", ascending=False), leading.iloc[top:]
    rows: list[tuple[str, str, float, float, float]] = []
    for name, words in TERMS.items():
        if name in by.index:
            row = by.loc[name]
            kind = "error" if name == "error" else "not at this layer"
            rows.append((words, kind, float(row["effect"]), float(row["low"]), float(row["high"])))
    rows += [(f"latent {r.latent}", "latent", float(r.effect), float(r.low), float(r.high)) for r in shown.itertuples()]
    rest = float(others["effect"].sum() + by.loc["rest", "effect"])
    rows.append(("other latents", "other latents", rest, float("nan"), float("nan")))
    rows.append(("unexplained", "error", float(by.loc["unexplained", "effect"]), float("nan"), float("nan")))
    out, start = [], 0.0
    for label, kind, effect, low, high in rows:
        out.append((label, kind, start, effect, low, high))
        start += effect
    out.append(("measured tax", "tax", 0.0, tax, float("nan"), float("nan")))
    return pd.DataFrame(out, columns=["label", "kind", "start", "effect", "low", "high"])


def _caption(facts: pd.Series, suite: str, metric: str, dictionary: str, rows: int, top: int) -> str:
    verdict = facts["verdict"]
    judged = "They may be read." if not isinstance(verdict, str) or not verdict else f"They may not be read: {verdict}."
    return (
        f"Account of the tax of {suite} in {metric.replace('_', ' ')} at {facts['address']}, dictionary {dictionary}: bars are "
        f"added up to the measured tax; the {min(top, rows)} largest latents stand alone. The decoders in use explain "
        f"{facts['explained']:.0%} of the change (as many random ones {facts['random']:.0%}). {judged} Whiskers: 95 % "
        f"intervals by group bootstrap over {facts['n_items']} items in {facts['n_groups']} groups."
    )
