"""Rows of a fused query-key-value module, head by head, are those that each family's attention reads."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

from taxlens.analysis.weights.units import _fused_rows

WIDTH = 3


def rows_of(layout, heads, groups):
    found = _fused_rows(SimpleNamespace(anatomy=SimpleNamespace(qkv=layout)), heads, groups, WIDTH)
    return {kind: [list(block) for block in blocks] for kind, blocks in found}


def test_a_module_cut_by_head_holds_query_key_and_value_of_each_head_together():
    """GPT-NeoX: the output is seen as [heads, 3, width]."""
    numbers = np.arange(4 * 3 * WIDTH).reshape(4, 3, WIDTH)
    found = rows_of("by_head", 4, 4)
    for place, kind in enumerate("qkv"):
        assert found[kind] == numbers[:, place].tolist()


@pytest.mark.parametrize("groups", [1, 2])
def test_a_module_cut_by_group_holds_a_groups_queries_then_its_key_and_value(groups):
    """Falcon: the output is seen as [groups, queries a group + 2, width]."""
    each = 4 // groups
    numbers = np.arange(groups * (each + 2) * WIDTH).reshape(groups, each + 2, WIDTH)
    found = rows_of("by_group", 4, groups)
    assert found["q"] == numbers[:, :each].reshape(4, WIDTH).tolist()
    assert found["k"] == numbers[:, each].tolist()
    assert found["v"] == numbers[:, each + 1].tolist()


def test_a_module_in_three_blocks_holds_all_queries_first():
    """Phi-3: queries of all heads, then keys and values of all groups."""
    numbers = np.arange((4 + 2 + 2) * WIDTH).reshape(8, WIDTH).tolist()
    assert rows_of("", 4, 2) == {"q": numbers[:4], "k": numbers[4:6], "v": numbers[6:]}
