import numpy as np
import pytest

from taxlens.core.errors import UsageError
from taxlens.probes.mdl import online_code


def problem(gap, n_groups=60, seed=0, n_classes=2):
    rng = np.random.default_rng(seed)
    groups = np.repeat(np.arange(n_groups), 4)
    y = (np.arange(n_groups) % n_classes)[groups]
    return rng.normal(size=(len(y), 5)) + gap * rng.normal(size=(n_classes, 5))[y], y, groups


def test_labels_that_are_easy_to_read_have_a_short_code():
    assert online_code(*problem(3.0)).compression > 2


def test_labels_that_are_not_there_have_the_uniform_code():
    code = online_code(*problem(0.0))
    assert 0.85 < code.compression < 1.02
    assert code.low <= code.compression <= code.high


def test_first_block_is_sent_uniformly():
    X, y, groups = problem(50.0)
    code = online_code(X, y, groups, shares=(0.5, 1.0))
    assert 120 <= code.bits < 125
    assert code.uniform == 240


def test_many_classes_are_sent_too():
    code = online_code(*problem(3.0, n_classes=3))
    np.testing.assert_allclose(code.uniform, 240 * np.log2(3))
    assert code.compression > 1.5
    assert repr(code).startswith("CodeLength(")


def test_the_code_is_the_same_for_the_same_seed_and_moves_with_the_order():
    X, y, groups = problem(1.0)
    assert online_code(X, y, groups, seed=1) == online_code(X, y, groups, seed=1)
    assert online_code(X, y, groups, seed=1) != online_code(X, y, groups, seed=2)


def test_shares_that_do_not_rise_to_one_are_refused():
    with pytest.raises(UsageError, match="rise to 1"):
        online_code(*problem(1.0), shares=(0.5, 0.4, 1.0))


def test_numbers_are_refused():
    X, _, groups = problem(1.0)
    with pytest.raises(UsageError, match="sends classes"):
        online_code(X, X[:, 0], groups)
