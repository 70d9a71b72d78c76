"""A panel of one latent: activity in both models, effect, state, its contexts, and tokens of its decoder."""

from __future__ import annotations

import textwrap

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from taxlens.core.errors import UsageError, explain
from taxlens.figures.style import BLACK, BLUE, GREY, ORANGE, Drawn, new_figure, paper_style, written

CHARACTER = 0.6
"""Width of a character of the monospaced font, as a share of its size."""
SIZE = 5.5
"""Size of the tokens in points."""
LABELS = 0.66
"""Inches that the strips' labels and the margins take."""
NARROW = 4.5
"""Width in inches up to which words stand below the other panels."""
SHOWN = 3
"""Contexts in a panel."""


def draw_latent(
    features: pd.DataFrame,
    latents: pd.DataFrame,
    names: pd.DataFrame,
    *,
    suite: str,
    dictionary: str,
    latent: str,
    contexts: pd.DataFrame | None = None,
    width: float = 5.5,
) -> Drawn:
    """Draw how often a latent fires in base and aligned, what it is worth in each metric, and where it is strong.

    Args:
        features: features.csv; latents: features_latents.csv; names: features_names.csv [rows, columns] each.
        suite, dictionary, latent: which.
        contexts: features_contexts.csv, for the strips of tokens; None: contexts as plain text.
        width: inches.

    Raises:
        UsageError: the latent is not in the tables.
    """
    effects, facts, words = (_of(frame, suite, dictionary, latent) for frame in (features, latents, names))
    if effects.empty or facts.empty:
        raise UsageError(explain("no such latent in the tables.", [("suite", suite), ("latent", latent)]))
    row = facts.iloc[0]
    around = None if contexts is None else _of(contexts, suite, dictionary, latent)
    strips = [] if around is None else _strips(around)
    with paper_style():
        told = _text(row, words, width, contexts=not strips)
        figure, (left, middle, right, below) = _panels(width, len(strips), told.count("\n") + 1)
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
        right.text(0, 1, told, va="top", ha="left", fontsize=6, transform=right.transAxes).set_in_layout(False)
        if below is not None:
            _draw_strips(below, strips, width)
    plotted = pd.DataFrame({
        "what": ["rate base", "rate aligned", *(f"share {m}" for m in effects["metric"])], "value": [*rates, *shares],
    })  # fmt: skip
    state = row["state"] if isinstance(row["state"], str) else "not told"
    shown = (
        "the suite's contexts in which it is strongest, tokens shaded by its code in each model (in the change, for a "
        "difference dictionary)"
        if strips else "the suite's contexts in which it is strongest (its token in double brackets)"
    )  # fmt: skip
    caption = (
        f"Latent {latent} of {dictionary} on {suite}: how often it fires in base and aligned (of a difference "
        f"dictionary: in the change), its share of the tax by metric, state ({state}), the tokens that its decoder raises "
        f"on the direct path, and {shown}."
    )
    return Drawn(figure, plotted, caption)


def _panels(width: float, strips: int, lines: int) -> tuple[Figure, tuple[Axes, Axes, Axes, Axes | None]]:
    """The figure with panels for rates, shares, words and strips; words stand below the others in a narrow one."""
    narrow = width <= NARROW
    heights = [1.45, *([0.12 * lines] if narrow else []), *([0.14 * strips] if strips else [])]
    figure = new_figure(width, sum(heights) + 0.1)
    columns = (1.0, 1.1) if narrow else (0.8, 1.1, 2.4)
    grid = figure.add_gridspec(len(heights), len(columns), width_ratios=columns, height_ratios=heights)
    left, middle = figure.add_subplot(grid[0, 0]), figure.add_subplot(grid[0, 1])
    right = figure.add_subplot(grid[1, :] if narrow else grid[0, 2])
    return figure, (left, middle, right, figure.add_subplot(grid[len(heights) - 1, :]) if strips else None)


def _strips(around: pd.DataFrame) -> list[tuple[str, pd.DataFrame, np.ndarray]]:
    """(label, tokens, codes from 0 to 1) of each strip: base and aligned of a context, or the change alone."""
    top = max(float(np.nanmax(around[["base", "aligned"]].to_numpy(dtype=float))), 1e-30)
    change = not np.nansum(around["base"].to_numpy(dtype=float))
    out = []
    for _, mine in around[around["rank"] <= SHOWN].groupby("rank", sort=True):
        mine = mine.sort_values("offset")
        for model in ("aligned",) if change else ("base", "aligned"):
            codes = np.nan_to_num(mine[model].to_numpy(dtype=float)) / top
            out.append(("change" if change else model, mine, codes))
    return out


def _draw_strips(axes: Axes, strips: list[tuple[str, pd.DataFrame, np.ndarray]], width: float) -> None:
    room = int((width - 0.85) * 72 / (CHARACTER * SIZE))
    colours = {"base": BLUE, "aligned": ORANGE, "change": ORANGE}
    for line, (label, tokens, codes) in enumerate(strips):
        pieces = [_plain(one) if isinstance(one, str) else "" for one in tokens["text"]]
        first, last = _fitting([len(one) for one in pieces], int(np.argmin(np.abs(tokens["offset"].to_numpy()))), room)
        at = 0
        for piece, code in list(zip(pieces, codes))[first:last]:
            axes.add_patch(
                Rectangle((at, line - 0.46), len(piece), 0.92, color=colours[label], alpha=0.75 * code, lw=0)
            )
            axes.text(at, line, piece, family="monospace", fontsize=SIZE, va="center", ha="left").set_in_layout(False)
            at += len(piece)
    axes.set_xlim(0, (width - LABELS) * 72 / (CHARACTER * SIZE))
    axes.set_ylim(len(strips) - 0.5, -0.5)
    axes.set_yticks(range(len(strips)), [label for label, _, _ in strips], fontsize=SIZE)
    axes.tick_params(left=False)
    axes.set_xticks([])
    for side in axes.spines.values():
        side.set_visible(False)


def _fitting(lengths: list[int], centre: int, room: int) -> tuple[int, int]:
    """The widest stretch of tokens around the strongest one that has room."""
    first, last = centre, centre + 1
    while True:
        before = first > 0 and sum(lengths[first - 1 : last]) <= room
        first -= before
        after = last < len(lengths) and sum(lengths[first : last + 1]) <= room
        last += after
        if not before and not after:
            return first, last


def _of(frame: pd.DataFrame, suite: str, dictionary: str, latent: str) -> pd.DataFrame:
    kept = (
        (frame["suite"] == suite) & (frame["dictionary"] == dictionary) & (frame["latent"].astype(str) == str(latent))
    )
    return frame[kept]


def _text(row: pd.Series, words: pd.DataFrame, width: float, *, contexts: bool) -> str:
    room = 58 if width > NARROW else 74
    lines = []
    if contexts:
        for text in words[words["kind"] == "context"].sort_values("rank")["text"].dropna().head(4):
            lines += textwrap.wrap("… " + _plain(str(text))[-2 * room :], room)[:2]
    raised = words[words["kind"] == "raises"].sort_values("rank")["text"].dropna().head(5)
    tokens = ", ".join(_plain(str(one)).strip() for one in raised)
    lines += textwrap.wrap(f"decoder raises: {tokens}", room)[:2]
    lines.append(f"difference p {float(row['p']):.3f} (all latents {float(row['p_adjusted']):.3f})")
    return "\n".join(lines)


def _plain(text: str) -> str:
    """What the figure's font can draw; "$" would start a formula."""
    return "".join(c if 32 <= ord(c) < 0x250 and c not in "$\\" else " " for c in text)
