"""The two ways to call a function, and what it may return.

By completions::

    f(rewards (N, M), groups (N,), **options) -> (N,)

By tokens, as verl calls an estimator::

    f(token_level_rewards (B, T), response_mask (B, T), index (B,), config=, non_tensor_batch=, batch=, **options)
        -> (advantages (B, T), returns)

The function gets copies of its arguments. They are compared with the originals afterwards. So a function that writes
into its arguments is detected, and does not affect other calls.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from rvpo.conformance.target import Answer, CallError, Example

PROMPT_LENGTH = 2


class CallSettings(dict[str, Any]):
    """A config that can be read like verl's: ``config.get("key")``, ``config["key"]`` and ``config.key``."""

    def __getattr__(self, name: str) -> Any:
        """Return an option."""
        try:
            return self[name]
        except KeyError:
            raise AttributeError(f"the config of this check has no {name!r}; it has {', '.join(self)}") from None


def channel_names(channels: int) -> list[str]:
    """Return the channel names for a function that is called by tokens."""
    return [f"channel_{j}" for j in range(channels)]


def by_completions(
    function: Callable[..., Any], options: Mapping[str, Any], k_name: str | None
) -> Callable[[Example], Answer]:
    """Return a function of a batch that calls ``function(rewards, groups, **options)``."""

    def answer(example: Example) -> Answer:
        rewards, groups = example.rewards.clone(), example.groups.clone()
        keywords = dict(options)
        if k_name is not None and example.k is not None:
            keywords[k_name] = example.k
        returned = call(function, rewards, groups, **keywords)
        modified = [
            name
            for name, before, after in (("rewards", example.rewards, rewards), ("groups", example.groups, groups))
            if not same(before, after)
        ]
        advantages, dtype = read(returned, "advantages", (len(example.groups),))
        aggregated = _part(returned, "aggregated")
        if aggregated is not None:
            aggregated = read(aggregated, "aggregated", (len(example.groups),))[0]
        return Answer(advantages, dtype, aggregated, tuple(modified))

    return answer


def by_tokens(
    function: Callable[..., Any], options: Mapping[str, Any], k_name: str | None
) -> Callable[[Example], Answer]:
    """Return a function of a batch that calls ``function(token_level_rewards, response_mask, index, …)``.

    An option (also k) is passed as a keyword argument if the function has a parameter of that name. Otherwise it is
    passed in ``config``.
    """
    named, swallows = _parameters(function)

    def answer(example: Example) -> Answer:
        given = dict(options)
        if k_name is not None and example.k is not None:
            given[k_name] = example.k
        before, after = (_token_arguments(example, given, named, swallows) for _ in range(2))
        returned = call(function, **after)
        modified = [name for name, value in before.items() if not same(value, after[name])]
        if isinstance(returned, tuple) and returned:
            returned = returned[0]
        mask = before["response_mask"].bool()
        tokens, dtype = read(returned, "advantages", tuple(mask.shape))
        first = tokens[:, 0]
        varies = bool((~((tokens - first[:, None]).abs() <= 1e-6)).logical_and(mask).any())
        # Average over response tokens only if they differ: a mean of equal numbers can differ from them by rounding.
        mean = tokens.masked_fill(~mask, 0.0).sum(1) / mask.sum(1)
        return Answer(mean if varies else first, dtype, None, tuple(modified), varies)

    return answer


def call(function: Callable[..., Any], *arguments: Any, **keywords: Any) -> Any:
    """Call foreign code. Whatever it raises is a finding of the check, not a crash of the check."""
    try:
        return function(*arguments, **keywords)
    except (Exception, SystemExit) as error:
        raise CallError(f"{type(error).__name__}: {error}") from error


def read(returned: Any, part: str, shape: tuple[int, ...]) -> tuple[Tensor, torch.dtype]:
    """Return the value of ``part`` in a result as float64 on the CPU, and its original dtype.

    Raises:
        CallError: it is not a floating point array of that shape.
    """
    named = _part(returned, part)
    value = returned if named is None else named
    if isinstance(value, (list, tuple)) or (hasattr(value, "__array__") and not isinstance(value, Tensor)):
        try:
            value = torch.as_tensor(value)
        except (TypeError, ValueError) as error:
            raise CallError(f"it returned a {type(value).__name__} that is not an array of numbers: {error}") from error
    if not isinstance(value, Tensor):
        raise CallError(f"it returned a {type(value).__name__}; expected a tensor of shape {shape}")
    if tuple(value.shape) != shape or not value.is_floating_point():
        raise CallError(
            f"it returned a {value.dtype} tensor of shape {tuple(value.shape)}; expected floating point of shape "
            f"{shape}"
        )
    return value.detach().cpu().double(), value.dtype


def same(before: Any, after: Any) -> bool:
    """Return whether an argument is unchanged, including missing values."""
    if isinstance(before, Mapping):
        return list(before) == list(after) and all(same(before[key], after[key]) for key in before)
    if hasattr(before, "tolist"):  # compare texts, because NaN is not equal to itself
        return bool(before.shape == after.shape) and repr(before.tolist()) == repr(after.tolist())
    return bool(before == after)


def _part(returned: Any, name: str) -> Any:
    return returned.get(name) if isinstance(returned, Mapping) else getattr(returned, name, None)


def _parameters(function: Callable[..., Any]) -> tuple[frozenset[str], bool]:
    """Return the names of a function's parameters, and whether it takes any other keyword."""
    try:
        parameters = inspect.signature(function).parameters
    except (TypeError, ValueError):  # a builtin without a signature
        return frozenset(), True
    return frozenset(parameters), any(p.kind is p.VAR_KEYWORD for p in parameters.values())


def _token_arguments(
    example: Example, options: Mapping[str, Any], named: frozenset[str], swallows: bool
) -> dict[str, Any]:
    """Lay a batch out as verl does: the outcome is on the last response token, channels are next to the tensors."""
    import numpy as np  # not at the top: torch does not install it

    rows, channels = example.rewards.shape
    names = channel_names(channels)
    width = int(example.lengths.max()) + example.pad
    mask = (torch.arange(width) < example.lengths[:, None]).long()
    scores = example.rewards.new_zeros(rows, width)
    scores[torch.arange(rows), example.lengths - 1] = example.rewards.sum(1)  # the sum is missing if a reward is
    index = np.array([f"uid{i}" for i in example.groups.tolist()], dtype=object)
    config = CallSettings(gamma=1.0, norm_adv_by_std_in_grpo=True, gdpo_reward_keys=names, gdpo_reward_weights=None)
    config.update({key: value for key, value in options.items() if key not in named})
    prompts = torch.zeros(rows, PROMPT_LENGTH, dtype=torch.long)
    optional = {
        "index": index,
        "config": config,
        "non_tensor_batch": {
            "uid": index.copy(),
            **{name: example.rewards[:, j].double().numpy().copy() for j, name in enumerate(names)},
        },
        "batch": {
            "prompts": prompts,
            "attention_mask": torch.cat([torch.ones_like(prompts), mask], 1),
            "response_mask": mask.clone(),
        },
    }
    taken = {key: value for key, value in optional.items() if swallows or key in named}
    own = {key: value for key, value in options.items() if key in named}
    return {"token_level_rewards": scores, "response_mask": mask, **taken, **own}
