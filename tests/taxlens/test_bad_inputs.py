"""Whatever is wrong with what a user gives, the answer is one screen that names it: no traceback, no hang, nothing written."""
# ruff: noqa: E501

import json
import shutil
import time
from pathlib import Path

import pytest

from taxlens.cli.app import run_app
from taxlens.demo import catalogue

SUITE = '{"id": "a", "group": "g", "prompt": "The", "choices": [" cat", " dog"], "gold": 0}\n'
CONFIG = """name: bad
pair: {base: demo:base, aligned: demo:planted}
suites: [{name: facts, file: facts.jsonl}]
templates: [plain]
stages: [tax]
"""
DEEP = 20_000


def item(**changes):
    return json.dumps(json.loads(SUITE) | changes, ensure_ascii=True)


def without(key):
    return json.dumps({k: v for k, v in json.loads(SUITE).items() if k != key})


ITEMS = {
    "empty file": "", "blank lines": "\n\n", "no JSON": "{", "a number": "1", "a list": "[1]", "text": '"a"', "null": "null",
    "deep": "[" * DEEP, "deep object": '{"a":' * DEEP, "deep label": item(labels={"x": 1}).replace("1}", "[" * 200 + "]" * 200 + "}"),
    "repeated key": SUITE.strip()[:-1] + ', "gold": 1}', "repeated label": item(labels={"x": 1}).replace('"x": 1', '"x": 1, "x": 2'),
    "repeated id": SUITE + SUITE, "no id": without("id").replace('"group": "g"', '"group": 3, "id": null'),
    "no group": without("group"), "no gold": without("gold"), "no prompt": without("prompt"),
    "one choice": item(choices=[" a"]), "no choices": item(choices=[]), "empty choice": item(choices=[" ", " b"]),
    "choices that are numbers": item(choices=[1, 2]), "choices that are text": item(choices=5), "equal choices": item(choices=[" a", " a"]),
    "three, two equal": item(choices=[" a", " b", " b"]), "gold too high": item(gold=2), "gold below 0": item(gold=-1),
    "gold true": item(gold=True), "gold half": item(gold=0.5), "gold of no choice": item(gold="zebra"), "gold null": item(gold=None),
    "gold of 400 digits": item().replace('"gold": 0', '"gold": ' + "9" * 400), "gold of 5000 digits": item().replace('"gold": 0', '"gold": ' + "9" * 5000),
    "all right": item(gold=[0, 1]), "gold twice": item(gold=[0, 0]), "prompt and text": item(text="x"), "prompt of a list": item(prompt=["x"]),
    "lone surrogate in prompt": item(prompt="\ud800"), "in a choice": item(choices=[" \udfff", " b"]), "in the id": item(id="\ud800"),
    "in the group": item(group="x\udc00"), "in a label": item(labels={"x": "\ud800"}), "in a label's name": item(labels={"\ud800": 1}),
    "NUL": item(prompt="a\0b"), "escape in id": item(id="a\x1b[31m"), "line end in id": item(id="a\nb"), "line end in group": item(group="a\rb"),
    "direction in id": item(id="a\u202eb"), "nothing seen in group": item(group="a\u200bb"), "line separator": item(id="a\u2028b"),
    "label of 400 digits": item(labels={"x": 1}).replace('"x": 1', '"x": ' + "9" * 400),
    "label of 300 digits": item(labels={"x": 10**300}), "label NaN": item(labels={"x": 1}).replace('"x": 1', '"x": NaN'),
    "label infinite": item(labels={"x": 1}).replace('"x": 1', '"x": 1e999'), "label of a list": item(labels={"x": [1]}),
    "label correct": item(labels={"correct": 1}), "label without name": item(labels={"": 1}), "labels of a list": item(labels=[1]),
    "contexts of one": item(prompt=None, contexts=["a"]), "contexts of numbers": item(prompt=None, contexts=[1, 2]),
    "latin-1": b'{"id": "\xe9"}', "utf-16": SUITE.encode("utf-16"), "binary": bytes(range(256)), "parquet": b"PAR1xxxx", "zip": b"PK\x03\x04",
    "cut gzip": b"\x1f\x8b\x08\x00\x00\x00", "field misspelt": item().replace('"gold"', '"glod"'),
}  # fmt: skip
TABLES = {
    "empty": "", "header only": "id,group,prompt,choice_0,choice_1,gold\n", "100,000 columns": ",".join(f"c{n}" for n in range(100_000)) + "\n",
    "column twice": "id,id\na,b\n", "short row": "id,group\na\n", "open quote": 'id,group\n"a,b\n', "stray quote": 'id,group\n"a"x,b\n',
    "gap in choices": "id,group,prompt,choice_0,choice_2,gold\na,g,p,x,y,0\n", "choices no JSON": "id,group,prompt,choices,gold\na,g,p,[,0\n",
    "deep choices": "id,group,prompt,choices,gold\na,g,p," + "[" * DEEP + ",0\n", "gold of 5000 digits": "id,group,prompt,choice_0,choice_1,gold\na,g,p,x,y," + "9" * 5000 + "\n",
    "gold infinite": "id,group,prompt,choice_0,choice_1,gold\na,g,p,x,y,1e999\n", "huge field": "id,group\na," + "x" * 200_000 + "\n",
    "column of 5000 digits": "id,group,choice_" + "9" * 5000 + "\na,b,c\n",
}  # fmt: skip
CONFIGS = {
    "empty": "", "a list": "- a", "text": "abc", "not YAML": "a: [", "tabs": "a:\n\t- b", "python tag": "a: !!python/object/apply:os.system [ls]",
    "tag": "!foo a", "deep": "a: " + "[" * DEEP, "deep mapping": "a: " + "{a: " * DEEP, "list as key": "? [1, 2]\n: 3", "mapping as key": "? {a: 1}\n: 3",
    "key twice": CONFIG + "seed: 1\nseed: 2\n", "alias bomb": "a: &a [x,x,x,x,x,x,x,x,x]\n" + "".join(f"{c}: &{c} [{','.join('*' + p for _ in range(9))}]\n".replace("**", "*") for p, c in zip("abcdefgh", "bcdefghi")) + "name: *i\n",
    "alias in itself": "a: &a [*a]", "unknown alias": "a: *b", "5000 digits": CONFIG + "seed: " + "9" * 5000, "number as key": CONFIG + "1: 2\n",
    "null bytes": "name: a\0b", "escape": 'name: "\\e[31mx"', "control": "name: \x07", "two documents": "a: 1\n---\nb: 2\n", "merge key": "<<: *x\n",
    "unknown key": CONFIG + "taxx: {}\n", "latin-1": b"name: \xe9", "no pair": CONFIG.replace("pair:", "pears:"), "no suites": "name: a\npair: {base: a, aligned: b}\nsuites: []",
    "two suites of one name": CONFIG.replace("suites: [", "suites: [{name: facts, file: facts.jsonl}, "), "anchor merge": "a: &a {b: *a}\n",
}  # fmt: skip
SETTINGS = [
    "name=..", "name=.", "name=...", "name=../x", "name=a/b", "name=", "name=" + "x" * 300, "name=[a]", "name=a\x1b[31mb", "name=/tmp/x", "nonsense", "=5", "tax.bootstrap=",
    "tax.bootstrap=1000000000000", "tax.bootstrap=-1", "tax.bootstrap=99", "tax.bootstrap=abc", "tax.bootstrap=1e400", "tax.bootstrap=" + "9" * 5000, "tax.bootstrap=[1]",
    "tax.margin=0", "tax.margin=2", "tax.margin=.nan", "tax.margin=.inf", "tax.metrics=[zap]", "tax.metrics=zap", "tax.interval=wide", "tax.samples=-1", "tax.max_new_tokens=0",
    "seed=-1", "seed=1.5", "seed=99999999999999999999", "templates=[]", "templates=[plain, plain]", "templates=[loud]", "stages=[tax, tax]", "stages=[taxes]",
    "frontier.shares=[-1]", "frontier.shares=[5]", "frontier.shares=[0]", "frontier.draws=0", "frontier.draws=1000000000", "frontier.budget_minutes=0", "frontier.orders=[sideways]", "frontier.keeps=[2]",
    "attribution.tolerance=0", "attribution.max_gradients=1", "attribution.max_gradients=10000000000", "attribution.items=0", "attribution.items=-5", "attribution.methods=[magic]", "attribution.levels=[atom]",
    "capture.sites=[nowhere]", "capture.dtype=int8", "capture.shard_bytes=0", "capture.compress=zip", "capture.layers=[-1]", "probes.permutations=-1", "probes.permutations=10000000000", "probes.probe=oracle",
    "similarity.test_layers=-1", "split.holdout=0", "split.holdout=1", "split.disjoint=[nothing]", "pair.dtype=int4", "pair.aligned=demo:nobody", "pair.aligned=./absent", "pair.aligned=[]", "pair.adapter=x",
    "pair.base=demo:../base", "chat_template=absent.jinja", "figures.venue=nature", "figures.width=huge", "x" * 5000 + "=1", "tax={}{", "tax=[[[[", "tax.bootstrap=*x", "tax.bootstrap=!!python/name:os.system",
]  # fmt: skip
COMMANDS = [
    ["tax"], ["nothing"], ["tax", "absent.yaml"], ["tax", "facts.jsonl"], ["run", "."], ["run", "empty"], ["report", "empty"], ["figures", "empty"], ["verify", "empty"], ["verify", "absent"],
    ["inspect", "absent"], ["inspect", "facts.jsonl"], ["inspect", "empty"], ["restore", "empty", "--plan", "x", "--out", "y"], ["merge", "absent", "--out", "m"], ["merge", "empty", "--out", "m"],
    ["capture", "c.yaml", "--shard", "0/0", "--out", "s"], ["capture", "c.yaml", "--shard", "9/2", "--out", "s"], ["capture", "c.yaml", "--shard", "a", "--out", "s"], ["demo", "--pair", "nobody", "--out", "d"],
    ["tax", "c.yaml", "--out", "facts.jsonl"], ["tax", "c.yaml", "--out", "."], ["tax", "c.yaml", "--out", "empty/../empty/.."], ["import-eval", "facts.jsonl", "absent", "--out", "e.jsonl"],
    ["import-eval", "empty", "empty", "--out", "e.jsonl"], ["tax", "c.yaml", "--bogus"], ["tax", "c.yaml", "--set"], ["run", "link", "--resume"], ["tax", "c.yaml", "--out", "facts.jsonl/x"],
]  # fmt: skip


def put(path, content):
    path.write_bytes(content if isinstance(content, bytes) else content.encode("utf-8", "surrogatepass"))


@pytest.mark.parametrize("kind", ITEMS)
def test_items(place, refused, kind):
    put(place / "facts.jsonl", ITEMS[kind])
    refused(["tax", "c.yaml", "--out", "r"])


@pytest.mark.parametrize("kind", TABLES)
def test_tables(place, refused, kind):
    put(place / "facts.csv", TABLES[kind])
    refused(["tax", "c.yaml", "--out", "r", "--set", "suites=[{name: facts, file: facts.csv}]"])


@pytest.mark.parametrize("kind", CONFIGS)
def test_configs(place, refused, kind):
    put(place / "c.yaml", CONFIGS[kind])
    refused(["tax", "c.yaml", "--out", "r"], codes=(2,))
    assert not (place / "r").exists()


@pytest.mark.parametrize("setting", SETTINGS, ids=lambda text: text[:30])
def test_settings(place, refused, setting):
    refused(["run", "c.yaml", "--out", "r", "--set", "frontier={}", "--set", setting, "--dry-run"])
    assert not (place / "r").exists()


@pytest.mark.parametrize("arguments", COMMANDS, ids=" ".join)
def test_commands(place, refused, arguments):
    there = sorted(str(path) for path in place.rglob("*"))
    refused(arguments)
    left = [path for path in sorted(str(p) for p in place.rglob("*")) if path not in there]
    assert all(path.endswith((".lock", "run.json", "log.jsonl")) or Path(path).is_dir() for path in left), left


def edit(path, **changes):
    path.write_text(json.dumps(json.loads(path.read_text(encoding="utf-8")) | changes), encoding="utf-8")


CHECKPOINTS = {
    "config is a list": lambda d: put(d / "config.json", "[]"), "config cut": lambda d: put(d / "config.json", "{"),
    "config deep": lambda d: put(d / "config.json", "[" * DEEP), "no config": lambda d: (d / "config.json").unlink(),
    "unknown kind": lambda d: edit(d / "config.json", model_type="evil"), "no layers": lambda d: edit(d / "config.json", num_hidden_layers=0),
    "layers without end": lambda d: edit(d / "config.json", num_hidden_layers=10**7), "width without end": lambda d: edit(d / "config.json", hidden_size=10**9),
    "context 0": lambda d: edit(d / "config.json", max_position_embeddings=0), "context below 0": lambda d: edit(d / "config.json", max_position_embeddings=-5),
    "vocabulary of text": lambda d: edit(d / "config.json", vocab_size="many"), "heads 0": lambda d: edit(d / "config.json", num_attention_heads=0),
    "weights cut": lambda d: put(d / "model.safetensors", (d / "model.safetensors").read_bytes()[:1000]), "weights empty": lambda d: put(d / "model.safetensors", b""),
    "weights of noise": lambda d: put(d / "model.safetensors", b"\xff" * 4096), "no weights": lambda d: (d / "model.safetensors").unlink(),
    "index outside": lambda d: index(d, "../outside.safetensors"), "index of numbers": lambda d: index(d, 5), "index of a list": lambda d: put(_index(d), '{"weight_map": []}'),
    "index cut": lambda d: put(_index(d), "{"), "index of nothing": lambda d: index(d, "absent.safetensors"), "tokenizer cut": lambda d: put(d / "tokenizer.json", "{"),
    "tokenizer config is a list": lambda d: put(d / "tokenizer_config.json", "[]"), "no tokenizer": lambda d: (d / "tokenizer.json").unlink(), "whole numbers": lambda d: whole_numbers(d),
}  # fmt: skip


def _index(directory):
    (directory / "model.safetensors").rename(directory / "part.safetensors")
    return directory / "model.safetensors.index.json"


def index(directory, name):
    put(_index(directory), json.dumps({"weight_map": {"lm_head.weight": name}}))


def whole_numbers(directory):
    import torch
    from safetensors.torch import load_file, save_file

    tensors = load_file(directory / "model.safetensors")
    name = next(key for key in tensors if key.endswith("down_proj.weight"))
    save_file(
        tensors | {name: tensors[name].to(torch.int32)}, directory / "model.safetensors", metadata={"format": "pt"}
    )


@pytest.mark.parametrize("kind", CHECKPOINTS)
def test_checkpoints(place, refused, kind):
    shutil.copytree(catalogue.resolve("demo:base"), place / "model")
    CHECKPOINTS[kind](place / "model")
    refused(["tax", "c.yaml", "--out", "r", "--set", "pair.base=model"])


TEMPLATES = {
    "syntax": "{% for %}", "undefined": "{{ nothing.at.all }}", "raises": "{{ raise_exception('no') }}", "include": "{% include 'x' %}",
    "escape 1": "{{ ''.__class__.__mro__ }}", "escape 2": "{{ cycler.__init__.__globals__ }}", "division": "{{ 1 / 0 }}", "drops the message": "hello",
    "loops": "{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}", "long": "{{ 'a' * 3000000000 }}",
    "wide": "{{ 'a'.ljust(900000000) }}", "doubling": "{% set ns = namespace(x='ab') %}{% for i in range(60) %}{% set ns.x = ns.x + ns.x %}{% endfor %}",
    "recursion": "{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}", "prints": "{% for i in range(99999) %}{{ 'abcdefgh' * 100 }}{% endfor %}", "import": "{% import 'os' as os %}",
}  # fmt: skip


@pytest.mark.parametrize("kind", TEMPLATES)
def test_chat_templates(kind):
    from transformers import AutoTokenizer

    from taxlens.activations.items.chat import render_chat
    from taxlens.core.errors import ModelLoadError

    tokenizer = AutoTokenizer.from_pretrained(catalogue.resolve("demo:base"))
    started = time.monotonic()
    with pytest.raises(ModelLoadError):
        render_chat(tokenizer, "hello there", chat_template=TEMPLATES[kind])
    assert time.monotonic() - started < 60
    assert "hello there" in render_chat(tokenizer, "hello there", chat_template="{{ messages[0].content }}")


def test_what_nobody_foresaw_is_one_screen_and_its_traceback_a_file(place, capsys, monkeypatch):
    def fail(*arguments, **options):
        raise ZeroDivisionError("x\x1b[31m")

    monkeypatch.setattr("taxlens.cli.work.run", fail)
    assert run_app(["tax", "c.yaml", "--out", "r"]) == 1
    said = capsys.readouterr().err
    assert "did not foresee" in said
    assert "\x1b" not in said
    kept = Path(said.split("traceback")[1].split()[0])
    assert "ZeroDivisionError" in kept.read_text(encoding="utf-8")
    kept.unlink()


def test_a_name_with_markup_is_printed_as_it_is(place, capsys):
    lines = catalogue.resolve_suite("demo:facts").read_text(encoding="utf-8").splitlines(keepends=True)
    (place / "facts.jsonl").write_text(
        "".join(line.replace('"group": "', '"group": "[/b]', 1) for line in lines[:8]), encoding="utf-8"
    )
    assert run_app(["tax", "c.yaml", "--out", "m[red]x[/b]", "--set", "tax.bootstrap=100"]) == 0
    assert "m[red]x[/b]" in capsys.readouterr().out


def test_there_are_many_of_them():
    assert (
        len(ITEMS) + len(TABLES) + len(CONFIGS) + len(SETTINGS) + len(COMMANDS) + len(CHECKPOINTS) + len(TEMPLATES)
        >= 200
    )
