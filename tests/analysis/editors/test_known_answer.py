"""Every editor on an update of two parts whose roles are known: one taxes, the other refuses harm."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from taxlens.activations.items.items import Item, Suite
from taxlens.activations.models.loading import LoadedModel
from taxlens.activations.models.pair import make_pair
from taxlens.activations.models.prompts import one_prompting
from taxlens.analysis.editors.kinds.kernel_editors import kernels_at, leading
from taxlens.analysis.editors.kinds.optimise import Schedule
from taxlens.analysis.editors.kinds.parzen_search import ParzenSearch, fronts, ranked
from taxlens.analysis.editors.kinds.repair import RECIPES
from taxlens.analysis.editors.objective import Validator
from taxlens.analysis.editors.registry import EDITORS
from taxlens.analysis.editors.task import edit_task

REFUSE, OTHER = "w39", "w33"
ENDS = {"facts": "w30", "harmless": "w31", "harm": "w32"}
TAXES, REFUSES = "0.mlp.down.s0", "1.mlp.down.s0"


def _suite(name: str) -> Suite:
    gold = 1 if name == "harm" else 0
    items = [
        Item(f"{name}/{i}", f"{name}{i // 2}", f"w{i} {ENDS[name]}", choices=(f" {OTHER}", f" {REFUSE}"), gold=gold)
        for i in range(24)
    ]
    return Suite(name, tuple(items), kind="benefit" if name == "harm" else "capability")


@pytest.fixture(scope="module")
def planted(make_model, word_tokenizer):
    """Layer 0's down projection makes the taxed prompts refuse, layer 1's the harmful ones: two singular triples."""
    base, aligned = make_model("llama", 5), make_model("llama", 5)
    suites = [_suite(name) for name in ENDS]

    def loaded(model, name: str) -> LoadedModel:
        return LoadedModel(model, word_tokenizer, name, name, None, torch.device("cpu"), "float32")

    plain = make_pair(loaded(base, "base"), loaded(base, "base"))
    head = base.lm_head.weight
    write = head[word_tokenizer.convert_tokens_to_ids(REFUSE)] - head.mean(0)
    for layer, reads in ((0, "facts"), (1, "harm")):
        seen = {name: _inputs(aligned, plain, suite, layer) for name, suite in zip(ENDS, suites)}
        x = torch.cat(list(seen.values())).double()
        wanted = torch.cat([torch.full((len(rows),), float(name == reads)) for name, rows in seen.items()]).double()
        read = torch.linalg.solve(x.T @ x + 1e-3 * torch.eye(x.shape[1]), x.T @ wanted).float()
        with torch.no_grad():
            aligned.model.layers[layer].mlp.down_proj.weight += 12 * write[:, None] / write.norm() * read
    pair = make_pair(loaded(base, "base"), loaded(aligned, "aligned"))
    return edit_task(pair, suites, taxed=["facts"], harm="harm", harmless="harmless", search=30)


def _inputs(model, pair, suite: Suite, layer: int) -> torch.Tensor:
    """What the down projection reads at the end of every prompt."""
    rows = one_prompting(pair, suite, "plain").prompt_rows(
        Suite(suite.name, tuple(replace(i, choices=(), gold=None) for i in suite.items))
    )
    found = []
    handle = model.model.layers[layer].mlp.down_proj.register_forward_pre_hook(
        lambda _m, inputs: found.append(inputs[0][0, -1])
    )
    with torch.no_grad():
        for row in rows:
            model(input_ids=torch.tensor([row.ids]))
    handle.remove()
    return torch.stack(found)


def _edits(task, name: str, tries: int = 1, **options):
    return list(EDITORS[name].propose(task, tries=tries, **options))


def test_the_plant_taxes_and_refuses(planted):
    whole = Validator(planted)
    assert whole(planted.pair.aligned.model).harm_kept == pytest.approx(1)
    lost = {s: float((whole.base[s]["probability"] - whole.aligned[s]["probability"]).mean()) for s in ENDS}
    assert lost["facts"] > 0.15
    assert abs(lost["harmless"]) < 0.1


SHORT = Schedule(stages=((20, 2.0),), rate=0.1, every=5)


@pytest.mark.parametrize("name", ["joint", "path", "one_gradient", "mask", "per_layer", "localize"])
def test_an_editor_of_units_undoes_what_taxes_and_keeps_what_refuses(planted, name):
    options = {"schedule": SHORT} if name in ("joint", "mask", "per_layer") else {}
    undo = _edits(planted, name, **options)[0].undo
    assert undo.get(TAXES, 0) > 0.7, undo
    assert undo.get(REFUSES, 0) < 0.3, undo


@pytest.mark.parametrize("name", ["hma", "hma_layers"])
def test_averages_on_alignment_data_spare_the_layer_that_refuses(planted, name):
    undo = _edits(planted, name)[0].undo
    assert undo[TAXES] > undo[REFUSES] + 0.1
    assert undo[TAXES] + undo[REFUSES] == pytest.approx(0.4)


def _quick(name: str):
    """The recipe with the steps that a model this small and this sharp needs."""
    return replace(RECIPES[name], rate=0.02)


def _seen(task, edit):
    validator = Validator(task)  # both ends are read before the edit
    with edit.opened() as model:
        return validator(model)


@pytest.mark.parametrize("name", ["repair", "contrast", "replay", "relearn_kl"])
def test_an_adapter_with_a_term_for_harm_returns_the_tax_and_keeps_harm(planted, name):
    found = _seen(planted, _edits(planted, name, recipe=_quick(name))[0])
    assert found.returned > 0.5, found
    assert found.harm_kept > 0.6, found


def test_relearning_returns_more_than_unrelated_text_and_a_base_taught_refusals_has_no_tax(planted):
    names = ("relearn", "relearn_unrelated", "realign_10")
    found = {name: _seen(planted, _edits(planted, name, recipe=_quick(name))[0]) for name in names}
    assert found["relearn"].returned > found["relearn_unrelated"].returned + 0.2, found
    assert found["realign_10"].returned > 0.8, found
    assert found["realign_10"].harm_kept > 0, found


def test_the_ranges_of_a_kernel_are_the_published_ones():
    low, index = kernels_at(np.zeros(10), 11)
    assert (low["o"].most, low["o"].centre, low["o"].least, low["o"].reach) == (0.8, 6.0, 0.0, 1.0)
    assert low["down"].most == 0
    assert index is None
    high, index = kernels_at(np.ones(10), 11)
    assert [high["o"].most, high["o"].centre, high["o"].least, high["o"].reach] == pytest.approx([1.5, 10, 1, 6])
    assert high["down"].most == pytest.approx(1.5)
    assert index == pytest.approx(9)


def test_the_leading_triples_of_a_large_matrix_are_those_of_its_decomposition():
    generator = torch.Generator().manual_seed(1)
    left, right = (torch.randn(n, 5, generator=generator) for n in (300, 280))
    matrix = left @ torch.diag(torch.tensor([9.0, 5.0, 3.0, 0.1, 0.01])) @ right.T
    u, s, vh = torch.linalg.svd(matrix, full_matrices=False)
    assert torch.allclose(leading(matrix, 3), (u[:, :3] * s[:3]) @ vh[:3], atol=1e-2)


def test_a_search_beats_random_draws_on_a_bowl_and_finds_the_right_switch():
    def cost(x):
        return float(((x[1:] - 0.3) ** 2).sum() + (x[0] < 0.5))

    found = []
    for startup in (20, 100):
        search = ParzenSearch(6, binary=(0,), startup=startup, rng=np.random.default_rng(0))
        for _ in range(100):
            x = search.ask()
            assert ((x >= 0) & (x <= 1)).all()
            search.tell(x, (cost(x),))
        found.append((cost(search.asked[search.best()[0]]), search))
    assert found[0][0] < 0.5 * found[1][0]
    assert np.mean([x[0] > 0.5 for x in found[0][1].asked[-30:]]) > 0.6


def test_fronts_hold_the_trials_that_none_beats():
    costs = np.array([[0.0, 3.0], [1.0, 1.0], [3.0, 0.0], [2.0, 2.0], [3.0, 3.0]])
    assert fronts(costs).tolist() == [0, 0, 0, 1, 2]
    assert set(ranked(costs)[:2]) == {0, 2}
    assert ranked(costs)[3:].tolist() == [3, 4]
