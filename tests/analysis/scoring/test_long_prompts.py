"""Long rows are scored without attention matrices, to the same numbers; short ones, and models that cannot, as before."""

from __future__ import annotations

import numpy as np
import pytest

from taxlens.analysis.scoring import long_prompts
from taxlens.analysis.scoring.choices import score_suite


@pytest.mark.parametrize("share", [True, False])
def test_scores_of_long_rows_are_those_of_eager_attention(fake_pair, word_suite, monkeypatch, share):
    model, asked = fake_pair.base.model, {"tokenizer": fake_pair.base.tokenizer, "share_prefix": share}
    wanted = score_suite(model, word_suite, **asked)
    monkeypatch.setattr(long_prompts, "LONG", 2)
    seen = []
    hook = model.register_forward_pre_hook(lambda *_: seen.append(model.config._attn_implementation))
    try:
        found = score_suite(model, word_suite, **asked)
    finally:
        hook.remove()
    assert set(seen) == {"sdpa"}
    assert model.config._attn_implementation == "eager"
    assert found.shared == wanted.shared == share
    np.testing.assert_allclose(found.logp, wanted.logp, atol=2e-5)


def test_short_rows_stay_with_eager_attention_to_the_bit(fake_pair):
    with long_prompts.fused_attention(fake_pair.base.model, long_prompts.LONG - 1) as fused:
        assert not fused
    with long_prompts.fused_attention(fake_pair.base.model, long_prompts.LONG) as fused:
        assert fused


def test_a_model_that_caps_its_attention_stays_eager(make_model):
    model = make_model("gemma2")
    with long_prompts.fused_attention(model, 4096) as fused:
        assert not fused
    assert model.config._attn_implementation == "eager"


def test_attention_is_put_back_after_an_error(fake_pair):
    with pytest.raises(KeyError), long_prompts.fused_attention(fake_pair.base.model, 4096):
        raise KeyError
    assert fake_pair.base.model.config._attn_implementation == "eager"
