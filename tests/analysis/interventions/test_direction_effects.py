import copy

import numpy as np
import pytest
import torch

from taxlens.activations.hooks.paired_forward import replaced_output
from taxlens.activations.models.loading import LoadedModel
from taxlens.activations.models.pair import make_pair
from taxlens.analysis.interventions.ablation import direction_effects
from taxlens.analysis.scoring.choices import score_suite
from taxlens.core.direction import Direction
from taxlens.core.errors import UsageError

D = 32


def loaded_like(pair, model):
    known = pair.base
    return LoadedModel(
        model=model, tokenizer=known.tokenizer, source="changed", sha256="0" * 64,
        chat_template=known.chat_template, device=known.device, dtype=known.dtype,
    )  # fmt: skip


@pytest.fixture(scope="module")
def pair(refusal_pair):
    """The trained base, and the same with one direction of what the first block writes turned round."""
    base = refusal_pair.base
    v = written(base)[0]
    model = copy.deepcopy(base.model)
    with torch.no_grad():
        weight = model.get_submodule("model.layers.0.mlp.down_proj").weight
        weight -= 3 * torch.outer(v, v @ weight)
    return make_pair(base, loaded_like(refusal_pair, model)), v.double().numpy()


def direction(vector, layer=0):
    return Direction(np.asarray(vector), site="resid_post", layer=layer)


def effects(pair, directions, suite, **options):
    found = direction_effects(pair, directions, suite, centre=np.zeros(D), metrics=("nll",), **options)
    return {effect.intervention: effect for effect in found.effects}, found


def written(loaded):
    """Directions that the first block writes, strongest first, [d, d]."""
    return torch.linalg.svd(loaded.model.get_submodule("model.layers.0.mlp.down_proj").weight)[0].T


def by_item(loaded, suite):
    return score_suite(loaded, suite, share_prefix=False).metrics(("nll",))["nll"]


def nll(loaded, suite):
    return by_item(loaded, suite).mean()


def cost_of(loaded, v, suite):
    """Nats of each item that taking a unit direction out of the first block's stream costs."""
    with replaced_output(loaded.anatomy.blocks[0], lambda stream: stream - (stream @ v)[..., None] * v):
        without = by_item(loaded, suite)
    return without - by_item(loaded, suite)


def test_injecting_the_lost_direction_returns_the_whole_tax(pair, refusal_suites):
    both, v = pair
    facts = refusal_suites[0]
    tax = nll(both.aligned, facts) - nll(both.base, facts)
    found, _ = effects(both, [direction(v)], facts)
    assert tax > 0.1
    assert found["inject"].value == pytest.approx(-tax, rel=0.02)
    assert abs(found["inject"].random) < 0.3 * tax


def test_ablating_it_in_base_costs_more_than_random_directions(pair, refusal_suites):
    both, facts = pair[0], refusal_suites[0]

    def surely(v):
        lost = cost_of(both.base, v, facts)
        return lost.mean() - 2 * lost.std() / len(set(facts.groups)) ** 0.5

    unit = max(written(both.base), key=surely)
    found, _ = effects(both, [direction(unit.double().numpy())], facts)
    assert found["ablate"].value == pytest.approx(cost_of(both.base, unit, facts).mean(), rel=0.02)
    assert found["ablate"].low > 0
    assert found["ablate"].value > 2 * found["ablate"].random
    assert found["ablate"].random <= found["ablate"].random_extreme
    assert found["ablate"].low <= found["ablate"].value <= found["ablate"].high


def test_base_against_itself_gains_nothing_by_injection(pair, refusal_suites):
    both, v = pair
    same = make_pair(both.base, both.base)
    found, _ = effects(same, [direction(v)], refusal_suites[0], draws=1)
    assert found["inject"].value == pytest.approx(0, abs=1e-6)
    assert found["inject"].random == pytest.approx(0, abs=1e-6)


def test_models_are_as_before_afterwards(pair, refusal_suites):
    both, v = pair
    before = nll(both.base, refusal_suites[0]), nll(both.aligned, refusal_suites[0])
    _, found = effects(both, [direction(v), direction(np.eye(D)[3])], refusal_suites[0], draws=1)
    assert before == (nll(both.base, refusal_suites[0]), nll(both.aligned, refusal_suites[0]))
    assert found.rank == 2
    assert "inject nll" in repr(found)
    assert {"suite", "template", "intervention", "metric", "value", "random"} <= set(found.to_frame().columns)


def test_directions_that_do_not_fit_are_refused(pair, refusal_suites):
    both, v = pair
    for bad, text in (
        ([], "one address"),
        ([direction(v), direction(v, layer=1)], "one address"),
        ([Direction(v, site="mlp_out", layer=0)], "one address"),
        ([direction(v, layer=9)], "not of this model"),
        ([direction(np.ones(5))], "not of this model"),
    ):
        with pytest.raises(UsageError, match=text):
            effects(both, bad, refusal_suites[0])
