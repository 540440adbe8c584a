"""Rewards of one prompt in, one advantage per completion out: the mean of the rewards, a soft minimum, and LIFT.

Needs the extra torch. Run it with: python examples/advantages.py
"""

import torch

import rvpo

CHANNELS = ["correct", "helpful", "safe"]
# One row per completion of the prompt, one column per reward. NaN marks a reward that could not be scored.
REWARDS = torch.tensor(
    [
        [1.0, 1.0, 0.0],  # brilliant, and unsafe
        [0.7, 0.6, 1.0],  # good on all three
        [0.3, 0.2, 1.0],
        [0.1, float("nan"), 1.0],
    ]
)


def main() -> None:
    """Print the advantages of every method, and which reward decided the first completion."""
    print("completion ", *range(len(REWARDS)), sep="\t")
    for method in ("grpo", "gdpo", "rvpo:k=1", "rvpo:k=4"):
        # gdpo: mean of the z-scores. rvpo: their soft minimum; the larger k, the closer to the worst reward.
        out = rvpo.advantages(REWARDS, num_generations=len(REWARDS), method=method)
        print(f"{method:<10}", *(f"{advantage:+.2f}" for advantage in out.advantages.tolist()), sep="\t")

    decided = rvpo.advantages(REWARDS, num_generations=len(REWARDS), method="rvpo:k=4").responsibilities[0]
    shares = ", ".join(f"{name} {share:.0%}" for name, share in zip(CHANNELS, decided.tolist(), strict=True))
    print(f"\nwhat decided completion 0 under rvpo:k=4: {shares}")


if __name__ == "__main__":
    main()
