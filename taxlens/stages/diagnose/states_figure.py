"""The state map: in which state each capability is, at each layer."""

from __future__ import annotations

import pandas as pd
from matplotlib.patches import Patch

from taxlens.core.errors import UsageError, explain
from taxlens.figures.style import BLUE, GREEN, GREY, ORANGE, PURPLE, RED, SKY, Drawn, new_figure, paper_style

STATES = {
    "intact": ("i", BLUE),
    "suppressed": ("S", ORANGE),
    "rotated": ("R", GREEN),
    "rerouted": ("D", PURPLE),
    "attenuated": ("A", SKY),
    "erased": ("E", RED),
    "undetermined": ("?", GREY),
}


def draw_states(frame: pd.DataFrame, *, width: float = 5.5) -> Drawn:
    """Draw each suite's state by layer, as a coloured and lettered square.

    Args:
        frame: states.csv [rows, columns].
        width: inches.
    """
    rows = frame[frame["layer"].notna()].reset_index(drop=True)
    if rows.empty:
        raise UsageError(explain("the run holds no state by layer.", [("rows", len(frame))]))
    suites = list(dict.fromkeys(rows["suite"]))
    layers = sorted(rows["layer"].astype(int).unique())
    with paper_style():
        figure = new_figure(width, 0.85 + 0.27 * len(suites))
        axes = figure.subplots()
        for row in rows.itertuples():
            letter, colour = STATES[str(row.state)]
            x, y = layers.index(int(row.layer)), suites.index(row.suite)
            axes.barh(y, 0.94, left=x - 0.47, height=0.84, color=colour)
            axes.text(x, y, letter, ha="center", va="center_baseline", fontsize=7, color="white", fontweight="bold")
        handles = [
            Patch(color=STATES[state][1], label=f"{STATES[state][0]}: {state}")
            for state in STATES
            if state in set(rows["state"])
        ]
        step = max(1, len(layers) // (16 if width > 4.5 else 8))
        axes.set_xticks(range(0, len(layers), step), [str(layer) for layer in layers[::step]])
        axes.set_yticks(range(len(suites)), suites)
        axes.tick_params(left=False, bottom=False)
        axes.spines[["left", "bottom"]].set_visible(False)
        axes.set_xlim(-0.6, len(layers) - 0.4)
        axes.set_ylim(len(suites) - 0.4, -0.6)
        axes.set_xlabel("layer")
        figure.legend(handles=handles, loc="outside upper center", ncols=2 if width < 4.5 else 4)
    caption = (
        "State of each capability by layer; the evidence and the rule that fired are in evidence.csv and states.csv."
    )
    return Drawn(figure, rows[["suite", "template", "site", "layer", "state"]], caption)
