"""A concept of 1 % of the variance, planted and weakened in SmolLM2's own activations, is read and found."""

import json
from pathlib import Path

import numpy as np
import pytest

from taxlens.probes.similarity.accumulation import gather
from taxlens.probes.spectra.spectra import spectra

ROOT = Path(__file__).parents[3]
WEIGHTS = ROOT / ".cache" / "smollm2" / "base"
LAYER = 8
PROMPTS = 420

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not WEIGHTS.is_dir(), reason="make demo-real fetches the weights"),
    pytest.mark.filterwarnings("ignore"),
]


class _EnoughError(Exception):
    pass


def prompts():
    texts = []
    for path in sorted((ROOT / "configs" / "smollm2").glob("*.jsonl")):
        for line in path.read_text(encoding="utf-8").splitlines():
            item = json.loads(line)
            texts.append((item.get("prompt") or item.get("text") or "") + (item.get("choices") or [""])[0])
    texts = [text for text in texts if len(text.split()) > 4]
    chosen = np.random.default_rng(0).permutation(len(texts))[:PROMPTS]
    return [texts[index] for index in chosen]


@pytest.fixture(scope="module")
def real():
    """Rows of layer 8 [n, 576] without each prompt's first two tokens, and the prompt of each row."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(WEIGHTS)
    model = AutoModelForCausalLM.from_pretrained(WEIGHTS, dtype=torch.float32).eval()
    seen = []

    def keep(_module, _args, output):
        seen.append((output[0] if isinstance(output, tuple) else output).detach()[0, 2:].numpy())
        raise _EnoughError

    model.model.layers[LAYER].register_forward_hook(keep)
    with torch.no_grad():
        for text in prompts():
            try:
                model.model(input_ids=torch.tensor([tokenizer(text)["input_ids"][:64]]), use_cache=False)
            except _EnoughError:
                continue
    groups = np.repeat(np.arange(len(seen)), [len(rows) for rows in seen])
    return np.concatenate(seen).astype(np.float64), groups


@pytest.fixture(scope="module")
def planted(real):
    X, groups = real
    rng = np.random.default_rng(0)
    v = rng.normal(size=X.shape[1])
    v /= np.linalg.norm(v)
    label = rng.choice([-1.0, 1.0], size=groups.max() + 1)[groups]
    return X + np.outer(label, v) * np.sqrt(0.01 * X.var(0).sum()), v


def weakened(real, planted, gain, noise):
    (X, groups), (base, v) = real, planted
    drift = noise * np.sqrt(X.var(0).sum() / X.shape[1]) * np.random.default_rng(1).normal(size=X.shape)
    aligned = base - (1 - gain) * np.outer((base - base.mean(0)) @ v, v) + drift
    return spectra(gather((base.astype(np.float32), aligned.astype(np.float32)), groups), layer=LAYER)


@pytest.mark.parametrize("noise", [0.0, 0.05])
@pytest.mark.parametrize("gain", [0.8, 0.5, 0.25, 0.0])
def test_gain_of_a_weakened_concept_is_read_to_three_points(real, planted, gain, noise):
    found = weakened(real, planted, gain, noise).get("gain", LAYER)
    assert found.values[0] == pytest.approx(gain, abs=0.03)
    assert abs(found.directions[0] @ planted[1]) >= 0.95
    assert found.values[0] < found.null_low[0]


@pytest.mark.parametrize("noise", [0.0, 0.05])
def test_total_erasure_is_found_by_the_loss_spectrum(real, planted, noise):
    found = weakened(real, planted, 0.0, noise).get("loss", LAYER)
    assert found.values[0] > 0.9
    assert found.outside.tolist() == [0]
    assert abs(found.directions[0] @ planted[1]) >= 0.95


def test_noise_alone_raises_no_alarm(real, planted):
    found = weakened(real, planted, 1.0, 0.05)
    assert len(found.get("gain", LAYER).outside) == 0
    assert len(found.get("loss", LAYER).outside) == 0
