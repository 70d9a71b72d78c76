"""All shards as one HDF5 file: a view that any h5py opens, without taxlens."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from taxlens.activations.store.shard import FORMAT, MODELS, STORED, VERSION, Shard, join_rows, write_rows
from taxlens.core.artifacts import atomic_path, sha256_file


def write_view(folder: Path, view: Path, manifest: dict[str, Any]) -> str:
    """Write the view of a store whose shards are all committed, and return its SHA-256.

    The row index is copied; arrays are virtual, [layer, row, ...] over all shards. Where a shard is missing, HDF5
    gives NaN: the fill value is NaN on purpose.

    Args:
        folder: where the shards are.
        view: the file to write.
        manifest: the store's manifest.
    """
    frames = []
    for entry in manifest["shards"]:
        shard = Shard(folder / entry["file"], entry)
        frames.append(shard.rows())
        shard.close()
    with atomic_path(view) as temporary, h5py.File(temporary, "w") as file:
        total = int(manifest["rows"])
        file.attrs.update({"format": FORMAT, "format_version": VERSION, "n_rows": total, "view": True})
        write_rows(file, join_rows(frames))
        for model in MODELS:
            for site, shape in manifest["sites"].items():
                _virtual(file, f"{model}/{site}", tuple(shape), folder, view, manifest)
    return sha256_file(view)


def _virtual(
    file: h5py.File, name: str, shape: tuple[int, ...], folder: Path, view: Path, manifest: dict[str, Any]
) -> None:
    stored = STORED[manifest["dtype"]]
    layers = len(manifest["layers"])
    size = (layers, int(manifest["rows"]), *shape)
    # h5py's own create_virtual_dataset stamps the time of creation: two captures would differ in these bytes.
    create = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    create.set_layout(h5py.h5d.VIRTUAL)
    create.set_obj_track_times(False)
    fill = 0x7FC0 if manifest["dtype"] == "bfloat16" else np.nan
    create.set_fill_value(np.array([fill], dtype=stored))
    for entry in manifest["shards"]:
        part = (layers, entry["rows"], *shape)
        target = h5py.h5s.create_simple(size)
        target.select_hyperslab((0, entry["first_row"], *(0 for _ in shape)), part)
        source = os.path.relpath(folder / entry["file"], view.parent).encode("utf-8")
        create.set_virtual(target, source, name.encode("utf-8"), h5py.h5s.create_simple(part))
    model, site = name.split("/")
    parent, kind = file.require_group(model), h5py.h5t.py_create(stored)
    h5py.h5d.create(parent.id, site.encode("utf-8"), kind, h5py.h5s.create_simple(size), dcpl=create)
    made = file[name]
    made.attrs["dtype"] = manifest["dtype"]
    made.attrs["layers"] = np.asarray(manifest["layers"], dtype=np.int64)
