"""Guards of the tests, in every Python process that has this folder on its path: no network, no checkpoint's code, no questions.

Python imports `sitecustomize` by itself when it starts; `tests/conftest.py` puts the folder on the path of the processes that
tests start. What a process met is kept in `seen`, and written to the file that TAXLENS_TESTS_SEEN names.
"""

from __future__ import annotations

import ipaddress
import os
import sys
import tempfile
from pathlib import Path

SEEN = "TAXLENS_TESTS_SEEN"
seen: list[str] = []
_temporary = str(Path(tempfile.gettempdir()).resolve())
_own = str(Path(__file__).resolve().parents[2])


def _is_local(address: object) -> bool:
    if not isinstance(address, tuple):
        return True  # a socket of the file system
    host = str(address[0])
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host in ("localhost", "")


def _is_foreign(code: object) -> bool:
    """Whether code comes from a file that a test wrote, as a checkpoint's own code would."""
    name = getattr(code, "co_filename", "")
    mine = name.startswith(_own) or "site-packages" in name
    return "transformers_modules" in name or (name.startswith(_temporary) and not mine)


def _met(what: str) -> None:
    seen.append(what)
    if path := os.environ.get(SEEN):
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.write(handle, f"{what}\n".encode("utf-8", "backslashreplace"))
        os.close(handle)


def guard(event: str, arguments: tuple) -> None:
    """Refuse what no test may do, and keep that it was tried."""
    if event == "socket.connect" and not _is_local(arguments[1]):
        _met(f"connect to {arguments[1]}")
        raise ConnectionRefusedError(f"tests do not reach the network: {arguments[1]}")
    if event == "socket.getaddrinfo" and not _is_local((arguments[0] or "localhost",)):
        _met(f"look-up of {arguments[0]}")
        raise ConnectionRefusedError(f"tests do not reach the network: {arguments[0]}")
    if event == "builtins.input":
        _met("question on standard input")
        raise EOFError("tests answer no question")
    if event == "exec" and _is_foreign(arguments[0]):
        _met(f"code of {arguments[0].co_filename}")
        raise PermissionError(f"tests run no foreign code: {arguments[0].co_filename}")


if SEEN in os.environ:
    sys.addaudithook(guard)
