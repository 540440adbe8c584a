"""Cases for process groups, and one of four gloo ranks that runs them all and writes what it got.

``tests/step/test_shards.py`` starts the ranks, once for all tests, and compares with the gathered rewards.

    RANK=2 python -m shard_ranks FOLDER
"""

from __future__ import annotations

import json
import logging
import math
import os
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

import rvpo
from rvpo.core.methods.registry import METHODS
from rvpo.core.ragged import Family, Score
from rvpo.step.trust import Again, Reliability

RANKS = 4
NAMES = ["a", "b", "c"]
EXACT = 1e-11
"""Difference of advantages in double precision: sums are added in another order."""
METRIC = 1e-8


@dataclass
class Part:
    """What one rank hands in at one step."""

    rewards: Any
    groups: Any = None
    num_generations: int | None = None
    families: list[Family] = field(default_factory=list)
    tokens: Tensor | None = None
    again: Again | None = None

    def call(self, aggregator: rvpo.Aggregator, **more: Any) -> Any:
        return aggregator(
            self.rewards,
            groups=self.groups,
            num_generations=self.num_generations,
            families=self.families,
            tokens=self.tokens,
            again=self.again,
            **more,
        )


def joined(parts: list[Part]) -> Part:
    """Return the gathered batch, in the order of the ranks."""
    rewards = [part.rewards for part in parts]
    blocks = [part.num_generations for part in parts if len(part.rewards)]
    is_blocks = blocks[0] is not None
    whole: Any = torch.cat(rewards) if isinstance(rewards[0], Tensor) else [row for part in rewards for row in part]
    families = []
    for name in dict.fromkeys(family.name for part in parts for family in part.families):
        found = [next((f for f in part.families if f.name == name), None) for part in parts]
        rows: list[Any] = []
        for part, family in zip(parts, found, strict=True):
            rows += family.rows if family else [[]] * len(part.rewards)
        families.append(Family(name, rows, next(f for f in found if f).only_monitored))
    again = None
    if any(part.again for part in parts):
        starts = [sum(len(part.rewards) for part in parts[:i]) for i in range(len(parts))]
        own = [(part.again, start) for part, start in zip(parts, starts, strict=True) if part.again]
        again = Again(
            [start + row for each, start in own for row in each.rows], torch.cat([each.rewards for each, _ in own]), []
        )
    return Part(
        whole,
        None if is_blocks else [name for part in parts for name in part.groups],
        blocks[0] if is_blocks else None,
        families,
        None if parts[0].tokens is None else torch.cat([part.tokens for part in parts]),  # type: ignore[misc]
        again,
    )


def blocks(seed: int, ranks: int, dtype: torch.dtype = torch.float64, spread: float = 1.0) -> list[Part]:
    """Rows in blocks of 4 on 3 channels; ranks have different numbers of groups."""
    random = torch.Generator().manual_seed(seed)
    parts = []
    for rank in range(ranks):
        rewards = torch.rand(4 * (2 + rank % 2), 3, generator=random, dtype=torch.float64) * spread
        rewards[:, 0] = (rewards[:, 0] > 0.6 * spread).double()
        parts.append(Part(rewards.to(dtype), num_generations=4))
    return parts


def ragged(seed: int, ranks: int, kind: str = "shares") -> list[Part]:
    """Groups of 1 to 5 rows with texts as ids, missing rewards and dead channels; the third rank has no rows."""
    random = torch.Generator().manual_seed(seed)
    parts = []
    for rank in range(ranks):
        sizes = [] if rank == 2 else [int(x) for x in torch.randint(1, 6, (3 + rank,), generator=random)]
        rows = sum(sizes)
        rewards = torch.rand(rows, 3, generator=random, dtype=torch.float64)
        rewards[:, 1] = (rewards[:, 1] > 0.7).double()
        if kind == "discrete":
            rewards[:, 1:] = (rewards[:, 1:] * 7 - 3).round()
        elif kind == "wide":
            rewards[:, 0] = rewards[:, 0] * 40 - 5
            rewards[:, 2] = torch.randn(rows, generator=random, dtype=torch.float64) * 3
        rewards[torch.rand(rows, 3, generator=random) < 0.15] = math.nan
        ids = [f"{rank}/{i}" for i, size in enumerate(sizes) for _ in range(size)]
        order = torch.randperm(rows, generator=random).tolist()
        first = [name.endswith("/1") for name in ids]
        rewards[torch.tensor(first, dtype=torch.bool), 2] = 0.5  # dead in one group of each rank
        parts.append(
            Part(
                rewards[order].reshape(-1, 3),
                [ids[i] for i in order],
                tokens=torch.randint(1, 50, (rows,), generator=random),
            )
        )
    return parts


def rubrics(seed: int, ranks: int, as_families: bool = False) -> list[Part]:
    """A number and a rubric; the second rank alone has the label "tone", the third no rubric at all."""
    random = torch.Generator().manual_seed(seed)

    def number() -> float | None:
        x = float(torch.rand((), generator=random))
        return None if x < 0.1 else round(x, 3)

    parts = []
    for rank in range(ranks):
        criteria = {0: 2, 1: 4, 2: 0}.get(rank, 3)
        rows, families, index = [], [], []
        for group in range(2 + rank):
            for _ in range(3):
                verdicts = {f"criterion {group}.{i}": number() for i in range(criteria)}
                rows.append({"a": number(), "b": None if as_families or not criteria else verdicts})
                labels = [("tone",) if rank == 1 and i % 2 else ("facts", f"rank{rank}") for i in range(criteria)]
                families.append(
                    [
                        Score(name, value, weight=1.0 + i, labels=labels[i])
                        for i, (name, value) in enumerate(verdicts.items())
                    ]
                )
                index.append((rank, group))
        has = as_families and criteria
        parts.append(Part(rows, index, families=[Family("b", families)] if has else []))
    return parts


class Spread(rvpo.Method):
    """A method of somebody's own that looks at the whole batch."""

    name = "spread"

    def __call__(self, batch: Any, state: Mapping[str, Any]) -> rvpo.Outcome:
        """Weigh z-scores by the median reward of the batch, which is not a sum."""
        scale = batch.attained.nanmedian() + batch.rewards.nanquantile(0.8)
        seen = state.get("seen", 0) + len(batch.z)
        return rvpo.Outcome(scale * batch.z.sum(-1), batch.p, state={"seen": seen}, metrics={"k": float(scale)})


def softest(z: Tensor, p: Tensor) -> Tensor:
    """A function as a method, which reads all rows."""
    return (p * z).sum(-1) * (1 + z.abs().median())


Steps = Callable[[int], list[list[Part]]]
"""Number of ranks -> what each rank hands in, by step."""


@lru_cache
def mixed(ranks: int) -> list[list[Part]]:
    return [ragged(1, ranks), ragged(2, ranks), ragged(3, ranks, "discrete"), ragged(4, ranks, "wide")]


@lru_cache
def in_blocks(ranks: int) -> list[list[Part]]:
    return [blocks(seed, ranks) for seed in range(3)]


@dataclass(frozen=True)
class Case:
    """One aggregator and some steps."""

    method: Any
    steps: Steps = mixed
    options: Mapping[str, Any] = field(default_factory=dict)
    names: tuple[str, ...] = tuple(NAMES)
    progress: float | None = None
    ranks: int = RANKS
    tolerance: float = EXACT
    metric: float = METRIC
    ignored: str = " "
    """End of the names of metrics that are not compared."""

    def learns(self, number: int) -> tuple[bool, ...]:
        """Return whether a step is learned from; one of them is evaluated before."""
        return (False, True) if number == 1 else (True,)

    def build(self, process_group: Any = None) -> rvpo.Aggregator:
        options = dict(self.options)
        if "reliability" in options:  # it keeps a memory of its own
            options["reliability"] = options["reliability"]()
        return rvpo.Aggregator(self.method, list(self.names), process_group=process_group, **options)


OF_METHOD = {"lagrangian": "lagrangian:thresholds={a:0.6,c:0.4}"}
RANGES = {"a": (0, 1), "b": (-3, 4), "c": (-9, 9)}


def again(ranks: int) -> list[list[Part]]:
    steps = [blocks(seed, ranks) for seed in range(3)]
    for parts in steps:
        for rank, part in enumerate(parts):
            rows = [0, 3] if rank != 1 else []
            second = part.rewards[rows] + 0.1 * (rank + 1)
            part.again = Again(rows, second, [])
    return steps


def many(ranks: int) -> list[list[Part]]:
    """More channels than fit into one packet."""
    random = torch.Generator().manual_seed(5)
    return [
        [Part(torch.rand(8, 20, generator=random, dtype=torch.float64), num_generations=4) for _ in range(ranks)]
        for _ in range(2)
    ]


CASES: dict[str, Case] = {
    **{name: Case(OF_METHOD.get(name, name)) for name in METHODS},
    **{f"{name}, two ranks": Case(name, in_blocks, ranks=2) for name in ("lift", "rvpo", "riskpo", "grpo", "ctwa")},
    "adaptive k": Case("rvpo:k=adaptive"),
    "adaptive k by bottleneck": Case("rvpo:k=adaptive(measure=bottleneck,target=0.6)"),
    "scheduled k and weight": Case("rvpo:k=linear(0.5,2)", options={"weights": {"a": "linear(0.2,1)"}}, progress=0.3),
    "whiten by token": Case("rvpo:k=1,whiten=token"),
    "whiten within groups": Case("rvpo:k=1,whiten=group"),
    "whiten not": Case("lift:whiten=none"),
    "gdpo, missing as zero": Case("gdpo:unscored=zero"),
    "grpo over the batch": Case("grpo:whiten=batch"),
    "grpo, missing left out": Case("grpo:unscored=left_out,whiten=none"),
    "saw of grpo": Case("saw:of=grpo"),
    # Some of its advantages are 0 but for rounding, and this metric asks for their sign.
    "riskpo of lift": Case("riskpo:score=lift,bundle_size=2", ignored="/suppressed"),
    "riskpo of rvpo over batches": Case("riskpo:score={name:rvpo,k:2},quantiles=mix,leftover=drop,bundle_size=3"),
    "lift with floors": Case("lift:floors={a:0.6}"),
    "ranges": Case("lift", options={"ranges": RANGES}),
    "weights": Case("lift", options={"weights": {"a": 3.0, "b": 0.5}}),
    "weight 0": Case("gdpo", options={"weights": {"a": 0.0}}),
    "wanted": Case("gdpo", options={"wanted": ["c"]}),
    "monitor": Case("lift", options={"monitor": ["b"]}),
    "solved": Case("gdpo", options={"solved": ["a", "c"], "ranges": RANGES}),
    "structure": Case(
        "lift", options={"structure": ["only_where(c,a,threshold=0.5)", "gate(b,threshold=0.4)"], "ranges": RANGES}
    ),
    "all of": Case("rvpo:k=1", options={"structure": ["all_of(a,b)"], "ranges": RANGES, "monitor": ["c"]}),
    "reliability given": Case("lift", options={"reliability": lambda: Reliability({"a": 0.6})}),
    "reliability shrinks": Case("gdpo", options={"reliability": lambda: Reliability({"a": 0.6})}),
    "reliability learned": Case("lift", again, {"reliability": lambda: Reliability(twice=0.5)}),
    "rubrics": Case("lift", lambda n: [rubrics(s, n) for s in range(3)], names=("a", "b")),
    "rubrics with labels": Case("lift", lambda n: [rubrics(s, n, True) for s in range(3)], names=("a", "b")),
    "rubrics, labels, soft minimum": Case(
        "rvpo:k=1", lambda n: [rubrics(s, n, True) for s in range(3)], names=("a", "b")
    ),
    "rubrics, label wanted": Case(
        "gdpo", lambda n: [rubrics(s, n, True) for s in range(2)], {"wanted": ["b/tone"]}, ("a", "b")
    ),
    "rubrics, label monitored": Case(
        "ctwa", lambda n: [rubrics(s, n, True) for s in range(2)], {"monitor": ["b/facts"]}, ("a", "b")
    ),
    "many channels": Case("lift", many, names=tuple(f"c{i}" for i in range(20))),
    "single precision": Case(
        "lift", lambda n: [blocks(s, n, torch.float32) for s in range(3)], tolerance=1e-6, metric=1e-5
    ),
    "single precision, large rewards": Case(
        "saw", lambda n: [blocks(s, n, torch.float32, 50.0) for s in range(3)], tolerance=1e-6, metric=1e-5
    ),
    "rare channels": Case("rvpo:k=2", lambda n: [blocks(s, n) for s in range(6)]),
    "own method": Case(Spread()),
    "own function": Case(softest),
    "own function, rubrics": Case(softest, lambda n: [rubrics(s, n, True) for s in range(2)], names=("a", "b")),
    "riskpo of own method": Case({"name": "riskpo", "score": Spread(), "bundle_size": 2}),
}


def ran(case: Case, rank: int, process_group: Any) -> dict[str, Any]:
    """Run a case, and return what each step gives and what is remembered in the end."""
    aggregator = case.build(process_group)
    steps = []
    for number, parts in enumerate(case.steps(case.ranks)):
        for learn in case.learns(number):
            out = parts[rank].call(aggregator, progress=case.progress, learn=learn)
            steps.append(
                {
                    "advantages": torch.as_tensor(out.advantages).tolist(),
                    "metrics": dict(out.metrics),
                    "responsibilities": out.result.responsibilities.tolist(),
                }
            )
    return {"steps": steps, "state": aggregator.state_dict()}


def resumed(rank: int, world: Any, pair: Any) -> dict[str, Any]:
    """Four ranks, then one process, then two ranks go on from each other's state."""
    four = rvpo.Aggregator("lift", NAMES, process_group=world)
    for parts in (ragged(1, 4), ragged(2, 4)):
        parts[rank].call(four)
    one = rvpo.Aggregator("lift", NAMES)
    one.load_state_dict(json.loads(json.dumps(four.state_dict())))
    found = {"one": joined(ragged(3, 4)).call(one).advantages.tolist()}
    if rank < 2:
        two = rvpo.Aggregator("lift", NAMES, process_group=pair)
        two.load_state_dict(json.loads(json.dumps(one.state_dict())))
        out = blocks(4, 2)[rank].call(two)
        found |= {"two": out.advantages.tolist(), "metrics": dict(out.metrics)}
    return found


def raised(call: Callable[[], Any]) -> str:
    """Return kind and text of what is raised; empty if nothing is."""
    try:
        call()
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    return ""


def refused(rank: int, world: Any) -> dict[str, str]:
    """Return what each rank raises in cases that cannot be done, and that it can go on afterwards."""
    texts: dict[str, str] = {}

    def build(method: Any = "lift", **options: Any) -> rvpo.Aggregator:
        return rvpo.Aggregator(method, NAMES, process_group=world, **options)

    rows = blocks(0, RANKS)[rank].rewards
    aggregator = build()
    ids = (
        ["same"] * 4 + [f"{rank}/other"] * (len(rows) - 4)
        if rank in (1, 3)
        else [(rank, i // 4) for i in range(len(rows))]
    )
    texts["torn group"] = raised(lambda: aggregator(rows, groups=ids))
    own = [rank] * len(rows)
    bad = rows.clone()
    if rank == 2:
        bad[3, 1] = math.inf
    texts["infinite reward"] = raised(lambda: aggregator(bad, groups=own))
    texts["no number"] = raised(
        lambda: aggregator([["x"] * 3] if rank == 1 else rows, groups=[0] if rank == 1 else own)
    )
    texts["nothing"] = raised(lambda: aggregator(rows[:0], groups=[]))
    texts["progress"] = raised(lambda: aggregator(rows, groups=own, progress=0.1 * rank))
    texts["learn"] = raised(lambda: aggregator(rows, groups=own, learn=rank != 3))
    texts["other options"] = raised(lambda: build(weights={"a": 2.0 if rank == 1 else 1.0})(rows, groups=own))
    texts["gradient"] = raised(lambda: aggregator(rows.clone().requires_grad_(rank == 0), groups=own))
    texts["object as id"] = raised(lambda: aggregator(rows, groups=[frozenset([rank])] * len(rows)))
    texts["number and rubric"] = raised(
        lambda: build()([{"a": 1.0, "b": {"x": 1} if rank == 0 else 0.5, "c": 0.0}] * 2, groups=[rank, rank])
    )

    class Failing(rvpo.Method):
        """Fails in one rank, in the middle of a step."""

        name, by_sums = "failing", True

        def __call__(self, batch: Any, state: Any) -> Any:
            batch.shards.sum(torch.ones(3))
            if rank == 3:
                raise ZeroDivisionError("nothing to divide by")
            batch.shards.sum(torch.ones(400))
            return rvpo.Outcome(batch.z.sum(-1), batch.p)

    texts["own error"] = raised(lambda: build(Failing())(rows, groups=own))
    other = build()
    if rank == 0:
        other.load_state_dict(
            {"method": "lift", "remembered": {"attained": {"names": ["a"], "total": [1.0], "weight": [1.0]}}}
        )
    texts["other memory"] = raised(lambda: other(rows, groups=own))
    texts["learned nothing"] = str(aggregator.state_dict()["remembered"])
    texts["goes on"] = raised(lambda: aggregator(rows, groups=own))
    texts["not a group"] = raised(lambda: rvpo.Aggregator("lift", NAMES, process_group="all"))
    return texts


def cost(rank: int, world: Any) -> dict[str, int]:
    """Return bytes that a step hands to the group, by number of groups in each rank."""
    found = {}
    for groups in (4, 400):
        aggregator = rvpo.Aggregator("lift", NAMES, process_group=world)
        for seed in range(2):
            random = torch.Generator().manual_seed(seed + rank)
            before = aggregator.shards.bytes
            aggregator(torch.rand(groups * 4, 3, generator=random), num_generations=4)
        found[str(groups)] = aggregator.shards.bytes - before
    return found


def main() -> None:
    rank, folder = int(os.environ["RANK"]), Path(sys.argv[1])
    torch.set_num_threads(1)
    logging.disable(logging.WARNING)
    dist.init_process_group(
        "gloo",
        store=dist.FileStore(str(folder / "store"), RANKS),
        rank=rank,
        world_size=RANKS,
        timeout=timedelta(seconds=120),
    )
    world, pair = dist.group.WORLD, dist.new_group([0, 1])
    results: dict[str, Any] = {"cases": {}}
    for name, case in CASES.items():
        if rank < case.ranks:
            try:
                results["cases"][name] = ran(case, rank, world if case.ranks == RANKS else pair)
            except Exception as error:
                results["cases"][name] = {"raised": f"{type(error).__name__}: {error}"}
    results["resumed"] = resumed(rank, world, pair)
    results["refused"] = refused(rank, world)
    results["cost"] = cost(rank, world)
    (folder / f"{rank}.json").write_text(json.dumps(results, default=str))
    dist.destroy_process_group()


if __name__ == "__main__":
    import shard_ranks  # under its own name, by which states know the functions of this file

    shard_ranks.main()
