import pytest
import torch

from taxlens.activations.items.batches import pack, pad
from taxlens.activations.items.items import Item, Suite
from taxlens.activations.items.tokens import Row, encode_pair, encode_prompts, encode_suite, prefix_token
from taxlens.core.errors import ItemError, ModelLoadError


def one(prompt: str, *choices: str) -> Suite:
    return Suite(name="s", items=(Item(id="i", group="g", prompt=prompt, choices=choices, gold=0),))


def test_each_choice_is_a_row_that_continues_its_prompt(make_tokenizer):
    tokenizer = make_tokenizer()
    rows = encode_suite(one("w1 w2", " w3", " w4 w5"), tokenizer)
    assert [(r.item, r.choice, r.start, r.kind) for r in rows] == [(0, 0, 2, "choice"), (0, 1, 2, "choice")]
    assert tokenizer.decode(rows[1].ids) == "w1 w2 w4 w5"
    (prompt,) = encode_prompts(one("w1 w2", " w3", " w4 w5"), tokenizer)
    assert prompt.ids == rows[0].ids[:2]
    assert prompt.start == len(prompt.ids)


def test_white_space_at_the_end_of_a_prompt_moves_to_the_choice(make_tokenizer):
    tokenizer = make_tokenizer()
    assert encode_suite(one("w1 w2 ", "w3", "w4"), tokenizer) == encode_suite(one("w1 w2", " w3", " w4"), tokenizer)
    assert encode_prompts(one("w1 w2 ", "w3", "w4"), tokenizer)[0].ids == (8, 9)


def test_empty_prompt_is_bos_and_has_no_prompt_row(make_tokenizer):
    tokenizer = make_tokenizer()
    rows = encode_suite(one("", "w3", "w4"), tokenizer)
    assert [(r.ids, r.start) for r in rows] == [((1, 10), 1), ((1, 11), 1)]
    assert encode_prompts(one("", "w3", "w4"), tokenizer) == []


def test_empty_prompt_without_any_special_token_is_refused(make_tokenizer):
    tokenizer = make_tokenizer()
    tokenizer.bos_token = None
    assert prefix_token(tokenizer) == tokenizer.eos_token_id
    tokenizer.eos_token = None
    with pytest.raises(ModelLoadError, match="an empty prompt needs a BOS or EOS token"):
        encode_suite(one("", "w3", "w4"), tokenizer)


def test_chat_holds_the_template_and_strips_the_choices_space(make_tokenizer):
    tokenizer = make_tokenizer()
    rows = encode_suite(one("w1", " w3", " w4"), tokenizer, template="chat")
    assert tokenizer.convert_ids_to_tokens(rows[0].ids) == ["<u>", "w1", "</u>", "<a>", "w3"]
    assert rows[0].start == 4
    text = Suite(name="s", items=(Item(id="i", group="g", text="w1 w2"),))
    (row,) = encode_prompts(text, tokenizer, template="chat")
    assert tokenizer.convert_ids_to_tokens(row.ids) == ["<u>", "w1", "w2", "</u>"]
    assert row.kind == "text"


def test_each_choice_follows_its_own_context(make_tokenizer):
    tokenizer = make_tokenizer()
    item = Item(id="i", group="g", choices=(" w3", " w3"), gold=0, contexts=("w1 w2", "w1 w4 w5"))
    rows = encode_suite(Suite(name="s", items=(item,)), tokenizer)
    assert [tokenizer.decode(row.ids) for row in rows] == ["w1 w2 w3", "w1 w4 w5 w3"]
    assert [row.start for row in rows] == [2, 3]
    assert encode_prompts(Suite(name="s", items=(item,)), tokenizer) == []


def test_chat_without_a_template_is_refused(make_tokenizer):
    with pytest.raises(ModelLoadError, match="the tokenizer has no chat template"):
        encode_suite(one("w1", " w3", " w4"), make_tokenizer(chat=None), template="chat")


def test_choice_without_a_token_of_its_own_is_refused(make_tokenizer):
    with pytest.raises(ItemError, match="a choice has no token of its own"):
        encode_suite(one("w1", "w3", " w4"), make_tokenizer())


def test_item_longer_than_the_context_is_refused_with_both_lengths(make_tokenizer):
    with pytest.raises(ItemError, match="3, the model reads 2"):
        encode_suite(one("w1 w2", " w3", " w4"), make_tokenizer(), max_length=2)


def test_tokenizer_that_closes_with_eos_does_not_cut_the_choice_off(make_tokenizer):
    from tokenizers.processors import TemplateProcessing

    tokenizer = make_tokenizer()
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(
        single="<s> $A </s>", special_tokens=[("<s>", 1), ("</s>", 2)]
    )
    assert encode_pair(tokenizer, "w1 w2", " w3", template="plain") == ([1, 8, 9, 10], 3)


@pytest.mark.parametrize("prompt", ["w1 w2", "w1 w2  ", "", "w1 ", " w1"])
@pytest.mark.parametrize("choice", [" w3", "w4 w5", " w6  w7"])
def test_pairs_agree_with_the_evaluation_harness(make_tokenizer, prompt, choice):
    if prompt in ("w1 w2", " w1") and not choice.startswith(" "):
        choice = " " + choice
    tokenizer = make_tokenizer()
    context, continuation = harness_pair(tokenizer, prompt, choice)
    assert encode_pair(tokenizer, prompt, choice, template="plain") == (context + continuation, len(context))


def harness_pair(tokenizer, context, continuation):
    """lm-evaluation-harness 0.4, TemplateLM._encode_pair and loglikelihood, restated."""
    if context == "":
        ids = tokenizer.encode(continuation, add_special_tokens=False)
        prefix = tokenizer.bos_token_id
        return ([prefix], ids) if prefix != ids[0] else (ids[:1], ids[1:])
    n_spaces = len(context) - len(context.rstrip())
    if n_spaces > 0:
        continuation = context[-n_spaces:] + continuation
        context = context[:-n_spaces]
    whole, own = tokenizer.encode(context + continuation), tokenizer.encode(context)
    return own, whole[len(own) :]


def rows_of(*lengths: int) -> list[Row]:
    return [Row(item=n, choice=-1, ids=tuple(range(1, length + 1)), start=length, kind="text")
            for n, length in enumerate(lengths)]  # fmt: skip


def test_batches_hold_every_row_once_within_the_budget():
    rows = rows_of(3, 9, 1, 4, 4, 30, 2)
    batches = pack(rows, batch_tokens=12)
    assert sorted(i for batch in batches for i in batch) == list(range(7))
    assert batches[0] == [5]
    for batch in batches[1:]:
        assert max(len(rows[i].ids) for i in batch) * len(batch) <= 12


def test_batches_are_length_sorted_and_stable():
    batches = pack(rows_of(2, 5, 2, 5), batch_tokens=100)
    assert batches == [[1, 3, 0, 2]]


@pytest.mark.parametrize("side", ["left", "right"])
def test_padding_never_moves_a_position(side):
    ids, mask, positions = pad(rows_of(2, 4), 63, side=side)
    assert mask.sum(1).tolist() == [2, 4]
    assert positions[mask.bool()].tolist() == [0, 1, 0, 1, 2, 3]
    assert ids[~mask.bool()].tolist() == [63, 63]
    assert ids.dtype == torch.int64
