"""Chat templates as the field has them: named, raising, of content parts, silent."""

import pytest

from taxlens.activations.items.chat import render_chat
from taxlens.activations.items.tokens import encode_suite
from taxlens.activations.models.chat_templates import default_template
from taxlens.activations.models.pair import load_pair
from taxlens.core.errors import ModelLoadError

PLAIN = "{% for m in messages %}<u> {{ m['content'] }} </u>{% endfor %}{% if add_generation_prompt %} <a> {% endif %}"
PARTS = (
    "{% for m in messages %}<u> {% for p in m['content'] %}{% if p['type'] == 'text' %}{{ p['text'] }}{% endif %}"
    "{% endfor %} </u>{% endfor %}{% if add_generation_prompt %} <a> {% endif %}"
)
DEMANDS = "{% if messages[0]['role'] != 'system' %}{{ raise_exception('A system message is required') }}{% endif %}"


def test_a_template_of_content_parts_gets_the_question(make_tokenizer):
    tokenizer = make_tokenizer(chat=PARTS)
    assert render_chat(tokenizer, "w1 w2") == render_chat(make_tokenizer(chat=PLAIN), "w1 w2")
    strict = PARTS.replace("{% for p in m['content'] %}", "{% for p in m['content'] if p is mapping %}")
    assert "w1 w2" in render_chat(make_tokenizer(chat=strict), "w1 w2")
    indexed = "{{ messages[0]['content'][0]['text'] }} <a> "
    assert render_chat(make_tokenizer(chat=indexed), "w1 w2") == "w1 w2 <a> "


@pytest.mark.parametrize("template", ["<u> </u> <a> ", "{{ messages[0]['role'] }} <a> ", "{{ messages[0].text }}<a>"])
def test_a_template_that_drops_the_question_is_refused_with_what_it_gave(make_tokenizer, template):
    with pytest.raises(ModelLoadError, match=r"(?s)leaves out what is asked.*w1 w2.*rendered"):
        render_chat(make_tokenizer(chat=template), "w1 w2")


def test_a_template_that_shows_its_parts_as_python_is_refused(make_tokenizer):
    odd = "{% if messages[0]['content'] is string %}<a>{% else %}{{ messages[0]['content'] }}{% endif %}"
    with pytest.raises(ModelLoadError, match="leaves out what is asked"):
        render_chat(make_tokenizer(chat=odd), "w1 w2")


@pytest.mark.parametrize(
    ("template", "words"),
    [
        (DEMANDS + PLAIN, "A system message is required"),
        ("{{ messages[0]['content'] | nothing }}", "nothing"),
        ("{% for m in messages %}{{ m['content'] }}", "end of template|endfor"),
        ("{{ messages[0]['content'] }}{{ tools[0]['name'] }}", "tools|None|undefined"),
    ],
    ids=["raises", "unknown filter", "broken", "needs tools"],
)
def test_a_template_that_raises_is_told_in_its_own_words(make_tokenizer, template, words):
    with pytest.raises(ModelLoadError, match=rf"(?s)refuses the messages.*({words}).*chat_template: FILE"):
        render_chat(make_tokenizer(chat=template), "w1")


def test_a_template_that_demands_a_system_message_gets_one(make_tokenizer):
    turns = [{"role": "system", "content": "w9"}, {"role": "user", "content": "w1"}]
    assert render_chat(make_tokenizer(chat=DEMANDS + PLAIN), turns) == "<u> w9 </u><u> w1 </u> <a> "


def test_several_turns_are_checked_but_for_the_assistants_own(make_tokenizer):
    cut = PLAIN.replace("{{ m['content'] }}", "{{ m['content'].split('</think>')[-1] }}")
    turns = [
        {"role": "user", "content": "w1"},
        {"role": "assistant", "content": "<think>w8</think>w2"},
        {"role": "user", "content": "w3"},
    ]
    assert render_chat(make_tokenizer(chat=cut), turns) == "<u> w1 </u><u> w2 </u><u> w3 </u> <a> "
    last = "{{ messages[-1]['content'] }} <a> "
    with pytest.raises(ModelLoadError, match=r"(?s)leaves out.*'w1'"):
        render_chat(make_tokenizer(chat=last), turns)


def test_the_default_of_named_templates_is_used_and_told(make_tokenizer):
    tokenizer = make_tokenizer(chat={"default": PLAIN, "tool_use": "TOOLS " + PLAIN})
    assert default_template(tokenizer)[0] == PLAIN
    assert "'default' is used, of default, tool_use" in default_template(tokenizer)[1]
    assert default_template(make_tokenizer(chat={"only": PLAIN})) == (PLAIN, "")
    template, note = default_template(make_tokenizer(chat={"rag": PLAIN, "tool_use": PLAIN}))
    assert template is None
    assert "none of the chat templates is called 'default' (rag, tool_use)" in note
    assert default_template(make_tokenizer(chat=None)) == (None, "")


def test_a_pair_with_named_templates_loads_and_is_asked_in_the_default(make_model, make_tokenizer, suite, tmp_path):
    make_model().save_pretrained(tmp_path)
    make_tokenizer(chat={"default": PLAIN, "tool_use": "TOOLS " + PLAIN}).save_pretrained(tmp_path)
    pair = load_pair(tmp_path, tmp_path, device="cpu")
    assert pair.base.chat_template == pair.aligned.chat_template == PLAIN
    assert any("'default' is used" in note for note in pair.report.notes)
    rows = encode_suite(suite, pair.base.tokenizer, template="chat", chat_template=pair.base.chat_template)
    assert rows == encode_suite(suite, make_tokenizer(chat=PLAIN), template="chat")
