"""Attribution patching is the slope of the real patch."""

import numpy as np
import pytest

from taxlens.analysis.interventions.attribution_patching import attribution_patch


def test_the_screen_agrees_with_real_patches_where_a_change_is_small(refusal_pair, refusal_suites):
    screen = attribution_patch(refusal_pair, refusal_suites[0], metric="margin", check=2)
    assert screen.units == ("0.attn", "0.mlp", "1.attn", "1.mlp")
    assert screen.effects.shape == (40, 4)
    last = screen.checked.index("1.mlp")
    predicted = screen.effects[:, screen.units.index("1.mlp")].mean()
    assert predicted == pytest.approx(screen.measured[:, last].mean(), rel=0.35)
    assert np.sign(screen.effects.mean(axis=0)).sum() != 0
    assert "agreement with" in repr(screen)
    assert all(p.grad is None for p in refusal_pair.aligned.model.parameters())
