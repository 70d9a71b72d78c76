"""The tables of effects: attribution by unit, item and token, how they close, the path, patches, screen, restoration."""

from __future__ import annotations

from taxlens.core import table as of
from taxlens.core.table import Table, count, flag, number, text

_UNIT_LAYER = count("block of the unit, from 0; -1: outside the blocks")

ATTRIBUTION = Table(
    "attribution",
    "a unit's effect on a suite's tax",
    {
        "suite": of.SUITE,
        "template": of.TEMPLATE,
        "metric": of.METRIC,
        "level": of.LEVEL,
        "component": of.COMPONENT,
        "layer": _UNIT_LAYER,
        "kind": text("attn, mlp, norm, embed or unembed; prompt: no effect of weights"),
        "method": of.METHOD,
        "effect": of.EFFECT,
        "low": of.LOW,
        "high": of.HIGH,
        "quadrature_error": number("error of the integral along the path; of sampled methods the standard error"),
        "share": of.SHARE,
        "consistency": number(
            "share of groups on which the effect has the sign of its mean", blank="not the path", optional=True
        ),
        "p": number("p that the effect is 0, flipping groups", blank="not tested", optional=True),
        "p_adjusted": number("p adjusted over the units of a level", blank="not tested", optional=True),
    },
    key=("suite", "template", "metric", "level", "component", "method"),
)

ATTRIBUTION_ITEMS = Table(
    "attribution_items",
    "a unit's effect on an item",
    {
        "suite": of.SUITE,
        "template": of.TEMPLATE,
        "metric": of.METRIC,
        "method": of.METHOD,
        "level": of.LEVEL,
        "component": of.COMPONENT,
        "item": of.ITEM,
        "effect": of.EFFECT,
    },
    key=("suite", "template", "metric", "method", "level", "component", "item"),
)

PATCHES = Table(
    "patches",
    "a patch of a component in one direction",
    {
        "suite": of.SUITE,
        "template": of.TEMPLATE,
        "metric": of.METRIC,
        "into": text("base (the part is added) or aligned (it is taken away)"),
        "part": text("cause (its own weights), carrier (inherited from upstream) or both"),
        "level": of.LEVEL,
        "component": of.COMPONENT,
        "position": text("token positions that are patched", blank="all"),
        "role": text("leading, random or untouched: why it was chosen"),
        "effect": of.EFFECT,
        "low": of.LOW,
        "high": of.HIGH,
        "share": of.SHARE,
    },
)

SCREEN = Table(
    "screen",
    "a component's first-order patching effect",
    {
        "suite": of.SUITE,
        "template": of.TEMPLATE,
        "metric": of.METRIC,
        "component": of.COMPONENT,
        "effect": number("first-order effect of patching it, in the metric's unit; positive is loss"),
        "low": of.LOW,
        "high": of.HIGH,
        "measured": number("effect of full activation patching", blank="not verified"),
        "agreement": number("correlation of both over the verified components of the suite"),
    },
    key=("suite", "template", "metric", "component"),
)

RESTORATION = Table(
    "restoration",
    "a cut: the base computes what lies below the layer",
    {
        "suite": of.SUITE,
        "template": of.TEMPLATE,
        "metric": of.METRIC,
        "layer": count("first block that the aligned model computes"),
        "tax": of.TAX,
        "restored": number("share of the tax that comes back", blank="the tax is 0"),
        "low": of.LOW,
        "high": of.HIGH,
        "step": number("effect of the block below the cut, in the metric's unit; positive is loss"),
        "step_low": number("lower end of step's 95 % interval"),
        "step_high": number("upper end of step's 95 % interval"),
    },
    key=("suite", "template", "metric", "layer"),
)

_COUNTED = "not counted for this method"

CLOSURE = Table(
    "closure",
    "a suite, metric and method",
    {
        "suite": of.SUITE,
        "template": of.TEMPLATE,
        "metric": of.METRIC,
        "method": of.METHOD,
        "tax": of.TAX,
        "attributed": number("sum of the components' effects, in the metric's unit"),
        "prompt_and_config": number(
            "what of the tax is no effect of weights: the two models' prompts or configs differ; 0 where they do not",
            optional=True,
        ),
        "residual": number("tax minus attributed minus prompt_and_config: what stays unexplained"),
        "residual_share": number("residual over tax", blank="the tax is 0"),
        "gradients": count("models along the path that were differentiated", blank=_COUNTED),
        "forwards": count("models that were scored", blank=_COUNTED),
        "worst_item": number("largest residual of an item", optional=True),
        "end_error": number(
            "error of the scores predicted at the aligned end, as a share of how far the scores move", optional=True
        ),
        "worst_end_error": number("the same for the worst item", optional=True),
        "grazes": count(
            "items whose winner nearly changes along the path without doing so", blank=_COUNTED, optional=True
        ),
        "rewalked": count("items that were integrated again on a finer grid", blank=_COUNTED, optional=True),
        "closed": flag(
            "whether the stopping rule was met and all of the tax is an effect of weights",
            blank="not judged for this method",
            optional=True,
        ),
        "reason": text("why the account is not closed", blank="it is, or is not judged for this method", optional=True),
        "barrier": number("largest rise of perplexity above the line between the ends, as a share", optional=True),
        "fit": flag("whether that rise is within the limit", blank="perplexity was not measured", optional=True),
    },
    key=("suite", "template", "metric", "method"),
)

PATH = Table(
    "path",
    "a metric at a point between the weights of base and aligned",
    {
        "suite": of.SUITE,
        "template": of.TEMPLATE,
        "metric": text(f"{of.METRIC.meaning}; perplexity"),
        "t": number("place between base (0) and aligned (1)"),
        "value": number("the metric there"),
        "chord": number("the straight line between the metric's ends"),
    },
)

ATTRIBUTION_TOKENS = Table(
    "attribution_tokens",
    "a token of an item's choice",
    {
        "suite": of.SUITE,
        "template": of.TEMPLATE,
        "metric": of.METRIC,
        "method": of.METHOD,
        "level": of.LEVEL,
        "component": text(of.COMPONENT.meaning, blank="all"),
        "item": of.ITEM,
        "choice": count("place of the choice, from 0"),
        "token": count("place of the token, from 0"),
        "text": text("the token's text", blank="a token without text"),
        "effect": of.EFFECT,
    },
    key=("suite", "template", "metric", "method", "level", "component", "item", "choice", "token"),
)

_SEGMENT = text("which two checkpoints lie at the segment's ends")
SEGMENTS = ATTRIBUTION.extended(
    "attribution_segments", row="a unit's effect along one segment", key=("segment",), segment=_SEGMENT
)
CLOSURE_SEGMENTS = CLOSURE.extended(
    "closure_segments", row="a suite, metric and segment", key=("segment",), segment=_SEGMENT
)
