"""The named channels of a run: their ranges, pooling and running means, by hand."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest
import torch
from torch import Tensor

from rvpo.core import AdvantageConfig, Channels, compute
from rvpo.core.channels import check_ranges
from rvpo.core.methods.lagrangian import Lagrangian
from rvpo.core.ragged import Family, Score, assemble
from rvpo.core.running_mean import RunningMean
from rvpo.core.state import plain
from rvpo.errors import ConfigError

NAN = math.nan


def tensor(values: Any) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


def same(actual: Tensor, expected: Any) -> None:
    torch.testing.assert_close(actual, tensor(expected), rtol=0, atol=1e-15, equal_nan=True)


# --- ranges -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("entry", [(0,), (0, 1, 2), (1, 1), (2, 1), (0, math.inf), (NAN, 1), "01", 3, (0, True)])
def test_ranges_that_are_none(entry: Any):
    with pytest.raises(ConfigError, match=r"expected a pair of finite numbers, the lowest and the highest"):
        Channels.columns(["a"], [entry])


def test_ranges_are_one_a_channel():
    assert check_ranges(None, 2) == (None, None)
    assert check_ranges([[0, 2], None], 2) == ((0.0, 2.0), None)
    with pytest.raises(ConfigError, match="1 ranges for 2 channels"):
        check_ranges([None], 2)


# --- pooling ----------------------------------------------------------------------------------------------------------


def test_pool_mean_and_spread_by_hand():
    """Two cells of the first row are one channel; the third channel has no cell."""
    channels = Channels(("a", "b", "c"), torch.tensor([[0, 0, 1], [1, 0, 0]]), (None, None, None))
    x = tensor([[1.0, 2.0, 4.0], [8.0, NAN, 16.0]])
    same(channels.pool(x.nan_to_num(nan=0.0)), [[3.0, 4.0, 0.0], [16.0, 8.0, 0.0]])
    same(channels.mean(x), [(1 + 2 + 16) / 3, (4 + 8) / 2, NAN])
    same(channels.broadcast(tensor([0.1, 0.2, 0.3])), [[0.1, 0.1, 0.2], [0.2, 0.1, 0.1]])


def test_columns_are_the_simple_case():
    channels = Channels.columns(["a", "b"])
    x = tensor([[1.0, NAN], [2.0, NAN]])
    same(channels.pool(x.nan_to_num(nan=0.0)), [[1.0, 0.0], [2.0, 0.0]])
    same(channels.mean(x), [1.5, NAN])
    same(channels.broadcast(tensor([5.0, 6.0])), [5.0, 6.0])


# --- running means ----------------------------------------------------------------------------------------------------


def test_running_mean_by_hand():
    """Horizon 4: the past keeps 3/4. The first batch counts in full, an absent channel does not fade."""
    running = RunningMean.empty(1).update(["a", "b"], tensor([1.0, 0.5]), 4.0)
    same(running.mean(["a", "b"]), [1.0, 0.5])
    running = running.update(["b", "c"], tensor([0.0, NAN]), 4.0)
    same(running.mean(["c", "a", "b"]), [NAN, 1.0, 0.5 * 0.75 / 1.75])
    running = running.update(["a"], tensor([0.0]), 4.0)
    same(running.mean(["a", "b", "unknown"]), [0.75 / 1.75, 0.375 / 1.75, NAN])


def test_running_mean_of_pairs_by_hand():
    """b is away in the second batch: its own mean stays, and the pair's past fades by sqrt(3/4) alone."""
    first = tensor([[4.0, 2.0], [2.0, 9.0]])
    running = RunningMean.empty(2).update(["a", "b"], first, 4.0)
    same(running.mean(["b", "a"]), [[9.0, 2.0], [2.0, 4.0]])
    running = running.update(["a", "b"], tensor([[1.0, NAN], [NAN, NAN]]), 4.0)
    a = (0.75 * 4 + 1) / 1.75
    ab = math.sqrt(0.75) * 0.25 * 2 / math.sqrt((0.75 * 0.25 + 0.25) * 0.25)
    torch.testing.assert_close(running.mean(["a", "b"]), tensor([[a, ab], [ab, 9.0]]), rtol=1e-14, atol=0)


def test_no_memory():
    running = RunningMean.empty(1)
    for value in (0.25, NAN, 0.75):
        running = running.update(["a"], tensor([value]), 1.0)
    same(running.mean(["a"]), [0.75])


@pytest.mark.parametrize("dimensions", [1, 2])
def test_plain_data_keeps_every_bit(dimensions: int):
    running, generator = RunningMean.empty(dimensions), torch.Generator().manual_seed(0)
    for names in ("ab", "bcd", "a"):
        value = torch.randn((len(names),) * dimensions, generator=generator, dtype=torch.float64)
        running = running.update(names, value, 3.0)
    again = RunningMean.from_state(json.loads(json.dumps(plain(running.to_state()))), dimensions)
    assert again.names == running.names == tuple("abcd")
    assert torch.equal(again.total, running.total)
    assert torch.equal(again.weight, running.weight)
    assert RunningMean.from_state(None, dimensions).names == ()


# --- which channel of the run a score is ------------------------------------------------------------------------------


def test_scores_belong_to_their_first_label_or_their_family():
    def score(channel: str, *labels: str) -> Score:
        return Score(channel, 1.0, labels=labels)

    rows = [[score("x", "pitfall", "axis"), score("y")], [score("x", "pitfall"), score("y")]]
    rows += [[score("u", "essential"), score("v", "pitfall"), score("w", "essential")]] * 2
    ranges = [(-2.0, 2.0), None]
    table = assemble(torch.zeros(4, 2), ["f", "r"], [Family("r", rows)], num_generations=2, ranges=ranges)
    assert table.channels.names == ("f", "r/pitfall", "r", "r/essential")
    assert table.channels.ranges == ((-2.0, 2.0), None, None, None)  # learned, as that of any reward
    index = torch.where(table.applies, table.channels.index, -1)
    assert index.tolist() == [[0, 1, 2, -1]] * 2 + [[0, 3, 1, 3]] * 2


def test_a_batch_without_any_rubric_has_a_channel_of_nobody():
    families = [Family("r", [[], []])]
    table = assemble(torch.zeros(2, 1), ["r"], families, num_generations=2)
    assert not table.applies.any()
    for method in ("lift", "ctwa", "tchebycheff"):
        out = compute(
            table.values,
            AdvantageConfig(method),
            num_generations=2,
            weights=table.weights,
            applies=table.applies,
            channels=table.channels,
        )
        assert not out.advantages.any()
        again = compute(tensor([[0.0], [1.0]]), AdvantageConfig(method), num_generations=2, state=out.state)
        assert again.advantages.isfinite().all()


# --- a constraint's channel -------------------------------------------------------------------------------------------


def test_a_threshold_for_an_unknown_column_is_refused():
    config = AdvantageConfig(Lagrangian({"forma": 0.9}))
    channels = Channels.columns(["format", "length"])
    with pytest.raises(ConfigError, match="thresholds names the channel 'forma'; expected one of format, length"):
        compute(torch.rand(4, 2), config, num_generations=4, channels=channels)


def test_a_threshold_waits_for_a_channel_that_a_ragged_batch_lacks():
    config = AdvantageConfig(Lagrangian({"b": 1.0}, rate=1.0))
    state = None
    for name, multiplier in (("a", None), ("b", 0.5), ("a", 0.5), ("b", 1.0)):
        channels = Channels((name,), torch.zeros(2, 1, dtype=torch.int64), (None,))
        out = compute(tensor([[0.0], [1.0]]), config, num_generations=2, channels=channels, state=state)
        state = out.state
        assert state["multipliers"].get("b") == multiplier
