"""Which figures there are, what tables each needs, and drawing all that a run allows."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from taxlens.core.errors import UsageError, explain, one_of
from taxlens.figures.curves import draw_similarity_curves
from taxlens.figures.maps import draw_head_map, draw_layer_map
from taxlens.figures.run_comparison import draw_comparison
from taxlens.figures.run_view import RunView
from taxlens.figures.save import save_figure
from taxlens.figures.style import Drawn, width_of
from taxlens.stages.attribute.attribution_figure import draw_attribution
from taxlens.stages.attribute.methods_figure import draw_methods
from taxlens.stages.attribute.path_figure import draw_profile
from taxlens.stages.attribute.restoration_figure import draw_restoration_profile
from taxlens.stages.attribute.tokens_figure import draw_tokens
from taxlens.stages.attribute.truth_figure import draw_proving_ground, planted_components
from taxlens.stages.diagnose.evidence_figure import draw_evidence
from taxlens.stages.diagnose.states_figure import draw_states
from taxlens.stages.frontier.figure1 import draw_figure1
from taxlens.stages.frontier.frontier_figure import draw_front, draw_predicted, draw_restoration
from taxlens.stages.probe.probe_figure import draw_probe_curves
from taxlens.stages.similarity.directions_figure import draw_direction_effects, draw_direction_names
from taxlens.stages.similarity.similarity_map_figure import draw_similarity_map
from taxlens.stages.similarity.spectra_figure import draw_spectra
from taxlens.stages.tax.ledger_figure import draw_lost_won, draw_two_by_two
from taxlens.stages.tax.other_taxes_figure import draw_costs, draw_divergence, draw_power, draw_prior
from taxlens.stages.tax.tax_figure import draw_tax

Tables = Mapping[str, pd.DataFrame]
Jobs = Iterator[tuple[str, Callable[[], Drawn]]]


@dataclass(frozen=True, slots=True)
class FigureKind:
    """A kind of figure: its name, the tables it needs, the drawings that a run's tables give (name, draw), and the
    tables that it also shows where the run has them."""

    name: str
    tables: tuple[str, ...]
    jobs: Callable[[Tables, float], Jobs]
    optional: tuple[str, ...] = ()


def main_metric(frame: pd.DataFrame) -> str:
    """Return the metric that figures of one metric show: probability, or the table's first."""
    found = list(dict.fromkeys(frame["metric"]))
    return "probability" if "probability" in found else str(found[0])


def _tax(tables: Tables, width: float) -> Jobs:
    frame = tables["tax"]
    for metric in dict.fromkeys(frame["metric"]):
        yield f"tax_{metric}", lambda m=metric: draw_tax(frame, width=width, metric=m)


def _costs(tables: Tables, width: float) -> Jobs:
    frame = tables["costs"]
    for measure in dict.fromkeys(frame["measure"]):
        yield f"costs_{measure}", lambda m=measure: draw_costs(frame, measure=m, width=width)


def _divergence(tables: Tables, width: float) -> Jobs:
    frame = tables["divergence"]
    for key in frame[["suite", "template"]].drop_duplicates().itertuples(index=False):
        name = f"divergence_{key.suite}_{key.template}"
        yield name, lambda k=key: draw_divergence(frame, suite=k.suite, template=k.template, width=width)


def _prior(tables: Tables, width: float) -> Jobs:
    if len(tables["prior"]):
        yield "prior", lambda: draw_prior(tables["prior"], width=width)


def _power(tables: Tables, width: float) -> Jobs:
    frame = tables["power"]
    known = frame[frame["power"].notna()] if len(frame) else frame
    for metric in dict.fromkeys(known["metric"]) if len(known) else ():
        yield f"power_{metric}", lambda m=metric: draw_power(frame, metric=m, width=width)


def _probe(tables: Tables, width: float) -> Jobs:
    frame, drops = tables["probes"], tables.get("probe_drop")
    several = frame["site"].nunique() > 1 if "site" in frame else False
    where = ["suite", "label", "template", *(["site"] if "site" in frame else [])]
    for key in frame[where].drop_duplicates().to_dict("records"):
        name = f"probe_{key['suite']}_{key['label']}_{key['template']}" + (f"_{key['site']}" if several else "")
        yield name, lambda k=key: draw_probe_curves(frame, **k, drops=drops, width=width)


def _similarity(tables: Tables, width: float) -> Jobs:
    frame = tables["similarity"]
    sites = list(dict.fromkeys(frame["site"])) if "site" in frame else [None]
    for number, site in enumerate(sites):
        name = "similarity" if number == 0 else f"similarity_{site}"
        yield name, lambda s=site: draw_similarity_curves(frame, site=s, width=width)


def _similarity_map(tables: Tables, width: float) -> Jobs:
    frame = tables["similarity"]
    crossed = frame[frame["layer_base"] != frame["layer_aligned"]]
    where = [name for name in ("template", "site", "measure") if name in crossed]
    for key in crossed[where].drop_duplicates().to_dict("records"):
        name = "_".join(["similarity_map", *map(str, key.values())])
        yield name, lambda k=key: draw_similarity_map(frame, **k, width=width)


def _directions(tables: Tables, width: float) -> Jobs:
    frame = tables["directions"]
    for template in dict.fromkeys(frame["template"]) if "template" in frame else [None] * (len(frame) > 0):
        name = f"directions_{template}" if template else "directions"
        yield name, lambda t=template: draw_direction_names(frame, template=t, width=width)


def _direction_effects(tables: Tables, width: float) -> Jobs:
    frame = tables["direction_effects"]
    for metric in dict.fromkeys(frame["metric"]):
        yield f"direction_effects_{metric}", lambda m=metric: draw_direction_effects(frame, metric=m, width=width)


def _attribution(tables: Tables, width: float) -> Jobs:
    frame, closure = tables["attribution"], tables["closure"]
    path = frame[frame["method"] == "path"]
    path = path[(path["level"] == "component") | (path["metric"] == main_metric(path))]
    for key in path[["suite", "metric", "level"]].drop_duplicates().itertuples(index=False):
        name = f"attribution_{key.suite}_{key.metric}" + ("" if key.level == "component" else f"_{key.level}")
        yield (
            name,
            lambda k=key: draw_attribution(
                frame, closure=closure, suite=k.suite, metric=k.metric, level=k.level, width=width
            ),
        )


def _methods(tables: Tables, width: float) -> Jobs:
    frame = tables["attribution"]
    frame = frame[(frame["level"] == "component") & (frame["metric"] == main_metric(frame))] if len(frame) else frame
    several = frame.groupby("suite", sort=False)["method"].nunique() if len(frame) else {}
    only = set(frame["method"]) != {"path"}
    for suite, count in several.items():
        if count > 1 or only:
            metric = str(frame["metric"].iloc[0])
            yield (
                f"methods_{suite}_{metric}",
                lambda s=suite, m=metric: draw_methods(frame, suite=s, metric=m, width=width),
            )


def _two_by_two(tables: Tables, width: float) -> Jobs:
    frame = tables["tax_2x2"]
    for metric in dict.fromkeys(frame["metric"]):
        yield f"two_by_two_{metric}", lambda m=metric: draw_two_by_two(frame, metric=m, width=width)


def _lost_won(tables: Tables, width: float) -> Jobs:
    if "accuracy" in set(tables["tax"]["metric"]):
        yield "lost_won", lambda: draw_lost_won(tables["tax"], width=width)


def _maps(tables: Tables, width: float) -> Jobs:
    path = tables["attribution"][tables["attribution"]["method"] == "path"]
    path = path[path["metric"] == main_metric(path)]
    for key in path[["suite", "metric"]].drop_duplicates().itertuples(index=False):
        yield (
            f"layer_map_{key.suite}_{key.metric}",
            lambda k=key: draw_layer_map(path, suite=k.suite, metric=k.metric, width=width),
        )
    for key in path[path["level"] == "head"][["suite", "metric"]].drop_duplicates().itertuples(index=False):
        yield (
            f"head_map_{key.suite}_{key.metric}",
            lambda k=key: draw_head_map(path, suite=k.suite, metric=k.metric, width=width),
        )


def _spectra(tables: Tables, width: float) -> Jobs:
    frame = tables["spectra"]
    for template in dict.fromkeys(frame["template"]):
        yield f"spectra_{template}", lambda t=template: draw_spectra(frame, template=t, width=width)


def _profile(tables: Tables, width: float) -> Jobs:
    frame = tables["path"]
    for metric in dict.fromkeys(frame["metric"]):
        if metric != "perplexity":
            yield f"path_{metric}", lambda m=metric: draw_profile(frame, metric=m, width=width)


def _tokens(tables: Tables, width: float) -> Jobs:
    frame = tables["attribution_tokens"]
    frame = frame[frame["metric"] == main_metric(frame)]
    for key in frame[["suite", "metric"]].drop_duplicates().itertuples(index=False):
        part = frame[(frame["suite"] == key.suite) & (frame["metric"] == key.metric)]
        largest = part.groupby("item")["effect"].apply(lambda e: e.abs().sum()).nlargest(6)
        yield (
            f"tokens_{key.suite}_{key.metric}",
            lambda k=key, items=tuple(largest.index): draw_tokens(
                frame, suite=k.suite, items=items, metric=k.metric, width=width
            ),
        )


def _states(tables: Tables, width: float) -> Jobs:
    if tables["states"]["layer"].notna().any():
        yield "states", lambda: draw_states(tables["states"], width=width)


def _evidence(tables: Tables, width: float) -> Jobs:
    frame = tables["evidence"]
    for suite in dict.fromkeys(frame.loc[frame["layer"].notna(), "suite"]):
        yield f"evidence_{suite}", lambda s=suite: draw_evidence(frame, suite=s, width=width)


def _restoration(tables: Tables, width: float) -> Jobs:
    frame = tables["restoration"]
    for metric in dict.fromkeys(frame["metric"]):
        yield (
            f"restoration_profile_{metric}",
            lambda m=metric: draw_restoration_profile(frame, metric=m, width=width),
        )


def _comparison(tables: Tables, width: float) -> Jobs:
    frame = tables["comparison"]
    metrics = list(dict.fromkeys(frame["metric"]))
    for metric in sorted(metrics, key=lambda m: (m != "probability", metrics.index(m))):
        yield f"comparison_{metric}", lambda m=metric: draw_comparison(frame, metric=m, width=width)


def _proving_ground(tables: Tables, width: float) -> Jobs:
    yield "proving_ground", lambda: draw_proving_ground(tables["proving_ground"], width=width)


def _frontier(tables: Tables, width: float) -> Jobs:
    frame = tables["frontier"]
    for metric in dict.fromkeys(frame.loc[frame["suite"].fillna("") == "", "metric"]):
        yield f"restoration_{metric}", lambda m=metric: draw_restoration(frame, metric=m, width=width)
        yield f"front_{metric}", lambda m=metric: draw_front(frame, metric=m, width=width)
        yield f"predicted_{metric}", lambda m=metric: draw_predicted(frame, metric=m, width=width)


def _figure1(tables: Tables, width: float) -> Jobs:
    frame = tables["frontier"]
    metrics = [m for m in ("probability", "nll") if m in set(frame.loc[frame["suite"].fillna("") == "", "metric"])]
    if metrics:
        yield (
            "figure1",
            lambda: draw_figure1(
                frame,
                attribution=tables["attribution"],
                closure=tables["closure"],
                truth=tables.get("truth"),
                metric=metrics[0],
                width=width,
            ),
        )


KINDS: dict[str, FigureKind] = {
    kind.name: kind
    for kind in (
        FigureKind("tax", ("tax",), _tax),
        FigureKind("two_by_two", ("tax_2x2",), _two_by_two),
        FigureKind("lost_won", ("tax",), _lost_won),
        FigureKind("costs", ("costs",), _costs),
        FigureKind("divergence", ("divergence",), _divergence),
        FigureKind("prior", ("prior",), _prior),
        FigureKind("power", ("power",), _power),
        FigureKind("probe", ("probes",), _probe, ("probe_drop",)),
        FigureKind("similarity", ("similarity",), _similarity),
        FigureKind("similarity_map", ("similarity",), _similarity_map),
        FigureKind("directions", ("directions",), _directions),
        FigureKind("direction_effects", ("direction_effects",), _direction_effects),
        FigureKind("spectra", ("spectra",), _spectra),
        FigureKind("attribution", ("attribution", "closure"), _attribution),
        FigureKind("methods", ("attribution",), _methods),
        FigureKind("maps", ("attribution",), _maps),
        FigureKind("tokens", ("attribution_tokens",), _tokens),
        FigureKind("path", ("path",), _profile),
        FigureKind("states", ("states",), _states),
        FigureKind("frontier", ("frontier",), _frontier),
        FigureKind("evidence", ("evidence",), _evidence),
        FigureKind("restoration", ("restoration",), _restoration),
        FigureKind("figure1", ("frontier", "attribution", "closure"), _figure1, ("truth",)),
        FigureKind("comparison", ("comparison",), _comparison),
        FigureKind("proving_ground", ("proving_ground",), _proving_ground),
    )
}


def draw_run(run: RunView, *, venue: str = "neurips", width: str = "page", only: str | None = None) -> list[Path]:
    """Draw and save every figure that the run's tables allow, and return the written paths.

    Args:
        run: the run.
        venue: whose page widths to use.
        width: "column" or "page".
        only: draw this kind alone.

    Raises:
        UsageError: unknown venue, width or figure, or `only` names a figure whose tables the run lacks.
    """
    inches = width_of(venue, width)
    kinds = [KINDS[one_of(only, list(KINDS), what="figure")]] if only else list(KINDS.values())
    written: list[Path] = []
    for kind in kinds:
        missing = [name for name in kind.tables if not run.has(name)]
        if missing and only:
            rows = [("figure", only), ("missing tables", ", ".join(missing))]
            raise UsageError(explain("the run lacks what the figure shows.", rows, "run the stage that writes them"))
        if missing:
            continue
        tables = {name: run.table(name) for name in (*kind.tables, *kind.optional) if run.has(name)}
        if "truth" in kind.optional:
            tables["truth"] = planted_components(run.config)
        for name, draw in kind.jobs(tables, inches):
            written += save_figure(draw(), run.folder / "figures", name)
    return written


def draw_result(
    kind: str,
    frame: pd.DataFrame,
    *,
    width: float = 5.5,
    name: str | None = None,
    companions: Mapping[str, pd.DataFrame] | None = None,
) -> Drawn:
    """Draw a result's own table: its first figure, or the one called `name`.

    Args:
        kind: which kind of figure.
        frame: the result's table [rows, columns].
        width: inches.
        name: which of the drawings that the table gives (default: the first).
        companions: further tables that the figure shows, by name.

    Raises:
        UsageError: if the kind or the name is not known, or the table is empty.
    """
    chosen = KINDS[one_of(kind, list(KINDS), what="figure")]
    jobs = dict(chosen.jobs({chosen.tables[0]: frame, **(companions or {})}, width))
    if not jobs:
        raise UsageError(explain("nothing to draw: the table is empty.", [("figure", kind)]))
    return jobs[one_of(name or next(iter(jobs)), list(jobs), what="drawing")]()
