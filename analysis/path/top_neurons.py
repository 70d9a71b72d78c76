"""The largest neurons of each component by themselves, and all the others as its row `rest`."""

from __future__ import annotations

import dataclasses
import re

import numpy as np

from taxlens.analysis.path.attribution import SuiteEffects


def with_top_neurons(found: SuiteEffects, top: int) -> SuiteEffects:
    """Return the same effects with the `top` largest neurons of each component kept, the others summed into `rest`.

    A neuron's size is its largest |mean effect| over metrics, each in units of the largest neuron's in that metric.
    Units still sum to the component; the quadrature error of `rest` is the sum of its neurons' (an upper bound).

    Args:
        found: effects, with or without the neuron level.
        top: neurons kept of each component; 0 keeps all.
    """
    if "neuron" not in found.units or top <= 0:
        return found
    names = np.array(found.units["neuron"], dtype=object)
    owner = np.array([re.sub(r"\.(n\d+|rest)$", "", name) for name in names], dtype=object)
    size = np.zeros(len(names))
    for (_, level), values in found.values.items():
        if level == "neuron":
            mean = np.abs(values.mean(axis=0))
            size = np.maximum(size, mean / max(float(mean.max(initial=0.0)), np.finfo(float).tiny))
    target, kept = _targets(names, owner, size, top)
    first = [int(np.flatnonzero(target == place)[0]) for place in range(len(kept))]
    values, errors = dict(found.values), dict(found.errors)
    for key in found.values:
        if key[1] == "neuron":
            values[key] = _summed(found.values[key], target, len(kept))
            errors[key] = _summed(found.errors[key][None], target, len(kept))[0]
    layers, kinds = dict(found.layers), dict(found.kinds)
    layers["neuron"] = found.layers["neuron"][first]
    kinds["neuron"] = tuple(found.kinds["neuron"][i] for i in first)
    units = dict(found.units) | {"neuron": tuple(kept)}
    return dataclasses.replace(found, units=units, layers=layers, kinds=kinds, values=values, errors=errors)


def _targets(names: np.ndarray, owner: np.ndarray, size: np.ndarray, top: int) -> tuple[np.ndarray, list[str]]:
    """The kept unit that each unit is counted in, int64 [units], and the kept units' names."""
    kept: list[str] = []
    target = np.zeros(len(names), dtype=np.int64)
    for component in dict.fromkeys(owner):
        mine = np.flatnonzero(owner == component)
        neurons = mine[[re.search(r"\.n\d+$", names[i]) is not None for i in mine]]
        leading = set(neurons[np.argsort(-size[neurons], kind="stable")[:top]].tolist())
        for i in mine:
            if i in leading or i not in neurons:
                target[i] = len(kept)
                kept.append(str(names[i]))
        rest = f"{component}.rest"
        if len(neurons) > len(leading):
            if rest not in kept:
                kept.append(rest)
            target[[i for i in neurons if i not in leading]] = kept.index(rest)
    return target, kept


def _summed(values: np.ndarray, target: np.ndarray, count: int) -> np.ndarray:
    out = np.zeros((values.shape[0], count), dtype=values.dtype)
    np.add.at(out.T, target, values.T)
    return out
