"""Leading triples of a change, what they leave over, and that the two together are the change."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from taxlens.analysis.path.attribute import attribute
from taxlens.analysis.weights.gradients import unit_slopes
from taxlens.analysis.weights.interpolation import mixture
from taxlens.analysis.weights.leading_triples import BlockedChange, leading_triples, low_rank_triples
from taxlens.analysis.weights.units import Difference, difference_of


def planted(values, out: int = 90, inside: int = 140, seed: int = 0) -> torch.Tensor:
    """A matrix [out, in] with these singular values."""
    generator = torch.Generator().manual_seed(seed)
    values = torch.as_tensor(values, dtype=torch.float64)
    u, v = (
        torch.linalg.qr(torch.randn(n, len(values), generator=generator, dtype=torch.float64)).Q for n in (out, inside)
    )
    return ((u * values) @ v.T).float()


def blocked(matrix: torch.Tensor, *, transposed: bool = False) -> BlockedChange:
    stored = (matrix.T if transposed else matrix).contiguous()
    base = torch.randn(stored.shape, generator=torch.Generator().manual_seed(9))
    return BlockedChange(base + stored, base, transposed)


@pytest.mark.parametrize("transposed", [False, True])
@pytest.mark.parametrize("block", [1 << 22, 1000])
def test_leading_triples_are_those_of_a_full_decomposition(monkeypatch, transposed, block):
    monkeypatch.setattr("taxlens.analysis.weights.leading_triples.BLOCK", block)
    matrix = planted(2.0 ** -np.arange(0, 8, 0.25))
    u, s, vh = leading_triples(blocked(matrix, transposed=transposed), share=0.99)
    wanted = torch.linalg.svdvals(matrix.double())
    energy = (wanted**2).cumsum(0) / (wanted**2).sum()
    assert len(s) == int((energy < 0.99).sum()) + 1  # the fewest that hold the share
    torch.testing.assert_close(s.double(), wanted[: len(s)], rtol=1e-3, atol=0)
    torch.testing.assert_close((u * s) @ vh, _best(matrix, len(s)), rtol=0, atol=2e-3)
    torch.testing.assert_close(u.T @ u, torch.eye(len(s)), rtol=0, atol=1e-5)


def _best(matrix: torch.Tensor, rank: int) -> torch.Tensor:
    u, s, vh = torch.linalg.svd(matrix, full_matrices=False)
    return (u[:, :rank] * s[:rank]) @ vh[:rank]


def test_a_flat_spectrum_is_cut_at_the_most_and_a_wider_sketch_is_drawn_where_one_does_not_do():
    flat = blocked(planted(np.ones(90)))
    assert len(leading_triples(flat, share=0.99, most=20)[1]) == 20
    found = leading_triples(flat, share=0.95, most=90)[1]
    assert len(found) == int(np.ceil(0.95 * 90))  # more than the 64 columns of the first sketch
    np.testing.assert_allclose(found, 1.0, rtol=1e-4)


def test_low_rank_is_seen_and_full_rank_is_not():
    assert len(low_rank_triples(blocked(planted([3.0, 2.0, 1.0])), noise=1e-3)[1]) == 22  # a quarter of 90
    assert low_rank_triples(blocked(planted(np.ones(90))), noise=1e-3) is None


@pytest.fixture
def cut_pair(fake_pair, word_tokenizer):
    """A pair whose weights keep four triples each, the rest as one unit."""
    from taxlens.activations.models.loading import LoadedModel
    from taxlens.activations.models.pair import make_pair

    def loaded(one, name):
        return LoadedModel(one.model, word_tokenizer, name, name, one.chat_template, torch.device("cpu"), "float32")

    pair = make_pair(loaded(fake_pair.base, "base"), loaded(fake_pair.aligned, "aligned"))
    vars(pair.aligned)["_difference"] = Difference(pair, most=4)
    return pair


def test_triples_and_their_rest_are_the_whole_change(cut_pair):
    difference = difference_of(cut_pair)
    names = list(difference.units("singular"))
    assert "0.mlp.up.s3" in names
    assert "0.mlp.up.rest" in names
    assert "0.mlp.up.s4" not in names
    energy = sum(difference.energy(f"0.mlp.up.{name}", level="singular") for name in ("s0", "s1", "s2", "s3", "rest"))
    whole = float((difference.change("model.layers.0.mlp.up_proj", "weight").double() ** 2).sum())
    assert energy == pytest.approx(whole, rel=1e-5)


def test_undoing_all_triples_and_rests_gives_the_base_to_1e6_and_without_the_rests_it_does_not(cut_pair):
    names = list(difference_of(cut_pair).units("singular"))
    base = cut_pair.base.model.get_submodule("model.layers.1.mlp.down_proj").weight
    with mixture(cut_pair, dict.fromkeys(names, 1.0), level="singular") as model:
        got = model.get_submodule("model.layers.1.mlp.down_proj").weight
        torch.testing.assert_close(got, base, rtol=0, atol=1e-6)
    ranked = [name for name in names if not name.endswith(".rest")]
    with mixture(cut_pair, dict.fromkeys(ranked, 1.0), level="singular") as model:
        got = model.get_submodule("model.layers.1.mlp.down_proj").weight
        assert not torch.allclose(got, base, rtol=0, atol=1e-2)


def test_effects_of_triples_and_rests_sum_to_the_components(cut_pair, word_suite):
    few = word_suite.subset(range(6))
    found = attribute(cut_pair, few, levels=("component", "singular"), metrics=("nll",), max_gradients=3, bootstrap=20)
    names, effects = found.effects("words", "nll", "singular")
    whole = dict(zip(*_means(found.effects("words", "nll"))))
    mine = dict(zip(names, effects.mean(axis=0), strict=True))
    for component in ("0.attn", "1.mlp"):
        parts = sum(value for name, value in mine.items() if name.startswith(f"{component}."))
        assert parts == pytest.approx(whole[component], abs=1e-6 * max(1, abs(whole[component])) + 1e-6)
    assert abs(mine["1.mlp.down.rest"]) > 1e-4  # the rest of a random change is no rounding


def _means(found):
    return found[0], found[1].mean(axis=0)


def test_first_order_effects_of_triples_and_rest_sum_to_the_component(cut_pair):
    difference = difference_of(cut_pair)
    generator = torch.Generator().manual_seed(2)
    slopes = {
        (role.name, p): torch.randn(
            getattr(cut_pair.aligned.model.get_submodule(role.name), p).shape, generator=generator
        )
        for role in difference.anatomy.modules
        for p in difference.parameters(role.name)
    }
    by_level = [difference.units(level) for level in ("component", "singular")]
    whole, parts = (dict(zip(units, unit_slopes(slopes, difference, list(units.values())))) for units in by_level)
    total = sum(value for name, value in parts.items() if name.startswith("1.mlp."))
    assert total == pytest.approx(whole["1.mlp"], rel=1e-4)


def test_full_triples_are_had_where_they_are_asked_for(cut_pair):
    difference = difference_of(cut_pair)
    assert len(difference.triples("model.layers.0.mlp.up_proj")[1]) == 4
    assert len(difference.full_triples("model.layers.0.mlp.up_proj")[1]) == 32
    assert not difference.has_rest("model.layers.0.mlp.up_proj")
