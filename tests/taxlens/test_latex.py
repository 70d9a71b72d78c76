"""The paper kit: tables hold the run's numbers, methods say what was run and no more, everything cited has an entry, and it compiles."""

import re
import shutil
import subprocess

import pandas as pd
import pytest
from pypdf import PdfReader

from taxlens.config.schema import build_config
from taxlens.figures.save import save_figure
from taxlens.report.latex import references, write_latex
from taxlens.report.methods import checklist, methods_paragraph
from taxlens.runs.folder import Run
from taxlens.stages.tax.tax_figure import draw_tax
from taxlens.words.latex_text import booktabs, escaped, number, span

TAX = pd.DataFrame(
    [
        ("facts_100%", "capability", "probability", "plain", 0.99, 0.51, 0.481, 0.460, 0.503, 93, 0, 192, 48),
        ("harm", "benefit", "probability", "chat", 0.14, 0.97, -0.832, -0.846, -0.819, 0, 192, 192, 16),
    ],
    columns=[
        "suite", "kind", "metric", "template", "base", "aligned", "tax", "low", "high", "lost", "won", "n_items", "n_groups",
    ],
)  # fmt: skip
TWO = pd.DataFrame(
    [("facts_100%", "probability", e, v, v - 0.01, v + 0.01) for e, v in (("weights", 0.481), ("template", -0.09))],
    columns=["suite", "metric", "effect", "value", "low", "high"],
)
EFFECTS = pd.DataFrame(
    [("facts_100%", "plain", "probability", m, "component", c, e, e - 0.01, e + 0.01, 1e-5, e / 0.481)
     for m in ("path", "graft") for c, e in (("2.mlp", 0.31), ("1.attn", 0.17))],
    columns=["suite", "template", "metric", "method", "level", "component", "effect", "low", "high", "quadrature_error", "share"],
)  # fmt: skip
CLOSURE = pd.DataFrame(
    [("facts_100%", "plain", "probability", "path", 0.481, 0.48, 0.001, 15, 17, 1e-6, True)],
    columns=["suite", "template", "metric", "method", "tax", "attributed", "residual", "gradients", "forwards", "end_error", "closed"],
)  # fmt: skip
FRONT = pd.DataFrame(
    [(f"{o}-1%{d}", o, n, "singular", "", "probability", 0.01, 0.1, 0.4, 0.3, 0.5, 0.96, 0.9, 1.0, "answers")
     for o, d, n in (("path", "", -1), ("magnitude", "", -1), ("random", "-d00", 0), ("random", "-d01", 1))],
    columns=["plan", "order", "draw", "unit", "suite", "metric", "share_undone", "energy_undone", "returned", "returned_low",
             "returned_high", "benefit_kept", "benefit_kept_low", "benefit_kept_high", "held_out"],
)  # fmt: skip


@pytest.fixture
def run(tmp_path, put):
    values = {"name": "small_pair", "pair": {"base": "a", "aligned": "b"}, "suites": [{"name": "facts", "file": "f"}]}
    run = Run.create(build_config(values), tmp_path / "r", given=values, root=tmp_path)
    run.manifest["suites"] = {"facts_100%": {"items": 192, "groups": 48, "sha256": "ab" * 32}}
    run.manifest["pair"] = {
        "architecture": "llama",
        "layers": "4",
        "dtype": "float32",
        "weights sha256": {"base": "c" * 64},
    }
    tables = {"tax": TAX, "tax_2x2": TWO, "attribution": EFFECTS, "closure": CLOSURE, "frontier": FRONT}
    for name, frame in tables.items():
        put(run, name, frame)
    save_figure(draw_tax(TAX), run.folder / "figures", "tax_probability")
    return run


def test_letters_that_latex_reads_as_commands_are_literal():
    assert escaped(r"50 % of a_b & {c} \ ~ #") == r"50 \% of a\_b \& \{c\} \textbackslash{} \textasciitilde{} \#"
    assert escaped("R², 5 − 3, naïve") == r"R\textsuperscript{2}, 5 -- 3, na?ve"


def test_numbers_have_a_true_minus_and_no_minus_zero():
    assert number(-0.832, scale=100) == "$-$83.2"
    assert number(-0.0001, scale=100) == "0.0"
    assert number(float("nan")) == "--"
    assert span(-0.01, -0.02, 0.03, scale=100) == "$-$1.0 [$-$2.0, 3.0]"


def test_a_table_is_booktabs():
    text = booktabs(["a", "b"], [["1", "2"]], caption="c", label="tab:x")
    for part in (r"\toprule", r"\midrule", r"\bottomrule", r"\begin{tabular}{lr}", r"\caption{c}", r"\label{tab:x}"):
        assert part in text
    assert r"\hline" not in text


def test_tables_hold_the_runs_numbers(run):
    write_latex(run)
    tax = (run.folder / "latex" / "table_tax.tex").read_text(encoding="utf-8")
    assert r"facts\_100\% & plain & probability & 99.0 & 51.0 & 48.1 [46.0, 50.3] & 93/0 & 192/48 \\" in tax
    effects = (run.folder / "latex" / "table_attribution.tex").read_text(encoding="utf-8")
    assert r"2.mlp & 31.00 [30.00, 32.00] & 1.0e-03 & 64 \\" in effects
    front = (run.folder / "latex" / "table_frontier.tex").read_text(encoding="utf-8")
    assert r"path & 1.0 & 10.0 & 40 [30, 50] & 96 [90, 100] \\" in front
    assert "random, 2 draws" in front


def test_methods_say_what_was_run_and_no_more(take_away, run):
    said = methods_paragraph(run)
    assert "15 gradients" in said
    assert "2000 draws, seed 0" in said
    assert "largest singular values first" in said
    assert "one component of aligned in base" in said
    assert "Probes" not in said
    assert "paragraph{State.}" not in said
    for name in ("frontier", "attribution", "closure"):
        take_away(run, name)
    said = methods_paragraph(run)
    assert "Getting it back" not in said
    assert "sundararajan2017axiomatic" not in said
    assert "mcnemar1947note" in said


def test_what_is_cited_has_an_entry_and_nothing_else_is_listed(run):
    write_latex(run)
    methods = (run.folder / "latex" / "methods.tex").read_text(encoding="utf-8")
    listed = set(re.findall(r"@\w+\{([^,]+),", (run.folder / "latex" / "references.bib").read_text(encoding="utf-8")))
    cited = {key for group in re.findall(r"\\cite[pt]\{([^}]+)\}", methods) for key in group.split(",")}
    assert listed == cited
    with pytest.raises(KeyError):
        references(r"\citep{nobody1900}")


def test_every_entry_of_the_bibliography_has_title_author_year_and_an_identifier_or_a_place():
    from importlib.resources import files

    text = (files("taxlens.report") / "templates" / "references.bib").read_text(encoding="utf-8")
    for line in text.splitlines():
        assert re.search(r"author=\{.+?\}, title=\{.+\}|title=\{.+\}, author=\{.+?\}", line), line
        assert re.search(r"year=\{\d{4}\}", line), line
        assert re.search(r"eprint=|doi=|journal=|publisher=|booktitle=", line), line


def test_the_checklist_names_seed_hardware_versions_and_hashes(run):
    said = checklist(run)
    for part in ("seed", "processor", "version of torch", "weights of base, sha256", "suite facts", "config"):
        assert part in said, part


@pytest.mark.skipif(shutil.which("pdflatex") is None, reason="needs pdflatex")
def test_the_kit_compiles_without_an_undefined_reference_or_a_type_3_font(run):
    write_latex(run)
    folder = run.folder / "latex"
    for command in (["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "paper"], ["bibtex", "paper"]) * 2:
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=60)
        assert done.returncode == 0, done.stdout[-1500:]
    done = subprocess.run(["pdflatex", "-interaction=nonstopmode", "paper"], cwd=folder, capture_output=True, text=True)
    assert not re.search(r"(Citation|Reference).*undefined", done.stdout)
    fonts = [
        font.get_object()["/Subtype"]
        for page in PdfReader(folder / "paper.pdf").pages
        for font in page["/Resources"].get("/Font", {}).values()
    ]
    assert fonts
    assert "/Type3" not in fonts
