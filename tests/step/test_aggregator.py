"""``rvpo.Aggregator``: every kind of input gives the same numbers, and its memory is exact."""

from __future__ import annotations

import json
import logging
import math
import subprocess
import sys
from typing import Any

import numpy as np
import pytest
import torch

import rvpo
from rvpo.core.metrics import CATALOGUE, in_catalogue
from rvpo.core.ragged import Family, Score
from rvpo.errors import ConfigError, RewardError
from rvpo.step.trust import Again, Reliability, Trust

NAN = math.nan
NAMES = ["correct", "format", "safe"]
RANGES = {"correct": (-3, 3)}
REMEMBERING = [
    "lift",
    "ctwa:target=0.5",
    "lagrangian:thresholds={safe:0.9}",
    "riskpo:bundle_size=2",
    "riskpo:bundle_size=2,score={name:rvpo,k:adaptive}",
    "rvpo:k=adaptive",
]


def batch(seed: int, rows: int = 16) -> torch.Tensor:
    rewards = torch.rand(rows, 3, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    rewards[:, 0] = 6 * rewards[:, 0] - 3
    rewards[:, 1] = (rewards[:, 1] < 0.4).double()
    rewards[seed % rows, 2] = NAN
    return rewards


def by_name(rewards: torch.Tensor) -> list[dict[str, Any]]:
    return [dict(zip(NAMES, row, strict=True)) for row in rewards.tolist()]


KINDS: dict[str, Any] = {
    "tensor": lambda r: r,
    "array": lambda r: r.numpy(),
    "array backwards": lambda r: r.numpy()[::-1][::-1],
    "array in columns": lambda r: np.asfortranarray(r.numpy()),
    "array that cannot be written": lambda r: _read_only(r.numpy()),
    "array of objects": lambda r: np.array([[None if x != x else x for x in row] for row in r.tolist()], dtype=object),
    "lists": lambda r: r.tolist(),
    "lists with None": lambda r: [[None if x != x else x for x in row] for row in r.tolist()],
    "tuples of scalars": lambda r: tuple(tuple(np.float64(x) for x in row) for row in r.tolist()),
    "scalar tensors": lambda r: [list(row) for row in r],
    "dicts": by_name,
    "dicts with None": lambda r: [{k: None if v != v else v for k, v in row.items()} for row in by_name(r)],
    "dicts without": lambda r: [{k: v for k, v in row.items() if v == v} for row in by_name(r)],
    "dicts in another order": lambda r: [dict(reversed(row.items())) for row in by_name(r)],
    "a generator": lambda r: (row for row in by_name(r)),
}


def _read_only(x: np.ndarray) -> np.ndarray:
    x = x.copy()
    x.setflags(write=False)
    return x


def run(method: Any, kind: Any = KINDS["tensor"], **options: Any) -> list[rvpo.Aggregated]:
    agg = rvpo.Aggregator(method, NAMES, ranges=RANGES, weights={"correct": 2.0}, **options)
    return [agg(kind(batch(seed)), num_generations=8, progress=seed / 3) for seed in range(4)]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("method", ["lift", "rvpo:k=linear(0.5,2)", "grpo"])
def test_kinds_give_equal_numbers(kind: str, method: str):
    want, got = run(method), run(method, KINDS[kind])
    for ours, theirs in zip(got, want, strict=True):
        kinds = {"tensor": torch.Tensor, "array": np.ndarray}
        assert isinstance(ours.advantages, next((kinds[k] for k in kinds if kind.startswith(k)), list))
        assert torch.equal(torch.tensor(np.asarray(ours.advantages)), theirs.advantages)
        assert ours.metrics == pytest.approx(theirs.metrics, nan_ok=True, abs=0, rel=0)


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32, torch.bfloat16])
def test_a_tensor_keeps_its_dtype(dtype: torch.dtype):
    agg = rvpo.Aggregator("gdpo", NAMES)
    assert agg(batch(0).to(dtype), num_generations=8).advantages.dtype == dtype
    assert agg(batch(1).numpy().astype("float32"), num_generations=8).advantages.dtype == np.float32
    assert agg((batch(1) > 0).long(), num_generations=8).advantages.dtype == torch.float32
    assert agg((batch(1) > 0).numpy(), num_generations=8).advantages.dtype == np.float64


IDS: dict[str, Any] = {
    "numbers": [7] * 8 + [-3] * 8,
    "texts": ["a"] * 8 + ["b"] * 8,
    "tuples": [(1, "x")] * 8 + [(1, "y")] * 8,
    "a tensor": torch.arange(16) // 8,
    "tensors": [torch.tensor(row // 8) for row in range(16)],
    "NumPy scalars": [np.array(row // 8) for row in range(16)],
    "an array": np.repeat(np.array(["p", "q"]), 8),
    "floats": [0.5] * 8 + [1.5] * 8,
}


@pytest.mark.parametrize("ids", IDS)
def test_ids_of_any_kind(ids: str):
    want = run("lift")[0]
    agg = rvpo.Aggregator("lift", NAMES, ranges=RANGES, weights={"correct": 2.0})
    assert torch.equal(agg(batch(0), groups=IDS[ids]).advantages, want.advantages)


def test_groups_in_any_order():
    order = torch.randperm(16, generator=torch.Generator().manual_seed(0))
    agg = rvpo.Aggregator("lift", NAMES, ranges=RANGES, weights={"correct": 2.0})
    out = agg(batch(0)[order], groups=[IDS["texts"][i] for i in order.tolist()])
    torch.testing.assert_close(out.advantages, run("lift")[0].advantages[order])


@pytest.mark.parametrize("method", REMEMBERING)
def test_resumed_equals_uninterrupted_to_the_bit(method: str):
    def make() -> rvpo.Aggregator:
        return rvpo.Aggregator(method, NAMES, ranges=RANGES, weights=[2.0, 1.0, 1.0])

    whole = make()
    for seed in range(4):
        whole(batch(seed), num_generations=8)
    state = json.loads(json.dumps(whole.state_dict(), allow_nan=False))
    kept = json.dumps(state)
    resumed = make()
    resumed.load_state_dict(state)
    forgetful = make()
    for seed in range(4, 8):
        ours, theirs = (agg(batch(seed), num_generations=8) for agg in (resumed, whole))
        assert torch.equal(ours.advantages, theirs.advantages)
        assert ours.metrics == pytest.approx(theirs.metrics, nan_ok=True, abs=0, rel=0)
        lost = forgetful(batch(seed), num_generations=8)
    assert not torch.equal(lost.advantages, theirs.advantages)
    assert resumed.state_dict() == whole.state_dict()
    assert json.dumps(state) == kept  # what was loaded is not changed by going on


def test_an_evaluation_is_not_remembered():
    agg, twin = (rvpo.Aggregator("lift", NAMES, ranges=RANGES) for _ in range(2))
    agg(batch(0), num_generations=8)
    twin(batch(0), num_generations=8)
    before = agg.state_dict()
    agg(batch(1), num_generations=8, learn=False)
    assert agg.state_dict() == before
    assert torch.equal(agg(batch(2), num_generations=8).advantages, twin(batch(2), num_generations=8).advantages)


def test_it_is_the_core_with_its_state_carried():
    agg, state = rvpo.Aggregator("lift:kappa=3", NAMES, ranges=RANGES), {}
    for seed in range(3):
        out = agg(batch(seed), num_generations=8)
        core = rvpo.core.compute(
            batch(seed),
            rvpo.AdvantageConfig(rvpo.LIFT(3)),
            num_generations=8,
            channels=rvpo.Channels.columns(NAMES, [(-3.0, 3.0), None, None]),
            state=state,
        )
        state = core.state
        assert torch.equal(out.advantages, core.advantages)


# --- rubrics ----------------------------------------------------------------------------------------------------------


def test_a_rubric_in_rows_is_its_family():
    rows = [
        {"r": {"a": True, "b": 0.0}, "len": 0.5},
        {"r": {"b": None, "a": 0.25}, "len": 0.25},
        {"r": {"c": 1}, "len": 0},
        {"r": {"c": NAN, "d": 0.5}, "len": None},
        {"len": 1.0},
        {"r": None, "len": 0.0},
    ]
    agg = rvpo.Aggregator("gdpo", ["r", "len"])
    out = agg(rows, num_generations=2)
    families = [
        Family(
            "r",
            [
                [Score("a", 1.0), Score("b", 0.0)],
                [Score("a", 0.25), Score("b", None)],
                [Score("c", 1.0), Score("d", None)],
                [Score("c", None), Score("d", 0.5)],
                [],
                [],
            ],
        )
    ]
    matrix = torch.tensor([[NAN, 0.5], [NAN, 0.25], [NAN, 0.0], [NAN, NAN], [NAN, 1.0], [NAN, 0.0]]).double()
    want = rvpo.Aggregator("gdpo", ["r", "len"])(matrix, num_generations=2, families=families)
    assert out.advantages == want.advantages.tolist()
    assert out.metrics == pytest.approx(want.metrics, nan_ok=True)
    grouped = agg(rows, groups=["x", "x", "y", "y", "z", "z"])
    assert grouped.advantages == out.advantages
    assert out.metrics["rvpo/r/missing"] == 3 / 8


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([{"a": 1, "saef": 2}], r"rewards\[0\] names 'saef' \(did you mean 'safe'\?\); expected a, safe"),
        ([{"a": "yes"}], r"rewards\[0\], 'a' is 'yes'; expected a number"),
        ([{"a": {"c": "met"}}], r"rewards\[0\], 'a', criterion 'c' is 'met'; expected a number"),
        ([{"a": {"c": 1}}, {"a": 0.5}], r"rewards\[1\], 'a' is 0.5, but a mapping in other rows"),
        ([{"a": 1}, [1, 2]], r"rewards\[1\] is a list and rewards\[0\] a mapping"),
        ([{"a": math.inf}], r"rewards\[0, 0\] is inf; expected finite numbers.*channels in order: a, safe"),
        ([[1, 2], [3]], r"rewards\[1\] has 1 numbers and rewards\[0\] has 2"),
        ([[1, 2, 3]], r"rewards has shape \(1, 3\) for the 2 channels a, safe"),
        ([], r"rewards has shape \(0,\)"),
        ([1.0, 2.0], r"rewards\[0\] is a float; expected a list"),
        ("abc", r"rewards is a str; expected a tensor"),
        (None, r"rewards is a NoneType; expected a tensor"),
        (np.array([["x", "y"]]), r"rewards is an array of dtype <U1; expected numbers"),
        (torch.zeros(4), r"rewards has shape \(4,\)"),
        (torch.zeros(2, 2, dtype=torch.complex64), r"rewards is a torch.complex64 tensor; expected real numbers"),
        ([{1.0, 0.0}], r"rewards\[0\] is a set; expected a list"),
        ([[1e200, 0.0]], r"rewards\[0, 0\] is 1e\+200; expected finite numbers from -1e\+100 to 1e\+100"),
        (torch.tensor([[0.0, -math.inf]]), r"rewards\[0, 1\] is -inf; expected finite numbers"),
    ],
)
def test_rewards_that_cannot_be_read(rows: Any, message: str):
    with pytest.raises(RewardError, match=message):
        rvpo.Aggregator("gdpo", ["a", "safe"])(rows, num_generations=1)


@pytest.mark.parametrize(
    ("groups", "message"),
    [
        ([1], r"groups has 1 ids for 2 rows"),
        ([1, None], r"groups\[1\] is None; expected an id"),
        ([1.0, NAN], r"groups\[1\] is nan; expected an id"),
        ([1, {}], r"groups\[1\] is a dict, which cannot be hashed"),
        (torch.zeros(2, 2), r"groups has 2 ids for 2 rows; expected one id per row"),
        (None, r"neither of groups and num_generations"),
        ({1, 2}, "groups is a set; expected a list of one id per row"),
        ({1: "a", 2: "b"}, "groups is a dict; expected a list of one id per row"),
        (torch.tensor(1), "groups has 0 ids for 2 rows"),
    ],
)
def test_groups_that_cannot_be_read(groups: Any, message: str):
    with pytest.raises(RewardError, match=message):
        rvpo.Aggregator("gdpo", ["a"])([[0.0], [1.0]], groups=groups)


@pytest.mark.parametrize("size", [True, 2.0, "2", 0, 3])
def test_a_size_of_groups_that_cannot_work_is_refused(size: Any):
    with pytest.raises(RewardError, match=f"num_generations is {size!r}, but 2 rows cannot be cut"):
        rvpo.Aggregator("gdpo", ["a"])([[0.0], [1.0]], num_generations=size)


def test_what_is_masked_in_an_array_is_missing():
    rewards = batch(3).numpy()
    masked = np.ma.masked_invalid(rewards)
    masked.data[masked.mask] = 7.0  # what lies under a mask is not a reward
    want = rvpo.Aggregator("lift", NAMES)(rewards, num_generations=8)
    for given in (masked, masked.astype(object), list(masked), [dict(zip(NAMES, row, strict=True)) for row in masked]):
        out = rvpo.Aggregator("lift", NAMES)(given, num_generations=8)
        assert np.array_equal(out.advantages, want.advantages)
        assert out.metrics == pytest.approx(want.metrics, nan_ok=True)


def test_a_table_of_columns_is_refused():
    class Frame:  # as those of pandas and polars
        columns = ("a", "safe")

        def __iter__(self):
            return iter(self.columns)

    with pytest.raises(RewardError, match=r"rewards is a Frame; .*Pass rewards\[names\].to_numpy\(\)"):
        rvpo.Aggregator("gdpo", ["a", "safe"])(Frame(), num_generations=2)


@pytest.mark.parametrize("progress", [50, -1, 1.01, NAN, math.inf, True, "0.5"])
@pytest.mark.parametrize("method", ["rvpo:k=linear(0.5,2)", "gdpo"])
def test_a_progress_that_is_not_a_share_is_refused(progress: Any, method: str):
    aggregator = rvpo.Aggregator(method, NAMES)
    with pytest.raises(ConfigError, match=r"progress is .*; expected the share .* in \[0, 1\]. Pass progress="):
        aggregator(batch(0), num_generations=8, progress=progress)
    with pytest.raises(ConfigError, match="progress is "):
        rvpo.advantages(batch(0), num_generations=8, method=method, progress=progress)
    assert aggregator(batch(0), num_generations=8, progress=1 + 1e-9).progress == 1.0  # a sum of shares


@pytest.mark.parametrize("method", [*REMEMBERING, "lift_z"])
def test_a_damaged_state_is_refused(method: str):
    aggregator = rvpo.Aggregator(method, NAMES)
    for seed in range(3):
        aggregator(batch(seed), num_generations=8)
    state = json.loads(json.dumps(aggregator.state_dict()))
    for place, numbers in _numbers_in(state["remembered"]):
        for key, number in list(numbers):
            place[key] = NAN
            with pytest.raises(ConfigError, match=f"state has a number at .*{key} that is not finite; expected"):
                rvpo.Aggregator(method, NAMES).load_state_dict(state)
            place[key] = number
    rvpo.Aggregator(method, NAMES).load_state_dict(state)


def _numbers_in(state: Any):
    """Yield each list or mapping of a state with its numbers, by place."""
    parts = list(state.items() if isinstance(state, dict) else enumerate(state))
    yield state, [(key, value) for key, value in parts if isinstance(value, float)]
    for _, part in parts:
        if isinstance(part, dict | list):
            yield from _numbers_in(part)


@pytest.mark.parametrize(
    ("arguments", "options", "message"),
    [
        (("lift", {"a", "b"}), {}, "names is {.*}; expected a list of names"),
        (("lift", ["a", "b"]), {"weights": {1.0, 2.0}}, "weights is the set {.*}, which has no order; expected a list"),
        (("lift", ["a", "b"]), {"ranges": {(0, 1), (0, 2)}}, "ranges is the set {.*}, which has no order"),
        (("gdpo", ["a", "b"]), {"weights": [1e31, 1.0]}, r"weight of 'a' is 1e\+31; expected a number up to 1e\+30"),
        (("gdpo", ["a"]), {"weights": ["linear(1,1e300)"]}, r"weight of 'a' is 5e\+299; expected a number up to"),
        (("lfit", ["a"]), {}, "did you mean 'lift'"),
        (("lift", []), {}, r"names is \[\]; expected a list of names"),
        (("lift", "ab"), {}, "names is 'ab'; expected a list"),
        (("lift", {"a": 1, "b": 2}), {}, "names is {.*}; expected a list"),
        (("lift", ["a", "a"]), {}, "names has 'a' twice"),
        (("lift", ["a", 1]), {}, "expected a list of names"),
        (("lift", ["correct"]), {"ranges": {"corect": (0, 1)}}, r"ranges names the channel 'corect' \(did you mean"),
        (("lift", ["a"]), {"ranges": {"a": 3}}, "the range of a is 3; expected a pair"),
        (("lift", ["a"]), {"ranges": [(0, 1), (0, 1)]}, "2 ranges for 1 channels"),
        (("lift", ["a"]), {"weights": {"b": 1}}, "weights names the channel 'b'"),
        (("lift", ["a"]), {"weights": [1, 2]}, "weights has 2 numbers for the 1 channels"),
        (("lift", ["a"]), {"weights": [0]}, "weights are all 0"),
        (("lift", ["a"]), {"weights": [-1]}, "weight of 'a' is -1"),
        (("lift", ["a"]), {"missing": "zero"}, "missing is 'zero'"),
        (("lagrangian:thresholds={x:0.9}", ["a"]), {}, "lagrangian names the channel 'x'"),
        (("grpo", ["a"]), {"reliability": Reliability({"a": 0.5})}, "reliability is set, but method 'grpo'"),
        (("gdpo", ["a"]), {"reliability": Reliability({"b": 0.5})}, "reliability names the channel 'b'"),
    ],
)
def test_what_cannot_work_is_refused(arguments: tuple, options: dict, message: str):
    with pytest.raises(ConfigError, match=message):
        rvpo.Aggregator(*arguments, **options)


def test_a_schedule_without_progress_is_an_error():
    agg = rvpo.Aggregator("rvpo:k=cosine(0.5,2)", NAMES)
    with pytest.raises(ConfigError, match="progress is None, but k follows the schedule"):
        agg(batch(0), num_generations=8)
    assert agg(batch(0), num_generations=8, progress=1.0).metrics["rvpo/k"] == 2.0


@pytest.mark.parametrize(
    ("state", "message"),
    [
        ({"method": "ctwa", "remembered": {}}, "what method 'ctwa' remembered; expected one of method 'lift'"),
        ({}, "expected what state_dict"),
        ([], "expected what state_dict"),
        ({"method": "lift", "remembered": 3}, "expected what state_dict"),
    ],
)
def test_a_foreign_state_is_refused(state: Any, message: str):
    with pytest.raises(ConfigError, match=message):
        rvpo.Aggregator("lift", NAMES).load_state_dict(state)


def test_given_reliabilities_shrink_and_are_logged():
    plain, trusted = (
        rvpo.Aggregator("gdpo", NAMES, reliability=given)(batch(0), num_generations=8)
        for given in (None, Reliability({"format": 0.2}))
    )
    assert not torch.equal(plain.advantages, trusted.advantages)
    assert trusted.metrics["rvpo/format/reliability"] == 0.2
    assert trusted.metrics["rvpo/safe/reliability"] == 1.0
    assert "rvpo/format/reliability" not in plain.metrics


@pytest.mark.parametrize("method", [*REMEMBERING, "rvpo:k=linear(0.5,2)", "grpo", "hard_min", "tchebycheff"])
def test_every_metric_is_in_the_catalogue(method: str):
    for out in run(method):
        assert [key for key in out.metrics if not in_catalogue(key)] == []
    assert not in_catalogue("rvpo/correct/meen")
    assert all(name.startswith("rvpo/") for name in CATALOGUE)


def test_two_runs_with_one_object_learn_their_own_evidence():
    trust = Reliability(twice=0.5, trust=Trust(prior=1.0))
    noisy, sure, neither = (rvpo.Aggregator("gdpo", NAMES, reliability=trust) for _ in range(3))
    rewards = batch(0)
    for second in (rewards.flip(0), rewards):
        again = Again(list(range(16)), second, [])
        (noisy if second is not rewards else sure)(rewards, num_generations=8, again=again)

    def trusted(aggregator: rvpo.Aggregator) -> float:
        return aggregator(rewards, num_generations=8, learn=False).metrics["rvpo/format/reliability"]

    assert trusted(noisy) < 0.5 < trusted(sure) == 1
    assert trusted(neither) == 1


def test_nothing_is_learned_from_a_batch_whose_second_judgements_are_refused():
    aggregator = rvpo.Aggregator("lift", NAMES, reliability=Reliability(twice=0.5))
    aggregator(batch(0), num_generations=8)
    before = json.dumps(aggregator.state_dict())
    with pytest.raises(RewardError, match="a judgement is infinite"):
        aggregator(batch(1), num_generations=8, again=Again([0], torch.full((1, 3), math.inf), []))
    assert json.dumps(aggregator.state_dict()) == before
    assert aggregator.steps == 1


def test_a_rarely_met_channel_is_warned_about_once(caplog: pytest.LogCaptureFixture):
    agg, rewards = rvpo.Aggregator("rvpo:k=1", ["a", "b"]), torch.zeros(64, 2).double()
    rewards[::16, 0] = 1.0
    rewards[::2, 1] = 1.0
    with caplog.at_level(logging.WARNING, logger="rvpo"):
        for _ in range(3):
            agg(rewards, num_generations=16)
    assert caplog.text.count("suppresses channels that are rarely met, and 'a' is met") == 1


def test_it_needs_torch_alone():
    code = """
import sys
for name in ("numpy", "transformers", "trl", "pyarrow", "yaml", "typer", "pydantic"):
    sys.modules[name] = None
import warnings; warnings.simplefilter("ignore")
import rvpo
agg = rvpo.Aggregator("lift", ["correct", "format", "safe"], ranges={"correct": (-3, 3)}, weights={"correct": 2.0})
out = agg([[3, 0, 1], [1, 1, 0], [-1, 1, 1], [-3, 0, None]], num_generations=4)
print(len(out.advantages), len(agg.state_dict()["remembered"]))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stdout.split() == ["4", "4"], done.stderr


@pytest.mark.parametrize("names", [("a", "b"), {"a": 1, "b": 2}.keys(), np.array(["a", "b"]), iter(["a", "b"])])
def test_names_in_any_ordered_form(names: Any):
    assert rvpo.Aggregator("lift", names).names == ["a", "b"]
