"""What is counted on generated answers: right, refused, long, varied, diverging."""

from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from scipy.stats import entropy

from taxlens.activations.items.items import Item, Suite
from taxlens.analysis.answers.answers import Answers, generate_answers
from taxlens.analysis.answers.costs import answer_costs
from taxlens.analysis.answers.exact_match import answer_surrogate, exact_match
from taxlens.analysis.answers.matching import is_right
from taxlens.analysis.answers.positions import answer_divergence, compare
from taxlens.analysis.answers.versatility import measure_versatility, variety
from taxlens.analysis.tax.ledger import tax_frame
from taxlens.core.errors import ItemError, UsageError


@pytest.fixture(scope="module")
def said(fake_pair, word_suite):
    return generate_answers(fake_pair, word_suite, template="plain", max_new_tokens=6)


def made(base, aligned, gold=" yes"):
    """Answers written by hand."""
    items = tuple(Item(f"i{n}", f"g{n}", f"w{n}", None, (gold, " other"), 0) for n in range(len(base)))
    count = tuple(np.array([len(text.split()) for text in texts]) for texts in (base, aligned))
    return Answers(Suite("asked", items), "plain", tuple(base), tuple(aligned), count, (1.0, 2.0))


@pytest.mark.parametrize(
    ("answer", "gold", "match", "right"),
    [
        ("Paris", " Paris", "exact", True),
        (" paris.\nBerlin", " Paris", "exact", True),
        ("Paris is it", " Paris", "exact", False),
        ("Paris, of course", " Paris", "prefix", True),
        ("Parisian", " Paris", "prefix", False),
        ("It is Paris", " Paris", "prefix", False),
        ("", " Paris", "prefix", False),
    ],
)
def test_answers_match_by_their_first_line(answer, gold, match, right):
    assert is_right(answer, Item("", "", prompt="", answers=(gold,), match=match)) is right


def test_unknown_match_lists_the_options():
    with pytest.raises(UsageError, match="prefix, exact"):
        exact_match(made(["yes"], ["no"]), match="fuzzy")


def test_exact_match_makes_a_ledger_of_lost_and_won():
    paired = exact_match(made(["yes", "yes.", "no", "yes sir"], ["no", "yes", "yes", "no"]))
    row = tax_frame([paired]).iloc[0]
    assert (row["metric"], row["base"], row["aligned"], row["lost"], row["won"]) == ("exact_match", 0.75, 0.5, 2, 1)
    assert row["p_test"] == "mcnemar_exact"


def test_answers_of_base_against_itself_cost_nothing(fake_pair, word_suite):
    same = SimpleNamespace(base=fake_pair.base, aligned=fake_pair.base)
    answers = generate_answers(same, word_suite, template="plain", max_new_tokens=4)
    assert answers.base == answers.aligned
    frame = answer_costs(answers).frame.set_index("measure")
    assert (frame.loc[["refusal_rate", "tokens"], ["change", "low", "high"]] == 0).all(axis=None)
    divergence = answer_divergence(same, answers).to_frame()
    assert divergence.query("measure == 'kl'")["value"].max() == 0
    assert divergence.query("measure == 'unshifted'")["value"].min() == 1


def test_costs_count_refusals_tokens_and_seconds():
    answers = made(["yes", "yes sir no"], ["I'm sorry, but I can't help with that.", "yes"])
    frame = answer_costs(answers).to_frame().set_index("measure")
    assert frame["change"]["refusal_rate"] == 0.5
    assert frame["base"]["tokens"] == 2
    assert frame["change"]["seconds_per_item"] == 0.5
    assert pd.isna(frame["low"]["seconds_per_item"])
    assert "refusal_rate 0 -> 0.5" in repr(answer_costs(answers))


def test_answers_table_has_a_row_an_item_and_model(said, word_suite):
    frame = said.to_frame()
    assert len(frame) == 2 * len(word_suite)
    assert "refusals" in repr(said)


def test_items_without_a_prompt_are_passed_over_and_alone_refused(fake_pair, word_suite):
    empty = Item("x", "x", "", None, ("w1", "w2"), 0)
    mixed = Suite("mixed", (empty, *word_suite.items[:3]))
    assert len(generate_answers(fake_pair, mixed, template="plain", max_new_tokens=2).base) == 3
    with pytest.raises(ItemError, match="no item has a prompt"):
        generate_answers(fake_pair, Suite("empty", (empty,)), template="plain")


def test_surrogate_sees_what_generation_lost(fake_pair, said):
    """Let the base's own answers be right: what aligned says instead lowers their likelihood."""
    items = tuple(
        Item(item.id, item.group, item.prompt, None, (f" {text}", " never"), 0)
        for item, text in zip(said.suite.items, said.base)
    )
    keep = [n for n, text in enumerate(said.base) if text.strip()]
    aligned = tuple(base if n % 2 else other for n, (base, other) in enumerate(zip(said.base, said.aligned)))
    suite = Suite("own", items).subset(keep)
    pick = lambda texts: tuple(texts[n] for n in keep)  # noqa: E731
    tokens = tuple(t[keep] for t in said.tokens)
    answers = Answers(suite, "plain", pick(said.base), pick(aligned), tokens, said.seconds)
    found = answer_surrogate(fake_pair, answers)
    assert found.n_items == len(keep)
    assert 0 < found.n_lost < found.n_items
    assert found.tax > 0
    assert found.low <= found.tax <= found.high
    assert 0 <= found.auc <= 1


def test_surrogate_without_right_answers_is_refused(fake_pair):
    with pytest.raises(UsageError, match="answers no item of the suite rightly"):
        answer_surrogate(fake_pair, made(["no", "no"], ["no", "no"]))


def test_exact_match_without_gold_is_refused():
    items = (Item("a", "a", "w1"), Item("b", "b", "w2"))
    none = np.zeros(2, dtype=int)
    answers = Answers(Suite("open", items), "plain", ("", ""), ("", ""), (none, none), (0.0, 0.0))
    with pytest.raises(UsageError, match="no right answer"):
        exact_match(answers)


def test_kl_and_rank_match_an_independent_code():
    generator = torch.Generator().manual_seed(0)
    base, aligned = (torch.randn(5, 11, generator=generator) for _ in range(2))
    kl, rank = compare(base, aligned)
    for row in range(5):
        p, q = (torch.softmax(t[row].double(), -1).numpy() for t in (aligned, base))
        assert kl[row] == pytest.approx(entropy(p, q))
        order = np.argsort(-base[row].numpy())
        assert order[rank[row] - 1] == int(aligned[row].argmax())


def test_divergence_shares_sum_to_one_and_positions_thin_out(fake_pair, said):
    found = answer_divergence(fake_pair, said, positions=5)
    frame = found.to_frame()
    shares = frame[frame["measure"] != "kl"].groupby("position", dropna=False)["value"].sum()
    assert shares.to_numpy() == pytest.approx(np.ones(len(shares)))
    counts = frame[frame["measure"] == "kl"].dropna(subset="position")["n_items"].to_numpy()
    assert (np.diff(counts) <= 0).all()
    assert frame["position"].max() <= 4
    assert repr(found).startswith("Divergence: words (plain) KL ")


def test_divergence_in_chat_reads_the_template(fake_pair, word_suite):
    answers = generate_answers(fake_pair, word_suite.subset(range(6)), template="chat", max_new_tokens=3)
    assert (answer_divergence(fake_pair, answers).to_frame()["template"] == "chat").all()


def test_divergence_of_silence_is_refused(fake_pair):
    with pytest.raises(ItemError, match="gives no answer"):
        answer_divergence(fake_pair, made(["yes"], [""]))


def test_variety_is_high_for_different_texts_and_low_for_copies():
    copies, different = variety(["a b c d"] * 8), variety([f"x{n} y{n} z{n} q{n}" for n in range(8)])
    assert (different["distinct_1"], different["distinct_texts"]) == (1.0, 1.0)
    assert (copies["distinct_1"], copies["distinct_texts"]) == (1 / 8, 1 / 8)
    assert copies["compression"] > different["compression"]
    assert variety(["", ""])["distinct_1"] == 0


def test_versatility_of_a_sharper_model_is_lower(make_model, word_tokenizer, word_suite):
    flat = make_model("llama", 0)
    sharp = make_model("llama", 0)
    with torch.no_grad():
        flat.lm_head.weight *= 0.05

    def loaded(model):
        return SimpleNamespace(model=model, tokenizer=word_tokenizer, chat_template=word_tokenizer.chat_template)

    pair = SimpleNamespace(base=loaded(flat), aligned=loaded(sharp))
    few = word_suite.subset(range(12))
    found = measure_versatility(pair, few, template="plain", samples=4, max_new_tokens=5)
    frame = found.to_frame().set_index("measure")
    assert frame["change"]["entropy"] < 0
    assert frame["change"]["distinct_1"] < 0
    state = torch.random.get_rng_state()
    again = measure_versatility(pair, few, template="plain", samples=4, max_new_tokens=5)
    assert again.to_frame().equals(found.to_frame())
    assert torch.equal(state, torch.random.get_rng_state())


def test_entropy_is_that_of_the_next_token(fake_pair, word_suite):
    found = measure_versatility(fake_pair, word_suite.subset([0]), template="plain", samples=2, max_new_tokens=2)
    tokenizer, model = fake_pair.base.tokenizer, fake_pair.base.model
    with torch.no_grad():
        logits = model(torch.tensor([tokenizer(word_suite.items[0].prompt).input_ids])).logits[0, -1]
    expected = entropy(torch.softmax(logits.double(), -1).numpy())
    assert found.to_frame().set_index("measure")["base"]["entropy"] == pytest.approx(expected, abs=1e-5)


def test_one_sample_is_no_variety(fake_pair, word_suite):
    with pytest.raises(UsageError, match="at least two samples"):
        measure_versatility(fake_pair, word_suite, samples=1)


def test_costs_add_up(said):
    one = answer_costs(said)
    assert len((one + one).to_frame()) == 2 * len(one.to_frame())
