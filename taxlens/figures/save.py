"""Saving a figure: pdf, png, svg, the plotted numbers and the caption, the same bytes every time."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.backends.backend_pdf import FigureCanvasPdf
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure

from taxlens.core.artifacts import atomic_path, write_table
from taxlens.figures.style import Drawn, paper_style

DPI = 200
"""Resolution of the png, and of the grid that the layout is computed on."""

_WRITERS: dict[str, Callable[[Figure, Path], None]] = {
    "pdf": lambda figure, path: FigureCanvasPdf(figure).print_pdf(
        path, metadata={"CreationDate": None, "ModDate": None, "Producer": None, "Creator": "taxlens"}
    ),
    "png": lambda figure, path: FigureCanvasAgg(figure).print_png(path, metadata={"Software": "taxlens"}),
    "svg": lambda figure, path: FigureCanvasSVG(figure).print_svg(path, metadata={"Date": None, "Creator": "taxlens"}),
}


def save_figure(drawn: Drawn, folder: Path | str, name: str) -> list[Path]:
    """Write `NAME.pdf`, `.png` (200 dpi), `.svg`, `.csv` (the plotted numbers) and `.txt` (the caption).

    Args:
        drawn: the figure with its numbers and caption.
        folder: where to write; made if missing.
        name: file name without ending.

    Returns:
        The five paths.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    written = []
    with paper_style():
        settle(drawn.figure)
        for ending, write in _WRITERS.items():
            path = folder / f"{name}.{ending}"
            with atomic_path(path) as temporary, _resolution(drawn.figure, DPI):
                write(drawn.figure, temporary)
            written.append(path)
    written.append(write_table(drawn.plotted, folder / f"{name}.csv"))
    caption = folder / f"{name}.txt"
    with atomic_path(caption) as temporary:
        temporary.write_text(drawn.caption.rstrip() + "\n", encoding="utf-8")
    return [*written, caption]


def settle(figure: Figure) -> None:
    """Compute the layout once and keep it, so that every format and every later save shows the same places."""
    if figure.get_layout_engine() is None:
        return
    with _resolution(figure, DPI):
        FigureCanvasAgg(figure)
        figure.draw_without_rendering()
    figure.set_layout_engine("none")


@contextmanager
def _resolution(figure: Figure, dpi: float) -> Iterator[None]:
    before = figure.dpi
    figure.set_dpi(dpi)
    try:
        yield
    finally:
        figure.set_dpi(before)
