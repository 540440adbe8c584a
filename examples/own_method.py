"""A method of your own is a function in a file: here the mean of each completion's two worst z-scores.

Nothing is registered. Every place that takes a method takes `own_method.py:worst_two`, and its keyword arguments are
options. Needs the extra torch. Run it with: python examples/own_method.py
Check it with: rvpo check examples/own_method.py:worst_two
"""

from pathlib import Path

import torch

import rvpo


def worst_two(z: torch.Tensor, p: torch.Tensor, *, second: float = 1.0) -> torch.Tensor:
    """Return the weighted mean of the lowest z-score and the second lowest, whose weight is `second`.

    Args:
        z: z-scores (N, M) of N completions in M channels.
        p: shares (N, M) of the channels; 0 where a channel is missing or ranks nothing, and must not count.
        second: weight of the second lowest z-score relative to the lowest.
    """
    present = p > 0
    lowest = z.masked_fill(~present, torch.inf).sort(dim=1).values[:, :2]
    weights = torch.tensor([1.0, second], dtype=z.dtype)[: lowest.shape[1]] * lowest.isfinite()
    total = (weights * lowest.nan_to_num(posinf=0.0)).sum(dim=1)
    return total / weights.sum(dim=1).clamp(min=1e-12)


def main() -> None:
    """Compare it with methods of the package on random rewards."""
    rewards = torch.rand(4, 5, generator=torch.Generator().manual_seed(0))
    here = Path(__file__)
    for method in ("gdpo", "hard_min", f"{here}:worst_two", f"{here}:worst_two:second=0"):
        out = rvpo.advantages(rewards, num_generations=4, method=method)
        print(f"{method.replace(str(here), here.name):<28}", [round(value, 2) for value in out.advantages.tolist()])


if __name__ == "__main__":
    main()
