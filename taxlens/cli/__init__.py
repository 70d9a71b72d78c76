"""The command line. Results go to standard output, everything else to standard error."""

from __future__ import annotations

import sys


def main() -> None:
    """Run the command line and exit with 0 done, 1 failed, 2 usage, 3 a check failed, 130 interrupted."""
    from taxlens.cli.app import run_app

    sys.exit(run_app(sys.argv[1:]))
