"""How the ranks of a process group meet when a step begins: what they have to know of each other's rows.

Ranks agree on options, progress and memory, find out how many completions there are, and whether a group lies in two of
them. Where there are rubrics, they tell each other which labels these have, so that all of them lay out the same
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
    """What ranks know of each other.

    Attributes:
        completions: number of rows in all ranks.
        families: rubrics, with the labels and the width that they have in all ranks.
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
        aggregator: of this rank.
        rewards: (n, F) of this rank.
        ids: n ids of groups as given; None if rows lie in blocks.
        families: of this rank.
        progress: as given, like the others.
        learn: see above.
        tokens: see above.

    Raises:
        RewardError: rewards that need a gradient, no rank has a row, or a group lies in two ranks.
        ConfigError: ranks have other options, progress or memories.
    """
    if rewards.requires_grad:
        raise RewardError(
            "rewards need a gradient, but a process group exchanges numbers alone; expected rewards without one. Pass "
            "rewards.detach(), or gather the rewards and leave process_group out"
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
    """Return what has to be the same on all ranks, as text."""
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
    """Return what is remembered, as text, before the first step of a process; the same follows from the same."""
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
    told = shards.told(repr(own[number])[:100] if number in own else None)
    ranks = [rank for rank, name in enumerate(told) if name is not None]
    shards.refuse(
        RewardError(
            f"group {told[ranks[0]]} has rows in ranks {', '.join(map(str, ranks))}; expected all completions of a "
            "prompt in one rank, because they are compared with each other. Give each prompt an id of its own over all "
            "ranks, such as (rank, number), or num_generations if rows lie in blocks; if a prompt is really split, "
            "gather the rewards and leave process_group out"
        )
    )


def _number_of(name: Any) -> int:
    """Return an id as a number of 63 bits that is the same in all processes.

    Raises:
        RewardError: it is not data.
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
    """Return the rubrics that any rank has, with what all ranks know of them."""
    own = {family.name: family for family in families}
    told: list[dict[str, Any]] = shards.told({family.name: _told_of(family) for family in families})
    found = []
    for name in [name for name in names if any(name in one for one in told)]:
        parts = [one[name] for one in told if name in one]
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


def _told_of(family: Family) -> dict[str, Any]:
    labels = dict.fromkeys(score.labels for row in family.rows for score in row)
    return {
        "width": max(map(len, family.rows), default=0),
        "labels": [list(each) for each in labels],
        "only_monitored": family.only_monitored,
    }
