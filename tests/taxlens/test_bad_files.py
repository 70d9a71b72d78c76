"""Files of every other kind that a user can name (dictionaries, adapters, logs, stores, restored checkpoints) are refused in one screen."""
# ruff: noqa: E501

from __future__ import annotations

import json
import shutil
import zipfile

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from taxlens.analysis.answers.labelled import read_labelled
from taxlens.analysis.features.training.corpus import Corpus
from taxlens.core.errors import TaxlensError
from taxlens.demo import catalogue

DEEP = 20_000
JSON = {
    "deep": "[" * DEEP,
    "cut": '{"a": ',
    "a list": "[1]",
    "text": '"a"',
    "twice": '{"k": 1, "k": 2}',
    "latin-1": b'{"a": "\xe9"}',
    "empty": "",
    "digits": '{"k": ' + "9" * 5000 + "}",
}
"""What can be wrong with any JSON object."""


def put(path, content):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content if isinstance(content, bytes) else content.encode("utf-8", "surrogatepass"))


WEIGHTS = {"W_enc": torch.zeros(96, 8), "W_dec": torch.zeros(8, 96), "b_enc": torch.zeros(8), "b_dec": torch.zeros(96)}
SAE = {"architecture": "standard", "d_in": 96, "d_sae": 8, "metadata": {"hook_name": "blocks.1.hook_resid_post"}}


def dictionary(folder, config=None, weights=None):
    """A dictionary as SAELens writes it, with something else in it."""
    put(folder / "cfg.json", config if isinstance(config, str | bytes) else json.dumps(SAE | (config or {})))
    if isinstance(weights, bytes):
        put(folder / "sae_weights.safetensors", weights)
    else:
        save_file(
            {k: v for k, v in (WEIGHTS | (weights or {})).items() if v is not None}, folder / "sae_weights.safetensors"
        )


DICTIONARIES = {f"config: {kind}": {"config": content} for kind, content in JSON.items()} | {
    "metadata a list": {"config": {"metadata": [1]}}, "metadata a text": {"config": {"metadata": "x"}}, "k a text": {"config": {"k": "many"}},
    "an unknown architecture": {"config": {"architecture": "forest"}}, "hook a list": {"config": {"metadata": {"hook_name": [1]}}},
    "an unknown scale": {"config": {"normalize_activations": "expected_average"}}, "heads": {"config": {"reshape_activations": "hook_z"}},
    "no decoder": {"weights": {"W_dec": None}}, "no bias": {"weights": {"b_dec": None}}, "a decoder of another width": {"weights": {"W_dec": torch.zeros(9, 96)}},
    "an encoder of one row": {"weights": {"W_enc": torch.zeros(96)}}, "not a number": {"weights": {"W_enc": torch.full((96, 8), float("nan"))}},
    "whole numbers": {"weights": {"W_enc": torch.zeros(96)[:, None].long()}}, "weights cut": {"weights": b"\x10\0\0\0\0\0\0\0{}"}, "weights of no form": {"weights": b"x" * 50},
    "a header of 2^60 bytes": {"weights": b"\0\0\0\0\0\0\0\x10{}"},
}  # fmt: skip
OTHERS = {
    "Gemma Scope: no archive": {"params.npz": b"x"}, "Gemma Scope: objects": {"params.npz": "objects"}, "Gemma Scope: nothing in it": {"params.npz": "empty"},
    "Llama Scope: config": {"hyperparams.json": "[1]", "checkpoints/final.safetensors": b"x"}, "Llama Scope: deep": {"hyperparams.json": "[" * DEEP, "checkpoints/x": b""},
    "sparsify: weights": {"cfg.json": "{}", "sae.safetensors": b"x"}, "sparsify: config": {"cfg.json": "{", "sae.safetensors": b"x"},
    "dictionary_learning: config": {"config.json": "{", "model.safetensors": b"x"}, "dictionary_learning: weights": {"config.json": "{}", "model.safetensors": b"x"},
    "nothing": {"readme.md": "x"}, "a pickle": {"ae.pt": b"x"},
}  # fmt: skip


def features(entries):
    return [
        "features",
        "c.yaml",
        "--out",
        "r",
        "--set",
        f"features={{dictionaries: {entries}}}",
        "--set",
        "stages=[tax, features]",
    ]


@pytest.mark.parametrize("kind", DICTIONARIES)
def test_dictionaries(place, refused, kind):
    dictionary(place / "sae", **DICTIONARIES[kind])
    said = refused(features("[{path: sae}]"))
    assert "sae" in said.lower()


@pytest.mark.parametrize("kind", OTHERS)
def test_dictionaries_of_others(place, refused, kind):
    for name, content in OTHERS[kind].items():
        put(place / "sae" / name, b"" if content in ("objects", "empty") else content)
        if content == "objects":
            np.savez(place / "sae" / name, w_enc=np.array([{}], dtype=object))
        if content == "empty":
            np.savez(place / "sae" / name, x=np.zeros(1))
    refused(features("[{path: sae}]"))


def adapter(folder, config=None, weights=None):
    given = {"peft_type": "LORA", "r": 2, "lora_alpha": 4, "target_modules": ["q_proj"], "base_model_name_or_path": "x"}
    put(
        folder / "adapter_config.json",
        config if isinstance(config, str | bytes) else json.dumps(given | (config or {})),
    )
    if weights is not None:
        put(folder / "adapter_model.safetensors", weights)


ADAPTERS = {f"config: {kind}": {"config": content, "weights": b""} for kind, content in JSON.items()} | {
    "no weights": {}, "weights cut": {"weights": b"\x10\0\0\0\0\0\0\0{}"}, "weights of no form": {"weights": b"x" * 50}, "an empty file": {"weights": b""},
    "prompt tuning": {"config": {"peft_type": "PROMPT_TUNING"}, "weights": b""}, "an unknown kind": {"config": {"peft_type": "WISHES"}, "weights": b""},
    "kind a list": {"config": {"peft_type": [1]}, "weights": b""}, "repeated layers": {"config": {"layer_replication": [[0, 2]]}, "weights": b""},
}  # fmt: skip


@pytest.mark.parametrize("kind", ADAPTERS)
def test_adapters(place, refused, kind):
    adapter(place / "lora", **ADAPTERS[kind])
    refused(["tax", "c.yaml", "--out", "r", "--set", "pair={base: demo:base, adapter: lora}"])


GGUF = {
    "empty": b"",
    "other magic": b"XXXX" + b"\0" * 60,
    "cut": b"GGUF\x03\0\0\0",
    "version 99": b"GGUF" + b"\x63\0\0\0" + b"\0" * 16,
    "2^60 tensors": b"GGUF\x03\0\0\0" + b"\0" * 7 + b"\x10" + b"\0" * 8,
    "2^60 keys": b"GGUF\x03\0\0\0" + b"\0" * 15 + b"\x10",
}


@pytest.mark.parametrize("kind", GGUF)
def test_gguf(place, refused, kind):
    put(place / "g" / "m.gguf", GGUF[kind])
    refused(["tax", "c.yaml", "--out", "r", "--set", "pair={base: g, aligned: demo:planted, gguf: m.gguf}"])


SAMPLE = {
    "doc_id": 0,
    "doc": {"question": "q"},
    "target": "0",
    "arguments": [["q", " a"], ["q", " b"]],
    "filtered_resps": [["-1.0", "True"], ["-2.0", "False"]],
    "acc": 1.0,
}
LOGS = {f"line: {kind}": content for kind, content in JSON.items()} | {
    "arguments a number": json.dumps(SAMPLE | {"arguments": 3}), "arguments without numbers": json.dumps(SAMPLE | {"arguments": {"x": {"arg_0": "q"}}}),
    "arguments of texts": json.dumps(SAMPLE | {"arguments": {"gen_args_0": "q"}}), "no responses": json.dumps({k: v for k, v in SAMPLE.items() if k != "filtered_resps"}),
    "responses a text": json.dumps(SAMPLE | {"filtered_resps": "x"}), "a response too few": json.dumps(SAMPLE | {"filtered_resps": [["-1.0", "True"]]}),
}  # fmt: skip


@pytest.mark.parametrize("kind", LOGS)
def test_logs(place, refused, kind):
    put(place / "samples_task_2025-01-01T00-00-00.jsonl", LOGS[kind])
    refused(
        [
            "import-eval",
            "samples_task_2025-01-01T00-00-00.jsonl",
            "samples_task_2025-01-01T00-00-00.jsonl",
            "--out",
            "e.jsonl",
        ]
    )
    assert not (place / "e.jsonl").exists()


@pytest.mark.parametrize("kind", ["no archive", "no header", "a bomb", "upwards"])
def test_inspect_logs(place, refused, kind):
    path = place / "log.eval"
    put(path, b"PK\x03\x04nothing")
    if kind != "no archive":
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            name = {"no header": "x.json", "a bomb": "header.json", "upwards": "../header.json"}[kind]
            archive.writestr(name, "[" * 30_000_000 if kind == "a bomb" else "{}")
    refused(["import-eval", "log.eval", "log.eval", "--out", "e.jsonl"])


RECORDS = {f"record: {kind}": content for kind, content in JSON.items()} | {
    "no hashes": "{}",
    "hashes a list": '{"files": [1], "seal": "x"}',
    "another seal": '{"files": {"a": "b"}, "seal": "x"}',
}


@pytest.mark.parametrize("kind", RECORDS)
def test_records_of_restored_checkpoints(place, refused, kind):
    shutil.copytree(catalogue.resolve("demo:base"), place / "m")
    put(place / "m" / "taxlens_restoration.json", RECORDS[kind])
    refused(["verify", "m"], codes=(3,))
    refused(["tax", "c.yaml", "--out", "r", "--set", "pair={base: m, aligned: demo:planted}"])


COMMANDS = [
    ["features", "convert", "absent", "--out", "d"], ["features", "convert", "facts.jsonl", "--out", "d"], ["features", "convert", "empty", "--out", "d"],
    ["features", "train", "c.yaml", "--out", "d"], ["features", "train", "absent.yaml", "--out", "d"], ["features", "train", "c.yaml", "--out", "d", "--set", "features.train={corpus: [no.txt], layers: [1]}"],
    ["features", "train", "c.yaml", "--out", "d", "--set", "features.train={corpus: [facts.jsonl], layers: [1], k: 9, width: 4}"], ["features", "c.yaml", "--out", "r"], ["features", "empty"],
    ["features", "train", "c.yaml", "--out", "d", "--set", "features.train={corpus: [facts.jsonl], layers: [99]}"], [*features("[{path: a}, {path: a}]")], [*features("[{path: ''}]")], [*features("[{path: empty, layer: -1}]")],
    ["edit", "c.yaml", "--out", "r"], ["edit", "empty"], ["edit", "c.yaml", "--out", "r", "--set", "edit.editors=[wish]"], ["edit", "c.yaml", "--out", "r", "--set", "edit.tries=0"], ["edit", "c.yaml", "--out", "r", "--set", "edit.keep={harm: 5}"],
    ["lens", "empty"], ["lens", "c.yaml", "--out", "r", "--set", "lens.items=0"], ["lens", "c.yaml", "--out", "r", "--set", "lens.layers=3"],
    ["frontier", "c.yaml", "--out", "r"], ["frontier", "empty"], ["frontier", "c.yaml", "--out", "r", "--set", "frontier.orders=[luck]"], ["frontier", "c.yaml", "--out", "r", "--set", "frontier.budget_minutes=-1"],
    ["check", "absent"], ["check", "facts.jsonl"], ["check", "empty"], ["check", "link"], ["check", "demo:nobody"], ["check", "demo:base", "--dtype", "int3"], ["check", "demo:base", "--device", "moon"], ["check", "demo:base", "--adapter", "absent"], ["check", "demo:base", "--adapter", "empty"],
    ["restore", "absent", "--plan", "x", "--out", "y"], ["restore", "empty", "--plan", "edit:x", "--out", "y"], ["restore", "facts.jsonl", "--plan", "x", "--out", "y"], ["merge", "facts.jsonl", "--out", "m"], ["merge", "empty", "empty", "--out", "m"], ["merge", "link", "--out", "m"],
    ["import-eval", "absent", "absent", "--out", "e"], ["import-eval", "c.yaml", "c.yaml", "--out", "e"], ["import-eval", "link", "link", "--out", "e"], ["inspect", "link"], ["verify", "link"], ["verify", "facts.jsonl"],
    ["similarity", "c.yaml", "--out", "r", "--set", "similarity.measures=[likeness]"], ["probe", "c.yaml", "--out", "r", "--set", "probes.probe=oracle"], ["attribute", "c.yaml", "--out", "r", "--set", "attribution.methods=[guess]"], ["diagnose", "c.yaml", "--out", "r", "--set", "diagnose.layers=[-9]"],
]  # fmt: skip


@pytest.mark.parametrize("arguments", COMMANDS, ids=" ".join)
def test_commands(place, refused, arguments):
    refused(arguments)
    assert not {path.name for path in place.iterdir()} & {"d", "e", "m", "y"}


LABELLED = {f"line: {kind}": content for kind, content in JSON.items() if kind != "empty"} | {
    "no label": '{"response": "a"}',
    "an unknown label": '{"response": "a", "label": "maybe"}',
    "no answer": '{"label": "refusal"}',
}


@pytest.mark.parametrize("kind", LABELLED)
def test_labelled_answers(tmp_path, kind):
    put(tmp_path / "l.jsonl", LABELLED[kind])
    with pytest.raises(TaxlensError, match=r"l\.jsonl"):
        read_labelled(tmp_path / "l.jsonl")


@pytest.mark.parametrize(
    "content", ['prompt,response,label\n"a', b"response,label\n\xff,1\n", "response\nx\n", "a,b\x00\n1,2\n"]
)
def test_labelled_tables(tmp_path, content):
    put(tmp_path / "l.csv", content)
    with pytest.raises(TaxlensError, match=r"l\.csv"):
        read_labelled(tmp_path / "l.csv")


CORPORA = {f"line: {kind}": content for kind, content in JSON.items() if kind != "empty"} | {
    "no text": '{"a": 1}',
    "text a list": '{"text": [1]}',
    "no messages": '{"messages": []}',
}


@pytest.mark.parametrize("kind", CORPORA)
def test_corpora(tmp_path, kind):
    put(tmp_path / "t.jsonl", CORPORA[kind])
    with pytest.raises(TaxlensError, match=r"t\.jsonl"):
        list(Corpus((str(tmp_path / "t.jsonl"),)).documents())


def test_there_are_many_of_them():
    kinds = (DICTIONARIES, OTHERS, ADAPTERS, GGUF, LOGS, RECORDS, COMMANDS, LABELLED, CORPORA)
    assert sum(map(len, kinds)) >= 150
