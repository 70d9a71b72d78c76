"""What a person at a terminal sees: lines that move, how to go on after Ctrl-C, and a config to begin with."""

import io
import itertools
import re
import threading

import pytest
import yaml

from taxlens.cli.app import run_app
from taxlens.cli.init_config import commented_config
from taxlens.cli.progress import LineProgress
from taxlens.config.schema import Config, build_config
from taxlens.core.progress import Named, Progress
from taxlens.stages import STAGES


class Clock:
    def __init__(self):
        self.now = 0.0

    def __call__(self):
        return self.now


@pytest.fixture
def lines():
    """A progress whose clock is turned by hand: (progress, turn, what was printed with its time)."""
    clock, printed = Clock(), []

    class Stream(io.StringIO):
        def write(self, text):
            if text.strip():
                printed.append((clock.now, text.strip()))
            return len(text)

    progress = LineProgress(Stream(), clock=clock, tick=0)

    def turn(seconds):
        for _ in range(seconds):
            clock.now += 1
            progress.beat()

    return progress, turn, printed


def test_no_silence_is_longer_than_thirty_seconds_whatever_is_under_way(lines):
    progress, turn, printed = lines
    with progress.stage("tax", number=1, of=2):
        turn(100)  # a stage that tells nothing
        with progress.task("score facts, base, plain", total=768, unit="rows") as task:
            turn(75)
            task.advance(10)
            turn(75)
        turn(40)
    with progress.stage("attribute", number=2, of=2), progress.task("attribute facts", total=9) as task:
        task.advance(0, note="gradient 5 of 7 (at most 31)")
        turn(200)
    times = [0.0, *(at for at, _ in printed), 490.0]
    assert max(later - sooner for sooner, later in itertools.pairwise(times)) <= 30
    said = [text for _, text in printed]
    assert said[0] == "stage tax (1 of 2)"
    assert "stage tax: under way for 30 s" in said
    assert any(text.startswith("score facts, base, plain: 10/768 rows after") for text in said)
    assert any(text.endswith("gradient 5 of 7 (at most 31)") for text in said)
    assert "stage tax done after 290 s" in said


def test_steps_that_come_often_do_not_flood_the_log(lines):
    progress, turn, printed = lines
    with progress.task("score", total=1000) as task:
        for _ in range(100):
            task.advance(10)
            turn(1)
    assert len(printed) == 3


def test_the_line_comes_from_a_thread_while_the_work_is_busy():
    seen = threading.Event()

    class Stream(io.StringIO):
        def write(self, text):
            if "under way" in text:
                seen.set()
            return len(text)

    progress = LineProgress(Stream(), every=0.01, tick=0.005)
    with progress.stage("similarity"):
        assert seen.wait(30)
    assert not [one for one in threading.enumerate() if one.name == "progress" and not progress._stop.is_set()]


def test_a_task_that_fails_leaves_no_line_behind(lines):
    progress, turn, printed = lines
    with pytest.raises(ValueError, match="no"), progress.stage("probe"), progress.task("probe"):
        raise ValueError("no")
    turn(100)
    assert [text for _, text in printed] == ["stage probe"]


def test_names_say_what_a_task_is_about():
    told = []

    class Heard(Progress):
        def task(self, name, *, total=None, unit="items"):
            told.append(name)
            return super().task(name, total=total, unit=unit)

    with Named(Heard(), "facts, base, plain").task("score"):
        pass
    assert told == ["score facts, base, plain"]


def test_init_writes_a_config_that_loads_and_names_every_option(tmp_path, capsys):
    out = tmp_path / "my run.yaml"
    words = [
        "init",
        "demo:base",
        "demo:planted",
        "demo:facts",
        "other/facts.jsonl",
        "--benefit",
        "demo:harm",
        "--out",
        str(out),
    ]
    assert run_app(words) == 0
    assert f"next: taxlens run {out} --dry-run" in capsys.readouterr().out
    text = out.read_text(encoding="utf-8")
    config = build_config(yaml.safe_load(text))
    assert [(suite.name, suite.kind) for suite in config.suites] == [
        ("facts", "capability"),
        ("facts_2", "capability"),
        ("harm", "benefit"),
    ]
    assert config.name == "my_run"
    for stage in STAGES:
        for key, field in stage.section.model_fields.items() if stage.key else ():
            assert f"#  {key}:" in text
            assert " ".join((field.description or "").split()) in text
    assert run_app(words) == 2
    assert "a file is here already" in capsys.readouterr().err


def test_the_comments_of_init_are_the_defaults():
    text = commented_config("a", "lora", ["f.jsonl"], adapter=True)
    whole = yaml.safe_load("\n".join(_uncommented(text)))
    made, bare = build_config(whole), build_config(yaml.safe_load(text))
    assert made.pair.adapter == "lora"
    for name in Config.model_fields:
        section = getattr(made, name)
        if section is None or name in ("stages",):
            continue
        plain = getattr(bare, name)
        if plain is None:  # a stage that is done only where its key is
            plain = type(section)()
        assert section == plain, name


def _uncommented(text):
    """The config with every option's comment mark taken away; what has no default stays out."""
    for line in text.splitlines():
        body = re.sub(r"^#(?=(?:  )?\w+:)", "", line)
        if body.startswith("  - {name: harm") or ": null" in body.split(" #")[0]:
            continue
        yield body


@pytest.mark.slow
def test_a_dry_run_of_what_init_wrote_passes_on_the_demo_pair(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert run_app(["init", "demo:base", "demo:planted", "demo:facts", "--benefit", "demo:harm"]) == 0
    assert run_app(["run", "mine.yaml", "--dry-run"]) == 0
    assert "total" in capsys.readouterr().out
