"""The main job runs from two checkpoints to the figure: on other architectures, on a model against itself, and twice alike."""

import copy
import json

import pandas as pd
import pytest
import torch
from transformers import GPT2Config, GPT2LMHeadModel, Qwen2Config, Qwen2ForCausalLM

from benchmarks.truth.worlds.tokenizer import build_tokenizer
from taxlens.runs.running import run
from taxlens.stages import TABLES

WRITTEN = """
    tax tax_2x2 items probes probe_drop similarity spectra drift_positions directions direction_effects attribution
    attribution_items attribution_tokens closure path
""".split()
CONFIG = """name: tiny
pair: {{base: base, aligned: {aligned}}}
suites:
  - {{name: facts, file: facts.jsonl}}
  - {{name: harm, file: harm.jsonl, kind: benefit, template: chat}}
templates: [plain, chat]
tax: {{bootstrap: 200}}
probes: {{labels: [correct], permutations: 19}}
similarity: {{measures: [cka, drift]}}
attribution: {{methods: [path, graft, restore], tolerance: 0.02}}
"""


def few_items(source, target, count):
    lines = source.read_text(encoding="utf-8").splitlines()
    target.write_text("\n".join(lines[:: max(1, len(lines) // count)][:count]) + "\n", encoding="utf-8")


def write_pair(folder, model, tokenizer):
    aligned = copy.deepcopy(model)
    torch.manual_seed(1)
    with torch.no_grad():
        for name, weight in aligned.named_parameters():
            if ".0." in name and ("mlp" in name or "attn" in name) and weight.ndim == 2:
                weight.add_(0.05 * torch.randn_like(weight))
    for name, each in (("base", model), ("aligned", aligned)):
        each.save_pretrained(folder / name)
        tokenizer.save_pretrained(folder / name)


def make_folder(folder, layout):
    from taxlens.demo.catalogue import resolve_suite

    tokenizer = build_tokenizer()
    torch.manual_seed(0)
    ids = {"bos_token_id": tokenizer.bos_token_id, "eos_token_id": tokenizer.eos_token_id}
    ids |= {"pad_token_id": tokenizer.pad_token_id, "vocab_size": len(tokenizer)}
    if layout == "gpt2":
        model = GPT2LMHeadModel(GPT2Config(n_embd=32, n_layer=2, n_head=4, n_positions=64, **ids))
    else:
        sizes = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}
        model = Qwen2ForCausalLM(Qwen2Config(num_key_value_heads=2, max_position_embeddings=64, **sizes, **ids))
    write_pair(folder, model, tokenizer)
    few_items(resolve_suite("demo:facts"), folder / "facts.jsonl", 24)
    few_items(resolve_suite("demo:harm"), folder / "harm.jsonl", 24)
    return folder


def do_run(folder, out, *, aligned="aligned", overrides=()):
    config = folder / f"{aligned}.yaml"
    config.write_text(CONFIG.format(aligned=aligned), encoding="utf-8")
    return run(config, out=folder / out, overrides=overrides)


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    return {layout: make_folder(tmp_path_factory.mktemp(layout), layout) for layout in ("gpt2", "qwen2")}


@pytest.fixture(scope="module")
def runs(folders):
    return {layout: do_run(folder, "one") for layout, folder in folders.items()}


@pytest.mark.parametrize("layout", ["gpt2", "qwen2"])
def test_every_table_exists_with_the_contracts_columns(runs, layout):
    for table in (TABLES[name] for name in WRITTEN):
        header = tuple(pd.read_csv(runs[layout].folder / "tables" / f"{table.name}.csv", nrows=0).columns)
        assert [name for name in table.names if name in header] == list(header), table.name
        assert set(table.required) <= set(header), table.name


@pytest.mark.parametrize("layout", ["gpt2", "qwen2"])
def test_effects_close_on_the_measured_tax(runs, layout):
    closure = runs[layout].table("closure")
    path = closure[closure["method"] == "path"]
    assert set(path["metric"]) == {"accuracy", "probability", "nll"}
    allowed = (0.01 * path["tax"].abs()).clip(lower=2e-4)
    assert (path["residual"].abs() <= allowed).all()


@pytest.mark.parametrize("layout", ["gpt2", "qwen2"])
def test_an_untouched_component_gets_zero(runs, layout):
    frame = runs[layout].table("attribution")
    path = frame[(frame["method"] == "path") & (frame["level"] == "component")].set_index("component")["effect"]
    assert (path[["embed", "1.attn", "1.mlp", "unembed"]] == 0).all()
    assert path["0.mlp"].abs().max() > 0


def test_the_run_leaves_figures_and_a_report_without_network(runs):
    folder = runs["gpt2"].folder
    for name in ("tax_probability", "similarity", "probe_facts_correct_plain", "attribution_facts_probability"):
        for ending in ("pdf", "png", "svg", "csv", "txt"):
            assert (folder / "figures" / f"{name}.{ending}").stat().st_size > 0, name
    page = (folder / "report.html").read_text(encoding="utf-8")
    assert "facts" in page
    for outside in ("http://", "https://", "<script src"):
        assert outside not in page


def test_the_manifest_says_what_was_compared(runs):
    manifest = json.loads((runs["qwen2"].folder / "run.json").read_text(encoding="utf-8"))
    assert manifest["status"] == "success"
    assert manifest["pair"]["architecture"] == "qwen2"
    assert manifest["pair"]["weights sha256"]["base"] != manifest["pair"]["weights sha256"]["aligned"]
    assert manifest["suites"]["facts"]["items"] == 24
    assert manifest["self_check"]
    assert "probes/facts_plain_correct_resid_post.safetensors" in manifest["stages"]["probe"]["outputs"]
    assert runs["qwen2"].verify() == []


def test_two_runs_leave_the_same_bytes_but_for_times(folders, runs):
    again = do_run(folders["gpt2"], "two")
    first, second = runs["gpt2"].hashes(), again.hashes()
    assert set(first) == set(second)
    different = {name for name in first if first[name] != second[name]} - {"report.html"}
    for name in different:
        one, two = (_without_seconds(run.folder / name) for run in (runs["gpt2"], again))
        assert one == two, name


def _without_seconds(path):
    """The lines of a table or of kept answers, but for those that hold seconds."""
    assert path.suffix in {".csv", ".jsonl"}, path
    return [line for line in path.read_text(encoding="utf-8").splitlines() if "seconds" not in line]


def test_a_model_against_itself_has_no_tax_no_effect_no_drift(folders):
    same = do_run(folders["qwen2"], "same", aligned="base")
    assert (same.table("tax")[["tax", "lost", "won"]] == 0).all().all()
    assert (same.table("attribution")["effect"] == 0).all()
    similarity = same.table("similarity")
    similarity = similarity[similarity["layer_base"] == similarity["layer_aligned"]].set_index("measure")["value"]
    assert (similarity["drift"] == 0).all()
    assert similarity["cka"].to_numpy() == pytest.approx(1.0, abs=1e-9)
    assert same.table("directions").empty
    assert same.table("direction_effects").empty
    assert not (same.table("probe_drop")["p_adjusted"] < 0.05).any()
    assert (same.table("probe_drop")["drop"] == 0).all()


@pytest.mark.parametrize("layout", ["gpt2", "qwen2"])
def test_the_account_is_of_the_tax_that_the_tax_table_states(runs, layout):
    """Same suite, template and metric: the two tables state one tax, and the rows of the account sum to it."""
    key = ["suite", "template", "metric"]
    both = (
        runs[layout]
        .table("closure")
        .merge(runs[layout].table("tax")[[*key, "tax"]], on=key, suffixes=("", "_measured"))
    )
    assert set(both["method"]) == {"path", "graft", "restore"}
    assert both["tax"].to_numpy() == pytest.approx(both["tax_measured"].to_numpy(), abs=2e-5)
    parts = both["attributed"] + both["prompt_and_config"] + both["residual"]
    assert parts.to_numpy() == pytest.approx(both["tax"].to_numpy(), abs=1e-9)
