import numpy as np
import pytest
from sklearn.model_selection import StratifiedGroupKFold

from taxlens.core.errors import UsageError
from taxlens.probes.rows.folds import group_codes, group_folds


def grouped(n_groups=60, seed=0):
    rng = np.random.default_rng(seed)
    groups = np.repeat(np.arange(n_groups), rng.integers(1, 9, n_groups))
    return groups, rng.integers(0, 2, n_groups)[groups]


def test_no_group_is_split_over_folds():
    groups, y = grouped()
    folds = group_folds(groups, y)
    for group in np.unique(groups):
        assert len(np.unique(folds.of_row[groups == group])) == 1


def test_item_folds_do_split_groups():
    groups, _ = grouped()
    folds = group_folds(np.arange(len(groups)))
    assert any(len(np.unique(folds.of_row[groups == group])) > 1 for group in np.unique(groups))


def test_classes_are_spread_as_evenly_as_by_scikit_learn():
    for seed in range(5):
        groups, y = grouped(seed=seed)
        ours = group_folds(groups, y, seed=seed).of_row
        theirs = np.zeros(len(y), dtype=int)
        splitter = StratifiedGroupKFold(5, shuffle=True, random_state=seed)
        for fold, (_, test) in enumerate(splitter.split(y, y, groups)):
            theirs[test] = fold

        def spread(fold, y=y):
            return np.std([[np.sum((fold == f) & (y == c)) for f in range(5)] for c in (0, 1)], axis=1).mean()

        assert spread(ours) <= spread(theirs) + 1.5


def test_every_row_is_tested_once():
    groups, y = grouped()
    seen = np.concatenate([test for _, test in group_folds(groups, y)])
    assert sorted(seen) == list(range(len(y)))


def test_folds_depend_on_the_seed_and_not_on_the_order_of_rows():
    groups, y = grouped()
    folds = group_folds(groups, y, seed=3)
    order = np.random.default_rng(0).permutation(len(y))
    np.testing.assert_array_equal(group_folds(groups[order], y[order], seed=3).of_row, folds.of_row[order])
    assert (group_folds(groups, y, seed=4).of_row != folds.of_row).any()


def test_fold_of_each_group_is_the_fold_of_its_rows():
    groups, y = grouped()
    folds = group_folds(groups, y)
    np.testing.assert_array_equal(folds.of_group()[folds.groups], folds.of_row)


def test_missing_groups_are_refused_with_the_reason():
    with pytest.raises(UsageError, match=r"probes need groups[\s\S]*AUC \.80[\s\S]*groups='items'"):
        group_codes(None, 3)


def test_opting_out_of_groups_is_noted():
    codes, notes = group_codes("items", 3)
    assert codes.tolist() == [0, 1, 2]
    assert "every row is its own group" in notes[0]


def test_a_group_name_for_all_rows_is_refused():
    with pytest.raises(UsageError, match="array or 'items'"):
        group_codes("template", 3)


def test_groups_of_another_length_are_refused():
    with pytest.raises(UsageError, match=r"groups +2[\s\S]*rows +3"):
        group_codes(["a", "b"], 3)


def test_fewer_groups_than_folds_are_refused():
    with pytest.raises(UsageError, match=r"fewer groups than folds[\s\S]*groups +3[\s\S]*folds +5"):
        group_folds(np.array([0, 0, 1, 2]), np.array([0, 1, 0, 1]))


def test_one_class_in_a_training_part_is_refused():
    with pytest.raises(UsageError, match="one class in a fold's training part"):
        group_folds(np.array([0, 0, 1, 1, 2, 2]), np.array([0, 0, 1, 1, 1, 1]), n_folds=3)


def test_a_class_absent_from_a_fold_is_noted():
    y = np.r_[np.zeros(20, int), np.ones(3, int)]
    folds = group_folds(np.arange(23), y, n_folds=5)
    assert "do not hold every class" in folds.notes[0]
