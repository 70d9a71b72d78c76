"""Latents, error, excluded tokens and the components above sum to the tax, whatever the dictionary."""

from __future__ import annotations

import copy
import dataclasses

import numpy as np
import pytest
import torch

from taxlens.activations.hooks.sites import Address
from taxlens.activations.items.items import Suite
from taxlens.activations.models.anatomy import anatomy
from taxlens.activations.models.loading import LoadedModel
from taxlens.activations.models.pair import make_pair
from taxlens.analysis.features.change_codes import least_squares, span_of
from taxlens.analysis.features.dictionaries.dictionary import Dictionary
from taxlens.analysis.features.latent_effects import LatentReader
from taxlens.analysis.features.stream_tap import StreamTap, differentiation, rates
from taxlens.analysis.path.attribute import attribute
from taxlens.analysis.path.quadrature import gauss_patterson, panelled
from taxlens.core.errors import UsageError

METRICS = ("probability", "nll")


def random_dictionary(d: int, width: int, kind: str, *, role: str = "sae", seed: int = 0) -> Dictionary:
    generator = torch.Generator().manual_seed(seed)
    models = 2 if role == "crosscoder" else 1
    decoder = torch.randn(models, width, d, generator=generator, dtype=torch.float64)
    decoder /= decoder.norm(dim=2, keepdim=True)
    more = {"topk": {"k": 6}, "relu": {}}.get(kind, {"threshold": torch.full((width,), 0.4, dtype=torch.float64)})
    zero = torch.zeros(width, dtype=torch.float64), torch.zeros(models, d, dtype=torch.float64)
    return Dictionary(decoder.transpose(1, 2), decoder, *zero, kind=kind, role=role, site="resid_post", layer=0, **more)


def accounted(pair, suite: Suite, dictionary: Dictionary, reading: str, **options):
    reader = LatentReader(dictionary, reading, {m: m for m in METRICS})
    tap = StreamTap(anatomy(pair.base.model), Address(dictionary.site, dictionary.layer), reader.take)
    found = attribute(pair, suite, metrics=METRICS, tap=tap, perplexity=False, **options)
    return found.suites[suite.name], reader.found[suite.name]


@pytest.fixture(scope="module")
def double_pair(fake_pair, make_model):
    """The random pair in double precision, its second model a short way from the first."""
    base, other = make_model("llama", 0).double(), make_model("llama", 1).double()
    with torch.no_grad():
        for mine, theirs in zip(other.parameters(), base.parameters()):
            mine.copy_(theirs + 0.05 * (mine - theirs))
    tokenizer, chat = fake_pair.base.tokenizer, fake_pair.base.chat_template
    loaded = [
        LoadedModel(m, tokenizer, n, n, chat, torch.device("cpu"), "float64") for m, n in ((base, "b"), (other, "a"))
    ]
    return make_pair(*loaded)


@pytest.mark.parametrize("kind", ["relu", "jumprelu", "topk", "batchtopk"])
@pytest.mark.parametrize("reading", ["least_squares", "encoder"])
def test_account_sums_to_the_tax_for_every_encoder(double_pair, word_suite, kind, reading):
    suite = word_suite.subset(range(4))
    effects, items = accounted(double_pair, suite, random_dictionary(32, 64, kind), reading, max_gradients=7)
    layers, kinds = effects.layers["component"], np.array(effects.kinds["component"])
    above = (layers > 0) | (kinds == "unembed") | ((layers < 0) & (kinds == "norm"))
    for number, metric in enumerate(METRICS):
        parts = sum(one.values[number].sum() + one.error[number] + one.excluded[number] for one in items.values())
        rest = effects.taxes[metric].sum() - parts - effects.values[metric, "component"][:, above].sum()
        assert abs(rest) < 0.01 * np.abs(effects.taxes[metric]).sum()


def test_account_is_exact_to_rounding_where_the_stream_bends_as_a_polynomial(double_pair, word_suite):
    """Only a block's last matrix moves, so that the stream there is linear in t: what crosses equals what is below."""
    suite = word_suite.subset(range(3))
    moved = copy.deepcopy(double_pair.base.model)
    theirs = dict(double_pair.aligned.model.named_parameters())["model.layers.0.mlp.down_proj.weight"]
    with torch.no_grad():
        moved.model.layers[0].mlp.down_proj.weight.copy_(theirs)
    pair = make_pair(double_pair.base, dataclasses.replace(double_pair.aligned, model=moved))
    for reading in ("least_squares", "encoder"):
        effects, items = accounted(pair, suite, random_dictionary(32, 64, "jumprelu"), reading, max_gradients=7)
        for number, metric in enumerate(METRICS):
            parts = [one.values[number].sum() + one.error[number] + one.excluded[number] for one in items.values()]
            below = effects.values[metric, "component"].sum(axis=1)
            assert np.abs(np.array(parts) - below).max() < 1e-10


def test_rereading_with_a_tap_changes_no_effect_of_the_weights(double_pair, word_suite):
    suite = word_suite.subset(range(3))
    effects, _ = accounted(double_pair, suite, random_dictionary(32, 64, "relu"), "least_squares", max_gradients=7)
    alone = attribute(double_pair, suite, metrics=METRICS, perplexity=False, max_gradients=7).suites[suite.name]
    assert np.array_equal(effects.values["nll", "component"], alone.values["nll", "component"])


def test_rates_of_a_polynomial_are_its_derivative_and_of_a_kink_are_not():
    rule = panelled(3, [0.0, 0.5, 1.0])
    times = sorted({0.0, 0.5, 1.0, *map(float, rule.nodes)})
    curve = {t: torch.tensor([[t**3]], dtype=torch.float64) for t in times}
    kink = {t: torch.tensor([[abs(t - 0.3)]], dtype=torch.float64) for t in times}
    assert np.abs(rates(rule, curve)[:, 0, 0].numpy() - 3 * rule.nodes**2).max() < 1e-12
    assert np.abs(rates(rule, kink)[:, 0, 0].numpy() - np.sign(rule.nodes - 0.3)).max() > 0.05


def test_rates_bridge_a_jump_whole():
    """The weights of a rule times the rates of a step are the step: what jumps between nodes is not lost."""
    rule = gauss_patterson(7)
    times = [0.0, *map(float, rule.nodes), 1.0]
    step = {t: torch.tensor([[float(t > 0.6)]], dtype=torch.float64) for t in times}
    assert abs(rule.weights() @ rates(rule, step)[:, 0, 0].numpy() - 1.0) < 1e-12


def test_differentiation_of_a_constant_is_zero():
    matrix = differentiation(np.array([0.0, 0.2, 0.7, 1.0]))
    assert np.abs(matrix.sum(axis=1)).max() < 1e-12


def test_least_squares_codes_find_the_latents_that_made_a_change():
    dictionary = random_dictionary(32, 40, "relu")
    base = torch.zeros(5, 32, dtype=torch.float64)
    wanted = torch.zeros(5, 40, dtype=torch.float64)
    wanted[:, [3, 7]] = torch.tensor([2.0, 1.0], dtype=torch.float64)
    moved = wanted @ dictionary.decoder[0]
    span = span_of(dictionary, base, moved)
    codes = least_squares(span, moved)
    found = torch.zeros(5, 41, dtype=torch.float64).scatter_add(1, span.latents, codes)[:, :40]
    assert (found @ dictionary.decoder[0] - moved).abs().max() < 1e-3
    assert found[:, [3, 7]].min() > 0.3


def test_a_site_that_is_not_the_whole_stream_is_refused(double_pair):
    with pytest.raises(UsageError, match="whole stream"):
        StreamTap(anatomy(double_pair.base.model), Address("mlp_out", 0), lambda *_: None)
