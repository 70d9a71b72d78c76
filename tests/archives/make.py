"""Writes the archive of the current store format. Run once for each format version, and commit what it makes.

python tests/archives/make.py tests/archives/format-1
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import torch
import transformers
from tokenizers import Tokenizer, models, pre_tokenizers

from taxlens.activations.capture.capture import capture
from taxlens.activations.items.items import Item, Suite
from taxlens.activations.models.loading import LoadedModel
from taxlens.activations.models.pair import make_pair


def load(tokenizer, seed: int) -> LoadedModel:
    """A Llama of one layer whose weights the seed alone decides."""
    config = transformers.LlamaConfig(
        vocab_size=16, hidden_size=8, intermediate_size=12, num_hidden_layers=1, num_attention_heads=2,
        num_key_value_heads=1, max_position_embeddings=32, bos_token_id=1, eos_token_id=2,
    )  # fmt: skip
    torch.manual_seed(seed)
    model = transformers.AutoModelForCausalLM.from_config(config, attn_implementation="eager").eval()
    return LoadedModel(
        model.requires_grad_(False), tokenizer, f"seed {seed}", f"{seed:064d}", None, torch.device("cpu"), "float32"
    )


def main(folder: Path) -> None:
    """Capture a dozen rows in all three dtypes, and keep a few values beside them."""
    names = ["<pad>", "<s>", "</s>", "<unk>", *(f"w{n}" for n in range(12))]
    words = Tokenizer(models.WordLevel({name: n for n, name in enumerate(names)}, unk_token="<unk>"))
    words.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer = transformers.PreTrainedTokenizerFast(
        tokenizer_object=words, bos_token="<s>", eos_token="</s>", pad_token="<pad>", unk_token="<unk>"
    )
    items = tuple(
        Item(id=f"i{n}", group=f"g{n % 2}", prompt=f"w{n} w{n + 1}", choices=(" w9", " w10"), gold=n % 2,
             labels={"odd": n % 2, "kind/of": f"é{n}"})
        for n in range(4)
    )  # fmt: skip
    pair = make_pair(load(tokenizer, 0), load(tokenizer, 1))
    known = {}
    for dtype in ("float32", "float16", "bfloat16"):
        to = folder / f"{dtype}.h5"
        sites = ("resid_post", "head_z")
        with capture(pair, Suite(name="old", items=items), to=to, sites=sites, dtype=dtype, shard_bytes=800) as store:
            known[dtype] = {
                f"{model} {site}": store.read(site, 0, model=model).reshape(store.n_rows, -1)[:, :2].tolist()
                for model in ("base", "aligned")
                for site in sites
            }
    (folder / "known.json").write_text(json.dumps(known, indent=1) + "\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
