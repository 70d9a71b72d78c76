"""Adapters restored as adapters: every part that the plan undoes is undone, or the plan is refused."""

import dataclasses
import json
import warnings

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from taxlens.activations.models.loading import load_model
from taxlens.activations.models.pair import load_pair
from taxlens.analysis.frontier import restore_adapter as module
from taxlens.analysis.frontier.plan_files import PlanRecord
from taxlens.analysis.frontier.restore_adapter import restore_adapter
from taxlens.analysis.weights.interpolation import mixture
from taxlens.core.errors import CheckError, UsageError

pytestmark = pytest.mark.filterwarnings("ignore")
KINDS = {
    "plain": LoraConfig(r=2, target_modules=["q_proj", "down_proj"], init_lora_weights=False),
    "rslora": LoraConfig(r=2, target_modules=["q_proj"], use_rslora=True, init_lora_weights=False),
    "head": LoraConfig(r=2, target_modules=["q_proj"], modules_to_save=["lm_head"], init_lora_weights=False),
    "both ends": LoraConfig(r=2, target_modules=["q_proj"], modules_to_save=["lm_head", "embed_tokens"]),
    "embedding": LoraConfig(r=2, target_modules=["q_proj", "embed_tokens"], init_lora_weights=False),
    "own biases": LoraConfig(r=2, target_modules=["q_proj"], lora_bias=True, init_lora_weights=False),
    "all biases": LoraConfig(r=2, target_modules=["q_proj"], bias="all", init_lora_weights=False),
}
SHARE = {"value": 1.0, "low": 1.0, "high": 1.0}
MEASURED = {
    "benefit_kept": SHARE, "harm_kept": SHARE, "returned": SHARE, "n_items": 1, "n_groups": 1, "metric": "nll", "suites": {}, "benefit": ["b"]
}  # fmt: skip


def word_tokenizer():
    names = {name: n for n, name in enumerate(["<pad>", "<s>", "</s>", "<unk>", *(f"w{n}" for n in range(50))])}
    made = Tokenizer(models.WordLevel(names, unk_token="<unk>"))
    made.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(tokenizer_object=made, pad_token="<pad>", bos_token="<s>", eos_token="</s>")


@pytest.fixture
def lora(tmp_path):
    """lora(config) -> (pair, directory of the adapter, directory of the base)."""

    def make(config, **settings):
        torch.manual_seed(0)
        base = LlamaForCausalLM(
            LlamaConfig(
                vocab_size=64, hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4,
                num_key_value_heads=2, max_position_embeddings=64, attention_bias=True, **settings,
            )
        )  # fmt: skip
        folder, out = tmp_path / "base", tmp_path / "adapter"
        base.save_pretrained(folder)
        word_tokenizer().save_pretrained(folder)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            tuned = get_peft_model(base, config)
        with torch.no_grad():
            for parameter in tuned.parameters():
                if parameter.requires_grad:
                    parameter.add_(0.1 * torch.randn_like(parameter))
        tuned.save_pretrained(out)
        return load_pair(folder, adapter=out, device="cpu"), out, folder

    return make


def record(pair, undo, unit="component"):
    return PlanRecord(
        name="p", unit=unit, order="path", undo=undo, energy_undone=0.1, n_units=len(undo), measured=MEASURED,
        margin=0.5, base=pair.base.sha256, aligned=pair.aligned.sha256,
    )  # fmt: skip


@pytest.mark.parametrize("undo", [{"unembed": 1.0, "1.mlp": 1.0}, {"embed": 0.4, "0.attn": 1.0}])
@pytest.mark.parametrize("tied", [False, True], ids=["untied", "tied"])
@pytest.mark.parametrize("kind", KINDS)
def test_the_written_adapter_is_the_mixture_that_was_measured(lora, kind, tied, undo, tmp_path):
    pair, adapter, base = lora(KINDS[kind], tie_word_embeddings=tied)
    out = restore_adapter(pair, record(pair, undo), adapter=adapter, out=tmp_path / "out")
    ids = torch.arange(3, 27).view(2, 12)
    with mixture(pair, undo) as model:
        wanted = model(input_ids=ids).logits
    got = PeftModel.from_pretrained(load_model(base, device="cpu").model, out)(input_ids=ids).logits
    torch.testing.assert_close(got, wanted, rtol=1e-4, atol=1e-4)


def test_a_plan_that_the_adapter_cannot_express_is_refused(lora, tmp_path):
    pair, adapter, _ = lora(KINDS["plain"])
    weight = pair.aligned.model.model.layers[0].mlp.up_proj
    weight.weight = torch.nn.Parameter(weight.weight + 0.1, requires_grad=False)  # as if merged from elsewhere
    with pytest.raises(UsageError, match=r"(?s)cannot express.*up_proj.weight"):
        restore_adapter(pair, record(pair, {"0.mlp": 1.0}), adapter=adapter, out=tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_an_adapter_that_reads_back_as_something_else_is_not_written(lora, tmp_path, monkeypatch):
    pair, adapter, _ = lora(KINDS["head"])
    monkeypatch.setattr(module, "_undone", lambda pair, plan, tensors: tensors)  # nothing is undone
    with pytest.raises(CheckError, match="read back, the adapter is not what was measured"):
        restore_adapter(pair, record(pair, {"unembed": 1.0}), adapter=adapter, out=tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_dora_is_refused_for_a_whole_checkpoint(lora, tmp_path):
    pair, adapter, _ = lora(LoraConfig(r=2, target_modules=["q_proj"], use_dora=True))
    with pytest.raises(UsageError, match="write the whole checkpoint"):
        restore_adapter(pair, record(pair, {"0.attn": 1.0}), adapter=adapter, out=tmp_path / "out")
    config = json.loads((adapter / "adapter_config.json").read_text())
    assert config["use_dora"]
    assert dataclasses.is_dataclass(record(pair, {}))
