"""What one stage of a run reads and writes, noted while it is under way."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path

from taxlens.core.artifacts import is_temporary, sha256_file
from taxlens.core.json_text import JsonError, parse_json

WRITING = ".writing"
"""Names of files that a stage under way has begun: what a killed one leaves is known by it."""
NOT_OUTPUTS = ("run.json", "log.jsonl", ".lock", WRITING)
RESUMABLE = ("activations.shards/", "activations.h5", "frontier/", "answers/")
"""What a stage that was stopped takes up again: files that it checks by itself."""


class StageRecord:
    """What a stage reads and writes.

    Args:
        folder: the run's folder.
        listed: files of other stages, by the manifest.
        earlier: what earlier passes of this stage wrote, with its SHA-256 where that is known.
    """

    def __init__(self, folder: Path, listed: Iterable[str], earlier: Mapping[str, str | None]) -> None:
        self.folder = folder.absolute()
        self.listed, self.before, self.earlier = set(listed), set(files_of(folder)), earlier
        self.inputs: dict[str, str] = {}
        self.outputs: dict[str, str] = {}
        (folder / WRITING).write_bytes(b"")

    def watch(self, path: Path, digest: str | None) -> None:
        """Note a file that is begun (`digest` None), or finished with this SHA-256."""
        path = path.absolute()
        if not path.is_relative_to(self.folder):
            return
        name = path.relative_to(self.folder).as_posix()
        if name in NOT_OUTPUTS or is_temporary(path):
            return
        if digest is not None:
            self.outputs[name] = digest
        elif name not in self.outputs:
            with open(self.folder / WRITING, "a", encoding="utf-8") as stream:
                stream.write(json.dumps(name) + "\n")

    def adopt(self) -> None:
        """Take in what was written beside `watch`: by other processes, or by an earlier, stopped pass of the stage.

        What an earlier pass wrote keeps the hash that it had then: a file that was damaged since stays damaged. What the
        stage itself took away again is none of its outputs.
        """
        self.outputs = {name: digest for name, digest in self.outputs.items() if (self.folder / name).is_file()}
        for name in files_of(self.folder):
            own = name.startswith(RESUMABLE) or name not in self.before
            if own and name not in self.listed and name not in self.outputs:
                self.outputs[name] = self.earlier.get(name) or sha256_file(self.folder / name)


def files_of(folder: Path) -> list[str]:
    """Every file in a run's folder by its path in it, rising, but for manifest, log, lock and unfinished files."""
    found = (path for path in folder.rglob("*") if path.is_file() and not is_temporary(path))
    names = sorted(path.relative_to(folder).as_posix() for path in found)
    return [name for name in names if name not in NOT_OUTPUTS and not _in_unfinished(name)]


def begun(folder: Path) -> list[str]:
    """The files that the last stage had begun when it was stopped."""
    try:
        lines = (folder / WRITING).read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError):
        return []
    names = []
    for line in lines:
        try:
            names.append(str(parse_json(line)))
        except JsonError:
            continue  # the line that the process was killed in
    return names


def remove(folder: Path, names: Iterable[str], *, but: Mapping[str, str] | Iterable[str] = ()) -> None:
    """Remove files of a run that an earlier pass of a stage left; only files that lie in the folder itself."""
    kept, root = set(but), folder.resolve()
    for name in names:
        path = folder / name
        if name in kept or name in NOT_OUTPUTS or not path.is_file():
            continue
        if path.parent.resolve().is_relative_to(root):
            path.unlink()


def _in_unfinished(name: str) -> bool:
    return any(is_temporary(Path(part)) for part in Path(name).parts[:-1])
