"""Pieces of work in this process and in several give the same, in the same order, also where a worker dies."""

from __future__ import annotations

import numpy as np
import pytest

from taxlens.core.errors import StoreError, TaxlensError, UsageError
from taxlens.core.executor import Work, executor_of, parts_of, share_of
from taxlens.core.plain_files import read_plain, write_plain


def work(folder, **request) -> Work:
    return Work(
        "tests.core.executor_work:prepare", "tests.core.executor_work:square", {"folder": str(folder)} | request
    )


def squares(found) -> list[int]:
    return [one["square"] for one in found]


@pytest.mark.parametrize("workers", [1, 2])
def test_results_come_in_the_order_of_the_pieces(tmp_path, workers):
    told: list[int] = []
    found = executor_of(workers=workers).map(work(tmp_path), [5, 3, 9, 1, 7], done=told.append)
    assert squares(found) == [25, 9, 81, 1, 49]
    assert sorted(told) == [0, 1, 2, 3, 4]
    assert len(list(tmp_path.glob("worker-*"))) <= workers


def test_a_piece_whose_worker_is_killed_is_done_again_and_the_kept_ones_are_not(tmp_path):
    run = executor_of(workers=2, scratch=tmp_path / "kept")
    assert squares(run.map(work(tmp_path, dies=3), [1, 2, 3, 4])) == [1, 4, 9, 16]
    assert (tmp_path / "piece-3").read_text() == "xx"
    again = executor_of(workers=1, scratch=tmp_path / "kept").map(work(tmp_path, dies=3), [1, 2, 3, 4])
    assert squares(again) == [1, 4, 9, 16]
    assert (tmp_path / "piece-3").read_text() == "xx"  # read from what is kept


def test_a_piece_whose_worker_always_dies_is_named_and_the_others_are_kept(tmp_path):
    run = executor_of(workers=2, retries=1, scratch=tmp_path / "kept")
    with pytest.raises(TaxlensError, match=r"(?s)loses its worker.*piece\s+3.*Finished pieces are not done again"):
        list(run.map(work(tmp_path, dies=3, times=99), [1, 3]))


def test_an_error_in_a_piece_names_it(tmp_path):
    with pytest.raises(TaxlensError, match=r"(?s)cannot be done.*piece\s+2"):
        list(executor_of(workers=2).map(work(tmp_path, fails=2), [1, 2]))


def test_another_request_does_not_find_what_was_kept_for_this_one(tmp_path):
    one, other = work(tmp_path), work(tmp_path, cut=2)
    assert one.key(3) == work(tmp_path).key(3)
    assert len({one.key(3), one.key(4), other.key(3)}) == 3


def test_no_worker_and_a_folder_that_cannot_be_written_are_refused(tmp_path):
    with pytest.raises(UsageError, match="needs a worker"):
        executor_of(workers=0)
    (tmp_path / "file").touch()
    with pytest.raises(UsageError, match="workers cannot write there"):
        executor_of(scratch=tmp_path / "file" / "below")


def test_shares_by_hand_are_all_pieces_once():
    pieces = list(range(7))
    assert [p for n in (1, 2, 3) for p in share_of(pieces, n, 3)] == pieces
    assert parts_of(7, 3) == [(0, 3), (3, 6), (6, 7)]
    with pytest.raises(UsageError, match="no such share"):
        share_of(pieces, 4, 3)


def test_plain_values_come_back_as_they_were(tmp_path):
    value = {("nll", "head"): np.eye(2, dtype=np.float32), "n": 3, "x": 0.1, "t": (1, None, [True, "é"]), "e": {}}
    value["names"] = np.array(["a", "b"], dtype=object)
    write_plain(tmp_path / "v.npz", value)
    found = read_plain(tmp_path / "v.npz")
    np.testing.assert_array_equal(found.pop(("nll", "head")), value.pop(("nll", "head")))
    np.testing.assert_array_equal(found.pop("names"), value.pop("names"))
    assert found == value


def test_what_is_not_plain_is_refused_and_a_damaged_file_is_named(tmp_path):
    with pytest.raises(UsageError, match="set"):
        write_plain(tmp_path / "v.npz", {"a": {1, 2}})
    (tmp_path / "w.npz").write_bytes(b"PK nothing")
    with pytest.raises(StoreError, match=r"(?s)cannot be read.*w\.npz"):
        read_plain(tmp_path / "w.npz")
