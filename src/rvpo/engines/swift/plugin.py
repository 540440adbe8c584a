"""``use``: the function that a plug-in file of ms-swift calls once, with the options of the run."""

from __future__ import annotations

import importlib
from dataclasses import fields
from typing import Any

from rvpo.core.checks import build
from rvpo.engines.swift import hooks, seam
from rvpo.errors import ConfigError, EngineError
from rvpo.step.options import AggregationOptions

_used: AggregationOptions | None = None


def use(**options: Any) -> None:
    """Let ms-swift's GRPO trainers compute their advantages with a method of rvpo, from now on in this process.

    Args:
        **options: options of :class:`rvpo.step.options.AggregationOptions`, such as ``method="lift"`` and
            ``reward_ranges={"correct": [-3, 3]}``. The name of a reward is the one that ms-swift logs
            (``rewards/NAME/mean``). For weights, use ms-swift's own option ``--reward_weights``.

    Raises:
        ConfigError: an option is unknown, has a value that cannot work, or differs from an earlier call.
        EngineError: ms-swift is not installed, or its functions differ from those of the tested version.
    """
    global _used
    if "reward_weights" in options:
        raise ConfigError(
            f"reward_weights is {options['reward_weights']!r}; expected no such option, because ms-swift has it. Pass "
            "--reward_weights 2 1 on its command line"
        )
    chosen = build(AggregationOptions, options, "rvpo.swift.use")
    chosen.check_aggregation()
    if chosen.advantage_config().whiten == "token":
        raise ConfigError("whiten is 'token', which only verl's engine knows; expected batch, group or none. Drop it")
    if _used is not None:
        if differ := [f.name for f in fields(_used) if getattr(_used, f.name) != getattr(chosen, f.name)]:
            raise ConfigError(
                f"rvpo.swift.use is called twice, the second time with another {differ[0]} "
                f"({getattr(chosen, differ[0])!r} after {getattr(_used, differ[0])!r}); expected one call per process. "
                "Keep it in one file of --external_plugins"
            )
        return
    try:
        for name in (seam.HOME, hooks.TRAINERS):
            importlib.import_module(name)
    except ModuleNotFoundError as error:
        raise EngineError(
            f"{error}; expected ms-swift {seam.TESTED} with its GRPO trainer: pip install ms-swift msgspec in an "
            "environment without rvpo's extra trl, and run this file through `swift rlhf … --external_plugins`"
        ) from error
    seam.check()
    hooks.install(chosen)
    seam.install(chosen)
    _used = chosen
