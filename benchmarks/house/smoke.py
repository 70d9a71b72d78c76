"""Build the sdist, the wheel from that sdist, install it in an empty environment, run every command's --help and the demo.

Run: python -m benchmarks.house.smoke
"""

from __future__ import annotations

import subprocess
import sys
import tarfile
import tempfile
import venv
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def call(*command: object, cwd: Path) -> str:
    """Run a command, show it, and return what it printed; a failure ends the check."""
    words = [str(word) for word in command]
    print("$", " ".join(words), flush=True)
    done = subprocess.run(words, cwd=cwd, capture_output=True, text=True, check=False)
    if done.returncode:
        print(done.stdout[-4000:], done.stderr[-4000:], sep="\n")
        sys.exit(f"failed with {done.returncode}: {' '.join(words)}")
    return done.stdout


def built_wheel(folder: Path) -> Path:
    """Return the wheel built from the sdist (not from the working tree)."""
    call(sys.executable, "-m", "build", "--sdist", "--outdir", folder, ROOT, cwd=folder)
    sdist = next(folder.glob("taxlens-*.tar.gz"))
    with tarfile.open(sdist) as archive:
        archive.extractall(folder / "source", filter="data")
    source = next((folder / "source").iterdir())
    call(sys.executable, "-m", "build", "--wheel", "--outdir", folder, source, cwd=folder)
    return next(folder.glob("taxlens-*.whl"))


def main() -> None:
    """Run the smoke test."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        wheel = built_wheel(folder)
        print(f"{wheel.name}: {wheel.stat().st_size / 1e6:.1f} MB")
        venv.create(folder / "empty", with_pip=True)
        python = folder / "empty" / "bin" / "python"
        constraints = ROOT / "constraints.txt"
        call(python, "-m", "pip", "install", "-q", "-c", constraints, "torch==2.13.0", cwd=folder)
        call(python, "-m", "pip", "install", "-q", "-c", constraints, wheel, cwd=folder)
        taxlens = folder / "empty" / "bin" / "taxlens"
        listed = call(taxlens, "--help", cwd=folder).split("Commands:")[1].splitlines()
        commands = [line.split()[0] for line in listed if line.startswith("  ") and line.strip() and line[2] != " "]
        for command in commands:
            call(taxlens, command, "--help", cwd=folder)
        print(call(taxlens, "demo", "--out", folder / "run", cwd=folder))
        assert (folder / "run" / "report.html").is_file()
        print(f"smoke test passed: {len(commands)} commands")


if __name__ == "__main__":
    main()
