"""What a diagnosis takes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from taxlens.stages.diagnose.diagnose_section import DiagnoseSection
from taxlens.stages.needs import training_bytes
from taxlens.stages.stage import StageCost
from taxlens.stages.trials import once, scored, seconds_of

if TYPE_CHECKING:
    from taxlens.runs.context import RunContext


LAYERS = 8
"""Layers that `auto` looks at: five, and those between which the damage appears."""
LAYER_ROWS, RANK = 600, 21
"""Bytes of a layer in the tables, and vectors that are kept of a suite."""
TOKENS = 16
"""Tokens of an item whose stream is held."""
TRIED = 48
"""Items of the trial."""


def diagnose_cost(job: RunContext, section: DiagnoseSection) -> StageCost:
    """Return what the diagnoses take, from the reading of one layer of one suite on a few items."""
    pairs, depth = scored(job, kind="capability"), job.pair.aligned.anatomy.n_layers
    if not pairs:
        return StageCost(0.0)
    several = {"auto": min(LAYERS, depth), "all": depth}
    layers = several[section.layers] if isinstance(section.layers, str) else len(section.layers)
    sizes = [len(suite) if section.items == "all" else min(section.items, len(suite)) for _, suite in pairs]
    seconds = layers * sum(sizes) / TRIED * once(job, "diagnose", lambda: _trial(job))
    width = job.pair.aligned.anatomy.d_model
    streams = 2 * 4.0 * max(sizes) * job.pair.aligned.anatomy.n_layers * width * TOKENS
    disk = len(pairs) * (layers * LAYER_ROWS + 4 * width * RANK)
    return StageCost(seconds / 60, disk=disk, memory=training_bytes(job) + streams)


def _trial(job: RunContext) -> float:
    from taxlens.analysis.state.diagnose import diagnose
    from taxlens.core.errors import ItemError

    template, suite = max(scored(job, kind="capability"), key=lambda pair: len(pair[1]))
    layer, draws = job.pair.aligned.anatomy.n_layers // 2, min(job.config.tax.bootstrap, 1000)

    def look() -> None:
        diagnose(job.pair, suite, template=template, layers=[layer], items=TRIED, relearn=False, draws=draws)

    try:
        return seconds_of(look, times=1)
    except ItemError:  # too few items or groups: the stage will say so too
        return 0.0
