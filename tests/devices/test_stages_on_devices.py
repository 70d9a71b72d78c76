"""Every stage on one and on two devices gives the numbers of the CPU."""

from __future__ import annotations

import dataclasses
import hashlib

import numpy as np
import pandas as pd
import pytest

from taxlens.activations.capture.capture import capture
from taxlens.activations.models.prompts import one_prompting
from taxlens.analysis.answers.answers import generate_answers
from taxlens.analysis.answers.generation import generate
from taxlens.analysis.answers.positions import answer_divergence
from taxlens.analysis.answers.versatility import measure_versatility
from taxlens.analysis.directions.naming import Vocabulary
from taxlens.analysis.frontier.measure import frontier
from taxlens.analysis.frontier.trained_plans import training
from taxlens.analysis.interventions.ablation import direction_effects
from taxlens.analysis.interventions.attribution_patching import attribution_patch
from taxlens.analysis.interventions.graft import graft_effects
from taxlens.analysis.interventions.patching import patch_effects
from taxlens.analysis.interventions.stitching import stitched_profile
from taxlens.analysis.path.attribute import attribute, gradient_effects
from taxlens.analysis.scoring.choices import score_suite
from taxlens.analysis.scoring.evaluator import ChoiceMeasure
from taxlens.analysis.state.diagnose import diagnose
from taxlens.analysis.tax.surface_form import measure_prior
from taxlens.analysis.tax.tax import measure_tax
from taxlens.analysis.weights.gradients import first_order_loss
from taxlens.analysis.weights.interpolation import mixture
from taxlens.analysis.weights.units import difference_of
from taxlens.core.direction import Direction
from tests.devices.fake_device import devices, spread


def measure(pair, suites):
    return ChoiceMeasure(pair, suites, metrics=("probability", "nll")), {s.name: s.groups for s in suites}


def tax(pair, suites, tmp):
    return measure_tax(pair, suites, templates=("plain", "chat"), bootstrap=50).to_frame()


def captured(positions):
    def run(pair, suites, tmp):
        sites = ("resid_post", "mlp_post", "head_z")
        with capture(pair, suites, to=tmp / "acts.h5", positions=positions, sites=sites, shard_bytes=1 << 15) as store:
            assert all(check["passed"] for check in store.manifest["self_check"])
        files = sorted(tmp.rglob("shard-*.h5"))
        return [hashlib.sha256(path.read_bytes()).hexdigest() for path in files]

    return run


def path(*levels, **options):
    def run(pair, suites, tmp):
        return attribute(pair, suites, levels=levels, bootstrap=50, max_gradients=7, **options).to_frame()

    return run


def one_gradient(pair, suites, tmp):
    return gradient_effects(pair, suites, levels=("component",), bootstrap=50).to_frame()


def first_order(pair, suites, tmp):
    difference = difference_of(pair)
    units = [u for level in ("component", "head", "neuron", "singular") for u in difference.units(level).values()]
    asked = [(suite, one_prompting(pair, suite, "plain")) for suite in suites]
    return list(first_order_loss(pair.aligned.model, asked, difference, units).values())


def screened(pair, suites, tmp):
    return attribution_patch(pair, suites[0], check=2).effects


def relearned(pair, suites, tmp):
    with training(pair, suites[:1], template={"facts": "plain"}, steps=2, rate=0.01, items=8) as model:
        return ChoiceMeasure(pair, suites, metrics=("nll",))(model)["facts"]["nll"]


def diagnosed(pair, suites, tmp):
    return diagnose(pair, suites[0], layers=[0, 1], draws=50).evidence_frame()


def restored(pair, suites, tmp):
    how, groups = measure(pair, suites)
    return stitched_profile(pair, how, groups=groups, draws=50).to_frame()


def grafted(pair, suites, tmp):
    how, groups = measure(pair, suites)
    return graft_effects(pair, how, groups=groups, draws=50, units=["0.attn", "1.mlp"]).graft.to_frame()


def patched(pair, suites, tmp):
    how, groups = measure(pair, suites)
    return patch_effects(pair, how, groups=groups, draws=50, units=["1.mlp", "0.attn"])[0].to_frame()


def triples_undone(pair, suites, tmp):
    how, _ = measure(pair, suites)
    names = list(difference_of(pair).units("singular"))[:40:3]
    with mixture(pair, dict.fromkeys(names, 0.5)) as model:
        return how(model)["facts"]["nll"]


def ablated(pair, suites, tmp):
    made = Direction(np.random.default_rng(0).standard_normal(32), site="resid_post", layer=1)
    return direction_effects(pair, [made], suites[0], centre=np.zeros(32), draws=2).to_frame()


def answers(pair, suites, tmp):
    return generate(pair.aligned.model, pair.aligned.tokenizer, [i.prompt for i in suites[0].items], max_new_tokens=6)


def divergence(pair, suites, tmp):
    return answer_divergence(pair, generate_answers(pair, suites[0], max_new_tokens=4), bootstrap=50).to_frame()


def versatility(pair, suites, tmp):
    return measure_versatility(pair, suites[0], samples=2, max_new_tokens=3, bootstrap=50).to_frame()


def prior(pair, suites, tmp):
    found = measure_tax(pair, suites[:1], templates=("plain",), bootstrap=50)
    return measure_prior(pair, found, bootstrap=50).to_frame()


def plans(pair, suites, tmp):
    orders = ("path", "one_gradient", "learned_mask", "relearn")
    both = []
    for suite, sign in zip(suites, (-1, 1), strict=True):  # gold is what alignment made less likely, or (harm) likelier
        scores = [score_suite(loaded, suite).logp for _, loaded in pair.models()]
        golds = np.nanargmax(sign * (scores[1] - scores[0]), axis=1)
        items = [dataclasses.replace(item, gold=int(g)) for item, g in zip(suite.items, golds, strict=True)]
        both.append(dataclasses.replace(suite, items=tuple(items)))
    asked = {"unit": "component", "shares": (0.3,), "orders": orders, "draws": 2, "max_gradients": 3, "bootstrap": 50}
    return frontier(pair, both, benefit="harm", leave_out=False, **asked).to_frame()


def vocabulary(pair, suites, tmp):
    return Vocabulary.of_model(pair.base).matrix


STAGES = {
    "tax": tax, "capture last": captured("last"), "capture all": captured("all"), "capture mean": captured("mean"),
    "attribute": path("component", "head", "singular"), "attribute neurons, kl": path("neuron", metrics=("nll", "kl")),
    "attribute recomputed": path("component", recompute=True), "one gradient": one_gradient,
    "first order": first_order, "screen": screened, "relearn": relearned, "diagnose": diagnosed,
    "restoration": restored, "graft": grafted, "patch": patched, "mixture": triples_undone, "direction": ablated,
    "generate": answers, "divergence": divergence, "versatility": versatility, "prior": prior, "naming": vocabulary, "frontier": plans,
}  # fmt: skip


@pytest.fixture(scope="module")
def expected(plain_pair, suites, tmp_path_factory):
    """expected(stage) -> what the stage gives on the CPU, run once."""
    found = {}

    def of(stage):
        if stage not in found:
            found[stage] = STAGES[stage](plain_pair, suites, tmp_path_factory.mktemp("cpu"))
        return found[stage]

    return of


def alike(got, want) -> None:
    if isinstance(want, pd.DataFrame):
        numbers = [c for c in want.columns if pd.api.types.is_float_dtype(want[c]) and c != "seconds"]
        others = [c for c in want.columns if c not in numbers and c != "seconds"]
        assert got[others].equals(want[others])
        np.testing.assert_allclose(got[numbers].to_numpy(), want[numbers].to_numpy(), rtol=1e-4, atol=1e-5)
    elif isinstance(want, list) and want and isinstance(want[0], str):
        assert got == want
    else:
        for one, other in zip(got, want, strict=True):
            np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("count", [1, 2])
@pytest.mark.parametrize("stage", list(STAGES))
def test_stage_on_devices_gives_the_numbers_of_the_cpu(plain_pair, suites, tmp_path, expected, stage, count):
    want = expected(stage)
    with devices(count):
        got = STAGES[stage](spread(plain_pair, count), suites, tmp_path)
    alike(got, want)


@pytest.mark.parametrize("stage", ["tax", "attribute", "screen", "restoration", "patch", "graft"])
def test_models_that_lie_over_the_devices_in_two_ways_give_the_same_numbers(
    plain_pair, suites, tmp_path, expected, stage
):
    want = expected(stage)
    with devices(2):
        got = STAGES[stage](spread(plain_pair, 2, shift=1), suites, tmp_path)
    alike(got, want)
