import dataclasses

import pytest
import torch

from taxlens.activations.hooks import selfcheck
from taxlens.activations.hooks.hooks import reading, replacing, run_backbone, run_logits
from taxlens.activations.hooks.selfcheck import self_check
from taxlens.activations.hooks.site_registry import SITES
from taxlens.activations.hooks.sites import Address, addresses
from taxlens.activations.items.batches import pad
from taxlens.activations.items.tokens import Row
from taxlens.activations.models.anatomy import anatomy
from taxlens.activations.models.loading import LoadedModel
from taxlens.core.errors import SelfCheckError

LAYOUTS = ["llama", "mistral", "qwen2", "qwen3", "gemma2", "gemma3_text", "phi3", "olmo2", "gpt_neox", "gpt2"]
FUSED = ("phi3", "gpt_neox", "gpt2")


def rows_of(*lengths: int) -> list[Row]:
    generator = torch.Generator().manual_seed(0)
    return [
        Row(
            item=n, choice=-1, ids=tuple(torch.randint(7, 57, (k,), generator=generator).tolist()), start=k, kind="text"
        )
        for n, k in enumerate(lengths)
    ]


@pytest.fixture(scope="module")
def load(make_model, make_tokenizer):
    def make(layout: str) -> LoadedModel:
        return LoadedModel(make_model(layout), make_tokenizer(), layout, "0" * 64, None, torch.device("cpu"), "float32")

    return make


def sites_of(loaded: LoadedModel) -> tuple[str, ...]:
    return tuple(site for site in SITES if not (loaded.anatomy.parallel and site == "resid_mid"))


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_site_of_every_family_passes_the_self_check(load, layout):
    loaded = load(layout)
    sites = sites_of(loaded)
    checks = self_check(loaded, rows_of(4, 9, 20), addresses(sites, range(2)))
    assert {(c.site, c.check) for c in checks} == {
        (s, k) for s in sites for k in ("noop", "padding", "bridge", "zeroing")
    }
    assert all(check.value == 0 for check in checks if check.check == "noop")
    bridge = [check for check in checks if check.check == "bridge"]
    if layout in FUSED:  # the bridge multiplies the halves of a fused matrix one by one: equal up to rounding
        assert all(check.value <= check.limit for check in bridge)
    else:
        assert [check.value for check in bridge] == [0.0] * len(sites)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_sites_obey_the_residual_arithmetic(load, layout):
    loaded = load(layout)
    found: dict[Address, torch.Tensor] = {}
    asked = addresses(sites_of(loaded), range(2))
    with reading(loaded.model, loaded.anatomy, asked, lambda address, x: found.update({address: x.clone()})):
        run_backbone(loaded.anatomy, *pad(rows_of(7), 0))
    for layer in range(2):
        pre, post = found[Address("resid_pre", layer)], found[Address("resid_post", layer)]
        attn, mlp = found[Address("attn_out", layer)], found[Address("mlp_out", layer)]
        torch.testing.assert_close(pre + attn + mlp, post, rtol=1e-5, atol=1e-5)
        if not loaded.anatomy.parallel:
            torch.testing.assert_close(pre + attn, found[Address("resid_mid", layer)], rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(found[Address("resid_post", 0)], found[Address("resid_pre", 1)])
    assert found[Address("head_z", 0)].shape == (1, 7, loaded.anatomy.n_heads, loaded.anatomy.d_head)
    assert found[Address("mlp_post", 0)].shape == (1, 7, loaded.anatomy.d_mlp)


def test_resid_post_of_the_last_block_is_not_the_last_hidden_state(load):
    loaded = load("llama")
    found = {}
    with reading(loaded.model, loaded.anatomy, [Address("resid_post", 1)], lambda a, x: found.update({a: x.clone()})):
        last = run_backbone(loaded.anatomy, *pad(rows_of(7), 0))
    assert last is not None
    post = found[Address("resid_post", 1)]
    assert not torch.allclose(post, last)
    torch.testing.assert_close(loaded.anatomy.backbone.norm(post), last)


def test_hooks_are_gone_after_the_block_even_when_it_fails(load):
    loaded = load("llama")
    before = run_logits(loaded.model, *pad(rows_of(5), 0))
    with pytest.raises(KeyError), replacing(loaded.model, loaded.anatomy, Address("mlp_out", 0), torch.zeros_like):
        raise KeyError
    assert torch.equal(run_logits(loaded.model, *pad(rows_of(5), 0)), before)


def test_ignored_position_ids_are_found_by_the_padding_check(load, monkeypatch):
    loaded = load("gpt2")
    true = selfcheck.run_logits

    def wrong(model, ids, mask, positions):
        return true(model, ids, mask, torch.arange(ids.shape[1]).expand_as(ids))

    monkeypatch.setattr(selfcheck, "run_logits", wrong)
    with pytest.raises(SelfCheckError, match="base resid_post  padding"):
        self_check(loaded, rows_of(4, 9), [Address("resid_post", 1)])


@pytest.mark.parametrize(("size", "found"), [(1e-3, True), (1e-6, False)])
def test_a_padded_batch_may_differ_from_single_rows_by_rounding_and_no_more(load, monkeypatch, size, found):
    loaded, true = load("gpt2"), selfcheck._read

    def wrong(model, batch, asked):
        kept, logits = true(model, batch, asked)
        return {a: x * (1 + size) if len(batch[0]) > 1 else x for a, x in kept.items()}, logits

    monkeypatch.setattr(selfcheck, "_read", wrong)
    checks = selfcheck._padding(
        loaded, rows_of(4, 9), [Address("resid_post", 1)],
        wrong(loaded, selfcheck._inputs(loaded, rows_of(4, 9)), [Address("resid_post", 1)])[0], "base",
    )  # fmt: skip
    assert [check.passed for check in checks] == [not found]


def test_hook_that_changes_the_model_is_found_by_the_noop_check(load, monkeypatch):
    loaded = load("llama")
    true = selfcheck.reading

    def wrong(model, parts, asked, read):
        def spoil(address, x):
            read(address, x)
            x.mul_(1.5)

        return true(model, parts, asked, spoil)

    monkeypatch.setattr(selfcheck, "reading", wrong)
    with pytest.raises(SelfCheckError, match="noop") as found:
        self_check(loaded, rows_of(4, 9), [Address("resid_post", 0)])
    assert found.value.exit_code == 3


def test_site_read_in_the_wrong_place_is_found_by_the_bridge_check(load, monkeypatch):
    loaded = load("gemma2")
    monkeypatch.setattr(selfcheck, "bridge_name", lambda address: f"blocks.{address.layer}.attn.hook_out")
    with pytest.raises(SelfCheckError, match="bridge"):
        self_check(loaded, rows_of(4, 9), [Address("attn_out", 0)])


def test_dead_site_is_found_by_the_zeroing_check(load, monkeypatch):
    loaded = load("llama")
    monkeypatch.setattr(selfcheck, "replacing", lambda *_: __import__("contextlib").nullcontext())
    with pytest.raises(SelfCheckError, match="zeroing"):
        self_check(loaded, rows_of(4, 9), [Address("resid_post", 0)])


def test_bridge_shares_the_weights_and_leaves_the_model_alone(load):
    loaded = load("llama")
    before = [name for name, _ in loaded.model.named_modules()]
    bridge = loaded.bridge()
    assert loaded.bridge() is bridge
    assert [name for name, _ in loaded.model.named_modules()] == before
    mine = {p.data_ptr() for p in loaded.model.parameters()}
    assert mine <= {p.data_ptr() for p in bridge.original_model.parameters()}


def test_anatomy_names_every_weight_once(load):
    for layout in LAYOUTS:
        parts = load(layout).anatomy
        assert len({module.name for module in parts.modules}) == len(parts.modules)
        assert parts.n_layers == 2
        assert parts.n_heads == 4
        assert parts.parallel is (layout == "gpt_neox")


def test_model_with_unnamed_weights_is_refused(make_model):
    from taxlens.core.errors import ModelLoadError

    model = make_model("llama", seed=9)
    model.model.layers[0].extra = torch.nn.Linear(2, 2)
    with pytest.raises(ModelLoadError, match=r"model\.layers\.0\.extra"):
        anatomy(model)


def test_low_precision_models_pass_with_their_own_rounding(load):
    loaded = load("llama")
    half = dataclasses.replace(loaded, model=__import__("copy").deepcopy(loaded.model).bfloat16(), dtype="bfloat16")
    assert all(c.passed for c in self_check(half, rows_of(4, 9), [Address("resid_post", 1)]))
