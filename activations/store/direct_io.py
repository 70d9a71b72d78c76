"""Bytes from memory to disk past the page cache: what is written once and synchronised at once need not be copied first.

A page of the cache costs processor time to find, fill and write back, and a capture's model wants every core. With `O_DIRECT`
the disk reads the buffer itself. Where the system, the file system or an alignment does not allow it, the same bytes are
written in the ordinary way.
"""

from __future__ import annotations

import errno
import os
from pathlib import Path

import numpy as np
import torch

PAGE = 4096  # what offsets, sizes and addresses must be multiples of
PIECE = 16 << 20  # bytes a call
FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}  # the ordinary way would meet them too


def page_aligned(size: int, dtype: torch.dtype) -> torch.Tensor:
    """Return uninitialised memory [size] that begins at a page."""
    wanted = size * dtype.itemsize
    raw = torch.empty(wanted + PAGE, dtype=torch.uint8)
    skipped = -raw.data_ptr() % PAGE
    return raw[skipped : skipped + wanted].view(dtype)


def write_at(path: Path, offset: int, data: np.ndarray) -> None:
    """Write an array's bytes into an existing file at `offset`, past the page cache where that can be done.

    Raises:
        OSError: if the disk is full or fails.
    """
    values = memoryview(data.reshape(-1).view(np.uint8))
    whole = len(values) // PAGE * PAGE if offset % PAGE == 0 and data.ctypes.data % PAGE == 0 else 0
    done = _write(path, offset, values[:whole], os.O_WRONLY | os.O_DIRECT) if whole and hasattr(os, "O_DIRECT") else 0
    written = _write(path, offset + done, values[done:], os.O_WRONLY)
    if done + written != len(values):
        raise OSError(f"{done + written} of {len(values)} bytes were written")


def _write(path: Path, offset: int, values: memoryview, flags: int) -> int:
    """Write as much as these flags allow; return how many bytes that were (of direct writing, whole pages)."""
    direct = flags & getattr(os, "O_DIRECT", 0)
    try:
        handle = os.open(path, flags)
    except OSError:
        if direct:
            return 0  # a file system without it
        raise
    done = 0
    try:
        while done < len(values):
            wrote = os.pwrite(handle, values[done : done + PIECE], offset + done)
            done += wrote // PAGE * PAGE if direct else wrote
            if not wrote or (direct and wrote % PAGE):
                break
    except OSError as error:
        if not direct or error.errno in FULL:
            raise
    finally:
        os.close(handle)
    return done
