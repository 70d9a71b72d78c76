import numpy as np
import pytest

from taxlens.core.errors import UsageError
from taxlens.probes.kinds.mdl import online_code
from taxlens.probes.pair.probe_pair import probe_pair


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


def test_a_pair_is_coded_by_the_same_order_and_its_drop_is_in_compression():
    X, y, groups = problem(2.0)
    Y = X.copy()
    Y[:, :] = np.random.default_rng(5).normal(size=X.shape)
    result = probe_pair({3: (X, Y)}, y, groups, probe="mdl", permutations=19, keys=None)
    frame = result.to_frame().query("control == 'none'").set_index(["fitted_on", "metric"])["value"]
    code = online_code(X, y, groups)
    assert frame["base", "compression"] == pytest.approx(code.compression)
    assert frame["base", "code_length"] == pytest.approx(code.bits)
    assert result.drops[0].drop.value == pytest.approx(frame["base", "compression"] - frame["aligned", "compression"])
    assert (result.metric, result.chance) == ("compression", 1.0)
    assert result.probes["base", 3].kind == "mdl"
    assert result.drops[0].p <= 0.05


def test_a_pair_of_one_model_has_no_drop_of_its_code():
    X, y, groups = problem(2.0)
    result = probe_pair({0: (X, X)}, y, groups, probe="mdl", permutations=19, confounds={"position": groups % 7})
    assert result.drops[0].drop.value == 0
    assert result.drops[0].p == 1
    shuffled = result.to_frame().query("control == 'shuffled' and metric == 'compression'")["value"]
    assert shuffled.between(0.8, 1.1).all()
    confound = result.to_frame().query("control == 'confound'")
    assert set(confound["metric"]) == {"compression"}
    assert confound["value"].max() < 1.1


def test_a_code_of_numbers_or_mapped_rows_is_refused():
    X, y, groups = problem(1.0)
    with pytest.raises(UsageError, match="sends classes"):
        probe_pair({0: (X, X)}, X[:, 0], groups, probe="mdl", permutations=0)
    with pytest.raises(UsageError, match="no mapped rows"):
        probe_pair({0: (X, X)}, y, groups, probe="mdl", permutations=0, maps=("procrustes",))
