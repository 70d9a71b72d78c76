"""The tables of probes: what each reads at every layer of both models, and where a label became less decodable."""

from __future__ import annotations

from taxlens.core import table as of
from taxlens.core.table import Table, count, number, text

_WHERE = {"suite": of.SUITE, "template": of.TEMPLATE, "label": text("label that is probed"), "site": of.SITE}
_KEY = ("suite", "template", "label", "site", "layer", "head")

PROBES = Table(
    "probes",
    "a probe fitted on one model and read on one, at a layer, in one metric",
    _WHERE
    | {
        "layer": count("block, from 0", blank="no layer is read (confounds alone)"),
        "probe": text("kind of probe"),
        "fitted_on": text("model whose activations the probe was fitted on: base or aligned"),
        "read_on": text("model whose activations it reads: base or aligned"),
        "map": text("what brings the rows read into the fitted model's space: none, procrustes or ridge"),
        "control": text("none, shuffled, confound or control_task"),
        "metric": text("auc, balanced_accuracy, log_loss, ece, snr, r2, compression or code_length"),
        "value": number("the metric out of fold", blank="undefined"),
        "low": of.LOW,
        "high": of.HIGH,
        "n_items": count("rows read"),
        "n_groups": of.N_GROUPS,
        "head": of.HEAD,
    },
    key=(*_KEY, "probe", "fitted_on", "read_on", "map", "control", "metric"),
)

PROBE_DROP = Table(
    "probe_drop",
    "a label at a layer",
    _WHERE
    | {
        "layer": of.LAYER,
        "drop": number("fall of the probe's main metric from base to aligned; positive is loss"),
        "low": of.LOW,
        "high": of.HIGH,
        "p": number("p that nothing fell, by permutation"),
        "p_adjusted": number("p adjusted over all layers, heads and labels of the store"),
        "ceiling": number("that cosine if only sampling stood between the models: split halves of each"),
        "cosine": number("cosine of the two models' probe directions", optional=True),
        "p_no_loss": number("p of the reverse question: that the fall is no smaller than the margin", optional=True),
        "test": text("which test gave p", optional=True, blank="no test could be made"),
        "n_items": count("rows read", optional=True),
        "n_groups": count("groups resampled", optional=True),
        "head": of.HEAD,
    },
    key=_KEY,
)
