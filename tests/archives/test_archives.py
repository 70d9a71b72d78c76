import json
from pathlib import Path

import h5py
import numpy as np
import pytest

from taxlens.activations.store.store import Store, inspect, verify

FORMATS = sorted(Path(__file__).parent.glob("format-*"))


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
@pytest.mark.parametrize("folder", FORMATS, ids=lambda path: path.name)
def test_store_of_every_released_format_still_opens(folder, dtype):
    known = json.loads((folder / "known.json").read_text())[dtype]
    verify(folder / f"{dtype}.h5")
    with Store.open(folder / f"{dtype}.h5") as store:
        assert store.n_rows == 12
        assert store.sites == ("resid_post", "head_z")
        for name, values in known.items():
            model, site = name.split()
            got = store.read(site, 0, model=model).reshape(store.n_rows, -1)[:, :2]
            np.testing.assert_array_equal(got, np.array(values, dtype=np.float32))
        rows = store.rows
        assert rows["kind"].tolist() == ["prompt", "gold", "foil"] * 4
        assert rows["label.kind/of"].tolist()[::3] == ["é0", "é1", "é2", "é3"]
        assert rows["label.odd"].tolist()[::3] == [0.0, 1.0, 0.0, 1.0]


def test_store_of_format_1_still_opens():
    assert FORMATS[0].name == "format-1"
    assert "12 in" in str(inspect(FORMATS[0] / "float32.h5"))


def test_archived_view_is_plain_hdf5():
    with h5py.File(FORMATS[0] / "bfloat16.h5") as file:
        assert file.attrs["format"] == "taxlens activations"
        assert file.attrs["format_version"] == 1
        bits = file["base/resid_post"][0]
    assert bits.dtype == np.uint16
    with Store.open(FORMATS[0] / "bfloat16.h5") as store:
        np.testing.assert_array_equal((bits.astype(np.uint32) << 16).view(np.float32), store.read("resid_post", 0))
