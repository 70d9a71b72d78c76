"""The tables of generated answers: what they cost, where the models part, and whether likelihood stands for exact match."""

from __future__ import annotations

from taxlens.core import table as of
from taxlens.core.table import Table, count, number, text

COSTS = Table(
    "costs",
    "a suite, template and measure of the answers",
    {
        "suite": of.SUITE,
        "kind": of.KIND,
        "template": of.TEMPLATE,
        "measure": text(
            "refusal_rate (0..1), tokens, seconds_per_item, entropy (nats), distinct_1, distinct_2, distinct_texts, compression"
        ),
        "base": number("mean of the base model's answers"),
        "aligned": number("mean of the aligned model's answers"),
        "change": number("aligned minus base"),
        "low": of.LOW,
        "high": of.HIGH,
        "n_items": of.N_ITEMS,
        "n_groups": of.N_GROUPS,
        "base_low": number("lower end of base's 95 % interval"),
        "base_high": number("upper end of base's 95 % interval"),
        "aligned_low": number("lower end of aligned's 95 % interval"),
        "aligned_high": number("upper end of aligned's 95 % interval"),
    },
    key=("suite", "template", "measure"),
)

BILL = Table(
    "bill",
    "one thing that alignment cost: a tax, suite, template and measure",
    {
        "tax": text("benchmark, over_refusal, versatility or inference"),
        "suite": of.SUITE,
        "template": of.TEMPLATE,
        "measure": text("accuracy or exact_match; refusal_rate; entropy, distinct_2; tokens, seconds_per_item"),
        "unit": text("of base, aligned and cost: points (0..1, shown as 0..100), nats, tokens, seconds or share"),
        "base": number("mean of the base model"),
        "aligned": number("mean of the aligned model"),
        "cost": number("what alignment cost, in the unit; positive is loss"),
        "low": of.LOW,
        "high": of.HIGH,
        "n_items": of.N_ITEMS,
        "n_groups": of.N_GROUPS,
    },
    key=("tax", "suite", "template", "measure"),
)

DIVERGENCE = Table(
    "divergence",
    "a suite, template, token position and measure",
    {
        "suite": of.SUITE,
        "template": of.TEMPLATE,
        "position": count("token of the answer, from 0", blank="all positions"),
        "measure": text("kl (nats, of aligned to base), or share of positions that are unshifted, marginal, shifted"),
        "value": number("the measure, in nats or 0..1"),
        "low": of.LOW,
        "high": of.HIGH,
        "n_items": of.N_ITEMS,
        "n_groups": of.N_GROUPS,
    },
    key=("suite", "template", "position", "measure"),
)

SURROGATE = Table(
    "surrogate",
    "a suite and template",
    {
        "suite": of.SUITE,
        "template": of.TEMPLATE,
        "tax": number("fall in the log-likelihood of base's own right answers, nats; positive is loss"),
        "low": of.LOW,
        "high": of.HIGH,
        "auc": number(
            "how well that fall separates answers that went wrong from those that stayed right; .5: not at all"
        ),
        "correlation": number("of the fall with losing exact match"),
        "n_items": count("right answers of base"),
        "n_lost": count("of those, wrong in aligned"),
    },
    key=("suite", "template"),
)

ANSWERS = Table(
    "answers",
    "an item, template and model",
    {
        "suite": of.SUITE,
        "item": of.ITEM,
        "group": of.GROUP,
        "template": of.TEMPLATE,
        "model": of.MODEL,
        "prompt": text("what was asked", blank="an empty prompt"),
        "answer": text("the model's greedy answer", blank="the model ended at once"),
        "tokens": count("tokens of the answer"),
        "refuses": count("1 where the answer is a refusal, else 0"),
    },
    key=("suite", "item", "template", "model"),
)
