"""A stopwatch notes every step and passes it on."""

from contextlib import contextmanager

from taxlens.core.progress import Progress, Task
from taxlens.core.stopwatch import Stopwatch


class Counting(Progress):
    def __init__(self):
        self.amounts = []

    @contextmanager
    def task(self, name, *, total=None, unit="items"):
        task = Task()
        task.advance = lambda amount=1, *, note="": self.amounts.append(amount)
        yield task


def test_steps_hold_units_and_seconds_and_the_inner_progress_hears_them():
    inner = Counting()
    watch = Stopwatch(inner)
    with watch.task("work", total=5) as task:
        task.advance(2)
        task.advance(3)
    assert inner.amounts == [2, 3]
    assert watch.steps[:, 0].tolist() == [2.0, 3.0]
    assert (watch.steps[:, 1] >= 0).all()


def test_a_stopwatch_that_timed_nothing_is_empty():
    assert Stopwatch().steps.shape == (0, 2)
