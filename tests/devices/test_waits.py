"""How often the host waits for a device: stated bounds, stage by stage."""

from __future__ import annotations

import pytest

from taxlens.activations.capture.capture import capture
from taxlens.activations.models.prompts import one_prompting
from taxlens.analysis.answers.generation import generate
from taxlens.analysis.path.contraction import Contraction
from taxlens.analysis.path.gradient_passes import differentiate, score_shard, shard_of
from taxlens.analysis.scoring.choices import score_suite
from taxlens.analysis.weights.path_weights import walk
from taxlens.analysis.weights.units import difference_of
from tests.devices.fake_device import devices, spread


def passes(model) -> list[int]:
    """A list that grows by one at each forward pass of a model."""
    seen: list[int] = []
    model.register_forward_pre_hook(lambda *_: seen.append(1))
    return seen


def test_scoring_waits_at_most_twice_a_batch(plain_pair, suites):
    with devices(2) as traffic:
        base = spread(plain_pair, 2).base
        batches = passes(base.model)
        traffic.clear()
        score_suite(base, suites[0], batch_tokens=64)
    assert len(batches) > 2
    assert traffic.waits <= 2 * len(batches), traffic.where()


def test_capture_waits_for_one_event_a_batch_and_blocks_on_nothing(plain_pair, suites, tmp_path):
    with devices(1) as traffic:
        pair = spread(plain_pair, 1)
        capture(pair, suites[0], to=tmp_path / "acts.h5", positions="all", batch_tokens=64).close()
    lines = {key: n for key, n in traffic.lines.items() if "selfcheck" not in key[1] and key[0] in traffic.WAITS}
    assert {kind for kind, _ in lines} == {"event"}, traffic.where()


def test_generation_waits_once_a_token(plain_pair, suites):
    with devices(1) as traffic:
        aligned = spread(plain_pair, 1).aligned
        tokens = passes(aligned.model)
        traffic.clear()
        generate(aligned.model, aligned.tokenizer, [i.prompt for i in suites[0].items], max_new_tokens=6)
    assert len(tokens) >= 6
    assert traffic.waits <= len(tokens), traffic.where()


@pytest.mark.parametrize("count", [1, 2])
def test_one_gradient_of_a_shard_waits_once_whatever_its_batches_and_levels(plain_pair, suites, count):
    with devices(count) as traffic:
        pair = spread(plain_pair, count)
        rows = one_prompting(pair, suites[0], "plain").rows(suites[0])
        levels = ("component", "head", "neuron", "singular")
        with walk(pair) as path, Contraction(path.model, difference_of(pair), levels) as contraction:
            shard = shard_of(path.model, rows, batch_tokens=64)
            model = path.to(0.5)
            traffic.clear()
            differentiate(model, shard, contraction)
            waits = traffic.waits
            traffic.clear()
            score_shard(model, shard)
    assert len(shard.bundles) > 2
    assert waits == 1, traffic.where()
    assert traffic.waits == 1, traffic.where()
