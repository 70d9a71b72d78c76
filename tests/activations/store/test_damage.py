import json
import shutil

import h5py
import numpy as np
import pytest

from taxlens.activations.capture.capture import capture
from taxlens.activations.store.manifest import read_manifest, seal
from taxlens.activations.store.store import Store, inspect, verify
from taxlens.core.errors import StoreError


@pytest.fixture(scope="module", params=[None, "gzip"], ids=["plain", "gzip"])
def whole(request, make_pair, suite, tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole")
    capture(make_pair(), suite, to=folder / "acts.h5", shard_bytes=8000, compress=request.param).close()
    return folder


@pytest.fixture
def copy(whole, tmp_path):
    shutil.copytree(whole, tmp_path / "copy")
    return tmp_path / "copy"


def truth(folder) -> dict:
    with Store.open(folder / "acts.h5") as store:
        return {(m, layer): store.read("resid_post", layer, model=m) for m in ("base", "aligned") for layer in (0, 1)}


def reads(folder, known) -> tuple[int, int]:
    """Read everything row by row; return (reads refused, reads of wrong data)."""
    refused = wrong = 0
    with Store.open(folder / "acts.h5") as store:
        for (model, layer), values in known.items():
            for row in range(0, store.n_rows, 4):
                try:
                    got = store.read("resid_post", layer, model=model, rows=slice(row, row + 4))
                except StoreError:
                    refused += 1
                else:
                    wrong += not np.array_equal(got, values[row : row + 4])
    return refused, wrong


def test_twenty_flipped_bytes_are_each_found_and_never_returned_as_data(whole, copy):
    known = truth(whole)
    generator = np.random.default_rng(0)
    shards = sorted((copy / "acts.shards").glob("shard-*.h5"))
    for _ in range(20):
        path = shards[generator.integers(len(shards))]
        data = bytearray(path.read_bytes())
        data[generator.integers(len(data))] ^= int(generator.integers(1, 256))
        good = path.read_bytes()
        path.write_bytes(data)
        with pytest.raises(StoreError, match=path.name):
            verify(copy / "acts.h5")
        refused, wrong = reads(copy, known)
        assert refused > 0
        assert wrong == 0
        path.write_bytes(good)
    verify(copy / "acts.h5")


def test_twenty_truncations_are_each_found_by_verify_and_by_the_read(copy):
    generator = np.random.default_rng(1)
    shards = sorted((copy / "acts.shards").glob("shard-*.h5"))
    for _ in range(20):
        path = shards[generator.integers(len(shards))]
        good = path.read_bytes()
        path.write_bytes(good[: generator.integers(len(good))])
        with pytest.raises(StoreError, match=r"another size|unfinished"):
            verify(copy / "acts.h5")
        with Store.open(copy / "acts.h5") as store, pytest.raises(StoreError, match="a shard of the store is damaged"):
            store.read("resid_post", 0)
        path.write_bytes(good)


def test_flipped_bytes_of_manifest_and_view_are_found(copy):
    generator = np.random.default_rng(2)
    for path in (copy / "acts.h5", copy / "acts.shards" / "manifest.json"):
        good = path.read_bytes()
        for _ in range(10):
            data = bytearray(good)
            data[generator.integers(len(data))] ^= 0x40
            path.write_bytes(data)
            with pytest.raises(StoreError):
                verify(copy / "acts.h5")
        path.write_bytes(good)
    verify(copy / "acts.h5")


def test_missing_shard_is_found_and_reads_as_nan_through_plain_h5py(copy):
    (copy / "acts.shards" / "shard-00000.h5").unlink()
    with pytest.raises(StoreError, match="the file is missing"):
        verify(copy / "acts.h5")
    with Store.open(copy / "acts.h5") as store, pytest.raises(StoreError, match="the file is missing"):
        store.read("resid_post", 0, rows=slice(0, 1))
    with h5py.File(copy / "acts.h5") as file:
        assert np.isnan(file["base/resid_post"][0, 0]).all()


def test_shard_of_another_store_is_not_taken_for_its_own(copy):
    shards = sorted((copy / "acts.shards").glob("shard-*.h5"))
    shutil.copy(shards[0], shards[1])
    with pytest.raises(StoreError, match=shards[1].name):
        verify(copy / "acts.h5")


def test_foreign_files_are_refused(tmp_path):
    with h5py.File(tmp_path / "foreign.h5", "w") as file:
        file["x"] = np.arange(3)
    with pytest.raises(StoreError, match="no store here"):
        Store.open(tmp_path / "foreign.h5")
    folder = tmp_path / "odd"
    folder.mkdir()
    odd = {"format": "something else", "format_version": 1}
    (folder / "manifest.json").write_text(json.dumps(odd | {"sha256": seal(odd)}))
    with pytest.raises(StoreError, match="not a taxlens store"):
        Store.open(folder)
    with pytest.raises(StoreError, match="no store here"):
        inspect(tmp_path / "nothing")


def test_store_of_a_newer_format_is_refused_with_both_versions(copy):
    folder = copy / "acts.shards"
    manifest = read_manifest(folder) | {"format_version": 99}
    (folder / "manifest.json").write_text(json.dumps(manifest | {"sha256": seal(manifest)}))
    with pytest.raises(StoreError, match=r"(?s)newer format.*99.*install a newer taxlens"):
        Store.open(copy / "acts.h5")


def test_every_name_of_a_store_opens_it(whole):
    for name in ("acts.h5", "acts.shards", "acts.shards/manifest.json"):
        with Store.open(whole / name) as store:
            assert store.n_rows == 36
