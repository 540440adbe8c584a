"""A method that is a plain function of z-scores and shares: ``A = f(z, p)``, with options as keyword arguments.

::

    def cvar(z, p, *, alpha=0.5):                          # z, p (N, M) float64; returns A (N,)
        ...

    rvpo.advantages(rewards, num_generations=8, method="my_rules.py:cvar:alpha=0.25")

``z`` has the group z-scores, 0 where a channel does not take part. ``p`` has the shares of the channels. Each row sums
to 1 over the channels that take part, or to 0 without any. The responsibilities dA/dZ come from torch's automatic
differentiation. They are NaN, which is logged as undefined, if the function cannot be differentiated. They sum to 1
only if the function is a mean.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from rvpo.core.channels import State
from rvpo.core.lazy import Tensor, torch
from rvpo.core.methods.base import Batch, Method, Outcome
from rvpo.errors import ConfigError, RewardError
from rvpo.text.suggest import did_you_mean


@dataclass(frozen=True)
class FunctionMethod(Method):
    """A function as a method. ``rvpo.core.methods.registry.build_method`` makes it.

    Attributes:
        function: ``(z, p, **options) -> A``.
        place: name of the function, such as ``my_rules.py:cvar``.
        given: options of the function.
    """

    function: Callable[..., Tensor] = field(kw_only=True)
    place: str = field(kw_only=True)
    given: Mapping[str, Any] = field(default_factory=dict, kw_only=True)

    @classmethod
    def of(cls, function: object, place: str, options: Mapping[str, Any]) -> FunctionMethod:
        """Check a function and its options.

        Raises:
            ConfigError: it is not a function ``(z, p, **options)``, or does not have one of the options.
        """
        if not callable(function):
            raise ConfigError(
                f"{place} is a {type(function).__name__}; expected a function (z, p) -> A, or a class derived from "
                "rvpo.Method"
            )
        shared = {name: options[name] for name in ("whiten", "dead_channels") if name in options}
        given = {name: value for name, value in options.items() if name not in shared}
        made = cls(function=function, place=place, given=given, **shared)
        allowed = _options_of(function, place)
        if allowed is not None and (unknown := [name for name in given if name not in allowed]):
            raise ConfigError(
                f"{unknown[0]} is {given[unknown[0]]!r}, but method {place!r} has no option {unknown[0]!r}"
                f"{did_you_mean(unknown[0], list(allowed))}; expected "
                f"{'one of ' + ', '.join(allowed) if allowed else 'no option'}, besides whiten and dead_channels"
            )
        return made

    @property
    def name(self) -> str:  # type: ignore[override]
        """Its place."""
        return self.place

    def defaults(self) -> dict[str, Any]:
        """Return the defaults of the function's own options."""
        return {} if (found := _options_of(self.function, self.place)) is None else dict(found)

    def options(self) -> dict[str, Any]:
        """Return the function's options, and ``whiten`` and ``dead_channels`` if they are set."""
        shared = {name: value for name in ("whiten", "dead_channels") if (value := getattr(self, name)) is not None}
        return {**self.given, **shared}

    def __call__(self, batch: Batch, state: State) -> Outcome:
        """Call the function on the z-scores and shares.

        Raises:
            RewardError: the function does not return one number per completion.
        """
        p = batch.p
        follows = batch.z.requires_grad
        with torch.inference_mode(False), torch.enable_grad():
            z = batch.z if follows else batch.z.detach().clone().requires_grad_()
            a = self._called(z, p.clone() if p.is_inference() else p)
            takes_part = (p > 0).any(-1)
            self._check(a, len(p))
            assert isinstance(a, Tensor)  # _check has raised for anything else
            a = a.to(z).masked_fill(~takes_part, 0.0)
            responsibilities = torch.full_like(p, torch.nan)
            if a.requires_grad:
                (gradient,) = torch.autograd.grad(a.sum(), z, retain_graph=follows, allow_unused=True)
                responsibilities = torch.zeros_like(p) if gradient is None else gradient.detach()
        return Outcome(a if follows else a.detach(), responsibilities, takes_part)

    def _called(self, z: Tensor, p: Tensor) -> object:
        """Call the function.

        Raises:
            RewardError: the function converts ``z``, which records gradients, to NumPy.
        """
        try:
            return self.function(z, p, **self.given)
        except RuntimeError as error:
            if "requires grad" not in str(error):
                raise
            raise RewardError(
                f"method {self.place!r} raised {error} z records gradients, because the responsibilities are the "
                "gradients of the result; expected operations of torch. To use NumPy, start with z = z.detach(): the "
                "responsibilities are then undefined"
            ) from error

    def _check(self, a: object, rows: int) -> None:
        if not isinstance(a, Tensor) or a.shape != (rows,):
            seen = f"a tensor of shape {tuple(a.shape)}" if isinstance(a, Tensor) else f"a {type(a).__name__}"
            raise RewardError(
                f"method {self.place!r} returned {seen}; expected a tensor of shape ({rows},), one A per row"
            )


def _options_of(function: Callable[..., Any], place: str) -> dict[str, Any] | None:
    """Return the keyword options of a function with their defaults; None if it takes any.

    Raises:
        ConfigError: the function cannot be called as ``f(z, p)``.
    """
    try:
        parameters = inspect.signature(function).parameters
        inspect.signature(function).bind(None, None)
    except ValueError:  # a builtin without a signature
        return None
    except TypeError as error:
        raise ConfigError(
            f"{place} cannot be called as f(z, p) ({error}); expected a function of z-scores (N, M) and shares (N, M) "
            "whose further parameters have defaults"
        ) from error
    if any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values()):
        return None
    named = list(parameters.values())[2:] if not any(p.kind is p.VAR_POSITIONAL for p in parameters.values()) else []
    keyword_only = [parameter for parameter in parameters.values() if parameter.kind is parameter.KEYWORD_ONLY]
    return {p.name: p.default for p in {p.name: p for p in (*named, *keyword_only)}.values()}
