"""Perplexity along the path, its barrier, and what is refused above it."""

import numpy as np
import pytest

from taxlens.analysis.path.attribute import attribute
from taxlens.analysis.path.barrier import LIMIT, Walkability, walkability
from taxlens.analysis.path.quadrature import gauss_patterson
from taxlens.analysis.scoring.choices import score_rows
from taxlens.analysis.weights.path_weights import walk
from taxlens.core.errors import CheckError


def bumpy(height):
    times = np.linspace(0, 1, 5)
    return Walkability(times, np.array([10.0, 10.0, 10.0 * (1 + height), 10.0, 10.0]), 4, 40)


def test_a_straight_line_has_no_barrier():
    line = Walkability(np.linspace(0, 1, 5), np.linspace(8, 12, 5), 4, 40)
    assert line.barrier == pytest.approx(0, abs=1e-12)
    assert line.fit


def test_barrier_is_the_largest_excess_over_the_chord():
    assert bumpy(0.4).barrier == pytest.approx(0.4)
    assert not bumpy(0.4).fit
    assert bumpy(LIMIT - 0.01).fit


def test_perplexity_is_that_of_scoring_the_same_texts(build, words, tokenizer):
    pair, suite = build("llama"), words(6)
    with walk(pair) as path:
        found = walkability(path, tokenizer, [suite])
    from taxlens.activations.items.tokens import Row

    ids = [tuple(tokenizer.encode(f"{i.prompt}{i.choices[i.gold]}")) for i in suite.items]
    rows = [Row(n, -1, row, 1, "text") for n, row in enumerate(ids)]
    for model, value in ((pair.base.model, found.perplexity[0]), (pair.aligned.model, found.perplexity[-1])):
        nats = -score_rows(model, rows).logp.sum() / sum(len(row) - 1 for row in ids)
        assert value == pytest.approx(np.exp(nats), rel=1e-5)


def test_ranking_is_refused_over_a_barrier_and_given_on_request(build, words):
    found = attribute(build("llama"), words(4), rules=[gauss_patterson(3)])
    broken = type(found)(found.template, found.suites, walkability=bumpy(0.4))
    with pytest.raises(CheckError, match=r"perplexity rises too far[\s\S]*40.0% at t = 0.5[\s\S]*anyway=True"):
        broken.ranked("words", "nll")
    names = [name for name, _ in broken.ranked("words", "nll", anyway=True)]
    assert len(names) == len(found.effects("words", "nll")[0])
    assert "perplexity barrier too high" in repr(broken)


def test_ranked_starts_with_the_largest_loss(build, words):
    found = attribute(build("llama", size=0.1), words(4), rules=[gauss_patterson(3)])
    effects = [effect for _, effect in found.ranked("words", "nll", anyway=True)]
    assert effects == sorted(effects, reverse=True)


def test_path_table_holds_the_perplexity(build, words):
    table = attribute(build("llama"), words(4), rules=[gauss_patterson(3)]).path_frame()
    assert table.query("suite == 'perplexity'")["t"].tolist() == [0, 0.25, 0.5, 0.75, 1]
