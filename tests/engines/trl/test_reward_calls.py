"""What a reward function may return, and what is said of it where it fails."""

from __future__ import annotations

import asyncio
import decimal
import functools
import json
import logging
import threading
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

pytest.importorskip("trl")

from tiny_run import G, N, even, high, make_trainer, run_job_twice
from torch import nn

from rvpo.engines.trl import reward_timeout
from rvpo.engines.trl.reward_calls import Failure, about, as_rewards, first_failure, guarded_calls
from rvpo.errors import DataError, JudgeError, RewardError, RVPOError

# --- what a function may return ---------------------------------------------------------------------------------------

READABLE = {
    "list": [0.5, 1.0, None],
    "tuple": (0.5, 1.0, None),
    "generator": (value for value in [0.5, 1.0, None]),
    "map": map(float, ["0.5", "1", "nan"]),
    "tensor": torch.tensor([0.5, 1.0, torch.nan], dtype=torch.bfloat16, requires_grad=True),
    "array": np.array([0.5, 1.0, np.nan], dtype=np.float16),
    "masked array": np.ma.array([0.5, 1.0, 7.0], mask=[False, False, True]),
    "tensors": [torch.tensor(0.5), torch.tensor([1]), None],
    "numpy numbers": [np.float32(0.5), np.bool_(True), np.float64("nan")],
    "python numbers": [decimal.Decimal("0.5"), True, None],
}


@pytest.mark.parametrize("kind", READABLE)
def test_is_read(kind: str):
    half, one, missing = as_rewards(READABLE[kind], 3)
    assert (half, one) == (0.5, 1.0)
    assert missing is None or missing != missing


UNREADABLE: dict[str, tuple[Callable[..., Any], str]] = {
    "nothing": (lambda: None, r"returned None \(a `return` may be missing\)"),
    "number": (lambda: 0.5, r"returned a float 0\.5"),
    "text": (lambda: "0.5 1.0", r"returned a str '0\.5 1\.0'"),
    "dict": (lambda: {"a": [1.0] * N}, r"returned a dict .* \(make each part a reward function of its own\)"),
    "set": (lambda: {1.0}, r"returned a set"),
    "texts": (lambda: [1.0, *["0.7"] * (N - 1)], r"returned '0\.7' \(a str\) for completion 1, '.*' \(prompt '.*'\)"),
    "dicts": (lambda: [{"score": 1.0}] * N, r"returned \{'score': 1\.0\} \(a dict\) for completion 0, "),
    "lists": (lambda: [[1.0]] * N, r"returned \[1\.0\] \(a list\) for completion 0, "),
    "complex": (lambda: [1j] * N, r"returned 1j \(a complex\) for completion 0, "),
    "too few": (lambda: [1.0] * 3, r"returned 3 rewards, but 8 were expected"),
    "too many": (lambda: [1.0] * 9, r"returned 9 rewards, but 8 were expected"),
    "empty": (lambda: [], r"returned 0 rewards, but 8 were expected"),
    "column": (lambda: torch.ones(N, 1), r"returned a tensor of shape \(8, 1\) \(expected one dimension\)"),
    "matrix": (lambda: np.ones((N, 2)), r"returned a ndarray of shape \(8, 2\)"),
    "scalar tensor": (lambda: torch.tensor(1.0), r"returned a tensor of shape \(\)"),
    "infinite": (lambda: [0.0, float("-inf"), *[0.0] * (N - 2)], r"returned -inf for completion 1, "),
    "too large": (lambda: [1e39] * N, r"returned 1e\+39, which does not fit into float32, for completion 0, "),
    "coroutine": (lambda: asyncio.sleep(0), r"returned a coroutine \(declare the function with `async def`"),
    "module": (lambda: logging, r"returned a module <module 'logging'"),
}


def plain(answer: Callable[[], Any]) -> Callable[..., Any]:
    def odd(**_: Any) -> Any:
        return answer()

    return odd


def awaited(answer: Callable[[], Any]) -> Callable[..., Any]:
    async def odd(**_: Any) -> Any:
        return answer()

    return odd


@pytest.mark.parametrize("wrap", [plain, awaited])
@pytest.mark.parametrize("kind", UNREADABLE)
def test_is_refused_with_its_name(kind: str, wrap: Callable[..., Any]):
    answer, message = UNREADABLE[kind]
    failure = scored(wrap(answer))[1]
    assert failure is not None
    with pytest.raises(RewardError, match=rf"(?s)^reward function 'odd' {message}.*; expected one number per compl"):
        raise failure.kind(failure.text)


class FakeAccelerator:
    num_processes = 1


def scored(function: Any, name: str = "odd", timeout: float | None = None) -> tuple[Any, Failure | None]:
    """Call one reward function as TRL does, through its stand-in."""
    trainer = SimpleNamespace(reward_funcs=[function], reward_func_names=[name])
    given = {"prompts": [f"p{i}" for i in range(N)], "completions": [f"c{i}" for i in range(N)]}
    with guarded_calls(trainer, timeout) as failures:
        (stand_in,) = trainer.reward_funcs
        result = stand_in(**({"ids": torch.ones(N, 2)} if isinstance(function, nn.Module) else given))
        if asyncio.iscoroutine(result):
            result = asyncio.run(result)
    assert trainer.reward_funcs == [function]
    return result, first_failure(FakeAccelerator(), failures)


# --- what a function may raise ----------------------------------------------------------------------------------------


async def sleeps(**_: Any) -> list[float]:
    await asyncio.sleep(1e6)
    return []


async def waits_for_nobody(**_: Any) -> list[float]:
    await asyncio.Event().wait()
    return []


async def refuses_to_end(**_: Any) -> list[float]:
    for _ in range(2):  # a second cancellation ends it, or this test would leave it running
        try:
            await asyncio.sleep(1e6)
        except asyncio.CancelledError:
            continue
    return []


class Asks:
    """An object with an async call, such as a client."""

    async def __call__(self, **_: Any) -> list[float]:
        await asyncio.get_running_loop().create_future()
        return []


@pytest.mark.parametrize("function", [sleeps, waits_for_nobody, refuses_to_end, Asks()])
def test_an_async_function_that_does_not_return_is_named(function: Any):
    returned, failure = scored(function, timeout=0.01)
    assert failure is not None
    assert failure.kind is RewardError
    assert "reward function 'odd': did not return within 0.01 s; expected" in failure.text
    assert returned == [0.0] * N


def test_an_async_function_in_time_is_left_alone():
    async def quick(**_: Any) -> list[float]:
        await asyncio.sleep(0)
        return [1.0] * N

    assert scored(quick, timeout=60.0) == ([1.0] * N, None)
    assert scored(quick, timeout=None) == ([1.0] * N, None)


@pytest.mark.parametrize("kind", ["sync", "module", "blocking"])
def test_what_cannot_be_stopped_is_warned_of(kind: str, caplog: pytest.LogCaptureFixture, monkeypatch):
    monkeypatch.setattr(reward_timeout, "_GRACE_SECONDS", 0.0)
    warned = threading.Event()
    monkeypatch.setattr(reward_timeout.logger, "warning", lambda *said: warned.set() or caplog.messages.append(said))

    def slow(**_: Any) -> Any:
        assert warned.wait(60)
        return SimpleNamespace(logits=torch.ones(N, 1)) if kind == "module" else [1.0] * N

    async def blocking(**_: Any) -> list[float]:
        return slow()

    class Slow(nn.Module):
        def forward(self, **_: Any) -> Any:
            return slow()

    _, failure = scored({"sync": slow, "module": Slow(), "blocking": blocking}[kind], timeout=0.01)
    assert warned.is_set()
    assert failure is None or kind == "blocking"  # the loop, free again, finds the time over or the answer there


def raising(error: BaseException) -> Callable[..., Any]:
    def odd(**_: Any) -> Any:
        raise error

    return odd


def raising_async(error: BaseException) -> Callable[..., Any]:
    async def odd(**_: Any) -> Any:
        await asyncio.sleep(0)
        raise error

    return odd


class Odd:
    """A callable object."""

    def __init__(self, error: BaseException) -> None:
        self.error = error

    def __call__(self, **_: Any) -> Any:
        raise self.error


class OddModel(nn.Module):
    def __init__(self, error: BaseException) -> None:
        super().__init__()
        self.error = error

    def forward(self, **_: Any) -> Any:
        raise self.error


KINDS: dict[str, Callable[[BaseException], Any]] = {
    "function": raising,
    "async function": raising_async,
    "partial": lambda error: functools.partial(raising(error), scale=2),
    "object": Odd,
    "method": lambda error: Odd(error).__call__,
    "generator": lambda error: lambda **_: (1 / 0 if error is None else raising(error)() for _ in range(N)),
    "model": OddModel,
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("error", [KeyError("answer"), ZeroDivisionError("division by zero"), SystemExit(3)])
def test_what_it_raises_is_named_and_kept(kind: str, error: BaseException):
    _, failure = scored(KINDS[kind](error))
    assert failure is not None
    assert failure.error is error
    assert failure.kind is RewardError
    assert failure.text.startswith(f"reward function 'odd' raised {type(error).__name__}: {error} (")
    assert failure.text.endswith(")")
    assert "test_reward_calls.py, line " in failure.text


def narrow(completions: list[str]) -> list[float]:
    return [1.0] * len(completions)


async def narrow_and_async(completions: list[str]) -> list[float]:
    return [1.0] * len(completions)


def with_a_column(completions: list[str], solution: list[str], **_: object) -> list[float]:
    return [1.0] * len(completions)


@pytest.mark.parametrize("function", [narrow, narrow_and_async, with_a_column, functools.partial(with_a_column)])
def test_a_function_that_cannot_be_called_is_told_what_it_receives(function: Any):
    _, failure = scored(function)
    assert failure is not None
    assert isinstance(failure.error, TypeError)
    assert "cannot be called: " in failure.text
    assert "by name, or **kwargs for those that it does not use: " in failure.text
    assert "completions, " in failure.text
    assert "line" not in failure.text


def test_a_type_error_within_a_function_keeps_its_place():
    def wrong(**_: object) -> list[float]:
        return [narrow()]  # type: ignore[call-arg, list-item]

    _, failure = scored(wrong)
    assert failure is not None
    assert failure.text.startswith("reward function 'odd' raised TypeError: ")
    assert "test_reward_calls.py, line " in failure.text


@pytest.mark.parametrize("shape", [(N, 2), (N, 0), (N,), (N, 5, 1)])
def test_a_reward_model_with_several_labels_is_refused(shape: tuple[int, ...]):
    class Labels(nn.Module):
        def forward(self, **_: Any) -> Any:
            return SimpleNamespace(logits=torch.zeros(shape))

    result, failure = scored(Labels(), "sentiment")
    assert result.logits.shape == (N, 1)  # TRL ends the batch with it
    assert failure is not None
    with pytest.raises(RewardError, match=r"^reward model 'sentiment' returned logits of shape .*; expected one label"):
        raise failure.kind(failure.text)


@pytest.mark.parametrize("error", [DataError("row 3: no answer"), JudgeError("no server"), RewardError("no parser")])
def test_an_error_of_ours_keeps_its_class(error: RVPOError):
    _, failure = scored(raising(error))
    assert failure is not None
    assert failure.kind is type(error)
    assert failure.text == f"reward function 'odd': {error}"


def test_ctrl_c_is_not_a_failure_of_the_function():
    with pytest.raises(KeyboardInterrupt):
        scored(raising(KeyboardInterrupt()))


@pytest.mark.parametrize(
    ("hostile", "shown"),
    [
        ("red \x1b[31m", r"red \x1b[31m"),
        ("two\nlines\r", r"two\nlines\r"),
        ("turned \u202e back", r"turned \u202e back"),
        ("half \ud800", r"half \ud800"),
        ("日本語 é", "日本語 é"),
    ],
)
def test_text_of_a_policy_is_escaped(hostile: str, shown: str):
    assert shown in about(0, [hostile], ["x"])
    assert shown in about(0, ["x"], [[{"role": "assistant", "content": hostile}]])
    _, failure = scored(raising(ValueError(hostile)))
    assert failure is not None
    assert shown in failure.text


def test_text_of_a_policy_is_cut():
    assert len(about(0, ["p" * 10_000], ["c" * 10_000])) < 250
    assert about(7, ["p"], ["c"]) == "for completion 7"


# --- what users and TRL look at stays as it is ------------------------------------------------------------------------


class Ranged:
    __name__ = "ranged"
    reward_range = (-3, 3)

    async def __call__(self, completions: list[Any], **_: Any) -> list[float]:
        return [1.0] * len(completions)


def test_functions_are_untouched_outside_of_a_batch(tiny_model_dir: Path, tmp_path: Path):
    functions = [even, functools.partial(high, scale=1), Ranged()]
    trainer = make_trainer(tiny_model_dir, tmp_path, functions, max_steps=1)
    trainer.train()
    assert all(mine is theirs for mine, theirs in zip(trainer.reward_funcs, functions, strict=True))
    assert trainer.reward_func_names == ["even", "high", "ranged"]
    assert trainer.aggregator.ranges[2] == (-3, 3)


def test_a_function_that_is_exchanged_later_is_the_one_that_counts(tiny_model_dir: Path, tmp_path: Path):
    trainer = make_trainer(tiny_model_dir, tmp_path, [even, high], max_steps=1)
    trainer.reward_funcs[0] = raising(ValueError("the new one"))
    with pytest.raises(RewardError, match="reward function 'even' raised ValueError: the new one"):
        trainer.train()


# --- several processes ------------------------------------------------------------------------------------------------


@pytest.mark.xdist_group("processes")
@pytest.mark.parametrize("fails", ["raises", *(pytest.param(f, marks=pytest.mark.slow) for f in ("text", "infinite"))])
def test_two_processes_end_together(tiny_model_dir: Path, tmp_path: Path, fails: str):
    """Only process 1 fails, in step 3; both raise the same error, after a checkpoint of step 2 that both have saved."""
    results = run_job_twice(
        {
            "model": str(tiny_model_dir),
            "output": str(tmp_path),
            "fails": {"how": fails, "rank": 1, "step": 2},
            "options": {"max_steps": 4, "num_generations": G, "per_device_train_batch_size": G},
        }
    )
    texts = [result["raised"] for result in results]
    assert texts[0] == texts[1]
    assert texts[0].startswith("RewardError: process 1: reward function 'odd' ")
    assert "Stopped after step 2" in texts[0]
    assert [result["cause"] for result in results] == [None, "ValueError" if fails == "raises" else None]
    checkpoint = tmp_path / "checkpoint-2"
    assert json.loads((checkpoint / "trainer_state.json").read_text())["global_step"] == 2
    assert {path.name for path in checkpoint.glob("rng_state_*")} == {"rng_state_0.pth", "rng_state_1.pth"}
