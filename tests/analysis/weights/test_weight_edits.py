"""A pair whose weights were edited in place has another difference; what puts its edits back has not."""

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from taxlens.activations.models.anatomy import anatomy
from taxlens.analysis.editors.edit import added
from taxlens.analysis.weights.interpolation import mixture
from taxlens.analysis.weights.path_weights import walk
from taxlens.analysis.weights.units import Difference, difference_of
from taxlens.analysis.weights.weight_edits import generation

PLACE = "model.layers.1.mlp.down_proj"


class Loaded:
    def __init__(self, model):
        self.model = model.eval().requires_grad_(False)
        self.anatomy = anatomy(model)
        self.dtype = torch.float32


class Pair:
    def __init__(self):
        torch.manual_seed(0)
        sizes = {"vocab_size": 23, "hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2}
        config = LlamaConfig(**sizes, num_attention_heads=4, num_key_value_heads=2, attn_implementation="eager")
        base, aligned = LlamaForCausalLM(config), LlamaForCausalLM(config)
        aligned.load_state_dict(base.state_dict())
        with torch.no_grad():
            for name, p in aligned.named_parameters():
                if "layers.0" in name and p.ndim == 2:
                    p.add_(0.1 * torch.randn_like(p))
        self.base, self.aligned = Loaded(base), Loaded(aligned)


@pytest.fixture
def pair():
    return Pair()


def edited(pair, which="aligned"):
    with torch.no_grad():
        getattr(pair, which).model.get_submodule(PLACE).weight.add_(0.5 * torch.randn(16, 24))


@pytest.mark.parametrize("which", ["base", "aligned"])
def test_an_edit_in_place_makes_another_difference(pair, which):
    before = difference_of(pair)
    assert not before.differs(PLACE, "weight")
    assert not any("1.mlp.down" in name for name in before.units("singular"))
    edited(pair, which)
    after = difference_of(pair)
    assert after.differs(PLACE, "weight")
    assert after.units("singular").keys() == Difference(pair).units("singular").keys()
    assert sum("1.mlp.down" in name for name in after.units("singular")) == 16
    assert difference_of(pair) is after


def test_a_new_tensor_in_a_parameters_place_is_seen_too(pair):
    before = difference_of(pair)
    pair.aligned.model.get_submodule(PLACE).weight = torch.nn.Parameter(torch.ones(16, 24), requires_grad=False)
    assert difference_of(pair) is not before


def test_an_update_by_an_optimiser_is_seen(pair):
    before, weight = difference_of(pair), pair.aligned.model.get_submodule(PLACE).weight.requires_grad_()
    weight.grad = torch.ones_like(weight)
    torch.optim.SGD([weight], lr=0.1).step()
    assert difference_of(pair) is not before


def test_reading_and_what_puts_its_edits_back_keep_the_difference(pair):
    before = difference_of(pair)
    pair.aligned.model(input_ids=torch.tensor([[1, 2, 3]]), use_cache=False)
    with mixture(pair, {"0.mlp": 0.5}):
        assert difference_of(pair) is before
    assert difference_of(pair) is before
    weight = f"{PLACE}.weight"
    with added(pair.aligned.model, {weight: torch.ones(16, 24)}), walk(pair) as path:
        path.to(0.3)
        assert difference_of(pair) is before
    assert difference_of(pair) is before


def test_an_edit_before_a_block_that_puts_its_own_back_is_still_seen(pair):
    before, number = difference_of(pair), generation(pair.aligned.model)
    edited(pair)
    with added(pair.aligned.model, {f"{PLACE}.weight": torch.ones(16, 24)}):
        assert generation(pair.aligned.model) == number + 1
    assert difference_of(pair) is not before
