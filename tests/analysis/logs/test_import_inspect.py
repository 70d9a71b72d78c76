"""Inspect logs, written by inspect_ai itself, become a suite and a ledger."""

from __future__ import annotations

import zipfile

import pytest

from taxlens.analysis.logs.import_eval import import_eval
from taxlens.core.errors import CheckError, ItemError, PairMismatchError

pytest.importorskip("inspect_ai", reason="Inspect logs need the inspect extra")
pytestmark = pytest.mark.filterwarnings("ignore")


def make_log(model, right, *, count=24, epochs=1, scored=True):
    from inspect_ai.log import EvalConfig, EvalDataset, EvalLog, EvalSample, EvalSpec
    from inspect_ai.scorer import Score

    samples = [
        EvalSample(
            id=n,
            epoch=epoch,
            input=f"Question {n}?",
            choices=["yes", "no"],
            target="A",
            metadata={"subject": f"s{n % 12}"},
            scores={"choice": Score(value="C" if right(n, epoch) else "I")} if scored else None,
        )
        for n in range(count)
        for epoch in range(1, epochs + 1)
    ]
    spec = EvalSpec(
        created="2026-01-01T00:00:00+00:00",
        task="quiz",
        dataset=EvalDataset(name="quiz", samples=count),
        model=model,
        config=EvalConfig(),
    )
    return EvalLog(eval=spec, samples=samples, status="success")


@pytest.fixture
def write(tmp_path):
    def write(name, suffix, *args, **options):
        from inspect_ai.log import write_eval_log

        folder = tmp_path / name
        folder.mkdir()
        write_eval_log(make_log(name, *args, **options), str(folder / f"log{suffix}"))
        return folder / f"log{suffix}"

    return write


@pytest.mark.parametrize("suffix", [".eval", ".json"])
def test_both_formats_give_the_ledger_and_the_suite(write, suffix):
    base = write("base", suffix, lambda n, e: True)
    aligned = write("aligned", suffix, lambda n, e: n >= 6)
    for left, right in ((base, aligned), (base.parent, aligned.parent)):
        found = import_eval(left, right)
        row = found.to_frame().iloc[0]
        assert (row["metric"], row["tax"], row["lost"], row["n_groups"]) == ("accuracy", 0.25, 6, 12)
        item = found.suite.items[0]
        assert (item.prompt, item.choices, item.gold) == ("Question 0?", (" yes", " no"), 0)


def test_epochs_are_averaged(write):
    base = write("base", ".json", lambda n, e: True, epochs=2)
    aligned = write("aligned", ".json", lambda n, e: e == 1, epochs=2)
    assert import_eval(base, aligned).to_frame()["tax"][0] == 0.5


def test_samples_missing_in_one_log_are_refused(write):
    base, aligned = write("base", ".eval", lambda n, e: True), write("aligned", ".eval", lambda n, e: True, count=20)
    with pytest.raises(PairMismatchError, match="4 of 24"):
        import_eval(base, aligned)


def test_samples_without_a_score_are_refused(write):
    base, aligned = write("base", ".json", lambda n, e: True), write("aligned", ".json", None, scored=False)
    with pytest.raises(ItemError, match=r"no scorer|no score"):
        import_eval(base, aligned)


def test_an_archive_with_a_path_that_leaves_it_is_refused(write):
    base = write("base", ".eval", lambda n, e: True)
    aligned = write("aligned", ".eval", lambda n, e: True)
    with zipfile.ZipFile(aligned, "a") as archive:
        archive.writestr("../outside.json", "{}")
    with pytest.raises(CheckError, match=r"leaves it[\s\S]*\.\./outside\.json"):
        import_eval(base, aligned)


def test_a_file_that_is_no_archive_is_refused(write, tmp_path):
    base = write("base", ".eval", lambda n, e: True)
    broken = tmp_path / "broken.eval"
    broken.write_bytes(base.read_bytes()[:100])
    with pytest.raises(ItemError, match="no archive"):
        import_eval(base, broken)
