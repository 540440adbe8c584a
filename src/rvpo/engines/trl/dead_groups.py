"""``skip_dead_groups``: skips the forward and backward pass of completions with advantage 0. The gradient is the same.

A completion with advantage 0 adds nothing to the policy gradient, because every loss of TRL multiplies each
completion's term by its advantage. So its row is left out of the micro-batch, and the loss is scaled as if the row were
there. The normaliser is still that of all completions:

=====================================  ==============================================  ==========================
``loss_type``                          TRL divides by                                  scale of the smaller batch
=====================================  ==============================================  ==========================
``grpo``, ``sapo``, ``dr_grpo``,       the number of rows                              kept rows / rows
``luspo``
``bnpo``                               the tokens of the micro-batch                   kept tokens / tokens
``dapo``, ``cispo``, ``vespo``         the tokens of the generation, which it carries  1
=====================================  ==============================================  ==========================

If all advantages are 0, one row is kept. All processes keep the same number of rows, because they exchange gradients
and metrics. TRL's own metrics of the loss (``entropy``, ``clip_ratio/…``) are then means over the kept rows.

The option is refused if a row with advantage 0 can have a gradient: with a KL penalty, an entropy bonus, an entropy
quantile, an auxiliary loss of a mixture of experts, or a custom loss. It is also refused with images, because their
tensors do not have one row per completion.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from trl import GRPOTrainer

from rvpo.errors import ConfigError, EngineError
from rvpo.step.aggregator import Aggregated

OPTION = "skip_dead_groups"
ROUNDING = 1e-6
"""For a completion without signal, an advantage below this share of the largest one is a rounding error of 0."""

BY_ROWS = ("grpo", "sapo", "dr_grpo", "luspo")
BY_TOKENS_OF_BATCH = ("bnpo",)
BY_TOKENS_OF_GENERATION = ("dapo", "cispo", "vespo")


def check_skipping(trainer: Any) -> None:
    """Refuse ``skip_dead_groups`` if leaving rows out would change the gradient.

    Raises:
        ConfigError: it would change, or this is not known.
    """
    known = (*BY_ROWS, *BY_TOKENS_OF_BATCH, *BY_TOKENS_OF_GENERATION)
    own = [cls.__name__ for cls in type(trainer).__mro__ if {"_compute_loss", "compute_loss"} & vars(cls).keys()]
    own = own[: own.index(GRPOTrainer.__name__)] if GRPOTrainer.__name__ in own else own
    own = [name for name in own if name != "RVPOMixin"]
    problems = {
        f"beta is {trainer.beta}, whose KL penalty acts on every completion": trainer.beta != 0,
        # TRL has these two since 1.8.
        "an entropy bonus (entropy_coef) acts on every completion": getattr(trainer, "_entropy_bonus_enabled", False),
        f"top_entropy_quantile is {trainer.top_entropy_quantile}, a quantile over every completion": (
            trainer.top_entropy_quantile < 1
        ),
        "the auxiliary loss of a mixture of experts acts on every completion": getattr(
            trainer, "aux_loss_enabled", False
        ),
        f"loss_type is {trainer.loss_type!r}, whose normaliser is not known here": trainer.loss_type not in known,
        f"{', '.join(own)} computes a loss of its own": bool(own),
    }
    for problem, holds in problems.items():
        if holds:
            raise ConfigError(
                f"{OPTION} is True, but {problem}; expected a loss to which a completion with advantage 0 adds "
                f"nothing. Drop {OPTION}, or that option"
            )


def without_rounding(done: Aggregated) -> Aggregated:
    """Return a batch in which the advantages of completions without signal are exactly 0.

    GDPO's whitening subtracts the mean of the batch, which is 0 up to rounding, also in groups without signal. Larger
    advantages are kept.
    """
    advantages = done.result.advantages
    rounded = ~done.result.signal & (advantages.abs() <= ROUNDING * advantages.abs().max())
    if not bool((rounded & (advantages != 0)).any()):
        return done
    advantages = advantages.masked_fill(rounded, 0.0)
    return dataclasses.replace(
        done, advantages=advantages, result=dataclasses.replace(done.result, advantages=advantages)
    )


def kept_rows(inputs: Mapping[str, Any], accelerator: Any) -> Tensor:
    """Return the indices (n,) of the rows of a micro-batch that are trained on, ascending. Collective.

    All rows whose advantage is not 0 are among them. The number is the same in every process, and at least one.
    """
    advantages = inputs["advantages"]
    alive = (advantages if advantages.ndim == 1 else advantages.abs().amax(1)) != 0
    count = alive.sum()
    if accelerator.num_processes > 1:
        count = accelerator.gather(count[None]).max()
    order = torch.argsort((~alive).int(), stable=True)
    return order[: max(int(count), 1)].sort().values


def smaller(inputs: Mapping[str, Any], rows: Tensor) -> dict[str, Any]:
    """Return a micro-batch with only the given rows.

    Raises:
        EngineError: a value does not have one row per completion.
    """
    total = len(inputs["completion_ids"])
    found: dict[str, Any] = {}
    for key, value in inputs.items():
        if value is None or (isinstance(value, Tensor) and value.ndim == 0):
            found[key] = value
        elif isinstance(value, Tensor) and len(value) == total and not key.startswith(("pixel_", "image_")):
            found[key] = value[rows]
        else:
            raise EngineError(
                f"{OPTION} is True, but {key!r} of TRL's batch is not laid out by completions, as with images; "
                f"expected one row per completion. Drop {OPTION}"
            )
    return found


def scale(loss_type: str, inputs: Mapping[str, Any], rows: Tensor) -> float | Tensor:
    """Return the factor that turns the loss of the kept rows into the loss of all rows; see the module."""
    if loss_type in BY_TOKENS_OF_GENERATION:
        return 1.0
    if loss_type in BY_ROWS:
        return len(rows) / len(inputs["completion_ids"])
    mask = inputs["completion_mask"]
    if inputs.get("tool_mask") is not None:
        mask = mask * inputs["tool_mask"]
    kept: Tensor = mask[rows].sum().clamp(min=1.0) / mask.sum().clamp(min=1.0)
    return kept
