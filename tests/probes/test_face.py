import subprocess
import sys

import pytest

import taxlens.probes


def test_every_public_name_is_found_in_its_home():
    for name in taxlens.probes.__all__:
        assert getattr(taxlens.probes, name).__module__.startswith("taxlens.probes.")


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="has no attribute 'probe_pairs'"):
        _ = taxlens.probes.probe_pairs


def test_importing_the_folder_imports_nothing_heavy():
    code = "import taxlens.probes, sys; print([m for m in ('torch', 'scipy', 'pandas', 'numpy') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
