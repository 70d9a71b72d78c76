"""Pairs in which biases moved and their weights did not: every level closes."""

import numpy as np
import pytest
import torch

from taxlens.analysis.weights.interpolation import mixture

pytestmark = pytest.mark.filterwarnings("ignore")
LEVELS = ("component", "head", "neuron", "singular")
BIASED = {"llama": {"attention_bias": True, "mlp_bias": True}, "qwen2": {}, "gpt2": {}}


@pytest.mark.parametrize("which", ["every bias", "one bias beside other weights"])
@pytest.mark.parametrize("kind", ["llama", "qwen2", "gpt2"])
def test_biases_that_moved_alone_are_attributed_at_every_level(replicas, kind, which):
    base, aligned = replicas.model(kind, **BIASED[kind]), replicas.model(kind, **BIASED[kind])
    names = [name for name, _ in aligned.named_parameters() if name.endswith("bias")]
    if which == "every bias":
        replicas.drift(aligned, 0.3, only="bias")
    else:
        replicas.drift(aligned, 0.03, only="mlp")
        with torch.no_grad():
            aligned.get_parameter(names[0]).add_(0.5)
    pair = replicas.pair(replicas.save(base, "base"), replicas.save(aligned, "aligned"))
    suite = replicas.suite(3)
    found = pair.attribute(suite, metrics=("nll",), levels=LEVELS, bootstrap=100, neurons=0)
    tax = pair.tax(suite, templates=("plain",), metrics=("nll",), bootstrap=100).to_frame().tax.iloc[0]
    for level in LEVELS:
        assert found.effects("facts", "nll", level)[1].mean(axis=0).sum() == pytest.approx(tax, rel=0.01, abs=2e-4)
    names, values = found.effects("facts", "nll", "singular")
    if which == "every bias":
        moved = {name for name, effect in zip(names, values.mean(axis=0), strict=True) if abs(effect) > 1e-9}
        assert not any(".s" in name for name in moved), "no weight has triples"
        assert any(name.endswith(".rest") for name in moved)
        with mixture(pair.models, dict.fromkeys(names, 1.0), level="singular") as model:
            for name, parameter in model.named_parameters():
                assert torch.equal(parameter, pair.base.model.get_parameter(name)), name
    assert np.isfinite(values).all()
