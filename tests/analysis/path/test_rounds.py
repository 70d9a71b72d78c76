"""How a suite is cut into shards decides neither its effects nor where its walk stops."""

from __future__ import annotations

import numpy as np
import pytest

from taxlens.analysis.path.adaptive_quadrature import RuleAccount, unmet
from taxlens.analysis.path.attribute import attribute

ASKED = {"levels": ("component",), "perplexity": False, "bootstrap": 20, "metrics": ("nll", "accuracy")}


@pytest.mark.parametrize("most", [7, 15])
def test_effects_gradients_and_closure_do_not_depend_on_the_cut(build, words, monkeypatch, most):
    pair, asked = build(size=0.3), words(7)
    found = []
    for items, memory in ((64, 1 << 30), (2, 1 << 30), (2, 1)):  # one shard; four kept to the end; four walked anew
        monkeypatch.setattr("taxlens.analysis.path.engine.ITEMS", items)
        monkeypatch.setattr("taxlens.analysis.path.engine.MEMORY", memory)
        found.append(attribute(pair, asked, max_gradients=most, **ASKED))
    whole = found[0].suites["words"]
    for cut in (one.suites["words"] for one in found[1:]):
        assert (cut.gradients, cut.closed, cut.rewalked) == (whole.gradients, whole.closed, whole.rewalked)
        assert cut.items == whole.items
        for key in whole.values:
            np.testing.assert_allclose(cut.values[key], whole.values[key], atol=1e-9)
        np.testing.assert_allclose(cut.missed, whole.missed, atol=1e-9)
    for name in ("closure_frame", "path_frame"):
        frames = [getattr(one, name)().select_dtypes("number") for one in found]
        drop = [column for column in frames[0] if "second" in column]
        for frame in frames[1:]:
            np.testing.assert_allclose(frame.drop(columns=drop), frames[0].drop(columns=drop), atol=1e-8)


def account(**more) -> RuleAccount:
    told = {"items": 4, "missed": 0.0, "moved": 4.0, "inner": {}, "taxes": {"nll": 4.0}}
    told |= {"effects": {"nll": np.array([3.0, 1.0])}, "before": {"nll": np.array([3.0, 1.0])}} | more
    return RuleAccount(**told)


def test_shards_are_judged_by_their_sums():
    assert unmet([account(), account()], 0.01, nodes=7) == ""
    far = account(missed=0.04)  # 1 % of its own move, half a per cent of both
    assert "off by 1.00%" in unmet([far], 0.01, nodes=7)
    assert unmet([far, account()], 0.0101, nodes=7) == ""
    ups, downs = (account(before={"nll": np.array([3.0 + d, 1.0 - d])}) for d in (0.5, -0.5))
    assert "still change by" in unmet([ups], 0.01, nodes=7)
    assert unmet([ups, downs], 0.01, nodes=7) == ""  # what one shard gains the other loses
    assert "closes to" in unmet([account(), account(taxes={"nll": 4.5})], 0.01, nodes=7)
    assert "no other rule" in unmet([account(), account(before=None)], 0.01, nodes=7)
    assert "between panels" in unmet([account(inner={0.5: 0.3}), account(inner={0.5: 0.0})], 0.01, nodes=30)
