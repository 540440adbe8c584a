"""Compare ``rvpo.core.methods.riskpo`` with RiskPO's released code, in every mode that it offers.

Needs one file that is not part of this project (Apache-2.0):

    git clone https://github.com/RTkenny/RiskPO
    python benchmarks/riskpo_vs_reference.py --reference RiskPO/verl/trainer/ppo/core_algos.py

One function is cut out of that file and executed, without importing the rest; so read the file before you run this.
The released tracking of quantiles is part of a training loop (verl/trainer/ppo/ray_trainer.py) and is restated here with
torch's SGD, in the reference's dtype.

Part 1, single batches: credit x quantiles x tail x normalise x anchored x baseline, with and without tracked quantiles;
binary and graded rewards, shuffled rows, questions of different size, an unfilled bundle. Part 2, tracking over many
steps: the state is carried by each side alone. Both are run with the reference in float64, where only rounding may
differ (exit code 1 above 1e-9), and in its own float32, for information. A difference is absolute, and relative where
the reference's advantage is above 1: a bundle of equal papers divides by 1e-6 there, and gives values near 1e6.

In float32 the tracked quantiles of binary rewards part by more than rounding: where a quantile comes back to a whole
number, its last bit decides whether the papers that tie with it are below, which moves it by up to quantile_lr.
"""

from __future__ import annotations

import argparse
import ast
import itertools
import sys
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Optional

import numpy as np
import torch
from torch import Tensor

from rvpo.core.groups import Groups
from rvpo.core.methods.riskpo import LEVELS, RiskPO, riskpo

NAME = "compute_grpo_bundle_rvar_outcome_advantage_quantile_tracking"
RELEASED = {"riskpo_eps": 1e-6, "std_floor": 0.0, "leftover": "sum"}  # what makes ours the released arithmetic
CREDIT = {"uniform": "uniform", "std": "std", "score": "score", "deviation": "sum-mean"}
TAILS = {"none": {"tail_weight": 0.0}, "lower": {"tail_weight": 1.5}, "seek": {"tail_weight": 0.7, "seek": True}}
TOLERANCE = 1e-9


def load(path: Path) -> Callable[..., Any]:
    """Cut the function out of the file and compile it with what it uses."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    function = next(node for node in tree.body if isinstance(node, ast.FunctionDef) and node.name == NAME)
    function.decorator_list = []
    namespace: dict[str, Any] = {
        "torch": torch, "np": np, "defaultdict": defaultdict, "Optional": Optional, "AlgoConfig": dict,
    }  # fmt: skip
    exec(compile(ast.Module([function], []), str(path), "exec"), namespace)  # the user fetched this file to run it
    return namespace[NAME]


@dataclass
class Batch:
    """Scores (N,) float64, the question of each row, the bundle of each row."""

    scores: Tensor
    questions: Tensor
    bundles: list[str]


def draw(rng: np.random.Generator, bundle_size: int, kind: str) -> Batch:
    """Draw questions of different difficulty; ``kind`` says how their rewards look and how the rows lie."""
    count = bundle_size * int(rng.integers(1, 5)) + (int(rng.integers(1, bundle_size)) if kind == "unfilled" else 0)
    generations = int(rng.integers(2, 10))
    sizes = rng.integers(1, generations + 1, count) if kind == "ragged" else np.full(count, generations)
    questions = np.repeat(np.arange(count), sizes)
    rate = rng.beta(0.5, 0.5, count).round(1)[questions]  # many questions are never or always solved
    scores = (rng.random(len(questions)) < rate).astype(float)
    if kind == "graded":
        scores = np.where(rate == 1, 1.0, rng.normal(rate, 0.5))
    # Shuffled rows keep the first row of each question in place, which is what orders the bundles.
    order = np.lexsort((rng.random(len(questions)), np.arange(len(questions)) != np.searchsorted(questions, questions)))
    order = order if kind == "shuffled" else np.arange(len(questions))
    if kind == "shuffled":
        firsts = np.sort(order[:count])
        order = np.concatenate([firsts, order[count:]])
    questions = questions[order]
    return Batch(torch.tensor(scores[order]), torch.tensor(questions), [f"b{q // bundle_size:03d}" for q in questions])


@dataclass
class Tracker:
    """The quantile tracking of the released training loop, restated."""

    config: RiskPO
    dtype: torch.dtype
    q: Tensor | None = None

    def values(self) -> dict[str, float | None]:
        """What the loop is meant to hand to the advantages of the next step."""
        if self.q is None:
            return {"q_track_down": None, "q_track_up": None, "g_rvar_avg": 0.0, "g_cvar_avg": 0.0}
        levels, q = torch.tensor(LEVELS, dtype=self.dtype), self.q.detach()
        low = q[(levels - self.config.lower).abs().argmin()].item()
        high = q[(levels - self.config.upper).abs().argmin()].item()
        spread = (q - low).clamp(min=0) - (q - high).clamp(min=0)
        if self.config.baseline == "anchored":
            spread = spread + (low - high)
        mixing = self.config.tail_weight > 0 and not self.config.seek
        tail = torch.trapz(-(low - q).clamp(min=0), levels).item() if mixing else 0.0
        return {
            "q_track_down": low, "q_track_up": high, "g_rvar_avg": torch.trapz(spread, levels).item(), "g_cvar_avg": tail,
        }  # fmt: skip

    def step(self, papers: Tensor) -> None:
        """Start with the quantiles of the first batch, then one step of SGD a batch."""
        levels = torch.tensor(LEVELS, dtype=self.dtype)
        if self.q is None:
            self.q = torch.nn.Parameter(torch.quantile(papers, levels))
            self.optimizer = torch.optim.SGD([self.q], lr=self.config.quantile_lr)
            return
        below = (papers.repeat(len(levels), 1) < self.q.detach().unsqueeze(1)).to(self.dtype).mean(dim=1)
        self.q.grad = -(levels - below)
        self.optimizer.step()
        self.optimizer.zero_grad()


def compare(function: Callable[..., Any], batch: Batch, tracker: Tracker, state: list[float] | None) -> tuple[Any, ...]:
    """Run both on one batch; return the difference (scaled), the largest reference value, our result, their papers."""
    config, scores = tracker.config, batch.scores.to(tracker.dtype)
    options = {
        "norm_adv_by_std_in_grpo": config.normalise,
        "quantile_down": config.lower,
        "quantile_up": config.upper,
        "credit_assign_mode": CREDIT[config.credit],
        "use_q_track_mode": config.quantiles,
        "use_mixing_risk_measure": config.tail_weight > 0 and not config.seek,
        "risk_seeking_upper_tail": config.seek,
        "upper_weight": config.tail_weight,
        "w_mix": config.tail_weight,
        "use_mean_as_baseline": config.baseline != "none",
        "natural_baseline_adv": config.anchored,
    }
    torch.set_default_dtype(tracker.dtype)  # the reference builds constants of its own
    theirs, _, papers = function(
        scores[:, None], torch.ones(len(scores), 1, dtype=tracker.dtype), index=batch.questions.tolist(),
        bundle_uid=batch.bundles, config=options, **tracker.values(),
    )  # fmt: skip
    torch.set_default_dtype(torch.float32)
    # Ours gets the float32 scores as well, so that only the arithmetic differs.
    ours = riskpo(scores.double(), Groups.from_ids(batch.questions, len(scores)), config, state)
    theirs = theirs[:, 0].double()
    gap = (ours.advantages - theirs).abs()
    return (
        (gap / theirs.abs().clamp(min=1)).max().item(),
        theirs.abs().max().item(),
        ours,
        torch.cat(list(papers.values())),
    )


def configs() -> list[dict[str, Any]]:
    keys = ("credit", "quantiles", "tail", "normalise", "anchored", "baseline")
    values = (CREDIT, ("track", "batch", "mix"), TAILS, (True, False), (True, False), ("none", "plain", "anchored"))
    return [dict(zip(keys, choice, strict=True)) for choice in itertools.product(*values)]


def build(choice: dict[str, Any], **more: Any) -> RiskPO:
    return RiskPO(**{k: v for k, v in choice.items() if k != "tail"} | TAILS[choice["tail"]] | RELEASED | more)


def single(
    function: Callable[..., Any], dtype: torch.dtype, cases: int, seed: int
) -> tuple[dict[str, float], int, float]:
    """Largest difference for each value of each option over all combinations; the number of batches; largest |A|."""
    rng = np.random.default_rng(seed)
    worst: dict[str, float] = defaultdict(float)
    batches, largest = 0, 0.0
    kinds = ("binary", "graded", "shuffled", "ragged", "unfilled")
    for choice in configs():
        for case in range(cases):
            kind = kinds[case % len(kinds)]
            config = build(choice, bundle_size=int(rng.integers(2, 6)), upper=float(rng.choice([0.8, 0.9])))
            batch, tracker, state = draw(rng, config.bundle_size, kind), Tracker(config, dtype), None
            if case // len(kinds) % 2 == 0:  # every other round without a state, as on the first step
                q = torch.tensor(np.sort(rng.normal(config.bundle_size / 2, 1, len(LEVELS)))).to(dtype)
                tracker.q, state = q, q.double().tolist()
            gap, size, *_ = compare(function, batch, tracker, state)
            batches, largest = batches + 1, max(largest, size)
            for name in (*(f"{key}={value}" for key, value in choice.items()), f"rewards={kind}"):
                worst[name] = max(worst[name], gap)
    return worst, batches, largest


def tracked(function: Callable[..., Any], dtype: torch.dtype, steps: int, seed: int) -> list[str]:
    """Carry the state over many steps; one row a run: differences of the quantiles, papers and advantages."""
    rows = []
    for kind, quantiles, baseline in itertools.product(("binary", "graded"), ("track", "mix"), ("none", "anchored")):
        rng = np.random.default_rng(seed)
        choice = {"credit": "std", "quantiles": quantiles, "tail": "lower", "normalise": True, "anchored": True}
        config = build({**choice, "baseline": baseline})
        tracker, state = Tracker(config, dtype), None
        gaps, drift, papers_gap = [], 0.0, 0.0
        for _ in range(steps):
            gap, _, ours, papers = compare(function, draw(rng, config.bundle_size, kind), tracker, state)
            tracker.step(papers)
            state = ours.state
            gaps.append(gap)
            papers_gap = max(papers_gap, (ours.paper_scores - papers.double()).abs().max().item())
            drift = max(
                drift, (torch.tensor(state, dtype=torch.float64) - tracker.q.detach().double()).abs().max().item()
            )
        rows.append(
            f"| {kind} | {quantiles} | {baseline} | {drift:.1e} | {papers_gap:.1e} | {max(gaps):.1e} | {np.median(gaps):.1e} |"
        )
    return rows


def explosions(function: Callable[..., Any]) -> str:
    """What a bundle of equal papers gets under tracked quantiles, from both, with our default floor."""
    config = RiskPO(quantiles="track")
    tracker, state = Tracker(config, torch.float64), [5 * level for level in LEVELS]
    tracker.q = torch.tensor(state, dtype=torch.float64)
    batch = Batch(torch.zeros(40, dtype=torch.float64), torch.arange(5).repeat_interleave(8), ["b"] * 40)
    _, size, ours, _ = compare(function, batch, tracker, state)
    return f"5 questions that nobody solves, quantiles tracked at 1 and 4: largest |A| {size:.3g} released, {ours.advantages.abs().max():.3g} ours"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--reference", type=Path, required=True, help="verl/trainer/ppo/core_algos.py of RTkenny/RiskPO"
    )
    parser.add_argument("--cases", type=int, default=10, help="batches a combination of options")
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    function = load(args.reference)
    failed = False

    results = {dtype: single(function, dtype, args.cases, args.seed) for dtype in (torch.float64, torch.float32)}
    (double, batches, largest), (single_precision, _, _) = results[torch.float64], results[torch.float32]
    print(f"{len(configs())} combinations, {batches} batches for each precision, largest released |A| {largest:.3g}\n")
    print("| option | largest difference, float64 | float32 |\n|---|---|---|")
    for name in double:
        print(f"| {name} | {double[name]:.1e} | {single_precision[name]:.1e} |")
        failed |= not double[name] <= TOLERANCE
    for dtype in (torch.float64, torch.float32):
        print(f"\n{args.steps} steps of tracking, reference in {dtype}\n")
        print(
            "| rewards | quantiles | baseline | quantiles differ | paper scores differ | advantages, largest | median |"
        )
        print("|---|---|---|---|---|---|---|")
        rows = tracked(function, dtype, args.steps, args.seed)
        print("\n".join(rows))
        if dtype == torch.float64:
            failed |= any(not float(cell) <= TOLERANCE for row in rows for cell in row.split("|")[4:7])
    print(f"\n{explosions(function)}")
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
