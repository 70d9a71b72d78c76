"""Saving a figure: pdf, png, svg, the plotted numbers and the caption, the same bytes every time."""

from __future__ import annotations

from pathlib import Path

from taxlens.core.artifacts import atomic_path, write_table
from taxlens.figures.style import Drawn, paper_style

_METADATA = {
    "pdf": {"CreationDate": None, "ModDate": None, "Producer": None, "Creator": "taxlens"},
    "png": {"Software": "taxlens"},
    "svg": {"Date": None, "Creator": "taxlens"},
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
        for ending, metadata in _METADATA.items():
            path = folder / f"{name}.{ending}"
            with atomic_path(path) as temporary:
                drawn.figure.savefig(temporary, format=ending, metadata=metadata)
            written.append(path)
    written.append(write_table(drawn.plotted, folder / f"{name}.csv"))
    caption = folder / f"{name}.txt"
    with atomic_path(caption) as temporary:
        temporary.write_text(drawn.caption.rstrip() + "\n", encoding="utf-8")
    return [*written, caption]
