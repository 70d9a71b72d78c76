"""The tax of a pair: signs, identities, 2 x 2, items lost and won."""

from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from taxlens.activations.items.items import Item, Suite
from taxlens.analysis.scoring.metrics import Metric
from taxlens.analysis.tax.ledger import Paired, tax_frame
from taxlens.analysis.tax.tax import measure_tax
from taxlens.analysis.tax.two_by_two import EFFECTS
from taxlens.core.errors import ItemError, UsageError
from taxlens.core.stats.intervals import mcnemar_exact

CONTRACT = ["suite", "kind", "metric", "template", "base", "aligned", "tax", "low", "high", "p"]
CONTRACT += ["lost", "won", "n_items", "n_groups"]


@pytest.fixture(scope="module")
def tax(fake_pair, word_suite):
    return measure_tax(fake_pair, word_suite)


def test_table_leads_with_the_columns_of_the_contract(tax):
    assert list(tax.to_frame().columns[: len(CONTRACT)]) == CONTRACT
    assert len(tax.to_frame()) == 2 * 5


def test_base_against_itself_has_no_tax_at_all(fake_pair, word_suite):
    same = SimpleNamespace(base=fake_pair.base, aligned=fake_pair.base)
    frame = measure_tax(same, word_suite).to_frame()
    assert (frame[["tax", "low", "high", "lost", "won"]].to_numpy(dtype=float) == 0).all()
    assert (frame["p"] == 1.0).all()


def test_loss_is_positive_for_every_metric(fake_pair, word_suite, tax):
    swapped = measure_tax(SimpleNamespace(base=fake_pair.aligned, aligned=fake_pair.base), word_suite)
    assert tax.to_frame()["tax"].to_numpy() == pytest.approx(-swapped.to_frame()["tax"].to_numpy(), abs=1e-12)
    row = tax.to_frame().set_index(["template", "metric"]).loc[("plain", "nll")]
    assert row["tax"] == pytest.approx(row["aligned"] - row["base"])
    row = tax.to_frame().set_index(["template", "metric"]).loc[("plain", "accuracy")]
    assert row["tax"] == pytest.approx(row["base"] - row["aligned"])
    assert row["tax"] == pytest.approx((row["lost"] - row["won"]) / row["n_items"])


def test_p_of_accuracy_is_exact_mcnemar(tax):
    row = tax.to_frame().iloc[0]
    assert row["p"] == mcnemar_exact(row["lost"], row["won"])
    assert row["p_test"] == "mcnemar_exact"


def test_effects_of_weights_and_template_sum_to_the_total(tax):
    wide = tax.two_by_two().pivot(index="metric", columns="effect", values="value")
    assert wide[list(EFFECTS[:3])].sum(axis=1).to_numpy() == pytest.approx(wide["total"].to_numpy(), abs=1e-12)


def test_weights_effect_is_the_tax_in_the_plain_template(tax):
    effects = tax.two_by_two().query("effect == 'weights'").set_index("metric")
    plain = tax.to_frame().query("template == 'plain'").set_index("metric")
    for column, source in (("value", "tax"), ("low", "low"), ("high", "high")):
        assert effects[column].to_numpy() == pytest.approx(plain[source].to_numpy(), abs=1e-12)


def test_one_template_gives_no_two_by_two(fake_pair, word_suite):
    single = measure_tax(fake_pair, word_suite, templates=["plain"])
    assert single.two_by_two().empty
    assert list(single.two_by_two().columns[:4]) == ["suite", "metric", "effect", "value"]
    with pytest.raises(UsageError, match="no 2 x 2"):
        single.headline("words")


def test_headline_says_how_much_is_the_template(tax):
    text = tax.headline("words")
    assert text.startswith("words: of ")
    assert "are the template" in text


def test_items_table_has_a_row_an_item_template_and_model(tax, word_suite):
    items = tax.items()
    assert len(items) == 2 * 2 * len(word_suite)
    assert list(items.columns[:5]) == ["suite", "item", "group", "template", "model"]
    assert list(items.columns[5:9]) == ["correct", "probability", "margin", "nll"]
    assert items.groupby(["template", "model"])["correct"].mean().loc[("plain", "base")] == pytest.approx(
        tax.to_frame().iloc[0]["base"]
    )


def test_changed_items_come_with_their_texts(tax, word_suite):
    changed = tax.changed().query("template == 'plain'")
    row = tax.to_frame().iloc[0]
    assert (changed["change"] == "lost").sum() == row["lost"]
    lost = changed[changed["change"] == "lost"]
    assert (lost["base"] == lost["gold"]).all()
    assert (lost["aligned"] != lost["gold"]).all()


def test_borrowed_template_is_noted(fake_pair, word_suite, word_tokenizer):
    bare = SimpleNamespace(
        model=fake_pair.base.model, tokenizer=SimpleNamespaceTokenizer(word_tokenizer), chat_template=None
    )
    found = measure_tax(SimpleNamespace(base=bare, aligned=fake_pair.aligned), word_suite)
    assert found.notes[0] == "base has no chat template: the aligned model's serves both."


class SimpleNamespaceTokenizer:
    """The word tokenizer without a chat template of its own."""

    def __init__(self, tokenizer):
        self._tokenizer, self.chat_template = tokenizer, None

    def __getattr__(self, name):
        return getattr(self._tokenizer, name)

    def __call__(self, *args, **options):
        return self._tokenizer(*args, **options)

    def __len__(self):
        return len(self._tokenizer)


def test_without_any_chat_template_plain_is_measured_with_a_note(fake_pair, word_suite, word_tokenizer):
    bare = SimpleNamespace(
        model=fake_pair.base.model, tokenizer=SimpleNamespaceTokenizer(word_tokenizer), chat_template=None
    )
    found = measure_tax(SimpleNamespace(base=bare, aligned=bare), word_suite)
    assert set(found.to_frame()["template"]) == {"plain"}
    assert any("chat template" in note and "plain" in note for note in found.notes)


def test_suite_without_choices_is_noted_and_alone_refused(fake_pair, word_suite):
    texts = Suite("texts", (Item(id="t", group="t", text="w1"),))
    found = measure_tax(fake_pair, [word_suite, texts], templates=["plain"])
    assert any(note.startswith("texts: no item has choices") for note in found.notes)
    with pytest.raises(ItemError, match="no suite has items with choices"):
        measure_tax(fake_pair, texts)


def test_asking_for_what_was_not_measured_lists_what_was(tax):
    with pytest.raises(UsageError, match="words/accuracy/plain"):
        tax.interval("words", metric="exact_match")
    assert tax.interval("words").n_groups == 10


def test_repr_says_points_interval_and_n(tax):
    assert "n=40 items in 10 groups" in repr(tax)
    row = tax.to_frame().set_index(["metric", "template"]).loc[("probability", "plain")]
    said = (
        f"words (plain) {100 * row['tax']:+.1f} points [{100 * row['low']:.1f}, {100 * row['high']:.1f}] of probability"
    )
    assert said.replace("-0.0,", "0.0,") in repr(tax)
    assert f"({100 * row['base']:.1f} -> {100 * row['aligned']:.1f} %" in repr(tax)


def test_a_notebook_shows_the_tax_in_the_unit_that_its_head_says(tax):
    shown = tax.shown_frame()
    assert list(shown["suite"]) == ["words", "words"]
    assert list(shown.columns)[2] == "probability lost (points)"
    row = tax.to_frame().set_index(["metric", "template"]).loc[("probability", "plain")]
    assert shown["base"][0] == f"{100 * row['base']:.1f}"
    assert "<td>words</td>" in tax._repr_html_()


def test_own_metrics_are_measured_beside_the_registered_ones(fake_pair, word_suite, tax):
    def first_choice(scores, gold):
        return (np.nanargmax(scores, axis=1) == 0).astype(float)

    nll = Metric("surprise", "minus the score of the right choice", unit="nats", scale=1.0, sign=-1.0,
                 value=lambda scores, gold: -scores[np.arange(len(gold)), gold])  # fmt: skip
    both = measure_tax(fake_pair, word_suite, functions={"first": first_choice, "surprise": nll})
    frame = both.to_frame().set_index(["metric", "template"])
    old = tax.to_frame().set_index(["metric", "template"])
    for template in ("plain", "chat"):
        assert frame.loc[("surprise", template), "tax"] == pytest.approx(old.loc[("nll", template), "tax"])
        base, aligned = (scores.choice == 0 for scores in both.scores[0 if template == "plain" else 1])
        assert frame.loc[("first", template), "tax"] == pytest.approx(base.mean() - aligned.mean())
    assert frame.loc[("probability", "plain")].equals(old.loc[("probability", "plain")])
    effects = both.two_by_two()
    assert {"first", "surprise"} <= set(effects["metric"])


def test_an_own_metric_of_a_taken_name_or_without_a_number_an_item_is_refused(fake_pair, word_suite):
    with pytest.raises(UsageError, match="a name of its own"):
        measure_tax(fake_pair, word_suite, functions={"accuracy": lambda scores, gold: gold})
    with pytest.raises(UsageError, match="one finite number an item"):
        measure_tax(fake_pair, word_suite, functions={"mean": lambda scores, gold: np.mean(scores)})


def test_two_runs_write_identical_bytes(fake_pair, word_suite, tax):
    again = measure_tax(fake_pair, word_suite)
    for mine, other in ((tax.to_frame(), again.to_frame()), (tax.items(), again.items())):
        assert mine.to_csv() == other.to_csv()
    assert tax.two_by_two().to_csv() == again.two_by_two().to_csv()


def test_paired_error_is_smaller_where_models_agree_and_not_where_they_do_not():
    rng = np.random.default_rng(0)
    hard, noise = rng.normal(size=400), 0.1 * rng.normal(size=400)
    groups, items = np.arange(400), tuple(map(str, range(400)))

    def errors(aligned):
        frame = tax_frame([Paired("s", "capability", "plain", items, groups, {"margin": hard}, {"margin": aligned})])
        return frame.iloc[0][["paired_error", "unpaired_error"]].to_numpy(dtype=float)

    paired, unpaired = errors(hard + noise)
    assert unpaired > 5 * paired
    paired, unpaired = errors(rng.normal(size=400))
    assert paired == pytest.approx(unpaired, rel=0.1)


def test_holm_counts_the_suites_of_one_metric_and_template():
    values = {"accuracy": np.r_[np.ones(8), np.zeros(32)]}, {"accuracy": np.zeros(40)}
    items, groups = tuple(map(str, range(40))), np.arange(40)
    three = [Paired(name, "capability", "plain", items, groups, *values) for name in "abc"]
    frame = tax_frame(three)
    assert frame["p_adjusted"].to_numpy() == pytest.approx(3 * frame["p_group"].to_numpy())
    assert frame["p_group"].tolist() == frame["p"].tolist()  # every item is its own group: one test
    assert tax_frame(three[:1])["p_adjusted"][0] == pytest.approx(frame["p"][0])


def test_models_measured_on_different_items_are_refused():
    with pytest.raises(UsageError, match="not measured on the same items"):
        Paired("s", "capability", "plain", ("a", "b"), np.arange(2), {"nll": np.zeros(2)}, {"nll": np.zeros(3)})


def test_lost_and_won_are_whole_numbers_in_the_table(tax):
    assert pd.api.types.is_integer_dtype(tax.to_frame()["lost"])
