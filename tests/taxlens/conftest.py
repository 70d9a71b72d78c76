"""Tables for tests that are about a few columns: the others are filled, so that the run holds whole tables."""

import pandas as pd
import pytest

from taxlens.stages import TABLES

FILLED = {str: "x", float: 0.0, int: 0, bool: True}


def filled(name, frame):
    table = TABLES[name]
    missing = {c: table.columns[c] for c in table.required if c not in frame}
    made = {c: None if column.blank else FILLED[column.type] for c, column in missing.items()}
    if "item" in made and "item" in table.key:
        made["item"] = [f"i{n}" for n in range(len(frame))]
    return frame.assign(
        **{c: pd.Series(v, index=frame.index, dtype=object) if v is None else v for c, v in made.items()}
    )


@pytest.fixture(scope="session")
def put():
    def write(run, name, frame):
        run.write(TABLES[name], filled(name, frame))

    return write


@pytest.fixture(scope="session")
def take_away():
    """Make a run one that never had a table."""

    def remove(run, name):
        (run.folder / "tables" / f"{name}.csv").unlink()
        for entry in run.manifest["stages"].values():
            entry["outputs"].pop(f"tables/{name}.csv", None)
        run.save()

    return remove
