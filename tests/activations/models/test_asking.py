"""How models are asked in chat: system text, thinking, date and answer prefix, in every stage alike."""

import pytest

import taxlens
from taxlens import Asking
from taxlens.activations.items.chat import render_chat
from taxlens.activations.models.chat_templates import asked_with
from taxlens.activations.models.prompts import as_asked, one_prompting
from taxlens.core.errors import ConfigError, ModelLoadError

pytestmark = pytest.mark.filterwarnings("ignore")
CHAT = "{% for m in messages %}<{{ m['role'] }}>{{ m['content'] }}</>{% endfor %}{% if add_generation_prompt %}<a>{% endif %}"
PARTS = CHAT.replace("m['content']", "m['content'][0]['text']")
THINKS = CHAT.replace(
    "<a>", "<a>{% if enable_thinking is defined and enable_thinking is false %}<think></think>{% endif %}"
)
DATED = "{{ strftime_now('%d %B %Y') }}|{{ strftime_now(\"%Y\") }}|" + CHAT
DEAF = "{% for m in messages if m['role'] == 'user' %}{{ m['content'] }}{% endfor %}<a>"


def asked(replicas, template, asking, content="why?"):
    return render_chat(replicas.tokenizer(chat=template), content, chat_template=asked_with(template, asking))


def test_a_system_text_stands_before_the_question_and_leaves_one_that_is_there(replicas):
    how = Asking(system='Be "brief".\nAnswer {{ in }} words.')
    assert asked(replicas, CHAT, how) == f"<system>{how.system}</><user>why?</><a>"
    assert asked(replicas, PARTS, how) == f"<system>{how.system}</><user>why?</><a>"
    own = [{"role": "system", "content": "mine"}, {"role": "user", "content": "why?"}]
    assert asked(replicas, CHAT, how, own) == "<system>mine</><user>why?</><a>"


def test_nothing_asked_for_leaves_the_template_as_it_is(replicas):
    for template in (CHAT, DATED, "\n" + CHAT):
        assert asked_with(template, Asking()) == template
    assert asked(replicas, "\n" + CHAT, Asking(thinking=True)) == "\n<user>why?</><a>"


@pytest.mark.parametrize(("thinking", "end"), [(False, "<a><think></think>"), (True, "<a>"), (None, "<a>")])
def test_thinking_is_switched_where_the_template_knows_it(replicas, thinking, end):
    assert asked(replicas, THINKS, Asking(thinking=thinking)) == "<user>why?</>" + end


def test_a_date_is_pinned_in_every_format_that_the_template_writes(replicas):
    assert asked(replicas, DATED, Asking(date="2024-07-26")).startswith("26 July 2024|2024|<user>")
    with pytest.raises(ConfigError, match="no such day"):
        asked_with(DATED, Asking(date="2024-13-01"))


def test_an_answer_prefix_stands_at_the_end_and_the_choice_follows_it(replicas):
    how = Asking(answer_prefix="The answer is ")
    assert asked(replicas, CHAT, how).endswith("<a>The answer is ")
    pair = taxlens.load_pair(
        replicas.model(), replicas.drift(replicas.model()), tokenizer=replicas.tokenizer(), asking=how
    )
    row = as_asked(pair.models, pair.base, "chat").rows(replicas.suite(1))[0]
    assert pair.base.tokenizer.decode(row.ids).endswith("The answer is France")


def test_every_stage_reads_the_same_and_the_report_tells_it_by_hash(replicas):
    base, aligned, suite = replicas.model(), replicas.drift(replicas.model()), replicas.suite(2)
    options = {"tokenizer": replicas.tokenizer()}
    plain = taxlens.load_pair(base, aligned, **options)
    asked = taxlens.load_pair(base, aligned, asking=Asking(system="Peru first."), **options)
    for pair, there in ((plain, False), (asked, True)):
        for prompting in (as_asked(pair.models, pair.base, "chat"), one_prompting(pair.models, suite, "chat")):
            assert ("Peru first." in pair.base.tokenizer.decode(prompting.rows(suite)[0].ids)) == there
    hashes = [p.models.report.to_frame().set_index("field").base["template sha256"] for p in (plain, asked)]
    assert hashes[0] != hashes[1]
    tax = asked.tax(suite, templates=("chat",), metrics=("nll",), bootstrap=100).to_frame().tax.iloc[0]
    closure = asked.attribute(suite, template="chat", metrics=("nll",), bootstrap=100).closure_frame().iloc[0]
    assert closure.tax == pytest.approx(tax, abs=1e-5)
    assert tax != plain.tax(suite, templates=("chat",), metrics=("nll",), bootstrap=100).to_frame().tax.iloc[0]


def test_what_a_template_does_not_know_is_told_or_refused(replicas):
    def pair(template, how):
        models = replicas.model(), replicas.drift(replicas.model())
        return taxlens.load_pair(*models, tokenizer=replicas.tokenizer(chat=template), asking=how)

    def notes(template, how):
        return " ".join(pair(template, how).models.report.notes)

    assert "knows no enable_thinking" in notes(CHAT, Asking(thinking=False))
    assert "knows no enable_thinking" not in notes(THINKS, Asking(thinking=False))
    assert "writes today's date" in notes(DATED, None)
    assert "writes today's date" not in notes(DATED, Asking(date="2024-07-26"))
    assert "no chat template: plain only" in notes(None, Asking(system="x"))
    assert "has no effect" in notes(None, Asking(system="x"))
    with pytest.raises(ConfigError, match=r"(?s)leaves out the system text.*rendered"):
        pair(DEAF, Asking(system="Be brief."))


def test_a_pair_without_a_chat_template_is_asked_plainly_with_a_note_and_refused_where_only_chat_is_asked(replicas):
    models = replicas.model(), replicas.drift(replicas.model())
    pair, suite = taxlens.load_pair(*models, tokenizer=replicas.tokenizer(chat=None)), replicas.suite(3)
    tax = pair.tax(suite, bootstrap=100)  # both templates are asked for by default
    assert set(tax.to_frame().template) == {"plain"}
    assert any("neither model has a chat template" in note for note in tax.notes)
    acts = pair.capture(suite, to=replicas.root / "acts.h5", templates=("plain", "chat"))
    assert set(acts.store.rows["template"]) == {"plain"}
    with pytest.raises(ModelLoadError, match="no chat template"):
        pair.tax(suite, templates=("chat",), bootstrap=100)
