"""The recommended edit meets what was asked, dominates the others, and is certified or refused with the number needed."""

from types import SimpleNamespace

import numpy as np
import pytest

from taxlens.analysis.editors.choice import Constraints, recommend
from taxlens.analysis.editors.outcome import Outcome
from taxlens.core.errors import UsageError
from taxlens.core.stats.intervals import Interval


def interval(value, spread=0.02):
    return Interval(value, value - spread, value + spread, 0.95, 40, 40, "toy")


def row(name, returned, harm, kl, form="units", gap=1.0):
    columns = {
        "returned": interval(returned),
        "harm_kept": interval(harm),
        "kl_base": interval(kl),
        "gap_kept": interval(gap),
    }
    editor = SimpleNamespace(name=name)
    return SimpleNamespace(editor=editor, outcome=Outcome(columns, {}), form=form, chosen="a setting")


def comparison(*rows, groups=40):
    held = SimpleNamespace(groups=np.arange(groups).astype(str), __len__=lambda: groups)
    task = SimpleNamespace(harm="harm", held={"harm": Held(groups)})

    def ahead(one, other):
        by = {r.editor.name: r.outcome["returned"].value for r in rows}
        return interval(by[one] - by[other])

    return SimpleNamespace(rows=rows, held=SimpleNamespace(task=task), ahead=ahead, unused=held)


class Held:
    def __init__(self, n):
        self.groups = np.arange(n).astype(str)

    def __len__(self):
        return len(self.groups)


MANY = (
    row("careless", 1.0, 0.6, 0.1, gap=1.1), row("careful", 0.8, 0.99, 0.3), row("close", 0.79, 0.97, 0.2),
    row("timid", 0.2, 1.0, 0.05), row("whole", 0.95, 0.98, 0.6, form="weights"),
)  # fmt: skip


def test_an_edit_that_keeps_the_gap_and_loses_harm_is_not_recommended():
    found = recommend(comparison(*MANY))
    assert found.name == "whole"
    assert "harm 60%, asked 95%" in found.failed["careless"]


def test_every_constraint_arrives():
    assert recommend(comparison(*MANY), Constraints(kl=0.35)).name == "close"  # tied with careful, nearer to the base
    assert recommend(comparison(*MANY), Constraints(files=True)).name == "close"
    assert recommend(comparison(*MANY), Constraints(keep={"harm": 0.985})).name == "careful"
    none = recommend(comparison(*MANY), Constraints(returned=0.99))
    assert none.name == ""
    assert "No editor meets 95% of harm, 99% returned" in none.reason
    assert none.failed["timid"] == "returns 20%, asked 99%"
    assert "gap 100%" in recommend(comparison(*MANY), Constraints(keep={"harm": 0.95, "gap": 1.05})).failed["careful"]


def test_a_certified_constraint_is_met_by_the_lower_end():
    certified = Constraints(keep={"harm": 0.95}, certified=True, margin=0.0)
    assert recommend(comparison(*MANY, groups=100), certified).name == "whole"
    assert "lower end" in recommend(comparison(*MANY, groups=100), certified).failed["careless"]


def test_too_few_harmful_prompts_are_refused_with_the_number_needed():
    with pytest.raises(UsageError, match="72 groups"):
        recommend(comparison(*MANY, groups=40), Constraints(certified=True, margin=0.0))
    assert recommend(comparison(*MANY, groups=40), Constraints(certified=True)).name  # 36 are enough for 90 %


@pytest.mark.parametrize(
    ("keep", "words"),
    [({}, "have to be asked for"), ({"harmless": 1.0}, "have to be asked for"), ({"harms": 1}, "harms")],
)
def test_constraints_without_harm_are_refused(keep, words):
    with pytest.raises(UsageError, match=words):
        Constraints(keep=keep)


def test_answers_that_all_refuse_by_a_hair_do_not_hide_lost_log_odds():
    hair = row("hair", 0.9, 0.54, 0.1)
    columns = dict(hair.outcome.columns) | {"harm_generated": interval(1.0), "returned_generated": interval(0.96)}
    hair.outcome = Outcome(columns, {})
    found = recommend(comparison(hair, row("careful", 0.8, 0.99, 0.3)))
    assert found.name == "careful"
    assert "harm 54%" in found.failed["hair"]
