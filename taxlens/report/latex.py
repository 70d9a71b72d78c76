"""The paper kit of a run: tables, figures with captions, methods with citations, checklist, and a page that holds them all."""

from __future__ import annotations

import importlib.resources
import re
from pathlib import Path

from taxlens.core.artifacts import atomic_path
from taxlens.report.answer import headline
from taxlens.report.methods import checklist, methods_paragraph
from taxlens.report.pictures import leading
from taxlens.stages import STAGES
from taxlens.words.latex_text import escaped
from taxlens.words.run_view import RunView
from taxlens.words.suite_rows import by_loss, main_metric, told_row

_ENTRY = re.compile(r"@\w+\{([^,]+),.*")
_CITED = re.compile(r"\\cite[pt]?\{([^}]+)\}")

PAPER = r"""% Compile: pdflatex paper && bibtex paper && pdflatex paper && pdflatex paper
\documentclass[10pt]{article}
\usepackage[utf8]{inputenc}
\usepackage{amsmath,booktabs,graphicx,natbib}
\usepackage[margin=1in]{geometry}
\begin{document}
\section*{NAME}
\noindent ANSWER

\section*{Methods}
\input{methods}
\input{tables}
\input{figures}
\clearpage
\section*{Checklist}
\input{checklist}
\bibliographystyle{plainnat}
\bibliography{references}
\end{document}
"""


def write_latex(run: RunView) -> list[Path]:
    r"""Write the paper kit into the run's folder `latex` and return the paths.

    `tables.tex` (booktabs) and one file a table, `figures.tex` (floats of the run's leading figures with their captions),
    `methods.tex` (what was run, with citations), `checklist.tex` (seeds, hardware, versions, hashes), `references.bib`
    (what methods.tex cites, no more) and `paper.tex`, which compiles as it is and shows how to `\input` the parts.

    Args:
        run: a run with tables and figures (what is missing is left out).
    """
    folder = run.folder / "latex"
    folder.mkdir(exist_ok=True)
    tables, methods = paper_tables(run), methods_paragraph(run)
    answers = " ".join(escaped(sentence[:1].upper() + sentence[1:]) for sentence in headline(run))
    files = {f"table_{name}.tex": text for name, text in tables.items()} | {
        "tables.tex": "".join(f"\\input{{table_{name}}}\n" for name in tables),
        "figures.tex": _figures(run),
        "methods.tex": methods,
        "checklist.tex": checklist(run),
        "references.bib": references(methods),
        "paper.tex": PAPER.replace("NAME", escaped(run.config.name)).replace("ANSWER", answers),
    }
    for name, text in files.items():
        with atomic_path(folder / name) as temporary:
            temporary.write_text(text, encoding="utf-8")
    return [folder / name for name in files]


def paper_tables(run: RunView) -> dict[str, str]:
    """Return the run's tables as LaTeX by name; what was not run is left out."""
    metric = main_metric(run) or "probability"
    makers = [stage.words.latex for stage in STAGES if stage.words.latex]
    return {name: text for make in makers for name, text in make(run, metric).items()}


def references(text: str) -> str:
    """Return the BibTeX entries of every key that a LaTeX text cites.

    Raises:
        KeyError: if a cited key has no entry.
    """
    source = (importlib.resources.files("taxlens.report") / "templates" / "references.bib").read_text(encoding="utf-8")
    known = {match[1]: match[0] for match in map(_ENTRY.match, source.splitlines()) if match}
    cited = dict.fromkeys(key.strip() for group in _CITED.findall(text) for key in group.split(","))
    return "\n".join(known[key] for key in sorted(cited)) + "\n"


def _figures(run: RunView) -> str:
    names = leading(
        [path.stem for path in sorted((run.folder / "figures").glob("*.pdf"))],
        by_loss(run),
        templates={suite: str(told_row(run, suite)["template"]) for suite in by_loss(run)},
    )
    floats = []
    for name in names:
        caption = (run.folder / "figures" / f"{name}.txt").read_text(encoding="utf-8").strip()
        floats.append(
            f"\\begin{{figure}}[t]\n\\centering\n\\includegraphics{{../figures/{name}.pdf}}\n\\caption{{{escaped(caption)}}}\n"
            f"\\label{{fig:{name.replace('_', '-')}}}\n\\end{{figure}}\n"
        )
    return "\n".join(floats)
