"""Rollouts that verl loses are counted against what was asked for. TransferQueue is the one thing that is not real."""

from __future__ import annotations

import json
from collections import Counter
from typing import Any

import numpy as np
import pytest
import ray
import verl

from rvpo.engines.verl import losses
from rvpo.engines.verl.losses import LOST, Asked, cause_of, plain_score
from rvpo.errors import RewardError

N, BATCH = 8, 4


class Queue:
    """Keys and tags by partition, as TransferQueue lists and clears them."""

    def __init__(self) -> None:
        self.partitions: dict[str, dict[str, dict[str, Any]]] = {"train": {}, LOST: {}}

    def kv_list(self, partition: str) -> dict[str, dict[str, dict[str, Any]]]:
        return {partition: self.partitions[partition]}

    def kv_clear(self, keys: list[str], partition_id: str) -> None:
        for key in keys:
            del self.partitions[partition_id][key]


class Manager:
    """Registers prompts as verl's agent loop workers do."""

    def __init__(self, queue: Queue) -> None:
        self.queue = queue

    def generate_sequences(self, prompts: dict[str, Any]) -> None:
        if not prompts.get("validate"):
            self.queue.partitions["train"] |= {uid: {"status": "running"} for uid in prompts["uid"]}


class Training:
    """A training's view: dispatch, fail, finish, and the step's batch."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.queue = Queue()
        monkeypatch.setattr(losses, "tq", self.queue)
        self.asked = Asked(Manager(self.queue), N, BATCH)

    def ask(self, *uids: str, **columns: Any) -> None:
        self.asked.generate_sequences({"uid": list(uids), **columns})

    def fail(self, uid: str, sessions: int = N, cause: str = "ValueError: no", validate: bool = False) -> None:
        notes = {f"{uid}_{i}": {"cause": cause, "validate": validate} for i in range(sessions)}
        self.queue.partitions[LOST] |= notes

    def leave(self, *uids: str) -> None:
        """Of the queue: taken into a batch, or evicted."""
        for uid in uids:
            del self.queue.partitions["train"][uid]


@pytest.fixture
def training(monkeypatch: pytest.MonkeyPatch) -> Training:
    return Training(monkeypatch)


def test_whole_prompts_that_vanish_are_counted(training: Training):
    """In sync, a prompt without any rollout is taken into the batch, where nothing is left of it."""
    training.ask("a", "b", "c", "d")
    training.fail("b")
    training.fail("d")
    training.leave("a", "b", "c", "d")
    found = training.asked.take({"a": N, "c": N})
    assert (found.lost, found.asked, found.causes) == (2 * N, 4 * N, Counter({"ValueError: no": 2 * N}))
    assert training.asked.take({"e": N, "f": N, "g": N, "h": N}).lost == 0  # each once


def test_single_rollouts_are_counted(training: Training):
    training.ask("a", "b", "c", "d")
    training.fail("b", 3)
    training.leave("a", "b", "c", "d")
    assert training.asked.take({"a": N, "b": N - 3, "c": N, "d": N}).lost == 3


def test_prompts_that_were_given_up_and_replaced_are_counted(training: Training):
    """In colocate_async, one failed rollout costs the whole prompt, and another prompt comes in its place."""
    training.ask("a", "b", "c", "d")
    training.fail("b", 1)
    training.leave("b")
    training.ask("e")
    training.ask("x", "y")  # under way
    training.leave("a", "c", "d", "e")
    found = training.asked.take(dict.fromkeys("acde", N), evicted=1)
    assert (found.lost, found.asked) == (N, 5 * N)


def test_stale_and_filtered_prompts_are_no_losses(training: Training):
    training.ask("a", "b", "c", "d", "e", "f")
    training.leave("a", "b", "c", "d", "e", "f")  # e was too old, f had equal rewards
    assert training.asked.take(dict.fromkeys("abcd", N)).lost == 0


def test_losses_without_a_note_are_counted(training: Training):
    """An agent loop that returns nothing raises nothing; a manager of the user's own writes no notes."""
    training.ask("a", "b", "c", "d")
    training.leave("a", "b", "c", "d")
    assert training.asked.take(dict.fromkeys("abc", N)).lost == N
    assert training.asked.take(dict.fromkeys("efgh", N), evicted=2).lost == 2 * N


@pytest.mark.parametrize("numbers", [[8, 2, 4, 1], np.array([8, 2, 4, 1]), (np.int64(8), 2, 4, 1)])
def test_prompts_with_numbers_of_their_own_are_no_false_alarm(training: Training, numbers: Any):
    training.ask("a", "b", "c", "d", __rollout_n__=numbers)
    training.fail("c")
    training.leave("a", "b", "c", "d")
    found = training.asked.take({"a": 8, "b": 2, "d": 1})
    assert (found.lost, found.asked) == (4, 15)
    assert training.asked.take({"restored": 3, "f": 8, "g": 8, "h": 8}).lost == 0  # by a checkpoint: not known


def test_validations_are_counted_by_themselves(training: Training):
    training.ask("v", validate=True)
    training.fail("v", 3, validate=True)
    assert training.asked.take(dict.fromkeys("abcd", N)).lost == 0
    assert training.asked.take_validation() == Counter({"ValueError: no": 3})
    assert not training.asked.take_validation()


def test_a_run_in_which_everything_fails_ends_with_the_cause(training: Training):
    for i in range(2 * BATCH):
        training.ask(f"p{i}")
        training.fail(f"p{i}", cause="KeyError: 'x' (in my_reward)")
        training.leave(f"p{i}")
    with pytest.raises(
        RewardError, match=r"8 prompts failed and none succeeded, 8 of them by KeyError: 'x' \(in my_re"
    ):
        training.ask("more")


def test_a_run_goes_on_while_some_succeed_but_not_for_ever(training: Training):
    training.ask("good")
    training.queue.partitions["train"]["good"]["status"] = "finished"
    for i in range(20 * BATCH):
        training.ask(f"p{i}")
        training.fail(f"p{i}")
        training.leave(f"p{i}")
    with pytest.raises(RewardError, match="80 prompts failed, 80 of them by ValueError: no"):
        training.ask("more")


def test_a_step_begins_the_count_anew(training: Training):
    for step in range(4):
        uids = [f"{step}-{i}" for i in range(BATCH)]
        training.ask(*uids)
        training.fail(uids[0])
        training.fail(uids[1])
        training.leave(*uids)
        assert training.asked.take(dict.fromkeys(uids[2:], N)).lost == 2 * N


def my_reward(text: str) -> Any:
    return json.loads(text)


def test_a_cause_names_the_users_function_and_where_it_failed():
    with pytest.raises(ValueError, match="Expecting") as told:
        my_reward("{no json")
    trace = (
        f'File "{ray.__file__}", line 1, in main_loop\n  File "{verl.__file__}", line 27, in call\n'
        '    raw()\n  File "/home/me/verl/rewards.py", line 5, in my_reward\n    json.loads()\n'
        '  File "/usr/lib/python3.11/json/decoder.py", line 355, in raw_decode\n'
    )
    remote = ray.exceptions.RayTaskError("f", trace, told.value, proctitle="p", pid=1, ip="0")
    for error in (remote, remote.as_instanceof_cause()):
        assert cause_of(error).startswith("JSONDecodeError: Expecting property name")
        assert cause_of(error).endswith("(in my_reward, from raw_decode)")
    assert cause_of(told.value).endswith(", from raw_decode)")  # of this process: from the test on
    assert cause_of(ValueError("x")) == "ValueError: x"


@pytest.mark.parametrize("score", [1, 0.5, True, np.float32(0.5), np.array(0.25), np.int64(2)])
def test_scores_of_any_kind_of_number(score: Any):
    assert type(plain_score(score)) is float
    assert plain_score(score) == float(score)


def test_a_score_of_none_is_missing():
    assert np.isnan(plain_score(None))


@pytest.mark.parametrize("score", ["0.5", [0.5, 1], {"a": 1}])
def test_what_is_no_score_is_refused(score: Any):
    with pytest.raises(RewardError, match=r"returned the score .*; expected a number, or None"):
        plain_score(score)
