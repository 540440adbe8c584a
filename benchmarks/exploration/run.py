"""Is a collapse of exploration called, and a healthy run left alone?

    python benchmarks/exploration/run.py --runs 100 --seed 0

A policy answers questions by one of several ways, softmax(shared + own[question]), trained by REINFORCE with GRPO's
advantages on whether the way is right. Each question has its own right ways, and some ways are right more often.

* **collapses**: only what all questions share is trained, so the policy ends with the way that is right most often,
  for all questions. Those of which it is not right are solved by none.
* **clean**: each question learns its own way. Worlds differ: how far the policy was warm-started, how often a right way
  fails all the same, up to 8% of questions that nobody can solve, an entropy bonus, whether training is long enough.
* **harder**: as clean, but a third of the questions, which are out of reach, come only in the second half of the
  training. Rewards alone look like a collapse; the entropy of the questions that are learned falls as well, so this
  kind says what is mistaken, and is not one of the clean runs.

Sizes, learning rates and whether the entropy is logged are drawn for every run. Runs are independent of each other.
"""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from rvpo.diagnose.exploration import Exploration, explored
from rvpo.diagnose.questions import Lines, count_questions, merged, seen_of
from rvpo.diagnose.sums import point_of_steps
from rvpo.logs.entropy import Entropy
from rvpo.logs.run import LoggedBatch, Run

KINDS = ("collapses", "clean", "harder")
QUESTIONS, WAYS = 64, 8


def run_of(kind: str, seed: int) -> tuple[Run, Entropy | None, list[float]]:
    """Train a policy; return its logs, the entropy if it is logged, and what it solves greedily at each step."""
    rng = np.random.default_rng([seed, KINDS.index(kind)])
    size, prompts = int(rng.choice([4, 8, 16])), int(rng.choice([8, 16, 32]))
    steps = int(rng.integers(60, 240))
    popular = rng.uniform(0.1, 0.4, WAYS)
    popular[rng.integers(WAYS)] = rng.uniform(0.5, 0.85)
    right = rng.random((QUESTIONS, WAYS)) < popular
    right[np.arange(QUESTIONS), rng.integers(WAYS, size=QUESTIONS)] = True
    fails, entropy_bonus = 0.0, 0.0
    shared, own = np.zeros(WAYS), np.zeros((QUESTIONS, WAYS))
    rate_shared, rate_own = float(rng.uniform(1.0, 4.0)), 0.0
    impossible = np.zeros(QUESTIONS, dtype=bool)
    if kind != "collapses":
        rate_shared, rate_own = 0.0, float(rng.uniform(0.3, 3.0))
        fails = float(rng.choice([0.0, 0.02, 0.1]))
        entropy_bonus = float(rng.choice([0.0, 0.01]))
        own += right * float(rng.uniform(0.0, 2.0))
        impossible[: int(rng.integers(0, 6))] = True  # up to 8%
    late = np.zeros(QUESTIONS, dtype=bool)
    if kind == "harder":
        late[-QUESTIONS // 3 :] = True
        impossible |= late
    right[impossible] = False
    batches: list[LoggedBatch] = []
    entropies, greedy = {}, []
    for step in range(1, steps + 1):
        reachable = np.flatnonzero(~late | (step > steps / 2))
        asked = rng.choice(reachable, prompts, replace=prompts > len(reachable))
        logits = shared + own[asked]
        p = np.exp(logits - logits.max(1, keepdims=True))
        p /= p.sum(1, keepdims=True)
        ways = (p.cumsum(1)[:, None] < rng.random((prompts, size))[..., None]).sum(-1).clip(max=WAYS - 1)
        reward = (np.take_along_axis(right[asked], ways, 1) & (rng.random(ways.shape) >= fails)).astype(float)
        advantage = (reward - reward.mean(1, keepdims=True)) / (reward.std(1, ddof=1, keepdims=True) + 1e-4)
        push = np.eye(WAYS)[ways] - p[:, None]
        gradient = (advantage[..., None] * push).mean(1)
        log_p = np.log(p + 1e-12)
        entropy = -(p * log_p).sum(1)
        gradient += entropy_bonus * -p * (log_p + entropy[:, None])
        shared += rate_shared * gradient.mean(0)
        np.add.at(own, asked, rate_own * gradient)
        entropies[step] = float(entropy.mean())
        greedy.append(float(right[np.arange(QUESTIONS), (shared + own).argmax(1)].mean()))
        batches.append(
            LoggedBatch(
                step,
                reward.reshape(-1, 1),
                np.repeat(np.arange(prompts), size),
                np.zeros(1, dtype=np.int64),
                advantage.flatten(),
            )
        )

    def read(texts: bool) -> Iterator[LoggedBatch]:
        del texts
        return iter(batches)

    run = Run(Path(f"{kind}-{seed}"), "table", ("right",), tuple(range(1, steps + 1)), read)
    logged = bool(rng.random() < 0.5)
    return run, Entropy(entropies, "entropy", Path("metrics.jsonl")) if logged else None, greedy


def look(run: Run, entropy: Entropy | None) -> Exploration:
    """Return what a diagnosis says of the run's exploration."""
    lines = Lines(merged(seen_of(batch, run) for batch in run.batches()), run.ranges)
    point_of = point_of_steps(run.steps)
    return explored(count_questions(run, lines, point_of), run.channels, lines, point_of, entropy)


def main() -> None:
    """Print one line per kind of run, and each mistake."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=100, help="of each kind")
    parser.add_argument("--seed", type=int, default=0, help="of the first run")
    args = parser.parse_args()
    for kind in KINDS:
        found: Counter[str] = Counter()
        for seed in range(args.seed, args.seed + args.runs):
            run, entropy, greedy = run_of(kind, seed)
            told = look(run, entropy)
            found[f"{told.verdict}{', entropy logged' if entropy else ''}"] += 1
            if (told.verdict in ("collapses", "stalls")) != (kind == "collapses"):
                print(f"  {kind} {seed}: {told.verdict}; {len(run.steps)} steps, greedy {greedy[-1]:.2f}; {told.rule}")
        print(f"{kind}: {', '.join(f'{name} {count}' for name, count in sorted(found.items()))}", flush=True)


if __name__ == "__main__":
    main()
