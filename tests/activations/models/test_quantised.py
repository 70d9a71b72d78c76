"""Quantised checkpoints made by encoders of the tests' own, number by number: what is read is what the format defines."""

import json

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from taxlens.activations.models.loading import load_model
from taxlens.activations.models.quantised.packed_numbers import bit_fields, spread
from taxlens.core.errors import ModelLoadError

pytestmark = pytest.mark.filterwarnings("ignore")
WEIGHTS = "model.safetensors"
NF4 = (
    -1.0, -0.6961928, -0.52507305, -0.39491749, -0.28444138, -0.18477343, -0.09105004, 0.0, 0.0795803, 0.1609302,
    0.24611230, 0.33791524, 0.44070983, 0.56261700, 0.72295684, 1.0,
)  # fmt: skip
E2M1 = (0, 0.5, 1, 1.5, 2, 3, 4, 6, 0, -0.5, -1, -1.5, -2, -3, -4, -6)


def words(numbers, bits):
    """Python whole numbers as the 32-bit words of one long number, the first in its lowest bits."""
    long = sum(int(n) << (bits * k) for k, n in enumerate(numbers))
    count = -(-len(numbers) * bits // 32)
    return [((long >> (32 * k)) & 0xFFFFFFFF) for k in range(count)]


def int32(rows):
    return torch.from_numpy(np.array(rows, dtype=np.uint32).view(np.int32).copy())


def grouped(weight, bits, size, *, zero=None):
    """(numbers, zero points, scales) of groups of inputs, and the matrix that they stand for; arrays by [out, group]."""
    out, inputs = weight.shape
    parts = weight.reshape(out, inputs // size, size)
    low, high = parts.min(-1), parts.max(-1)
    reach = np.maximum(high, 0) - np.minimum(low, 0) if zero is None else 2 * np.maximum(high, -low)
    scale = np.float16(reach / (2**bits - (1 if zero is None else 2)) + 1e-4).astype(np.float32)
    centre = np.clip(np.rint(-low / scale), 1, 2**bits - 1) if zero is None else np.full_like(scale, zero)
    numbers = np.clip(np.rint(parts / scale[..., None] + centre[..., None]), 0, 2**bits - 1)
    return (
        numbers.reshape(out, inputs),
        centre,
        scale,
        ((numbers - centre[..., None]) * scale[..., None]).reshape(out, inputs),
    )


def gptq(bits=4, size=16, *, shuffled=False, version=1):
    def encode(weight):
        order = np.random.default_rng(0).permutation(weight.shape[1]) if shuffled else np.arange(weight.shape[1])
        numbers, zero, scale, sorted_wanted = grouped(weight[:, order], bits, size)
        wanted, place = np.empty_like(sorted_wanted), np.empty_like(numbers)
        wanted[:, order], place[:, order] = sorted_wanted, numbers
        index = np.empty(weight.shape[1], dtype=np.int32)
        index[order] = np.arange(weight.shape[1]) // size
        stored = zero - 1 if version == 1 else zero
        return {
            "qweight": int32([words(row, bits) for row in place]).T.contiguous(),
            "qzeros": int32([words(row, bits) for row in stored.T]),
            "scales": torch.from_numpy(scale.T.copy()).half(),
            "g_idx": torch.from_numpy(index),
        }, wanted

    settings = {"quant_method": "gptq", "bits": bits, "group_size": size, "desc_act": shuffled}
    return encode, settings | ({"checkpoint_format": "gptq_v2"} if version == 2 else {})


def awq(size=16):
    def encode(weight):
        numbers, zero, scale, wanted = grouped(weight, 4, size)

        def packed(rows):  # [n, outputs]: eight neighbouring outputs a word, in the order that the kernels want
            order = (0, 2, 4, 6, 1, 3, 5, 7)
            return int32([[words([row[8 * c + k] for k in order], 4)[0] for c in range(len(row) // 8)] for row in rows])

        return {
            "qweight": packed(numbers.T),
            "qzeros": packed(zero.T),
            "scales": torch.from_numpy(scale.T.copy()).half(),
        }, wanted

    return encode, {"quant_method": "awq", "bits": 4, "group_size": size, "version": "gemm", "zero_point": True}


def four_bits(*, nested):
    table = np.array(NF4, dtype=np.float32)

    def encode(weight):
        flat = weight.reshape(-1, 64)
        largest = np.abs(flat).max(1).astype(np.float32)
        parts = {}
        if nested:
            inner = np.linspace(-1, 1, 256, dtype=np.float32)
            offset = float(largest.mean())
            outer = np.array(
                [np.abs(c - offset).max() for c in np.split(largest, range(4, len(largest), 4))], np.float32
            )
            steps = np.abs(((largest - offset) / np.repeat(outer, 4)[: len(largest)])[:, None] - inner).argmin(1)
            largest = inner[steps] * np.repeat(outer, 4)[: len(largest)] + np.float32(offset)
            parts = {
                "weight.absmax": torch.from_numpy(steps.astype(np.uint8)),
                "weight.nested_absmax": torch.from_numpy(outer), "weight.nested_quant_map": torch.from_numpy(inner),
            }  # fmt: skip
        numbers = np.abs((flat / largest[:, None])[..., None] - table).argmin(-1)
        wanted = (table[numbers] * largest[:, None]).reshape(weight.shape)
        pairs = numbers.reshape(-1, 2)
        state = {"blocksize": 64, "quant_type": "nf4", "dtype": "float16", "shape": list(weight.shape)}
        state |= {"nested_blocksize": 4, "nested_offset": offset, "nested_dtype": "float32"} if nested else {}
        return {
            "weight": torch.from_numpy((16 * pairs[:, 0] + pairs[:, 1]).astype(np.uint8))[:, None],
            "weight.absmax": torch.from_numpy(largest), "weight.quant_map": torch.from_numpy(table.copy()),
            "weight.quant_state.bitsandbytes__nf4": torch.tensor(list(json.dumps(state).encode()), dtype=torch.uint8),
        } | parts, wanted  # fmt: skip

    return encode, {"quant_method": "bitsandbytes", "load_in_4bit": True, "bnb_4bit_quant_type": "nf4"}


def eight_bits():
    def encode(weight):
        largest = np.abs(weight).max(1)
        numbers = np.rint(weight / largest[:, None] * 127)
        parts = {"weight": torch.from_numpy(numbers.astype(np.int8)), "SCB": torch.from_numpy(largest)}
        parts |= {"weight_format": torch.tensor(0, dtype=torch.uint8)}
        return parts, numbers * largest[:, None] / 127

    return encode, {"quant_method": "bitsandbytes", "load_in_8bit": True}


def packed(bits=4, size=16, *, zeros=False, shuffled=False):
    half = 2 ** (bits - 1)

    def encode(weight):
        order = np.random.default_rng(0).permutation(weight.shape[1]) if shuffled else np.arange(weight.shape[1])
        numbers, zero, scale, sorted_wanted = grouped(weight[:, order], bits, size, zero=None if zeros else half)
        wanted, place = np.empty_like(sorted_wanted), np.empty_like(numbers)
        wanted[:, order], place[:, order] = sorted_wanted, numbers
        parts = {
            "weight_packed": int32([words(row, bits) for row in place]),
            "weight_scale": torch.from_numpy(scale),
            "weight_shape": torch.tensor(weight.shape),
        }
        if zeros:
            parts["weight_zero_point"] = int32([words(column, bits) for column in zero.T]).T.contiguous()
        if shuffled:
            index = np.empty(weight.shape[1], dtype=np.int32)
            index[order] = np.arange(weight.shape[1]) // size
            parts["weight_g_idx"] = torch.from_numpy(index)
        return parts, wanted

    weights = {"num_bits": bits, "type": "int", "strategy": "group", "group_size": size, "symmetric": not zeros}
    groups = {"group_0": {"targets": ["Linear"], "weights": weights}}
    return encode, {"quant_method": "compressed-tensors", "format": "pack-quantized", "config_groups": groups}


def rows_of(kind, method="compressed-tensors"):
    def encode(weight):
        largest = np.abs(weight).max(1, keepdims=True).astype(np.float32)
        if kind == "int8":
            scale = largest / 127
            stored = torch.from_numpy(np.rint(weight / scale).astype(np.int8))
        else:
            scale = largest / 448
            stored = torch.from_numpy((weight / scale).astype(np.float32)).to(torch.float8_e4m3fn)
        parts = {"weight": stored, "weight_scale": torch.from_numpy(scale), "input_scale": torch.ones(1)}
        return parts, stored.float().numpy() * scale

    return encode, {"quant_method": method, "config_groups": {}}


def blocks(block=(32, 32)):
    def encode(weight):
        scale = np.empty([-(-n // b) for n, b in zip(weight.shape, block, strict=True)], dtype=np.float32)
        wanted = np.empty_like(weight)
        stored = torch.empty(weight.shape, dtype=torch.float8_e4m3fn)
        for r, c in np.ndindex(scale.shape):
            place = np.s_[r * block[0] : (r + 1) * block[0], c * block[1] : (c + 1) * block[1]]
            scale[r, c] = np.abs(weight[place]).max() / 448
            stored[place] = torch.from_numpy(weight[place] / scale[r, c]).to(torch.float8_e4m3fn)
            wanted[place] = stored[place].float().numpy() * scale[r, c]
        return {"weight": stored, "weight_scale_inv": torch.from_numpy(scale)}, wanted

    return encode, {"quant_method": "fp8", "weight_block_size": list(block), "activation_scheme": "dynamic"}


def nearest(values):
    return np.abs(values[..., None] - np.array(E2M1)).argmin(-1)


def bytes_of(numbers):
    pairs = numbers.reshape(*numbers.shape[:-1], -1, 2)
    return torch.from_numpy((pairs[..., 0] + 16 * pairs[..., 1]).astype(np.uint8))


def small_floats(kind):
    def encode(weight):
        size = 32 if kind == "mxfp4" else 16
        parts = weight.reshape(weight.shape[0], -1, size)
        largest = np.abs(parts).max(-1)
        whole = np.float32(448 * 6 / np.abs(weight).max())
        if kind == "mxfp4":
            stored = torch.from_numpy((np.floor(np.log2(largest)) - 2 + 127).astype(np.uint8))
            scale = 2.0 ** (stored.numpy().astype(np.float64) - 127)
        else:
            stored = torch.from_numpy(largest / 6 * whole).float().to(torch.float8_e4m3fn)
            scale = stored.float().numpy() / whole
        numbers = nearest(parts / scale[..., None])
        wanted = (np.array(E2M1)[numbers] * scale[..., None]).reshape(weight.shape)
        data = bytes_of(numbers.reshape(weight.shape))
        if kind == "modelopt":
            return {"weight": data, "weight_scale": stored, "weight_scale_2": torch.tensor(1 / whole)}, wanted
        extra = {} if kind == "mxfp4" else {"weight_global_scale": torch.tensor([whole])}
        return {"weight_packed": data, "weight_scale": stored} | extra, wanted

    return encode, {"quant_method": "modelopt" if kind == "modelopt" else "compressed-tensors", "config_groups": {}}


FORMATS = {
    "GPTQ": gptq(), "GPTQ in order of activations": gptq(shuffled=True), "GPTQ 3 bits": gptq(3), "GPTQ 8 bits": gptq(8),
    "GPTQ 2 bits, version 2": gptq(2, version=2), "AWQ": awq(), "bitsandbytes NF4": four_bits(nested=False),
    "bitsandbytes NF4, nested": four_bits(nested=True), "bitsandbytes 8 bits": eight_bits(), "packed": packed(),
    "packed, zero points": packed(zeros=True), "packed, shuffled": packed(shuffled=True), "packed 8 bits": packed(8),
    "int8": rows_of("int8"), "fp8 by rows": rows_of("fp8"), "fbgemm": rows_of("fp8", "fbgemm_fp8"),
    "fp8 by blocks": blocks(), "fp8 by blocks, last smaller": blocks((24, 20)), "nvfp4": small_floats("nvfp4"),
    "mxfp4": small_floats("mxfp4"), "modelopt": small_floats("modelopt"),
}  # fmt: skip


def quantise(folder, encode, settings, *, which="proj.weight"):
    """Rewrite a checkpoint with its matrices quantised; return what each stands for."""
    tensors, wanted = load_file(folder / WEIGHTS), {}
    for name in [name for name in tensors if name.endswith(which)]:
        module = name.removesuffix(".weight")
        parts, meant = encode(tensors.pop(name).float().numpy())
        tensors |= {f"{module}.{part}": tensor.contiguous() for part, tensor in parts.items()}
        wanted[name] = torch.from_numpy(np.asarray(meant, dtype=np.float32))
    save_file(tensors, folder / WEIGHTS, {"format": "pt"})
    config = json.loads((folder / "config.json").read_text()) | {"quantization_config": settings}
    (folder / "config.json").write_text(json.dumps(config))
    return wanted


@pytest.mark.parametrize("kind", FORMATS)
def test_a_quantised_checkpoint_is_read_as_its_format_defines_it(replicas, kind):
    encode, settings = FORMATS[kind]
    folder = replicas.save(model := replicas.model(intermediate_size=64), "quantised")
    wanted = quantise(folder, encode, settings)
    assert len(wanted) == 14
    loaded = load_model(folder, device="cpu")
    for name, weight in wanted.items():
        got, plain = loaded.model.get_parameter(name), model.get_parameter(name)
        torch.testing.assert_close(got, weight, rtol=2e-6, atol=2e-7)
        assert 0 < float((got - plain).abs().max()) < 0.35 * float(plain.abs().max()), (
            "it is near the weights it was made of"
        )
    kept = "model.embed_tokens.weight"
    assert torch.equal(loaded.model.get_parameter(kept), model.get_parameter(kept))
    note = next(note for note in loaded.notes if "dequantised to float32" in note)
    assert "14 matrices of" in note
    assert not hasattr(loaded.model.config, "quantization_config")


def test_a_pair_of_a_plain_and_a_quantised_model_closes_and_says_so(replicas):
    base = replicas.save(replicas.model(), "base")
    aligned = replicas.save(replicas.model(), "aligned")
    quantise(aligned, *gptq())
    pair = replicas.pair(base, aligned)
    assert pair.attribute(replicas.suite(2), metrics=("nll",), bootstrap=100).closed
    assert any("stored as gptq 4-bit" in note for note in pair.models.report.notes)


def test_layers_that_store_inputs_first_are_turned(replicas):
    folder = replicas.save(replicas.model("gpt2"), "gpt2")
    encode, settings = gptq()
    wanted = quantise(folder, lambda weight: encode(weight.T.copy()), settings, which="attn.c_proj.weight")
    loaded = load_model(folder, device="cpu")
    for name, weight in wanted.items():
        torch.testing.assert_close(loaded.model.get_parameter(name), weight.T, rtol=2e-6, atol=2e-7)


def test_experts_in_four_bit_floats_are_read_as_gpt_oss_has_them(replicas):
    config = {"num_local_experts": 4, "num_experts_per_tok": 2, "head_dim": 8, "intermediate_size": 32}
    folder = replicas.save(replicas.model("gpt_oss", **config), "oss")
    tensors, wanted = load_file(folder / WEIGHTS), {}
    for name in [name for name in tensors if name.endswith(("gate_up_proj", "down_proj"))]:
        weight = tensors.pop(name).transpose(1, 2).numpy()  # [experts, outputs, inputs]
        parts = weight.reshape(*weight.shape[:2], -1, 32)
        exponent = np.floor(np.log2(np.abs(parts).max(-1))) - 2
        numbers = nearest(parts / 2.0 ** exponent[..., None])
        meant = np.array(E2M1)[numbers] * 2.0 ** exponent[..., None]
        tensors[f"{name}_blocks"] = bytes_of(numbers)
        tensors[f"{name}_scales"] = torch.from_numpy((exponent + 127).astype(np.uint8))
        wanted[name] = torch.from_numpy(meant.reshape(weight.shape)).float().transpose(1, 2)
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, folder / WEIGHTS, {"format": "pt"})
    config = json.loads((folder / "config.json").read_text()) | {"quantization_config": {"quant_method": "mxfp4"}}
    (folder / "config.json").write_text(json.dumps(config))
    loaded = load_model(folder, device="cpu")
    assert len(wanted) == 4
    for name, weight in wanted.items():
        torch.testing.assert_close(loaded.model.get_parameter(name), weight)
    assert any("4 matrices of MXFP4 experts" in note for note in loaded.notes)


@pytest.mark.parametrize(
    ("change", "words_"),
    [
        (lambda t, s: s.update(version="gemv"), "AWQ of 4 bits, version gemv"),
        (lambda t, s: t.update({"model.layers.0.mlp.up_proj.codebooks": torch.zeros(2)}) or s.update(quant_method="aqlm"), "aqlm"),
        (lambda t, s: s.update(sparsity_config={"format": "sparse-bitmask"}), "sparse weights"),
    ],
)  # fmt: skip
def test_a_format_that_is_not_read_says_what_it_is(replicas, change, words_):
    folder = replicas.save(replicas.model(), "other")
    encode, settings = awq()
    tensors = load_file(folder / WEIGHTS)
    settings = dict(settings)
    change(tensors, settings)
    save_file(tensors, folder / WEIGHTS, {"format": "pt"})
    quantise(folder, encode, settings)
    with pytest.raises(ModelLoadError, match=rf"(?s)quantised weights cannot be read here.*{words_}"):
        load_model(folder, device="cpu")


def test_a_zero_point_that_the_format_cannot_hold_is_refused(replicas):
    folder = replicas.save(replicas.model(), "zero")
    quantise(folder, *gptq())
    tensors = load_file(folder / WEIGHTS)
    name = next(name for name in tensors if name.endswith("qzeros"))
    tensors[name][0, 0] = -1
    save_file(tensors, folder / WEIGHTS, {"format": "pt"})
    with pytest.raises(ModelLoadError, match="a GPTQ zero point of 0"):
        load_model(folder, device="cpu")


@pytest.mark.parametrize("bits", [1, 2, 3, 4, 5, 6, 7, 8])
def test_bit_fields_are_what_one_long_number_holds(bits):
    numbers = np.random.default_rng(bits).integers(0, 2**bits, 96)
    assert bit_fields(int32(words(numbers, bits)), bits)[:96].tolist() == numbers.tolist()


def test_scales_that_fit_no_block_are_refused():
    with pytest.raises(ValueError, match="scales"):
        spread(torch.ones(1, 3), (1, 8))
    assert spread(torch.tensor([[1.0, 2.0, 3.0]]), (1, 8), [(1, 3)]).tolist() == [[1, 1, 1, 2, 2, 2, 3, 3]]
