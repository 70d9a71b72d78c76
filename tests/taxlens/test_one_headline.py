"""One suite has one headline number: terminal, report, README, notebook and LaTeX say the same; and parts add up."""

import html
import re
from pathlib import Path

import numpy as np
import pytest

import taxlens
from taxlens.activations.items.items import write_suite
from taxlens.cli.show import show_run, wide_console
from taxlens.demo import demo_config, model_names
from taxlens.report.answer import headline
from taxlens.report.latex import write_latex
from taxlens.report.page import write_report

ROOT = Path(__file__).parents[2]
SUITES = "suites=[{name: facts, file: 'demo:facts'}, {name: harm, file: 'demo:harm', kind: benefit}]"
LOSS = re.compile(
    r"[Ff]acts lost (\S+) points \[(\S+), (\S+)\] of probability \((\S+) (?:->|→) (\S+) %, plain prompt for both, (\d+) items\)"
)
GAIN = re.compile(
    r"on harm probability \((\S+) -> (\S+) %, plain prompt for both, \d+ items\) rose by (\S+) points \[(\S+), (\S+)\]"
)


def said(text):
    """The headline's numbers in a text: of the loss, and of what alignment was for."""
    flat = " ".join(text.split())
    return LOSS.search(flat).groups(), GAIN.search(flat).groups()


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    config, chosen = demo_config("planted")
    asked = [*chosen, SUITES, "templates=[plain]", "stages=[tax]"]
    return taxlens.run(config, out=tmp_path_factory.mktemp("run") / "r", overrides=asked)


@pytest.fixture(scope="module")
def told(run):
    return said(" ".join(headline(run)))


def test_the_terminal_says_it(run, told):
    console = wide_console()
    with console.capture() as caught:
        show_run(run, console=console, verbose=False)
    assert said(caught.get()) == told


def test_the_report_says_it(run, told):
    page = html.unescape(write_report(run).read_text(encoding="utf-8"))
    assert said(re.sub(r"<[^>]+>", " ", page[page.index('class="answer"') : page.index("<nav")])) == told
    row = re.search(r"<th scope=\"row\">facts</th>(.*?)</tr>", page, flags=re.DOTALL)[1]
    value, low, high, base, aligned, _ = told[0]
    assert f"<td>{value} [{low}, {high}]</td><td>{base} -> {aligned}</td>" in row


def test_latex_says_it(run, told):
    (paper,) = [path for path in write_latex(run) if path.name == "paper.tex"]
    text = paper.read_text(encoding="utf-8").replace(r"-\textgreater{}", "->").replace(r"\%", "%")
    assert said(text) == told


def test_the_readme_says_it(told):
    assert said((ROOT / "README.md").read_text(encoding="utf-8")) == told


@pytest.mark.parametrize("show", [repr, lambda tax: tax._repr_html_()])
def test_the_notebook_says_it(told, show):
    pair = taxlens.load_pair("demo:base", "demo:planted")
    numbers = re.findall(r"\d+\.\d+", show(pair.tax(taxlens.suite("demo:facts"))))
    assert tuple(numbers[:5]) == told[0][:5]


def test_the_picture_says_it(run, told):
    drawn = run.table("tax").set_index(["suite", "metric"]).loc[("facts", "probability")]
    assert told[0][:3] == tuple(f"{100 * drawn[name]:.1f}" for name in ("tax", "low", "high"))


def attributed(pair, folder):
    """A run of a demo pair on few items, attributed by component in both prompts' first."""
    config, chosen = demo_config(pair)
    for name in ("facts", "harmless", "harm"):
        whole = taxlens.suite(f"demo:{name}")
        write_suite(whole.subset(np.linspace(0, len(whole) - 1, 24).astype(int)), folder / f"{name}.jsonl")
    suites = ", ".join(f"{{name: {name}, file: '{folder}/{name}.jsonl'}}" for name in ("facts", "harmless"))
    suites += f", {{name: harm, file: '{folder}/harm.jsonl', kind: benefit}}"
    asked = [f"suites=[{suites}]", "stages=[tax, attribute]", "tax.bootstrap=200", "attribution.levels=[component]"]
    asked += ["attribution.metrics=[probability]", "attribution.methods=[path]"]
    return taxlens.run(config, out=folder / "r", overrides=[*chosen, *asked])


SLOW = [name.removeprefix("demo:") for name in model_names() if name not in ("demo:base", "demo:planted")]


@pytest.mark.parametrize("pair", ["planted", *(pytest.param(name, marks=pytest.mark.slow) for name in SLOW)])
def test_parts_add_to_the_whole_to_the_printed_digit_on_every_demo_pair(pair, tmp_path, parts_add_up):
    sentences = headline(attributed(pair, tmp_path))
    assert sum(parts_add_up(sentence) for sentence in sentences) >= 1
