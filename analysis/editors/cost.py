"""What a comparison of editors will take, before anything is run."""

from __future__ import annotations

from collections.abc import Sequence

from taxlens.analysis.editors.kinds.optimise import STEPS
from taxlens.analysis.editors.kinds.repair import RECIPES
from taxlens.analysis.editors.objective import BATCH_TOKENS, Draw
from taxlens.analysis.editors.task import EditTask
from taxlens.analysis.scoring.budget import PASSES, TRAINING_PASSES, minutes_for
from taxlens.core.memory import available_memory

GRADIENTS = 7
"""Gradients of the path's attribution."""
AGAIN = 3
"""Times that path's effects are taken anew for a candidate."""
_STEPPED = {"joint": STEPS, "mask": STEPS, "per_layer": STEPS}
_AVERAGED = {"hma": 30, "hma_layers": 30, "localize": 30}
"""Steps a setting."""
_TRAINED = frozenset({*_STEPPED, *_AVERAGED, *RECIPES, "path", "one_gradient", "spectral_surgery"})
"""Editors that take gradients."""
_SEARCHED = frozenset({"heretic", "heretic_reaimed"})
_DIRECTED = frozenset({"ablate", "false_refusal", "false_refusal_hooks", "write_projection"})
CANDIDATES = 26
"""Passes over prompts that choosing a direction takes."""
STEP_SECONDS, PASS_SECONDS, TOKEN_SECONDS = 0.028, 0.008, 0.0015
"""What a layer costs beside its arithmetic: in a training step, in scoring a suite, and in a generated token of a batch.
Stated figures like the rate: on small models they are nearly all of the time."""


def comparison_minutes(task: EditTask, editors: Sequence[str], *, tries: int, answer: int = 0) -> float:
    """Estimated minutes of fitting, validating and measuring editors, on two cores at the stated rate.

    Args:
        task: items and roles.
        editors: names.
        tries: settings of each.
        answer: tokens of a generated answer; 0: none.
    """
    lengths = {
        part: {name: _tokens(task, part, name) for name in task.suites} for part in ("train", "validation", "held")
    }
    draw, several = Draw(), len(task.suites)
    sizes = dict.fromkeys(task.taxed, draw.taxed) | {task.harm: draw.harm, task.harmless: draw.harmless}
    step = sum(sizes[name] * lengths["train"][name] / len(task.train[name]) for name in task.suites)
    look = sum(min(1.0, 12 / len(task.validation[name])) * lengths["validation"][name] for name in task.suites)
    every, validation, held = (sum(lengths[part].values()) for part in ("train", "validation", "held"))
    prompt = (validation / 2) / max(1, sum(len(task.validation[name]) for name in task.suites))
    tokens, steps, passes = 2.0 * validation + 2.0 * held, 0.0, 4.0 * several
    for name in editors:
        mine = _STEPPED.get(name, RECIPES[name].steps if name in RECIPES else _AVERAGED.get(name, 0) * tries)
        tokens += mine * step * TRAINING_PASSES + (mine / 6) * look
        whole = {"path": GRADIENTS + 2 + tries * AGAIN, "one_gradient": 2, "spectral_surgery": 1}.get(name, 0)
        tokens += whole * PASSES * every + (tries * (AGAIN + 1) * every if name == "path" else 0)
        trials = task.search if name in _SEARCHED else CANDIDATES if name in _DIRECTED else 0
        tokens += trials * prompt * (96 if name in _SEARCHED else 32) + tries * validation + held
        steps += mine + whole * several
        passes += several * (tries + 1 + mine / 6 + (tries * (AGAIN + 1) if name == "path" else 0)) + 2 * trials
    asked = sum(len(task.held[name]) for name in task.suites)
    models = len(editors) + 2
    tokens += models * (asked * answer + (held / 2 if answer else 0))
    beside = STEP_SECONDS * steps + PASS_SECONDS * passes + TOKEN_SECONDS * models * answer * several
    return minutes_for(task.pair, tokens) + task.pair.aligned.anatomy.n_layers * beside / 60


def memory_needed(task: EditTask, editor: str) -> float:
    """Estimated bytes that an editor takes beside the pair itself.

    A copy of the weights that it changes; where it trains, the activations and log-probabilities of one batch with their
    gradients; where it stays close to an end of the pair, that end's log-probabilities of every gold answer.

    Args:
        task: items and roles.
        editor: its name.
    """
    loaded = task.pair.aligned
    size = sum(p.numel() * p.element_size() for p in loaded.model.parameters())
    needed = float(size)
    words = loaded.model.config.get_text_config().vocab_size
    if editor in _TRAINED:
        needed += BATCH_TOKENS * (12.0 * words + 160.0 * loaded.anatomy.n_layers * loaded.anatomy.d_model)
    recipe = RECIPES.get(editor)
    if recipe is not None and (recipe.prices.kl or recipe.prices.hold):
        needed += 2.0 * words * sum(_gold_tokens(task, name) for name in task.suites)
    return needed


def memory_reason(task: EditTask, editor: str) -> str:
    """Why an editor does not fit into the memory that is free; blank where it does, or where the system does not say."""
    needed, free = memory_needed(task, editor), available_memory()
    if free is None or needed <= free:
        return ""
    return f"it needs about {needed / 1e9:.1f} GB of memory and {free / 1e9:.1f} GB are free"


def _gold_tokens(task: EditTask, name: str) -> int:
    """Tokens of a suite's gold answers, training items."""
    suite = task.train[name]
    rows = task.prompting(suite).rows(suite)
    return sum(len(row.ids) - row.start for row in rows if row.choice == (suite.items[row.item].gold or 0))


def _tokens(task: EditTask, part: str, name: str) -> int:
    """Tokens of two choices of every item."""
    suite = getattr(task, part)[name]
    lengths: dict[int, list[int]] = {}
    for row in task.prompting(suite).rows(suite):
        lengths.setdefault(row.item, []).append(len(row.ids))
    return sum(sum(sorted(mine)[-2:]) for mine in lengths.values())
