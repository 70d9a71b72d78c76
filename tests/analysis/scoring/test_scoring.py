"""Scoring against the plainest possible computation, for every layout, shared and separate."""

import copy

import numpy as np
import pytest
import torch
from tokenizers import normalizers

from taxlens.activations.items.items import Item, Suite
from taxlens.activations.items.tokens import encode_suite
from taxlens.analysis.scoring import choices as scoring
from taxlens.analysis.scoring import logits as forward
from taxlens.analysis.scoring import shared_prompt as prefix
from taxlens.core.errors import ItemError, ModelLoadError, TaxlensError

LAYOUTS = ["llama", "qwen2", "gemma2", "gpt_neox", "gpt2"]


def plain_log_probability(model, row):
    """One row, no padding, all logits, log-softmax in float64."""
    with torch.no_grad():
        logits = model(input_ids=torch.tensor([row.ids])).logits[0].double()
    table = torch.log_softmax(logits, dim=-1)
    return sum(float(table[p - 1, row.ids[p]]) for p in range(row.start, len(row.ids)))


@pytest.mark.parametrize("layout", LAYOUTS)
def test_batched_rows_equal_rows_alone(layout, make_model, word_tokenizer, word_suite):
    model = make_model(layout)
    rows = encode_suite(word_suite, word_tokenizer)
    got = scoring.score_rows(model, rows, batch_tokens=200)
    assert got.logp == pytest.approx([plain_log_probability(model, row) for row in rows], abs=2e-5)
    assert got.n_tokens.tolist() == [len(row.ids) - row.start for row in rows]


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("template", ["plain", "chat"])
def test_shared_prompts_equal_separate_rows(layout, template, make_model, word_tokenizer, word_suite):
    model = make_model(layout)
    both = [
        scoring.score_suite(model, word_suite, tokenizer=word_tokenizer, template=template, share_prefix=share)
        for share in (True, False)
    ]
    assert (both[0].shared, both[1].shared) == (True, False)
    assert both[0].logp == pytest.approx(both[1].logp, abs=2e-5, nan_ok=True)
    assert np.array_equal(both[0].greedy, both[1].greedy)


def test_batch_size_changes_scores_by_rounding_only(make_model, word_tokenizer, word_suite):
    model = make_model()
    small, large = (
        scoring.score_suite(model, word_suite, tokenizer=word_tokenizer, batch_tokens=size).logp for size in (30, 4096)
    )
    assert small == pytest.approx(large, abs=2e-5, nan_ok=True)


def test_two_runs_give_identical_scores(make_model, word_tokenizer, word_suite):
    model = make_model()
    first, second = (scoring.score_suite(model, word_suite, tokenizer=word_tokenizer).logp for _ in range(2))
    assert first.tobytes() == second.tobytes()


def test_a_small_logit_budget_changes_nothing_but_the_batches(make_model, word_tokenizer, word_suite, monkeypatch):
    model, rows = make_model(), encode_suite(word_suite, word_tokenizer)
    whole = scoring.score_rows(model, rows)
    monkeypatch.setattr(scoring, "LOGIT_BUDGET", 48 * 5)
    monkeypatch.setattr(prefix, "LOGIT_BUDGET", 48 * 5)
    assert scoring.score_rows(model, rows).logp == pytest.approx(whole.logp, abs=2e-5)
    shared = scoring.score_suite(model, word_suite, tokenizer=word_tokenizer)
    assert shared.logp[~np.isnan(shared.logp)] == pytest.approx(whole.logp, abs=2e-5)


def test_head_sees_only_the_asked_positions(make_model):
    model = make_model()
    seen = []
    handle = model.lm_head.register_forward_hook(lambda m, i, o: seen.append(tuple(i[0].shape[:2])))
    ids = torch.randint(0, 48, (3, 10))
    forward.asked_logits(model, ids, torch.ones_like(ids), torch.arange(10).expand(3, -1), [(0, 1), (2, 9)])
    handle.remove()
    assert seen == [(1, 2)]


def test_hook_is_removed_even_where_the_forward_fails(make_model):
    model = make_model()
    ids = torch.full((1, 2), 999)
    with pytest.raises(IndexError):
        forward.asked_logits(model, ids, torch.ones_like(ids), torch.zeros_like(ids), [(0, 0)])
    assert not model.base_model._forward_hooks


def test_greedy_is_true_for_what_the_model_would_say(make_model, word_tokenizer):
    model = make_model()
    ids = torch.tensor([word_tokenizer.encode("w1 w2 w3")])
    with torch.no_grad():
        best = int(model(input_ids=ids).logits[0, -1].argmax())
    said = word_tokenizer.convert_ids_to_tokens(best)
    other = "w5" if said != "w5" else "w6"
    item = Item(id="1", group="1", prompt="w1 w2 w3", choices=(f" {said}", f" {other}"), gold=0)
    got = scoring.score_suite(model, Suite("s", (item,)), tokenizer=word_tokenizer)
    assert got.greedy.tolist() == [[True, False]]
    assert got.choice.tolist() == [0]


def test_model_that_ignores_the_mask_is_scored_separately(make_model, word_tokenizer, word_suite, monkeypatch):
    model = make_model()
    monkeypatch.setattr(
        prefix, "branch_mask", lambda branch, dtype: torch.zeros(len(branch), 1, *[branch.shape[1]] * 2)
    )
    got = scoring.score_suite(model, word_suite, tokenizer=word_tokenizer)
    assert not got.shared
    monkeypatch.undo()
    assert got.logp == pytest.approx(
        scoring.score_suite(model, word_suite, tokenizer=word_tokenizer).logp, abs=2e-5, nan_ok=True
    )


def test_window_shorter_than_a_row_forbids_sharing(make_model, word_tokenizer, word_suite):
    model = make_model("gemma2")
    model.config.sliding_window = 4
    assert not scoring.score_suite(model, word_suite, tokenizer=word_tokenizer).shared


def test_items_without_choices_are_passed_over(make_model, word_tokenizer, word_suite):
    mixed = Suite("mixed", (Item(id="t", group="t", text="w1 w2"), *word_suite.items))
    got = scoring.score_suite(make_model(), mixed, tokenizer=word_tokenizer)
    assert got.items == tuple(item.id for item in word_suite.items)


def test_suite_without_choices_is_refused(make_model, word_tokenizer):
    suite = Suite("texts", (Item(id="t", group="t", text="w1 w2"),))
    with pytest.raises(ItemError, match="no item of the suite has choices"):
        scoring.score_suite(make_model(), suite, tokenizer=word_tokenizer)


def test_choices_that_become_the_same_tokens_are_refused(make_model, word_tokenizer):
    item = Item(id="x", group="x", prompt="w1", choices=(" w2", "  w2"), gold=0)
    with pytest.raises(ItemError, match=r"same tokens[\s\S]*'x'[\s\S]*' w2' and '  w2'"):
        scoring.score_suite(make_model(), Suite("s", (item,)), tokenizer=word_tokenizer)


@pytest.mark.parametrize(
    ("form", "choices"),
    [("NFKC", (" ｗ2 w3", " w2 w4 w5")), ("Lowercase", (" W2 w3", " w2 w4 w5"))],
)
def test_choices_that_share_a_first_token_only_after_normalisation_score_as_rows_alone(
    form, choices, make_model, word_tokenizer
):
    tokenizer = copy.deepcopy(word_tokenizer)
    tokenizer.backend_tokenizer.normalizer = getattr(normalizers, form)()
    suite = Suite("s", (Item(id="x", group="x", prompt="w1 w6", choices=choices, gold=0),))
    model, rows = make_model(), encode_suite(suite, tokenizer)
    assert choices[0].split()[0] != choices[1].split()[0]
    assert rows[0].ids[: rows[0].start + 1] == rows[1].ids[: rows[1].start + 1]
    got = scoring.score_suite(model, suite, tokenizer=tokenizer)
    assert got.shared
    assert got.logp[0] == pytest.approx([plain_log_probability(model, row) for row in rows], abs=2e-5)
    same = Suite("s", (Item(id="x", group="x", prompt="w1", choices=(choices[0], " w2 w3"), gold=0),))
    with pytest.raises(ItemError, match="become the same tokens"):
        scoring.score_suite(model, same, tokenizer=tokenizer)


@pytest.mark.parametrize("template", ["plain", "chat"])
def test_contexts_of_their_own_score_as_rows_alone(template, make_model, word_tokenizer):
    contexts = ("w1 w2 w3", "w1 w4")
    items = [Item(id=str(n), group="g", choices=(f" w{n} w7",) * 2, gold=0, contexts=contexts) for n in range(8)]
    model, suite = make_model(), Suite("gaps", tuple(items))
    rows = encode_suite(suite, word_tokenizer, template=template)
    alone = [plain_log_probability(model, row) for row in rows]
    for share in (True, False):
        got = scoring.score_suite(model, suite, tokenizer=word_tokenizer, template=template, share_prefix=share)
        assert got.logp.ravel() == pytest.approx(alone, abs=2e-5)
    assert np.abs(got.logp[:, 0] - got.logp[:, 1]).min() > 1e-3  # equal choices, told apart by their contexts


def test_chat_without_a_template_names_the_remedy(make_model, word_tokenizer, word_suite, monkeypatch):
    monkeypatch.setattr(word_tokenizer, "chat_template", None)
    with pytest.raises(ModelLoadError, match=r"templates: \[plain\]"):
        scoring.score_suite(make_model(), word_suite, tokenizer=word_tokenizer, template="chat")


def test_broken_weights_are_refused(make_model, word_tokenizer, word_suite):
    model = make_model()
    model.lm_head.weight[3] = float("nan")
    with pytest.raises(TaxlensError, match="NaN or infinite"):
        scoring.score_suite(model, word_suite, tokenizer=word_tokenizer)


def test_bytes_are_those_of_the_choice_as_written(make_model, word_tokenizer):
    item = Item(id="x", group="x", prompt="w1", choices=(" w2", " é"), gold=0)
    got = scoring.score_suite(make_model(), Suite("s", (item,)), tokenizer=word_tokenizer)
    assert got.n_bytes.tolist() == [[3, 3]]
