"""Whether a figure can be read at its final width: no text on text, none outside the canvas, none too small."""

from __future__ import annotations

from matplotlib.axis import Axis
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.text import Text
from matplotlib.transforms import Bbox

SMALLEST = 6.0
"""Points; the smallest type that a page bears."""


def illegible(figure: Figure, *, smallest: float = SMALLEST) -> list[str]:
    """Return what cannot be read in a figure, as sentences; none if all can.

    Args:
        figure: the figure.
        smallest: points.

    Example:
        >>> import pandas as pd
        >>> from taxlens.stages.attribute.path_figure import draw_profile
        >>> frame = pd.DataFrame({"suite": "facts", "metric": "nll", "t": [0, 1], "value": [1, 2], "chord": [1, 2]})
        >>> illegible(draw_profile(frame, metric="nll").figure)
        []
    """
    texts = _texts(figure)
    width, height = figure.canvas.get_width_height()
    said = [
        f"{text.get_text()!r} is set in {text.get_fontsize():g} points"
        for text, _ in texts
        if text.get_fontsize() < smallest
    ]
    for text, box in texts:
        if min(box.x0, box.y0) < -1 or box.x1 > width + 1 or box.y1 > height + 1:
            said.append(f"{text.get_text()!r} leaves the canvas")
    for place, (one, first) in enumerate(texts):
        for two, second in texts[place + 1 :]:
            if first.overlaps(second):
                said.append(f"{one.get_text()!r} and {two.get_text()!r} overlap")
    return said


def _texts(figure: Figure) -> list[tuple[Text, Bbox]]:
    """Every text that is seen, with the ink of its line (a tenth of the width and a quarter of the height less)."""
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    renderer = canvas.get_renderer()
    hidden = _unseen_ticks(figure)
    found = []
    for text in figure.findobj(Text):
        if id(text) in hidden or not text.get_visible() or not text.get_text().strip():
            continue
        if text.axes is not None and text.axes.get_figure() is None:
            continue
        box = text.get_window_extent(renderer)
        if box.width > 0:
            found.append((text, box.shrunk(0.94, 0.72)))
    return found


def _unseen_ticks(figure: Figure) -> set[int]:
    """Labels of ticks outside their axis' range, or switched off: they are there, but not drawn."""
    unseen = set()
    for axis in figure.findobj(Axis):
        low, high = sorted(axis.get_view_interval())
        slack = 1e-9 * max(abs(low), abs(high), 1.0)
        for tick in [*axis.get_major_ticks(), *axis.get_minor_ticks()]:
            inside = low - slack <= tick.get_loc() <= high + slack
            for label in (tick.label1, tick.label2):
                if not (inside and label.get_visible() and axis.get_visible() and tick.get_visible()):
                    unseen.add(id(label))
    return unseen
