"""Is it the weights or the template? The tax as a 2 x 2 of {base, aligned} x {plain, chat}.

With M the metric, signed so that loss is positive:
total = M(base, plain) - M(aligned, chat), weights = M(base, plain) - M(aligned, plain),
template = M(base, plain) - M(base, chat), and the interaction is the rest.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from taxlens.analysis.scoring.metrics import shown_metric
from taxlens.analysis.tax.ledger import Paired
from taxlens.analysis.tax.tax_tables import TAX_2X2
from taxlens.core.errors import UsageError, explain
from taxlens.core.stats.intervals import sum_intervals

EFFECTS = ("weights", "template", "interaction", "total")


def item_effects(plain: Paired, chat: Paired, metric: str) -> np.ndarray:
    """Each item's weights, template, interaction and total effect, [n, 4]; the first three sum to the last.

    Args:
        plain: both models in the plain template.
        chat: both models in the chat template, the same items.
        metric: which metric.

    Raises:
        UsageError: the two templates were measured on different items.
    """
    if plain.items != chat.items:
        rows = [("plain", f"{len(plain.items)} items"), ("chat", f"{len(chat.items)} items")]
        raise UsageError(explain(f"the two templates of {plain.suite} hold different items.", rows))
    sign = plain.metric(metric).sign
    weights = sign * (plain.base[metric] - plain.aligned[metric])
    template = sign * (plain.base[metric] - chat.base[metric])
    total = sign * (plain.base[metric] - chat.aligned[metric])
    return np.stack([weights, template, total - weights - template, total], axis=1)


def two_by_two_frame(measured: Sequence[Paired], *, bootstrap: int = 2000, seed: int = 0) -> pd.DataFrame:
    """The rows of tax_2x2.csv, for every suite that was measured in both templates.

    The four effects of a suite are resampled together, by group.

    Args:
        measured: one entry a suite and template.
        bootstrap: draws of the group bootstrap.
        seed: of the draws.

    Returns:
        Rows suite x metric x (weights, template, interaction, total); empty where only
        one template was measured.
    """
    by_suite: dict[str, dict[str, Paired]] = {}
    for paired in measured:
        by_suite.setdefault(paired.suite, {})[paired.template] = paired
    rows: list[dict[str, object]] = []
    for suite, templates in by_suite.items():
        if not {"plain", "chat"} <= set(templates):
            continue
        plain, chat = templates["plain"], templates["chat"]
        for metric in plain.base:
            effects = item_effects(plain, chat, metric)
            low, high = sum_intervals(effects, plain.groups, draws=bootstrap, seed=seed)
            for number, effect in enumerate(EFFECTS):
                rows.append(
                    {
                        "suite": suite,
                        "metric": metric,
                        "effect": effect,
                        "value": float(effects[:, number].mean()),
                        "low": float(low[number]),
                        "high": float(high[number]),
                        "n_items": len(plain.items),
                        "n_groups": len(set(plain.groups)),
                    }
                )
    return TAX_2X2.frame(rows)


def headline(frame: pd.DataFrame, suite: str, *, metric: str = "accuracy") -> str:
    """The sentence that a report leads with: how much of a suite's tax is the template.

    Args:
        frame: what `two_by_two_frame` returned.
        suite: which suite.
        metric: which metric; those in 0..1 are told in points, the others in nats.

    Returns:
        Such as "facts: of 12.4 points lost, 9.1 are the template, 2.8 the weights and 0.5 their interaction."

    Raises:
        UsageError: the suite was not measured in both templates.
    """
    chosen = frame[(frame["suite"] == suite) & (frame["metric"] == metric)].set_index("effect")["value"]
    if chosen.empty:
        raise UsageError(
            explain(
                f"no 2 x 2 of {suite} in {metric}.",
                [("suites", sorted(set(frame["suite"])))],
                "templates: [plain, chat]",
            )
        )
    known = shown_metric(metric)
    sign = 1.0 if float(chosen["total"]) >= 0 else -1.0
    moved = "lost" if sign > 0 else "gained"
    parts = {effect: round(sign * float(chosen[effect]) * known.scale, 1) + 0.0 for effect in EFFECTS}  # no "-0.0"
    return (
        f"{suite}: of {parts['total']:.1f} {known.unit} {moved}, {parts['template']:.1f} are the template, "
        f"{parts['weights']:.1f} the weights and {parts['interaction']:.1f} their interaction."
    )
