import numpy as np
import pytest

from taxlens.core.errors import UsageError
from taxlens.probes.pair.controls import (
    check_rows,
    confound_features,
    control_task,
    row_notes,
    shuffled,
    without_massive,
)
from taxlens.probes.rows.labels import read_labels


def labels_of(y):
    return read_labels(y, groups=np.arange(len(y)))


def test_labels_that_are_one_a_group_are_shuffled_by_group():
    groups = np.repeat(np.arange(20), 3)
    y = (np.arange(20) % 2)[groups]
    dealt = shuffled(read_labels(y, groups=groups), groups, seed=0).codes
    assert all(len(set(dealt[groups == g])) == 1 for g in range(20))
    assert (dealt != y).any()
    assert dealt.sum() == y.sum()


def test_labels_that_vary_in_a_group_are_shuffled_by_row():
    groups = np.repeat(np.arange(20), 2)
    y = np.tile([0, 1], 20)
    dealt = shuffled(read_labels(y, groups=groups), groups, seed=0).codes
    assert any(len(set(dealt[groups == g])) == 1 for g in range(20))
    assert dealt.sum() == y.sum()


def test_control_labels_depend_on_the_key_alone():
    labels = labels_of(np.arange(60) % 2)
    keys = np.arange(60) % 7
    control = control_task(labels, keys, np.arange(60) % 5, seed=0)
    assert all(len(set(control.codes[keys == k])) == 1 for k in range(7))
    assert set(control.codes) == {0, 1}


def test_selectivity_is_undefined_where_keys_stay_in_their_fold():
    assert control_task(labels_of(np.arange(60) % 2), np.arange(60) % 5, np.arange(60) % 5, seed=0) is None


def test_selectivity_is_undefined_for_a_single_key():
    assert control_task(labels_of(np.arange(60) % 2), np.zeros(60), np.arange(60) % 5, seed=0) is None


def test_keys_of_another_length_are_refused():
    with pytest.raises(UsageError, match="keys must have one entry a row"):
        control_task(labels_of(np.arange(60) % 2), np.zeros(59), np.arange(60) % 5, seed=0)


def test_confounds_become_numbers_and_one_hot_names():
    keep = np.arange(10)
    features = confound_features({"length": np.linspace(0, 1, 10), "template": ["a", "b"] * 5}, keep)
    assert features.shape == (10, 3)
    np.testing.assert_allclose(features[:, 0].std(), 1)
    with pytest.raises(UsageError, match="no confound varies"):
        confound_features({"template": ["a"] * 10}, keep)


def test_confounds_of_very_many_names_keep_the_most_frequent():
    names = [f"t{i}" for i in range(300)] + ["t0"] * 10
    assert confound_features({"token": names}, np.arange(310)).shape == (310, 50)


def test_nan_rows_are_named():
    X = np.ones((4, 3))
    X[2, 1] = np.inf
    with pytest.raises(UsageError, match=r"layer +5[\s\S]*items +facts/2"):
        check_rows(X, layer=5, model="base", ids=[f"facts/{i}" for i in range(4)])


def test_ordinary_rows_raise_no_note():
    X = np.random.default_rng(0).normal(size=(200, 8))
    assert row_notes(X, np.arange(200), layer=0, model="base") == []


def test_copies_inside_a_group_raise_no_note_and_over_groups_do():
    X = np.repeat(np.random.default_rng(0).normal(size=(20, 4)), 2, axis=0)
    assert row_notes(X, np.repeat(np.arange(20), 2), layer=0, model="base") == []
    assert row_notes(X, np.arange(40), layer=0, model="base")[0][0] == "copied"


def test_the_largest_norms_can_be_left_out():
    X = np.random.default_rng(0).normal(size=(1000, 4))
    X[[5, 700]] *= 100
    kept = without_massive(X, share=0.002)
    assert len(kept) == 998
    assert not {5, 700} & set(kept.tolist())
