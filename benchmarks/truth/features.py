"""Score the account in features, and what else names directions, on pairs whose changed feature is known.

    python -m benchmarks.truth.features

A row a plant: the mass that the account gives the planted latents against the measured effect of moving their
directions alone; and how well the mean difference (ADL), the first principal component of the change,
the leading gain direction of the spectra and latent scaling point at the plant. F6: pairs without a plant.
"""

from __future__ import annotations

import argparse

import numpy as np
import pandas as pd
import torch

from benchmarks.truth.ground import pair_of, suite_of
from benchmarks.truth.plants.feature_plants import KINDS, FeaturePlant, dictionary_with, plant_feature
from benchmarks.truth.worlds.embed import read_model
from benchmarks.truth.worlds.world import World
from taxlens.activations.hooks.sites import Address
from taxlens.analysis.features.account_run import LOG_ODDS, account_features
from taxlens.analysis.features.feature_account import FeatureAccount
from taxlens.analysis.features.give_back import SuiteStreams, suite_streams
from taxlens.analysis.features.latents_in_models import changed_latents, latent_activity, latents_frame
from taxlens.demo import resolve
from taxlens.probes.spectra.components import components
from taxlens.probes.spectra.spectra import gain_spectrum


def planted_mass(
    account: FeatureAccount, streams: SuiteStreams, plant: FeaturePlant, latents: torch.Tensor
) -> dict[str, float]:
    """Effect of the planted latents in log-odds, and what moving their directions alone does, in either model.

    `restored` gives the directions back to aligned, `removed` takes their change into base; the path's effect lies
    between the two where upper layers bend, so the mass is compared with their mean.
    """
    found = account.suites[streams.suite.name]
    mass = float(found.mean("log_odds")[latents.numpy()].sum())
    v = plant.directions
    given = streams.moved @ v.T @ v
    sides = {
        side: float(streams.returned(given, {"lo": LOG_ODDS}, side)["lo"].mean()) for side in ("restored", "removed")
    }
    inside = float(given.square().sum() / streams.moved.square().sum())
    tax = float(found.taxes["log_odds"].mean())
    return {"tax": tax, "in_plane": inside, "mass": mass, **sides, "ratio": mass / float(np.mean(list(sides.values())))}


def pointers(streams: SuiteStreams, plant: FeaturePlant) -> dict[str, float]:
    """How much of each rival's direction lies in the planted directions: 1 is all of it."""
    moved, v = streams.moved[streams.read].double(), plant.directions.double()

    def inside(direction: torch.Tensor) -> float:
        return float((v @ (direction / direction.norm())).norm())

    first = torch.linalg.eigh(moved.T @ moved)[1][:, -1]
    d = streams.base.shape[1]
    x = streams.base[streams.read].numpy().astype(np.float64)
    y = streams.aligned[streams.read].numpy().astype(np.float64)
    cov = [np.cov(np.hstack([x, y]).T)[a, b] for a, b in ((slice(0, d), slice(0, d)), (slice(d, None), slice(d, None)))]
    cross = np.cov(np.hstack([x, y]).T)[:d, d:]
    gain = torch.as_tensor(gain_spectrum(components(*cov, len(x)), cross)[1][0].copy())
    return {"adl": inside(moved.mean(0)), "pca": inside(first), "spectra": inside(gain)}


def scored(kind: str, *, items: int, seed: int) -> dict[str, object]:
    """One plant's row."""
    model = read_model(resolve("demo:base"))
    plant = plant_feature(model, World(), kind, seed=seed)
    pair = pair_of(model, plant.weights, name="feature")
    suite = suite_of("facts", items=items)
    dictionary, latents = dictionary_with(plant, seed=seed)
    account = account_features(pair, suite, dictionary, metrics=("probability",), max_gradients=31)
    streams = suite_streams(pair, suite, Address("resid_post", plant.layer))
    row: dict[str, object] = {"plant": kind, "seed": seed} | planted_mass(account, streams, plant, latents)
    closure = account.closure_frame().iloc[0]
    row |= {
        "unexplained": closure["unexplained_share"],
        "gradients": closure["gradients"],
        "gate": bool(closure["gate"]),
    }
    nu = latents_frame(streams, dictionary, latents.numpy(), name="plant", template="plain")["nu_reconstruction"]
    return row | pointers(streams, plant) | {"scaling": float(np.nanmedian(nu))}


def nulls(*, items: int, worlds: int = 40) -> dict[str, float]:
    """Latents flagged on pairs without a plant: whole groups of one pair with the two models exchanged at random."""
    model = read_model(resolve("demo:base"))
    plant = plant_feature(model, World(), "F2 attenuated")
    pair = pair_of(model, plant.weights, name="null")
    streams = suite_streams(pair, suite_of("facts", items=items), Address("resid_post", plant.layer))
    found = latent_activity(streams, dictionary_with(plant)[0])
    groups = np.array([streams.suite.items[int(i)].group for i in found.items], dtype=object)
    difference = found.mean_aligned - found.mean_base
    difference = difference[:, np.abs(difference).sum(0) > 0]
    names, index = np.unique(groups.astype(str), return_inverse=True)
    alone, any_adjusted = [], []
    for world in range(worlds):
        signs = np.random.default_rng([7, world]).choice([-1.0, 1.0], size=len(names))[index]
        p, adjusted = changed_latents(difference * signs[:, None], groups, draws=499, seed=world)
        alone.append(float((p < 0.05).mean()))
        any_adjusted.append(bool((adjusted < 0.05).any()))
    return {"flagged at 5 %": float(np.mean(alone)), "pairs flagged after adjustment": float(np.mean(any_adjusted))}


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--items", type=int, default=48)
    parser.add_argument("--seeds", type=int, nargs="*", default=[0])
    given = parser.parse_args()
    rows = [scored(kind, items=given.items, seed=seed) for kind in KINDS for seed in given.seeds]
    print(pd.DataFrame(rows).round(3).to_string(index=False))
    print("F6 null:", nulls(items=given.items))


if __name__ == "__main__":
    main()
