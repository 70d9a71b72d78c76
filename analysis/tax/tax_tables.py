"""The tables of a measured tax: the ledger, weights against template, items, power, and knowledge against prior."""

from __future__ import annotations

from taxlens.core import table as of
from taxlens.core.table import Column, Table, count, number, text

TAX = Table(
    "tax",
    "a suite, metric and template",
    {
        "suite": of.SUITE,
        "kind": of.KIND,
        "metric": text(f"{of.METRIC.meaning}; exact_match of answers"),
        "template": of.TEMPLATE,
        "base": number("mean of the base model, in the metric's unit"),
        "aligned": number("mean of the aligned model"),
        "tax": of.TAX,
        "low": of.LOW,
        "high": of.HIGH,
        "p": number("two-sided p that nothing changed: exact McNemar for metrics of right and wrong"),
        "lost": count("items right in base alone", blank="no metric of right and wrong was measured"),
        "won": count("items right in aligned alone", blank="no metric of right and wrong was measured"),
        "n_items": of.N_ITEMS,
        "n_groups": of.N_GROUPS,
        "p_test": text("which test gave p: mcnemar_exact or group_sign_flip", blank="logged elsewhere"),
        "p_group": number("p of flipping the sign of whole groups"),
        "p_adjusted": number("Holm's adjustment of p_group over the suites of a metric and template"),
        "p_equivalent": number("p that the tax is outside the margin", blank="no margin in this metric's unit"),
        "macro_tax": number("mean over groups of the groups' mean tax"),
        "paired_error": number("standard error of the tax, items paired"),
        "unpaired_error": number("standard error that two unpaired evaluations would have"),
        "macro_low": number("lower end of macro_tax's 95 % interval"),
        "macro_high": number("upper end of macro_tax's 95 % interval"),
    },
    key=("suite", "metric", "template"),
)

TAX_2X2 = Table(
    "tax_2x2",
    "a suite, metric and effect; none where one template was measured",
    {
        "suite": of.SUITE,
        "metric": of.METRIC,
        "effect": text("weights, template, interaction or total"),
        "value": number("the effect in the metric's unit; positive is loss"),
        "low": of.LOW,
        "high": of.HIGH,
        "n_items": of.N_ITEMS,
        "n_groups": of.N_GROUPS,
    },
    key=("suite", "metric", "effect"),
)

ITEM_COLUMNS = {
    "accuracy": "correct", "accuracy_norm": "correct_norm", "probability": "probability", "margin": "margin", "nll": "nll",
}  # fmt: skip
"""Columns of items.csv that hold a metric by another name, or always."""


def metric_columns() -> dict[str, Column]:
    """Return the columns of items.csv for further metrics of the scores: each its own, where it was measured."""
    from taxlens.analysis.scoring.metrics import METRICS, scored_metrics

    own = (METRICS[name] for name in scored_metrics() if name not in ITEM_COLUMNS)
    return {
        one.name: number(f"{one.meaning}{f', {one.unit}' if one.scale == 1 and one.unit else ''}", optional=True)
        for one in own
    }


ITEMS = Table(
    "items",
    "an item, template and model",
    {
        "suite": of.SUITE,
        "item": of.ITEM,
        "group": of.GROUP,
        "template": of.TEMPLATE,
        "model": of.MODEL,
        "correct": number("1 where the gold choice has the highest score, else 0"),
        "probability": number("the gold choice's share of the choices' probability, 0..1"),
        "margin": number("log-odds of the gold choice against the best other, nats"),
        "nll": number("negative log-likelihood of the gold choice, nats"),
        "correct_norm": number("as correct, scores divided by the choices' length in bytes"),
        "choice": count("place of the choice that the model prefers, from 0"),
        "change": text("lost or won", blank="right or wrong in both models"),
    },
    key=("suite", "item", "template", "model"),
    further=metric_columns,
)

CHANGED = Table(
    "changed",
    "an item that is right in one model only",
    {
        "suite": of.SUITE,
        "template": of.TEMPLATE,
        "item": of.ITEM,
        "group": of.GROUP,
        "change": text("lost or won"),
        "prompt": text("what was asked", blank="an item without a prompt"),
        "gold": text("the right choice"),
        "base": text("the base model's choice"),
        "aligned": text("the aligned model's choice"),
    },
    key=("suite", "template", "item"),
)

POWER = Table(
    "power",
    "a suite, template, metric and size of tax; none where no metric of 0..1 was measured",
    {
        "suite": of.SUITE,
        "template": of.TEMPLATE,
        "metric": text("accuracy or probability"),
        "tax": number("a tax that one may want to detect, 0..1"),
        "power": number("probability of detecting it at level .05 with these items", blank="no item changed"),
        "items_needed": number("items for 80 % power, in groups like these", blank="no item changed"),
        "groups_needed": number("groups for 80 % power", blank="no item changed"),
        "smallest_seen": number("smallest tax detected with 80 % power, 0..1", blank="no item changed"),
        "icc": number("correlation of the losses of two items of a group"),
        "n_items": of.N_ITEMS,
        "n_groups": of.N_GROUPS,
    },
    key=("suite", "template", "metric", "tax"),
)

PRIOR = Table(
    "prior",
    "a suite, template, metric and part of its tax",
    {
        "suite": of.SUITE,
        "template": of.TEMPLATE,
        "metric": text("accuracy, probability, or prior_kl (nats) for the shift"),
        "part": text("tax, knowledge (what is left after PMI), calibration (the rest), or shift of the choices' prior"),
        "value": number("the part, in the metric's unit; positive is loss"),
        "low": of.LOW,
        "high": of.HIGH,
        "n_items": of.N_ITEMS,
        "n_groups": of.N_GROUPS,
    },
    key=("suite", "template", "metric", "part"),
)
