"""A panel of one latent: activity in both models, effect, state, its contexts, and tokens of its decoder."""

from __future__ import annotations

import textwrap

import numpy as np
import pandas as pd

from taxlens.core.errors import UsageError, explain
from taxlens.figures.style import BLACK, BLUE, GREY, ORANGE, Drawn, new_figure, paper_style, written


def draw_latent(
    features: pd.DataFrame,
    latents: pd.DataFrame,
    names: pd.DataFrame,
    *,
    suite: str,
    dictionary: str,
    latent: str,
    width: float = 5.5,
) -> Drawn:
    """Draw how often a latent fires in base and aligned, what it is worth in each metric, and where it is strong.

    Args:
        features: features.csv; latents: features_latents.csv; names: features_names.csv [rows, columns] each.
        suite, dictionary, latent: which.
        width: inches.

    Raises:
        UsageError: the latent is not in the tables.
    """
    effects, facts, words = (_of(frame, suite, dictionary, latent) for frame in (features, latents, names))
    if effects.empty or facts.empty:
        raise UsageError(explain("no such latent in the tables.", [("suite", suite), ("latent", latent)]))
    row = facts.iloc[0]
    contexts = words[words["kind"] == "context"].sort_values("rank").head(4)
    with paper_style():
        figure = new_figure(width, 1.75)
        left, middle, right = figure.subplots(1, 3, width_ratios=(0.8, 1.1, 2.4))
        rates = [float(row["rate_base"]), float(row["rate_aligned"])]
        left.bar([0, 1], rates, color=[BLUE, ORANGE], width=0.7)
        left.set_xticks([0, 1], ["base", "aligned"])
        left.set_ylabel("firing rate")
        shares = effects["share"].astype(float).to_numpy()
        places = np.arange(len(effects))
        middle.barh(places, shares, color=GREY, height=0.6)
        middle.axvline(0, color=BLACK, lw=0.6)
        middle.set_yticks(places, [written(str(m)) for m in effects["metric"]])
        middle.set_ylim(len(places) - 0.4, -0.6)
        middle.set_xlabel("share of the tax")
        right.axis("off")
        right.text(0, 1, _text(row, contexts, words, width), va="top", ha="left", fontsize=6, transform=right.transAxes)
    plotted = pd.DataFrame({
        "what": ["rate base", "rate aligned", *(f"share {m}" for m in effects["metric"])], "value": [*rates, *shares],
    })  # fmt: skip
    state = row["state"] if isinstance(row["state"], str) else "not told"
    caption = (
        f"Latent {latent} of {dictionary} on {suite}: how often it fires in base and aligned (of a difference "
        f"dictionary: in the change), its share of the tax by metric, state ({state}), the suite's contexts in which it "
        "is strongest (its token in double brackets), and the tokens that its decoder raises on the direct path."
    )
    return Drawn(figure, plotted, caption)


def _of(frame: pd.DataFrame, suite: str, dictionary: str, latent: str) -> pd.DataFrame:
    kept = (
        (frame["suite"] == suite) & (frame["dictionary"] == dictionary) & (frame["latent"].astype(str) == str(latent))
    )
    return frame[kept]


def _text(row: pd.Series, contexts: pd.DataFrame, words: pd.DataFrame, width: float) -> str:
    room = 58 if width > 4.5 else 30
    lines = []
    for text in contexts["text"].dropna():
        plain = _plain(str(text))
        lines += textwrap.wrap("… " + plain[-2 * room :], room)[:2]
    raised = words[words["kind"] == "raises"].sort_values("rank")["text"].dropna().head(5)
    tokens = ", ".join(_plain(str(one)).strip() for one in raised)
    lines += textwrap.wrap(f"decoder raises: {tokens}", room)[:2]
    lines.append(f"difference p {float(row['p']):.3f} (all latents {float(row['p_adjusted']):.3f})")
    return "\n".join(lines)


def _plain(text: str) -> str:
    """What the figure's font can draw; "$" would start a formula."""
    return "".join(c if 32 <= ord(c) < 0x250 and c not in "$\\" else " " for c in text)
