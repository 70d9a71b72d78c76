"""What `run.json` says: status, times, config, and of every stage what it was made from and the hash of every output."""

from __future__ import annotations

import importlib.metadata
import json
import os
import platform
import subprocess
import sys
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from taxlens.core.artifacts import sha256_json
from taxlens.core.errors import CheckError, UsageError, explain
from taxlens.core.json_text import read_json

SCHEMA = 2
READ = (1, SCHEMA)
"""Schemas that are read; 1 is of taxlens 0.1, and is not gone on with."""
_CONFIG = {"given": dict, "resolved": dict, "root": str}
_TOP = {"status": str, "stages": dict, "planned": list, "log": list, "suites": dict, "versions": dict, "seed": int}
_STAGE = {"status": str, "inputs": dict, "outputs": dict, "section": dict, "suites": dict, "seconds": (int, float)}
_LOG = {"start": int, "bytes": int, "sha256": str}
"""The parts of run.json that are read, and their types."""
PACKAGES = (
    "taxlens",
    "torch",
    "transformers",
    "transformer-lens",
    "numpy",
    "scipy",
    "h5py",
    "pandas",
    "matplotlib",
    "peft",
)


def now() -> str:
    """Return the present time in UTC, to the second, as ISO 8601."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def versions() -> dict[str, str]:
    """Return the versions of Python, of the packages that numbers depend on, and the source commit if known."""
    found = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            found[name] = "not installed"
    commit = _commit()
    return found | ({"commit": commit} if commit else {})


def hardware() -> dict[str, str]:
    """Return what the numbers were computed on: system, processor, cores, memory, and accelerators if torch is loaded."""
    found = {"system": platform.platform(terse=True), "processor": _processor(), "cores": str(os.cpu_count() or "")}
    if hasattr(os, "sysconf") and "SC_PHYS_PAGES" in os.sysconf_names:
        found["memory"] = f"{os.sysconf('SC_PHYS_PAGES') * os.sysconf('SC_PAGE_SIZE') / 2**30:.0f} GiB"
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_available():
        found["accelerators"] = ", ".join(torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count()))
        found["cuda"] = str(torch.version.cuda)
        found["tf32"] = str(torch.backends.cuda.matmul.allow_tf32)
        found["deterministic"] = str(torch.are_deterministic_algorithms_enabled())
    return found


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    named = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(named, platform.processor() or platform.machine())


def _commit() -> str | None:
    root = Path(__file__).resolve().parents[2]
    if not (root / ".git").exists():
        return None
    try:
        done = subprocess.run(
            ["git", "-C", str(root), "rev-parse", "HEAD"],
            capture_output=True,
            text=True,
            timeout=5,
            check=False,
        )
    except OSError:
        return None
    return done.stdout.strip() or None


def seal(manifest: Mapping[str, Any]) -> str:
    """Return the hash that a manifest carries of itself: of its JSON without the field `seal`."""
    bare = {key: value for key, value in manifest.items() if key != "seal"}
    return sha256_json(json.loads(json.dumps(bare)))


def read_manifest(folder: Path) -> dict[str, Any]:
    """Return the manifest of a run folder.

    Raises:
        UsageError: there is no readable `run.json` of a known schema.
        CheckError: it was changed since it was written.
    """
    path = folder / "run.json"
    fix = "the folder that `taxlens run` printed"
    manifest = read_json(path, title="not a run folder.", error=UsageError, fix=fix)
    schema = manifest.get("schema") if isinstance(manifest, dict) else None
    if schema not in READ:
        rows = [("folder", folder), ("schema", schema), ("known", SCHEMA)]
        raise UsageError(explain("the run was written by another version.", rows, "a newer taxlens, or run it again"))
    if schema == SCHEMA and manifest.get("seal") != seal(manifest):
        rows = [("manifest", path), ("found", "its own checksum does not hold")]
        raise CheckError(explain("run.json was changed since it was written.", rows, "copy the folder again"))
    if wrong := _misshapen(manifest):
        raise UsageError(explain("not a run folder.", [("manifest", path), ("lacks", wrong)], fix))
    return manifest


def _misshapen(manifest: Mapping[str, Any]) -> str:
    """What a manifest lacks, or holds as another type than it is written with; empty if nothing."""
    config, needed = manifest.get("config"), set(_TOP) if manifest["schema"] == SCHEMA else {"status", "stages"}
    if not isinstance(config, dict):
        return "config"
    found = [f"config.{key}" for key, kind in _CONFIG.items() if not isinstance(config.get(key), kind)]
    found += [
        key
        for key, kind in _TOP.items()
        if (key in needed or key in manifest) and not isinstance(manifest.get(key), kind)
    ]
    if found:
        return found[0]
    for group, shape, required in (("stages", _STAGE, {"status"}), ("suites", {}, set()), ("log", _LOG, set(_LOG))):
        held = manifest.get(group, {})
        for name, entry in held.items() if isinstance(held, dict) else enumerate(held):
            if not isinstance(entry, dict):
                return f"{group}.{name}"
            for key, kind in shape.items():
                if (key in required or entry.get(key) is not None) and not isinstance(entry.get(key), kind):
                    return f"{group}.{name}.{key}"
    return ""


def new_manifest(*, given: Mapping[str, Any], resolved: Mapping[str, Any], root: str) -> dict[str, Any]:
    """Return the manifest of a run that has just started.

    Args:
        given: the config as the user wrote it (with overrides).
        resolved: the config with every default.
        root: the folder that the config's relative paths start from.
    """
    return {
        "schema": SCHEMA,
        "status": "started",
        "started": now(),
        "finished": None,
        "versions": versions(),
        "hardware": hardware(),
        "config": {"given": dict(given), "resolved": dict(resolved), "root": root},
        "seed": resolved["seed"],
        "pair": None,
        "suites": {},
        "self_check": None,
        "planned": [],
        "stages": {},
        "log": [],
        "error": None,
    }
