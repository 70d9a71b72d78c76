"""Metrics of the logits beside those of the scores: one call, walked apart, each closing on its own."""

import numpy as np
import pytest
import torch

from taxlens.analysis.path.attribute import attribute
from taxlens.analysis.path.logit_metrics import LogitMetric
from taxlens.analysis.path.polyline import attribute_polyline
from taxlens.core.errors import UsageError


@pytest.fixture(scope="module")
def found(build, words):
    pair, suite = build("llama", size=0.15), words(5)
    entropy = LogitMetric(lambda logits, base, targets: torch.distributions.Categorical(logits=logits).entropy())
    options = {"metrics": ("nll", "kl", "entropy"), "functions": {"entropy": entropy}, "perplexity": False}
    return pair, suite, attribute(pair, suite, levels=("component", "head"), max_gradients=15, **options)


def test_kl_beside_other_metrics_is_that_of_its_own_walk(found):
    pair, suite, both = found
    alone = attribute(pair, suite, metrics=("kl",), max_gradients=15, perplexity=False)
    assert both.effects("words", "kl")[1] == pytest.approx(alone.effects("words", "kl")[1], abs=1e-9)


def test_every_metric_closes_on_its_own_tax(found):
    closure = found[2].closure_frame().set_index("metric")
    assert list(closure.index) == ["nll", "kl", "entropy"]
    assert closure.loc[["nll", "kl"], "closed"].all()
    assert (closure["residual"].abs() < 1e-3 * closure["tax"].abs() + 2e-4).all()


def test_a_function_of_the_logits_is_measured_as_it_says(found):
    pair, suite, both = found
    from taxlens.activations.items.tokens import encode_suite

    rows = [r for r in encode_suite(suite, pair.base.tokenizer) if r.choice == suite.items[r.item].gold]

    def entropies(model):
        values = []
        for row in rows:
            logits = model(input_ids=torch.tensor([row.ids])).logits[0, row.start - 1 : -1]
            values.append(float(torch.distributions.Categorical(logits=logits).entropy().sum()))
        return np.array(values)

    change = entropies(pair.aligned.model) - entropies(pair.base.model)
    assert both.taxes("words", "entropy") == pytest.approx(change, abs=1e-5)


def test_levels_of_a_metric_of_the_logits_sum_to_its_components(found):
    both = found[2]
    for metric in ("kl", "entropy"):
        whole, heads = (both.effects("words", metric, level)[1].sum(axis=1) for level in ("component", "head"))
        assert heads == pytest.approx(whole, abs=1e-6)


def test_all_metrics_are_in_the_tables(found):
    both = found[2]
    for table in (both.to_frame(), both.items_frame(), both.tokens_frame(), both.path_frame()):
        assert set(table["metric"]) == {"nll", "kl", "entropy"}


def test_a_run_of_metrics_of_the_logits_alone_needs_no_other(build, words):
    one = attribute(build("llama", size=0.1), words(3), metrics=("kl",), max_gradients=7, perplexity=False)
    assert one.closure_frame()["metric"].tolist() == ["kl"]


def test_no_metric_is_refused(build, words):
    with pytest.raises(UsageError, match="no metric to attribute"):
        attribute(build("llama"), words(3), metrics=())


def test_kl_does_not_add_over_segments_and_is_refused_there(build, words):
    pair = build("llama")
    with pytest.raises(UsageError, match="segments do not add"):
        attribute_polyline([pair.base, pair.aligned], words(3), metrics=("kl",))
