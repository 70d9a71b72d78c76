"""Evaluation logs of two models become a suite and a ledger, or a clear refusal."""

import json

import numpy as np
import pandas as pd
import pytest

from taxlens.activations.items.items import read_suite, write_suite
from taxlens.analysis.logs.import_eval import import_eval
from taxlens.core.errors import CheckError, ConfigError, ItemError, PairMismatchError, UsageError
from taxlens.core.stats.intervals import mcnemar_exact

DATE = "2026-01-02T03-04-05.678901"


def sample(number, *, right, subject="s", **changes):
    """One multiple-choice sample as lm-eval writes it; ``right`` says whether the gold choice wins."""
    scores = [["-1.0", "False"], ["-2.0", "False"]] if right else [["-2.0", "False"], ["-1.5", "False"]]
    return {
        "doc_id": number,
        "doc": {"question": f"q{number}", "subject": f"{subject}{number % 12}"},
        "target": "0",
        "arguments": {
            "gen_args_0": {"arg_0": f"Q{number}:", "arg_1": " yes"},
            "gen_args_1": {"arg_0": f"Q{number}:", "arg_1": " no"},
        },
        "resps": [[pair] for pair in scores],
        "filtered_resps": scores,
        "filter": "none",
        "metrics": ["acc"],
        "doc_hash": f"hash{number}",
        "prompt_hash": f"prompt{number}",
        "acc": float(right),
    } | changes


@pytest.fixture
def write_log(tmp_path):
    def write(name, samples, *, task="quiz", date=DATE, **results):
        folder = tmp_path / name
        folder.mkdir(exist_ok=True)
        lines = "\n".join(json.dumps(line) for line in samples) + "\n"
        (folder / f"samples_{task}_{date}.jsonl").write_text(lines, encoding="utf-8")
        head = {"model_name": name, "versions": {task: 1}, "n-shot": {task: 0}} | results
        (folder / f"results_{date}.json").write_text(json.dumps(head), encoding="utf-8")
        return folder

    return write


@pytest.fixture
def logs(write_log):
    base = write_log("base", [sample(n, right=n % 4 != 0) for n in range(40)])
    aligned = write_log("aligned", [sample(n, right=n % 2 != 0) for n in range(40)])
    return base, aligned


def test_ledger_is_the_logged_numbers_paired_by_document(logs):
    found = import_eval(*logs)
    row = found.to_frame().set_index("metric").loc["accuracy"]
    assert (row["base"], row["aligned"], row["tax"]) == (0.75, 0.5, 0.25)
    assert (row["lost"], row["won"], row["n_items"], row["n_groups"]) == (10, 0, 40, 12)
    assert row["p"] == mcnemar_exact(10, 0)
    margin = found.to_frame().set_index("metric").loc["margin"]
    assert margin["tax"] == pytest.approx(0.25 * 1.5)
    assert "quiz accuracy +25.0 pts" in repr(found)


def test_order_of_lines_does_not_matter(write_log, logs):
    shuffled = write_log("shuffled", [sample(n, right=n % 2 != 0) for n in reversed(range(40))])
    one, two = import_eval(*logs), import_eval(logs[0], shuffled)
    assert one.to_frame().equals(two.to_frame())


def test_suite_holds_prompts_and_choices_as_asked_and_reads_back(logs, tmp_path):
    found = import_eval(*logs)
    item = found.suite.items[3]
    assert (item.prompt, item.choices, item.gold, item.group) == ("Q3:", (" yes", " no"), 0, "s3")
    again = read_suite(write_suite(found.suite, tmp_path / "items.jsonl"))
    assert again.sha256 == found.suite.sha256


def test_suite_and_ledger_are_written_side_by_side(logs, tmp_path):
    found = import_eval(*logs, out=tmp_path / "items.jsonl")
    assert read_suite(tmp_path / "items.jsonl").sha256 == found.suite.sha256
    assert pd.read_csv(tmp_path / "items.tax.csv")["tax"][0] == 0.25
    assert len(pd.read_csv(tmp_path / "items.items.csv")) == 80


def test_items_table_holds_both_models(logs):
    items = import_eval(*logs).items()
    assert items.groupby("model")["correct"].mean().to_dict() == {"aligned": 0.5, "base": 0.75}
    assert items["probability"].notna().all()


def test_log_of_tuples_and_of_numbers_is_read_as_well(write_log, logs):
    older = [
        sample(
            n,
            right=n % 2 != 0,
            arguments=[[f"Q{n}:", " yes"], [f"Q{n}:", " no"]],
            filtered_resps=[[-1.0, False], [-2.0, False]] if n % 2 else [[-2.0, False], [-1.5, False]],
        )
        for n in range(40)
    ]
    found = import_eval(logs[0], write_log("older", older))
    assert found.to_frame().equals(import_eval(*logs).to_frame())


def test_generated_answers_have_exact_match_and_no_choices(write_log):
    def generated(n, right):
        arguments = {"gen_args_0": {"arg_0": f"Q{n}:", "arg_1": {"until": ["\n"]}}}
        return sample(n, right=True) | {
            "arguments": arguments,
            "filtered_resps": ["yes"],
            "target": "yes",
            "exact_match": float(right),
            "acc": None,
        }

    base = write_log("base", [generated(n, True) for n in range(20)])
    aligned = write_log("aligned", [generated(n, n > 4) for n in range(20)])
    found = import_eval(base, aligned)
    assert found.to_frame()["metric"].tolist() == ["exact_match"]
    assert found.to_frame()["tax"][0] == 0.25
    assert found.suite.items[0].choices == ()


def test_log_without_its_results_file_is_read(logs):
    for folder in logs:
        next(folder.glob("results_*")).unlink()
    assert import_eval(*logs).to_frame()["tax"][0] == 0.25


def test_newest_of_several_logs_is_read_and_the_older_is_noted(write_log, logs):
    write_log("aligned", [sample(n, right=True) for n in range(40)], date="2025-01-01T00-00-00.000000")
    found = import_eval(*logs)
    assert found.to_frame()["tax"][0] == 0.25
    assert any("1 older log(s) passed over" in note for note in found.notes)


def test_differing_settings_are_each_noted(write_log, logs):
    changed = write_log(
        "other-chat",
        [sample(n, right=True) for n in range(40)],
        chat_template="{{ x }}",
        chat_template_sha="abc",
        versions={"quiz": 2},
        **{"n-shot": {"quiz": 5}},
    )
    notes = " ".join(import_eval(logs[0], changed).notes)
    for text in ("task version differs: base '1', aligned '2'", "few-shot examples differs", "chat template differs"):
        assert text in notes
    assert "weights and template together" in notes
    assert import_eval(logs[0], changed).to_frame()["template"][0] == "mixed"


def test_equal_settings_are_not_noted(logs):
    assert not [note for note in import_eval(*logs).notes if "differ" in note]


def test_differing_prompts_are_counted(write_log, logs):
    changed = [sample(n, right=True, prompt_hash="other" if n < 3 else f"prompt{n}") for n in range(40)]
    notes = import_eval(logs[0], write_log("changed", changed)).notes
    assert "quiz: 3 of 40 prompts differ between the logs." in notes


def test_swapped_logs_are_suspected_by_name(write_log):
    rows = [sample(n, right=True) for n in range(12)]
    base, aligned = write_log("model-instruct", rows), write_log("model", rows)
    assert any("are the logs swapped?" in note for note in import_eval(base, aligned).notes)
    assert not any("swapped" in note for note in import_eval(aligned, base).notes)


def test_logs_of_one_model_are_noted(logs):
    assert any("both logs name one model" in note for note in import_eval(logs[0], logs[0]).notes)


def test_logged_hits_that_contradict_the_scores_are_counted(write_log, logs):
    odd = write_log("odd", [sample(n, right=n % 2 != 0, acc=1.0) for n in range(40)])
    assert any("in 20 of 40 samples the logged acc is not the arg max" in n for n in import_eval(logs[0], odd).notes)


def test_missing_samples_are_refused_with_the_first(write_log, logs):
    fewer = write_log("fewer", [sample(n, right=True) for n in range(40) if n not in (7, 9)])
    with pytest.raises(PairMismatchError, match=r"2 of 40, first: document '7'"):
        import_eval(logs[0], fewer)
    with pytest.raises(PairMismatchError, match="lacks samples"):
        import_eval(fewer, logs[0])


def test_different_documents_are_refused(write_log, logs):
    other = write_log("other", [sample(n, right=True, doc_hash="x") for n in range(40)])
    with pytest.raises(PairMismatchError, match="different documents"):
        import_eval(logs[0], other)


def test_different_tasks_are_refused_with_both_names(write_log, logs):
    other = write_log("other", [sample(1, right=True)], task="exam")
    with pytest.raises(PairMismatchError, match=r"different tasks[\s\S]*quiz[\s\S]*exam"):
        import_eval(logs[0], other)


def test_a_document_logged_twice_is_refused(write_log, logs):
    twice = write_log("twice", [sample(n % 39, right=True) for n in range(40)])
    with pytest.raises(ItemError, match=r"logged twice[\s\S]*:40[\s\S]*doc_id\s+0"):
        import_eval(logs[0], twice)


def test_filters_of_one_document_are_no_duplicates(write_log, logs):
    both = [sample(n, right=n % 2 != 0, filter=name) for n in range(40) for name in ("strict", "loose")]
    found = import_eval(logs[0], write_log("both", both))
    assert any("read filter 'strict' of strict, loose" in note for note in found.notes)
    with pytest.raises(ItemError, match="must be one of"):
        import_eval(logs[0], write_log("both", both), variant="lose")


def test_a_link_out_of_the_folder_is_refused(logs, tmp_path):
    outside = tmp_path / "secret.jsonl"
    outside.write_text(json.dumps(sample(0, right=True)), encoding="utf-8")
    file = next(logs[1].glob("samples_*"))
    file.unlink()
    file.symlink_to(outside)
    with pytest.raises(CheckError, match="leaves its folder"):
        import_eval(*logs)


def test_a_log_cut_short_names_the_line(logs):
    file = next(logs[1].glob("samples_*"))
    file.write_text(file.read_text()[:-40], encoding="utf-8")
    with pytest.raises(ItemError, match=r"no JSON[\s\S]*:40"):
        import_eval(*logs)


def test_summary_without_samples_says_how_to_log_them(logs, write_log):
    bare = write_log("bare", [{"doc_id": 0, "acc": 1.0}])
    with pytest.raises(ItemError, match="--log_samples"):
        import_eval(logs[0], bare)


def test_target_that_names_no_choice_is_refused(write_log, logs):
    odd = write_log("odd", [sample(n, right=True, target="maybe") for n in range(40)])
    with pytest.raises(ItemError, match=r"names none of its choices[\s\S]*'maybe'"):
        import_eval(logs[0], odd)


def test_target_may_be_the_text_of_a_choice(write_log, logs):
    named = write_log("named", [sample(n, right=True, target=" yes") for n in range(40)])
    assert import_eval(logs[0], named).suite.items[0].gold == 0


def gap(number, *, right, contexts=2, **changes):
    """A sample as Winogrande is logged: a context a choice, one continuation, which is also the target."""
    scores = [["-1.0", "False"], *[["-2.0", "False"]] * (contexts - 1)]
    gold = 0 if right else 1
    arguments = {f"gen_args_{k}": {"arg_0": f"The cup {number}{k}", "arg_1": " fell."} for k in range(contexts)}
    document = {"sentence": f"s{number}", "answer": str(gold + 1), "subject": f"s{number % 6}"}
    return sample(number, right=True) | {
        "doc": document, "target": "fell.", "arguments": arguments, "filtered_resps": scores, "acc": float(right),
    } | changes  # fmt: skip


def test_a_gap_filled_in_two_ways_is_read_with_a_context_a_choice(write_log):
    base = write_log("base", [gap(n, right=n % 4 != 0) for n in range(24)])
    aligned = write_log(
        "aligned",
        [
            gap(n, right=n % 4 != 0)
            if n % 2
            else gap(n, right=n % 4 == 0) | {"filtered_resps": [["-2.0", "False"], ["-1.0", "False"]]}
            for n in range(24)
        ],
    )
    found = import_eval(base, aligned)
    row = found.to_frame().set_index("metric").loc["accuracy"]
    assert (row["base"], row["aligned"], row["lost"], row["won"]) == (0.75, 0.75, 6, 6)
    item = found.suite.items[1]
    assert (item.contexts, item.choices, item.gold, item.prompt) == (
        ("The cup 10", "The cup 11"), (" fell.", " fell."), 0, None,
    )  # fmt: skip


def test_a_gap_suite_reads_back_from_its_file(write_log, tmp_path):
    rows = [gap(n, right=True) for n in range(12)]
    found = import_eval(write_log("base", rows), write_log("aligned", rows), out=tmp_path / "items.jsonl")
    assert read_suite(tmp_path / "items.jsonl").items == found.suite.items


def test_a_gap_of_three_ways_whose_right_one_is_not_told_is_refused(write_log):
    rows = [gap(n, right=False, contexts=3) | {"doc": {"sentence": f"s{n}"}} for n in range(12)]
    log = write_log("base", rows)
    with pytest.raises(ItemError, match=r"does not tell which of a sample's contexts is right[\s\S]*field 'answer'"):
        import_eval(log, log)
    told = [gap(n, right=False, contexts=3) for n in range(12)]
    assert import_eval(write_log("told", told), write_log("again", told)).suite.items[0].gold == 1


def test_choices_with_different_prompts_and_texts_are_refused(write_log, logs):
    mixed = {"gen_args_0": {"arg_0": "A", "arg_1": " x"}, "gen_args_1": {"arg_0": "B", "arg_1": " y"}}
    odd = write_log("odd", [sample(n, right=True, arguments=mixed) for n in range(40)])
    with pytest.raises(ItemError, match=r"different prompts[\s\S]*2 different of 2[\s\S]*Winogrande"):
        import_eval(logs[0], odd)


def test_logs_that_disagree_on_the_right_choice_are_refused(write_log, logs):
    other = write_log("other", [sample(n, right=True, target="1" if n == 5 else "0") for n in range(40)])
    with pytest.raises(
        PairMismatchError, match=r"disagree on which choice is right[\s\S]*1 of 40, first: document '5'"
    ):
        import_eval(logs[0], other)


def test_a_path_out_of_the_folder_by_dots_is_refused(logs, tmp_path):
    from taxlens.analysis.logs.records import inside

    with pytest.raises(CheckError, match=r"leaves its folder[\s\S]*outside"):
        inside(logs[0], logs[0] / ".." / "outside.jsonl")
    assert inside(logs[0], logs[0] / "samples.jsonl").name == "samples.jsonl"


def test_items_group_by_a_field_or_stand_alone_with_a_note(logs):
    found = import_eval(*logs, group_by="question")
    assert found.to_frame()["n_groups"][0] == 40
    with pytest.raises(UsageError, match="question, subject"):
        import_eval(*logs, group_by="topic")


def test_ungrouped_items_are_noted(write_log):
    rows = [sample(n, right=True, doc={"question": f"q{n}"}) for n in range(12)]
    found = import_eval(write_log("a", rows), write_log("b", rows))
    assert any("each is its own group" in note for note in found.notes)


def test_what_is_no_log_is_refused(tmp_path, logs):
    with pytest.raises(ConfigError, match="does not exist"):
        import_eval(tmp_path / "nothing", logs[0])
    (tmp_path / "notes.txt").write_text("hello")
    with pytest.raises(ConfigError, match="no evaluation log that is known"):
        import_eval(tmp_path / "notes.txt", logs[0])


def test_tasks_are_joined_with_their_names(write_log):
    rows = [sample(n, right=True) for n in range(12)]
    for task in ("one", "two"):
        for name in ("base", "aligned"):
            folder = write_log(name, rows, task=task)
    found = import_eval(folder.parent / "base", folder)
    assert len(found.suite) == 24
    assert found.suite.items[0].id == "one/0"
    assert len(import_eval(folder.parent / "base", folder, task="two").suites) == 1
    assert np.isfinite(found.to_frame()["tax"]).all()
