"""What attribution takes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from taxlens.analysis.interventions.method_registry import METHODS
from taxlens.analysis.interventions.methods import CONTROLS, LEADING
from taxlens.stages.attribute.attribute_run import PATCHED_ITEMS, path_options
from taxlens.stages.attribute.attribution_section import AttributionSection
from taxlens.stages.needs import gradient_bytes, row_tokens, unit_count
from taxlens.stages.stage import StageCost
from taxlens.stages.trials import FEW, few, once, scored, seconds_a_token, seconds_of, tokens_of

if TYPE_CHECKING:
    from taxlens.activations.items.items import Suite
    from taxlens.runs.context import RunContext


GRADIENTS = 16
"""Models along the path at which suites settle: 7, 15 or 31, in the middle of them."""
ITEM_ROW, TOKEN_ROW, UNIT_ROW = 62, 69, 157
"""Bytes of a row of attribution_items.csv, attribution_tokens.csv and attribution.csv."""
TOLD = 5
"""Rows of a token: all components together, and the four largest."""
HELD_ROW = 1000
"""Bytes of a row of attribution_tokens.csv while it is in memory."""
TRIED = 3
"""Of a trial."""


def attribute_cost(job: RunContext, section: AttributionSection) -> StageCost:
    """Return what the path takes, from a walk of three models on a few items, and what is asked for beside it."""
    gradients = min(section.max_gradients, GRADIENTS)
    seconds, disk, rows, token = 0.0, 0.0, 0.0, seconds_a_token(job)
    parts = (LEADING + CONTROLS) * sum(METHODS[method].scored for method in section.methods)
    cuts = job.pair.base.anatomy.n_layers + 1 if section.stitch == "all" else len(section.stitch)
    fixed, per_token = _walk_times(job)
    for template, suite in scored(job, attributed=True):
        items = len(suite) if section.items == "all" else min(section.items, len(suite))
        tokens = tokens_of(job, suite, template, most=items)
        walks = gradients + section.null_draws * min(7, section.max_gradients)
        seconds += fixed * (1 + section.null_draws) + per_token * tokens * walks / TRIED
        seconds += token * tokens * (parts + cuts)
        patched = tokens_of(job, suite, template, most=min(items, PATCHED_ITEMS))
        seconds += token * patched * (24 * section.patches + 2 * section.screen + (6 if section.screen else 0))
        of_items = items * len(section.metrics) * unit_count(job, "component") * ITEM_ROW
        tokens_told = row_tokens(job, suite, template) * items / len(suite) * TOLD
        rows += tokens_told * len(section.metrics)
        disk += of_items + tokens_told * len(section.metrics) * TOKEN_ROW
        disk += len(section.metrics) * sum(unit_count(job, level) for level in section.levels) * UNIT_ROW
    seconds += once(job, "kept for the pair", lambda: 0.0)
    return StageCost(seconds / 60, disk=disk, memory=gradient_bytes(job) + rows * HELD_ROW)


def _walk_times(job: RunContext) -> tuple[float, float]:
    """Seconds of a walk of three models with its tables: what does not depend on the items, and what each token adds."""
    template, suite = max(scored(job, attributed=True), key=lambda pair: len(pair[1]))
    sizes = (few(suite, FEW // 4), few(suite, 2 * FEW))
    first = once(job, "first walk", lambda: _walk(job, sizes[0], template))
    small, large = (once(job, f"walk {len(one)}", lambda one=one: _walk(job, one, template)) for one in sizes)
    job.measured.setdefault("kept for the pair", max(0.0, first - small))
    tokens = [tokens_of(job, one, template) for one in sizes]
    slope = max(0.0, large - small) / max(1.0, tokens[1] - tokens[0])
    return max(0.0, small - slope * tokens[0]), slope


def _walk(job: RunContext, suite: Suite, template: str) -> float:
    from taxlens.analysis.path.attribute import attribute

    options = path_options(job, template) | {"max_gradients": TRIED, "items": "all"}
    return seconds_of(lambda: attribute(job.pair, [suite], **options).to_frame(), times=1)
