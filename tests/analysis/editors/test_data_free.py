"""Editors that see no item, on matrices whose answer is known."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from taxlens.analysis.editors.kinds import arithmetic
from taxlens.analysis.editors.kinds.arithmetic import changes, hard_threshold, threshold_ratio
from tests.kept_weights import same_weights, untouched

SPECIFIED = {1.0: 2.858, 0.75: 2.501, 0.375: 2.007, 1 / 3: 1.951, 0.25: 1.837, 0.125: 1.650}


@pytest.mark.parametrize(("beta", "ratio"), SPECIFIED.items())
def test_the_hard_threshold_is_the_published_multiple_of_the_median(beta, ratio):
    assert threshold_ratio(beta) == pytest.approx(ratio, abs=1e-3)


def planted(*changed):
    """A toy task whose models hold one matrix a parameter."""

    def loaded(tensors):
        model = torch.nn.Module()
        for number, tensor in enumerate(tensors):
            model.register_parameter(f"w{number}", torch.nn.Parameter(tensor.clone(), requires_grad=False))
        return SimpleNamespace(model=model)

    base = [torch.zeros_like(d) for d in changed]
    return SimpleNamespace(pair=SimpleNamespace(base=loaded(base), aligned=loaded(changed)), seed=0, checkpoints={})


def edited(task, edits, label=""):
    edit = next(e for e in edits if label in e.label)
    kept = untouched(task.pair.aligned.model)
    with edit.opened() as model:
        found = [p.detach().clone() for p in model.parameters()]
    assert same_weights(task.pair.aligned.model, kept)
    return found, edit


def spiked(rank=3, size=10.0, shape=(80, 60)):
    rng = np.random.default_rng(0)
    u, v = (np.linalg.qr(rng.normal(size=(n, rank)))[0] for n in shape)
    return torch.tensor(size * u @ v.T + 0.1 * rng.normal(size=shape), dtype=torch.float32)


def test_dg_hard_keeps_the_planted_triples_and_drops_the_noise():
    task = planted(spiked())
    (kept,), edit = edited(task, arithmetic.dg_hard(task))
    assert int(torch.linalg.matrix_rank(kept, rtol=1e-4)) == 3
    assert edit.notes == ()


def test_dg_hard_is_the_identity_on_a_low_rank_update_and_says_so():
    rng = np.random.default_rng(1)
    d = torch.tensor(rng.normal(size=(64, 8)) @ rng.normal(size=(8, 48)), dtype=torch.float32)
    task = planted(d)
    (kept,), edit = edited(task, arithmetic.dg_hard(task))
    assert torch.allclose(kept, d, atol=1e-4)
    assert "identity" in edit.notes[0]


def test_dg_hard_leaves_vectors_and_small_matrices_alone():
    d = [torch.randn(2000), torch.randn(31, 33)]
    task = planted(*d)
    kept, _ = edited(task, arithmetic.dg_hard(task))
    assert all(torch.equal(one, two) for one, two in zip(kept, d))


def test_noise_alone_is_dropped_whole():
    noise = torch.tensor(np.random.default_rng(2).normal(size=(100, 100)), dtype=torch.float32)
    s = torch.linalg.svdvals(noise)
    assert hard_threshold(noise.shape, s) > float(s[0])


def test_top_k_keeps_the_largest_triples():
    d = torch.diag(torch.arange(1.0, 21.0))
    task = planted(d)
    (kept,), _ = edited(task, arithmetic.top_k(task, tries=6), "0.1 of")
    assert torch.allclose(torch.linalg.svdvals(kept)[:3], torch.tensor([20.0, 19.0, 0.0]), atol=1e-4)


def test_ties_trims_over_the_whole_model_and_not_by_tensor():
    task = planted(torch.arange(1.0, 51.0), torch.arange(51.0, 101.0))
    (small, large), _ = edited(task, arithmetic.ties_trim(task, tries=1))  # 20 of 100 entries
    assert int((small != 0).sum()) == 0
    assert sorted(large[large != 0].tolist()) == list(range(81, 101))


def test_dare_keeps_the_mean_and_drop_does_not():
    d = torch.ones(200, 200)
    task = planted(d)
    (rescaled,), _ = edited(task, arithmetic.dare(task, tries=1))
    (dropped,), _ = edited(task, arithmetic.drop(task, tries=6), "0.5")
    assert float(rescaled.mean()) == pytest.approx(1, abs=0.03)
    assert set(rescaled.unique().tolist()) == {0.0, 2.0}
    assert float(dropped.mean()) == pytest.approx(0.5, abs=0.02)


def test_breadcrumbs_drop_the_largest_and_the_smallest():
    task = planted(torch.arange(1.0, 1001.0).reshape(20, 50))
    (kept,), _ = edited(task, arithmetic.breadcrumbs(task, tries=5), "0.5")
    left = kept[kept != 0]
    assert (float(left.min()), float(left.max())) == (491.0, 990.0)


def test_spread_takes_the_ends_and_no_more_than_asked():
    assert arithmetic.spread(arithmetic.STEPS, 3)[::2] == [0.95, 0.3]
    assert len(arithmetic.spread(arithmetic.STEPS, 14)) == 14
    assert np.allclose(np.diff(arithmetic.STEPS), -0.05)


def test_interpolation_and_extrapolation_lie_on_the_line_between_the_models(task):
    base, aligned = (untouched(m.model) for m in (task.pair.base, task.pair.aligned))
    edits = [next(arithmetic.interpolation(task, tries=1)), next(arithmetic.extrapolation(task, tries=1))]
    for edit, kept in zip(edits, (0.95, 1.1)):
        with edit.opened() as model:
            for name, p in model.named_parameters():
                assert torch.allclose(p, base[name] + kept * (aligned[name] - base[name]), atol=1e-6)
        assert edit.energy == pytest.approx((1 - kept) ** 2)


def test_a_soup_is_the_mean_of_its_checkpoints(task):
    from dataclasses import replace

    with_start = replace(task, checkpoints={"start": task.pair.base})
    (edit,) = arithmetic.soup(with_start, tries=3)
    base, aligned = (untouched(m.model) for m in (task.pair.base, task.pair.aligned))
    name = next(iter(changes(task.pair)))
    with edit.opened() as model:
        mean = dict(model.named_parameters())[name]
        assert torch.allclose(mean, (base[name] + aligned[name]) / 2, atol=1e-6)
