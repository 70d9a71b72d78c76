"""Which drawings the tables of similarity give."""

from __future__ import annotations

from taxlens.figures.curves import draw_similarity_curves
from taxlens.figures.drawings import Jobs, Tables, filled_in
from taxlens.stages.similarity.directions_figure import draw_direction_effects, draw_direction_names
from taxlens.stages.similarity.similarity_map_figure import draw_similarity_map
from taxlens.stages.similarity.spectra_figure import draw_spectra


def similarity_drawings(tables: Tables, width: float) -> Jobs:
    """Yield the drawings of kind similarity: (file name, function that draws)."""
    frame = filled_in(tables["similarity"], suite=None, template="given")
    sites = list(dict.fromkeys(frame["site"])) if "site" in frame else [None]
    measures = list(dict.fromkeys(frame["measure"]))
    parts = tuple(name for name in measures if name.startswith("drift_") or name.endswith("_back"))
    whole = tuple(name for name in measures if name not in parts)
    for number, site in enumerate(sites):
        name = "similarity" if number == 0 else f"similarity_{site}"
        for ending, chosen in (("", whole or parts), ("_parts", parts if whole else ())):
            if chosen:
                yield (
                    f"{name}{ending}",
                    lambda s=site, m=chosen: draw_similarity_curves(frame, site=s, measures=m, width=width),
                )


def similarity_map_drawings(tables: Tables, width: float) -> Jobs:
    """Yield the drawings of kind similarity_map: (file name, function that draws)."""
    frame = tables["similarity"]
    crossed = frame[frame["layer_base"] != frame["layer_aligned"]]
    where = [name for name in ("template", "site", "measure") if name in crossed]
    for key in crossed[where].drop_duplicates().to_dict("records"):
        name = "_".join(["similarity_map", *map(str, key.values())])
        yield name, lambda k=key: draw_similarity_map(frame, **k, width=width)


def directions_drawings(tables: Tables, width: float) -> Jobs:
    """Yield the drawings of kind directions: (file name, function that draws)."""
    frame = tables["directions"]
    for template in dict.fromkeys(frame["template"]) if "template" in frame else [None] * (len(frame) > 0):
        name = f"directions_{template}" if template else "directions"
        yield name, lambda t=template: draw_direction_names(frame, template=t, width=width)


def direction_effects_drawings(tables: Tables, width: float) -> Jobs:
    """Yield the drawings of kind direction_effects: (file name, function that draws)."""
    frame = tables["direction_effects"]
    for metric in dict.fromkeys(frame["metric"]):
        yield f"direction_effects_{metric}", lambda m=metric: draw_direction_effects(frame, metric=m, width=width)


def spectra_drawings(tables: Tables, width: float) -> Jobs:
    """Yield the drawings of kind spectra: (file name, function that draws)."""
    frame = tables["spectra"]
    for template in dict.fromkeys(frame["template"]):
        yield f"spectra_{template}", lambda t=template: draw_spectra(frame, template=t, width=width)
