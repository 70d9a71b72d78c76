"""Small random replicas of checkpoints as they are met in the field, and what plain transformers computes on them."""

from __future__ import annotations

import json
import shutil
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, PreTrainedTokenizerFast

import taxlens

PLACES = {
    "France": ("Lyon", "Nice", "Lille", "Paris"), "Peru": ("Lima", "Cusco", "Piura", "Tacna"),
    "Japan": ("Kyoto", "Osaka", "Nara", "Kobe"),
}  # fmt: skip
CHAT = (
    "{{ bos_token }}{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
SPECIAL = ("<pad>", "<s>", "</s>", "<unk>", "<|im_start|>", "<|im_end|>")
SMALL = {
    "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2, "hidden_size": 32,
    "intermediate_size": 48, "vocab_size": 384, "max_position_embeddings": 256, "bos_token_id": 1, "eos_token_id": 2,
    "pad_token_id": 0,
}  # fmt: skip

NO_GROUPS = ("gpt2", "gpt_neox", "opt", "bloom", "gptj")
"""Families without grouped keys and values: their configs take no such number."""


class Replicas:
    """Makes checkpoints under one folder and asks plain transformers about them."""

    chat = CHAT

    def __init__(self, root: Path) -> None:
        self.root = root
        self._trained: Tokenizer | None = None

    def tokenizer(self, *, chat=CHAT, special=SPECIAL, extra=(), normalizer=None) -> PreTrainedTokenizerFast:
        """A byte-level tokenizer of 380 ids, with tokens added past them."""
        raw = Tokenizer(models.BPE())
        raw.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        raw.decoder = decoders.ByteLevel()
        if normalizer is not None:
            raw.normalizer = normalizer
        text = [f"{city} is a city in the country of {land}." for land, cities in PLACES.items() for city in cities]
        alphabet = pre_tokenizers.ByteLevel.alphabet()
        raw.train_from_iterator(
            text * 3,
            trainers.BpeTrainer(
                vocab_size=380, special_tokens=list(special), initial_alphabet=alphabet, show_progress=False
            ),
        )
        raw.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
        made = PreTrainedTokenizerFast(
            tokenizer_object=raw,
            bos_token="<s>",
            eos_token="</s>",
            pad_token="<pad>",
            clean_up_tokenization_spaces=False,
        )
        made.chat_template = chat
        if extra:
            made.add_tokens(list(extra), special_tokens=True)
        return made

    def model(self, kind="llama", *, seed=0, std=0.15, cls=AutoModelForCausalLM, **config):
        """A random model of a family, or of a config; `drift` moves it."""
        torch.manual_seed(seed)
        sizes = {
            k: v
            for k, v in SMALL.items()
            if not isinstance(kind, str) or kind not in NO_GROUPS or k != "num_key_value_heads"
        }
        made = AutoConfig.for_model(kind, **(sizes | config)) if isinstance(kind, str) else kind
        model = cls.from_config(made, attn_implementation="eager") if hasattr(cls, "from_config") else cls(made)
        with torch.no_grad():
            for parameter in model.parameters():
                if parameter.dim() > 1:
                    parameter.normal_(0, std)
        return model.float().eval()

    def drift(self, model, amount=0.03, *, seed=1, only=""):
        """The same model with every weight (whose name holds `only`) a little moved."""
        generator = torch.Generator().manual_seed(seed)
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                if only in name:
                    parameter.add_(amount * torch.randn(parameter.shape, generator=generator))
        return model

    def save(self, model, name, *, tokenizer=None, **options) -> Path:
        """A directory with a model and a tokenizer."""
        folder = self.root / name
        shutil.rmtree(folder, ignore_errors=True)
        model.save_pretrained(folder, **options)
        (self.tokenizer() if tokenizer is None else tokenizer).save_pretrained(folder)
        return folder

    def load(self, folder):
        """What plain transformers reads there."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager").eval()

    def adapter(self, base, config, name, *, scale=0.1, seed=3):
        """(directory of an adapter on the checkpoint `base`, the unmerged PEFT model): the oracle of merging."""
        from peft import get_peft_model

        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            tuned = get_peft_model(self.load(base) if isinstance(base, Path) else base, config)
            generator = torch.Generator().manual_seed(seed)
            with torch.no_grad():
                for parameter in tuned.parameters():
                    if parameter.requires_grad:
                        parameter.add_(scale * torch.randn(parameter.shape, generator=generator))
            tuned.save_pretrained(self.root / name)
        return self.root / name, tuned.eval()

    def suite(self, n=12, *, prompt="{city} is a city in the country of", name="facts"):
        """Items with three choices each."""
        rows = []
        lands = list(PLACES)
        for number, (city, land) in enumerate([(c, k) for k, cities in PLACES.items() for c in cities][:n]):
            rows.append({
                "id": f"f{number}", "prompt": prompt.format(city=city), "choices": [f" {k}" for k in lands],
                "gold": lands.index(land), "group": city,
            })  # fmt: skip
        file = self.root / f"{name}.jsonl"
        file.write_text("\n".join(json.dumps(row) for row in rows) + "\n")
        return taxlens.suite(file)

    def scores(self, model, tokenizer, suite, *, chat=None):
        """Log-probability of every choice by a plain loop, a sequence at a time, its last token unread, [items, choices]."""
        found = np.zeros((len(suite), len(suite.items[0].choices)))
        for i, item in enumerate(suite.items):
            for c, choice in enumerate(item.choices):
                text, special = item.prompt, True
                if chat is not None:
                    turn = [{"role": "user", "content": item.prompt}]
                    text = tokenizer.apply_chat_template(
                        turn, tokenize=False, add_generation_prompt=True, chat_template=chat
                    )
                    special = False
                    choice = choice.lstrip()
                kept = text.rstrip()
                ids = tokenizer.encode(kept + text[len(kept) :] + choice, add_special_tokens=special)
                start = len(tokenizer.encode(kept, add_special_tokens=special))
                with torch.no_grad():
                    logits = model(input_ids=torch.tensor([ids[:-1]]), use_cache=False).logits[0].double()
                logp = logits.log_softmax(-1)
                found[i, c] = sum(float(logp[p - 1, ids[p]]) for p in range(start, len(ids)))
        return found

    def pair(self, base, aligned=None, **options):
        """The product's pair, on the CPU."""
        return taxlens.load_pair(str(base), None if aligned is None else str(aligned), device="cpu", **options)

    def gap(self, pair, suite, base=None, aligned=None, *, chat=None):
        """Largest difference in nats between the product's scores and a plain loop's, of the models that are given."""
        found = pair.tax(suite, templates=("chat" if chat else "plain",), bootstrap=100).scores[0]
        worst = 0.0
        for number, model in enumerate((base, aligned)):
            if model is not None:
                tokenizer = (pair.base, pair.aligned)[number].tokenizer
                worst = max(
                    worst, float(np.abs(self.scores(model, tokenizer, suite, chat=chat) - found[number].logp).max())
                )
        return worst

    def read(self, folder):
        """The tokenizer that plain transformers reads there."""
        return AutoTokenizer.from_pretrained(folder)


@pytest.fixture
def replicas(tmp_path):
    return Replicas(tmp_path)
