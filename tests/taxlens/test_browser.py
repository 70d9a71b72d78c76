"""The report in chromium, where there is one: no wider than a phone, loud for a screen reader, legible, and alive to keys."""

import os
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from benchmarks.house.browser import SCHEMES, WIDTHS, faults, look
from taxlens.config.schema import build_config
from taxlens.core.table import Table, number
from taxlens.figures.maps import draw_layer_map
from taxlens.figures.save import save_figure
from taxlens.report.page import write_report
from taxlens.runs.folder import Run
from taxlens.stages.attribute.attribution_figure import draw_attribution
from taxlens.stages.tax.tax_figure import draw_tax

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
# `npm install --prefix .cache/axe axe-core` puts the rules of axe there; they are run as well where they are.
_AXE = Path(os.environ.get("AXE_CORE", ".cache/axe/node_modules/axe-core/axe.min.js"))
AXE = _AXE if _AXE.is_file() else None
pytestmark = [pytest.mark.slow, pytest.mark.skipif(CHROMIUM is None, reason="needs chromium")]


@pytest.fixture
def report(tmp_path, put):
    values = {
        "name": "a-run-with-a-long-name",
        "pair": {"base": "a", "aligned": "b"},
        "suites": [{"name": "facts", "file": "f"}],
    }
    run = Run.create(build_config(values), tmp_path / "r", given=values, root=tmp_path)
    values = ("capability", "probability")
    numbers = (0.9, 0.5, 0.4, 0.3, 0.5, 9, 1, 90, 30)
    tax = pd.DataFrame(
        [(f"suite_with_a_long_name_{n}", *values, t, *numbers) for n in range(4) for t in ("plain", "chat")],
        columns=["suite", "kind", "metric", "template", "base", "aligned", "tax", "low", "high", "lost", "won", "n_items", "n_groups"],
    )  # fmt: skip
    put(run, "tax", tax)
    wide = pd.DataFrame(np.ones((60, 30)), columns=[f"a_column_with_a_name_{n}" for n in range(30)])
    run.write(Table("evidence_of_width", "a row", {name: number("a value") for name in wide}), wide)
    save_figure(draw_tax(tax), run.folder / "figures", "tax_probability")
    parts = [("2.mlp", 2, "mlp", 0.3), ("1.attn", 1, "attn", 0.15), ("0.mlp", 0, "mlp", -0.05)]
    effects = pd.DataFrame(parts, columns=["component", "layer", "kind", "effect"])
    effects = effects.assign(suite="facts", metric="probability", method="path", level="component", low=effects["effect"] - 0.02,
                             high=effects["effect"] + 0.02, share=effects["effect"] / 0.4)  # fmt: skip
    put(run, "attribution", effects)
    closed = {
        "suite": "facts",
        "template": "plain",
        "metric": "probability",
        "method": "path",
        "tax": 0.4,
        "residual": 0.0,
    }
    closure = pd.DataFrame([closed])
    save_figure(
        draw_attribution(effects, closure=closure, suite="facts"),
        run.folder / "figures",
        "attribution_facts_probability",
    )
    save_figure(draw_layer_map(effects, suite="facts"), run.folder / "figures", "layer_map_facts_probability")
    return write_report(run)


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("device", WIDTHS)
def test_the_report_is_in_order(device, scheme, report):
    assert faults(look(report, chromium=CHROMIUM, width=WIDTHS[device], scheme=SCHEMES[scheme], axe=AXE)) == []


def test_a_picked_layer_is_marked_in_every_picture_that_has_layers(report):
    found = look(report, chromium=CHROMIUM, width=WIDTHS["desktop"], scheme=SCHEMES["light"])["touched"]
    assert (found["charts"], found["picked"], found["cleared"]) == (3, 2, 0)
    assert found["filtered"] == 1  # the table of effects


def test_without_its_script_the_page_still_shows_every_picture(report):
    text = report.read_text(encoding="utf-8")
    report.write_text(text.replace("script-src 'sha256-", "script-src 'sha256-no"), encoding="utf-8")
    found = look(report, chromium=CHROMIUM, width=WIDTHS["desktop"], scheme=SCHEMES["light"])
    assert found["images"] == 3
    assert found["broken"] == 0
    assert "touched" not in found
    assert any("Content Security Policy" in line for line in found["console"])


def test_a_page_wider_than_a_phone_is_found(report):
    text = report.read_text(encoding="utf-8")
    report.write_text(text.replace("<h2 id=", '<div style="width:900px">wide</div><h2 id=', 1), encoding="utf-8")
    found = look(report, chromium=CHROMIUM, width=WIDTHS["phone"], scheme=SCHEMES["light"])
    assert any("pixels wide in a window of 390" in said for said in faults(found))


def test_a_silent_picture_and_faint_text_are_found(report):
    text = report.read_text(encoding="utf-8")
    text = text.replace('alt="', 'title="').replace("--quiet: #555", "--quiet: #ddd")
    report.write_text(text, encoding="utf-8")
    said = " ".join(faults(look(report, chromium=CHROMIUM, width=WIDTHS["desktop"], scheme=SCHEMES["light"])))
    assert "say nothing to a screen reader" in said
    assert "contrast of" in said
