"""Write the conformance table of docs/similarity.md: every measure against other codes, in float64.

python -m benchmarks.similarity.conformance docs/similarity.md
"""

from __future__ import annotations

import sys
import warnings
from pathlib import Path

from benchmarks.similarity.table import DEVIATIONS, REFERENCES, rows_of_a_pair
from taxlens.probes.similarity.accumulation import gather
from taxlens.probes.similarity.similarity import similarity

BEGIN, END = "<!-- conformance: begin -->", "<!-- conformance: end -->"


def conformance_table() -> str:
    """Return the two tables as Markdown."""
    X, Y, fold = rows_of_a_pair()
    names = list(dict.fromkeys(reference.measure for reference in REFERENCES))
    own = {row.measure: row.value for row in similarity(gather((X, Y), keep=len(X)), measures=names).rows}
    lines = ["| measure | taxlens | reference | relative difference |", "|---|---|---|---|"]
    for reference in REFERENCES:
        value = own[reference.measure]
        difference = abs(reference.value(X, Y, fold) - value) / abs(value)
        said = "< 1e-12" if difference < 1e-12 else f"{difference:.0e}"
        lines.append(f"| `{reference.measure}` | {value:.10f} | {reference.name} | {said} |")
    lines += ["", "| measure | taxlens | published code | its value | what differs |", "|---|---|---|---|---|"]
    for measure, name, reason, function in DEVIATIONS:
        value = function(X, Y)
        lines.append(f"| `{measure}` | {own[measure]:.4f} | {name} | {value:.4f} | {reason} |")
    return "\n".join(lines)


def main(path: str) -> None:
    """Replace what stands between the two marks of the page."""
    page = Path(path)
    text = page.read_text(encoding="utf-8")
    before, rest = text.split(BEGIN)
    after = rest.split(END)[1]
    page.write_text(f"{before}{BEGIN}\n{conformance_table()}\n{END}{after}", encoding="utf-8")


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    main(sys.argv[1])
