"""Our methods' names in verl's own trainer: an estimator that says what to run instead, and who asks for it."""

from __future__ import annotations

import inspect
import re
from collections.abc import Sequence
from typing import Any, NoReturn

from rvpo.core.methods.registry import METHODS
from rvpo.errors import EngineError

VERLS_OWN = ("grpo", "gdpo")
"""Names of ours that verl has itself."""

NAMES = tuple(name for name in (*METHODS, "grpo-multi", "grpo_multi") if name not in VERLS_OWN)
"""Names that only we have."""

_OVERRIDE = re.compile(r"""\+*algorithm\.adv_estimator=["'\\]*(?:\{.*?name:\s*)?["']?(?P<method>[^,}"'\\]+)""")


class Placeholder:
    """An estimator that says what to run instead."""

    __signature__ = inspect.Signature(
        [
            inspect.Parameter("_", inspect.Parameter.VAR_POSITIONAL),
            inspect.Parameter("__", inspect.Parameter.VAR_KEYWORD),
        ]
    )
    """Said, because :mod:`inspect` takes what equals :class:`object` for a builtin, and this equals everything."""

    def __init__(self, name: str) -> None:
        """Keep the name."""
        self.name = name

    def __call__(self, *_: Any, **__: Any) -> NoReturn:
        """Refuse.

        Raises:
            EngineError: always.
        """
        raise EngineError(refusal(self.name))

    def __eq__(self, other: object) -> bool:
        """Equal everything: verl lets a function register a name that holds an equal one."""
        return True

    def __hash__(self) -> int:
        """Return a hash of the name."""
        return hash(self.name)


def refusal(method: str) -> str:
    """Return what is said about one of our methods in verl's own trainer."""
    return (
        f"algorithm.adv_estimator is {method!r}, a method of rvpo, which verl's own trainer cannot run, because its "
        "estimators never see the single rewards; expected `python -m rvpo.verl` in place of "
        "`python -m verl.trainer.main_ppo`. Name the rewards with +algorithm.rvpo.reward_keys=[a,b]; all else stays"
    )


def named_in(arguments: Sequence[str]) -> str | None:
    """Return the method of ours that a command line of ``verl.trainer.main_ppo`` names, else None.

    Args:
        arguments: of the interpreter, as in :data:`sys.orig_argv`.

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
