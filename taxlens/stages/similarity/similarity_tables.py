"""The tables of similarity: matched layers and the layer map, drift by position, spectra, and what directions are and do."""

from __future__ import annotations

from taxlens.core import table as of
from taxlens.core.table import Table, count, number, text

_WHERE = {"suite": of.EVERY_SUITE, "template": of.TEMPLATE, "site": of.SITE}

SIMILARITY = Table(
    "similarity",
    "a measure of a base layer and an aligned layer; rows of different layers are the layer map",
    _WHERE
    | {
        "layer_base": count("block of the base model, from 0"),
        "layer_aligned": count("block of the aligned model, from 0"),
        "measure": text("name of the measure"),
        "value": number("the measure; its range is the measure's own"),
        "low": of.LOW,
        "high": of.HIGH,
        "null": number("the measure on rows of other groups", blank="not taken"),
        "n_items": count("rows compared"),
        "trimmed": number("the measure without the rows of the largest norms", optional=True),
        "ceiling": number("what sampling alone allows", blank="not known for this measure", optional=True),
        "n_groups": count("groups resampled", optional=True),
        "head": of.HEAD,
    },
    key=("suite", "template", "site", "layer_base", "layer_aligned", "measure", "head"),
)

SPECTRA = Table(
    "spectra",
    "a rank of a spectrum at a layer",
    _WHERE
    | {
        "layer": of.LAYER,
        "spectrum": text("gain (aligned over base, direction by direction) or loss (of base's variance)"),
        "rank": count("place in the spectrum, from 0: weakened or lost first"),
        "value": number("gain or loss in that direction"),
        "null_low": number("lower end of the null's 95 % band"),
        "null_high": number("upper end of the null's 95 % band"),
        "n_items": count("rows compared", optional=True),
    },
    key=("suite", "template", "site", "layer", "spectrum", "rank"),
)

DRIFT_POSITIONS = Table(
    "drift_positions",
    "a token position at a layer",
    _WHERE
    | {
        "layer": of.LAYER,
        "position": count("token position"),
        "cosine": number("mean cosine of both models' rows"),
        "relative_norm": number("norm of the difference over base's norm"),
        "n_items": count("rows at the position"),
    },
    key=("suite", "template", "site", "layer", "position"),
)

DIRECTIONS = Table(
    "directions",
    "a name of a direction beyond the null",
    _WHERE
    | {
        "layer": of.LAYER,
        "spectrum": text("gain or loss"),
        "rank": count("place in the spectrum, from 0"),
        "kind": text("token (promoted through the unembedding), probe (alike) or item (extreme)"),
        "end": text("+ or -: which end of the direction"),
        "name": text("the token, probe or item", blank="a token without text"),
        "value": number("logit, cosine or projection"),
        "null": number("the same for random directions", blank="not taken"),
    },
)

DIRECTION_EFFECTS = Table(
    "direction_effects",
    "a suite, intervention and metric",
    {
        "suite": of.SUITE,
        "template": of.TEMPLATE,
        "site": of.SITE,
        "layer": of.LAYER,
        "intervention": text("ablate (taken out of base) or inject (base's coordinates put into aligned)"),
        "metric": of.METRIC,
        "value": number(
            "loss that the intervention makes, in the metric's unit; negative: some of the loss comes back"
        ),
        "low": of.LOW,
        "high": of.HIGH,
        "random": number("mean of the same with random subspaces of the same rank"),
        "random_extreme": number("the random subspace of the largest effect"),
        "n_items": of.N_ITEMS,
        "n_groups": of.N_GROUPS,
        "rank": count("dimension of the subspace"),
        "directions": text("the directions that span it"),
    },
    key=("suite", "template", "site", "layer", "intervention", "metric"),
)

ACTIVATION_PLANE = Table(
    "activation_plane",
    "a prompt of one model at a layer",
    {
        "suite": of.SUITE,
        "template": of.TEMPLATE,
        "layer": of.LAYER,
        "item": of.ITEM,
        "model": of.MODEL,
        "x": number("place on the leading principal axis of both models' prompts together"),
        "y": number("place on the second axis"),
        "share": number("share of the variance of the layer that the two axes hold"),
    },
    key=("suite", "template", "layer", "item", "model"),
)

REFUSAL_PROJECTIONS = Table(
    "refusal_projections",
    "a prompt of one model at a layer",
    {
        "suite": of.SUITE,
        "kind": of.KIND,
        "template": of.TEMPLATE,
        "layer": of.LAYER,
        "item": of.ITEM,
        "model": of.MODEL,
        "value": number(
            "place along aligned's difference of means, held out; 0 and 1: aligned's means on other and on benefit prompts"
        ),
    },
    key=("suite", "template", "layer", "item", "model"),
)

REFUSAL_DIRECTION = Table(
    "refusal_direction",
    "a layer",
    {
        "template": of.TEMPLATE,
        "layer": of.LAYER,
        "cosine": number("cosine of base's and aligned's own differences of means"),
        "norm_base": number("norm of base's difference of means"),
        "norm_aligned": number("norm of aligned's difference of means"),
        "auc_base": number(
            "how well base's benefit prompts separate from the others along aligned's direction, held out"
        ),
        "auc_aligned": number("the same of aligned's prompts"),
        "n_items": count("prompts"),
    },
    key=("template", "layer"),
)
