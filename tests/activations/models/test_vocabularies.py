"""Pairs whose vocabularies differ: every stage works on the tokens that both have, and the others get a row of their own."""

import json

import numpy as np
import pytest
import torch

import taxlens
from taxlens.activations.models.loading import load_model
from taxlens.analysis.interventions.graft import graft_effects
from taxlens.analysis.weights.interpolation import grafted, mixture
from taxlens.core.errors import PairMismatchError, TaxlensError
from tests.kept_weights import same_weights, untouched

pytestmark = pytest.mark.filterwarnings("ignore")


def lengthened(replicas, *, kind="llama", base_rows=384, aligned_rows=448, ties=(False, False), **config):
    """A pair of which one has rows more, with a bias in the new rows' favour so that they take probability."""
    base, aligned = (
        replicas.model(kind, tie_word_embeddings=ties[0], **config),
        replicas.model(kind, tie_word_embeddings=ties[1], **config),
    )
    if ties[0] != ties[1]:  # the same random draws give other tensors to a tied model: start from one
        for name, parameter in aligned.named_parameters():
            if name in dict(base.named_parameters()):
                parameter.data.copy_(base.get_parameter(name).data)
    replicas.drift(aligned)
    extra = ("<|user|>", "<|assistant|>")
    for model, rows in ((base, base_rows), (aligned, aligned_rows)):
        model.resize_token_embeddings(rows, mean_resizing=False)
        with torch.no_grad():
            model.get_input_embeddings().weight[384:] += 0.3
    one = replicas.save(base, "base")
    two = replicas.save(aligned, "aligned", tokenizer=replicas.tokenizer(extra=extra if aligned_rows > 384 else ()))
    return one, two


@pytest.mark.parametrize(
    ("base_rows", "aligned_rows", "ties"),
    [
        (384, 448, (False, False)),
        (448, 384, (True, True)),
        (384, 448, (False, True)),
        (448, 384, (True, False)),
    ],
)
def test_attribution_closes_on_the_measured_tax_with_a_row_for_the_added_tokens(
    replicas, base_rows, aligned_rows, ties
):
    base, aligned = lengthened(replicas, base_rows=base_rows, aligned_rows=aligned_rows, ties=ties)
    pair, suite = replicas.pair(base, aligned), replicas.suite(3)
    kept = [untouched(m.model) for m in (pair.base, pair.aligned)]
    found = pair.attribute(suite, metrics=("probability", "nll"), levels=("component", "singular"), bootstrap=100)
    measured = (
        pair.tax(suite, templates=("plain",), metrics=("probability", "nll"), bootstrap=100)
        .to_frame()
        .set_index("metric")
        .tax
    )
    closure = found.closure_frame().set_index("metric")
    for metric in ("probability", "nll"):
        assert closure.tax[metric] == pytest.approx(measured[metric], abs=1e-5)
        for level in ("component", "singular"):
            total = found.effects("facts", metric, level)[1].mean(axis=0).sum()
            assert total == pytest.approx(measured[metric], rel=0.01, abs=2e-4)
    assert found.closed
    effects = found.to_frame().query("metric == 'nll' and level == 'component'").set_index("component").effect
    # what is added takes probability from all others, what is taken away gives it back
    assert np.sign(effects["added_tokens"]) == (1 if aligned_rows > base_rows else -1)
    assert abs(effects["added_tokens"]) > 0.01
    assert all(same_weights(m.model, k) for m, k in zip((pair.base, pair.aligned), kept, strict=True))
    assert pair.base.anatomy.tied == ties[0]


def test_the_row_of_added_tokens_is_what_dropping_their_logits_changes_where_nothing_else_moved(replicas):
    base = replicas.model()
    one = replicas.save(base, "base")
    base.resize_token_embeddings(448, mean_resizing=False)
    two = replicas.save(base, "aligned")
    pair, suite = replicas.pair(one, two), replicas.suite(4)
    found = pair.attribute(suite, metrics=("nll",), bootstrap=100)
    names, values = found.effects("facts", "nll")
    alone = values[:, names.index("added_tokens")]
    assert np.delete(values, names.index("added_tokens"), axis=1) == pytest.approx(0.0, abs=1e-9)
    scores = [replicas.scores(replicas.load(d), replicas.read(d), suite) for d in (one, two)]
    gold = np.array([item.gold for item in suite.items])
    assert alone == pytest.approx((scores[0] - scores[1])[np.arange(4), gold], abs=1e-5)


def test_a_pair_with_one_vocabulary_has_no_such_row(replicas):
    base, aligned = replicas.model(), replicas.drift(replicas.model())
    pair = replicas.pair(replicas.save(base, "base"), replicas.save(aligned, "aligned"))
    assert "added_tokens" not in pair.attribute(replicas.suite(2), metrics=("nll",)).effects("facts", "nll")[0]


@pytest.mark.parametrize(("base_rows", "aligned_rows"), [(384, 448), (448, 384)])
def test_embeddings_of_other_length_are_undone_and_added_on_the_common_rows(replicas, base_rows, aligned_rows):
    pair = replicas.pair(*lengthened(replicas, base_rows=base_rows, aligned_rows=aligned_rows)).models
    one, two = (m.model.get_output_embeddings().weight.detach().clone() for m in (pair.base, pair.aligned))
    for share in (1.0, 0.5):
        with mixture(pair, {"unembed": share, "embed": share}) as model:
            got = model.get_output_embeddings().weight
            torch.testing.assert_close(got[:384], two[:384] + share * (one[:384] - two[:384]))
            assert torch.equal(got[384:], two[384:])
        with grafted(pair, {"unembed": share}) as model:
            got = model.get_output_embeddings().weight
            torch.testing.assert_close(got[:384], one[:384] + share * (two[:384] - one[:384]))
            assert torch.equal(got[384:], one[384:])
    assert torch.equal(pair.aligned.model.get_output_embeddings().weight, two)


def test_every_stage_runs_on_a_lengthened_vocabulary(replicas):
    from taxlens.analysis.scoring.evaluator import ChoiceMeasure

    pair, suite = replicas.pair(*lengthened(replicas)), replicas.suite(8)
    acts = pair.capture(suite, to=replicas.root / "acts.h5", templates=("plain",), sites=("resid_post",))
    assert acts.probe("correct") is not None
    assert acts.similarity("cka") is not None
    assert pair.restoration(suite) is not None
    kl = pair.attribute(suite, metrics=("kl",), bootstrap=100)
    assert kl.closure_frame().closed.all()
    measure = ChoiceMeasure(pair.models, (suite,))
    table = graft_effects(pair.models, measure, groups=measure.groups, units=("unembed", "1.mlp"), draws=10).to_frame()
    assert np.isfinite(table.effect).all()


def test_reserved_tokens_that_were_renamed_at_their_ids_are_a_note(replicas):
    special = ("<pad>", "<s>", "</s>", "<unk>")
    model = replicas.model()
    base = replicas.save(model, "base", tokenizer=replicas.tokenizer(special=(*special, "<|r0|>", "<|r1|>")))
    renamed = replicas.tokenizer(special=(*special, "<|user|>", "<|assistant|>"))
    more = replicas.tokenizer(special=(*special, "<|user|>", "<|r1|>"), extra=("<|end|>",))
    for number, tokenizer in enumerate((renamed, more)):
        pair = replicas.pair(base, replicas.save(replicas.drift(model), f"aligned{number}", tokenizer=tokenizer))
        notes = " ".join(pair.models.report.notes)
        assert "reserved tokens are renamed at their ids" in notes
        assert "'<|r0|>' is '<|user|>'" in notes
        assert ("1 added tokens" in notes) == bool(number)
    other = replicas.tokenizer(special=("<|user|>", *special, "<|r1|>"))
    with pytest.raises(PairMismatchError, match=r"4 added tokens have other ids, first '</s>': base 2, aligned 3"):
        replicas.pair(base, replicas.save(model, "moved", tokenizer=other))


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("kind", ["llama", "phi"])
def test_added_tokens_in_another_order_are_the_same_tokens(replicas, kind, tied):
    """The chat tokens change places, and the rows with them: everything is as if they had not."""
    names, chat = (
        ("<|a|>", "<|b|>", "<|c|>"),
        replicas.chat.replace("<|im_start|>", "<|a|>").replace("<|im_end|>", "<|c|>"),
    )
    base = replicas.model(kind, tie_word_embeddings=tied)
    aligned = replicas.drift(replicas.model(kind, tie_word_embeddings=tied))
    one, two = (replicas.tokenizer(extra=order, chat=chat) for order in (names, names[::-1]))
    plain = replicas.pair(replicas.save(base, "base", tokenizer=one), replicas.save(aligned, "aligned", tokenizer=one))
    order = torch.arange(384)
    for name in names:
        order[two.convert_tokens_to_ids(name)] = one.convert_tokens_to_ids(name)
    with torch.no_grad():
        for module in {aligned.get_input_embeddings(), aligned.get_output_embeddings()}:
            for parameter in (module.weight,) if module is aligned.get_input_embeddings() or not tied else ():
                parameter.copy_(parameter[order].clone())
        if getattr(aligned.lm_head, "bias", None) is not None:
            aligned.lm_head.bias.copy_(aligned.lm_head.bias[order].clone())
    moved = replicas.pair(replicas.root / "base", replicas.save(aligned, "moved", tokenizer=two))
    assert any("added tokens stand at other ids" in note for note in moved.models.report.notes)
    assert moved.base.anatomy.tied == plain.base.anatomy.tied
    suite, found = replicas.suite(3), {}
    for name, pair in (("plain", plain), ("moved", moved)):
        assert pair.tax(suite, templates=("chat",), bootstrap=100).scores[0][0].logp is not None
        effects = pair.attribute(suite, template="chat", metrics=("nll",), bootstrap=100)
        tax = pair.tax(suite, templates=("chat",), metrics=("nll",), bootstrap=100).to_frame().tax.iloc[0]
        assert effects.closure_frame().tax.iloc[0] == pytest.approx(tax, abs=1e-5)
        assert effects.closed
        found[name] = effects.effects("facts", "nll")[1]
    assert found["moved"] == pytest.approx(found["plain"], abs=1e-5)
    assert torch.equal(
        load_model(replicas.root / "base", device="cpu").model.get_input_embeddings().weight[order],
        moved.base.model.get_input_embeddings().weight,
    )


def test_an_id_past_the_embedding_is_refused_by_token_in_every_stage(replicas):
    chat = replicas.chat.replace("<|im_start|>", "<|turn|>")
    fill = [f"<|x{n}|>" for n in range(384 - len(replicas.tokenizer()))]
    tokenizer = replicas.tokenizer(extra=(*fill, "<|turn|>"), chat=chat)
    base, aligned = replicas.model(), replicas.drift(replicas.model())
    one = replicas.save(base, "base")
    two = replicas.save(aligned, "aligned", tokenizer=tokenizer)
    pair, suite = replicas.pair(one, two, chat_template="aligned"), replicas.suite(3)
    assert any("ids past the 384 rows" in note for note in pair.models.report.notes)
    pair.tax(suite, templates=("plain",), bootstrap=100)
    with pytest.raises(TaxlensError, match=r"(?s)no embedding for a token.*384"):
        replicas.pair(two, two).tax(suite, templates=("chat",), bootstrap=100)
    with pytest.raises(TaxlensError, match=r"(?s)no embedding for a token.*384"):
        replicas.pair(two, two).attribute(suite, template="chat", bootstrap=100)


def test_an_id_past_the_embedding_is_refused_where_it_is_only_predicted(replicas):
    """The last token of an answer is never read by the embedding, but no logit stands for it either."""
    fill = [f"<|x{n}|>" for n in range(384 - len(replicas.tokenizer()))]
    tokenizer = replicas.tokenizer(extra=(*fill, "<|yes|>", "<|no|>"))
    folders = [
        replicas.save(model, name, tokenizer=tokenizer)
        for model, name in ((replicas.model(), "base"), (replicas.drift(replicas.model()), "aligned"))
    ]
    pair = replicas.pair(*folders)
    row = {"id": "a", "prompt": "Is Lima in Peru?", "choices": ["<|yes|>", "<|no|>"], "gold": 0, "group": "g"}
    file = replicas.root / "last.jsonl"
    file.write_text(json.dumps(row) + "\n")
    suite = taxlens.suite(file)
    for step in (
        lambda: pair.tax(suite, bootstrap=100),
        lambda: pair.attribute(suite, bootstrap=100),
        lambda: pair.logit_lens(suite, bootstrap=100),
        lambda: pair.capture(suite, to=replicas.root / "acts.h5"),
        lambda: pair.restoration(suite),
    ):
        with pytest.raises(TaxlensError, match=r"(?s)no embedding for a token.*(38[45])"):
            step()
    with pytest.raises(PairMismatchError, match=r"<\|(yes|no)\|>"):
        pair.tax(suite, bootstrap=100)
