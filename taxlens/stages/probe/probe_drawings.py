"""Which drawings the tables of probes give."""

from __future__ import annotations

from taxlens.figures.drawings import Jobs, Tables, filled_in
from taxlens.stages.probe.probe_figure import draw_probe_curves


def probe_drawings(tables: Tables, width: float) -> Jobs:
    """Yield the drawings of kind probe: (file name, function that draws)."""
    where_from = {"suite": "arrays", "label": "labels", "template": "given"}
    frame = filled_in(tables["probes"], **where_from)
    drops = filled_in(tables["probe_drop"], **where_from) if "probe_drop" in tables else None
    several = frame["site"].nunique() > 1 if "site" in frame else False
    where = ["suite", "label", "template", *(["site"] if "site" in frame else [])]
    for key in frame[where].drop_duplicates().to_dict("records"):
        name = f"probe_{key['suite']}_{key['label']}_{key['template']}" + (f"_{key['site']}" if several else "")
        yield name, lambda k=key: draw_probe_curves(frame, **k, drops=drops, width=width)
