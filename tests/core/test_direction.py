"""A direction is a unit vector with an address."""

import numpy as np
import pytest

from taxlens.core.direction import Direction
from taxlens.core.errors import UsageError


def test_a_direction_has_norm_one_and_an_address():
    direction = Direction(np.array([3.0, 4.0]), site="resid_post", layer=7)
    assert np.linalg.norm(direction.vector) == pytest.approx(1.0)
    assert direction.address == "resid_post.7"
    assert direction.cosine(Direction(np.array([-4.0, 3.0]))) == pytest.approx(0.0)


@pytest.mark.parametrize("vector", [np.zeros(3), np.ones((2, 2)), np.array([1.0, np.nan])])
def test_a_zero_or_broken_vector_is_refused(vector):
    with pytest.raises(UsageError, match="finite non-zero vector"):
        Direction(vector)
