"""``RVPOPlugin``: the hooks of axolotl that RVPO needs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from axolotl.integrations.base import BasePlugin
from pydantic import BaseModel

from rvpo.engines.axolotl.section import SECTION, read_section
from rvpo.errors import ConfigError, EngineError

PUBLIC = "rvpo.axolotl"
TRAINER = f"{PUBLIC}.RVPOTrainer"


class RVPOArgs(BaseModel):
    """The field that the plug-in adds to axolotl's configuration. :func:`read_section` checks its options."""

    rvpo: dict[str, Any] | None = None


class RVPOPlugin(BasePlugin):  # type: ignore[misc]
    """Train ``rl: grpo`` with a method of rvpo: list it under ``plugins`` and add a section ``rvpo``."""

    def get_input_args(self) -> str:
        """Return the path of the class with the configuration's new section."""
        return f"{PUBLIC}.RVPOArgs"

    def get_training_args_mixin(self) -> str:
        """Return the path of the class with the training arguments' new field."""
        return f"{PUBLIC}.RVPOTrainingArgs"

    def register(self, cfg: Any) -> None:
        """Check the configuration, and choose the trainer.

        Raises:
            ConfigError: the section is absent, has an unknown option, or RVPO cannot train with the settings.
        """
        listed = any(str(name).endswith(type(self).__name__) for name in cfg.get("plugins") or ())
        section = cfg.get(SECTION)
        if not listed and section is None:  # a later configuration in this process that does not use RVPO
            return
        if section is None:
            raise ConfigError(
                f"plugins names {PUBLIC}.RVPOPlugin, but there is no section {SECTION!r}; expected one with options "
                f"such as `{SECTION}: {{method: lift}}`. Add it, or drop the plug-in"
            )
        read_section(section)
        _check_settings(cfg)
        cfg["trainer_cls"] = TRAINER

    def get_training_args(self, cfg: Any) -> dict[str, Any] | None:
        """Pass the section to the trainer, as one of its arguments."""
        section = cfg.get(SECTION)
        return None if section is None else {SECTION: read_section(section)}

    def post_trainer_create(self, cfg: Any, trainer: Any) -> None:
        """Check that axolotl has built RVPO's trainer.

        Raises:
            EngineError: it has built another trainer, which would ignore the section.
        """
        if cfg.get(SECTION) is None:
            return
        from rvpo.engines.trl.trainer import RVPOMixin

        if not isinstance(trainer, RVPOMixin):
            raise EngineError(
                f"axolotl has built {type(trainer).__name__}, which ignores the section {SECTION!r}; expected "
                f"{TRAINER}. Remove plug-ins that set a trainer. docs/engines/axolotl.md lists the tested versions"
            )


def _check_settings(cfg: Any) -> None:
    """Refuse settings with which axolotl would not train with RVPO's trainer.

    Raises:
        ConfigError: there is such a setting; the message says what to set instead.
    """
    algorithm = getattr(cfg.get("rl"), "value", cfg.get("rl"))
    if algorithm != "grpo":
        hint = " (its method gdpo is `rvpo: {method: gdpo}`)" if algorithm == "gdpo" else ""
        raise ConfigError(f"rl is {algorithm!r}, but there is a section {SECTION!r}; expected rl: grpo{hint}")
    if cfg.get("trainer_cls") not in (None, TRAINER):
        raise ConfigError(
            f"trainer_cls is {cfg.get('trainer_cls')!r}, but there is a section {SECTION!r}, whose plug-in sets it to "
            f"{TRAINER}; expected only one of them. Drop trainer_cls, or derive that class from {TRAINER} and set it "
            "in your own script"
        )
    trl: Any = cfg.get("trl")
    trl = trl if isinstance(trl, Mapping) else {}
    for name in ("async_prefetch", "use_data_producer"):
        if trl.get(name):
            raise ConfigError(
                f"trl.{name} is {trl.get(name)!r}, whose trainer computes advantages in a separate thread; expected it "
                f"off with a section {SECTION!r}. Drop trl.{name}"
            )
    if (cfg.get("context_parallel_size") or 1) > 1:
        raise ConfigError(
            f"context_parallel_size is {cfg.get('context_parallel_size')}, for which axolotl has another GRPO trainer; "
            f"expected 1 with a section {SECTION!r}. Drop it"
        )
    section = cfg.get(SECTION)
    if trl.get("reward_weights") and section.get("reward_weights") is not None:
        raise ConfigError(
            f"reward_weights are given twice, in trl ({trl.get('reward_weights')}) and in {SECTION} "
            f"({section.get('reward_weights')}); expected them once. Keep those in {SECTION}, where you can also "
            "give them by name"
        )
