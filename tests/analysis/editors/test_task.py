"""Training, validation and held-out items share nothing, and roles that would hide a loss are refused."""

import pytest

from taxlens.activations.items.items import Suite
from taxlens.analysis.editors.task import edit_task
from taxlens.core.errors import UsageError

ROLES = {"taxed": ["facts"], "harm": "harm", "harmless": "harmless"}


def test_the_three_parts_share_no_group_and_no_prompt(task):
    for name in task.suites:
        parts = [task.train[name], task.validation[name], task.held[name]]
        groups = [set(part.groups) for part in parts]
        assert not groups[0] & groups[1]
        assert not (groups[0] | groups[1]) & groups[2]
        assert min(map(len, parts)) > 0


def test_another_seed_is_another_task(refusal_pair, edit_suites, task):
    again = edit_task(refusal_pair, edit_suites, **ROLES)
    other = edit_task(refusal_pair, edit_suites, **ROLES, seed=1)
    assert again.fingerprint == task.fingerprint != other.fingerprint


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"harm": ""}, "harmful prompts that it still refuses"),
        ({"harmless": ""}, "need harmless ones"),
        ({"harmless": "harm"}, "need harmless ones"),
        ({"taxed": []}, "no taxed suite"),
        ({"taxed": ["harm"]}, "cannot be taxed"),
        ({"taxed": ["fact"]}, "no suite 'fact'"),
    ],
)
def test_roles_that_hide_a_loss_are_refused(refusal_pair, edit_suites, change, words):
    with pytest.raises(UsageError, match=words):
        edit_task(refusal_pair, edit_suites, **(ROLES | change))


def test_a_prompt_that_is_harmful_and_harmless_is_refused(refusal_pair, edit_suites):
    suites = [Suite("harmless", edit_suites[3].items) if s.name == "harmless" else s for s in edit_suites]
    with pytest.raises(UsageError, match="harmful and harmless at once"):
        edit_task(refusal_pair, suites, **ROLES)


def test_training_prompts_that_are_held_out_too_are_refused(refusal_pair, edit_suites):
    with pytest.raises(UsageError, match="among those to fit on"):
        edit_task(refusal_pair, edit_suites, **ROLES, training=edit_suites)


def test_training_suites_are_fitted_on_and_the_others_held_out_whole(refusal_pair, edit_suites):
    halves = [(s.subset(range(len(s) // 2)), s.subset(range(len(s) // 2, len(s)))) for s in edit_suites]
    task = edit_task(refusal_pair, [b for _, b in halves], **ROLES, training=[a for a, _ in halves])
    assert task.held["facts"].sha256 == halves[0][1].sha256
    fitted = {i.id for part in (task.train, task.validation) for i in part["facts"].items}
    assert fitted == {i.id for i in halves[0][0].items}


def test_one_group_cannot_be_fitted_and_validated_on(refusal_pair, edit_suites):
    one = [Suite(s.name, tuple(i for i in s.items if i.group == s.items[0].group), s.kind) for s in edit_suites]
    rest = [Suite(s.name, tuple(i for i in s.items if i.group != s.items[0].group), s.kind) for s in edit_suites]
    with pytest.raises(UsageError, match="too few groups"):
        edit_task(refusal_pair, rest, **ROLES, training=one)
