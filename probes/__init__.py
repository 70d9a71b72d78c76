"""Arrays to probes, similarity and spectra: small frozen objects, no models and no files."""

from __future__ import annotations

from importlib import import_module
from typing import Any

_HOMES = {
    "Leace": "pair.leace",
    "PairMoments": "rows.moments",
    "PairProbe": "pair.result",
    "Probe": "kinds.probe",
    "ProbeWarning": "rows.labels",
    "adjust_family": "pair.result",
    "online_code": "kinds.mdl",
    "probe_pair": "pair.probe_pair",
}

__all__ = sorted(_HOMES)


def __getattr__(name: str) -> Any:
    """Return a public name from its home on first use: importing the folder imports nothing heavy."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
