"""One process at a time in a store's folder."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from taxlens.activations.store.disk import written
from taxlens.core.errors import StoreError, explain


@contextmanager
def sole_writer(folder: Path) -> Iterator[None]:
    """Hold a store's folder for this process inside the block; a killed process frees it.

    Raises:
        StoreError: if another process holds it.
    """
    path = folder / ".lock"
    while True:
        with written(path):
            handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            owner = os.read(handle, 32).decode("ascii", "replace").strip() or "unknown"
            os.close(handle)
            rows = [("folder", folder), ("held by", f"process {owner}")]
            fix = "wait for it, or write to another folder."
            raise StoreError(explain("another process is writing this store.", rows, fix)) from error
        if path.exists() and os.stat(path).st_ino == os.fstat(handle).st_ino:
            break
        os.close(handle)  # the holder before us removed the file that we locked
    try:
        os.truncate(handle, 0)
        os.write(handle, f"{os.getpid()}\n".encode())
        yield
    finally:
        path.unlink(missing_ok=True)
        os.close(handle)
