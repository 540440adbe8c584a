"""Aggregator with a process group: four real gloo ranks give what one process gives that has all rewards."""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch

import rvpo
from rvpo.errors import ConfigError
from shard_ranks import CASES, METRIC, NAMES, RANKS, Case, blocks, joined, ragged
from warm_python import WarmPython

pytestmark = pytest.mark.xdist_group("shards")
"""On one worker, because the four ranks that all of them look at take a while."""


@pytest.fixture(scope="module")
def ranks(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """What each of the ranks got, in all cases."""
    folder = tmp_path_factory.mktemp("ranks")
    places = [Path(rvpo.__file__).parents[1], Path(__file__).parents[1]]
    warm = WarmPython(["shard_ranks"], places, {"OMP_NUM_THREADS": "1"})
    done = warm.run(["-m", "shard_ranks", str(folder)], [{"RANK": str(rank)} for rank in range(RANKS)])
    assert [program.poll() for program in done] == [0] * RANKS, [program.stderr for program in done]
    warm.end()
    return [json.loads((folder / f"{rank}.json").read_text()) for rank in range(RANKS)]


def plain(x: Any) -> Any:
    """Return data as a file has it."""
    return json.loads(json.dumps(x))


def differences(path: str, one: Any, other: Any, tolerance: float) -> list[str]:
    """Return where plain data differ."""
    if isinstance(one, Mapping) and isinstance(other, Mapping):
        found = [f"{path}: keys {set(one) ^ set(other)}"] if set(one) != set(other) else []
        for key in set(one) & set(other):
            found += differences(f"{path}/{key}", one[key], other[key], tolerance)
        return found
    if isinstance(one, list) and isinstance(other, list) and len(one) == len(other):
        pairs = enumerate(zip(one, other, strict=True))
        return [found for i, (a, b) in pairs for found in differences(f"{path}[{i}]", a, b, tolerance)]
    is_number = isinstance(one, int | float) and isinstance(other, int | float)
    if is_number and ((math.isnan(one) and math.isnan(other)) or abs(one - other) <= tolerance * max(1, abs(other))):
        return []
    return [] if one == other else [f"{path}: {one} and {other}"]


def slices(parts: list[Any]) -> list[slice]:
    """Return which rows of the gathered batch each rank has."""
    ends = [0]
    for part in parts:
        ends.append(ends[-1] + len(part.rewards))
    return [slice(*pair) for pair in itertools.pairwise(ends)]


@pytest.mark.parametrize("name", CASES)
def test_equals_the_gathered_result(ranks: list[dict[str, Any]], name: str) -> None:
    """Advantages, metrics, responsibilities and memory, step by step."""
    case: Case = CASES[name]
    got = [rank["cases"][name] for rank in ranks[: case.ranks]]
    assert [one.get("raised") for one in got] == [None] * case.ranks
    aggregator, number = case.build(), 0
    for step, parts in enumerate(case.steps(case.ranks)):
        for learn in case.learns(step):
            whole = joined(parts).call(aggregator, progress=case.progress, learn=learn)
            for rank, rows in enumerate(slices(parts)):
                mine, where = got[rank]["steps"][number], f"rank {rank}, step {number}"
                advantages = torch.as_tensor(whole.advantages)[rows].tolist()
                assert differences(where, mine["advantages"], advantages, case.tolerance) == []
                found = differences(where, mine["metrics"], plain(dict(whole.metrics)), case.metric)
                assert [text for text in found if f"{case.ignored}:" not in text] == []
                responsibilities = whole.result.responsibilities[rows].tolist()
                assert differences(where, mine["responsibilities"], responsibilities, 1e-5) == []
            number += 1
    assert differences("state", got[0]["state"], plain(aggregator.state_dict()), case.metric) == []
    # To the last bit, so that any rank may write the checkpoint.
    assert len({json.dumps(one["state"], sort_keys=True) for one in got}) == 1


def test_resumes_with_another_number_of_ranks(ranks: list[dict[str, Any]]) -> None:
    """Four ranks, one process and two ranks go on from each other's memory as if nothing had happened."""
    gathered = rvpo.Aggregator("lift", NAMES)
    for seed in (1, 2):
        joined(ragged(seed, RANKS)).call(gathered)
    one = joined(ragged(3, RANKS)).call(gathered)
    for rank in ranks:
        assert differences("one", rank["resumed"]["one"], one.advantages.tolist(), 1e-11) == []
    parts = blocks(4, 2)
    two = joined(parts).call(gathered)
    for rank, rows in zip(ranks, slices(parts), strict=False):
        assert differences("two", rank["resumed"]["two"], two.advantages[rows].tolist(), 1e-11) == []
        assert differences("metrics", rank["resumed"]["metrics"], plain(dict(two.metrics)), METRIC) == []


REFUSED = {
    "torn group": "group 'same' has rows in ranks 1, 3; expected all completions of a prompt in one rank",
    "infinite reward": "rewards[3, 1] is inf; expected finite numbers",
    "no number": "rewards[0] is 'x'; expected a number",
    "nothing": "no rank has a row; expected at least one completion",
    "progress": "progress, learn or what was given of rank 0 is",
    "learn": "progress, learn or what was given of rank 0 is",
    "other options": "the configuration of rank 0 is",
    "gradient": "rewards need a gradient, but a process group exchanges only numbers",
    "object as id": "a group id is a frozenset; expected numbers, texts or tuples",
    "number and rubric": "'b' is a number in this rank, but a rubric in another one",
    "other memory": "the memory of rank 0 is",
    "own error": "nothing to divide by",
}


@pytest.mark.parametrize("name", REFUSED)
def test_all_ranks_refuse(ranks: list[dict[str, Any]], name: str) -> None:
    """What is wrong in one rank is raised in all of them, and none waits."""
    for rank in ranks:
        assert REFUSED[name] in rank["refused"][name]
    if name == "infinite reward":
        assert "rank 2 of 4: rewards[3, 1]" in ranks[0]["refused"][name]
    if name == "own error":
        assert ranks[0]["refused"][name] == "RewardError: rank 3 of 4: ZeroDivisionError: nothing to divide by"
        assert ranks[3]["refused"][name] == "ZeroDivisionError: nothing to divide by"


def test_a_refused_step_is_not_learned_from(ranks: list[dict[str, Any]]) -> None:
    """And the ranks go on afterwards."""
    for rank in ranks:
        assert rank["refused"]["learned nothing"] == "{}"
        assert rank["refused"]["goes on"] == ""


def test_a_process_group_is_needed(ranks: list[dict[str, Any]]) -> None:
    """Anything else is refused, in a process with a group and in one without."""
    assert all("expected a torch.distributed.ProcessGroup" in rank["refused"]["not a group"] for rank in ranks)
    with pytest.raises(ConfigError, match="distributed is not initialized"):
        rvpo.Aggregator("lift", NAMES, process_group="all")


def test_bytes_do_not_grow_with_completions(ranks: list[dict[str, Any]]) -> None:
    """100 times as many groups cost the same."""
    for rank in ranks:
        assert rank["cost"]["400"] == rank["cost"]["4"] < 60_000
