"""The pictures of README and docs, from finished runs: `python -m benchmarks.house.images [--runs runs]`.

Redraws each from the run's tables and copies the png to docs/images; a run that is not there is said and left.
"""

from __future__ import annotations

import argparse
import shutil
import tempfile
from pathlib import Path

from taxlens.figures.save import save_figure
from taxlens.figures.style import width_of
from taxlens.runs.folder import Run
from taxlens.stages import FIGURES
from taxlens.stages.attribute.truth_figure import planted_components

IMAGES = {
    "demo_attribution_facts": ("demo", "attribution", "attribution_facts_probability"),
    "demo_figure1": ("demo", "figure1", "figure1"),
    "smollm2_attribution_overrefusal": ("smollm2", "attribution", "attribution_overrefusal_probability"),
    "smollm2_front": ("smollm2-frontier", "frontier", "front_probability"),
}
"""Name of the picture: run, kind of figure, figure."""


def main() -> None:
    """Draw and copy."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=Path, default=Path("runs"))
    parser.add_argument("--out", type=Path, default=Path("docs/images"))
    chosen = parser.parse_args()
    for image, (name, kind, figure) in IMAGES.items():
        folder = chosen.runs / name
        needed = FIGURES[kind].tables
        if not (folder / "run.json").is_file() or not all(Run.open(folder).has(table) for table in needed):
            print(f"{image}: {folder} has no {', '.join(needed)}")
            continue
        run = Run.open(folder)
        tables = {table: run.table(table) for table in (*needed, *FIGURES[kind].optional) if run.has(table)}
        tables |= {"truth": planted_components(run.config)} if "truth" in FIGURES[kind].optional else {}
        drawings = dict(FIGURES[kind].jobs(tables, width_of("neurips")))
        if figure not in drawings:
            print(f"{image}: {folder} gives {', '.join(drawings)}")
            continue
        with tempfile.TemporaryDirectory() as place:
            save_figure(drawings[figure](), place, image)
            shutil.copy(Path(place) / f"{image}.png", chosen.out / f"{image}.png")
        print(chosen.out / f"{image}.png")


if __name__ == "__main__":
    main()
