"""What the disk refuses, told as an error of the store."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from taxlens.core.errors import StoreError, explain


@contextmanager
def written(path: Path) -> Iterator[None]:
    """Turn what the system says while something of a store is written inside the block into a StoreError.

    Args:
        path: what is written.

    Raises:
        StoreError: with the path, what the system said, and what to try.
    """
    try:
        yield
    except OSError as error:
        raise disk_error(path, error) from error


def disk_error(path: Path | str, error: OSError) -> StoreError:
    """Return the error that says which file of a store could not be written, and why."""
    why = error.strerror or (str(error).splitlines() or [type(error).__name__])[0]
    rows = [("file", path), ("system", why)]
    fix = "make room, check permissions, or choose another path; then --resume: what is committed is kept."
    return StoreError(explain("the store could not be written.", rows, fix))
