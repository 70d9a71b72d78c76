"""One checkpoint loaded: Hugging Face directory, hub id or GGUF file, checked before anyone uses it."""

from __future__ import annotations

import copy
import struct
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
import transformers

from taxlens.activations.models.anatomy import Anatomy, anatomy
from taxlens.activations.models.chat_templates import default_template
from taxlens.activations.models.checkpoint import check_restored, checkpoint_directory, first_line, weights_sha256
from taxlens.activations.models.contents import look
from taxlens.activations.models.structure import check_structure
from taxlens.activations.models.token_ids import ids_beyond, refuse_unknown_ids
from taxlens.activations.models.weight_loading import quiet, weights_in_place
from taxlens.core import vocabularies
from taxlens.core.errors import ModelLoadError, explain, one_of
from taxlens.core.json_text import read_json

if TYPE_CHECKING:
    from transformer_lens.model_bridge import TransformerBridge

DTYPES = {name: getattr(torch, name) for name in vocabularies.DTYPES}


@dataclass(frozen=True)
class LoadedModel:
    """One model of a pair, ready to be read: evaluation mode, eager attention, no gradients of weights.

    Args:
        model: the Hugging Face causal language model.
        tokenizer: its tokenizer.
        source: directory, hub id or name that it came from.
        sha256: hash of its weight files (an adapter's files included).
        chat_template: text of the template that "chat" rows are rendered by; None without one.
        device: where its inputs go.
        dtype: "float32", "bfloat16" or "float16".
        notes: what a reader of results must know of how it was read.
    """

    model: Any
    tokenizer: Any
    source: str
    sha256: str
    chat_template: str | None
    device: torch.device
    dtype: str
    notes: tuple[str, ...] = ()

    def __repr__(self) -> str:
        parts = self.anatomy
        return (
            f"LoadedModel({self.source}: {parts.model_type}, {parts.n_layers} layers of {parts.d_model}, "
            f"{self.dtype} on {self.device}, sha256 {self.sha256[:8]})"
        )

    @cached_property
    def anatomy(self) -> Anatomy:
        """Which module is what (`taxlens.activations.models.anatomy`)."""
        return anatomy(self.model)

    @property
    def parameters(self) -> int:
        """Number of parameters, a tied tensor counted once."""
        return sum(p.numel() for p in self.model.parameters())

    def bridge(self) -> TransformerBridge:
        """Return a TransformerBridge of this model, booted once, that shares its weights.

        The bridge rebuilds the module tree that it is given, so it gets a copy of the tree; the weight tensors are the
        same ones. Nothing is folded: two models keep their common coordinates.
        """
        return self._bridge

    @cached_property
    def _bridge(self) -> TransformerBridge:
        from transformer_lens.model_bridge.sources import build_bridge_from_module

        twin = copy_sharing(self.model)
        name = type(self.model).__name__
        twin.config.architectures = [name]
        return build_bridge_from_module(twin, name, hf_config=twin.config, model_name=self.source)


def copy_sharing(model: torch.nn.Module, *, apart: set[str] | None = None) -> Any:
    """Return a copy of a module tree that shares its tensors, but for the parameters named in `apart`.

    Args:
        model: any module.
        apart: names of parameters that get memory of their own; none by default.
    """
    apart = apart or set()
    split = {id(p) for name, p in model.named_parameters(remove_duplicate=False) if name in apart}
    tensors = [*model.parameters(), *model.buffers()]
    return copy.deepcopy(model, {id(tensor): tensor for tensor in tensors if id(tensor) not in split})


def load_model(
    source: str | Path,
    *,
    gguf: str | None = None,
    dtype: str = "float32",
    device: str | dict[str, Any] = "auto",
    revision: str | None = None,
) -> LoadedModel:
    """Load one checkpoint and check that it is whole and finite.

    Args:
        source: a Hugging Face directory, or a hub id.
        gguf: file name inside the directory, for a GGUF checkpoint (dequantised).
        dtype: "float32", "bfloat16" or "float16".
        device: "auto" (CUDA if there is one), a device name, "balanced" or a module -> device map (several GPUs).
        revision: branch, tag or commit of a hub id.

    Returns:
        The model in evaluation mode with eager attention.

    Raises:
        ModelLoadError: if files are missing, damaged, pickles, of no served family, or hold NaN or infinity.
        CheckError: if taxlens wrote the checkpoint and it was changed since.
    """
    torch_dtype = DTYPES[one_of(dtype, tuple(DTYPES), what="dtype")]
    directory = checkpoint_directory(source, revision=revision)
    if gguf and isinstance(place(device), str | dict):
        rows = [("file", gguf), ("device", device)]
        raise ModelLoadError(explain("a GGUF checkpoint goes to one device.", rows, "device: auto, or one device."))
    check_restored(directory)
    contents = look(directory, gguf=bool(gguf))
    files = [_gguf_file(directory, gguf)] if gguf else list(contents.files)
    model, notes = weights_in_place(directory, contents, gguf=gguf, dtype=torch_dtype, placement=place(device))
    check_finite(model, str(source))
    read_as = check_structure(model, anatomy(model))
    refuse_unknown_ids(model)
    tokenizer = load_tokenizer(directory, gguf=gguf)
    template, note = default_template(tokenizer)
    beyond = ids_beyond(tokenizer, model, directory.name)
    return LoadedModel(
        model=model,
        tokenizer=tokenizer,
        source=str(source),
        sha256=weights_sha256(files),
        chat_template=template,
        device=model.get_input_embeddings().weight.device,
        dtype=dtype,
        notes=tuple(text for text in (*contents.notes, *notes, read_as, note, beyond) if text),
    )


def place(device: str | dict[str, Any]) -> torch.device | str | dict[str, Any]:
    """Return where a model goes: a device, or a device map for several.

    Raises:
        ModelLoadError: if the device is not there.
    """
    if isinstance(device, dict) or device in ("balanced", "sequential"):
        return device
    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        wanted = torch.device(device)
        torch.empty(1, device=wanted)
    except (RuntimeError, AssertionError) as error:
        rows = [("device", device), ("CUDA devices", torch.cuda.device_count())]
        raise ModelLoadError(explain("this device is not here.", rows, "device: auto, or cpu.")) from error
    return wanted


def load_tokenizer(directory: Path, *, gguf: str | None = None) -> Any:
    """Return the tokenizer of a checkpoint directory.

    Raises:
        ModelLoadError: if there is none, or it cannot be read.
    """
    options = {"gguf_file": gguf} if gguf else {}
    kind = transformers.PreTrainedTokenizerFast if _is_generic(directory) else transformers.AutoTokenizer
    try:
        with quiet():
            return kind.from_pretrained(directory, local_files_only=True, trust_remote_code=False, **options)
    except Exception as error:
        rows = [("directory", directory), ("reason", first_line(error))]
        fix = "copy tokenizer.json and tokenizer_config.json beside the weights."
        raise ModelLoadError(explain("no readable tokenizer here.", rows, fix)) from error


def _is_generic(directory: Path) -> bool:
    # AutoTokenizer puts the architecture's own tokenizer (Qwen2's, say) in place of a generic tokenizer.json and so
    # splits text otherwise than the checkpoint was trained with: a generic one is read as it stands.
    config = directory / "tokenizer_config.json"
    if not (config.is_file() and (directory / "tokenizer.json").is_file()):
        return False
    found = read_json(config, title="tokenizer_config.json cannot be read.", error=ModelLoadError, fix="copy it again.")
    named = found.get("tokenizer_class") if isinstance(found, dict) else None
    return named in ("PreTrainedTokenizerFast", "TokenizersBackend")


def check_finite(model: torch.nn.Module, source: str) -> None:
    """Refuse weights that are NaN or infinite.

    Raises:
        ModelLoadError: naming the first such tensor and how many of its values are not finite.
    """
    for name, tensor in model.named_parameters():
        if not bool(torch.isfinite(tensor).all()):
            bad = int((~torch.isfinite(tensor)).sum())
            rows = [("model", source), ("tensor", name), ("not finite", f"{bad} of {tensor.numel()}")]
            fix = "use an undamaged checkpoint, or dtype: float32 if float16 overflowed."
            raise ModelLoadError(explain("weights are NaN or infinite.", rows, fix))


def _gguf_file(directory: Path, name: str) -> Path:
    path = directory / name
    if not path.is_file():
        there = ", ".join(sorted(p.name for p in directory.glob("*.gguf"))) or "no GGUF file"
        rows = [("file", path), ("there", there)]
        raise ModelLoadError(explain("GGUF file not found.", rows, "give its name inside the directory."))
    with open(path, "rb") as stream:
        head = stream.read(24).ljust(24, b"\0")
    magic, version, tensors, keys = struct.unpack("<4sIQQ", head)
    size = path.stat().st_size
    # a tensor's entry takes 32 bytes and more, a key's 13: a header that promises more than the file holds is refused
    if magic != b"GGUF" or version not in (2, 3) or not tensors or not keys or 32 * tensors + 13 * keys > size:
        rows = [
            ("file", path),
            ("bytes", size),
            ("says", f"{magic!r}, version {version}, {tensors} tensors, {keys} keys"),
        ]
        raise ModelLoadError(explain("this is no whole GGUF file.", rows, "copy it again."))
    return path
