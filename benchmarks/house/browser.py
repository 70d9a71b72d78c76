"""The report in a real browser: `python -m benchmarks.house.browser RUN... [--out DIR] [--chromium PATH] [--axe FILE]`.

Opens a copy of each report.html headless, 390, 768 and 1440 pixels wide, light and dark, every fold open, and fails if the
page is wider than the window, anything is logged as an error or asked of the network, a picture did not load or says nothing
to a screen reader, text is smaller than 11 pixels or fainter than 4.5 to 1, a printed picture is too narrow to read, headings
skip a level, a link's target is missing, a control has no name, an id stands twice, a table lacks a caption or a scope, or the
page's own controls do not do what they say: walking with the keys, picking, sorting, filtering. With `--axe` (the file
axe.min.js of the npm package axe-core) its rules are run too. Screenshots go to `--out`.
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

WIDTHS = {"phone": 390, "tablet": 768, "desktop": 1440}
SCHEMES = {"light": 1, "dark": 0}
SMALLEST, CONTRAST, DRAWN = 11.0, 4.5, 600

_POLICY = re.compile(r'<meta http-equiv="Content-Security-Policy"[^>]*>')

PROBE = f"<script>{(Path(__file__).parent / 'browser_probe.js').read_text(encoding='utf-8')}</script>"
"""What looks at the page from the window around it."""


def look(
    report: Path,
    *,
    chromium: str,
    width: int,
    scheme: int,
    shot: Path | None = None,
    shown: int = 2400,
    axe: Path | None = None,
) -> dict:
    """Return what a browser finds on a page of some width in a colour scheme, and leave a screenshot if asked."""
    text = report.read_text(encoding="utf-8")
    if axe is not None:  # the page's policy lets no script run but its own
        tester = axe.read_text(encoding="utf-8").replace("</script", "<\\/script")
        text = _POLICY.sub("", text).replace("</body>", f"<script>{tester}</script></body>")
    page = html.escape(text, quote=True)
    style = f"width:{width}px;height:{shown}px;border:0;display:block"
    outer = f'<!doctype html><meta charset="utf-8"><body style="margin:0"><iframe style="{style}" srcdoc="{page}"></iframe>{PROBE}'
    with tempfile.TemporaryDirectory() as folder:
        wrapper = Path(folder) / "wrapper.html"
        wrapper.write_text(outer, encoding="utf-8")
        command = [
            chromium, "--headless=new", "--no-sandbox", "--disable-gpu", "--no-first-run", "--hide-scrollbars",
            "--disable-background-networking", f"--user-data-dir={folder}/profile", f"--window-size={max(width, 500)},{shown}",
            f"--blink-settings=preferredColorScheme={scheme}", "--enable-logging=stderr", "--v=0",
            f"--virtual-time-budget={60000 if axe else 8000}",
        ]  # fmt: skip
        done = subprocess.run(
            [*command, "--dump-dom", wrapper.as_uri()], capture_output=True, text=True, timeout=240, check=True
        )
        if shot is not None:
            shot.parent.mkdir(parents=True, exist_ok=True)
            subprocess.run(
                [*command, f"--screenshot={shot}", wrapper.as_uri()], capture_output=True, timeout=240, check=True
            )
    found = re.search(r'data-found="([^"]*)"', done.stdout)
    if found is None:
        raise SystemExit(f"{report}: the browser did not answer.\n{done.stderr[-2000:]}")
    console = [line for line in done.stderr.splitlines() if "CONSOLE" in line]
    return json.loads(html.unescape(found[1])) | {"console": console, "bytes": report.stat().st_size}


def faults(found: dict) -> list[str]:
    """Return what is wrong with a page, as sentences; none if nothing is."""
    touched = found.get("touched") or {}
    serious = [said for said in found.get("axe", []) if said.startswith(("serious", "critical"))]
    said = {
        f"{found['scroll']} pixels wide in a window of {found['width']}: {found['wide']}": found["scroll"]
        > found["width"]
        or bool(found["wide"]),
        f"{found['broken']} pictures did not load": found["broken"] > 0,
        f"{found['silent']} pictures say nothing to a screen reader": found["silent"] > 0,
        f"text of {found['smallest']} pixels": found["smallest"] < SMALLEST,
        f"a picture only {found['drawn']:.0f} pixels wide": found["drawn"] < DRAWN,
        f"contrast of {found['contrast']:.2f}": found["contrast"] < CONTRAST,
        f"{found['skips']} headings skip a level, {found['h1']} of level 1": found["skips"] > 0 or found["h1"] != 1,
        f"{found['lost']} links lead nowhere": found["lost"] > 0,
        "no language is declared": not found["lang"],
        f"controls without a name: {found['nameless'][:3]}": bool(found["nameless"]),
        f"ids that stand twice: {found['twice'][:3]}": bool(found["twice"]),
        "the tab key jumps": found["jumps"] > 0,
        f"{found['bare']} tables without a caption or a scope": found["bare"] > 0,
        f"{found['pictures']} pictures shown at once": found["pictures"] > 12,
        f"{found['bytes'] / 1e6:.2f} MB": found["bytes"] > 3_000_000,
        f"the console says: {found['console'][:2]}": bool(found["console"]),
        f"axe: {serious[:3]}": bool(serious),
        "the script did not run": not touched,
        "the arrow keys do not walk": touched.get("walked") is False,
        "Escape does not hide the tip": touched.get("hidden") is False,
        "a picked layer is marked nowhere": touched.get("picked") == 0,
        "what was picked stays marked": touched.get("cleared", 0) > 0,
        "a table does not sort": touched.get("sorted") is False,
        "a table does not filter": touched.get("none") is False,
    }
    return [words for words, wrong in said.items() if wrong]


def main() -> None:
    """Look at every report and say what is wrong."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("runs", nargs="+", type=Path)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--axe", type=Path)
    parser.add_argument(
        "--chromium", default=shutil.which("chromium") or shutil.which("chromium-browser") or "google-chrome"
    )
    chosen = parser.parse_args()
    wrong = 0
    for run in chosen.runs:
        report = run / "report.html"
        print(f"{report}  {report.stat().st_size / 1e6:.2f} MB")
        for device, width in WIDTHS.items():
            for scheme, code in SCHEMES.items():
                shot = chosen.out / f"{run.name}-{device}-{scheme}.png" if chosen.out else None
                found = look(report, chromium=chosen.chromium, width=width, scheme=code, shot=shot, axe=chosen.axe)
                said = faults(found)
                wrong += len(said)
                numbers = (
                    f"{found['pictures']} pictures shown, {found['images']} in all, {found['stops']} stops of the tab key, smallest text "
                    f"{found['smallest']:.1f} px, contrast {found['contrast']:.1f}, {found['height']} px long, {found.get('touched')}"
                )
                if chosen.axe:
                    numbers += f", axe {found['axe'] or 'finds nothing'}"
                print(f"  {device:8} {scheme:6} {'; '.join(said) if said else 'in order'}  ({numbers})")
    sys.exit(3 if wrong else 0)


if __name__ == "__main__":
    main()
