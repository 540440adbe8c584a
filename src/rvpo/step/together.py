"""What the ranks of a process group exchange when a step begins.

Ranks check that they have the same options, progress and memory. They count the completions of all ranks, and check
that no group has rows in two ranks. If there are rubrics, they exchange the labels, so that all ranks use the same
columns.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from rvpo.core.ragged import Family, Shape
from rvpo.core.state import plain
from rvpo.errors import RewardError
from rvpo.step.shards import Shards

if TYPE_CHECKING:
    from rvpo.step.aggregator import Aggregator


@dataclass(frozen=True)
class Met:
    """The result of :func:`meet`.

    Attributes:
        completions: number of rows in all ranks.
        families: rubrics, with the labels and the width over all ranks.
    """

    completions: int
    families: Sequence[Family]


def meet(
    shards: Shards,
    aggregator: Aggregator,
    rewards: Tensor,
    ids: Any,
    families: Sequence[Family],
    progress: float | None,
    learn: bool,
    tokens: Tensor | None,
) -> Met:
    """Begin a step.

    Args:
        shards: the ranks.
        aggregator: this rank's aggregator.
        rewards: (n, F) rewards of this rank.
        ids: n ids of groups, as the caller gave them; None if the rows of a group are a block.
        families: rubrics of this rank.
        progress: the caller's ``progress``.
        learn: the caller's ``learn``.
        tokens: the caller's ``tokens``.

    Raises:
        RewardError: rewards need a gradient, no rank has a row, or a group has rows in two ranks.
        ConfigError: ranks have different options, progress or memory.
    """
    if rewards.requires_grad:
        raise RewardError(
            "rewards need a gradient, but a process group exchanges only numbers; expected rewards without a gradient. "
            "Pass rewards.detach(), or gather the rewards and leave process_group out"
        )
    values = {
        "the configuration": _options(aggregator),
        "progress, learn or what was given": json.dumps(
            {"progress": progress, "learn": learn, "tokens": tokens is not None, "steps": aggregator.steps}
        ),
        "the memory": _memory(aggregator),
    }
    has_ids = ids is not None and len(rewards) > 0
    completions, with_families, with_ids = shards.agree(values, [len(rewards), bool(families), has_ids])
    if not completions:
        shards.refuse(
            RewardError("no rank has a row; expected at least one completion. Leave a step without completions out")
        )
    if with_ids:
        _require_whole_groups(shards, ids if has_ids else [])
    return Met(int(completions), _shared(shards, families, rewards, aggregator.names) if with_families else families)


def _options(aggregator: Aggregator) -> str:
    """Return the options that must be the same on all ranks, as text."""
    names, reliability, structures = aggregator.names, aggregator.reliability, aggregator.structures
    return json.dumps(
        {
            "method": str(aggregator.config),
            "numbers": [aggregator.config.eps, aggregator.config.ddof, aggregator.config.missing],
            "wanted": list(aggregator.config.wanted),
            "names": list(names),
            "ranges": [list(r) if r else None for r in aggregator.ranges],
            "label_ranges": sorted((name, list(r)) for name, r in aggregator.label_ranges.items()),
            "weights": [str(weight) for weight in aggregator.weights],
            "structures": structures.to_record() if structures else None,
            "solved": list(aggregator.solved),
            "reliability": None if reliability is None else [sorted(reliability.given.items()), reliability.twice],
        }
    )


def _memory(aggregator: Aggregator) -> str:
    """Return the memory as text before the first step of a process, and "" after it.

    Ranks that begin with the same memory keep the same memory, so one check is enough.
    """
    return "" if aggregator.steps else json.dumps(plain(aggregator.state_dict()), sort_keys=True)


def _require_whole_groups(shards: Shards, ids: Any) -> None:
    """Refuse a group that has rows in two ranks."""
    given = ids.tolist() if hasattr(ids, "tolist") else list(ids)
    own = {_number_of(name): name for name in dict.fromkeys(given)}
    every, _ = shards.joined(torch.tensor(list(own), dtype=torch.int64))
    numbers, counts = torch.unique(every, return_counts=True)
    torn = numbers[counts > 1]
    if not len(torn):
        return
    number = int(torn[0])
    names = shards.values_of_all(repr(own[number])[:100] if number in own else None)
    ranks = [rank for rank, name in enumerate(names) if name is not None]
    shards.refuse(
        RewardError(
            f"group {names[ranks[0]]} has rows in ranks {', '.join(map(str, ranks))}; expected all completions of a "
            "prompt in one rank, because they are compared with each other. Give each prompt an id that is unique over "
            "all ranks, such as (rank, number), or num_generations if rows lie in blocks. If a prompt is really split, "
            "gather the rewards and leave process_group out"
        )
    )


def _number_of(name: Any) -> int:
    """Return an id as a number of 63 bits that is the same in all processes.

    Raises:
        RewardError: the id is not a number, a text or a tuple of these.
    """
    if isinstance(name, float) and name.is_integer():
        name = int(name)
    if isinstance(name, int) and abs(name) < 2**62:
        return int(name)
    if not _is_data(name):
        raise RewardError(
            f"a group id is a {type(name).__name__}; expected numbers, texts or tuples of these, which ranks can "
            "compare. Give str(id), or num_generations if rows lie in blocks"
        )
    digest = hashlib.blake2b(repr(name).encode("utf-8", "surrogatepass"), digest_size=8).digest()
    return int.from_bytes(digest, "big") >> 1


def _is_data(name: Any) -> bool:
    if isinstance(name, tuple):
        return all(map(_is_data, name))
    return isinstance(name, str | bytes | int | float)


def _shared(shards: Shards, families: Sequence[Family], rewards: Tensor, names: Sequence[str]) -> list[Family]:
    """Return the rubrics that any rank has, with the labels and the width over all ranks."""
    own = {family.name: family for family in families}
    described: list[dict[str, Any]] = shards.values_of_all({family.name: _described(family) for family in families})
    found = []
    for name in [name for name in names if any(name in one for one in described)]:
        parts = [one[name] for one in described if name in one]
        labels = dict.fromkeys(tuple(labels) for part in parts for labels in part["labels"])
        shape = Shape(max(part["width"] for part in parts), list(labels))
        family = own.get(name)
        if family is None:
            column = rewards[:, list(names).index(name)]
            if not bool(column.isnan().all()):
                raise RewardError(
                    f"{name!r} is a number in this rank, but a rubric in another one; expected a rubric in all rows, "
                    "or None"
                )
            family = Family(name, [[]] * len(rewards), parts[0]["only_monitored"])
        found.append(replace(family, shape=shape))
    return found


def _described(family: Family) -> dict[str, Any]:
    labels = dict.fromkeys(score.labels for row in family.rows for score in row)
    return {
        "width": max(map(len, family.rows), default=0),
        "labels": [list(each) for each in labels],
        "only_monitored": family.only_monitored,
    }
