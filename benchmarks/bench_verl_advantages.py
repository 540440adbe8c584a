"""Cost of verl's advantage step under our estimators, against verl's own GDPO function, on one thread.

Both get the same batch: what the reward function returned for each completion, keys and tags of verl's batch, the
response mask (N, 1024). Ours is everything that `python -m rvpo.verl` does in that step apart from fetching the rewards
from verl's TransferQueue: it sorts the rows into sessions, reads the channels, checks, aggregates, computes all metrics
and lays the advantages out over the tokens. Theirs is handed arrays and computes no metrics.

    .venv-verl/bin/python benchmarks/bench_verl_advantages.py
"""

from __future__ import annotations

import argparse
import json
import math
import platform
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

import numpy as np
import torch
from verl.trainer.ppo.core_algos import compute_gdpo_outcome_advantage

from rvpo.engines.verl.estimator import estimate, handing_over
from rvpo.engines.verl.options import VerlOptions
from rvpo.engines.verl.rows import Sessions, read_channels

LENGTH, GENERATIONS = 1024, 8


def seconds(run: Callable[[], object], repeats: int) -> float:
    times = []
    for _ in range(repeats):
        began = time.perf_counter()
        run()
        times.append(time.perf_counter() - began)
    return median(times)


def measure(rows: int, channels: int, method: str, repeats: int) -> dict[str, float]:
    generator = torch.Generator().manual_seed(rows + channels)
    names = [f"reward_{j}" for j in range(channels)]
    rewards = torch.rand(rows, channels, generator=generator, dtype=torch.float64)
    lengths = torch.randint(1, LENGTH + 1, (rows, 1), generator=generator)
    mask = (torch.arange(LENGTH) < lengths).long()
    zeros = torch.zeros(rows, LENGTH)
    uids = np.array([f"uid{i // GENERATIONS}" for i in range(rows)], dtype=object)

    config = {"gdpo_reward_keys": names}
    arrays = {name: rewards[:, j].numpy() for j, name in enumerate(names)}
    batch = {"prompts": zeros[:, :1], "attention_mask": torch.cat([torch.ones(rows, 1, dtype=torch.long), mask], 1)}

    def theirs() -> torch.Tensor:
        return compute_gdpo_outcome_advantage(zeros, mask, uids, config=config, non_tensor_batch=arrays, batch=batch)[0]

    keys = [f"{uid}_{i % GENERATIONS}_0" for i, uid in enumerate(uids)]
    tags: list[dict[str, object]] = [{} for _ in keys]
    index = [i // GENERATIONS for i in range(rows)]
    infos = [{"score": 0.0, **dict(zip(names, row, strict=True))} for row in rewards.tolist()]
    aggregator = VerlOptions(method=method, reward_keys=names, advantage_eps=1e-6).build()

    def ours() -> torch.Tensor:
        sessions = Sessions.read(keys, tags).in_order_of(index)
        values, families = read_channels(infos, names)

        def advantages(mask: torch.Tensor) -> torch.Tensor:
            tokens = sessions.total(mask.sum(1))
            done = aggregator(values, groups=sessions.groups, progress=0.5, tokens=tokens, families=families)
            return sessions.broadcast(done.advantages)

        with handing_over(advantages):
            return estimate(zeros, mask)[0]

    assert ours().shape == theirs().shape
    # In turns, so that both see the same machine.
    pairs = [(seconds(theirs, 1), seconds(ours, 1)) for _ in range(repeats)]
    return {
        "rows": rows,
        "channels": channels,
        "method": method,
        "verl_gdpo_ms": 1e3 * median(a for a, _ in pairs),
        "rvpo_ms": 1e3 * median(b for _, b in pairs),
        "ratio": median(b / a for a, b in pairs),
        "tokens_alone_ms": 1e3 * seconds(lambda: zeros[:, 0][:, None] * mask, repeats),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--json", type=Path, help="file for the numbers")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    print(
        f"{platform.processor() or platform.machine()}, torch {torch.__version__}, one thread, length {LENGTH}, G {GENERATIONS}"
    )
    print(f"{'N':>6} {'M':>4} {'method':<8} {'verl gdpo':>10} {'rvpo':>9} {'rvpo / verl':>12}")
    results = []
    for rows in (1024, 8192):
        for channels in (2, 17):
            for method in ("gdpo", "rvpo", "lift"):
                result = measure(rows, channels, method, arguments.repeats)
                assert math.isfinite(result["ratio"])
                results.append(result)
                print(
                    f"{rows:>6} {channels:>4} {method:<8} {result['verl_gdpo_ms']:>7.1f} ms {result['rvpo_ms']:>6.1f} ms "
                    f"{result['ratio']:>11.2f}x"
                )
    if arguments.json:
        arguments.json.write_text(json.dumps(results, indent=1), "utf-8")


if __name__ == "__main__":
    main()
