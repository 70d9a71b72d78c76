"""One registration makes a metric, a method or an order known everywhere, with its unit, sign and words."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pandas as pd
import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from benchmarks.truth.worlds.tokenizer import build_tokenizer
from taxlens.analysis.frontier import orders
from taxlens.analysis.frontier.options import ready_options
from taxlens.analysis.frontier.order_plans import PlanContext, first_plans
from taxlens.analysis.frontier.plans import Scores, Units, ranked_plans
from taxlens.analysis.interventions import method_registry
from taxlens.analysis.scoring import metrics
from taxlens.analysis.scoring.metrics import Metric, nll_gradient, nll_value, register
from taxlens.config.schema import build_config
from taxlens.core.errors import ConfigError, UsageError
from taxlens.report.latex import write_latex
from taxlens.runs.running import run
from taxlens.stages.frontier.frontier_figure import looks
from taxlens.words.amounts import amount, signed, units_of

BITS = Metric(
    "bits", "minus the right choice's log-probability, bits", words="bits", unit="bits", scale=1.0, digits=2, sign=-1.0,
    value=lambda scores, gold: nll_value(scores, gold) / math.log(2),
    gradient=lambda scores, gold: nll_gradient(scores, gold) / math.log(2), chain="linear",
)  # fmt: skip


def halved(pair, measure, wanted, units, **options):
    """Half of what grafting each component does: a method of attribution as a newcomer would write it."""
    from taxlens.analysis.interventions.graft import graft_effects

    found = graft_effects(pair, measure, units=units, **options).graft
    return [dataclasses.replace(found, method="halves", values={key: v / 2 for key, v in found.values.items()})]


HALVES = method_registry.Method("halves", "half of a graft", run=halved)


def alphabetical(context):
    """Plans of the units whose names come first: an order as a newcomer would write it."""
    first = np.argsort(np.argsort(context.units.names))
    return ranked_plans(context.units, -first, order="alphabetical", shares=context.options.shares)


ALPHABETICAL = orders.Order("alphabetical", alphabetical, "units by name")


@pytest.fixture
def registry():
    """Registrations of a test, taken back after it."""
    held = (metrics.METRICS, method_registry.METHODS, orders.ORDERS)
    before = [dict(one) for one in held]
    yield
    for one, was in zip(held, before, strict=True):
        one.clear()
        one.update(was)


def config_of(**sections):
    """A config with these sections, its pair and suite beside the point."""
    return build_config(
        {"name": "n", "pair": {"base": "b", "aligned": "a"}, "suites": [{"name": "s", "file": "f"}], **sections}
    )


@pytest.fixture
def folder(tmp_path):
    """Two tiny checkpoints, a few facts and a config that measures bits and nothing else."""
    from taxlens.demo.catalogue import resolve_suite

    tokenizer = build_tokenizer()
    sizes = {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 1, "num_attention_heads": 2}
    ids = {"bos_token_id": tokenizer.bos_token_id, "eos_token_id": tokenizer.eos_token_id, "vocab_size": len(tokenizer)}
    for seed, name in enumerate(("base", "aligned")):
        torch.manual_seed(0)
        model = LlamaForCausalLM(LlamaConfig(num_key_value_heads=1, max_position_embeddings=64, **sizes, **ids))
        torch.manual_seed(1)
        with torch.no_grad():
            for weight in model.parameters():
                weight.add_(seed * 0.1 * torch.randn_like(weight))
        model.save_pretrained(tmp_path / name)
        tokenizer.save_pretrained(tmp_path / name)
    lines = resolve_suite("demo:facts").read_text(encoding="utf-8").splitlines()[:10]
    (tmp_path / "facts.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    (tmp_path / "config.yaml").write_text(
        "name: bits\npair: {base: base, aligned: aligned}\nsuites: [{name: facts, file: facts.jsonl}]\n"
        "templates: [plain, chat]\ntax: {metrics: [bits], bootstrap: 100}\n"
        "attribution: {metrics: [bits, nll], levels: [component], methods: [path, restore]}\n",
        encoding="utf-8",
    )
    return tmp_path


def test_a_new_metric_goes_through_tax_attribution_figures_report_and_methods_with_its_unit(registry, folder):
    register(BITS)
    method_registry.register_method(HALVES)
    methods = ["attribution.methods=[path, graft, halves]", "figures.which=all"]
    done = run(
        folder / "config.yaml", out=folder / "out", overrides=methods, stages=["tax", "attribute", "figures", "report"]
    )
    tax = done.table("tax")
    assert set(tax.metric) == {"bits"}
    assert tax.p_equivalent.isna().all()  # no margin in bits was declared
    assert tax.lost.isna().all()
    closure = done.table("closure")
    path = closure[closure.method == "path"].set_index("metric")
    assert path.tax["bits"] == pytest.approx(path.tax["nll"] / math.log(2))
    assert path.tax["bits"] == pytest.approx(tax.set_index("template").tax["plain"], abs=1e-4)
    assert abs(path.residual["bits"]) < 0.01 * abs(path.tax["bits"])
    effects = (
        done.table("attribution").query("method == 'path'").pivot(index="component", columns="metric", values="effect")
    )
    assert effects["bits"].to_numpy() == pytest.approx(effects["nll"].to_numpy() / math.log(2), abs=1e-12)
    items = done.table("items")
    assert items["bits"].to_numpy() == pytest.approx(items["nll"].to_numpy() / math.log(2))
    captions = "".join(p.read_text(encoding="utf-8") for p in (done.folder / "figures").glob("*bits*.txt"))
    assert "bits" in captions
    assert "points" not in captions
    page = (done.folder / "report.html").read_text(encoding="utf-8")
    said = amount(abs(float(tax.set_index("template").tax["plain"])), "bits")
    assert said.endswith(" bits")
    assert "Bits, in bits" in page
    text = "".join(p.read_text(encoding="utf-8") for p in write_latex(done) if p.suffix == ".tex")
    assert "bits, minus the right choice's log-probability, bits (in bits)" in text
    assert "in bits; positive is" in text
    _went_through(done, text)


def _went_through(done, text):
    """The registered method in the table, the figure of methods, and the methods paragraph."""
    columns = ["metric", "template", "level", "component"]
    by_method = done.table("attribution").pivot(index=columns, columns="method", values="effect").dropna()
    assert len(by_method) > 1
    assert by_method["halves"].to_numpy() == pytest.approx(by_method["graft"].to_numpy() / 2, abs=1e-12)
    assert set(done.table("closure").method) == {"path", "graft", "halves"}
    drawn = [pd.read_csv(p) for p in (done.folder / "figures").glob("methods_*.csv")]
    assert drawn
    assert all("halves" in set(frame["method"]) for frame in drawn)
    caption = (done.folder / "figures" / "methods_facts_bits.txt").read_text(encoding="utf-8")
    assert "Effects of path sum to the tax; those of graft, halves need not. Sums" in caption
    assert "half of a graft" in text


def test_a_metric_that_is_only_measured_is_refused_by_attribute_with_a_sentence(registry):
    from taxlens.analysis.path.attribute import attribute

    register(Metric("word_overlap", "overlap of words of the answer and the right one"))
    with pytest.raises(UsageError, match="only measured") as error:
        attribute(None, [], metrics=("word_overlap",))  # refused before anything is looked at
    assert "overlap of words" in str(error.value)
    with pytest.raises(ConfigError, match="metric of the attribution"):
        config_of(attribution={"metrics": ["word_overlap"]})


def test_units_follow_the_registry(registry):
    register(BITS)
    assert signed(2.248, "bits") == "+2.248"
    assert amount(2.248, "bits") == "2.25 bits"
    assert amount(0.124, "accuracy") == "12.4 points"
    assert signed(-0.5, "nll") == "-0.500"
    assert signed(0.5, "nll") == "+0.500"
    assert amount(0.5, "a user's own") == "0.5"
    assert units_of(["probability", "nll", "bits", "margin"]) == "points (nll and margin in nats, bits in bits)"


def test_a_metric_is_declared_once_and_whole(registry):
    register(BITS)
    with pytest.raises(UsageError, match="registered already"):
        register(BITS)
    with pytest.raises(UsageError, match="value and a gradient"):
        register(Metric("half", "no gradient", chain="gradient"))
    with pytest.raises(UsageError, match="chain rule"):
        register(Metric("odd", "another rule", chain="sideways"))


def test_every_gradient_is_the_slope_of_its_value():
    draw = np.random.default_rng(3)
    scores, gold, step = draw.normal(-3, 2, (5, 4)), draw.integers(0, 3, 5), 1e-6
    scores[1, 3] = np.nan
    for name in metrics.smooth_metrics():
        metric = metrics.METRICS[name]
        for choice in range(4):
            moved = scores.copy()
            moved[:, choice] += step
            rise = (metric.value(moved, gold) - metric.value(scores, gold)) / step
            slope = np.nan_to_num(metric.gradient(scores, gold))[:, choice]
            here = ~np.isnan(scores[:, choice])
            assert rise[here] == pytest.approx(slope[here], abs=1e-5), name


def test_config_knows_every_registered_name_and_the_nearest_to_a_wrong_one(registry):
    register(BITS)
    assert config_of(tax={"metrics": ["bits"]}).tax.metrics == ("bits",)
    for section, key, wrong, near in (
        ("tax", "metrics", "probabilty", "probability"),
        ("attribution", "metrics", "nl", "nll"),
        ("attribution", "methods", "restor", "restore"),
        ("frontier", "orders", "magnitud", "magnitude"),
    ):
        with pytest.raises(ConfigError, match=near):
            config_of(**{section: {key: [wrong]}})


def test_a_method_that_is_registered_runs_and_is_drawn_and_named(registry):
    from taxlens.stages.attribute.methods_figure import methods_rows

    method_registry.register_method(
        method_registry.Method("halves", "two halves", run=method_registry.METHODS["graft"].run)
    )
    assert "halves" in method_registry.method_names()
    assert "halves" in config_of(attribution={"methods": ["path", "halves"]}).attribution.methods
    rows = [("0.mlp", m, 0.1, 0.0, 0.2) for m in method_registry.METHODS]
    frame = pd.DataFrame(rows, columns=["component", "method", "effect", "low", "high"])
    frame = frame.assign(suite="facts", metric="nll", level="component", kind="mlp")
    assert list(dict.fromkeys(methods_rows(frame, suite="facts", metric="nll").method)) == list(method_registry.METHODS)
    with pytest.raises(UsageError, match="registered already"):
        method_registry.register_method(method_registry.Method("halves", ""))


def test_an_order_that_is_registered_makes_its_plans_and_is_counted_checked_drawn_and_named(registry):
    orders.register_order(ALPHABETICAL)
    options = ready_options(None, {"orders": ("path", "alphabetical"), "shares": (0.2, 0.4)})
    energy = np.arange(1.0, 11.0)
    units = Units("singular", tuple(f"u{i}" for i in reversed(range(10))), np.zeros(10, int), energy)
    context = PlanContext(options, units, Scores(energy, energy, float(energy.sum())))
    plans = orders.ORDERS["alphabetical"].plans(context)
    assert [plan.name for plan in plans] == ["alphabetical-20%", "alphabetical-40%"]
    assert set(plans[0].undo) == {"u0", "u1"}
    assert orders.ORDERS["alphabetical"].count(options) == 2
    assert "alphabetical" in config_of(frontier={"orders": ["path", "alphabetical"]}).frontier.orders
    assert len(set(looks().values())) == len(looks()) == len(orders.ORDERS)
    with pytest.raises(UsageError, match="registered already"):
        orders.register_order(ALPHABETICAL)


def test_the_estimate_counts_the_plans_that_every_order_makes():
    keeps, energy = (1.05, 1.1), np.random.default_rng(0).exponential(size=40)
    asked = {"shares": (0.1, 0.2), "draws": 3, "draw_shares": (0.2,), "keeps": keeps, "keep": None}
    options = ready_options(None, asked)
    units = Units("singular", tuple(f"u{i}" for i in range(40)), np.arange(40) // 10, energy)
    scores = Scores(energy, energy, float(energy.sum()))
    context = PlanContext(options, units, scores, path=first_plans(options, units, scores), local=scores)
    quick = [order for order in orders.ORDERS.values() if order.passes is None and order.name != "checkpoint"]
    assert {order.name: len(order.plans(context)) for order in quick} == {o.name: o.count(options) for o in quick}


def test_every_order_has_a_look_of_its_own_and_words_but_the_path():
    assert set(looks()) == set(orders.ORDERS)
    assert len(set(looks().values())) == len(looks())
    assert [name for name, order in orders.ORDERS.items() if not order.words] == ["path"]


def test_sites_are_declared_once_and_config_reads_them():
    from taxlens.activations.hooks import site_registry

    assert config_of(capture={"sites": ["mlp_post"]}).capture.sites == ("mlp_post",)
    with pytest.raises(ConfigError, match="resid_post"):
        config_of(capture={"sites": ["resid_pst"]})
    assert site_registry.stream_sites() == ("resid_pre", "resid_mid", "resid_post")
    with pytest.raises(UsageError, match="registered already"):
        site_registry.register_site(site_registry.SITES["resid_post"])
    with pytest.raises(UsageError, match="no such shape"):
        site_registry.register_site(site_registry.Site("odd", "", "hook", "block", shape="square"))
