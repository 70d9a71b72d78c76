"""The figures inside the page: which come first, which wait behind a summary, and how small they are stored."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatch
from pathlib import Path

from PIL import Image

from taxlens.stages import FIGURES
from taxlens.stages.stage import OTHER

MOST_BYTES = 2_000_000
"""Of figures inside the page, as text; further ones are linked."""

MOST_SHOWN = 12
"""Pictures that are shown at once; the others are in folds."""

_PREFERRED = "probability"


@dataclass(frozen=True, slots=True)
class Picture:
    """A figure as the page shows it: file name, caption, base64 of a small png (blank: linked only), size in pixels, heading."""

    name: str
    caption: str
    data: str
    width: int
    height: int
    group: str = OTHER

    @property
    def short(self) -> str:
        """The caption's first sentence, for readers who hear the page."""
        return self.caption.split(". ")[0].rstrip(".") + "."


def pictures(
    folder: Path, *, suites: Sequence[str] = (), templates: Mapping[str, str] | None = None
) -> tuple[list[Picture], list[tuple[str, list[Picture]]]]:
    """Return the figures of a run's folder: those shown first, and the others by group.

    Args:
        folder: the figures' folder.
        suites: of these, the most important first, the first two have their own figures among those shown first.
        templates: of each suite the prompt that it is told in.
    """
    paths = {path.stem: path for path in sorted(folder.glob("*.png"))}
    first = leading(list(paths), suites, templates=templates)
    left = [name for name in paths if name not in first]
    made, room = {}, MOST_BYTES
    for name in [*first, *left]:
        made[name] = _picture(paths[name], room=room)
        room -= len(made[name].data)
    groups = [(title, [made[name] for name in left if _group(name) == title]) for title in _titles()]
    return [made[name] for name in first], [(title, some) for title, some in groups if some]


def without_last(
    shown: list[Picture], groups: list[tuple[str, list[Picture]]], over: int
) -> tuple[list[Picture], list[tuple[str, list[Picture]]], bool]:
    """Return the pictures with the data of the last ones left out until `over` bytes are gained, and whether any was."""
    data = {picture.name: len(picture.data) for picture in [*shown, *(p for _, some in groups for p in some)]}
    gone: set[str] = set()
    for name in reversed(data):
        if over <= 0:
            break
        if data[name]:
            gone.add(name)
            over -= data[name]

    def kept(some: list[Picture]) -> list[Picture]:
        return [replace(picture, data="") if picture.name in gone else picture for picture in some]

    return kept(shown), [(title, kept(some)) for title, some in groups], bool(gone)


def leading(names: list[str], suites: Sequence[str], *, templates: Mapping[str, str] | None = None) -> list[str]:
    """Return the names of the figures that a reader should see first, in order: at most `MOST_SHOWN`.

    Args:
        names: of all figures.
        suites: the most important first; the second has pictures of its own only where there is room.
        templates: of each suite the prompt that it is told in, whose picture is preferred.
    """
    chosen: dict[str, tuple[int, int]] = {}
    for place, pattern in enumerate(_first()):
        for turn, suite in enumerate(suites[:2] if "SUITE" in pattern else [""]):
            fits = [name for name in names if fnmatch(name, pattern.replace("SUITE", suite))]
            told = (templates or {}).get(suite, "")
            fits.sort(
                key=lambda name, told=told: (not name.endswith(_PREFERRED), not name.endswith(told), len(name), name)
            )
            for name in fits[:1]:
                chosen.setdefault(name, (turn, place))
    kept = sorted(chosen, key=lambda name: chosen[name])[:MOST_SHOWN]
    return sorted(kept, key=lambda name: chosen[name][::-1])


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
    shown = data if len(data) <= room else ""
    return Picture(path.stem, words, shown, width // 2, height // 2, _group(path.stem))


def _small(image: Image.Image) -> bytes:
    """The image with at most 128 colours: a third of the bytes, the same to the eye for lines and flat areas."""
    stream = io.BytesIO()
    image.convert("RGB").quantize(128, dither=Image.Dither.NONE).save(stream, format="png", optimize=True)
    return stream.getvalue()
