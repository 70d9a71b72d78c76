"""A store that a stranger made: no file outside it is read, and no number in its manifest is believed without a look."""

import json
import shutil
from pathlib import Path

import h5py
import numpy as np
import pytest

from taxlens.activations.store.manifest import read_manifest, seal
from taxlens.activations.store.shard import extents, header_sha256, places
from taxlens.activations.store.store import Store, inspect, verify
from taxlens.core.errors import StoreError

ARCHIVE = "tests/archives/format-1/float32"


@pytest.fixture
def store(tmp_path, request):
    root = request.config.rootpath / ARCHIVE
    shutil.copytree(root.with_suffix(".shards"), tmp_path / "s.shards")
    shutil.copy(root.with_suffix(".h5"), tmp_path / "s.h5")
    (tmp_path / "secret").write_bytes(b"root:x:0:0" * 1000)
    return tmp_path / "s.h5"


def folder(store):
    return store.with_suffix(".shards")


def resealed(store, **changes):
    path = folder(store) / "manifest.json"
    manifest = json.loads(path.read_text(encoding="utf-8")) | changes
    path.write_text(json.dumps(manifest | {"sha256": seal(manifest)}), encoding="utf-8")


def shard_edited(store, edit):
    """Change the first shard, and make every hash of the manifest fit again: the seal is unkeyed."""
    path = folder(store) / "shard-00000.h5"
    with h5py.File(path, "r+") as file:
        edit(file)
    manifest = read_manifest(folder(store))
    with h5py.File(path) as file:
        entry = manifest["shards"][0] | {"extents": extents(file), "places": places(file), "bytes": path.stat().st_size}
    with open(path, "rb") as stream:
        entry["header_sha256"] = header_sha256(stream.fileno(), entry["extents"])
    resealed(store, shards=[entry, *manifest["shards"][1:]])


def external(file):
    n = len(file["rows/token_id"])
    del file["rows/token_id"]
    file.create_dataset(
        "rows/token_id", (n,), dtype="<i8", external=[(str(Path(file.filename).with_name("secret")), 0, n * 8)]
    )


def external_link(file):
    del file["rows/token_id"]
    file["rows/token_id"] = h5py.ExternalLink("other.h5", "/x")


def soft_link(file):
    del file["rows/token_id"]
    file["rows/token_id"] = h5py.SoftLink("/rows/position")


def virtual(file):
    n = len(file["rows/token_id"])
    del file["rows/token_id"]
    layout = h5py.VirtualLayout(shape=(n,), dtype="<i8")
    layout[:] = h5py.VirtualSource("other.h5", "x", shape=(n,))
    file.create_virtual_dataset("rows/token_id", layout)


def group_link(file):
    file.move("rows", "elsewhere")
    file["rows"] = h5py.SoftLink("/elsewhere")


def huge(file):
    del file["rows/token_id"]
    file.create_dataset("rows/token_id", (10**12,), dtype="<i8", chunks=(1024,))


def another_length(file):
    for name in list(file["rows"]):
        values = file[f"rows/{name}"][...][:-1]
        del file[f"rows/{name}"]
        file["rows"].create_dataset(name, data=values)


def gone(file):
    del file["rows/token_id"]


def a_group(file):
    del file["rows/token_id"]
    file["rows"].create_group("token_id")


@pytest.mark.parametrize(
    "edit", [external, external_link, soft_link, virtual, group_link, huge, another_length, gone, a_group]
)
def test_a_shard_whose_rows_are_not_its_own_is_refused(store, edit):
    (store.parent / "s.shards" / "secret").write_bytes(b"root:x:0:0" * 1000)
    shard_edited(store, edit)
    for read in (inspect, lambda path: Store.open(path).rows):
        with pytest.raises(StoreError):
            read(store)


def test_checksums_that_lie_elsewhere_are_refused(store):
    def edit(file):
        name = "checksums/base/resid_post"
        shape = file[name].shape
        del file[name]
        file.create_dataset(name, shape, dtype="<u8", external=[("secret", 0, int(np.prod(shape)) * 8)])

    with pytest.raises((StoreError, AssertionError)):
        shard_edited(store, edit)
        verify(store)


MISSHAPEN = {
    "identity": {}, "sites": {}, "shards": {}, "rows": 10**15, "layers": [], "dtype": "float8", "complete": 1, "n_shards": "2",
    "coverage": None, "self_check": None, "report": {}, "view_sha256": 5, "sources": [],
}  # fmt: skip


@pytest.mark.parametrize("key", MISSHAPEN)
def test_a_sealed_manifest_that_no_capture_writes_is_refused(store, key):
    resealed(store, **{key: MISSHAPEN[key]})
    for read in (inspect, Store.open, verify):
        with pytest.raises(StoreError):
            read(store)


@pytest.mark.parametrize(
    "key", ["identity", "sites", "shards", "rows", "layers", "dtype", "complete", "sources", "view_sha256"]
)
def test_a_sealed_manifest_without_a_key_is_refused(store, key):
    path = folder(store) / "manifest.json"
    manifest = {k: v for k, v in json.loads(path.read_text(encoding="utf-8")).items() if k != key}
    path.write_text(json.dumps(manifest | {"sha256": seal(manifest)}), encoding="utf-8")
    for read in (inspect, Store.open):
        with pytest.raises(StoreError):
            read(store)


ENTRIES = [
    {"file": "../secret"}, {"file": "/etc/passwd"}, {"rows": 10**15}, {"rows": -1}, {"rows": 1.5}, {"bytes": -1}, {"first_row": 7},
    {"extents": None}, {"header_sha256": None}, {"index": "x"},
]  # fmt: skip


@pytest.mark.parametrize("change", ENTRIES, ids=lambda change: f"{next(iter(change))} {next(iter(change.values()))}")
def test_a_shard_that_the_manifest_misdescribes_is_refused(store, change):
    shards = read_manifest(folder(store))["shards"]
    resealed(store, shards=[shards[0] | change, *shards[1:]])
    with pytest.raises(StoreError):
        Store.open(store).read("resid_post", 0)
        verify(store)


def test_the_archive_itself_is_read(store):
    with Store.open(store) as opened:
        assert len(opened.rows) == opened.n_rows
    verify(store)
