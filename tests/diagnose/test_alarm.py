"""The alarm of a training: what it calls and what not, its intervals, its memory, and its state."""

from __future__ import annotations

import io
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

import rvpo
from rvpo.arrays.groups import Partition
from rvpo.arrays.rules import Cells, soft_min
from rvpo.core import Channels
from rvpo.core.groups import Groups
from rvpo.diagnose import alarm as module
from rvpo.diagnose.alarm import Alarm, Generation
from rvpo.diagnose.errors import correlation_errors, pulls_with_errors
from rvpo.diagnose.estimates import pulls, resampled, resampled_pulls
from rvpo.diagnose.group_sums import SLOT, SLOTS, cell_sums, centred

G, P = 8, 8
NAMES = ("words", "format", "safe")


def generation(
    rewards: Tensor, advantages: Tensor, names: tuple[str, ...] = NAMES, weights: Tensor | None = None
) -> Generation:
    groups = Groups.from_blocks(len(rewards), G, rewards.device)
    return Generation(
        rewards, advantages, groups, Channels.columns(names), torch.ones(len(names)) if weights is None else weights
    )


def rewards_of(seed: int, step: int = 0, levels: tuple[float, ...] = (0.5, 0.5, 0.5)) -> Tensor:
    """Binary rewards (64, 3), met as often as ``levels`` say."""
    draw = torch.rand(P * G, len(levels), generator=torch.Generator().manual_seed(1000 * seed + step))
    return (draw < torch.tensor(levels)).double()


def weighed(rewards: Tensor, *weights: float) -> Tensor:
    return rvpo.advantages(rewards, num_generations=G, method="gdpo", weights=list(weights)).advantages


def run(alarm: Alarm, steps: int, *weights: float, falls: float = 0.0) -> list[module.Call]:
    """Train for ``steps`` generations with these weights; ``format`` falls by so much in all."""
    calls = []
    for step in range(steps):
        rewards = rewards_of(0, step, (0.5, 0.6 - falls * step / steps, 0.5))
        calls += alarm.add(generation(rewards, weighed(rewards, *weights)))
    return calls


@pytest.mark.parametrize("weight", [0.0, 0.05, 0.1])
def test_a_reward_that_hardly_counts_is_called_once(weight: float):
    alarm = Alarm()
    (call,) = run(alarm, 20, 1.0, weight, 1.0)
    assert call.name == "format"
    assert call.generation >= module.RANKED / P
    assert call.rule.startswith("ignored: it moves the advantage")
    assert alarm.called == {"format": call.generation}
    assert alarm.calling == {"words": False, "format": True, "safe": False}


@pytest.mark.parametrize("weight", [0.5, 1.0, 3.0])
def test_a_reward_that_counts_is_not_called(weight: float):
    alarm = Alarm()
    assert run(alarm, 30, 1.0, weight, 1.0) == []
    assert not any(alarm.calling.values())
    assert {judged.verdict for judged in alarm.verdicts().values()} == {"healthy"}


def test_an_outvoted_reward_is_called_although_it_counts_in_full():
    """Five copies of the opposite of ``format`` outvote it."""
    names = ("format", *(f"other_{i}" for i in range(5)))
    alarm, calls = Alarm(), []
    for step in range(20):
        draw = torch.rand(P * G, 6, generator=torch.Generator().manual_seed(step))
        first = (draw[:, :1] < 0.5).double()
        others = torch.where(draw[:, 1:] < 0.6, 1 - first, (draw[:, 1:] < 0.8).double())
        rewards = torch.cat([first, others], 1)
        calls += alarm.add(generation(rewards, weighed(rewards, *[1.0] * 6), names))
    (call,) = calls
    assert call.name == "format"
    assert "outvoted: its correlation with the advantage is -" in call.rule
    assert "negatively correlated with 'other_" in call.rule


@pytest.mark.parametrize("case", ["at its best", "rises", "monitored"])
def test_neglect_that_costs_nothing_is_not_called(case: str):
    alarm, weights = Alarm(), torch.tensor([1.0, 0.0 if case == "monitored" else 1.0, 1.0])
    for step in range(30):
        level = {"at its best": 0.93, "rises": min(0.1 + step / 12, 0.85), "monitored": 0.5}[case]
        rewards = rewards_of(1, step, (0.5, level, 0.5))
        assert alarm.add(generation(rewards, weighed(rewards, 1.0, 0.0, 1.0), weights=weights)) == []
    assert alarm.verdicts()["format"].verdict == "neglected"  # as diagnose would say
    assert alarm.calling == {"words": False, "safe": False} | ({} if case == "monitored" else {"format": False})


def test_a_call_ends_with_the_neglect_and_is_not_repeated():
    alarm, seen = Alarm(), []
    for step in range(200):
        rewards = rewards_of(2, step)
        calls = alarm.add(generation(rewards, weighed(rewards, 1.0, 0.0 if step < 20 or step >= 120 else 1.0, 1.0)))
        seen.append((alarm.calling["format"], [call.name for call in calls]))
    on = [step for step, (calling, _) in enumerate(seen) if calling]
    assert on[0] < 20
    assert not any(60 < step < 120 for step in on)
    assert on[-1] == 199
    assert [names for _, names in seen if names] == [["format"]]


def test_it_looks_at_the_last_groups_only():
    alarm = Alarm()
    sizes = []
    for step in range(100):
        rewards = rewards_of(3, step)
        alarm.add(generation(rewards, weighed(rewards, 1.0, 1.0, 1.0)))
        sizes.append(sum(array.nbytes for array in alarm.state().values()))
    assert alarm.groups == module.GROUPS == 64 * P
    # The watch for divergence still adds blocks of a few numbers, up to a fixed count.
    assert sizes[70] == pytest.approx(sizes[-1], rel=0.05)


def test_a_large_generation_and_many_channels_are_cut():
    names = tuple(f"c{i}" for i in range(300))
    rewards = torch.rand(200 * G, 3, dtype=torch.float64)
    alarm = Alarm()
    alarm.add(generation(rewards, weighed(rewards, 1.0, 1.0, 1.0)))
    assert alarm.groups == module.OF_ONE
    wide = Alarm()
    rewards = torch.rand(P * G, 300, dtype=torch.float64)
    for _ in range(2):
        wide.add(generation(rewards, rewards.mean(1), names))
    assert len(wide.calling) == module.MOST


def test_channels_come_and_go():
    """Each generation has another second channel, some of weight 0; those that left the window are forgotten."""
    alarm = Alarm()
    for step in range(200):
        rewards, weights = rewards_of(4, step), torch.tensor([1.0, float(step % 4 > 0), 1.0])
        batch = generation(rewards, weighed(rewards, 1.0, 1.0, 1.0), ("words", f"label_{step}", "safe"), weights)
        alarm.add(batch)
    assert len(alarm.calling) == 2 + 64 - 16
    assert "label_199" in alarm.calling
    assert not alarm.calling.keys() & {"label_100", "label_196"}
    assert len(alarm.state()["plain"].item()) < 60_000


def test_missing_rewards_and_advantages_do_no_harm():
    alarm = Alarm()
    for step in range(50):
        rewards = rewards_of(5, step)
        advantages = weighed(rewards, 1.0, 0.0, 1.0)
        rewards[step % 3 :: 3, 1] = torch.nan
        rewards[:, 2] = torch.nan
        advantages[5] = torch.nan
        alarm.add(generation(rewards, advantages))
    assert list(alarm.called) == ["format"]
    assert alarm.verdicts()["safe"].verdict == "dead"


def test_state_goes_on_to_the_last_bit():
    whole, parts = Alarm(), Alarm()
    for step in range(30):
        file = io.BytesIO()
        np.savez(file, **parts.state())
        file.seek(0)
        parts = Alarm()
        with np.load(file, allow_pickle=False) as arrays:
            parts.load_state(arrays)
        rewards = rewards_of(6, step)
        batch = generation(rewards, weighed(rewards, 1.0, 0.1, 1.0))
        assert parts.add(batch) == whole.add(batch)
    assert parts.called == whole.called != {}
    assert parts.verdicts() == whole.verdicts()


# --- intervals without a bootstrap ------------------------------------------------------------------------------------


def drawn(seed: int, groups: int, linear: bool) -> tuple[np.ndarray, np.ndarray, np.ndarray, Partition]:
    generator = torch.Generator().manual_seed(seed)
    rewards = torch.randn(groups * G, 4, generator=generator, dtype=torch.float64)
    rewards[:, 1] -= 0.5 * rewards[:, 0]
    rewards[:, 2] = (rewards[:, 2] > 0.5).double()
    noise = 0.0 if linear else 0.7
    result = rvpo.advantages(rewards, num_generations=G, method="gdpo", weights=[1.0, 0.5, 0.2, 1.0], eps=1e-12)
    advantages = result.advantages + noise * torch.randn(groups * G, generator=generator, dtype=torch.float64)
    partition, used = Partition.of_ids(np.arange(groups * G) // G), advantages.numpy()
    shares = soft_min(Cells(rewards.numpy(), partition), 1.0, eps=1e-12)
    assert shares.z == pytest.approx(result.z.numpy(), rel=1e-12, abs=1e-12)
    cells = cell_sums(shares, partition, used, 0.5, single=False)
    table = np.stack([cells.get(name, np.zeros_like(cells["cells"])) for name in SLOTS], -1)
    return table, np.where(shares.live, shares.z, 0.0), centred(used, partition), partition


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_errors_agree_with_the_bootstrap(seed: int):
    """The standard deviation of 2,000 resamples, to within a tenth: 150 groups leave the bootstrap that unsure."""
    table, z, a, groups = drawn(seed, 150, linear=False)
    pairs = np.stack(
        [
            np.concatenate([part, own[:, None]], 1).T @ np.concatenate([part, own[:, None]], 1)
            for part, own in zip(z.reshape(-1, G, 4), a.reshape(-1, G), strict=True)
        ]
    )[:, :-1]
    alive = np.ones(4, dtype=bool)
    draws = resampled(table, 2000, seed)
    assert draws is not None
    assert correlation_errors(table) == pytest.approx(draws["correlation"].std(0), rel=0.1)
    pull, errors = pulls_with_errors(z, a, groups.index, alive)
    assert pull == pytest.approx(pulls(pairs.sum(0), alive), rel=1e-9)
    assert errors == pytest.approx(resampled_pulls(pairs, alive, 2000, seed).std(0), rel=0.15)


def test_a_linear_rule_has_no_error():
    _, z, a, groups = drawn(0, 40, linear=True)
    pull, errors = pulls_with_errors(z, a, groups.index, np.ones(4, dtype=bool))
    assert pull == pytest.approx(np.array([1.0, 0.5, 0.2, 1.0]) / 0.675, rel=1e-4)
    assert errors.max() < 1e-4


def test_nothing_is_said_of_too_few_rows():
    """Five rows of one group leave one free row for three channels."""
    _, z, a, groups = drawn(0, 1, linear=False)
    for array in pulls_with_errors(z[:5], a[:5], groups.index[:5], np.ones(4, dtype=bool)):
        assert np.isnan(array).all()


def test_rewards_that_never_differ_have_no_pull():
    z = np.zeros((80, 2))
    z[:, 0] = np.tile([1.0, -1.0], 40)
    for a, expected in ((z[:, 0], [1.0, np.nan]), (np.zeros(80), [0.0, np.nan])):
        pull, _ = pulls_with_errors(z, a, np.repeat(np.arange(10), 8), np.array([True, False]))
        assert pull == pytest.approx(expected, nan_ok=True, abs=1e-5)
    assert SLOT["az"] == SLOTS.index("az")


def test_it_needs_no_extra():
    """The extra ``trl`` brings NumPy; SciPy and PyArrow belong to ``report``."""
    code = (
        "import sys\nfor name in ('scipy', 'plotly', 'pyarrow'): sys.modules[name] = None\n"
        "import rvpo.diagnose.alarm, torch\nfrom rvpo.diagnose.alarm import *\n"
        "x = torch.rand(64, 2).double()\n"
        "g = Groups.from_blocks(64, 8, x.device)\n"
        "print(Alarm().add(Generation(x, x[:, 0], g, Channels.columns(['a', 'b']), torch.ones(2))))"
    )
    environment = os.environ | {"PYTHONPATH": str(Path(rvpo.__file__).parents[1])}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, env=environment)
    assert (done.stdout.strip(), done.returncode) == ("[]", 0), done.stderr


@pytest.mark.parametrize("groups", [8, 9, 12, 32, 512])
def test_the_verdicts_of_few_groups_have_the_wider_intervals_of_student_s_t(groups: int):
    from rvpo.statistics.distributions import t_quantile

    assert module.wider(module.USUAL, groups - 1) == pytest.approx(t_quantile(0.975, groups - 1), abs=0.01)
