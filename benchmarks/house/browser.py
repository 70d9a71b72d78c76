"""The report in a real browser: `python -m benchmarks.house.browser RUN... [--out DIR] [--chromium PATH]`.

Opens a copy of each report.html headless, 1280 and 390 pixels wide, light and dark, every fold open, and fails if the
page is wider than the window, a picture did not load or says nothing to a screen reader, text is smaller than 11
pixels or fainter than 4.5 to 1, a picture is too narrow to read, headings skip a level, or a link's target is missing. Screenshots go to `--out`.
"""

from __future__ import annotations

import argparse
import html
import json
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

WIDTHS = {"desktop": 1280, "phone": 390}
SCHEMES = {"light": 1, "dark": 0}
SMALLEST, CONTRAST, DRAWN = 11.0, 4.5, 600

PROBE = """
<script>
const luminance = c => { const v = c.match(/[\\d.]+/g).slice(0, 3).map(x => x / 255)
  .map(x => x <= .03928 ? x / 12.92 : ((x + .055) / 1.055) ** 2.4); return .2126 * v[0] + .7152 * v[1] + .0722 * v[2]; };
const behind = e => { for (; e; e = e.parentElement) { const c = getComputedStyle(e).backgroundColor;
  if (c !== 'rgba(0, 0, 0, 0)' && c !== 'transparent') return c; } return 'rgb(255, 255, 255)'; };
addEventListener('load', () => setTimeout(() => {
  const frame = document.querySelector('iframe'), page = frame.contentDocument, root = page.documentElement;
  page.querySelectorAll('details').forEach(d => d.open = true);
  const texts = [...page.querySelectorAll('main *')].filter(e => [...e.childNodes].some(n => n.nodeType === 3 && n.data.trim()));
  const sizes = texts.map(e => parseFloat(getComputedStyle(e).fontSize));
  const ratios = texts.map(e => { const a = luminance(getComputedStyle(e).color), b = luminance(behind(e));
    return (Math.max(a, b) + .05) / (Math.min(a, b) + .05); });
  const images = [...page.images], levels = [...page.querySelectorAll('h1, h2, h3')].map(h => +h.tagName[1]);
  const wide = [...page.querySelectorAll('main *')].filter(e => !e.closest('.wide, .pane, pre, .skip')
    && e.getBoundingClientRect().right > root.clientWidth + 1);
  const found = { width: root.clientWidth, scroll: root.scrollWidth, wide: wide.slice(0, 3).map(e => e.outerHTML.slice(0, 120)),
    images: images.length, broken: images.filter(i => !i.naturalWidth).length, silent: images.filter(i => !i.alt.trim()).length,
    smallest: Math.min(...sizes), contrast: Math.min(...ratios),
    drawn: Math.min(...images.map(i => i.getBoundingClientRect().width)), skips: levels.filter((l, i) => i && l > levels[i - 1] + 1).length,
    h1: levels.filter(l => l === 1).length, lang: root.lang, first: page.body.innerText.trim().slice(0, 200), height: root.scrollHeight,
    stops: page.querySelectorAll('a[href], summary, [tabindex="0"]').length,
    lost: [...page.querySelectorAll('a[href^="#"]')].filter(a => !page.getElementById(a.hash.slice(1))).length };
  document.body.setAttribute('data-found', JSON.stringify(found));
}, 300));
</script>
"""


def look(report: Path, *, chromium: str, width: int, scheme: int, shot: Path | None = None, shown: int = 2400) -> dict:
    """Return what a browser finds on a page of some width in a colour scheme, and leave a screenshot if asked."""
    page = html.escape(report.read_text(encoding="utf-8"), quote=True)
    style = f"width:{width}px;height:{shown}px;border:0;display:block"
    text = f'<!doctype html><meta charset="utf-8"><body style="margin:0"><iframe style="{style}" srcdoc="{page}"></iframe>{PROBE}'
    with tempfile.TemporaryDirectory() as folder:
        wrapper = Path(folder) / "wrapper.html"
        wrapper.write_text(text, encoding="utf-8")
        command = [
            chromium, "--headless=new", "--no-sandbox", "--disable-gpu", "--no-first-run", "--hide-scrollbars",
            "--disable-background-networking", f"--user-data-dir={folder}/profile", f"--window-size={max(width, 500)},{shown}",
            f"--blink-settings=preferredColorScheme={scheme}", "--virtual-time-budget=8000",
        ]  # fmt: skip
        done = subprocess.run(
            [*command, "--dump-dom", wrapper.as_uri()], capture_output=True, text=True, timeout=120, check=True
        )
        if shot is not None:
            shot.parent.mkdir(parents=True, exist_ok=True)
            subprocess.run(
                [*command, f"--screenshot={shot}", wrapper.as_uri()], capture_output=True, timeout=120, check=True
            )
    found = re.search(r'data-found="([^"]*)"', done.stdout)
    if found is None:
        raise SystemExit(f"{report}: the browser did not answer.\n{done.stderr[-2000:]}")
    return json.loads(html.unescape(found[1]))


def faults(found: dict) -> list[str]:
    """Return what is wrong with a page, as sentences; none if nothing is."""
    said = {
        f"{found['scroll']} pixels wide in a window of {found['width']}: {found['wide']}": found["scroll"]
        > found["width"],
        f"{found['broken']} pictures did not load": found["broken"] > 0,
        f"{found['silent']} pictures say nothing to a screen reader": found["silent"] > 0,
        f"text of {found['smallest']} pixels": found["smallest"] < SMALLEST,
        f"a picture only {found['drawn']:.0f} pixels wide": found["drawn"] < DRAWN,
        f"contrast of {found['contrast']:.2f}": found["contrast"] < CONTRAST,
        f"{found['skips']} headings skip a level, {found['h1']} of level 1": found["skips"] > 0 or found["h1"] != 1,
        f"{found['lost']} links lead nowhere": found["lost"] > 0,
        "no language is declared": not found["lang"],
    }
    return [words for words, wrong in said.items() if wrong]


def main() -> None:
    """Look at every report and say what is wrong."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("runs", nargs="+", type=Path)
    parser.add_argument("--out", type=Path)
    parser.add_argument(
        "--chromium", default=shutil.which("chromium") or shutil.which("chromium-browser") or "google-chrome"
    )
    chosen = parser.parse_args()
    wrong = 0
    for run in chosen.runs:
        report = run / "report.html"
        print(f"{report}  {report.stat().st_size / 1e6:.2f} MB")
        wrong += report.stat().st_size > 3_000_000
        for device, width in WIDTHS.items():
            for scheme, code in SCHEMES.items():
                shot = chosen.out / f"{run.name}-{device}-{scheme}.png" if chosen.out else None
                found = look(report, chromium=chosen.chromium, width=width, scheme=code, shot=shot)
                said = faults(found)
                wrong += len(said)
                numbers = (
                    f"{found['images']} pictures, {found['stops']} stops of the tab key, smallest text {found['smallest']:.1f} px, "
                    f"contrast {found['contrast']:.1f}, {found['height']} px long"
                )
                print(f"  {device:8} {scheme:6} {'; '.join(said) if said else 'in order'}  ({numbers})")
    sys.exit(3 if wrong else 0)


if __name__ == "__main__":
    main()
