"""Directions of the stream: what is spared, what is taken out, and that hooks and weights agree."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from taxlens.analysis.editors.kinds.activation_editors import write_projection
from taxlens.analysis.editors.kinds.kernel_editors import Kernel, between, kernel_deltas
from taxlens.analysis.editors.kinds.refusal_directions import (
    RefusalScore,
    choose,
    direction_edit,
    direction_hooks_edit,
    first_log_probabilities,
    mean_states,
    projected,
    prompt_rows,
    spared,
)
from taxlens.analysis.editors.registry import editor_named
from tests.kept_weights import same_weights, untouched

IDS = torch.tensor([[1, 9, 12, 30, 8], [1, 20, 21, 22, 23]])


@pytest.fixture(scope="module")
def states(task):
    return mean_states(task)


def test_a_full_dial_leaves_the_vector_orthogonal_to_refusing_harm_and_none_leaves_it_whole():
    rng = np.random.default_rng(0)
    w, r = rng.normal(size=(2, 3, 16)), rng.normal(size=(2, 3, 16))
    assert np.abs((spared(w, r, 1.0) * r).sum(-1)).max() < 1e-12
    assert np.array_equal(spared(w, r, 0.0), w)
    half = (spared(w, r, 0.5) * r).sum(-1)
    assert half == pytest.approx(0.5 * (w * r).sum(-1))


def test_a_matrix_without_a_direction_writes_nothing_along_it(task):
    pair = task.pair
    vector = np.random.default_rng(1).normal(size=32)
    unit = torch.tensor(vector / np.linalg.norm(vector), dtype=torch.float32)
    names = ["model.layers.0.self_attn.o_proj", "model.layers.1.mlp.down_proj", "model.embed_tokens"]
    for strength, left in ((1.0, 0.0), (0.5, 0.5)):
        deltas = projected(pair, dict.fromkeys(names, vector), dict.fromkeys(names, strength))
        for name in names:
            weight = pair.aligned.model.get_submodule(name).weight
            edited = weight + deltas[f"{name}.weight"]
            along = edited @ unit if "embed" in name else unit @ edited
            before = weight @ unit if "embed" in name else unit @ weight
            assert torch.allclose(along, left * before, atol=1e-5)
        assert int(torch.linalg.matrix_rank(deltas[f"{names[0]}.weight"])) == 1


def test_hooks_and_weights_are_the_same_edit_on_an_untied_model(task):
    assert not task.pair.aligned.anatomy.tied
    vector = np.random.default_rng(2).normal(size=32)
    kept = untouched(task.pair.aligned.model)
    tensors = {"vector": torch.tensor(vector), "strength": torch.tensor(1.0)}
    with direction_edit(task, "ablate", "", vector).opened() as model:
        weights = model(input_ids=IDS).logits
    with direction_hooks_edit(task.pair, "ablate", "", tensors).opened() as model:
        hooks = model(input_ids=IDS).logits
    assert torch.allclose(weights, hooks, atol=1e-3)
    assert not torch.allclose(weights, task.pair.aligned.model(input_ids=IDS).logits, atol=1e-2)
    assert same_weights(task.pair.aligned.model, kept)


def test_the_score_tells_refused_prompts_from_others(task):
    score, model = RefusalScore(task), task.pair.aligned.model
    harm, fine = (
        score(first_log_probabilities(model, prompt_rows(task, name, task.held))).mean()
        for name in (task.harm, task.harmless)
    )
    assert float(harm) > float(fine)


def test_the_refusal_direction_lowers_refusals_of_harm(task, states):
    means, positions = states
    found = choose(task, means.harm - means.harmless, positions, on="harm", most_divergence=1e9)
    score = RefusalScore(task)
    rows = prompt_rows(task, task.harm, task.held)
    before = score(first_log_probabilities(task.pair.aligned.model, rows)).mean()
    with direction_edit(task, "ablate", "", found.vector).opened() as model:
        after = score(first_log_probabilities(model, rows)).mean()
    assert float(after) < float(before)
    assert found.layer < 0.8 * 2


def test_a_kernel_is_strongest_at_its_centre_and_nothing_beyond_its_reach():
    kernel = Kernel(most=1.2, centre=10, least=0.25, reach=4)
    assert [kernel.weight(layer) for layer in (10, 14, 15, 12)] == pytest.approx([1.2, 0.3, 0, 0.75])


def test_an_edit_by_a_kernel_keeps_the_norms_of_rows_nearly_and_has_rank_three(task):
    units = np.linalg.qr(np.random.default_rng(3).normal(size=(32, 2)))[0].T
    kernels = {"o": Kernel(1.0, 0, 1.0, 9), "down": Kernel(0.0, 0, 1.0, 9)}
    deltas = kernel_deltas(task.pair, units, kernels, None)
    assert set(deltas) == {f"model.layers.{layer}.self_attn.o_proj.weight" for layer in (0, 1)}
    for name, delta in deltas.items():
        weight = dict(task.pair.aligned.model.named_parameters())[name]
        assert int(torch.linalg.matrix_rank(delta, rtol=1e-4)) <= 3
        change = ((weight + delta).norm(dim=1) / weight.norm(dim=1) - 1).abs()
        assert float(change.mean()) < 0.1


def test_neighbouring_directions_are_mixed_to_unit_length():
    units = np.eye(3)
    assert between(units, 1.0) == pytest.approx([0, 1, 0])
    assert between(units, 0.5) == pytest.approx(np.array([1, 1, 0]) / np.sqrt(2))


def test_only_what_the_update_writes_is_projected(task):
    edit = next(write_projection(task, tries=1))
    base = dict(task.pair.base.model.named_parameters())
    with edit.opened() as model:
        moved = [n for n, p in model.named_parameters() if not torch.allclose(p, base[n], atol=1e-6)]
    assert all(n in moved for n in moved)
    assert all("o_proj" in n or "down_proj" in n or "q_proj" in n or "v_proj" in n or "up_proj" in n for n in moved)


def test_false_refusal_needs_refused_taxed_prompts(task):
    from dataclasses import replace

    swapped = {part: dict(getattr(task, part)) for part in ("train", "validation")}
    for suites in swapped.values():
        suites["facts"] = suites["harmless"]
    assert editor_named("false_refusal").needs(task) == ""
    assert "is refused" in editor_named("false_refusal").needs(replace(task, **swapped))


@pytest.mark.parametrize(("editor", "name"), [("heretic", "harm"), ("heretic_reaimed", "facts")])
def test_a_searched_kernel_lowers_the_refusals_that_it_aims_at(task, editor, name):
    few = replace(task, search=20)
    score, rows = RefusalScore(few), prompt_rows(few, name, few.validation)

    def refused() -> float:
        return float(score(first_log_probabilities(few.pair.aligned.model, rows)).mean())

    before, seen = refused(), []
    for edit in editor_named(editor).propose(few, tries=2):
        with edit.opened():
            seen.append(refused())
        assert edit.notes == ("20 trials, 6 of them at random, judged on validation prompts",)
    assert min(seen) < before
    assert refused() == before
