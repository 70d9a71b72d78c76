"""Any number of workers gives the scores and effects of one process, also where one is killed."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from taxlens.activations.models.pair import load_pair
from taxlens.analysis.path.attribute import attribute
from taxlens.analysis.pieces import pair_pieces
from taxlens.analysis.pieces.pair_pieces import effects_in_pieces, prepare, request_of, scores_in_pieces
from taxlens.core.errors import UsageError
from taxlens.core.executor import executor_of


@pytest.fixture(scope="module")
def saved(tmp_path_factory, make_model, word_tokenizer):
    """How to load two random checkpoints from disk, and the pair."""
    load = {"device": "cpu"}
    for name, seed in (("base", 0), ("aligned", 1)):
        folder = tmp_path_factory.mktemp(name)
        make_model("llama", seed).save_pretrained(folder)
        word_tokenizer.save_pretrained(folder)
        load[name] = str(folder)
    return load, load_pair(**load)


def same(one, other) -> None:
    if dataclasses.is_dataclass(one):
        for field in dataclasses.fields(one):
            if field.name != "seconds":
                same(getattr(one, field.name), getattr(other, field.name))
    elif isinstance(one, dict):
        assert list(one) == list(other)
        for key in one:
            same(one[key], other[key])
    else:
        np.testing.assert_array_equal(one, other)


def test_scores_and_effects_of_two_workers_are_those_of_one_to_the_bit(saved, word_suite, tmp_path, monkeypatch):
    load, pair = saved
    monkeypatch.setattr(pair_pieces, "ITEMS", 7)
    few = word_suite.subset(range(12))
    options = {
        "levels": ("component", "singular"),
        "metrics": ("nll", "accuracy"),
        "max_gradients": 3,
        "memory": 60_000,
    }
    one, two = executor_of(workers=1), executor_of(workers=2, scratch=tmp_path)
    same(scores_in_pieces(pair, [few], load, one), scores_in_pieces(pair, [few], load, two))
    effects = effects_in_pieces(pair, [few], load, one, **options)
    same(effects, effects_in_pieces(pair, [few], load, two, **options))
    assert len(list(tmp_path.glob("*.npz"))) > 6  # several pieces of each
    again = effects_in_pieces(pair, [few], load, executor_of(workers=1, scratch=tmp_path), **options)
    same(effects, again)  # read from what is kept


def test_effects_in_pieces_are_those_of_attribute_where_the_work_is_cut_alike(saved, word_suite, monkeypatch):
    load, pair = saved
    few = word_suite.subset(range(8))
    asked = {"levels": ("component",), "metrics": ("nll",), "max_gradients": 3}
    monkeypatch.setattr("taxlens.analysis.path.engine.MEMORY", 20_000)
    wanted = attribute(pair, few, perplexity=False, bootstrap=20, **asked).suites["words"]
    found = effects_in_pieces(pair, [few], load, executor_of(), memory=20_000, **asked)["words"]
    np.testing.assert_array_equal(found.values["nll", "component"], wanted.values["nll", "component"])


def test_a_worker_with_other_weights_or_versions_is_refused(saved, word_suite):
    load, pair = saved
    request = request_of(pair, [word_suite.subset(range(2))], load)
    with pytest.raises(UsageError, match="other weights"):
        prepare(request | {"sha256": {"base": "0" * 64, "aligned": "1" * 64}})
    with pytest.raises(UsageError, match="other versions"):
        prepare(request | {"versions": {"taxlens": "0"}})
