"""The tables that say how far to trust effects and how to read them: triples, names, agreement, null and seeds."""

from __future__ import annotations

from taxlens.analysis.interventions.effect_tables import ATTRIBUTION
from taxlens.core import table as of
from taxlens.core.table import Table, count, number, text

ATTRIBUTION_UNITS = Table(
    "attribution_units",
    "a leading singular triple",
    {
        "suite": of.SUITE,
        "template": of.TEMPLATE,
        "metric": of.METRIC,
        "component": text("name of the triple"),
        "effect": of.EFFECT,
        "sigma": number("its singular value"),
        "cluster_size": count("triples whose singular values are within 5 %: they cannot be told apart"),
        "cluster": text("their names"),
        "cluster_effect": number("sum of their effects, in the metric's unit; positive is loss"),
        "same_sign": number("share of group draws in which the effect kept its sign"),
        "in_top": number("share of draws in which it was among the ten largest"),
    },
    key=("suite", "template", "metric", "component"),
)

ATTRIBUTION_READING = Table(
    "attribution_reading",
    "a token that a triple writes, or a place that it reads",
    {
        "suite": of.SUITE,
        "template": of.TEMPLATE,
        "component": text("name of the triple"),
        "side": text("writes up, writes down, reads high or reads low"),
        "rank": count("place in the list"),
        "item": text("item that is read", blank="it writes"),
        "token": count("token id where it writes, place in the item where it reads"),
        "text": text("the token's text", blank="a token without text"),
        "value": number("logit where it writes, projection where it reads"),
    },
)

AGREEMENT = Table(
    "agreement",
    "a method beside the path",
    {
        "suite": of.SUITE,
        "template": of.TEMPLATE,
        "metric": of.METRIC,
        "level": of.LEVEL,
        "method": of.METHOD,
        "closure": number("sum of the effects over the tax"),
        "pearson": number("correlation with the path over the units that both list", blank="too few units"),
        "spearman": number("rank correlation with the path", blank="too few units"),
        "top3": number("share of the path's three largest that are the method's too"),
        "l1": number("sum of the absolute differences from the path over the tax"),
        "mass": number("positive part of the effects over the tax"),
        "interaction_share": number("sum of |restore - graft| over the tax", blank="not both were run"),
        "units": count("units that both list"),
        "coverage": number("share of the path's absolute effects that those units hold"),
    },
    key=("suite", "template", "metric", "level", "method"),
)

ATTRIBUTION_NULL = ATTRIBUTION.extended(
    "attribution_null",
    row="a component's effect beside what random changes of its size do",
    null_size=number("largest absolute effect of the component over the draws"),
    exceeds=number("share of draws that it exceeds"),
    null_draws=count("draws"),
)

ATTRIBUTION_SEEDS = Table(
    "attribution_seeds",
    "a component over several training seeds",
    {
        "suite": of.SUITE,
        "template": of.TEMPLATE,
        "metric": of.METRIC,
        "component": of.COMPONENT,
        "mean": number("mean effect over the seeds, in the metric's unit; positive is loss"),
        "deviation": number("standard deviation over the seeds"),
        "same_sign": number("share of seeds with the sign of the mean"),
        "seeds": count("seeds"),
    },
    key=("suite", "template", "metric", "component"),
)

LOGIT_LENS = Table(
    "logit_lens",
    "a model at a layer",
    {
        "suite": of.SUITE,
        "template": of.TEMPLATE,
        "model": text("base, aligned, or difference: base minus aligned on the same items"),
        "layer": count("block after which the model ends, from 0"),
        "metric": text("probability of the right answer among the choices (0..1), or margin (nats)"),
        "value": number("mean over items, in the metric's unit"),
        "low": of.LOW,
        "high": of.HIGH,
        "n_items": of.N_ITEMS,
        "n_groups": of.N_GROUPS,
    },
    key=("suite", "template", "model", "layer", "metric"),
)
