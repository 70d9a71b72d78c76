"""Merging where the file system cannot link, and after a merge that was killed."""

import hashlib
import os

import pytest

from taxlens.activations.capture.capture import capture
from taxlens.activations.capture.merge import merge
from taxlens.activations.store.store import Store, verify
from taxlens.core.errors import StoreError

SMALL = 6000


def contents(folder) -> dict[str, str]:
    return {p.name: hashlib.sha256(p.read_bytes()).hexdigest() for p in sorted(folder.glob("shard-*.h5"))}


@pytest.fixture(scope="module")
def whole(make_pair, suite, tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole")
    capture(make_pair(), suite, to=folder / "acts.h5", shard_bytes=SMALL).close()
    return folder / "acts.shards"


@pytest.fixture(scope="module")
def parts(make_pair, suite, tmp_path_factory):
    folder = tmp_path_factory.mktemp("parts")
    for number in (1, 2):
        to = folder / f"part{number}.h5"
        capture(make_pair(), suite, to=to, shard_bytes=SMALL, part=(number, 2)).close()
    return [folder / "part1.h5", folder / "part2.h5"]


@pytest.mark.parametrize("linked", [True, False], ids=["linked", "copied"])
def test_merged_parts_have_the_files_of_one_capture(parts, whole, tmp_path, monkeypatch, linked):
    if not linked:

        def refuse(*_):
            raise OSError(18, "Invalid cross-device link")

        monkeypatch.setattr(os, "link", refuse)
    with merge(parts, to=tmp_path / "m.h5", whole=True) as store:
        assert contents(store.folder) == contents(whole)
    assert (os.stat(tmp_path / "m.shards" / "shard-00000.h5").st_nlink > 1) is linked
    verify(tmp_path / "m.h5")


def test_merge_begins_anew_after_one_that_was_killed_and_leaves_the_parts_alone(parts, whole, tmp_path):
    (tmp_path / "m.shards").mkdir()
    first = parts[0].with_suffix(".shards") / "shard-00000.h5"
    os.link(first, tmp_path / "m.shards" / "shard-00000.h5")
    (tmp_path / "m.shards" / "shard-00001.h5").write_bytes(b"half a file")
    merge(parts, to=tmp_path / "m.h5").close()
    assert contents(tmp_path / "m.shards") == contents(whole)
    verify(parts[0])


def test_damaged_part_is_not_merged(parts, tmp_path):
    path = parts[1].with_suffix(".shards") / "shard-00000.h5"
    good = path.read_bytes()
    path.write_bytes(good[:-1] + bytes([good[-1] ^ 1]))
    with pytest.raises(StoreError, match="not as it was written"):
        merge(parts, to=tmp_path / "m.h5")
    with pytest.raises(StoreError, match="no store here"):
        Store.open(tmp_path / "m.h5")
    path.write_bytes(good)


def test_stores_of_before_places_were_written_read_the_same(parts, tmp_path):
    import shutil

    from taxlens.activations.store.manifest import read_manifest, write_manifest

    for name in ("part1.h5", "part1.shards"):
        source = parts[0].with_name(name)
        (shutil.copytree if source.is_dir() else shutil.copy)(source, tmp_path / name)
    manifest = read_manifest(tmp_path / "part1.shards")
    for entry in manifest["shards"]:
        del entry["places"]
    write_manifest(tmp_path / "part1.shards", manifest)
    with Store.open(tmp_path / "part1.h5") as old, Store.open(parts[0]) as new:
        for model in ("base", "aligned"):
            assert (old.read("resid_post", 1, model=model) == new.read("resid_post", 1, model=model)).all()
