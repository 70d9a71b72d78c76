"""Fitted probes and directions as files: numbers in safetensors, what they are in JSON beside it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from taxlens.core.direction import Direction
from taxlens.core.errors import StoreError, understood
from taxlens.core.json_text import read_sealed, write_sealed
from taxlens.core.plain_files import read_tensors, write_tensors
from taxlens.probes.kinds.probe import Probe

FORMAT = 1


def save_probes(
    probes: Mapping[tuple[str, int], Probe], path: Path | str, *, about: Mapping[str, object] | None = None
) -> Path:
    """Write the linear probes of one label and return the path of the safetensors file (a JSON file lies beside it).

    Args:
        probes: (model, layer) to probe, as `PairProbe.probes` holds them.
        path: NAME.safetensors.
        about: where they were read: suite, template, label, site, head.

    Example:
        >>> import tempfile
        >>> probe = Probe("ridge", "binary", np.ones((1, 3)), np.zeros(1), ("no", "yes"), source={"layer": 2})
        >>> written = save_probes({("base", 2): probe}, Path(tempfile.mkdtemp()) / "truth.safetensors")
        >>> load_probes(written)["base", 2].predict(np.ones((1, 3)))
        ['yes']
    """
    arrays, said = {}, []
    for number, ((model, layer), probe) in enumerate(probes.items()):
        arrays[f"{number}.coefficients"] = np.ascontiguousarray(probe.coefficients, dtype=np.float64)
        arrays[f"{number}.intercept"] = np.ascontiguousarray(probe.intercept, dtype=np.float64)
        penalty = None if np.isnan(probe.penalty) else float(probe.penalty)
        facts = {"kind": probe.kind, "task": probe.task, "classes": list(probe.classes), "penalty": penalty}
        said.append({"model": model, "layer": int(layer), "source": _plain(probe.source), **facts})
    return _write(Path(path), arrays, {"probes": said, "about": _plain(about or {})})


def load_probes(path: Path | str) -> dict[tuple[str, int], Probe]:
    """Return the probes of a file, by (model, layer); `about` of the file joins each probe's source.

    Raises:
        StoreError: if either file is missing or damaged, or they do not belong together.
    """
    arrays, said = _read(Path(path), "probes")
    out = {}
    for number, facts in enumerate(said["probes"]):
        penalty = float("nan") if facts["penalty"] is None else facts["penalty"]
        weights = arrays[f"{number}.coefficients"], arrays[f"{number}.intercept"]
        source = {**said["about"], **facts["source"]}
        probe = Probe(facts["kind"], facts["task"], *weights, tuple(facts["classes"]), penalty, source)
        out[facts["model"], facts["layer"]] = probe
    return out


def probe_directions(folder: Path | str, *, model: str = "base") -> dict[tuple[str, int], dict[str, Direction]]:
    """Return the directions of a folder's probes of whole rows, by (site, layer) and name "SUITE LABEL TEMPLATE".

    Args:
        folder: as `taxlens probe` leaves it; none or empty gives no directions.
        model: whose probes. Several classes make several directions ("... = CLASS").
    """
    out: dict[tuple[str, int], dict[str, Direction]] = {}
    for path in sorted(Path(folder).glob("*.safetensors")):
        for (of, layer), probe in load_probes(path).items():
            source = probe.source
            if of != model or source.get("head") is not None:
                continue
            site = str(source.get("site", ""))
            name = " ".join(str(source.get(key, "")) for key in ("suite", "label", "template")).strip()
            several = len(probe.coefficients) > 1
            for one in probe.classes if several else (None,):
                direction = probe.direction(site=site, layer=layer, label=one)
                out.setdefault((site, layer), {})[f"{name} = {one}" if several else name] = direction
    return out


def save_directions(directions: Sequence[Direction], path: Path | str) -> Path:
    """Write directions with their provenance and return the path of the safetensors file (JSON beside it).

    Args:
        directions: in any spaces.
        path: NAME.safetensors.
    """
    arrays = {str(number): np.ascontiguousarray(one.vector) for number, one in enumerate(directions)}
    said = [{"site": one.site, "layer": one.layer, "source": _plain(one.source)} for one in directions]
    return _write(Path(path), arrays, {"directions": said})


def load_directions(path: Path | str) -> list[Direction]:
    """Return the directions of a file, in the order they were written.

    Raises:
        StoreError: if either file is missing or damaged, or they do not belong together.
    """
    arrays, said = _read(Path(path), "directions")
    return [Direction(arrays[str(n)], **facts) for n, facts in enumerate(said["directions"])]


def _write(path: Path, arrays: dict[str, np.ndarray], said: dict[str, Any]) -> Path:
    write_tensors(path, arrays)
    write_sealed({"format": FORMAT, **said}, path.with_suffix(".json"))
    return path


def _read(path: Path, what: str) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    title, fix = f"{what} cannot be read.", "write them again: taxlens probe, similarity"
    said = read_sealed(path.with_suffix(".json"), title=title, fix=fix, needed=False)
    tensors, _ = read_tensors(path, title=title, fix=fix)
    arrays = {name: value.numpy() for name, value in tensors.items()}
    with understood(title, file=path, fix=fix, error=StoreError):
        each = len(arrays) // (2 if what == "probes" else 1)
        if said["format"] != FORMAT or len(said[what]) != each:
            raise ValueError(f"format {said['format']}, {len(said[what])} {what} for {len(arrays)} arrays")
    return arrays, said


def _plain(facts: Mapping[str, object]) -> dict[str, Any]:
    """Facts as JSON can hold them: numpy numbers and tuples become plain ones."""
    return json.loads(json.dumps(dict(facts), default=lambda value: value.tolist()))
