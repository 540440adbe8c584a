"""Groups of rows: blocks are found, and give the same sums as ids."""

from __future__ import annotations

import pytest
import torch

from rvpo.core.groups import Groups, block_size


@pytest.mark.parametrize(
    ("ids", "size"),
    [
        ([4, 4, 2, 2, 7, 7], 2),
        ([4, 4, 2, 2, 4, 4], None),  # a group in two places
        ([0, 0, 0, 1, 1, 1, 1, 1, 1], None),
        ([0, 1, 0, 1], None),
        ([0, 1, 2], 1),
        ([5, 5], 2),
        ([], None),
    ],
)
def test_block_size(ids: list[int], size: int | None):
    assert block_size(torch.tensor(ids, dtype=torch.int64)) == size


@pytest.mark.parametrize("ids", [[4, 4, 2, 2, 7, 7], [4, 2, 4, 2, 7, 7], [5, 5, 5, 5, 5, 5]])
def test_blocks_give_the_sums_of_ids(ids: list[int]):
    x = torch.rand(6, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    laid, by_id = Groups.in_blocks(torch.tensor(ids)), Groups.from_ids(torch.tensor(ids), 6)
    for take in ("sum", "min", "max"):
        ours, theirs = (groups.broadcast(getattr(groups, take)(x)) for groups in (laid, by_id))
        torch.testing.assert_close(ours, theirs, rtol=1e-14, atol=0)
