"""Independent pieces of array work: small ones side by side with one BLAS thread each, large ones on all processors."""

from __future__ import annotations

import math
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

from threadpoolctl import threadpool_limits

Item = TypeVar("Item")
Made = TypeVar("Made")
MOST = 4


LARGE = 1500
"""Width from which one factorisation gains more from several threads than several factorisations side by side."""

_QUOTAS = (("/sys/fs/cgroup/cpu.max", None), ("/sys/fs/cgroup/cpu/cpu.cfs_quota_us", "cpu.cfs_period_us"))


def processors(*, most: int | None = None) -> int:
    """Return how many processors this process may really use.

    The cores of its affinity, within its control group's quota (containers, batch systems), OMP_NUM_THREADS and
    `most`. More threads than that share cores and take several times longer than one.
    """
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    named = os.environ.get("OMP_NUM_THREADS", "")
    limits = [cores, quota() or cores, int(named) if named.isdigit() else cores, most or cores]
    return max(1, min(limits))


def quota(files: Sequence[tuple[str, str | None]] = _QUOTAS) -> int | None:
    """Return the processors that the control group allows, rounded up; None without a limit.

    Args:
        files: (file of the quota, file of the period beside it, or None where one file holds both).
    """
    for name, beside in files:
        path = Path(name)
        try:
            words = path.read_text().split()
            period = float((path.parent / beside).read_text()) if beside else float(words[1])
            if words[0] not in ("max", "-1"):
                return max(1, math.ceil(float(words[0]) / period))
        except (OSError, ValueError, IndexError, ZeroDivisionError):
            continue
    return None


def worker_count(*, most: int = MOST, width: int = 0) -> int:
    """Return how many pieces run at once: the processors of this process within `most`; one of width `LARGE` or more."""
    return 1 if width >= LARGE else processors(most=most)


def in_order(
    work: Callable[[Item], Made], items: Iterable[Item], *, most: int = MOST, width: int = 0
) -> Iterator[Made]:
    """Yield work(item) of every item in their order, a few at a time, each with one BLAS thread.

    Pieces of `LARGE` width or more run one after the other, each on all processors: eight hours of 32 layers at width
    4,096 on one thread each are half an hour on sixteen.

    Items are drawn as they are needed, so at most as many are held as run at once. The results do not depend on
    how many cores there are. Small factorisations lose more by sharing a matrix over threads than they gain.

    Args:
        work: mostly numpy (which lets other threads run); it shares no state with the other calls.
        items: in this thread, one after the other.
        most: pieces at once, whatever the cores: memory is what limits them.
        width: of the matrices that a piece factorises.

    Example:
        >>> list(in_order(lambda n: n * n, range(4)))
        [0, 1, 4, 9]
    """
    count = worker_count(most=most, width=width)
    threads = processors() if width >= LARGE else 1
    with threadpool_limits(threads, user_api="blas"):
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
