"""The cache of the proving ground: computed once, keyed by what made it, safe side by side."""

from __future__ import annotations

import pytest
import torch

from benchmarks.truth import ground
from benchmarks.truth.plants.parts import weights_of
from benchmarks.truth.worlds.embed import read_model
from taxlens.demo import resolve


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setattr(ground, "CACHE", tmp_path)
    yield tmp_path
    ground.only_ready(False)


def test_a_result_is_computed_once_for_the_same_question():
    calls = []
    for seed in (0, 0, 1):
        assert ground.remembered("x", lambda s=seed: calls.append(s) or {"seed": s}, seed) == {"seed": seed}
    assert calls == [0, 1]


def test_another_base_or_other_code_is_another_question():
    plain = ground.fingerprint(1)
    assert ground.fingerprint(1, base=resolve("demo:planted")) != plain
    assert ground.fingerprint(1, code=ground.STATES) != plain
    assert ground.fingerprint(1) == plain


def test_what_is_not_cached_is_refused_when_only_ready_results_are_asked_for():
    ground.only_ready(True)
    with pytest.raises(ground.NotReadyError, match="weights-"):
        ground.made("weights", dict, 0)


def test_weights_come_back_as_they_were():
    given = {"a": torch.arange(3.0)}
    ground.made("weights", lambda: given, 0)
    torch.testing.assert_close(ground.made("weights", dict, 0), given)


def test_a_pair_leaves_no_folder_behind(own_cache):
    model = read_model(resolve("demo:base"))
    pair = ground.pair_of(model, weights_of(model), name="x")
    assert pair.aligned.model.num_parameters() == model.num_parameters()
    assert list((own_cache / "models").iterdir()) == []


def test_the_seconds_of_a_result_leave_out_those_of_results_within_it():
    def outer():
        return ground.remembered("inner", lambda: sum(range(2_000_000)), 0)

    ground.remembered("outer", outer, 0)
    found = ground.seconds_spent()
    assert set(found) == {"inner", "outer"}
    assert found["inner"][0] >= found["outer"][0]


def test_what_is_ready_is_returned_and_nothing_is_made_for_it():
    make = lambda: ground.remembered("number", lambda: 3, "here")  # noqa: E731
    assert ground.if_ready(make) is None
    assert make() == 3  # and computing is allowed again
    assert ground.if_ready(make) == 3
