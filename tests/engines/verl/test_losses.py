"""Rollouts that verl loses are counted against what was asked for. TransferQueue is the one thing that is not real."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from typing import Any

import numpy as np
import pytest
import ray
import ray.cloudpickle as cloudpickle
import verl
from omegaconf import OmegaConf
from tensordict import TensorDict
from verl.experimental.agent_loop.agent_loop import AgentLoopMetrics, AgentLoopOutput
from verl.trainer.ppo.v1.agent_loop_tq import AgentLoopManagerTQ
from verl.utils import tensordict_utils as tu
from verl.utils.import_utils import load_class_from_fqn

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

    def generate_sequences(self, prompts: TensorDict) -> None:
        validate = prompts["validate"] if "validate" in prompts else False  # noqa: SIM401 (as verl's workers do)
        if not validate:
            self.queue.partitions["train"] |= {uid: {"status": "running"} for uid in prompts["uid"]}


class Training:
    """A training's view: dispatch, fail, finish, and the step's batch."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.queue = Queue()
        monkeypatch.setattr(losses, "tq", self.queue)
        self.asked = Asked(Manager(self.queue), N, BATCH)

    def ask(self, *uids: str, validate: bool | None = None, **columns: Any) -> None:
        batch = tu.get_tensordict({"uid": np.array(uids, dtype=object), **columns})
        tu.assign_non_tensor_data(batch, "global_steps", 3)
        if validate is not None:
            tu.assign_non_tensor_data(batch, "validate", validate)
        self.asked.generate_sequences(batch)

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


@pytest.mark.parametrize("numbers", [[8, 2, 4, 1], np.array([8, 2, 4, 1]), [np.int64(8), 2, 4, 1]])
def test_prompts_with_numbers_of_their_own_are_no_false_alarm(training: Training, numbers: Any):
    training.ask("a", "b", "c", "d", __rollout_n__=numbers)
    training.fail("c")
    training.leave("a", "b", "c", "d")
    found = training.asked.take({"a": 8, "b": 2, "d": 1})
    assert (found.lost, found.asked) == (4, 15)
    assert training.asked.take({"restored": 3, "f": 8, "g": 8, "h": 8}).lost == 0  # by a checkpoint: not known


def test_validations_are_counted_by_themselves(training: Training):
    training.ask("v", validate=True)  # as verl says it: no tensor
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


# --- the worker -------------------------------------------------------------------------------------------------------


class Notes:
    """What workers put into TransferQueue."""

    def __init__(self) -> None:
        self.put: list[dict[str, Any]] = []

    async def async_kv_put(self, **note: Any) -> None:
        self.put.append(note)


def worker(monkeypatch: pytest.MonkeyPatch, **verls: Any) -> Any:
    """Return our worker without verl's start, where methods of verl's worker are replaced."""
    for name, method in verls.items():
        monkeypatch.setattr(losses._Worker, name, method)
    made: Any = object.__new__(losses.AgentLoopWorker)
    made.config = OmegaConf.create({"algorithm": {"filter_groups": {"enable": True, "metric": "vowels"}}})
    return made


@pytest.mark.parametrize("validate", [False, True])
def test_a_worker_notes_why_a_rollout_was_lost_and_verl_gets_the_error(monkeypatch: pytest.MonkeyPatch, validate: bool):
    async def fails(self: Any, sampling_params: Any, trajectory: Any, **kwargs: Any) -> None:
        assert (sampling_params, kwargs["agent_name"]) == ({}, "single")
        my_reward("{no json")

    monkeypatch.setattr(losses, "tq", notes := Notes())
    ours = worker(monkeypatch, _run_agent_loop=fails)
    call = ours._run_agent_loop({}, trajectory={"validate": validate}, agent_name="single", uid="p7", session_id=3)
    with pytest.raises(ValueError, match="Expecting"):
        asyncio.run(call)
    (note,) = notes.put
    assert (note["key"], note["partition_id"], note["tag"]["validate"]) == ("p7_3", LOST, validate)
    assert note["tag"]["cause"].startswith("JSONDecodeError: Expecting property name")


def test_a_worker_notes_nothing_of_a_rollout_that_works(monkeypatch: pytest.MonkeyPatch):
    async def works(self: Any, sampling_params: Any, trajectory: Any, **kwargs: Any) -> str:
        return "done"

    monkeypatch.setattr(losses, "tq", notes := Notes())
    call = worker(monkeypatch, _run_agent_loop=works)._run_agent_loop({}, trajectory={"validate": False}, uid="p")
    assert asyncio.run(call) == "done"
    assert notes.put == []


@pytest.mark.parametrize(("score", "expected"), [(None, float("nan")), (np.float32(0.5), 0.5), (1, 1.0)])
def test_scores_and_filtered_parts_that_verl_cannot_read_are_put_right(
    monkeypatch: pytest.MonkeyPatch, score: Any, expected: float
):
    async def scores(self: Any, outputs: Any, kwargs: Any) -> None:
        outputs[-1].reward_score = score
        outputs[-1].extra_fields["reward_extra_info"] = {"score": score, "vowels": None, "brief": None}

    output = AgentLoopOutput(
        prompt_ids=[1], response_ids=[2, 3], response_mask=[1, 1], metrics=AgentLoopMetrics(), extra_fields={}
    )
    asyncio.run(worker(monkeypatch, _compute_score=scores)._compute_score([output], {}))
    assert output.as_dict()["rm_scores"].tolist() == pytest.approx([0.0, expected], nan_ok=True)
    info = output.extra_fields["reward_extra_info"]
    assert np.isnan(info["vowels"])  # the metric by which groups are filtered
    assert info["brief"] is None


def test_the_manager_starts_our_workers_and_can_be_sent_to_other_processes(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(AgentLoopManagerTQ, "__init__", lambda self: None)
    made = load_class_from_fqn(losses.MANAGER, "AgentLoopManager")()
    remote = made.agent_loop_workers_class.__ray_metadata__.modified_class
    assert issubclass(remote, losses.AgentLoopWorker)
    assert issubclass(remote, losses._Worker)
    assert cloudpickle.loads(cloudpickle.dumps(remote)).__name__ == "AgentLoopWorker"
