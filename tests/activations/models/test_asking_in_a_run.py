"""How models are asked is part of a config: it reaches the models, the scores and the manifest of a run."""

import json

import numpy as np
import pytest

import taxlens
from taxlens.activations.models.chat_templates import Asking, asked_with

pytestmark = pytest.mark.filterwarnings("ignore")
CHAT = (
    "{{ bos_token }}{{ strftime_now('%d %b %Y') }} {% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}"
    "<|im_end|>\n{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n"
    "{% if enable_thinking is defined and not enable_thinking %}<think>\n\n</think>\n\n{% endif %}{% endif %}"
)
ASKING = {"system": "Be brief.", "thinking": False, "date": "2024-07-26", "answer_prefix": "It is "}


def test_every_way_of_asking_reaches_models_scores_and_manifest_of_a_run(replicas):
    tokenizer = replicas.tokenizer(chat=CHAT)
    base, aligned = replicas.model(), replicas.drift(replicas.model())
    folders = [replicas.save(m, n, tokenizer=tokenizer) for m, n in ((base, "base"), (aligned, "aligned"))]
    suite = replicas.suite(6)
    settings = {
        "name": "x", "pair": {"base": str(folders[0]), "aligned": str(folders[1])}, "templates": ["chat"],
        "suites": [{"name": "facts", "file": str(replicas.root / "facts.jsonl")}], "tax": {"bootstrap": 100},
        "asking": ASKING, "stages": ["tax"],
    }  # fmt: skip
    file = replicas.root / "x.yaml"
    file.write_text(json.dumps(settings))
    done = taxlens.run(file, out=replicas.root / "run")
    manifest = json.loads((replicas.root / "run" / "run.json").read_text())
    assert manifest["config"]["resolved"]["asking"] == ASKING
    chat = asked_with(CHAT, Asking(**ASKING))
    turn = [{"role": "user", "content": suite.items[0].prompt}]
    text = tokenizer.apply_chat_template(turn, tokenize=False, add_generation_prompt=True, chat_template=chat)
    for part in ("Be brief.", "26 Jul 2024", "<think>\n\n</think>", "It is "):
        assert part in text
    gold = [item.gold for item in suite.items]
    wanted = [
        -replicas.scores(model, tokenizer, suite, chat=chat)[np.arange(6), gold].mean() for model in (base, aligned)
    ]
    row = done.table("tax").set_index("metric").loc["nll"]
    assert [row.base, row.aligned] == pytest.approx(wanted, abs=1e-4)
