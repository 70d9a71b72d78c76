"""Inspect logs of every kind: reducers, several scores, errors, judges' scales, and what the solvers made of the prompt."""

from __future__ import annotations

import json

import pytest

from taxlens.analysis.logs.import_eval import import_eval, read_log
from taxlens.core.errors import ItemError

pytest.importorskip("inspect_ai", reason="Inspect logs need the inspect extra")
pytestmark = pytest.mark.filterwarnings("ignore")

LISTED = "ANSWER: $LETTER\n\nWhich is cold?\n\nA) fire\nB) ice"


@pytest.fixture
def write(tmp_path):
    """write(name, value(n, epoch), ...) -> a log of twelve samples, written by inspect_ai."""

    def made(
        name,
        value,
        *,
        epochs=1,
        reducer=None,
        status="success",
        messages=True,
        errors=(),
        target="B",
        suffix=".eval",
        system="Be terse.",
        results=None,
    ):
        from inspect_ai.log import EvalConfig, EvalDataset, EvalLog, EvalSample, EvalSpec, write_eval_log
        from inspect_ai.model import ChatMessageAssistant, ChatMessageSystem, ChatMessageUser
        from inspect_ai.scorer import Score

        def sample(n, epoch):
            from inspect_ai._util.error import EvalError

            found = value(n, epoch)
            told = [
                ChatMessageSystem(content=system),
                ChatMessageUser(content=LISTED),
                ChatMessageAssistant(content="ANSWER: B", source="generate"),
            ]
            failed = n in errors
            return EvalSample(
                id=n, epoch=epoch, input="Which is cold?", choices=["fire", "ice"], target=target, messages=told if messages else [],
                scores=None if failed or found is None else {"choice": Score(value=found)},
                error=EvalError(message="down", traceback="", traceback_ansi="") if failed else None,
            )  # fmt: skip

        spec = EvalSpec(
            created="2026-01-01T00:00:00+00:00", task="quiz", dataset=EvalDataset(name="quiz", samples=12), model=name,
            config=EvalConfig(epochs=epochs, epochs_reducer=[reducer] if reducer else None),
        )  # fmt: skip
        samples = [sample(n, epoch) for n in range(12) for epoch in range(1, epochs + 1)]
        folder = tmp_path / name
        folder.mkdir(exist_ok=True)
        write_eval_log(
            EvalLog(eval=spec, samples=samples, status=status, results=results), str(folder / f"log{suffix}")
        )
        return folder

    return made


@pytest.mark.parametrize(
    ("reducer", "expected"),
    [
        (None, 2 / 3),
        ("mean", 2 / 3),
        ("mode", 1.0),
        ("max", 1.0),
        ("at_least_2", 1.0),
        ("pass_at_2", 1.0),
        ("at_least_3", 0.0),
    ],
)
def test_epochs_are_reduced_as_the_log_says(write, reducer, expected):
    base = write("base", lambda n, e: "C", epochs=3, reducer=reducer)
    aligned = write("aligned", lambda n, e: "C" if e < 3 else "I", epochs=3, reducer=reducer)
    row = import_eval(base, aligned).to_frame().iloc[0]
    assert (row["base"], row["aligned"]) == (1.0, pytest.approx(expected, abs=1e-12))


def test_every_key_of_a_score_is_a_metric_and_one_can_be_chosen(write):
    def value(worse):
        return lambda n, e: {
            "prompt_level_strict": n >= worse,
            "inst_level_strict": 2 if n >= worse else 1,
            "num_instructions": 2,
        }

    base, aligned = write("base", value(0)), write("aligned", value(6))
    frame = import_eval(base, aligned).to_frame().set_index("metric")
    assert frame.loc["prompt_level_strict", ["base", "aligned"]].tolist() == [1.0, 0.5]
    assert frame.loc["instruction_level_strict", ["base", "aligned"]].tolist() == [1.0, pytest.approx(0.75, abs=1e-12)]
    chosen = import_eval(base, aligned, variant="prompt_level_strict").to_frame()
    assert chosen["metric"].tolist() == ["prompt_level_strict"]
    with pytest.raises(ItemError, match="scorer in"):
        read_log(base, variant="prompt")


@pytest.mark.parametrize("case", ["error", "no score", "not a number"])
def test_samples_without_a_score_are_left_out_of_both_and_counted(write, case):
    lost = {"error": "C", "no score": None, "not a number": float("nan")}[case]
    base = write("base", lambda n, e: "C")
    aligned = write(
        "aligned", lambda n, e: lost if n == 3 else "I" if n < 6 else "C", errors=(3,) if case == "error" else ()
    )
    found = import_eval(base, aligned)
    row = found.to_frame().iloc[0]
    assert (row["n_items"], row["base"], row["aligned"]) == (11, 1.0, pytest.approx(6 / 11))
    assert any("1 samples without a score" in note for note in found.notes)


def test_a_judges_scale_is_kept_and_no_accuracy(write):
    row = import_eval(write("base", lambda n, e: 7), write("aligned", lambda n, e: 5)).to_frame().iloc[0]
    assert (row["metric"], row["base"], row["tax"]) == ("choice", 7.0, 2.0)
    assert row["p_equivalent"] != row["p_equivalent"]


@pytest.mark.parametrize("words", [("yes", "no"), ("true", "false"), ("C", "N"), ("1", "0")])
def test_words_are_read_as_inspect_reads_them(write, words):
    base = write("base", lambda n, e: words[0])
    assert import_eval(base, write("aligned", lambda n, e: words[n % 2])).to_frame()["aligned"][0] == 0.5


def test_the_prompt_is_what_the_solvers_sent(write):
    found = import_eval(write("base", lambda n, e: "C"), write("aligned", lambda n, e: "I"))
    item = found.suite.items[0]
    assert [m["role"] for m in item.messages] == ["system", "user"]
    assert item.messages[1]["content"] == LISTED
    assert (item.choices, item.gold, item.answers) == ((" ANSWER: A", " ANSWER: B"), 1, ("ANSWER: B",))
    assert not [note for note in found.notes if "no messages" in note]


def test_a_log_without_messages_says_that_prompts_are_inputs(write):
    found = import_eval(write("base", lambda n, e: "C", messages=False), write("aligned", lambda n, e: "I"))
    assert any("the log has no messages" in note for note in found.notes)
    assert found.suite.items[0].choices == (" fire", " ice")


def test_another_system_text_and_a_cancelled_run_are_said(write):
    notes = import_eval(
        write("base", lambda n, e: "C"), write("aligned", lambda n, e: "I", system="Refuse.", status="cancelled")
    ).notes
    assert any("system text differs" in note for note in notes)
    assert any("was cancelled" in note for note in notes)
    assert any("12 of 12 prompts differ" in note for note in notes)


def test_of_several_logs_the_one_that_succeeded_is_read(write, tmp_path):
    base = write("base", lambda n, e: "C")
    write("base", lambda n, e: "I", status="error", suffix=".json")
    found = import_eval(base, write("aligned", lambda n, e: "I"))
    assert found.to_frame()["base"][0] == 1.0
    assert any("passed over log.json (error)" in note for note in found.notes)


def test_a_log_without_version_is_read_and_one_without_scores_says_so(write):
    base = write("base", lambda n, e: "C", suffix=".json")
    file = base / "log.json"
    value = json.loads(file.read_text())
    del value["version"]
    file.write_text(json.dumps(value))
    assert len(read_log(base)["quiz"].samples) == 12
    with pytest.raises(ItemError, match="no scores"):
        read_log(write("bare", lambda n, e: None))
