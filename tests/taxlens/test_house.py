"""The house keeps its rules: one import name, light start, folders that read in order."""

import ast
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
FOLDERS = ("core", "activations", "probes", "analysis")
PLACES = (*FOLDERS, "taxlens", "tests", "benchmarks", "examples")


def sources():
    for place in PLACES:
        for path in (ROOT / place).rglob("*.py"):
            if path.relative_to(ROOT).parts[:2] not in {("taxlens", name) for name in FOLDERS}:
                yield path


def imported(path):
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            yield node.module


def test_no_file_imports_a_folder_by_its_bare_name():
    bare = [
        f"{path.relative_to(ROOT)}: {name}"
        for path in sources()
        for name in imported(path)
        if name.split(".")[0] in FOLDERS
    ]
    assert not bare


def test_no_file_imports_relatively():
    relative = [
        path.relative_to(ROOT)
        for path in sources()
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.ImportFrom) and node.level
    ]
    assert not relative


def loaded_after(code):
    names = ("torch", "transformers", "transformer_lens", "pandas", "matplotlib", "scipy")
    script = f"import sys\n{code}\nprint([n for n in {names!r} if n in sys.modules])"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    return done.stdout.strip().splitlines()[-1]


def test_help_imports_no_torch():
    for command in ([], ["run"], ["tax"], ["restore"]):
        assert loaded_after(f"from taxlens.cli.app import run_app; run_app({[*command, '--help']!r})") == "[]"


def test_schema_imports_no_torch():
    assert loaded_after("from taxlens.cli.app import run_app; run_app(['schema'])") == "[]"


def test_import_taxlens_loads_nothing_heavy():
    assert loaded_after("import taxlens; dir(taxlens)") == "[]"


def test_the_face_has_at_most_twenty_names_and_each_resolves():
    import taxlens

    assert len(taxlens.__all__) <= 20
    assert all(getattr(taxlens, name) is not None for name in taxlens.__all__)


def test_an_unknown_name_of_the_face_lists_what_there_is():
    import pytest

    import taxlens

    with pytest.raises(AttributeError, match="load_pair"):
        taxlens.nothing_of_that_name  # noqa: B018
