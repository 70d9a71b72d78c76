"""The tax: how much of each suite two checkpoints differ by, on which items, in which template."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np
import pandas as pd

from taxlens.activations.items.items import Item, Suite
from taxlens.activations.models.prompts import as_asked, template_notes, usable_templates
from taxlens.analysis.scoring.choices import SuiteScores, joined_scores, parts_of, score_suite
from taxlens.analysis.scoring.metrics import CHOICE_METRICS, METRICS, Metric, main_metric, shown_metric
from taxlens.analysis.tax.ledger import EQUIVALENCE_MARGIN, Paired, few_groups, tax_frame
from taxlens.analysis.tax.tax_tables import CHANGED, ITEMS, metric_columns
from taxlens.analysis.tax.two_by_two import headline, two_by_two_frame
from taxlens.core.errors import ItemError, UsageError, explain
from taxlens.core.progress import SILENT, Named, Progress
from taxlens.core.result import Result
from taxlens.core.shared_work import active_part, shared
from taxlens.core.stats.intervals import Interval


@dataclass(frozen=True, slots=True, repr=False)
class Tax(Result):
    """What a pair lost on suites: table, 2 x 2 of weights and template, items lost and won.

    Positive is loss, for every metric. A tax of nearly 0 with many items lost and won is
    no peace: read both. A suite shows only what its choices contain.

    Attributes:
        measured: both models' metrics by item, one entry a suite and template.
        scores: (base, aligned) scores behind each entry.
        suites: the suites, for texts.
        notes: what a reader must know (borrowed template, few groups, suites passed over).
        frame: tax.csv.
        effects: tax_2x2.csv.
    """

    figure: ClassVar[str] = "tax"

    measured: tuple[Paired, ...]
    scores: tuple[tuple[SuiteScores, SuiteScores], ...]
    suites: tuple[Suite, ...]
    notes: tuple[str, ...]
    frame: pd.DataFrame
    effects: pd.DataFrame

    def to_frame(self) -> pd.DataFrame:
        """tax.csv: one row a suite, template and metric (columns `tax_tables.TAX`)."""
        return self.frame.copy()

    def shown_frame(self) -> pd.DataFrame:
        """One row a suite and template in the metric that a run is told in, in its unit."""
        rows = []
        for row in self.frame[self.frame["metric"] == main_metric(self.frame["metric"])].itertuples():
            known = shown_metric(row.metric)
            tax = f"{known.shown(row.tax, sign=True)} [{known.shown(row.low)}, {known.shown(row.high)}]"
            turned = [row.lost, row.won] if pd.notna(row.lost) else ["", ""]
            rows.append(
                (row.suite, row.template, tax, known.shown(row.base), known.shown(row.aligned), *turned, row.n_items)
            )
        names = self.frame["metric"]
        unit = f"{main_metric(names)} lost ({shown_metric(main_metric(names)).unit or 'own numbers'})"
        columns = ["suite", "prompt", unit, "base", "aligned", "items lost", "items won", "items"]
        return pd.DataFrame(rows, columns=columns)

    def two_by_two(self) -> pd.DataFrame:
        """tax_2x2.csv: weights, template, interaction and total; empty where one template was measured."""
        return self.effects.copy()

    def items(self) -> pd.DataFrame:
        """items.csv: one row an item, template and model; ``change`` is lost, won or blank."""
        frames = [frame for paired, scores in zip(self.measured, self.scores) for frame in _item_rows(paired, scores)]
        whole = ITEMS.join(frames)
        return whole[[name for name in ITEMS.names if name in whole]]

    def changed(self) -> pd.DataFrame:
        """The items lost and won with their texts: what each model says, and what is right."""
        texts = {(suite.name, item.id): item for suite in self.suites for item in suite.items}
        rows = []
        for paired, (base, aligned) in zip(self.measured, self.scores):
            chosen, gold = (base.choice, aligned.choice), base.gold
            moved = base.hit.astype(int) - aligned.hit
            for n in np.flatnonzero(moved):
                change = "lost" if moved[n] > 0 else "won"
                item = texts[paired.suite, paired.items[n]]
                says = [item.choices[side[n]] for side in chosen]
                right = item.choices[gold[n]]
                rows.append((paired.suite, paired.template, item.id, item.group, change, _asked(item), right, *says))
        return CHANGED.frame(rows)

    def interval(self, suite: str, *, metric: str = "accuracy", template: str = "plain") -> Interval:
        """The tax of one suite in one metric and template, with its interval.

        Raises:
            UsageError: that combination was not measured.
        """
        frame = self.frame
        found = frame[(frame["suite"] == suite) & (frame["metric"] == metric) & (frame["template"] == template)]
        if found.empty:
            have = sorted({f"{r.suite}/{r.metric}/{r.template}" for r in frame.itertuples()})
            raise UsageError(explain(f"no tax of {suite}/{metric}/{template}.", [("measured", ", ".join(have))]))
        row = found.iloc[0]
        return Interval(
            float(row["tax"]), float(row["low"]), float(row["high"]), 0.95,
            int(row["n_items"]), int(row["n_groups"]), "group bootstrap",
        )  # fmt: skip

    def headline(self, suite: str, *, metric: str = "accuracy") -> str:
        """How much of a suite's tax is the template, in a sentence (see `two_by_two.headline`)."""
        return headline(self.effects, suite, metric=metric)

    def __repr__(self) -> str:
        frame = self.frame
        parts = []
        for row in frame[frame["metric"] == main_metric(frame["metric"])].itertuples():
            known = shown_metric(row.metric)
            unit = "%" if known.unit == "points" else known.unit
            one = pd.isna(row.low)
            span = "(one group: no interval)" if one else f"[{known.shown(row.low)}, {known.shown(row.high)}]"
            parts.append(
                f"{row.suite} ({row.template}) {known.shown(row.tax, sign=True)} {known.unit} {span} of "
                f"{known.words or known.name} ({known.shown(row.base)} -> {known.shown(row.aligned)} {unit}".rstrip()
                + f", n={row.n_items} items in {row.n_groups} groups)"
            )
        return "Tax: " + "; ".join(parts)


def measure_tax(
    pair: Any,
    suites: Suite | Sequence[Suite],
    *,
    templates: Sequence[str] = ("plain", "chat"),
    metrics: Sequence[str] = CHOICE_METRICS,
    bootstrap: int = 2000,
    seed: int = 0,
    margin: float = EQUIVALENCE_MARGIN,
    interval: str = "percentile",
    functions: Mapping[str, Metric | Callable[[np.ndarray, np.ndarray], np.ndarray]] | None = None,
    batch_tokens: int = 4096,
    progress: Progress = SILENT,
) -> Tax:
    """Score both models of a pair on suites and make the ledger of what was lost.

    Args:
        pair: a loaded pair (``.base`` and ``.aligned``).
        suites: items; those without choices are passed over, and a suite without any is noted.
        templates: ``plain``, ``chat`` or both; both give the 2 x 2. Where base has no chat
            template, aligned's serves both and a note says so; where neither has one, ``plain`` alone is measured, if it is
            asked for too.
        metrics: which, of `scored_metrics`.
        bootstrap: draws of the group bootstrap.
        seed: of the draws.
        margin: half width of "no tax" for equivalence, in metrics of 0..1.
        interval: ``percentile`` or ``bca``.
        functions: metrics of your own, beside ``metrics``, by name: a function (scores [items, choices] in nats with NaN for
            no choice, gold [items]) -> [items], of which a fall is a loss and whose numbers are shown as they are; or a
            `Metric`, which says its sign, unit and margin.
        batch_tokens: most padded tokens in one batch.
        progress: told of every batch.

    Returns:
        Tax.

    Raises:
        ItemError: no suite has items with choices, or choices that become the same tokens.
        ModelLoadError: ``chat`` is asked and neither model has a template.
        UsageError: an own metric has the name of a registered one, or gives no number an item.

    Example:
        >>> tax = measure_tax(pair, suite, templates=["plain"])  # doctest: +SKIP
        >>> tax.to_frame()[["suite", "metric", "tax", "low", "high"]]  # doctest: +SKIP
    """
    given = (suites,) if isinstance(suites, Suite) else tuple(suites)
    usable = tuple(suite for suite in given if any(item.choices for item in suite.items))
    if not usable:
        names = [("suites", ", ".join(suite.name for suite in given) or "none")]
        raise ItemError(explain("no suite has items with choices.", names, "add choices and gold to the items."))
    notes = [f"{s.name}: no item has choices, so it has no tax here." for s in given if s not in usable]
    notes += template_notes(pair, templates)
    templates = usable_templates(pair, templates)
    own = {name: _own_metric(name, function) for name, function in (functions or {}).items()}
    measured, scores = [], []
    found = _scored(pair, usable, templates, batch_tokens, progress)
    for number, suite in enumerate(usable):
        for template in templates:
            both = (found[number, template, "base"], found[number, template, "aligned"])
            base, aligned = (side.metrics(metrics) | _own_values(side, own) for side in both)
            measured.append(Paired(suite.name, suite.kind, template, both[0].items, both[0].groups, base, aligned, own))
            scores.append(both)
    return Tax(
        measured=tuple(measured),
        scores=tuple(scores),
        suites=usable,
        notes=tuple(notes + few_groups(measured)),
        frame=tax_frame(measured, bootstrap=bootstrap, seed=seed, margin=margin, interval=interval),
        effects=two_by_two_frame(measured, bootstrap=bootstrap, seed=seed),
    )


def _scored(
    pair: Any, suites: Sequence[Suite], templates: Sequence[str], batch_tokens: int, progress: Progress
) -> dict[tuple[int, str, str], SuiteScores]:
    """Scores by (place of the suite, template, model), each in its parts: the pieces that several workers share."""

    def score(unit: tuple[int, str, str, int, int]) -> SuiteScores:
        number, template, name, part, count = unit
        model = getattr(pair, name)
        asked = as_asked(pair, model, template)
        return score_suite(
            model,
            suites[number],
            prompting=asked,
            batch_tokens=batch_tokens,
            part=(part, count),
            progress=Named(progress, f"{suites[number].name}, {name}, {template}"),
        )

    whole = [(n, t, m) for n in range(len(suites)) for t in templates for m in ("base", "aligned")]
    units = [(*one, *part) for one in whole for part in (parts_of(suites[one[0]]) if active_part() else [(0, 1)])]
    parts: dict[tuple[int, str, str], list[SuiteScores]] = {}
    for unit, found in zip(units, shared("scores", units, score), strict=True):
        parts.setdefault(unit[:3], []).append(found)
    return {key: joined_scores(held) for key, held in parts.items()}


def _own_metric(name: str, function: Metric | Callable[[np.ndarray, np.ndarray], np.ndarray]) -> Metric:
    known = shown_metric(name)
    if isinstance(function, Metric):
        found = function
    elif hasattr(function, "value"):  # a `ScoreMetric`, as attribution takes it
        found = replace(known, value=function.value, sign=function.sign)
    else:
        found = replace(known, value=function)
    if name in METRICS or found.name != name:
        rows = [("name", name), *([("metric", found.name)] if found.name != name else [])]
        raise UsageError(explain("an own metric needs a name of its own.", rows, "another key in functions."))
    return found


def _own_values(scores: SuiteScores, own: Mapping[str, Metric]) -> dict[str, np.ndarray]:
    found = {}
    for name, metric in own.items():
        of_scores = metric.value
        values = np.asarray(of_scores(scores.logp, scores.gold), float) if of_scores else np.empty(0)
        if values.shape != (len(scores.items),) or not np.isfinite(values).all():
            rows = [
                ("metric", name),
                ("items", len(scores.items)),
                ("got", f"shape {values.shape}, {int(np.isfinite(values).sum())} finite"),
            ]
            raise UsageError(
                explain("an own metric gives one finite number an item.", rows, "return an array [items].")
            )
        found[name] = values
    return found


def _asked(item: Item) -> str:
    return " | ".join(item.contexts) if item.contexts else (item.prompt or "")


def _item_rows(paired: Paired, both: tuple[SuiteScores, SuiteScores]) -> list[pd.DataFrame]:
    values = [scores.metrics() for scores in both]
    moved = values[0]["accuracy"] - values[1]["accuracy"]
    return [
        pd.DataFrame(
            {
                "suite": paired.suite,
                "item": paired.items,
                "group": paired.groups,
                "template": paired.template,
                "model": model,
                "correct": found["accuracy"].astype(int),
                "probability": found["probability"],
                "margin": found["margin"],
                "nll": found["nll"],
                "correct_norm": found["accuracy_norm"].astype(int),
                "choice": scores.choice,
                "change": np.where(moved > 0, "lost", np.where(moved < 0, "won", "")),
            }
            | {name: column for name, column in own.items() if name in metric_columns()}
        )
        for model, found, scores, own in zip(("base", "aligned"), values, both, (paired.base, paired.aligned))
    ]
