"""Greedy answers in batches, and the rule that says which of them refuse."""

from __future__ import annotations

import pytest
import torch

from taxlens.analysis.answers.generation import generate
from taxlens.analysis.answers.refusal_rates import refusal_rate
from taxlens.analysis.answers.refusals import is_refusal
from taxlens.core.errors import UsageError

PROMPTS = ["w1", "w2 w3 w4", "w5 w6 w7 w8 w9 w10 w11", "w3 w1 w4 w1 w5", "w9"]

REFUSED = [
    "I'm sorry, but I can't help with that.",
    "I cannot assist with this request.",
    "Sorry, that is not something I can help with.",
    "I won't provide help with that, because it could cause harm.",
    "I can’t do that. If there is something else you need, I'm happy to help.",
    "That is something I have to decline.",
    "I must decline this request, as it could hurt someone.",
    "I apologize, but I can't support this request.",
    "This isn't something I'm willing to do.",
    "I'm unable to fulfil that.",
    "As an AI language model, I cannot write this.",
    "Unfortunately, I am not able to provide such a text.",
    "I'm sorry for any confusion, but I don't have the capability to assist with exploits.",
]
ANSWERED = [
    "",
    "Sorry to hear that! You can reset it in the settings.",
    "You can't help but smile when you see a puppy.",
    "To kill a process, find its id and run kill.",
    "I can help with that. First, open the terminal.",
    "The city cannot support more cars, so it built a tram.",
    "1. Do not share your password.\n2. I cannot stress this enough.",
    "He said that he was afraid of the dark and ran home.",
    "Here is a letter: Dear Sir, I apologize for the late reply.",
    "She declined the offer, and they refused to leave.",
]


@pytest.mark.parametrize("text", REFUSED)
def test_declining_in_the_opening_is_a_refusal(text):
    assert is_refusal(text)


@pytest.mark.parametrize("text", ANSWERED)
def test_an_answer_is_no_refusal(text):
    assert not is_refusal(text)


def test_a_refusal_after_the_opening_is_not_read():
    assert not is_refusal("Take two eggs and beat them. " * 8 + "I cannot help with that.")


def test_refusal_rate_is_the_share_of_refusals():
    rate = refusal_rate([*REFUSED[:3], ANSWERED[3]], ["a", "a", "b", "c"])
    assert rate.value == 0.75
    assert (rate.n_items, rate.n_groups) == (4, 3)
    assert rate.low <= rate.value <= rate.high


def test_refusal_rate_of_answers_alone_is_zero():
    assert refusal_rate(ANSWERED).value == 0.0


@pytest.mark.parametrize("layout", ["llama", "qwen2", "gpt2", "gpt_neox", "gemma2"])
def test_batched_answers_equal_single_answers(make_model, word_tokenizer, layout):
    model = make_model(layout)
    single = [generate(model, word_tokenizer, [prompt], max_new_tokens=9)[0] for prompt in PROMPTS]
    assert generate(model, word_tokenizer, PROMPTS, max_new_tokens=9) == single
    assert generate(model, word_tokenizer, PROMPTS, max_new_tokens=9, batch_tokens=40) == single
    assert len(set(single)) > 1 or layout == "gemma2"  # its scaled, tied embeddings repeat the last token


def test_answers_equal_those_of_transformers(make_model, word_tokenizer):
    model = make_model("llama", 3)
    for prompt, answer in zip(PROMPTS, generate(model, word_tokenizer, PROMPTS, template="plain", max_new_tokens=7)):
        ids = torch.tensor([word_tokenizer(prompt).input_ids])
        mask = torch.ones_like(ids)
        whole = model.generate(
            ids, attention_mask=mask, max_new_tokens=7, do_sample=False, eos_token_id=2, pad_token_id=0
        )
        assert answer == word_tokenizer.decode(whole[0, ids.shape[1] :], skip_special_tokens=True).strip()


def test_an_answer_stops_at_the_end_token(make_model, word_tokenizer):
    model = make_model("llama")
    free = generate(model, word_tokenizer, PROMPTS, template="plain", max_new_tokens=8)
    stop = free[1].split()[3]
    ended = make_model("llama")
    ended.generation_config.eos_token_id = word_tokenizer.convert_tokens_to_ids(stop)
    for whole, cut in zip(free, generate(ended, word_tokenizer, PROMPTS, template="plain", max_new_tokens=8)):
        words = whole.split()
        assert cut.split() == (words[: words.index(stop)] if stop in words else words)


def test_chat_and_plain_prompts_differ(make_model, word_tokenizer):
    model = make_model("llama")
    chat, plain = (generate(model, word_tokenizer, PROMPTS, template=t, max_new_tokens=6) for t in ("chat", "plain"))
    assert chat != plain


def test_a_given_chat_template_is_used(make_model, word_tokenizer):
    model, bare = make_model("llama"), "{% for m in messages %}{{ m['content'] }}{% endfor %}"
    given = generate(model, word_tokenizer, PROMPTS, chat_template=bare, max_new_tokens=6)
    assert given == generate(model, word_tokenizer, PROMPTS, template="plain", max_new_tokens=6)


def test_no_prompts_give_no_answers(make_model, word_tokenizer):
    assert generate(make_model("llama"), word_tokenizer, []) == []


def test_unknown_template_is_refused(make_model, word_tokenizer):
    with pytest.raises(UsageError, match="chat, plain"):
        generate(make_model("llama"), word_tokenizer, PROMPTS, template="chatml")


def test_zero_new_tokens_are_refused(make_model, word_tokenizer):
    with pytest.raises(UsageError, match="at least 1: got 0"):
        generate(make_model("llama"), word_tokenizer, PROMPTS, max_new_tokens=0)


def test_a_stop_ends_an_answer_and_is_no_part_of_it(make_model, word_tokenizer):
    model = make_model("llama")
    prompts = ["w1 w2 w3", "w4 w5", "w6"]
    whole = generate(model, word_tokenizer, prompts, template="plain", max_new_tokens=12)
    words = whole[0].split()
    stop = words[3]
    cut = generate(model, word_tokenizer, prompts, template="plain", max_new_tokens=12, stop=[stop])
    assert cut[0].split() == words[: words.index(stop)]
    assert all(stop not in text for text in cut)
    kept = [n for n, text in enumerate(whole) if stop not in text]
    assert [cut[n] for n in kept] == [whole[n] for n in kept]


def test_samples_are_the_same_for_a_seed_and_others_for_another(make_model, word_tokenizer):
    model = make_model("llama")
    options = {"template": "plain", "max_new_tokens": 12, "temperature": 1.0}
    one, again, other = (generate(model, word_tokenizer, ["w1 w2", "w3"], seed=seed, **options) for seed in (1, 1, 2))
    assert one == again
    assert one != other
    cold = generate(model, word_tokenizer, ["w1 w2", "w3"], template="plain", max_new_tokens=12, temperature=1e-6)
    assert cold == generate(model, word_tokenizer, ["w1 w2", "w3"], template="plain", max_new_tokens=12)
    with pytest.raises(UsageError, match="temperature"):
        generate(model, word_tokenizer, ["w1"], temperature=-1)


def test_an_items_conversation_and_rendered_prompt_are_asked_as_they_stand(make_model, word_tokenizer):
    from taxlens.activations.items.items import Item

    model = make_model("llama")
    told = Item("a", "g", messages=({"role": "user", "content": "w1 w2"},))
    rendered = Item("b", "g", prompt="<u> w1 w2 </u> <a> ", rendered=True, special_tokens=False)
    first, second = generate(model, word_tokenizer, [told, rendered], template="chat", max_new_tokens=6)
    assert first == second == generate(model, word_tokenizer, ["w1 w2"], template="chat", max_new_tokens=6)[0]
