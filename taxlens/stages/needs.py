"""What stages need beside time: bytes of memory above the two models, and bytes of the tables that they write."""

from __future__ import annotations

from typing import TYPE_CHECKING

from taxlens.stages.trials import few, once, scored

if TYPE_CHECKING:
    from taxlens.activations.items.items import Suite
    from taxlens.runs.context import RunContext

WORKING = 4e7
"""Bytes that scoring takes for what it imports and keeps."""
LIBRARIES = 1.5e8
"""Bytes that a stage takes for the libraries of statistics and storage, and for what earlier stages have not given back."""
DRAWING = 1.5e8
"""Bytes that drawing takes: fonts, canvases, the picture under way."""
BATCH = 4096
"""Most padded tokens of a batch that is scored."""
GRADIENT_BATCH = 1024
"""Most padded tokens of a batch that is differentiated."""
ROW = 110
"""Bytes of a row of a table."""


def weight_bytes(job: RunContext) -> float:
    """Return the bytes of one model's weights in memory."""
    return float(sum(p.numel() * p.element_size() for p in job.pair.aligned.model.parameters()))


def scoring_bytes(job: RunContext, *, batch: int = BATCH) -> float:
    """Return the memory of scoring a batch in one model: a block's activations, and the logits that are asked for."""
    from taxlens.analysis.scoring.logits import LOGIT_BUDGET

    parts, (longest, tokens, asked) = job.pair.aligned.anatomy, _sizes(job)
    read = min(batch, tokens)
    block = read * (6 * parts.d_model + 3 * parts.d_mlp + 2 * parts.n_heads * longest)
    logits = min(LOGIT_BUDGET, min(read, asked) * _vocabulary(job))
    return WORKING + 4.0 * (block + 3 * logits)


def gradient_bytes(job: RunContext) -> float:
    """Return the memory of the weight path: a third model, the change of the weights, and a batch kept for its gradient."""
    from taxlens.analysis.path.gradient_passes import LOGITS

    parts, (longest, tokens, asked) = job.pair.aligned.anatomy, _sizes(job)
    read = min(GRADIENT_BATCH, tokens)
    block = read * (12 * parts.d_model + 4 * parts.d_mlp + 2 * parts.n_heads * longest)
    logits = min(LOGITS, min(read, asked) * _vocabulary(job))
    return LIBRARIES + 3 * weight_bytes(job) + 4.0 * (block * parts.n_layers + 3 * logits)


def training_bytes(job: RunContext) -> float:
    """Return the memory of training the aligned model: its weights as they were, gradients and two moments."""
    return gradient_bytes(job) + 2 * weight_bytes(job)


def unit_count(job: RunContext, level: str) -> int:
    """Return the number of units of a level that changed, or may have."""
    from taxlens.analysis.weights.units import difference_of

    return int(once(job, f"units {level}", lambda: float(len(difference_of(job.pair).units(level)))))


def row_tokens(job: RunContext, suite: Suite, template: str) -> float:
    """Return the tokens of all rows of a suite, each choice with its prompt, counted on some items."""
    from taxlens.analysis.scoring.budget import read_tokens

    part = few(suite)
    return read_tokens(job.pair, part, template=template, shared=False) * len(suite) / len(part)


def _sizes(job: RunContext) -> tuple[float, float, float]:
    """The longest row, the most tokens of a suite, and its asked positions; counted on some items of each."""
    from taxlens.activations.models.prompts import one_prompting

    def measured() -> tuple[float, float, float]:
        longest, most, asked = 1.0, 1.0, 1.0
        for template, suite in scored(job):
            part = few(suite)
            rows = one_prompting(job.pair, part, template).rows(part)
            times = len(suite) / len(part)
            longest = max(longest, *(len(row.ids) for row in rows))
            most = max(most, times * sum(len(row.ids) for row in rows))
            asked = max(asked, times * sum(len(row.ids) - row.start for row in rows))
        return longest, most, asked

    names = ("longest row", "most tokens", "asked positions")
    if names[0] not in job.measured:
        job.measured |= dict(zip(names, measured(), strict=True))
    longest, most, asked = (job.measured[name] for name in names)
    return longest, most, asked


def _vocabulary(job: RunContext) -> int:
    return int(job.pair.aligned.model.get_input_embeddings().weight.shape[0])
