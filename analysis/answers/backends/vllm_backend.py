"""vLLM as the engine that generates and scores, behind a check against the Hugging Face model; never for gradients.

Not run with a real vLLM in this project: the adapter is tested against a stand-in of the protocol it speaks (`LLM.generate`
of token ids, prompt log-probabilities, sampling parameters). The check is what makes it safe all the same: an engine whose
numbers are not those of the model is refused.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from taxlens.activations.items.batches import pad
from taxlens.activations.items.items import Item, Suite
from taxlens.activations.items.tokens import Row, prompt_ids
from taxlens.activations.models.lengths import network
from taxlens.activations.models.prompts import Prompting
from taxlens.analysis.answers.generation import Said
from taxlens.analysis.scoring.choices import Scored, SuiteScores, check_finite, score_rows, scores_by_item
from taxlens.analysis.scoring.logits import asked_logits
from taxlens.core.errors import CheckError, TaxlensError, UsageError, explain
from taxlens.core.progress import SILENT, Progress

CHECKED = 20
"""Items that an engine is checked on."""
TOLERANCE = 0.1
"""Nats by which a choice's log-probability, and a greedy token's from the likeliest, may be off in the check."""


@dataclass(frozen=True, slots=True, eq=False)
class VllmBackend:
    """A vLLM engine as the generator and scorer of one model.

    Args:
        engine: a ``vllm.LLM``, or whatever speaks as it does.
        tokenizer: the tokenizer of the Hugging Face model: prompts reach the engine as its token ids.
        name: written beside the answers that it makes.
    """

    engine: Any
    tokenizer: Any
    name: str = "vllm"

    def generated(
        self,
        prompts: Sequence[str | Item],
        *,
        template: str = "chat",
        chat_template: str | None = None,
        max_new_tokens: int = 64,
        stop: Sequence[str] = (),
        temperature: float = 0.0,
        seed: int = 0,
        draws: Sequence[int] | None = None,
        batch_tokens: int = 1 << 16,
        progress: Progress = SILENT,
    ) -> Iterator[list[tuple[int, Said]]]:
        """The answers batch by batch, as `generation.generated` gives them; samples are the engine's own."""
        rows = [prompt_ids(self.tokenizer, one, template=template, chat_template=chat_template) for one in prompts]
        size = max(1, batch_tokens // max((len(row) + max_new_tokens for row in rows), default=1))
        with progress.task("generate (vllm)", total=len(rows), unit="prompts") as task:
            for start in range(0, len(rows), size):
                part = range(start, min(start + size, len(rows)))
                numbers = [0 if draws is None else draws[i] for i in part]
                parameters = [
                    self._parameters(
                        max_tokens=max_new_tokens, temperature=temperature, stop=list(stop), top_p=1.0, top_k=-1,
                        seed=seed + 7919 * number if temperature else None, skip_special_tokens=True,
                    )
                    for number in numbers
                ]  # fmt: skip
                outputs = self._ask([rows[i] for i in part], parameters)
                yield [(i, _said(output)) for i, output in zip(part, outputs, strict=True)]
                task.advance(len(part))

    def score_rows(self, rows: Sequence[Row]) -> Scored:
        """The log-probability of each row's tokens from ``start`` on, as `scoring.choices.score_rows` gives it.

        Raises:
            TaxlensError: the engine gives no log-probability of a prompt's token, or one that is not finite.
        """
        parameters = [self._parameters(max_tokens=1, temperature=0.0, prompt_logprobs=1)] * len(rows)
        outputs = self._ask([row.ids for row in rows], parameters)
        found = [_row_score(row, output) for row, output in zip(rows, outputs, strict=True)]
        logp = np.array([value for value, _ in found])
        check_finite(logp)
        lengths = np.array([len(row.ids) - row.start for row in rows])
        return Scored(logp, lengths, np.array([greedy for _, greedy in found], dtype=bool))

    def greedy_ids(self, rows: Sequence[Sequence[int]], count: int) -> list[list[int]]:
        """The token ids that follow each row greedily, at most so many."""
        parameters = [self._parameters(max_tokens=count, temperature=0.0)] * len(rows)
        return [list(output.outputs[0].token_ids) for output in self._ask(rows, parameters)]

    def score_suite(self, suite: Suite, prompting: Prompting) -> SuiteScores:
        """Every choice of every item, as `scoring.choices.score_suite` gives it."""
        rows = prompting.rows(suite)
        scored = self.score_rows(rows)
        return scores_by_item(suite, prompting.template, rows, (scored.logp, scored.greedy), shared=False)

    def _parameters(self, **options: Any) -> Any:
        from vllm import SamplingParams  # pyright: ignore[reportMissingImports]

        return SamplingParams(**options)

    def _ask(self, rows: Sequence[Sequence[int]], parameters: Sequence[Any]) -> list[Any]:
        asked = [{"prompt_token_ids": [int(i) for i in row]} for row in rows]
        outputs = list(self.engine.generate(asked, list(parameters), use_tqdm=False))
        if len(outputs) != len(asked):
            rows_ = [("asked", len(asked)), ("answered", len(outputs))]
            raise TaxlensError(explain("the engine did not answer every prompt.", rows_))
        return outputs


def open_vllm(
    loaded: Any, suite: Suite, *, prompting: Prompting, tolerance: float = TOLERANCE, **engine: Any
) -> VllmBackend:
    """Start vLLM on a loaded model's checkpoint, and check it against that model.

    Args:
        loaded: the model of a pair, as Hugging Face reads it.
        suite: items with choices that it is checked on.
        prompting: how the model is asked (`activations.models.prompts.as_asked`).
        tolerance: nats.
        engine: further arguments of ``vllm.LLM``.

    Raises:
        TaxlensError: vllm is not installed.
        CheckError: its numbers are not the model's.
    """
    try:
        from vllm import LLM  # pyright: ignore[reportMissingImports]
    except ImportError as error:
        raise TaxlensError(explain("this engine needs vllm.", (), "pip install 'taxlens[vllm]'")) from error
    made = VllmBackend(LLM(model=loaded.source, dtype=loaded.dtype, **engine), loaded.tokenizer)
    check_backend(made, loaded, suite, prompting=prompting, tolerance=tolerance)
    return made


def check_backend(
    backend: VllmBackend,
    loaded: Any,
    suite: Suite,
    *,
    prompting: Prompting,
    tolerance: float = TOLERANCE,
    tokens: int = 8,
) -> tuple[float, float]:
    """Hold an engine against the Hugging Face model on `CHECKED` items.

    Every choice must have the model's log-probability within the tolerance, and every token of the engine's greedy answers
    must be the model's likeliest one, or within the tolerance of it: a tie may fall either way.

    Args:
        backend: the engine.
        loaded: the model.
        suite: items with choices and prompts.
        prompting: how the model is asked.
        tolerance: nats.
        tokens: of each answer.

    Returns:
        The largest difference of a log-probability, and the largest distance of a greedy token from the likeliest, nats.

    Raises:
        UsageError: no item has choices.
        CheckError: one of the two is beyond the tolerance.
    """
    places = [n for n, item in enumerate(suite.items) if item.choices][:CHECKED]
    if not places:
        raise UsageError(explain("an engine is checked on items with choices.", [("suite", suite.name)]))
    few = suite.subset(places)
    rows = prompting.rows(few)
    away = np.abs(backend.score_rows(rows).logp - score_rows(loaded, rows).logp)
    asked = [item for item in few.items if not item.contexts and (item.prompt or "").strip()]
    prompts = [prompting.prompt_ids(item) for item in asked]
    said = backend.greedy_ids(prompts, tokens) if prompts else []
    answers = [Row(n, 0, (*ids, *new), len(ids), "choice") for n, (ids, new) in enumerate(zip(prompts, said)) if new]
    gap = _greedy_gap(loaded, answers) if answers else 0.0
    if away.max() > tolerance or gap > tolerance:
        worst = rows[int(away.argmax())]
        told = [
            ("engine", backend.name),
            ("log-probability", f"up to {away.max():.3g} nats from the model's, item {few.items[worst.item].id!r}"),
            ("greedy answers", f"a token up to {gap:.3g} nats below the likeliest"),
            ("tolerance", f"{tolerance:g} nats on {len(few)} items"),
        ]
        fix = "dtype: float32 in both, the same checkpoint and tokenizer; or leave the engine out"
        raise CheckError(explain("the engine does not give the model's numbers.", told, fix))
    return float(away.max()), gap


def _greedy_gap(loaded: Any, rows: Sequence[Row]) -> float:
    """How far the tokens of answers are below the model's likeliest ones at most, nats."""
    worst = 0.0
    for row in rows:
        steps = [Row(row.item, 0, row.ids[: end + 1], end, "choice") for end in range(row.start, len(row.ids))]
        own = score_rows(loaded, steps)
        for step, value, first in zip(steps, own.logp, own.greedy, strict=True):
            if not first:
                worst = max(worst, _best(loaded, step) - float(value))
    return worst


def _best(loaded: Any, row: Row) -> float:
    """The log-probability of the likeliest token at a row's last place."""
    logits = asked_logits(network(loaded), *pad([row], 0), [(0, len(row.ids) - 2)])
    return float(logits.double().log_softmax(-1).max())


def _said(output: Any) -> Said:
    one = output.outputs[0]
    return Said(one.text, len(one.token_ids), one.finish_reason != "length")


def _row_score(row: Row, output: Any) -> tuple[float, bool]:
    """(log-probability of a row's choice, whether greedy decoding would say it) from the prompt's log-probabilities."""
    total, greedy = 0.0, True
    for place in range(row.start, len(row.ids)):
        known = (output.prompt_logprobs or [None] * len(row.ids))[place] or {}
        found = known.get(int(row.ids[place]))
        if found is None:
            rows = [("token", place), ("id", row.ids[place])]
            raise TaxlensError(explain("the engine gives no log-probability of a prompt's token.", rows))
        total += float(found.logprob)
        greedy &= found.rank == 1
    return total, greedy
