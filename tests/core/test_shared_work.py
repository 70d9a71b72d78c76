"""Loops shared by several processes give one process's results, in order, also where a worker dies."""

from __future__ import annotations

import numpy as np
import pytest

from taxlens.core.errors import ItemError, StoreError, TaxlensError, UsageError
from taxlens.core.executors.local_processes import LocalExecutor
from taxlens.core.executors.supervisor import Supervisor
from taxlens.core.executors.worker_call import WorkerCall
from taxlens.core.plain_files import read_plain, write_arrays, write_plain
from taxlens.core.shared_work import MissingResultError, SharedFolder, shared, sharing, writable
from taxlens.core.stats.intervals import Interval

NUMBERS = [5, 3, 9, 1, 7]


def test_a_loop_alone_is_a_plain_loop():
    assert list(shared("squares", NUMBERS, lambda n: n * n)) == [25, 9, 81, 1, 49]


def test_parts_do_their_own_pieces_and_the_last_finds_the_others(tmp_path):
    done: list[int] = []

    def square(n):
        done.append(n)
        return n * n

    for rank in (0, 1):
        with sharing(SharedFolder(tmp_path, "r", rank=rank, count=3, waits=False)), pytest.raises(MissingResultError):
            list(shared("squares", NUMBERS, square))
    assert done == [5, 1, 3, 7]
    with sharing(SharedFolder(tmp_path, "r", rank=2, count=3, waits=False)) as part:
        assert list(shared("squares", NUMBERS, square)) == [25, 9, 81, 1, 49]
    assert (done[4:], part.done) == ([9], {"made": 1, "found": 4})


def test_a_loop_inside_a_piece_is_done_by_whoever_has_the_piece(tmp_path):
    with sharing(SharedFolder(tmp_path, "r", rank=0, count=1)):
        found = list(shared("outer", [2, 3], lambda n: sum(shared("inner", range(n), lambda k: k))))
    assert found == [1, 3]
    assert len(list(tmp_path.iterdir())) == 2


def test_other_requests_loops_and_pieces_have_other_names(tmp_path):
    one, other = SharedFolder(tmp_path, "r"), SharedFolder(tmp_path, "s")
    keys = {one.key(1, "a", 1), one.key(2, "a", 1), one.key(1, "b", 1), one.key(1, "a", 2), other.key(1, "a", 1)}
    assert len(keys) == 5


def test_loops_of_one_name_are_told_apart_by_their_order(tmp_path):
    for _ in range(2):  # the second time all is read
        with sharing(SharedFolder(tmp_path, "r")):
            found = [list(shared("same", [1], lambda n, add=add: n + add)) for add in (10, 20)]
        assert found == [[11], [21]]


def test_an_error_names_its_piece_and_stays_of_its_kind(tmp_path):
    def fail(n):
        raise ItemError("no such item.")

    with sharing(SharedFolder(tmp_path, "r")), pytest.raises(ItemError, match=r"(?s)no such item.*piece\s+suite, 4"):
        list(shared("suite", [4], fail))


def asked(tmp_path, **more) -> tuple[Supervisor, SharedFolder]:
    told = {"folder": str(tmp_path), "numbers": NUMBERS, "count": 2} | more
    call = WorkerCall("tests.core.worker_calls:squares", told, str(tmp_path))
    watch = Supervisor(LocalExecutor(2), call, retries=1)
    return watch, SharedFolder(writable(tmp_path / "pieces"), "request", rank=0, count=2, check=watch.check)


def test_a_killed_worker_begins_again_and_nothing_is_done_twice_that_was_finished(tmp_path):
    watch, part = asked(tmp_path, dies=1)
    with watch, sharing(part):
        assert list(shared("squares", NUMBERS, lambda n: n * n)) == [25, 9, 81, 1, 49]
        (tmp_path / "over").touch()
    assert [(tmp_path / f"tries-{n}").read_text() for n in (3, 1)] == ["x", "xx"]
    assert len(watch.lost) == 1
    assert "SIGKILL" in watch.lost[0]
    assert "squares, 1" in watch.lost[0]


def test_a_worker_that_always_dies_names_its_piece_and_keeps_the_rest(tmp_path):
    watch, part = asked(tmp_path, dies=1, times=99)
    with (
        watch,
        sharing(part),
        pytest.raises(TaxlensError, match=r"(?s)loses its worker.*piece\s+squares, 1.*not done again"),
    ):
        list(shared("squares", NUMBERS, lambda n: n * n))
    assert len(list((tmp_path / "pieces").glob("*.npz"))) == 4  # 5, 9, 7 here and 3 there


def test_a_workers_own_error_is_raised_here(tmp_path):
    watch, part = asked(tmp_path, fails=3)
    with watch, sharing(part), pytest.raises(ItemError, match=r"(?s)cannot be done.*piece\s+squares, 3.*worker\s+1"):
        list(shared("squares", NUMBERS, lambda n: n * n))


def test_a_folder_that_cannot_be_written_is_refused(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(UsageError, match="workers cannot write there"):
        writable(tmp_path / "file" / "below")


def test_plain_values_come_back_as_they_were(tmp_path):
    torch = pytest.importorskip("torch")
    value = {("nll", "head"): np.eye(2, dtype=np.float32), "n": 3, "x": 0.1, "t": (1, None, [True, "é"]), "e": {}}
    value["names"] = np.array(["a", "b"], dtype=object)
    value["interval"] = Interval(0.1, 0.0, 0.2, 0.95, 3, 2, "exact")
    value["tensor"] = torch.arange(3.0)
    write_plain(tmp_path / "v.npz", value)
    found = read_plain(tmp_path / "v.npz")
    for name in (("nll", "head"), "names", "tensor"):
        np.testing.assert_array_equal(found.pop(name), value.pop(name))
    assert found == value


def test_what_is_not_plain_is_refused_and_a_damaged_file_is_named(tmp_path):
    for value in ({1, 2}, np.array([None, "a"], dtype=object)):
        with pytest.raises(UsageError, match=r"a result must be|an array in a result"):
            write_plain(tmp_path / "v.npz", value)
    (tmp_path / "w.npz").write_bytes(b"PK nothing")
    with pytest.raises(StoreError, match=r"(?s)cannot be read.*w\.npz"):
        read_plain(tmp_path / "w.npz")


def test_a_file_cannot_name_anything_but_a_result_of_taxlens(tmp_path):
    for place in ("os:system", "taxlens.core.artifacts:sha256_text"):
        tree = f'{{"made": ["{place}", {{"dict": []}}]}}'.encode()
        write_arrays(tmp_path / "x.npz", {"tree": np.frombuffer(tree, dtype=np.uint8)})
        with pytest.raises(StoreError, match="is no result of taxlens"):
            read_plain(tmp_path / "x.npz")
