import numpy as np
import pytest

from taxlens.analysis.directions.naming import Vocabulary, alike_probes, extreme_items, promoted_tokens
from taxlens.core.direction import Direction
from taxlens.core.errors import UsageError

D, V = 32, 500
RNG = np.random.default_rng(0)
UNEMBEDDING = RNG.normal(size=(V, D))
TOKENS = [f"t{n}" for n in range(V)]
VOCABULARY = Vocabulary.of(UNEMBEDDING, TOKENS)


def direction(vector, layer=3):
    return Direction(np.asarray(vector, dtype=float), site="resid_post", layer=layer)


def test_direction_of_a_token_is_named_by_that_token_above_chance():
    found = promoted_tokens(direction(UNEMBEDDING[7]), VOCABULARY)
    first = found.names[0]
    assert (first.kind, first.end, first.name) == ("token", "+", "t7")
    assert first.value > first.null
    assert "t7" in repr(found)


def test_flipped_direction_exchanges_the_ends():
    found = promoted_tokens(direction(-UNEMBEDDING[7]), VOCABULARY).to_frame()
    assert found[found.end == "-"].name.iloc[0] == "t7"


def test_random_direction_stays_below_its_null_most_of_the_time():
    drawn = [promoted_tokens(direction(RNG.normal(size=D)), VOCABULARY, top=1) for _ in range(40)]
    above = np.mean([max(abs(name.value) for name in found.names) > found.names[0].null for found in drawn])
    assert above <= 0.15


def test_gain_of_the_final_norm_is_applied_before_the_unembedding():
    gain = np.linspace(0.1, 2, D)
    named = promoted_tokens(direction(UNEMBEDDING[7] / gain), Vocabulary.of(UNEMBEDDING, TOKENS, gain=gain))
    assert named.names[0].name == "t7"


def test_probe_along_the_direction_has_cosine_one_and_a_random_one_chance():
    v = direction(RNG.normal(size=D))
    probes = {"same": direction(2 * v.vector), "other": direction(RNG.normal(size=D))}
    found = {name.name: name for name in alike_probes(v, probes).names}
    assert found["same"].value == pytest.approx(1)
    assert abs(found["other"].value) < 2 * found["other"].null
    assert found["same"].null == pytest.approx(1.96 / np.sqrt(D), rel=0.15)


def test_covariance_decides_what_two_readouts_have_in_common():
    first, second = direction(np.eye(D)[0] + np.eye(D)[1]), direction(np.eye(D)[0] - np.eye(D)[1])
    assert abs(alike_probes(first, {"p": second}).names[0].value) < 1e-12
    metric = np.diag([100.0, 1.0, *np.ones(D - 2)])
    assert alike_probes(first, {"p": second}, covariance=metric).names[0].value > 0.9


def test_items_at_both_ends_are_named_once_a_group():
    v = direction(np.eye(D)[0])
    X = RNG.normal(size=(30, D)) * 0.1
    X[4, 0] = X[5, 0] = 9
    X[20, 0] = -9
    ids = [f"item/{n}" for n in range(30)]
    frame = extreme_items(v, X, ids, groups=[n // 2 for n in range(30)], top=3).to_frame()
    assert frame[frame.end == "+"].name.iloc[0] == "item/4"
    assert "item/5" not in set(frame.name)
    assert frame[frame.end == "-"].name.iloc[0] == "item/20"
    both = extreme_items(v, X, ids, top=2).to_frame()
    assert list(both[both.end == "+"].name) == ["item/4", "item/5"]


def test_names_of_one_direction_join_into_one_table():
    v = direction(UNEMBEDDING[7])
    joined = promoted_tokens(v, VOCABULARY, top=2) + alike_probes(v, {"truth": v})
    assert list(joined.to_frame().kind.unique()) == ["token", "probe"]
    assert list(joined.to_frame().columns) == ["kind", "end", "name", "value", "null"]


def test_what_does_not_fit_is_refused():
    v = direction(np.ones(D))
    with pytest.raises(UsageError, match="unembedding does not fit"):
        promoted_tokens(direction(np.ones(5)), VOCABULARY)
    with pytest.raises(UsageError, match="do not fit each other"):
        Vocabulary.of(UNEMBEDDING, TOKENS[:5])
    with pytest.raises(UsageError, match="do not fit each other"):
        Vocabulary.of(UNEMBEDDING, TOKENS, gain=np.ones(5))
    with pytest.raises(UsageError, match="same space"):
        alike_probes(v, {"p": direction(np.ones(D), layer=4)})
    with pytest.raises(UsageError, match="rows do not fit"):
        extreme_items(v, np.ones((3, D)), ["a"])
    with pytest.raises(UsageError, match="groups and rows differ"):
        extreme_items(v, np.ones((3, D)), ["a", "b", "c"], groups=["g"])
