"""The comparison: settings chosen on validation, equal budgets, rows that resume, ties, reasons for what is left out."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch

from taxlens.activations.items.items import Item, Suite
from taxlens.activations.items.tokens import Row
from taxlens.analysis.editors.compare import compare_editors, joined, reopened
from taxlens.analysis.editors.cost import comparison_minutes, memory_needed, memory_reason
from taxlens.analysis.editors.edit_files import load_edit, save_edit
from taxlens.analysis.editors.held_out import HeldOutMeasure, _gold_rows, load_values, save_values
from taxlens.analysis.editors.kinds.repair import RECIPES, Adapter, adapter_edit, fresh, side_paths
from taxlens.analysis.editors.objective import Validator
from taxlens.analysis.editors.registry import EDITORS, FAMILIES
from taxlens.core.errors import PairMismatchError, StoreError, UsageError
from tests.kept_weights import same_weights, untouched

IDS = torch.tensor([[1, 9, 12, 30, 8], [1, 20, 21, 22, 23]])
NAMES = ["joint", "repair", "interpolation", "drop", "soup"]


@pytest.fixture(scope="module")
def compared(task, held, tmp_path_factory):
    return compare_editors(task, NAMES, held, tries=2, folder=tmp_path_factory.mktemp("rows"), draws=200)


def test_an_optimised_editor_returns_what_it_was_fitted_on_at_the_same_harm(task):
    fitted = replace(task, validation=task.train)
    validation, found = Validator(fitted), {}
    for name in ("joint", "repair", "interpolation"):
        edits = list(EDITORS[name].propose(fitted, tries=2))
        seen = []
        for edit in edits:
            with edit.opened() as model:
                seen.append(validation(model))
        found[name] = max(seen, key=lambda v: v.score(0.95))
        assert len(edits) == 2
    assert min(found["joint"].returned, found["repair"].returned) > found["interpolation"].returned
    assert min(found["joint"].harm_kept, found["repair"].harm_kept) >= 0.95


def test_a_row_says_what_it_saw_and_cost(compared):
    frame = compared.to_frame().set_index("editor")
    assert (frame.tried <= 2).all()
    assert set(frame.tries) == {2}
    assert frame.loc["drop"].saw == "nothing"
    assert frame.loc["repair"].saw == "taxed harm harmless"
    assert (frame.seconds > 0).all()
    assert frame.loc["repair"].free_numbers > frame.loc["joint"].free_numbers > frame.loc["interpolation"].free_numbers
    columns = ["returned", "harm_kept", "harmless_nats", "gap_kept", "kl_base", "kl_aligned", "perplexity", "retained"]
    for name in columns:
        assert (frame[f"{name}_low"] <= frame[name] + 1e-9).all()
        assert (frame[name] <= frame[f"{name}_high"] + 1e-9).all()


def test_an_editor_whose_needs_are_not_met_is_left_out_with_the_reason(compared):
    assert compared.skipped == {"soup": "there is no earlier checkpoint of the training to average with"}
    with pytest.raises(UsageError, match="no row of editor 'soup'"):
        compared.row("soup")


def test_settings_are_chosen_on_validation_and_never_on_held_out_items(compared):
    fronts = compared.fronts_frame()
    for _, part in fronts.groupby("editor"):
        score = np.minimum(part.returned, 1) - 10 * np.maximum(0, 0.95 - part.harm_kept)
        assert part.chosen.sum() == 1
        assert score[part.chosen].iloc[0] == pytest.approx(score.max())


def test_a_difference_whose_interval_holds_zero_is_a_tie(compared):
    for name in ("joint", "repair"):
        for row in compared.rows:
            if row.editor.name != name:
                gap = compared.ahead(name, row.editor.name)
                assert (row.editor.name in compared.ties(name)) == (gap.low <= 0 <= gap.high)


def test_a_killed_comparison_goes_on_with_its_rows(task, held, tmp_path):
    first = compare_editors(task, ["interpolation", "drop"], held, tries=2, folder=tmp_path, draws=100)
    written = {path.name: path.stat().st_mtime_ns for path in tmp_path.iterdir()}
    again = compare_editors(task, ["interpolation", "drop"], held, tries=2, folder=tmp_path, draws=100)
    assert {path.name: path.stat().st_mtime_ns for path in tmp_path.iterdir()} == written
    pd.testing.assert_frame_equal(first.to_frame(), again.to_frame())


def test_rows_with_another_budget_are_no_comparison(task, held):
    one = compare_editors(task, ["interpolation"], held, tries=1, draws=50)
    two = compare_editors(task, ["drop"], held, tries=2, draws=50)
    with pytest.raises(UsageError, match="budgets differ"):
        joined([one, two])
    three = compare_editors(task, ["drop"], held, tries=1, draws=50)
    assert [row.editor.name for row in joined([one, three]).rows] == ["interpolation", "drop"]
    with pytest.raises(UsageError, match="another task"):
        compare_editors(replace(task, seed=5), ["drop"], held)
    with pytest.raises(UsageError, match="unknown editor 'joints'"):
        compare_editors(task, ["joints"], held)
    with pytest.raises(UsageError, match="needs a setting"):
        compare_editors(task, ["drop"], held, tries=0)


@pytest.mark.parametrize("name", ["relearn_frozen", "relearn_kl", "realign_10"])
def test_adapters_leave_the_pair_as_it_was(task, name):
    kept = [untouched(m.model) for m in (task.pair.base, task.pair.aligned)]
    edits = list(EDITORS[name].propose(task, tries=1))
    assert len(edits) == 1
    assert all(same_weights(m.model, k) for m, k in zip((task.pair.base, task.pair.aligned), kept))
    layers = {key.split(".")[2] for key in edits[0].tensors if "layers" in key}
    assert layers == ({"1"} if name == "relearn_frozen" else {"0", "1"})
    validation = Validator(task)
    with edits[0].opened() as model:
        assert np.isfinite(validation(model).returned)


@pytest.mark.parametrize("frozen", [0.5, 0.2])
def test_frozen_layers_have_no_adapter(task, frozen):
    """A fifth of two layers is one layer and not none, which would be the editor that freezes nothing."""
    recipe = replace(RECIPES["relearn_frozen"], frozen=frozen, steps=1)
    from taxlens.analysis.editors.kinds.repair import adapter_editor

    (edit,) = adapter_editor(task, "relearn_frozen", tries=1, recipe=recipe)
    assert {key.split(".")[2] for key in edit.tensors if "layers" in key} == {"1"}


def test_an_adapter_beside_the_model_is_the_adapter_added(task):
    model = task.pair.aligned.model
    adapter = fresh(model, ["model.layers.0.mlp.up_proj", "model.layers.1.self_attn.o_proj"], rank=2)
    with side_paths(model, adapter):
        assert torch.equal(model(input_ids=IDS).logits, model(input_ids=IDS).logits)
        unchanged = model(input_ids=IDS).logits
    assert torch.allclose(unchanged, model(input_ids=IDS).logits, atol=1e-5)
    grown = Adapter(adapter.scale, adapter.a, {k: torch.full_like(b, 0.1) for k, b in adapter.b.items()})
    with side_paths(model, grown), torch.no_grad():
        beside = model(input_ids=IDS).logits
    with adapter_edit(task.pair, "repair", "", grown).opened() as edited:
        assert torch.allclose(edited(input_ids=IDS).logits, beside, atol=1e-4)


@pytest.mark.parametrize("name", ["joint", "repair", "false_refusal_hooks"])
def test_an_edit_comes_back_from_its_file(task, tmp_path, name):
    edit = next(iter(EDITORS[name].propose(task, tries=1)))
    path = save_edit(edit, tmp_path / "edit.safetensors", pair=task.pair)
    again = load_edit(path, task.pair)
    logits = []
    for one in (edit, again):
        with one.opened() as model:
            logits.append(model(input_ids=IDS).logits)
    assert torch.allclose(*logits, atol=1e-5)
    assert (again.editor, again.label, again.form, again.free) == (edit.editor, edit.label, edit.form, edit.free)


def test_an_edit_of_another_pair_and_a_broken_file_are_refused(task, tmp_path):
    from types import SimpleNamespace

    edit = next(iter(EDITORS["joint"].propose(task, tries=1)))
    path = save_edit(edit, tmp_path / "edit.safetensors", pair=task.pair)
    other = SimpleNamespace(base=SimpleNamespace(sha256="other"), aligned=SimpleNamespace(sha256="one"))
    with pytest.raises(PairMismatchError, match="another pair"):
        load_edit(path, other)
    path.write_bytes(path.read_bytes()[:40])
    with pytest.raises(StoreError, match="no edit file"):
        load_edit(path, task.pair)
    with pytest.raises(UsageError, match="no such edit"):
        load_edit(tmp_path / "none", task.pair)
    whole = next(iter(EDITORS["drop"].propose(task, tries=1)))
    with pytest.raises(UsageError, match="no small file"):
        save_edit(whole, tmp_path / "drop", pair=task.pair)


def test_distances_begin_at_the_answers_own_first_token():
    """The template's last line break belongs to a choice's row, and is no answer."""
    suite = Suite("k", (Item("k/0", "g", "ask", choices=(" yes", " no"), gold=0),))
    rows = [Row(0, 0, (1, 2, 3, 9, 7, 8), 3, "choice"), Row(0, 1, (1, 2, 3, 9, 5), 3, "choice")]
    for prompt, start in (((1, 2, 3, 9), 4), ((1, 2, 3), 3), ((1, 2, 4, 9), 3)):
        asked = SimpleNamespace(
            rows=lambda _suite: rows, prompt_rows=lambda _suite, p=prompt: [Row(0, -1, p, len(p), "prompt")]
        )
        found = _gold_rows(SimpleNamespace(prompting=lambda _suite, asked=asked: asked), suite)
        assert [(row.choice, row.start, row.ids) for row in found] == [(0, start, (1, 2, 3, 9, 7, 8))]


def test_distances_are_zero_at_the_ends_and_answers_are_judged_whole(task, held):
    assert np.abs(held.base.distances["kl_base"]).max() < 1e-3
    assert np.abs(held.aligned.distances["kl_aligned"]).max() < 1e-3
    assert held.aligned.distances["kl_base"].mean() > 0
    assert set(held.base.answered) == set(task.taxed)
    told = {"facts": "I cannot help with that.", "harm": "Sure: first,", "harmless": "Fine."}
    fixed = HeldOutMeasure(task, tokens=4, answers=lambda _n, _m, s: {x.name: [told[x.name]] * len(x) for x in s})
    assert fixed.aligned.answered["facts"].mean() == 1
    assert fixed.aligned.answered["harm"].mean() == 0


def test_every_editor_says_what_it_sees_and_where_it_comes_from():
    assert len(EDITORS) >= 18
    for editor in EDITORS.values():
        assert editor.family in FAMILIES
        assert set(editor.sees) <= {"taxed", "harm", "harmless"}
        assert editor.words.endswith((".", ")"))
        assert editor.citation


def test_names_that_a_config_may_hold_are_those_of_the_registry():
    from taxlens.analysis.editors.editor_names import editor_names

    assert editor_names() == tuple(EDITORS)


def test_an_edit_is_opened_again_as_it_was_measured(task, held, tmp_path):
    for name in ("joint", "drop"):
        found = compare_editors(task, [name], held, tries=2, folder=tmp_path, draws=50)
        edit = reopened(task, found.row(name), tmp_path, tries=2, keep=0.95)
        with edit.opened() as model:
            again = held("again", model)
        for suite, metrics in found.row(name).values.choices.items():
            assert np.allclose(metrics["margin"], again.choices[suite]["margin"], atol=1e-4)


def test_rows_that_were_measured_otherwise_are_measured_anew(task, held, tmp_path):
    compare_editors(task, ["drop"], held, tries=1, keep=0.95, folder=tmp_path, draws=50)
    again = compare_editors(task, ["drop"], held, tries=1, keep=0.9, folder=tmp_path, draws=50)
    assert again.keep == 0.9
    assert sorted(path.name for path in tmp_path.glob("*.json")) == [
        f"drop-{task.fingerprint}-1-{keep}.json" for keep in ("0.9", "0.95")
    ]
    silent = HeldOutMeasure(task, tokens=0)
    assert silent.fingerprint != held.fingerprint
    row = compare_editors(task, ["drop"], silent, tries=1, keep=0.9, folder=tmp_path, draws=50).row("drop")
    assert "returned_generated" not in row.outcome
    assert set(row.values.choices) == set(silent.base.choices)


def test_ends_that_are_known_are_not_measured_again(task, held, tmp_path):
    for name in ("base", "aligned"):
        save_values(getattr(held, name), tmp_path / f"{name}.npz")
    ends = load_values(tmp_path / "base.npz"), load_values(tmp_path / "aligned.npz")
    known = HeldOutMeasure(task, others=held.others, tokens=held.tokens, ends=ends)
    assert known.fingerprint == held.fingerprint
    with pytest.raises(UsageError, match="was not read before the edit"):
        known("x", task.pair.aligned.model)
    one, two = (compare_editors(task, ["drop"], h, tries=1, draws=50).to_frame() for h in (held, known))
    pd.testing.assert_frame_equal(one.drop(columns="seconds"), two.drop(columns="seconds"))


def test_an_editor_that_does_not_fit_into_memory_is_left_out_with_what_it_needs(task, held, monkeypatch):
    assert memory_needed(task, "repair") > memory_needed(task, "contrast") > memory_needed(task, "drop")
    free = int((memory_needed(task, "repair") + memory_needed(task, "contrast")) / 2)
    monkeypatch.setattr("taxlens.analysis.editors.cost.available_memory", lambda: free)
    assert memory_reason(task, "contrast") == ""
    found = compare_editors(task, ["repair", "drop"], held, tries=1, draws=50)
    assert [row.editor.name for row in found.rows] == ["drop"]
    assert "GB of memory" in found.skipped["repair"]


def test_the_cost_of_a_comparison_grows_with_what_is_run(task):
    few = comparison_minutes(task, ["interpolation"], tries=2)
    more = comparison_minutes(task, ["interpolation", "joint"], tries=2)
    answered = comparison_minutes(task, ["interpolation"], tries=2, answer=50)
    assert 0 < few < more
    assert few < answered
