"""The embedded pair with a few items, and a dictionary of random directions for it."""

from __future__ import annotations

import pytest
import torch

from taxlens.activations.items.items import read_suite
from taxlens.activations.models.pair import load_pair
from taxlens.analysis.features.dictionaries.dictionary import Dictionary
from taxlens.demo import resolve, resolve_suite


@pytest.fixture(scope="session")
def embedded_pair():
    return load_pair(resolve("demo:base"), resolve("demo:planted"))


@pytest.fixture(scope="session")
def few_facts():
    whole = read_suite(resolve_suite("demo:facts"))
    return whole.subset(range(0, len(whole), 12))


@pytest.fixture(scope="session")
def change_dictionary(embedded_pair, few_facts):
    """A difference dictionary whose decoders are principal components of the change, both signs: it explains it all."""
    from taxlens.activations.hooks.sites import Address
    from taxlens.analysis.features.give_back import suite_streams

    streams = suite_streams(embedded_pair, few_facts, Address("resid_post", 1))
    moved = streams.moved[streams.read]
    vectors = torch.linalg.eigh(moved.T @ moved)[1][:, -12:].T
    decoder = torch.cat([vectors, -vectors])
    zero = torch.zeros(len(decoder)), torch.zeros(1, decoder.shape[1])
    return Dictionary(
        decoder.T[None].clone(),
        decoder[None],
        *zero,
        role="difference",
        site="resid_post",
        layer=1,
        source="components",
    )


@pytest.fixture(scope="session")
def fake_models(make_model, word_tokenizer):
    """Two small random models as loaded ones."""
    from taxlens.activations.models.loading import LoadedModel

    return [
        LoadedModel(
            make_model("llama", seed), word_tokenizer, f"m{seed}", f"m{seed}", None, torch.device("cpu"), "float32"
        )
        for seed in (0, 1)
    ]
