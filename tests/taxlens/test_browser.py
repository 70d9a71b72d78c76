"""The report in chromium, where there is one: no wider than a phone, loud for a screen reader, legible in light and dark."""

import shutil

import numpy as np
import pandas as pd
import pytest

from benchmarks.house.browser import SCHEMES, WIDTHS, faults, look
from taxlens.config.schema import build_config
from taxlens.core.table import Table, number
from taxlens.figures.save import save_figure
from taxlens.report.page import write_report
from taxlens.runs.folder import Run
from taxlens.stages.tax.tax_figure import draw_tax

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
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
    return write_report(run)


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("device", WIDTHS)
def test_the_report_is_in_order(device, scheme, report):
    assert faults(look(report, chromium=CHROMIUM, width=WIDTHS[device], scheme=SCHEMES[scheme])) == []


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
