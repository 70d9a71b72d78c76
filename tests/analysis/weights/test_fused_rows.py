"""Which rows of a fused module are queries, keys and values: scaling keys up and queries down leaves a model as it was."""

from types import SimpleNamespace

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM

from taxlens.activations.models.anatomy import anatomy
from taxlens.analysis.weights.units import _fused_rows

SIZES = {"vocab_size": 23, "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 4}
LAYOUTS = {
    "gpt_neox": SIZES | {"intermediate_size": 24},
    "gpt2": {"vocab_size": 23, "n_embd": 16, "n_layer": 1, "n_head": 4, "n_positions": 16},
    "phi3": SIZES | {"intermediate_size": 24, "num_key_value_heads": 2, "pad_token_id": 0},
    "falcon": SIZES | {"new_decoder_architecture": True, "num_kv_heads": 2, "alibi": False},
}


@pytest.mark.parametrize("scaled", [("q", "k"), ("q", "v"), ("k", "v")])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_keys_times_two_and_queries_by_half_leave_the_model_and_other_pairs_do_not(layout, scaled):
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(
        AutoConfig.for_model(layout, **LAYOUTS[layout]), attn_implementation="eager"
    ).eval()
    parts = anatomy(model)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(0, 0.4)
    ids = torch.tensor([[3, 7, 1, 12, 5]])
    role = next(one for one in parts.modules if one.role == "qkv")
    module = model.get_submodule(role.name)
    difference = SimpleNamespace(anatomy=parts)
    rows = dict(_fused_rows(difference, parts.n_heads, parts.n_kv_heads, parts.d_head))
    assert sorted(int(r) for block in rows.values() for rs in block for r in rs) == list(
        range((parts.n_heads + 2 * parts.n_kv_heads) * parts.d_head)
    )
    with torch.no_grad():
        before = model(ids).logits
        for kind, factor in zip(scaled, (0.5, 2.0), strict=True):
            index = torch.tensor([int(r) for block in rows[kind] for r in block])
            for parameter in module.parameters():
                (parameter if parameter.ndim == 1 or layout != "gpt2" else parameter.T)[index] *= factor
        after = model(ids).logits
    assert torch.allclose(before, after, atol=1e-4) == (scaled == ("q", "k"))
