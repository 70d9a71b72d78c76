import numpy as np
import pytest

from taxlens.core.errors import UsageError
from taxlens.probes.rows.labels import read_labels

ROWS = np.arange(12)


def test_two_texts_are_binary_with_the_second_positive():
    labels = read_labels(["no", "yes"] * 6, groups=ROWS)
    assert (labels.task, labels.classes) == ("binary", ("no", "yes"))
    assert labels.targets()[:2, 0].tolist() == [-1.0, 1.0]


def test_booleans_and_whole_floats_are_classes():
    assert read_labels([True, False] * 6, groups=ROWS).classes == (0, 1)
    assert read_labels([1.0, 0.0] * 6, groups=ROWS).classes == (0, 1)


def test_three_texts_are_multiclass_with_a_target_a_class():
    labels = read_labels(["a", "b", "c"] * 4, groups=ROWS)
    assert labels.task == "multiclass"
    assert labels.targets().sum(1).tolist() == [-1.0] * 12


def test_fractions_and_many_integers_are_regression():
    assert read_labels(np.linspace(0, 1, 12), groups=ROWS).task == "regression"
    assert read_labels(np.arange(40), groups=np.arange(40)).task == "regression"


def test_regression_folds_are_balanced_by_fifths():
    labels = read_labels(np.linspace(0, 1, 100), groups=np.arange(100))
    assert np.bincount(labels.strata()).tolist() == [20] * 5


@pytest.mark.parametrize("missing", [None, float("nan"), ""])
def test_rows_without_a_label_are_left_out_and_counted(missing):
    labels = read_labels(["a", missing, "b"] * 4, groups=ROWS)
    assert labels.keep.tolist() == [0, 2, 3, 5, 6, 8, 9, 11]
    assert "4 of 12 rows have no label" in labels.notes[0]


def test_classes_of_a_single_group_are_left_out_and_named():
    labels = read_labels(["a", "b"] * 5 + ["z", "z"], groups=np.r_[np.arange(10), 10, 10])
    assert labels.classes == ("a", "b")
    assert "1 of 3 classes lie in a single group" in labels.notes[0]
    assert "'z'" in labels.notes[0]


def test_two_hundred_classes_are_noted():
    y = [f"c{i % 200}" for i in range(800)]
    labels = read_labels(y, groups=np.arange(800))
    assert len(labels.classes) == 200
    assert "200 classes, 4.0 rows a class" in labels.notes[0]


def test_one_class_is_refused():
    with pytest.raises(UsageError, match=r"two classes that groups share[\s\S]*'a'"):
        read_labels(["a"] * 12, groups=ROWS)


def test_a_label_that_never_repeats_over_groups_is_refused():
    with pytest.raises(UsageError, match="two classes that groups share"):
        read_labels([f"answer {i}" for i in range(12)], groups=ROWS)


def test_no_label_at_all_is_refused():
    with pytest.raises(UsageError, match="two classes"):
        read_labels([None] * 12, groups=ROWS)


def test_constant_numbers_are_refused():
    with pytest.raises(UsageError, match="two different values"):
        read_labels([0.5] * 12, groups=ROWS)


def test_text_mixed_with_numbers_is_refused():
    with pytest.raises(UsageError, match="mix text and numbers"):
        read_labels(["a", 1.0] * 6, groups=ROWS)


def test_labels_of_another_length_are_refused():
    with pytest.raises(UsageError, match=r"labels +3[\s\S]*groups +12"):
        read_labels([0, 1, 0], groups=ROWS)


def test_three_classes_asked_as_binary_are_refused():
    with pytest.raises(UsageError, match="binary label has two classes"):
        read_labels(["a", "b", "c"] * 4, groups=ROWS, task="binary")


def test_an_unknown_task_is_answered_with_the_options():
    with pytest.raises(UsageError, match="auto, binary, multiclass, regression"):
        read_labels([0, 1] * 6, groups=ROWS, task="multi")
