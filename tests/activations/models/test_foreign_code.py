"""A checkpoint's own code is never run, and nobody is asked whether it may be."""

import contextlib
import io
import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from taxlens.activations.models.loading import load_model, load_tokenizer
from taxlens.core.errors import ModelLoadError

EVIL = """
import pathlib
pathlib.Path(__file__).with_name("ran").write_text("yes")
from transformers import PretrainedConfig, PreTrainedTokenizerFast, Qwen2ForCausalLM
class EvilConfig(PretrainedConfig):
    model_type = "evil"
class EvilTok(PreTrainedTokenizerFast):
    pass
class EvilModel(Qwen2ForCausalLM):
    config_class = EvilConfig
"""


@pytest.fixture
def checkpoint(saved_model, tmp_path, monkeypatch):
    """A good checkpoint with a Python file beside it, and a user who answers yes to every question."""
    (saved_model / "evil.py").write_text(EVIL, encoding="utf-8")
    monkeypatch.setattr("sys.stdin", io.StringIO("y\n" * 50))
    monkeypatch.setenv("HF_MODULES_CACHE", str(tmp_path / "modules"))
    return saved_model


@pytest.fixture
def saved_model(make_model, make_tokenizer, tmp_path):
    folder = tmp_path / "model"
    make_model("qwen2").save_pretrained(folder)
    make_tokenizer().save_pretrained(folder)
    return folder


def edit(path, **changes):
    path.write_text(json.dumps(json.loads(path.read_text(encoding="utf-8")) | changes), encoding="utf-8")


def did_not_run(folder, tmp_path):
    return not (folder / "ran").exists() and not list(tmp_path.rglob("ran"))


@pytest.mark.parametrize(
    "changes",
    [
        {"model_type": "evil", "auto_map": {"AutoConfig": "evil.EvilConfig", "AutoModelForCausalLM": "evil.EvilModel"}},
        {"auto_map": {"AutoConfig": "evil.EvilConfig", "AutoModelForCausalLM": "evil.EvilModel"}},
        {"model_type": "evil", "auto_map": {"AutoConfig": "owner/repository--evil.EvilConfig"}},
    ],
)
def test_a_config_that_names_its_own_code_never_runs_it(checkpoint, tmp_path, changes):
    edit(checkpoint / "config.json", **changes)
    with contextlib.suppress(ModelLoadError):
        load_model(checkpoint)
    assert did_not_run(checkpoint, tmp_path)


@pytest.mark.parametrize(
    "named", [["evil.EvilTok", None], [None, "evil.EvilTok"], ["owner/repository--evil.EvilTok", None]]
)
def test_a_tokenizer_that_names_its_own_code_never_runs_it(checkpoint, tmp_path, named):
    edit(checkpoint / "tokenizer_config.json", auto_map={"AutoTokenizer": named}, tokenizer_class="EvilTok")
    with contextlib.suppress(ModelLoadError):
        load_tokenizer(checkpoint)
    assert did_not_run(checkpoint, tmp_path)


def test_the_same_checkpoint_without_that_line_loads(checkpoint):
    assert load_model(checkpoint).anatomy.n_layers == 2


@pytest.mark.guard_trips
def test_the_guard_of_the_tests_itself_sees_code_and_connections(checkpoint, nothing_foreign):
    import runpy

    with pytest.raises(PermissionError):
        runpy.run_path(str(checkpoint / "evil.py"))
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("192.0.2.1", 80), timeout=1)
    assert len(nothing_foreign) == 2


@pytest.mark.guard_trips
@pytest.mark.parametrize("what", ["network", "code"])
def test_the_guard_is_in_every_process_that_a_test_starts(tmp_path, what):
    (tmp_path / "evil.py").write_text("print('ran')", encoding="utf-8")
    network = ["-c", "import socket; socket.create_connection(('192.0.2.1', 80), timeout=1)"]
    typed = network if what == "network" else [str(tmp_path / "evil.py")]
    done = subprocess.run([sys.executable, *typed], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stdout == ""
    assert ("do not reach the network" if what == "network" else "run no foreign code") in done.stderr
    seen = Path(os.environ["TAXLENS_TESTS_SEEN"]).read_text(encoding="utf-8")
    assert ("192.0.2.1" if what == "network" else "evil.py") in seen
