"""The figures inside the page: which come first, which wait behind a summary, and how small they are stored."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path

from PIL import Image

from taxlens.stages import FIGURES
from taxlens.stages.stage import OTHER

MOST_BYTES = 2_000_000
"""Of figures inside the page, as text; further ones are linked."""

_PREFERRED = "probability"


@dataclass(frozen=True, slots=True)
class Picture:
    """A figure as the page shows it: file name, caption, base64 of a small png (blank: linked only), size in pixels."""

    name: str
    caption: str
    data: str
    width: int
    height: int

    @property
    def short(self) -> str:
        """The caption's first sentence, for readers who hear the page."""
        return self.caption.split(". ")[0].rstrip(".") + "."


def pictures(folder: Path, *, suites: Sequence[str] = ()) -> tuple[list[Picture], list[tuple[str, list[Picture]]]]:
    """Return the figures of a run's folder: those shown first, and the others by group.

    Args:
        folder: the figures' folder.
        suites: of these, the most important first, the first two have their own figures among those shown first.
    """
    paths = {path.stem: path for path in sorted(folder.glob("*.png"))}
    first = leading(list(paths), suites)
    left = [name for name in paths if name not in first]
    size, made = 0, {}
    for name in [*first, *left]:
        picture = _picture(paths[name], room=MOST_BYTES - size)
        size += len(picture.data)
        made[name] = picture
    groups = [(title, [made[name] for name in left if _group(name) == title]) for title in _titles()]
    return [made[name] for name in first], [(title, some) for title, some in groups if some]


def leading(names: list[str], suites: Sequence[str]) -> list[str]:
    """Return the names of the figures that a reader should see first, in order; of the first two suites where it matters."""
    found = []
    for pattern in _first():
        for suite in suites[:2] if "SUITE" in pattern else [""]:
            fits = [name for name in names if fnmatch(name, pattern.replace("SUITE", suite))]
            found += sorted(fits, key=lambda name: (not name.endswith(_PREFERRED), len(name), name))[:1]
    return list(dict.fromkeys(found))


def _first() -> list[str]:
    """Patterns of the figures shown first: by rank, then in the order of the stages."""
    ranked = sorted(FIGURES.values(), key=lambda figure: figure.rank)
    return [pattern for figure in ranked for pattern in figure.first]


def _titles() -> list[str]:
    """Headings in the order of the stages, that of the rest last."""
    titles = dict.fromkeys(figure.group for figure in FIGURES.values())
    return [*(title for title in titles if title != OTHER), OTHER]


def _group(name: str) -> str:
    fits = [(len(start), f.group) for f in FIGURES.values() for start in f.prefixes if name.startswith(start)]
    return max(fits)[1] if fits else OTHER


def _picture(path: Path, *, room: int) -> Picture:
    caption = path.with_suffix(".txt")
    with Image.open(path) as image:
        width, height = image.size
        data = base64.b64encode(_small(image)).decode("ascii")
    words = caption.read_text(encoding="utf-8").strip() if caption.is_file() else path.stem
    return Picture(path.stem, words, data if len(data) <= room else "", width // 2, height // 2)


def _small(image: Image.Image) -> bytes:
    """The image with at most 128 colours: a third of the bytes, the same to the eye for lines and flat areas."""
    stream = io.BytesIO()
    image.convert("RGB").quantize(128, dither=Image.Dither.NONE).save(stream, format="png", optimize=True)
    return stream.getvalue()
