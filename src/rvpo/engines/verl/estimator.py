"""verl's seam for advantages: an estimator, registered under ``rvpo:{method}``.

verl calls an estimator with token-level rewards of one scalar a completion. The trainer therefore says beforehand how
the advantages of this batch are had (:func:`handing_over`); the estimator lays them out over the tokens.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import torch
from torch import Tensor
from verl.trainer.ppo.core_algos import register_adv_est

from rvpo.core.config import METHODS
from rvpo.engines.verl.config import registered_name
from rvpo.errors import EngineError

_advantages: ContextVar[Callable[[Tensor], Tensor]] = ContextVar("advantages of the batch")


@contextmanager
def handing_over(advantages: Callable[[Tensor], Tensor]) -> Iterator[None]:
    """Let the estimator take the advantages of a batch from ``advantages``: response mask (B, T) -> (B,)."""
    token = _advantages.set(advantages)
    try:
        yield
    finally:
        _advantages.reset(token)


def estimate(token_level_rewards: Tensor, response_mask: Tensor, **_: Any) -> tuple[Tensor, Tensor]:
    """Return advantages and returns, both (B, T): each row's advantage on its response tokens, 0 elsewhere.

    Raises:
        EngineError: outside of our trainer, which has the rewards.
    """
    try:
        advantages = _advantages.get()
    except LookupError:
        raise EngineError(
            "the single rewards did not reach the estimator, because verl's own trainer is running: start with "
            "`python -m rvpo.verl` instead of `python -m verl.trainer.main_ppo`, all else stays"
        ) from None
    tokens = advantages(response_mask).to(token_level_rewards)[:, None] * response_mask
    return tokens, tokens


for _method in METHODS:
    register_adv_est(registered_name(_method))(estimate)


def whiten_by_token(aggregated: Tensor, takes_part: Tensor, response_mask: Tensor) -> Tensor:
    """Whiten as verl does: each row counts as often as it has response tokens.

    With n_i tokens in row i: mean m = sum n_i a_i / sum n_i, variance v = sum n_i (a_i - m)^2 / (sum n_i - 1), and
    (a - m) / sqrt(v + 1e-8), as ``verl.utils.torch_functional.masked_whiten`` on the values spread over the tokens.
    verl whitens the sum of z-scores, we their weighted mean: only the 1e-8 weighs differently.

    Args:
        aggregated: (B,) the rule's value of each row.
        takes_part: (B,) bool, the rows that count; others get 0.
        response_mask: (B, T).

    Returns:
        (B,) in the dtype of ``aggregated``; all 0 where fewer than two tokens count.
    """
    n = response_mask.sum(1).to(aggregated) * takes_part
    total = n.sum()
    if total < 2:
        return torch.zeros_like(aggregated)
    centred = aggregated - (n * aggregated).sum() / total
    variance = (n * centred.square()).sum() / (total - 1)
    return (centred * torch.rsqrt(variance + 1e-8)).masked_fill(~takes_part, 0.0)
