import threading
import time

import numpy as np
import pytest

from taxlens.core.parallel import in_order, processors, quota, worker_count


def test_results_come_in_the_order_of_items_however_long_each_takes(monkeypatch):
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)

    def work(n):
        time.sleep(0.02 * (n % 3 == 0))
        return n

    assert list(in_order(work, range(12))) == list(range(12))


def test_no_more_items_are_drawn_than_run_at_once(monkeypatch):
    monkeypatch.setattr("taxlens.core.parallel.worker_count", lambda **_: 3)
    held, most = set(), []
    lock = threading.Lock()

    def items():
        for n in range(10):
            with lock:
                held.add(n)
                most.append(len(held))
            yield n

    def work(n):
        time.sleep(0.005)
        with lock:
            held.discard(n)

    list(in_order(work, items()))
    assert max(most) <= 4


def test_an_error_of_one_piece_is_raised():
    with pytest.raises(ZeroDivisionError):
        list(in_order(lambda n: 1 // n, [1, 0, 2]))


def test_the_users_thread_limit_is_kept(monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    assert worker_count() == 1
    monkeypatch.setenv("OMP_NUM_THREADS", "many")
    assert worker_count(most=2) in (1, 2)


def test_results_do_not_depend_on_the_number_of_workers(monkeypatch):
    A = np.random.default_rng(0).normal(size=(4, 200, 200))
    found = []
    for count in (1, 3):
        monkeypatch.setattr("taxlens.core.parallel.worker_count", lambda c=count, **_: c)
        found.append(list(in_order(lambda a: np.linalg.svd(a)[1], list(A))))
    np.testing.assert_array_equal(found[0], found[1])


def test_wide_pieces_run_one_by_one_and_narrow_ones_side_by_side(monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "")
    monkeypatch.setattr("taxlens.core.parallel.os.sched_getaffinity", lambda _: set(range(16)), raising=False)
    monkeypatch.setattr("taxlens.core.parallel.quota", lambda: None)
    assert worker_count(width=576) == 4
    assert worker_count(width=4096) == 1
    assert processors() == 16


@pytest.mark.parametrize(
    "text, wanted", [("150000 100000", 2), ("50000 100000", 1), ("max 100000", None), ("", None), ("5 0", None)]
)
def test_processors_follow_the_quota_of_the_control_group(tmp_path, text, wanted):
    (tmp_path / "cpu.max").write_text(text)
    assert quota([(str(tmp_path / "cpu.max"), None), (str(tmp_path / "missing"), None)]) == wanted


def test_the_older_control_group_keeps_quota_and_period_in_two_files(tmp_path):
    (tmp_path / "quota").write_text("400000")
    (tmp_path / "period").write_text("100000")
    assert quota([(str(tmp_path / "quota"), "period")]) == 4
    (tmp_path / "quota").write_text("-1")
    assert quota([(str(tmp_path / "quota"), "period")]) is None
