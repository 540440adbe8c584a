"""Our advantage estimator in verl: one estimator, registered under one name for all methods.

verl calls an estimator with token-level rewards from one number per completion. So the trainer first sets a function
that returns the advantages of this batch (:func:`handing_over`). The estimator copies them to the tokens.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

from torch import Tensor
from verl.trainer.ppo.core_algos import register_adv_est

from rvpo.engines.verl.spelling import REGISTERED
from rvpo.errors import EngineError

_advantages: ContextVar[Callable[[Tensor], Tensor]] = ContextVar("advantages of the batch")


@contextmanager
def handing_over(advantages: Callable[[Tensor], Tensor]) -> Iterator[None]:
    """Within the context, the estimator gets a batch's advantages from ``advantages``: response mask (B, T) -> (B,)."""
    token = _advantages.set(advantages)
    try:
        yield
    finally:
        _advantages.reset(token)


def estimate(token_level_rewards: Tensor, response_mask: Tensor, **_: Any) -> tuple[Tensor, Tensor]:
    """Return advantages and returns, both (B, T): each row's advantage on its response tokens, 0 elsewhere.

    Raises:
        EngineError: the estimator is not called by our trainer, which has the rewards.
    """
    try:
        advantages = _advantages.get()
    except LookupError:
        raise EngineError(
            "the single rewards did not reach the estimator, because verl's own trainer is running: start with "
            "`python -m rvpo.verl` instead of `python -m verl.trainer.main_ppo`. Keep all other arguments"
        ) from None
    tokens = advantages(response_mask).to(token_level_rewards)[:, None] * response_mask
    return tokens, tokens


register_adv_est(REGISTERED)(estimate)
