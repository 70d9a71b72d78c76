"""Input that cannot be compared is refused, with what, where and what to try."""

import numpy as np
import pytest

from taxlens.core.errors import UsageError
from taxlens.probes.similarity.accumulation import gather
from taxlens.probes.similarity.layer_map import layer_map
from taxlens.probes.similarity.similarity import similarity
from taxlens.probes.spectra.spectra import spectra

RNG = np.random.default_rng(0)
X = RNG.normal(size=(60, 8))
Y = X + RNG.normal(size=X.shape)


def refused(call, *parts):
    with pytest.raises(UsageError) as caught:
        call()
    for part in parts:
        assert part in str(caught.value)


def test_different_item_sets_are_refused():
    refused(lambda: gather((X, Y[:50])), "base and aligned hold different items", "60 rows", "50 rows", "Try:")
    refused(lambda: gather((X, Y), np.arange(50)), "groups and rows differ in number", "50", "60")
    refused(lambda: gather((X, Y), np.arange(70)), "groups and rows differ in number", "70", "60")
    refused(lambda: gather((X, Y), positions=np.arange(50)), "positions and rows differ in number")


def test_fewer_than_three_rows_are_refused():
    refused(lambda: gather((X[:2], Y[:2])), "too few rows to compare", "at least 3")
    refused(lambda: gather([]), "too few rows to compare", "0")


def test_debiased_cka_of_three_rows_is_refused_and_drift_of_three_is_not():
    refused(lambda: similarity((X[:3], Y[:3]), measures=["cka"]), "too few rows for debiased CKA", "at least 4")
    assert similarity((X[:3], Y[:3]), measures=["drift"]).rows[0].value > 0


@pytest.mark.parametrize("constant", [0.0, 3000.0])
def test_constant_activations_are_refused(constant):
    still = np.full_like(X, constant)
    refused(lambda: gather((still, Y)), "activations are constant", "base")
    refused(lambda: gather((X, still)), "activations are constant", "aligned")


@pytest.mark.parametrize("bad", [np.nan, np.inf])
@pytest.mark.parametrize("row", [0, 59])
def test_rows_that_are_not_finite_are_refused_by_number(bad, row):
    broken = X.copy()
    broken[row, 3] = bad
    refused(lambda: gather((X, broken)), "NaN or infinite", str(row))


@pytest.mark.parametrize("name", ["drift", "subspace", "drift_rank"])
def test_different_widths_are_refused_where_measures_need_equal_ones(name):
    refused(lambda: similarity((X, Y[:, :5]), measures=[name]), "needs equal widths", "d = 8", "d = 5", "cka")


@pytest.mark.parametrize("name", ["cka", "procrustes", "linear_r2", "mutual_knn", "svcca", "angular", "gulp"])
def test_different_widths_are_accepted_where_measures_allow(name):
    assert np.isfinite(similarity((X, Y[:, :5]), measures=[name]).rows[0].value)


@pytest.mark.parametrize("name", ["cca", "pwcca", "svcca"])
def test_fewer_than_two_rows_a_dimension_are_refused_for_cca(name):
    refused(
        lambda: similarity((X[:12], Y[:12]), measures=[name]),
        "too few rows for canonical correlations", "mean CCA is 1 for n < 2d", "Try:",
    )  # fmt: skip


def test_unknown_measure_lists_all_and_names_the_nearest():
    refused(lambda: similarity((X, Y), measures=["prokrustes"]), "unknown measure", "linear_r2", "'procrustes'")
    refused(lambda: similarity((X, Y), measures=[]), "no measure asked for")


def test_measures_of_rows_say_when_no_rows_were_kept():
    refused(lambda: similarity(gather((X, Y)), measures=["mutual_knn"]), "needs rows", "gather(..., keep=4096)")


def test_one_group_cannot_be_held_out():
    refused(lambda: similarity((X, Y), np.zeros(60), measures=["procrustes"]), "unseen groups", "at least 2")
    row = similarity((X, Y), np.zeros(60), measures=["cka"]).rows[0]
    assert np.isnan(row.low)
    assert row.n_groups == 1


def test_wrong_shapes_and_heads_are_refused():
    refused(lambda: gather((X[:, 0], Y[:, 0])), "wrong shape", "[rows, d]")
    refused(lambda: gather((X, Y), head=0), "because a head was asked for")
    heads = X.reshape(60, 2, 4)
    refused(lambda: gather((heads, heads), head=2), "no such head", "0 to 1")


def test_a_width_that_changes_within_the_stream_is_refused():
    stream = [(np.ones((2048, 8)) * RNG.normal(size=(2048, 1)), RNG.normal(size=(2048, 8))), (X[:, :5], Y[:, :5])]
    refused(lambda: gather(stream), "width of the rows changed")


def test_layer_map_refuses_other_items_and_constant_layers():
    refused(lambda: layer_map(lambda a: X, lambda a: Y[:50], [0]), "layers hold different items", "aligned layer 0")
    refused(lambda: layer_map(lambda a: X * 0, lambda a: Y, [0]), "constant or not finite", "base layer 0")
    refused(lambda: layer_map(lambda a: X[:3], lambda a: Y[:3], [0]), "at least 4 rows")


def test_spectra_of_few_rows_are_refused_and_say_so():
    refused(lambda: spectra(gather((X[:6], Y[:6]))), "too few rows for spectra", "at least 8")


def test_spectra_of_different_widths_are_refused():
    refused(lambda: spectra(gather((X, Y[:, :5]))), "spectra need equal widths", "d = 5")


def test_table_without_a_row_says_what_was_computed():
    refused(lambda: similarity((X, Y), measures=["cka"]).value("cka", 3), "no cka of layers 3 and 3", "cka")
    refused(lambda: spectra(gather((X, Y))).get("gain", 3), "no gain spectrum of layer 3", "gain 0")
    refused(lambda: spectra(gather((X, Y))).get("gain", 0).direction(99), "no such rank", "0 to")
