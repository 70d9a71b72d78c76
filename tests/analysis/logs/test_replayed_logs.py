"""Real tasks of lm-eval, run and logged by lm-eval, give their own aggregates and, asked again, their own log-probabilities."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from taxlens.analysis.logs.import_eval import import_eval
from taxlens.analysis.logs.logged_metrics import METRICS

pytest.importorskip("lm_eval", reason="replaying needs the benchmark extra")
pytestmark = pytest.mark.filterwarnings("ignore")

WORDS = "ice fire river stone cup box tree wind light dark red blue small big cold warm goes sleeps runs eats".split()
TURN = "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
CHAT = TURN + "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
SPECIAL = ["<pad>", "<s>", "</s>", "<unk>", "<|im_start|>", "<|im_end|>"]


def documents(count=6):
    """Documents of ten benchmarks in a few words."""
    rng = np.random.default_rng(0)

    def words(size):
        return " ".join(rng.choice(WORDS, size))

    def rows(make):
        return [make(n) for n in range(count)]

    def truth(n):
        targets = {"choices": [f"{words(2)} {i}." for i in range(4)], "labels": [1, 1, 0, 0]}
        return {"question": words(4), "mc1_targets": targets | {"labels": [1, 0, 0, 0]}, "mc2_targets": targets}

    def letters(n):
        return {"question": words(5), "subject": "s", "choices": [f"{words(1)} {i}" for i in range(4)], "answer": n % 4}

    def arc(n):
        choices = {"text": [f"{words(2)} {i}" for i in range(3)], "label": list("ABC")}
        return {"question": words(5), "choices": choices, "answerKey": "ABC"[n % 3]}

    def gap(n):
        return {
            "sentence": f"the {words(1)} fell as the _ {words(3)}.",
            "option1": f"cup{n}",
            "option2": "box",
            "answer": "12"[n % 2],
        }

    def copa(n):
        choices = {"choice1": words(3) + " 1", "choice2": words(3) + " 2"}
        return {"premise": words(4) + ".", "question": "cause", "label": n % 2} | choices

    return {
        "arc_easy": rows(arc),
        "winogrande": rows(gap),
        "blimp_anaphor_gender_agreement": rows(
            lambda n: {"sentence_good": words(4) + " a.", "sentence_bad": words(4) + " b."}
        ),
        "truthfulqa_mc2": rows(truth),
        "lambada_openai": rows(lambda n: {"text": words(6)}),
        "wikitext": rows(lambda n: {"page": words(20)}),
        "gsm8k": rows(lambda n: {"question": words(5), "answer": f"so\n#### {n}"}),
        "mmlu_anatomy": rows(letters),
        "copa": rows(copa),
        "crows_pairs_english": rows(
            lambda n: {"sent_more": words(4) + " m", "sent_less": words(4) + " l", "bias_type": "gender"}
        ),
    }


@pytest.fixture(scope="module")
def pieces():
    """pieces(bos, template) -> a byte-level tokenizer that adds BOS or not, with a template that writes it or not."""

    def make(*, bos, writes):
        base = Tokenizer(models.BPE(unk_token=None))
        base.pre_tokenizer, base.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
        alphabet = pre_tokenizers.ByteLevel.alphabet()
        trainer = trainers.BpeTrainer(
            vocab_size=600, special_tokens=SPECIAL, initial_alphabet=alphabet, show_progress=False
        )
        base.train_from_iterator([" ".join(WORDS)] * 3, trainer)
        if bos:
            base.post_processor = processors.TemplateProcessing(
                single="<s> $A", pair="<s> $A $B", special_tokens=[("<s>", 1)]
            )
        tokenizer = PreTrainedTokenizerFast(tokenizer_object=base, bos_token="<s>", eos_token="</s>", pad_token="<pad>")
        tokenizer.chat_template = ("{{ bos_token }}" if writes else "") + CHAT
        return tokenizer

    return make


def model_of(tokenizer, seed):
    torch.manual_seed(seed)
    sizes = {
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
    }
    config = LlamaConfig(
        vocab_size=len(tokenizer) + 8, max_position_embeddings=1024, bos_token_id=1, eos_token_id=2, **sizes
    )
    model = LlamaForCausalLM(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() > 1:
                parameter.normal_(0, 0.15)
    return model


def evaluate(model, tokenizer, folder, monkeypatch, *, chat, shots):
    """What lm-eval says of the tasks; its log lies in the folder."""
    from datasets import Dataset
    from lm_eval import simple_evaluate
    from lm_eval.api.task import ConfigurableTask
    from lm_eval.loggers import EvaluationTracker
    from lm_eval.models.huggingface import HFLM
    from lm_eval.tasks import TaskManager

    docs = documents()

    class Splits(dict):
        def __contains__(self, split):
            return True

        def keys(self):
            return ["train", "validation", "test", "dev"]

    def download(self, *args, **kwargs):
        self.dataset = Splits()
        self.dataset.__class__.__missing__ = lambda splits, split: Dataset.from_list(docs[self.config.task])
        rows = Dataset.from_list(docs[self.config.task])
        for split in self.dataset.keys():  # noqa: SIM118
            self.dataset[split] = rows

    monkeypatch.setattr(ConfigurableTask, "download", download)
    lm = HFLM(pretrained=model, tokenizer=tokenizer, batch_size=8, device="cpu", max_length=1000)
    found = simple_evaluate(
        model=lm, tasks=list(docs), task_manager=TaskManager(), bootstrap_iters=0, log_samples=True, apply_chat_template=chat,
        fewshot_as_multiturn=chat and bool(shots), num_fewshot=shots, gen_kwargs={"max_gen_toks": 4}, verbosity="ERROR",
    )  # fmt: skip
    samples = found.pop("samples")
    tracker = EvaluationTracker(output_path=str(folder))
    tracker.general_config_tracker.model_name = folder.name
    tracker.general_config_tracker.model_name_sanitized = "m"
    tracker.general_config_tracker.chat_template = tokenizer.chat_template if chat else None
    tracker.save_results_aggregated(results=found, samples=samples)
    for task, lines in samples.items():
        tracker.save_results_samples(task_name=task, samples=lines)
    return json.loads(next((folder / "m").glob("results_*.json")).read_text())["results"]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("bos", "writes", "chat", "shots"),
    [(True, False, False, None), (True, True, True, None), (True, False, True, 2), (False, True, True, 2)],
    ids=[
        "plain",
        "chat, template writes BOS",
        "chat in turns, tokenizer adds BOS",
        "chat in turns, template alone writes BOS",
    ],
)
def test_a_replayed_log_gives_its_own_numbers(pieces, tmp_path, monkeypatch, bos, writes, chat, shots):
    from types import SimpleNamespace

    tokenizer = pieces(bos=bos, writes=writes)
    told, loaded = {}, {}
    for seed, side in enumerate(("base", "aligned")):
        model = model_of(tokenizer, seed)
        loaded[side] = SimpleNamespace(model=model, tokenizer=tokenizer, chat_template=tokenizer.chat_template)
        told[side] = evaluate(model, tokenizer, tmp_path / side, monkeypatch, chat=chat, shots=shots)
    found = import_eval(tmp_path / "base", tmp_path / "aligned", check=loaded["base"])
    mine = found.check[found.check["log"] == "base"]
    assert set(mine["task"]) >= {
        "arc_easy",
        "winogrande",
        "blimp_anaphor_gender_agreement",
        "lambada_openai",
        "truthfulqa_mc2",
    }
    assert (mine["largest"] < 1e-4).all(), mine
    assert (mine["other_choice"] == 0).all()
    frame = found.to_frame().set_index(["suite", "metric"])
    compared = 0
    for task in documents():
        for name, value in told["base"][task].items():
            metric, _, filtered = name.partition(",")
            if metric in METRICS and filtered in ("none", "strict-match") and isinstance(value, float | int):
                ours = METRICS[metric].name if (task, METRICS[metric].name) in frame.index else "mc2"
                for side in ("base", "aligned"):
                    assert frame.loc[(task, ours), side] == pytest.approx(told[side][task][name], rel=1e-9, abs=1e-9)
                compared += 1
    assert compared >= 12
    assert not [note for note in found.notes if "log's own is" in note]
