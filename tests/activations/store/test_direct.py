import errno
import os

import h5py
import numpy as np
import pandas as pd
import pytest
import torch

from taxlens.activations.store import direct_io as direct
from taxlens.activations.store.direct_io import PAGE, page_aligned, write_at
from taxlens.activations.store.shard import ShardFile, block_hashes


def array(size: int) -> np.ndarray:
    out = page_aligned(size, torch.float32)
    return out.copy_(torch.arange(size, dtype=torch.float32)).numpy()


@pytest.mark.parametrize("size", [1, PAGE // 4, PAGE // 4 + 1, 3 * PAGE + 5])
@pytest.mark.parametrize("offset", [0, PAGE, 24])
def test_bytes_are_where_they_were_asked_for_and_nowhere_else(tmp_path, size, offset):
    path, data = tmp_path / "x", array(size)
    path.write_bytes(b"\xff" * (offset + data.nbytes + 100))
    write_at(path, offset, data)
    got = path.read_bytes()
    assert got[offset : offset + data.nbytes] == data.tobytes()
    assert set(got[:offset]) | set(got[offset + data.nbytes :]) == {0xFF}
    assert len(got) == offset + data.nbytes + 100


def test_memory_begins_at_a_page():
    assert all(page_aligned(n, torch.bfloat16).data_ptr() % PAGE == 0 for n in (1, 1000, 5000))
    assert page_aligned(7, torch.bfloat16).shape == (7,)


@pytest.mark.parametrize("where", ["open", "pwrite", "short"])
def test_where_direct_writing_is_not_to_be_had_the_bytes_are_the_same(tmp_path, monkeypatch, where):
    path, data = tmp_path / "x", array(3 * PAGE)
    path.touch()
    opened, true_open, true_write, tried = set(), os.open, os.pwrite, []

    def open_(name, flags, *rest):
        if flags & os.O_DIRECT:
            tried.append(where)
            if where == "open":
                raise OSError(errno.EINVAL, "no")
        handle = true_open(name, flags & ~os.O_DIRECT, *rest)
        if flags & os.O_DIRECT:
            opened.add(handle)
        return handle

    def pwrite(handle, values, offset):
        if handle in opened and where == "pwrite":
            opened.discard(handle)
            raise OSError(errno.EINVAL, "no")
        if handle in opened and where == "short":
            opened.discard(handle)
            return true_write(handle, values[: PAGE + 100], offset)
        return true_write(handle, values, offset)

    monkeypatch.setattr(direct.os, "open", open_)
    monkeypatch.setattr(direct.os, "pwrite", pwrite)
    write_at(path, 0, data)
    assert tried == [where]
    assert path.read_bytes() == data.tobytes()


def test_a_full_disk_is_told_and_not_tried_again(tmp_path, monkeypatch):
    path, calls = tmp_path / "x", []
    path.touch()

    def full(*_):
        calls.append(1)
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(direct.os, "pwrite", full)
    with pytest.raises(OSError, match="No space"):
        write_at(path, 0, array(2 * PAGE))
    assert len(calls) == 1


def test_a_large_array_of_a_shard_is_written_past_the_cache_but_for_its_last_bytes(tmp_path, monkeypatch):
    true, written = direct._write, {}

    def counted(path, offset, values, flags):
        done = true(path, offset, values, flags & ~os.O_DIRECT)  # whatever this file system allows
        written[bool(flags & os.O_DIRECT)] = done
        return done

    monkeypatch.setattr(direct, "_write", counted)
    data = array(2 * 301 * 64).reshape(2, 301, 64)
    shard = ShardFile(tmp_path / "s.h5", pd.DataFrame({"item": ["a"] * 301}), dtype="float32", layers=(0, 1))
    shard.write("base", "resid_post", data)
    entry = shard.close()
    assert written == {True: data.nbytes // PAGE * PAGE, False: data.nbytes % PAGE}
    assert entry["places"]["base/resid_post"][0] % PAGE == 0
    with h5py.File(tmp_path / "s.h5") as file:
        np.testing.assert_array_equal(file["base/resid_post"][...], data)
        np.testing.assert_array_equal(file["checksums/base/resid_post"][...], block_hashes(data))
