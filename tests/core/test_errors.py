"""Errors say what, where, got against expected, and what to try."""

import pytest

from taxlens.core import errors


def test_explain_aligns_rows_and_ends_with_what_to_try():
    text = errors.explain("it failed.", [("got", 3), ("expected", 4)], "ask for four")
    assert text == "it failed.\n  got       3\n  expected  4\n  Try: ask for four"


def test_one_of_returns_a_known_value():
    assert errors.one_of("cka", ["cka", "rsa"], what="measure") == "cka"


def test_one_of_lists_every_option_and_names_the_nearest():
    with pytest.raises(errors.UsageError) as caught:
        errors.one_of("resid_pots", ["resid_pre", "resid_post"], what="site")
    text = str(caught.value)
    assert "unknown site 'resid_pots'" in text
    assert "resid_pre, resid_post" in text
    assert text.endswith("Try: 'resid_post'")


def test_one_of_suggests_nothing_where_nothing_is_near():
    with pytest.raises(errors.ConfigError) as caught:
        errors.one_of("zzz", ["cka"], what="measure", error=errors.ConfigError)
    assert "Try" not in str(caught.value)


@pytest.mark.parametrize(
    ("kind", "code"),
    [
        (errors.TaxlensError, 1),
        (errors.ModelLoadError, 1),
        (errors.UsageError, 2),
        (errors.ConfigError, 2),
        (errors.ItemError, 2),
        (errors.PairMismatchError, 3),
        (errors.StoreError, 3),
        (errors.SelfCheckError, 3),
    ],
)
def test_exit_codes_are_the_contracts(kind, code):
    assert kind("x").exit_code == code
