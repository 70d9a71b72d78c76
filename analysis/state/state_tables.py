"""The tables of a diagnosis: states, the evidence behind them, and steering."""

from __future__ import annotations

from taxlens.core import table as of
from taxlens.core.table import Table, count, number, text

STATES = Table(
    "states",
    "a suite at a layer, or overall",
    {
        "suite": of.SUITE,
        "template": of.TEMPLATE,
        "site": of.SITE,
        "layer": count("block, from 0", blank="overall"),
        "state": text("suppressed, rotated, attenuated, erased, intact, ... or undetermined"),
        "tax_share": number("share of the tax that the path attributes up to the layer", blank="not attributed"),
        "reason": text("which rule gave the state", blank="none is needed"),
    },
    key=("suite", "template", "site", "layer"),
)

EVIDENCE = Table(
    "evidence",
    "a statistic at a layer",
    {
        "suite": of.SUITE,
        "template": of.TEMPLATE,
        "site": of.SITE,
        "layer": count("block, from 0", blank="of the whole suite"),
        "statistic": text("letter of the statistic"),
        "value": number("the statistic"),
        "low": of.LOW,
        "high": of.HIGH,
        "control": text("which control it is", blank="the statistic itself"),
        "note": text("what a reader must know of it", blank="nothing"),
    },
)

STEERING = Table(
    "steering",
    "a steering vector, or random directions of the same norms",
    {
        "suite": of.SUITE,
        "template": text(of.TEMPLATE.meaning, blank="not recorded"),
        "kind": text("shift or ablation"),
        "site": of.SITE,
        "layer": of.LAYER,
        "rank": count("directions; 0: the ablation of one"),
        "scale": number("factor on the vector"),
        "state": text("state of the capability there", blank="not recorded"),
        "control": text("random", blank="the vector itself"),
        "returned": number("share of the tax that comes back on other items"),
        "benefit": number("benefit under it, nats", blank="no benefit suite"),
        "benefit_kept": number("share of the benefit that is kept", blank="no benefit"),
        "benefit_kept_low": number("lower end of its 95 % interval"),
        "benefit_kept_high": number("upper end of its 95 % interval"),
    },
)
