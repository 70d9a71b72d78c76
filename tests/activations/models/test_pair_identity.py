"""Two pairs are one only where everything that decides what they compute is the same."""

import json
import shutil

from peft import LoraConfig

from taxlens.activations.models.checkpoint import checkpoint_sha256


def test_two_adapters_on_one_base_are_two_models(replicas):
    base = replicas.save(replicas.model(), "base")
    config = LoraConfig(r=2, target_modules=["q_proj"], task_type="CAUSAL_LM")
    one, two = (replicas.adapter(base, config, name, seed=seed)[0] for name, seed in (("one", 1), ("two", 2)))
    pairs = [replicas.pair(base, adapter=str(folder)) for folder in (one, two, one)]
    shas = [pair.aligned.sha256 for pair in pairs]
    assert shas[0] == shas[2] != shas[1]
    assert len({pair.base.sha256 for pair in pairs}) == 1
    assert checkpoint_sha256(one) != checkpoint_sha256(two)


def test_a_checkpoints_hash_covers_weights_config_tokenizer_and_template_and_no_notes(replicas):
    base = replicas.save(replicas.model(), "base")
    first = checkpoint_sha256(base)
    for name, data in (("README.md", "x"), ("trainer_state.json", "{}"), ("training_args.bin", "x")):
        (base / name).write_text(data, encoding="utf-8")
        assert checkpoint_sha256(base) == first, name
    for name in ("config.json", "tokenizer.json", "tokenizer_config.json"):
        other = shutil.copytree(base, base.with_name(f"other-{name}"))
        facts = json.loads((other / name).read_text(encoding="utf-8"))
        (other / name).write_text(json.dumps(facts | {"x": 1}), encoding="utf-8")
        assert checkpoint_sha256(other) != first, name
    (base / "chat_template.jinja").write_text("{{ 1 }}", encoding="utf-8")
    assert checkpoint_sha256(base) != first
