"""One model's answers to a suite in a file that grows batch by batch, so that a killed generation goes on where it was.

The file is JSON lines. The first says what the answers are made from (weights, prompts, template, options); then comes a
line an answer, and after each batch a line of its time. A file made from something else is begun anew; a line that a
killed process left half written is cut off.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from taxlens.activations.items.items import Item
from taxlens.activations.models.lengths import network
from taxlens.analysis.answers.generation import Said, generated
from taxlens.core.artifacts import finished, sha256_json
from taxlens.core.json_text import JsonError, parse_json
from taxlens.core.progress import SILENT, Progress

FORMAT = 1
Key = tuple[str, int]
"""(item id, number of the sample)"""


@dataclass(slots=True)
class AnswerStore:
    """Answers that are kept.

    Args:
        path: the file; None keeps them in memory alone.
        made_from: everything that the answers follow from, as JSON values.
    """

    path: Path | None
    made_from: Mapping[str, Any]
    known: dict[Key, Said] = field(default_factory=dict)
    batches: list[tuple[int, float]] = field(default_factory=list)

    def __post_init__(self) -> None:
        if self.path is None:
            return
        self.path.parent.mkdir(parents=True, exist_ok=True)
        whole = self._read() if self.path.is_file() else 0
        if whole:
            os.truncate(self.path, whole)
        else:
            self.known, self.batches = {}, []
            self._append([self._header], fresh=True)

    @property
    def _header(self) -> dict[str, Any]:
        return {"answers": FORMAT, "made_from": json.loads(json.dumps(self.made_from))}

    def add(self, answers: Sequence[tuple[Key, Said]], seconds: float) -> None:
        """Keep the answers of a batch: they are on the disk when this returns."""
        seconds = round(seconds, 6)
        self.known |= dict(answers)
        self.batches.append((len(answers), seconds))
        lines: list[dict[str, Any]] = [
            {"item": item, "sample": sample, "text": one.text, "tokens": one.tokens, "ended": one.ended}
            for (item, sample), one in answers
        ]
        self._append([*lines, {"prompts": len(answers), "seconds": seconds}])

    def close(self) -> None:
        """Tell whoever watches the run's files that this one is whole."""
        if self.path is not None:
            finished(self.path)

    def _append(self, lines: Sequence[Mapping[str, Any]], *, fresh: bool = False) -> None:
        if self.path is None:
            return
        with open(self.path, "w" if fresh else "a", encoding="utf-8", newline="\n") as stream:
            stream.writelines(json.dumps(line, ensure_ascii=False) + "\n" for line in lines)
            stream.flush()
            os.fsync(stream.fileno())

    def _read(self) -> int:
        """Take in the whole batches of the file; the number of bytes that they end at, 0 where it is to be begun anew."""
        assert self.path is not None
        end = position = 0
        batch: dict[Key, Said] = {}
        with open(self.path, "rb") as stream:
            for number, raw in enumerate(stream):
                position += len(raw)
                try:
                    line = parse_json(raw.decode("utf-8"))
                    if number == 0:
                        if line != self._header:
                            return 0
                        end = position
                    elif "item" in line:
                        batch[line["item"], line["sample"]] = Said(line["text"], line["tokens"], line["ended"])
                    else:
                        self.batches.append((int(line["prompts"]), float(line["seconds"])))
                        self.known |= batch
                        batch, end = {}, position
                except (UnicodeDecodeError, JsonError, KeyError, TypeError, ValueError):
                    break  # the line in which a process was killed, or a damaged one: what stands before it holds
                if not raw.endswith(b"\n"):
                    break
        return end


@dataclass(frozen=True, slots=True)
class Kept:
    """Answers to some items.

    Attributes:
        said: [items][samples] answers.
        batches: [batches, 2] prompts and seconds of each batch.
        items: ids of the items.
        made_from: what the answers follow from, as JSON.
    """

    said: tuple[tuple[Said, ...], ...]
    batches: np.ndarray
    items: tuple[str, ...]
    made_from: str

    def write(self, path: Path | None) -> None:
        """Write the answers where the file does not hold them all: another process made them."""
        if path is None:
            return
        store = AnswerStore(path, json.loads(self.made_from))
        if len(store.known) == sum(map(len, self.said)):
            return
        path.unlink()
        store = AnswerStore(path, json.loads(self.made_from))
        every = [((item, n), one) for item, said in zip(self.items, self.said) for n, one in enumerate(said)]
        start = 0
        for count, seconds in self.batches.tolist():
            store.add(every[start : start + int(count)], seconds)
            start += int(count)
        store.close()


def kept_answers(
    loaded: Any,
    items: Sequence[Item],
    *,
    template: str,
    chat_template: str | None,
    path: Path | None = None,
    backend: Any = None,
    samples: int = 1,
    batch_tokens: int = 4096,
    progress: Progress = SILENT,
    **options: Any,
) -> Kept:
    """The answers of a model to items, those that a file holds already taken from there.

    Args:
        loaded: a loaded model of a pair.
        items: what is asked.
        template: "plain" or "chat".
        chat_template: text of the template for "chat".
        path: the file; None keeps nothing.
        backend: another engine that generates (`backends.vllm_backend`); None: the model itself.
        samples: answers an item (more than one are sampled: give a temperature).
        batch_tokens: padded tokens in one batch, answers included.
        progress: told of every batch.
        options: max_new_tokens, stop, temperature, seed, as for `generation.generate`.
    """
    made_from = {
        "weights": getattr(loaded, "sha256", ""), "items": sha256_json([item.to_json() for item in items]),
        "template": template, "chat_template": chat_template, "samples": samples,
        **{name: list(value) if isinstance(value, tuple) else value for name, value in sorted(options.items())},
    }  # fmt: skip
    if backend is not None:
        made_from["engine"] = backend.name
    store = AnswerStore(path, made_from)
    wanted = [(item, sample) for item in items for sample in range(samples)]
    open_ = [(item, sample) for item, sample in wanted if (item.id, sample) not in store.known]
    make = partial(generated, network(loaded), loaded.tokenizer) if backend is None else backend.generated
    shared = {"template": template, "chat_template": chat_template, **options}
    if open_:
        for _ in make([open_[0][0]], **(shared | {"max_new_tokens": min(4, options["max_new_tokens"])})):
            pass  # the first call of a model is slow: it stands before the clock
    said = make(
        [item for item, _ in open_], draws=[sample for _, sample in open_], batch_tokens=batch_tokens,
        progress=progress, **shared,
    )  # fmt: skip
    started = time.perf_counter()
    for batch in said:
        seconds = time.perf_counter() - started
        store.add([((open_[index][0].id, open_[index][1]), one) for index, one in batch], seconds)
        started = time.perf_counter()
    store.close()
    found = tuple(tuple(store.known[item.id, sample] for sample in range(samples)) for item in items)
    batches = np.array(store.batches, dtype=np.float64).reshape(-1, 2)
    return Kept(found, batches, tuple(item.id for item in items), json.dumps(made_from))
