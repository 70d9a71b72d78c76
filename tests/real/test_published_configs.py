"""Every config of a published pair is read, checked and planned without a network."""

from __future__ import annotations

import re
import socket
from pathlib import Path

import pytest

from taxlens.config.schema import load_config
from taxlens.core.errors import ConfigError
from taxlens.runs.checking import CheckContext, check_stages

FOLDER = Path(__file__).parents[2] / "configs" / "published"
CONFIGS = sorted(FOLDER.glob("*.yaml"))
HUB = r"[A-Za-z0-9][\w.-]*/[\w.-]+"


@pytest.fixture(params=CONFIGS, ids=lambda path: path.stem)
def path(request):
    return request.param


@pytest.fixture
def no_network(monkeypatch):
    def refuse(*args, **kwargs):
        raise AssertionError("a config was checked over the network")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)


def models(config):
    last = config.pair.aligned
    return [config.pair.base, *([last] if isinstance(last, str) else last)]


def test_eight_published_pairs_are_here():
    assert len(CONFIGS) == 8


def test_config_is_read_and_its_stages_are_checked_without_a_network(path, no_network):
    config = load_config(path)
    check_stages(CheckContext(config, path.parent, source=path), list(config.planned))
    assert config.planned == ("tax", "attribute", "diagnose", "figures", "report")
    assert all(re.fullmatch(HUB, name) for name in models(config))


def test_a_wrong_name_in_it_is_refused_without_a_network(path, no_network):
    config = load_config(path, overrides=["frontier.benefit=nothing"])
    with pytest.raises(ConfigError, match="nothing"):
        check_stages(CheckContext(config, path.parent, source=path), ["frontier"])


def test_its_suites_are_built_without_a_network_and_hold_a_benefit(path, no_network):
    suites = CheckContext(load_config(path), path.parent).suites
    assert len(suites) == 8
    assert [suite.name for suite in suites.values() if suite.kind == "benefit"] == ["refuse_harmful"]


def test_its_header_counts_the_weights_of_two_and_three_models(path):
    found = re.search(
        r"from ([\d.]+)B parameters at 2 bytes: two models ([\d.]+) GB \(tax\), three ([\d.]+) GB", path.read_text()
    )
    parameters, two, three = map(float, found.groups())
    assert two == pytest.approx(4 * parameters, abs=0.06)
    assert three == pytest.approx(6 * parameters, abs=0.06)


def test_each_published_number_has_a_source_or_is_said_to_be_missing(path):
    told = path.read_text().split("# Published")[1].split("\nname:")[0]
    rows = [line.lstrip("# ") for line in told.splitlines()[1:] if line.startswith("#   ")]
    for row, after in zip(rows, [*rows[1:], ""]):
        if re.search(r"\d\.\d|\b\d+ %", row) and not row.startswith("source") and "arXiv" not in row:
            assert after.startswith("source: ")
            assert "https://" in after
