"""What does not fit is refused before it starts, with what there is."""

from __future__ import annotations

import pytest

from taxlens.core.errors import UsageError
from taxlens.core.memory import available_memory, refuse_beyond_memory


def test_memory_is_known_and_within_the_machine():
    found = available_memory()
    assert found is None or 0 < found < 1 << 50


def test_what_does_not_fit_is_refused_with_what_would():
    with pytest.raises(UsageError, match=r"(?s)a map of width 14336.*72\.3 GB.*24\.0 GB.*fewer sites"):
        refuse_beyond_memory("a map of width 14336", 72.3e9, "fewer sites", available=int(24e9))


def test_what_fits_passes():
    refuse_beyond_memory("little", 1e9, "nothing", available=int(24e9))
