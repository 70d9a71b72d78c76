"""A file that was written is there after a power cut: the order of flush, rename and folder flush, and every cut between.

The operations are recorded as the code does them. A disk that loses power keeps, of each file, what was flushed, and of
each folder, the names that were there when it was flushed; of everything later it keeps any part. Every such disk is made
up, and what it holds under a final name is compared with what may stand there.
"""

import itertools
import os
from pathlib import Path

import pytest

from taxlens.activations.capture import writer as writers
from taxlens.core import artifacts
from taxlens.core.artifacts import atomic_path, new_directory, write_json


class Recorder:
    """The module os, with everything that decides what a disk keeps written down."""

    def __init__(self):
        self.done: list[tuple] = []

    def __getattr__(self, name):
        return getattr(os, name)

    def fsync(self, handle):
        path = Path(os.readlink(f"/proc/self/fd/{handle}"))
        if path.is_dir():
            self.done.append(("folder", path))
        else:
            self.done.append(("file", path, path.read_bytes()))
        os.fsync(handle)

    def replace(self, source, target):
        self.done.append(("name", Path(source), Path(target), _content(Path(source))))
        os.replace(source, target)

    rename = replace


def _content(path):
    if path.is_dir():
        return {
            inside.relative_to(path).as_posix(): inside.read_bytes() for inside in path.rglob("*") if inside.is_file()
        }
    return path.read_bytes()


@pytest.fixture
def recorder(monkeypatch):
    found = Recorder()
    for module in (artifacts, writers):
        monkeypatch.setattr(module, "os", found)
    return found


def disks(done, upto):
    """Every content that a disk may have under each final name after `upto` operations: {name: content or None}, one a disk."""
    flushed, names, lasting = {}, [], {}
    for step in done[:upto]:
        if step[0] == "file":
            flushed[step[1]] = step[2]
        elif step[0] == "name":
            names.append((step[1], step[2], step[3]))
        else:
            for one in [one for one in names if one[1].parent == step[1]]:
                lasting[one[1]] = _kept(one, flushed)
                names.remove(one)
    for chosen in itertools.product([False, True], repeat=len(names)):
        yield lasting | {one[1]: _kept(one, flushed) for one, there in zip(names, chosen) if there}


def _kept(one, flushed):
    """What a renamed file (or folder) holds on the disk: what was flushed of it; nothing else is sure."""
    source, _, content = one
    if isinstance(content, dict):
        return {name: flushed.get(source / name, b"") for name in content}
    return flushed.get(source, b"")


def check_every_cut(done, target, allowed, at_last):
    for upto in range(len(done) + 1):
        for disk in disks(done, upto):
            assert disk.get(target) in allowed, (upto, done[:upto])
    assert [disk.get(target) for disk in disks(done, len(done))] == [at_last], (
        "what was reported as written may be lost"
    )


def kinds(done):
    return [step[0] for step in done]


def test_a_file_is_flushed_before_it_is_named_and_its_folder_after(tmp_path, recorder):
    with atomic_path(tmp_path / "a.txt") as temporary:
        temporary.write_text("done")
    assert kinds(recorder.done) == ["file", "name", "folder"]
    assert recorder.done[0][2] == b"done"
    assert recorder.done[2][1] == tmp_path


def test_no_power_cut_leaves_half_a_file_or_loses_one_that_was_reported(tmp_path, recorder):
    with atomic_path(tmp_path / "a.txt") as temporary:
        temporary.write_text("done")
    check_every_cut(recorder.done, tmp_path / "a.txt", (None, b"done"), b"done")


def test_a_file_that_is_written_again_is_the_old_or_the_new_one(tmp_path, recorder):
    write_json({"n": 1}, tmp_path / "run.json")
    old, first = (tmp_path / "run.json").read_bytes(), len(recorder.done)
    write_json({"n": 2}, tmp_path / "run.json")
    new = (tmp_path / "run.json").read_bytes()
    for upto in range(first, len(recorder.done) + 1):
        assert all(disk[tmp_path / "run.json"] in (old, new) for disk in disks(recorder.done, upto))
    assert [disk[tmp_path / "run.json"] for disk in disks(recorder.done, len(recorder.done))] == [new]


def test_a_directory_is_complete_or_absent_after_every_cut(tmp_path, recorder):
    with new_directory(tmp_path / "model") as folder:
        (folder / "weights.safetensors").write_bytes(b"w" * 100)
        (folder / "inside").mkdir()
        (folder / "inside" / "config.json").write_bytes(b"{}")
    whole = {"weights.safetensors": b"w" * 100, "inside/config.json": b"{}"}
    check_every_cut(recorder.done, tmp_path / "model", (None, whole), whole)
    assert {step[1] for step in recorder.done if step[0] == "folder"} >= {tmp_path}


def test_a_shard_is_flushed_named_and_lasting_before_the_manifest_lists_it(tmp_path, recorder):
    """The manifest must never list a shard that a power cut takes away."""

    class Shard:
        path = tmp_path / ".shard.tmp"

        def close(self):
            self.path.write_bytes(b"rows")
            return {"bytes": 4}

    lasting = []
    writer = writers.Writer.__new__(writers.Writer)
    writer._shard = Shard()
    target = tmp_path / "shard-00000.h5"
    writer._commit(
        target, lambda entry: lasting.append([disk.get(target) for disk in disks(recorder.done, len(recorder.done))])
    )
    assert lasting == [[b"rows"]]
    check_every_cut(recorder.done, target, (None, b"rows"), b"rows")


def test_the_simulation_itself_sees_each_missing_step():
    path, folder, target = Path("/d/.a.tmp"), Path("/d"), Path("/d/a")
    flush, name, last = ("file", path, b"x"), ("name", path, target, b"x"), ("folder", folder)
    check_every_cut([flush, name, last], target, (None, b"x"), b"x")
    for broken in ([name, last], [flush, name], [name, flush, last], [flush, last, name]):
        with pytest.raises(AssertionError):
            check_every_cut(broken, target, (None, b"x"), b"x")


def test_modes_follow_the_umask_whatever_a_library_makes(tmp_path):
    before = os.umask(0o027)
    try:
        with atomic_path(tmp_path / "private") as temporary:
            temporary.unlink()
            os.close(os.open(temporary, os.O_CREAT | os.O_WRONLY, 0o600))
        with new_directory(tmp_path / "model") as folder:
            os.close(os.open(folder / "w", os.O_CREAT | os.O_WRONLY, 0o600))
    finally:
        os.umask(before)
    assert (tmp_path / "private").stat().st_mode & 0o777 == 0o640
    assert (tmp_path / "model" / "w").stat().st_mode & 0o777 == 0o640


def test_leftovers_of_this_machine_go_and_those_of_others_stay(tmp_path):
    mine = artifacts.temporary_name(tmp_path / "a.csv")
    other = tmp_path / ".a.csv.elsewhere@12.tmp"
    older, named = tmp_path / ".b.csv.77.tmp", tmp_path / "c.tmp"
    for path in (mine, other, older, named):
        path.write_text("half")
    assert artifacts.remove_leftovers(tmp_path) == sorted([mine, older])
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([other.name, named.name])


def test_a_directory_over_a_link_to_nothing_is_refused_in_words(tmp_path):
    (tmp_path / "link").symlink_to("nowhere")
    with pytest.raises(artifacts.UsageError, match="a link to nothing"), new_directory(tmp_path / "link"):
        pass
    assert [path.name for path in tmp_path.iterdir()] == ["link"]
