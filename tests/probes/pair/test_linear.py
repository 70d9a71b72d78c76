import warnings

import numpy as np
import pytest

from taxlens.core.errors import UsageError
from taxlens.probes.pair.probe_pair import adjust_family, probe_pair
from taxlens.probes.pair.result import DROP_COLUMNS, ProbeRow
from taxlens.probes.rows.labels import ProbeWarning

CONTRACT = "probe fitted_on read_on map control layer metric value low high n_items n_groups".split()


def pair(kind="same", *, n_groups=60, size=4, d=10, seed=0, gap=2.0):
    """X, Y, y, groups: base rows with a concept on axis 0, and what `kind` made of it."""
    rng = np.random.default_rng(seed)
    groups = np.repeat(np.arange(n_groups), size)
    y = (np.arange(n_groups) % 2)[groups]
    X = 0.5 * rng.normal(size=(n_groups, d))[groups] + rng.normal(size=(len(y), d))
    X[:, 0] = rng.normal(size=len(y)) + gap * y
    Y = X + 0.1 * rng.normal(size=X.shape)
    if kind == "erased":
        Y[:, 0] = rng.normal(size=len(y))
    elif kind == "attenuated":
        Y[:, 0] = 0.3 * gap * y + rng.normal(size=len(y))
    elif kind == "shrunk":
        Y = 0.3 * Y
    elif kind == "rotated":
        Y = Y @ np.linalg.qr(rng.normal(size=(d, d)))[0]
    elif kind == "xor":
        sign = rng.choice([-1.0, 1.0], size=len(y))
        Y[:, 0], Y[:, 1] = 1.5 * sign, 1.5 * sign * (2 * y - 1)
        Y[:, :2] += 0.3 * rng.normal(size=(len(y), 2))
    return X, Y, y, groups


def quiet(*args, **kwargs):
    kwargs = {"permutations": 0, "shuffles": 0, "bootstrap": 100} | kwargs
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ProbeWarning)
        return probe_pair(*args, **kwargs)


def reading(result, fitted, read, map="none", layer=0):
    return result.readings[fitted, read, map][layer].value


def test_the_table_holds_four_cells_with_the_columns_of_the_contract():
    X, Y, y, groups = pair()
    frame = quiet({0: (X, Y), 4: (Y, X)}, y, groups, shuffles=2).to_frame()
    assert list(frame.columns) == CONTRACT == list(ProbeRow.__dataclass_fields__)
    own = frame[(frame.metric == "auc") & (frame.control == "none")]
    assert sorted(zip(own.fitted_on, own.read_on, own.layer, strict=True)) == sorted(
        (f, r, layer) for f in ("base", "aligned") for r in ("base", "aligned") for layer in (0, 4)
    )
    assert set(frame.metric) == {"auc", "balanced_accuracy", "log_loss", "ece", "snr"}
    assert ((own.low <= own.value) & (own.value <= own.high)).all()
    assert set(frame.n_groups) == {60}


def test_the_drop_table_has_the_columns_of_the_contract():
    X, Y, y, groups = pair()
    frame = quiet({0: (X, Y)}, y, groups, permutations=19).drop_frame()
    assert list(frame.columns)[:7] == ["layer", "drop", "low", "high", "p", "p_adjusted", "ceiling"]
    assert list(frame.columns) == list(DROP_COLUMNS)


def test_probing_a_model_against_itself_drops_nothing():
    X, _, y, groups = pair()
    result = quiet({0: (X, X), 1: (X, X.astype(np.float32))}, y, groups, permutations=49)
    assert abs(result.drops[0].drop.value) < 1e-12
    assert result.drops[0].p_adjusted == 1.0
    assert result.flagged() == ()
    assert result.drops[0].p_no_loss == 0.0
    assert abs(result.drops[1].drop.value) < 1e-4


def test_an_erased_concept_is_flagged_where_it_is_erased_and_nowhere_else():
    X, Y, y, groups = pair()
    _, gone, _, _ = pair("erased")
    result = quiet({0: (X, Y), 1: (X, gone), 2: (X, gone)}, y, groups, permutations=99)
    assert result.flagged() == (1, 2)
    assert reading(result, "aligned", "aligned", layer=1) < 0.62
    assert "largest auc drop +0." in repr(result)


def test_another_label_of_the_same_rows_is_not_flagged():
    X, Y, y, groups = pair("erased")
    other = (np.arange(60) // 2 % 2)[groups]
    X[:, 3] += 2 * other
    Y[:, 3] = X[:, 3]
    kept = quiet({0: (X, Y)}, other, groups, permutations=99)
    lost = quiet({0: (X, Y)}, y, groups, permutations=99)
    both = adjust_family([kept, lost])
    assert both[0].flagged() == ()
    assert both[1].flagged() == (0,)


def test_an_attenuated_concept_reads_less_in_aligned_and_above_chance():
    result = quiet({0: pair("attenuated")[:2]}, *pair("attenuated")[2:])
    assert 0.53 < reading(result, "aligned", "aligned") < reading(result, "base", "base") - 0.1


def test_a_mere_shrink_is_not_called_loss_by_auc_log_loss_or_ece():
    X, Y, y, groups = pair("shrunk")
    frame = quiet({0: (X, Y)}, y, groups).to_frame()
    for metric, tolerance in (("auc", 0.02), ("log_loss", 0.03), ("ece", 0.04)):
        cells = frame[frame.metric == metric].value
        assert np.ptp(cells.to_numpy()) < tolerance, metric


def test_a_rotated_concept_is_read_afresh_and_after_a_map_but_not_by_the_base_probe():
    X, Y, y, groups = pair("rotated")
    result = quiet({0: (X, Y)}, y, groups, maps=("procrustes", "ridge"), permutations=19)
    assert reading(result, "aligned", "aligned") > 0.88
    assert reading(result, "base", "aligned") < 0.75
    assert reading(result, "base", "aligned", "procrustes") > 0.88
    assert reading(result, "base", "aligned", "ridge") > 0.88
    assert result.drops[0].drift < 0.9
    assert result.drops[0].test == "corrected_t"
    assert result.drops[0].p > 0.05


def test_an_erased_concept_is_not_brought_back_by_a_map():
    X, Y, y, groups = pair("erased")
    result = quiet({0: (X, Y)}, y, groups, maps=("procrustes", "ridge"))
    assert reading(result, "base", "aligned", "procrustes") < 0.62
    assert reading(result, "base", "aligned", "ridge") < 0.62


def test_an_xor_encoded_concept_is_read_by_the_network_alone():
    X, Y, y, groups = pair("xor", n_groups=60, d=3)
    linear = quiet({0: (X, Y)}, y, groups, n_folds=3)
    network = quiet({0: (X, Y)}, y, groups, n_folds=3, probe="mlp")
    assert reading(linear, "aligned", "aligned") < 0.65
    assert reading(network, "aligned", "aligned") > 0.9


def test_direction_cosine_is_near_its_ceiling_for_the_same_concept_and_below_for_a_rotated_one():
    same = quiet({0: pair()[:2]}, *pair()[2:]).drops[0]
    turned = quiet({0: pair("rotated")[:2]}, *pair()[2:]).drops[0]
    assert abs(same.cosine - same.ceiling) < 0.1
    assert turned.cosine < turned.ceiling - 0.3


def test_probe_on_shuffled_labels_is_at_chance():
    X, Y, y, groups = pair(n_groups=100)
    frame = quiet({0: (X, Y)}, y, groups, shuffles=10).to_frame()
    shuffled = frame[frame.control == "shuffled"]
    assert len(shuffled) == 2
    assert abs(shuffled.value.iloc[0] - 0.5) < 0.06


def test_no_signal_paraphrases_read_chance_by_groups_and_leak_by_items():
    by_group, by_item = [], []
    for seed in range(20):
        rng = np.random.default_rng(seed + 1000)
        groups = np.repeat(np.arange(50), 8)
        y = rng.permutation(np.arange(50) % 2)[groups]
        X = rng.normal(size=(50, 16))[groups] + 0.5 * rng.normal(size=(400, 16))
        by_group.append(reading(quiet({0: (X, X)}, y, groups, bootstrap=10, seed=seed), "base", "base"))
        if seed < 3:
            by_item.append(reading(quiet({0: (X, X)}, y, "items", bootstrap=10), "base", "base"))
    assert abs(np.mean(by_group) - 0.5) < 0.06
    assert np.mean(by_item) > 0.65


def test_a_label_that_the_confounds_carry_is_noted():
    X, Y, y, groups = pair()
    with pytest.warns(ProbeWarning, match=r"read from confounds alone \(length\) at auc 1.00"):
        result = probe_pair({0: (X, Y)}, y, groups, confounds={"length": 3 + y}, permutations=0, bootstrap=100)
    frame = result.to_frame()
    alone = frame[frame.control == "confound"]
    assert alone.layer.isna().all()
    assert (alone.value > 0.99).all()


def test_a_confound_that_carries_nothing_is_exceeded():
    X, Y, y, groups = pair()
    place = np.random.default_rng(5).integers(0, 9, len(y))
    result = quiet({0: (X, Y)}, y, groups, confounds={"position": place})
    assert not any("confounds alone" in note for note in result.notes)


def test_the_control_task_is_undefined_where_no_key_repeats_over_folds():
    X, Y, y, groups = pair()
    with pytest.warns(ProbeWarning, match="selectivity undefined"):
        result = probe_pair({0: (X, Y)}, y, groups, keys=groups, permutations=0, bootstrap=50)
    assert "control_task" not in set(result.to_frame().control)


def test_the_control_task_is_memorised_where_the_key_is_in_the_rows():
    X, Y, y, groups = pair()
    key = np.arange(len(y)) % 6
    onehot = 5.0 * (key[:, None] == np.arange(6))
    frame = quiet({0: (np.hstack([X, onehot]), np.hstack([Y, onehot]))}, y, groups, keys=key).to_frame()
    assert frame[frame.control == "control_task"].value.min() > 0.95


def test_the_answer_does_not_depend_on_how_layers_come():
    X, Y, y, groups = pair()
    data = {2: (X, Y), 5: (Y, X)}
    expected = quiet(data, y, groups).to_frame()
    for layers in (((k, *v) for k, v in data.items()), lambda: ((k, *v) for k, v in data.items())):
        assert quiet(layers, y, groups).to_frame().equals(expected)


def test_the_answer_is_the_same_for_the_same_seed():
    X, Y, y, groups = pair()
    one, two = (quiet({0: (X, Y)}, y, groups, permutations=19, shuffles=1, seed=7) for _ in range(2))
    assert one.to_frame().equals(two.to_frame())
    assert one.drop_frame().equals(two.drop_frame())


def test_exchanging_the_models_exchanges_the_drop():
    X, Y, y, groups = pair("attenuated")
    forth, back = quiet({0: (X, Y)}, y, groups), quiet({0: (Y, X)}, y, groups)
    np.testing.assert_allclose(forth.drops[0].drop.value, -back.drops[0].drop.value)


def test_heads_are_flattened():
    X, Y, y, groups = pair()
    flat, heads = quiet({0: (X, Y)}, y, groups), {0: (X.reshape(-1, 2, 5), Y.reshape(-1, 2, 5))}
    assert quiet(heads, y, groups).to_frame().equals(flat.to_frame())


@pytest.mark.parametrize("probe", ["logistic", "diff_of_means", "lda"])
def test_every_kind_of_probe_reads_the_planted_concept(probe):
    X, Y, y, groups = pair("erased", d=5)
    result = quiet({0: (X, Y)}, y, groups, probe=probe, n_folds=3)
    assert reading(result, "base", "base") > 0.88
    assert reading(result, "aligned", "aligned") < 0.65
    assert set(result.to_frame().probe) == {probe}


def test_many_classes_and_numbers_are_read():
    X, Y, _, groups = pair()
    three = np.array(["a", "b", "c"])[(np.arange(60) % 3)[groups]]
    X[:, 5] += 4.0 * (three == "a")
    X[:, 6] += 4.0 * (three == "b")
    many = quiet({0: (X, Y)}, three, groups, permutations=9)
    assert many.metric == "auc"
    assert reading(many, "base", "base") > 0.9
    numbers = quiet({0: (X, Y)}, X[:, 1] + 0.1 * Y[:, 2], groups, permutations=9)
    assert (numbers.metric, numbers.chance) == ("r2", 0.0)
    assert reading(numbers, "base", "base") > 0.95
    assert set(numbers.to_frame().metric) == {"r2"}


def test_the_probe_of_a_layer_hands_back_its_direction_with_provenance():
    X, Y, y, groups = pair()
    result = quiet({3: (X, Y)}, y, groups)
    direction = result.direction(layer=3, model="base", site="resid_post")
    assert direction.address == "resid_post.3"
    assert direction.vector[0] > 0.9
    assert direction.source["model"] == "base"
    assert np.mean(np.array(result.probes["base", 3].predict(X)) == y) > 0.8
    with pytest.raises(UsageError, match=r"no linear probe there[\s\S]*layers +3"):
        result.direction(layer=9)


def test_rows_with_massive_norms_are_noted():
    X, Y, y, groups = pair()
    X[7] *= 500
    with pytest.warns(
        ProbeWarning, match=r"1 rows of layer 0 of base .* median norm .*: auc 0.\d+ with, 0.\d+ without"
    ):
        probe_pair({0: (X, Y)}, y, groups, permutations=0, bootstrap=50)


def test_fewer_rows_than_dimensions_are_noted():
    X, Y, y, groups = pair(d=300)
    with pytest.warns(ProbeWarning, match="fewer training rows than dimensions"):
        probe_pair({0: (X, Y)}, y, groups, permutations=0, bootstrap=50, shuffles=0)


def test_constant_features_and_constant_rows_are_noted():
    X, Y, y, groups = pair()
    X[:, 4] = 3.0
    with pytest.warns(ProbeWarning, match="1 of 10 features of layer 0 of base are constant"):
        probe_pair({0: (X, Y)}, y, groups, permutations=0, bootstrap=50, shuffles=0)
    still = np.ones_like(X)
    result = quiet({0: (still, still)}, y, groups, permutations=9)
    assert reading(result, "base", "base") == 0.5
    assert any("all features" in note for note in result.notes)


def test_copies_of_rows_in_other_groups_are_noted():
    X, Y, y, groups = pair()
    X[100] = X[3]
    with pytest.warns(ProbeWarning, match="1 rows of layer 0 of base equal a row of another group"):
        probe_pair({0: (X, Y)}, y, groups, permutations=0, bootstrap=50, shuffles=0)


def test_opting_out_of_groups_is_warned():
    X, Y, y, _ = pair()
    with pytest.warns(ProbeWarning, match="every row is its own group"):
        probe_pair({0: (X, Y)}, y, "items", permutations=0, bootstrap=50, shuffles=0)


def test_an_auc_below_chance_is_warned():
    rng = np.random.default_rng(0)
    groups, y = np.arange(300), np.arange(300) % 2
    X = rng.normal(size=(300, 6))
    X -= np.stack([X[y == c].mean(0) for c in (0, 1)])[y]
    X[:, 1:] *= 0.01
    with pytest.warns(ProbeWarning, match="is below chance: test rows were used in training"):
        probe_pair({0: (X, X)}, y, groups, permutations=0, bootstrap=200, shuffles=0, penalties=(1e-6,))


def test_nan_rows_are_refused_by_the_id_of_the_item():
    X, Y, y, groups = pair()
    Y[17, 3] = np.nan
    with pytest.raises(UsageError, match=r"NaN or infinite[\s\S]*layer +2[\s\S]*aligned[\s\S]*facts/17"):
        probe_pair({2: (X, Y)}, y, groups, item_ids=[f"facts/{i}" for i in range(len(y))])


def test_rows_that_do_not_match_the_labels_are_refused():
    X, Y, y, groups = pair()
    with pytest.raises(UsageError, match=r"rows and labels do not match[\s\S]*expected +\[240, d\]"):
        probe_pair({0: (X[:-1], Y)}, y, groups)
    with pytest.raises(UsageError, match="different widths"):
        probe_pair({0: (X[:, :5], Y)}, y, groups)


def test_missing_labels_are_left_out_and_warned():
    X, Y, y, groups = pair()
    some = [None if i % 10 == 0 else int(v) for i, v in enumerate(y)]
    with pytest.warns(ProbeWarning, match="24 of 240 rows have no label"):
        result = probe_pair({0: (X, Y)}, some, groups, permutations=0, bootstrap=50, shuffles=0)
    assert result.n_items == 216


def test_no_layers_and_unknown_names_are_refused():
    X, Y, y, groups = pair()
    with pytest.raises(UsageError, match="no layers to probe"):
        probe_pair({}, y, groups)
    with pytest.raises(UsageError, match=r"unknown probe 'rigde'[\s\S]*Try: 'ridge'"):
        probe_pair({0: (X, Y)}, y, groups, probe="rigde")
    with pytest.raises(UsageError, match="procrustes, ridge"):
        probe_pair({0: (X, Y)}, y, groups, maps=("affine",))


def test_groups_are_required():
    X, Y, y, _ = pair()
    with pytest.raises(UsageError, match="probes need groups"):
        probe_pair({0: (X, Y)}, y, None)


def test_a_label_with_two_hundred_classes_is_read_with_a_warning():
    rng = np.random.default_rng(0)
    groups = np.arange(400)
    y = np.array([f"c{i % 200:03d}" for i in range(400)])
    X = rng.normal(size=(400, 4))
    with pytest.warns(ProbeWarning, match="200 classes, 2.0 rows a class"):
        result = probe_pair({0: (X, X)}, y, groups, permutations=0, bootstrap=10, shuffles=0, n_folds=2)
    assert abs(reading(result, "base", "base") - 0.5) < 0.1
