"""A template's time is the processor's, not the clock's."""

from __future__ import annotations

import time

import pytest

from taxlens.activations.items.template_limits import TemplateLimitError, bounded


def test_a_process_that_waits_for_its_turn_is_not_a_slow_template():
    with bounded(seconds=0.05):
        time.sleep(0.3)


def test_a_template_that_computes_without_end_is_stopped():
    with pytest.raises(TemplateLimitError, match="was stopped"), bounded(seconds=0.1):
        while True:
            pass
