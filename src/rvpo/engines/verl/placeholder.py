"""Our methods' names in verl's own trainer: an estimator whose error says what to run instead."""

from __future__ import annotations

import inspect
import re
from collections.abc import Sequence
from typing import Any, NoReturn

from rvpo.core.methods.registry import METHODS
from rvpo.errors import EngineError

VERLS_OWN = ("grpo", "gdpo")
"""Names of our methods that verl also has."""

NAMES = tuple(name for name in (*METHODS, "grpo-multi", "grpo_multi") if name not in VERLS_OWN)
"""Names of our methods that verl does not have."""

_OVERRIDE = re.compile(r"""\+*algorithm\.adv_estimator=["'\\]*(?:\{.*?name:\s*)?["']?(?P<method>[^,}"'\\]+)""")


class Placeholder:
    """An estimator that raises an error, which says what to run instead."""

    __signature__ = inspect.Signature(
        [
            inspect.Parameter("_", inspect.Parameter.VAR_POSITIONAL),
            inspect.Parameter("__", inspect.Parameter.VAR_KEYWORD),
        ]
    )
    """Set explicitly: this equals everything, and :mod:`inspect` treats an equal of :class:`object` as a builtin."""

    def __init__(self, name: str) -> None:
        """Store the name."""
        self.name = name

    def __call__(self, *_: Any, **__: Any) -> NoReturn:
        """Refuse.

        Raises:
            EngineError: always.
        """
        raise EngineError(refusal(self.name))

    def __eq__(self, other: object) -> bool:
        """Equal everything: verl lets a function replace a registered one if both are equal."""
        return True

    def __hash__(self) -> int:
        """Return a hash of the name."""
        return hash(self.name)


def refusal(method: str) -> str:
    """Return the error message about one of our methods in verl's own trainer."""
    return (
        f"algorithm.adv_estimator is {method!r}, a method of rvpo, which verl's own trainer cannot run, because its "
        "estimators do not get the single rewards; expected `python -m rvpo.verl` instead of "
        "`python -m verl.trainer.main_ppo`. Name the rewards with +algorithm.rvpo.reward_keys=[a,b]; keep all other "
        "arguments"
    )


def named_in(arguments: Sequence[str]) -> str | None:
    """Return the method of ours that a command line of ``verl.trainer.main_ppo`` names, otherwise None.

    Args:
        arguments: arguments of the interpreter, as in :data:`sys.orig_argv`.

    >>> named_in(["python", "-m", "verl.trainer.main_ppo", "algorithm.adv_estimator=lift:kappa=3"])
    'lift:kappa=3'
    """
    theirs = any(text == "verl.trainer.main_ppo" or text.endswith("verl/trainer/main_ppo.py") for text in arguments)
    found = [match for text in arguments if (match := _OVERRIDE.fullmatch(text.strip()) or _OVERRIDE.match(text))]
    if not theirs or not found:
        return None
    method = found[-1]["method"].strip()
    name = method.partition(":")[0]
    return method if name in NAMES or ".py:" in method or (name in VERLS_OWN and ":" in method) else None
