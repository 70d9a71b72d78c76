"""The logs beside this file: lm-eval's own, of the embedded pair on forty-eight facts. `python examples/logs/make.py` (needs lm-eval)."""

import json
import os
import tempfile
from pathlib import Path

os.environ |= {"HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1"}

import yaml
from lm_eval import simple_evaluate
from lm_eval.loggers import EvaluationTracker
from lm_eval.models.huggingface import HFLM
from lm_eval.tasks import TaskManager

import taxlens

HERE = Path(__file__).parent
ITEMS = 48
KEPT = ("results", "versions", "n-shot", "higher_is_better", "n-samples")  # not the machine's description


def main() -> None:
    """Evaluate both models with `--log_samples` and keep what the harness writes."""
    pair, facts = taxlens.load_pair("demo:base", "demo:planted"), taxlens.suite("demo:facts")
    with tempfile.TemporaryDirectory() as folder:
        data = Path(folder) / "facts.jsonl"
        rows = [
            {"prompt": item.prompt, "choices": list(item.choices), "gold": item.gold, "subject": item.group}
            for item in facts.items[:ITEMS]
        ]
        data.write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
        task = {
            "task": "facts",
            "dataset_path": "json",
            "dataset_kwargs": {"data_files": {"test": str(data)}},
            "test_split": "test",
            "output_type": "multiple_choice",
            "doc_to_text": "{{prompt}}",
            "doc_to_choice": "choices",
            "doc_to_target": "gold",
            "target_delimiter": "",
            "metric_list": [{"metric": "acc"}],
        }
        (Path(folder) / "facts.yaml").write_text(yaml.safe_dump(task), encoding="utf-8")
        manager = TaskManager(include_path=folder, include_defaults=False)
        for name, model in (("base", pair.models.base), ("aligned", pair.models.aligned)):
            lm = HFLM(pretrained=model.model, tokenizer=model.tokenizer, batch_size=8, device="cpu", max_length=64)
            found = simple_evaluate(
                model=lm, tasks=["facts"], task_manager=manager, bootstrap_iters=0, log_samples=True
            )
            samples = found.pop("samples")
            tracker = EvaluationTracker(output_path=str(HERE / name))
            tracker.save_results_aggregated(results=found, samples=samples)
            tracker.save_results_samples(task_name="facts", samples=samples["facts"])
            for path in (HERE / name / "None").iterdir():  # the harness's folder for a model without a name
                path.rename(HERE / name / path.name)
            for path in (HERE / name).glob("results_*.json"):
                kept = {key: value for key, value in json.loads(path.read_text()).items() if key in KEPT}
                path.write_text(json.dumps(kept, indent=1) + "\n", encoding="utf-8")
            print(name, found["results"]["facts"])


if __name__ == "__main__":
    main()
