"""Independent pieces of array work side by side, one BLAS thread each: faster than one piece on all threads."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

from threadpoolctl import threadpool_limits

Item = TypeVar("Item")
Made = TypeVar("Made")
MOST = 4


def worker_count(*, most: int = MOST) -> int:
    """Return how many pieces run at once: the cores of this process, within OMP_NUM_THREADS and `most`."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    limit = os.environ.get("OMP_NUM_THREADS", "")
    return max(1, min(cores, most, int(limit) if limit.isdigit() else cores))


def in_order(work: Callable[[Item], Made], items: Iterable[Item], *, most: int = MOST) -> Iterator[Made]:
    """Yield work(item) of every item in their order, a few at a time, each with one BLAS thread.

    Items are drawn as they are needed, so at most as many are held as run at once. The results do not depend on
    how many cores there are. Small factorisations lose more by sharing a matrix over threads than they gain.

    Args:
        work: mostly numpy (which lets other threads run); it shares no state with the other calls.
        items: in this thread, one after the other.
        most: pieces at once, whatever the cores: memory is what limits them.

    Example:
        >>> list(in_order(lambda n: n * n, range(4)))
        [0, 1, 4, 9]
    """
    count = worker_count(most=most)
    with threadpool_limits(1, user_api="blas"):
        if count == 1:
            yield from map(work, items)
            return
        waiting: deque[Future[Made]] = deque()
        with ThreadPoolExecutor(count) as pool:
            for item in items:
                waiting.append(pool.submit(work, item))
                if len(waiting) >= count:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
