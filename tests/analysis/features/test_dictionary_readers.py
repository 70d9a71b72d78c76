"""Dictionaries that the owning libraries wrote read as those libraries read them; what cannot be read is said.

The files under golden/ were written by sae-lens 6.54, sparsify 1.3.3 and dictionary-learning 0.1 on small random
weights, with the codes and reconstructions that the libraries gave for the inputs in inputs.safetensors.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from taxlens.analysis.features.dictionaries.dictionary import Dictionary
from taxlens.analysis.features.dictionaries.dictionary_files import (
    convert,
    read_dictionary,
    read_record,
    write_dictionary,
)
from taxlens.core.errors import CheckError, ConfigError

GOLDEN = Path(__file__).parent / "golden"
GEMMA = "gemma_scope/layer_3/width_16/average_l0_4"
GEMMA_2 = "gemma_scope_2/resid_post/layer_3_width_16k_l0_small"
FOLDERS = [
    "sl_standard", "sl_layernorm", "sl_tokennorm", "sl_jumprelu", "sl_topk", "sl_topk_rescaled", "sl_skip_transcoder",
    "sparsify_sae/layers.3", "sparsify_transcoder/layers.3", GEMMA, GEMMA_2, "llama_scope",
]  # fmt: skip
PICKLED = ["dl_relu", "dl_jumprelu", "dl_batchtopk", "dl_topk"]


@pytest.fixture(scope="module")
def inputs() -> torch.Tensor:
    return load_file(str(GOLDEN / "inputs.safetensors"))["x"]


def assert_as_its_library(dictionary: Dictionary, folder: Path, inputs: torch.Tensor) -> None:
    golden = load_file(str(folder / "golden.safetensors"))
    codes = dictionary.encode(inputs)
    assert (codes - golden["codes"]).abs().max() < 1e-6 * max(1.0, float(golden["codes"].abs().max()))
    out = dictionary.decode(codes, inputs)
    scale = max(1.0, float(golden["reconstruction"].abs().max()))
    assert (out - golden["reconstruction"]).abs().max() < 1e-6 * scale


@pytest.mark.parametrize("folder", FOLDERS)
def test_codes_and_reconstruction_are_the_owning_librarys(folder, inputs):
    found = read_dictionary(GOLDEN / folder)
    assert_as_its_library(found, GOLDEN / folder, inputs)
    assert found.layer == 3
    assert found.site == "resid_post"


def pickled(folder: str, to: Path) -> Path:
    """The library's file as it saves it: its state dict (kept here as safetensors) by `torch.save`, config beside it."""
    to.mkdir()
    torch.save(load_file(str(GOLDEN / folder / "state.safetensors")), to / "ae.pt")
    shutil.copy(GOLDEN / folder / "config.json", to)
    return to / "ae.pt"


@pytest.mark.parametrize("folder", PICKLED)
def test_converted_pickle_is_the_owning_librarys(folder, inputs, tmp_path):
    file = pickled(folder, tmp_path / "in")
    with pytest.raises(ConfigError, match="taxlens features convert"):
        read_dictionary(file.parent)
    convert(file, tmp_path / "out")
    assert_as_its_library(read_dictionary(tmp_path / "out"), GOLDEN / folder, inputs)


@pytest.mark.parametrize("folder", [*FOLDERS, "dl_batchtopk"])
def test_written_dictionary_reads_back_alike(folder, inputs, tmp_path):
    if folder == "dl_batchtopk":
        found = read_dictionary(convert(pickled(folder, tmp_path / "in"), tmp_path / "first"))
    else:
        found = read_dictionary(GOLDEN / folder)
    again = read_dictionary(write_dictionary(found, tmp_path / "out", record={"seed": 3}))
    assert torch.equal(again.encode(inputs), found.encode(inputs))
    assert torch.allclose(again.reconstruct(inputs), found.reconstruct(inputs))
    assert (again.role, again.kind, again.site, again.layer) == (found.role, found.kind, found.site, found.layer)
    assert read_record(tmp_path / "out")["seed"] == 3


def test_config_of_sae_lens_before_6_keeps_its_hook_name_and_its_bias(inputs, tmp_path):
    folder = tmp_path / "old"
    shutil.copytree(GOLDEN / "sl_standard", folder)
    config = json.loads((folder / "cfg.json").read_text())
    old = {k: v for k, v in config.items() if k not in ("metadata", "apply_b_dec_to_input", "architecture")}
    (folder / "cfg.json").write_text(
        json.dumps(old | {"hook_name": "blocks.3.hook_resid_post", "activation_fn_str": "relu"})
    )
    assert_as_its_library(read_dictionary(folder), folder, inputs)
    assert read_dictionary(folder).address == "resid_post.3"


def test_scale_that_is_not_in_the_files_is_refused(tmp_path):
    folder = tmp_path / "scaled"
    shutil.copytree(GOLDEN / "sl_jumprelu", folder)
    config = json.loads((folder / "cfg.json").read_text())
    (folder / "cfg.json").write_text(json.dumps(config | {"normalize_activations": "expected_average_only_in"}))
    with pytest.raises(ConfigError, match="scale of the dictionary's inputs is not in its files"):
        read_dictionary(folder)


def test_llama_scope_without_its_norms_is_refused(tmp_path):
    folder = tmp_path / "llama"
    shutil.copytree(GOLDEN / "llama_scope", folder)
    config = json.loads((folder / "hyperparams.json").read_text())
    config.pop("dataset_average_activation_norm")
    (folder / "hyperparams.json").write_text(json.dumps(config))
    with pytest.raises(ConfigError, match="dataset_average_activation_norm"):
        read_dictionary(folder)


def test_tensor_of_unknown_meaning_is_refused(tmp_path):
    folder = tmp_path / "layers.3"
    shutil.copytree(GOLDEN / "sparsify_sae/layers.3", folder)
    held = load_file(str(folder / "sae.safetensors"))
    save_file(held | {"input_mean": torch.ones(6)}, str(folder / "sae.safetensors"))
    with pytest.raises(ConfigError, match="input_mean"):
        read_dictionary(folder)


def test_latents_that_are_not_finite_are_named(tmp_path):
    folder = tmp_path / "broken"
    shutil.copytree(GOLDEN / "sl_jumprelu", folder)
    held = load_file(str(folder / "sae_weights.safetensors"))
    held["W_enc"][0, 5] = float("nan")
    save_file(held, str(folder / "sae_weights.safetensors"))
    with pytest.raises(CheckError, match="1, first 5"):
        read_dictionary(folder)


def test_pickle_that_holds_more_than_tensors_is_not_opened(tmp_path):
    torch.save({"encoder.weight": Path("x")}, tmp_path / "ae.pt")
    with pytest.raises(ConfigError, match="more than tensors"):
        convert(tmp_path / "ae.pt", tmp_path / "out")


def test_folder_without_a_dictionary_says_what_it_holds(tmp_path):
    (tmp_path / "notes.md").write_text("nothing")
    with pytest.raises(ConfigError, match=r"notes\.md"):
        read_dictionary(tmp_path)
    with pytest.raises(ConfigError, match="no such dictionary"):
        read_dictionary(tmp_path / "absent")


def test_activations_of_another_width_are_refused(inputs):
    with pytest.raises(CheckError, match="another width"):
        read_dictionary(GOLDEN / "sl_jumprelu").encode(torch.zeros(2, 7))


def test_crosscoder_keeps_both_models_and_its_weighted_threshold(tmp_path):
    generator = torch.Generator().manual_seed(0)
    decoder, encoder = torch.randn(2, 10, 6, generator=generator), torch.randn(2, 6, 10, generator=generator)
    zero = torch.zeros(10), torch.zeros(2, 6)
    found = Dictionary(
        encoder, decoder, *zero, kind="batchtopk", role="crosscoder", weighted=True, threshold=torch.full((10,), 2.0)
    )
    again = read_dictionary(write_dictionary(found, tmp_path))
    x = torch.randn(4, 2, 6, generator=generator)
    by_hand = torch.relu(torch.einsum("nmd,mdw->nw", x, encoder))
    by_hand = by_hand * (by_hand * decoder.norm(dim=2).sum(0) > 2.0)
    assert torch.allclose(again.encode(x), by_hand)
    assert np.allclose(again.reconstruct(x), torch.einsum("nw,mwd->nmd", by_hand, decoder), atol=1e-5)
