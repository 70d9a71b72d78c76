"""Training: what it learns, that it is repeated by its seed, and that an interruption leaves no trace."""

from __future__ import annotations

import dataclasses
import json
from types import SimpleNamespace

import pytest
import torch

from taxlens.activations.hooks.sites import Address
from taxlens.activations.items.tokens import Row
from taxlens.analysis.features.dictionaries.dictionary_files import read_dictionary, read_record
from taxlens.analysis.features.training import training_run
from taxlens.analysis.features.training.activation_stream import ActivationStream, ordinary
from taxlens.analysis.features.training.corpus import Corpus
from taxlens.analysis.features.training.dictionary_training import Recipe, Trainer, batches
from taxlens.analysis.features.training.training_run import TrainingJob, train_dictionaries
from taxlens.core.errors import CheckError, ConfigError, TaxlensError, UsageError
from taxlens.core.progress import SILENT
from taxlens.stages.features import features_training
from taxlens.stages.features.features_section import DictionaryTraining


def sparse_rows(count: int, *, seed: int = 0, d: int = 16, true: int = 24) -> tuple[torch.Tensor, torch.Tensor]:
    """Rows [count, 2, d]: aligned is base plus three of `true` directions; and the directions."""
    generator = torch.Generator().manual_seed(99)
    directions = torch.nn.functional.normalize(torch.randn(true, d, generator=generator), dim=1)
    generator = torch.Generator().manual_seed(seed)
    base = torch.randn(count, d, generator=generator)
    codes = torch.zeros(count, true)
    places = torch.rand(count, true, generator=generator).argsort(dim=1)[:, :2]
    codes.scatter_(1, places, torch.rand(count, 2, generator=generator) + 0.5)
    return torch.stack([base, base + codes @ directions], dim=1), directions


@pytest.fixture(scope="module")
def trained():
    rows, directions = sparse_rows(6000)
    recipe = Recipe(width=48, k=3, batch=256, passes=12, rate=5e-3, dead_after=2000)
    trainer = Trainer(recipe, 16, 6000 // 256 * 12)
    for batch in batches(rows, recipe, number=0):
        told = trainer.train(batch)
    return trainer, directions, told


def test_difference_dictionary_finds_the_directions_of_the_change(trained):
    trainer, directions, _ = trained
    found = trainer.dictionary(site="resid_post", layer=3)
    cosines = (directions @ torch.nn.functional.normalize(found.directions(), dim=1).T).max(dim=1).values
    assert (cosines > 0.9).float().mean() > 0.7
    rows, _ = sparse_rows(500, seed=5)
    change = rows[:, 1] - rows[:, 0]
    assert 1 - (change - found.reconstruct(change)).square().sum() / change.square().sum() > 0.85


def test_threshold_keeps_about_as_many_latents_as_the_batch_did(trained):
    trainer, _, _ = trained
    rows, _ = sparse_rows(500, seed=6)
    active = (trainer.dictionary().encode(rows[:, 1] - rows[:, 0]) > 0).sum(1).float().mean()
    assert 1.5 < active < 4.5


@pytest.mark.parametrize("role", ["difference", "sae", "crosscoder"])
def test_scale_of_the_inputs_is_folded_into_the_dictionary(role):
    rows, _ = sparse_rows(1024)
    recipe = Recipe(role=role, width=32, k=4, batch=256, passes=2)
    one, large = Trainer(recipe, 16, 8), Trainer(recipe, 16, 8)
    for batch in batches(rows, recipe, number=0):
        one.train(batch)
        large.train(batch * 50)
    x = one.inputs(rows)[:9]
    x = x if role == "crosscoder" else x[:, 0]
    assert torch.allclose(
        large.dictionary().reconstruct(50 * x), 50 * one.dictionary().reconstruct(x), rtol=1e-3, atol=1e-3
    )


def test_training_is_repeated_by_its_seed_and_not_by_another():
    rows, _ = sparse_rows(1024)

    def ended(seed: int) -> torch.Tensor:
        recipe = Recipe(width=32, k=3, batch=256, passes=2, seed=seed)
        trainer = Trainer(recipe, 16, 8)
        for batch in batches(rows, recipe, number=0):
            trainer.train(batch)
        return trainer.weights["decoder"].detach()

    assert torch.equal(ended(0), ended(0))
    assert not torch.equal(ended(0), ended(1))


def test_dead_latents_are_trained_on_what_is_left_over():
    rows, _ = sparse_rows(2048)
    recipe = Recipe(width=64, k=2, batch=256, passes=1, dead_after=1)
    trainer = Trainer(recipe, 16, 8)
    before = trainer.weights["encoder"].detach().clone()
    for batch in batches(rows, recipe, number=0):
        told = trainer.train(batch)
    assert told["dead"] > 0
    assert (trainer.weights["encoder"].detach() - before).abs().sum(dim=(0, 1)).min() > 0


def test_outlying_positions_are_told_from_ordinary_ones():
    x = torch.randn(50, 2, 8)
    x[3, 1] *= 100
    assert ordinary(x).sum() == 49
    assert not ordinary(x)[3]


@pytest.fixture
def corpus(tmp_path):
    lines = [" ".join(f"w{(n * k) % 30}" for k in range(1, 13)) for n in range(220)]
    (tmp_path / "texts.jsonl").write_text("".join(json.dumps({"text": t}) + "\n" for t in lines))
    return Corpus((str(tmp_path / "texts.jsonl"),))


JOBS = [TrainingJob("d", Address("resid_post", 0), Recipe(width=40, k=4, batch=64, passes=2))]


def test_interrupted_training_ends_as_an_uninterrupted_one(fake_models, corpus, tmp_path, monkeypatch):
    options = {"tokens": 2600, "chunk_tokens": 900}
    whole = train_dictionaries(fake_models, corpus, JOBS, out=tmp_path / "whole", **options)["d"]
    monkeypatch.setattr(training_run, "KEPT", 5)
    plain = Trainer.train

    def stops(self, x):
        if self.step == 33:
            raise KeyboardInterrupt
        return plain(self, x)

    monkeypatch.setattr(Trainer, "train", stops)
    with pytest.raises(KeyboardInterrupt):
        train_dictionaries(fake_models, corpus, JOBS, out=tmp_path / "cut", **options)
    monkeypatch.setattr(Trainer, "train", plain)
    again = train_dictionaries(fake_models, corpus, JOBS, out=tmp_path / "cut", resume=True, **options)["d"]
    assert torch.equal(again.decoder, whole.decoder)
    assert torch.equal(again.threshold, whole.threshold)
    assert not (tmp_path / "cut" / "d" / "training.npz").exists()
    assert read_record(tmp_path / "cut" / "d")["held_out"]["explained"] > 0
    assert read_dictionary(tmp_path / "cut" / "d").address == "resid_post.0"


def test_training_of_another_recipe_is_not_taken_up(fake_models, corpus, tmp_path, monkeypatch):
    monkeypatch.setattr(training_run, "KEPT", 1)
    plain = Trainer.train
    monkeypatch.setattr(
        Trainer, "train", lambda self, x: (_ for _ in ()).throw(KeyboardInterrupt) if self.step == 3 else plain(self, x)
    )
    with pytest.raises(KeyboardInterrupt):
        train_dictionaries(fake_models, corpus, JOBS, out=tmp_path, tokens=2600)
    monkeypatch.setattr(Trainer, "train", plain)
    other = [TrainingJob("d", JOBS[0].address, Recipe(width=48, k=4, batch=64, passes=2))]
    with pytest.raises(CheckError, match="another recipe"):
        train_dictionaries(fake_models, corpus, other, out=tmp_path, tokens=2600, resume=True)


def test_a_dictionary_of_another_recipe_corpus_or_pair_is_trained_anew(fake_models, corpus, tmp_path, monkeypatch):
    pair = SimpleNamespace(base=fake_models[0], aligned=fake_models[1])
    trained: list[str] = []
    plain = features_training.train_dictionaries
    monkeypatch.setattr(
        features_training,
        "train_dictionaries",
        lambda *a, **k: trained.extend(j.folder for j in a[2]) or plain(*a, **k),
    )
    asked = {"corpus": ["texts.jsonl"], "layers": [0], "width": 40, "k": 4, "tokens": 1200, "passes": 1, "batch": 64}

    def made(pair=pair, **changes):
        trained.clear()
        section = DictionaryTraining(**asked | changes)
        read = features_training.train_missing(
            pair, section, root=tmp_path, out=tmp_path / "out", resume=True, progress=SILENT
        )
        return read["difference-0-0"], list(trained)

    first, done = made()
    assert done == ["difference-0-0"]
    again, done = made()
    assert done == []
    assert torch.equal(again.decoder, first.decoder)
    assert made(k=5)[1] == ["difference-0-0"]
    assert made(k=5, tokens=1300)[1] == ["difference-0-0"]
    with (tmp_path / "texts.jsonl").open("a", encoding="utf-8") as stream:
        stream.write('{"text": "w1 w2 w3 w4 w5"}\n')
    assert made(k=5, tokens=1300)[1] == ["difference-0-0"]
    other = SimpleNamespace(base=pair.base, aligned=dataclasses.replace(pair.aligned, sha256="other"))
    assert made(pair=other, k=5, tokens=1300)[1] == ["difference-0-0"]


@pytest.mark.parametrize("name", ["cfg.json", "sae_weights.safetensors"])
def test_a_dictionary_of_ours_that_was_changed_is_refused(fake_models, corpus, tmp_path, name):
    train_dictionaries(fake_models, corpus, JOBS, out=tmp_path, tokens=2600)
    path = tmp_path / "d" / name
    whole = path.read_bytes()
    path.write_bytes(whole.replace(b'"k": 4', b'"k": 5') if name == "cfg.json" else whole[:-9] + b"\1" + whole[-8:])
    assert path.read_bytes() != whole
    with pytest.raises(TaxlensError, match="not as it was written|changed since"):
        read_dictionary(tmp_path / "d")


def test_chunks_passed_over_are_not_read(fake_models):
    rows = [Row(n, -1, tuple(range(7 + n % 5, 19)), 12, "text") for n in range(40)]
    reads: list[int] = []
    stream = ActivationStream(
        fake_models, [Address("resid_post", 0)], lambda: iter(rows), chunk_tokens=100, told=reads.append
    )
    whole = [chunk[Address("resid_post", 0)] for chunk in stream.chunks()]
    done = len(reads)
    later = [chunk[Address("resid_post", 0)] for chunk in stream.chunks(start=2)]
    assert len(reads) - done < done
    assert torch.equal(torch.cat(later), torch.cat(whole[2:]))


def test_corpus_that_is_missing_small_or_of_unknown_form_is_refused(fake_models, tmp_path, corpus):
    with pytest.raises(ConfigError, match="missing"):
        Corpus((str(tmp_path / "none.txt"),))
    (tmp_path / "a.csv").write_text("x")
    with pytest.raises(ConfigError, match="unknown kind"):
        list(Corpus((str(tmp_path / "a.csv"),)).documents())
    (tmp_path / "b.jsonl").write_text('{"title": "x"}\n')
    with pytest.raises(ConfigError, match="neither text nor messages"):
        list(Corpus((str(tmp_path / "b.jsonl"),)).documents())
    with pytest.raises(UsageError, match="too small"):
        train_dictionaries(fake_models, corpus, JOBS, out=tmp_path / "o", tokens=100)


def test_documents_are_read_from_text_and_chat_files(tmp_path, word_tokenizer):
    (tmp_path / "a.txt").write_text("w1 w2 w3 w4 w5\nw6\n\n\nw7 w8 w9 w10\n")
    chat = {"messages": [{"role": "user", "content": "w1 w2"}, {"role": "assistant", "content": "w3 w4"}]}
    (tmp_path / "b.jsonl").write_text(json.dumps(chat) + "\n")
    rows = list(Corpus((str(tmp_path / "a.txt"), str(tmp_path / "b.jsonl"))).windows(word_tokenizer, context=5))
    assert [len(row.ids) for row in rows] == [5, 4, 5]
    texts = [word_tokenizer.decode(list(row.ids)) for row in rows]
    assert texts[0] == "w1 w2 w3 w4 w5"
    assert "<u>" in texts[2]
