"""axolotl's GRPO trainer with ``RVPOMixin`` before it, and its arguments with the section's options."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from axolotl.core.trainers.grpo.args import AxolotlGRPOConfig
from axolotl.core.trainers.grpo.trainer import AxolotlGRPOTrainer

from rvpo.engines.trl.config import RVPOConfig
from rvpo.engines.trl.trainer import RVPOMixin
from rvpo.errors import ConfigError


@dataclass
class AxolotlRVPOConfig(RVPOConfig, AxolotlGRPOConfig):  # type: ignore[misc]
    """axolotl's GRPO arguments, with RVPO's options."""


class RVPOTrainer(RVPOMixin, AxolotlGRPOTrainer):  # type: ignore[misc]
    """The trainer that axolotl builds for ``rl: grpo`` with a section ``rvpo``.

    Raises:
        ConfigError: the section is absent, or one of its options cannot work.
    """

    _tag_names = ("trl", "axolotl", "rvpo")

    def __init__(self, *positional: Any, args: Any = None, **keywords: Any) -> None:
        """Read the section from axolotl's arguments."""
        options = getattr(args, "rvpo", None)
        if options is None:
            raise ConfigError(
                "trainer_cls is rvpo.axolotl.RVPOTrainer, but its arguments have no section rvpo; expected "
                "`plugins: [rvpo.axolotl.RVPOPlugin]` and a section `rvpo`. Drop trainer_cls: the plug-in sets it"
            )
        super().__init__(*positional, args=AxolotlRVPOConfig.made_of(args, options), **keywords)
