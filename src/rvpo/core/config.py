"""Every choice that turns rewards into advantages, as a frozen config that fails when it is built."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from rvpo.core.checks import build, require, require_number
from rvpo.core.methods.base import Method
from rvpo.core.methods.recorded import method_of_record
from rvpo.core.methods.registry import as_mapping, build_method, spell
from rvpo.core.methods.rvpo import RVPO
from rvpo.errors import ConfigError

MISSING_REWARDS = ("drop", "error")


@dataclass(frozen=True)
class AdvantageConfig:
    """A method, and the numerical choices that all methods share.

    Attributes:
        method: an object such as ``rvpo.LIFT()``, text or mapping; always an object once the config is built.
        eps: added to every standard deviation, in reward units; TRL uses 1e-4, verl 1e-6.
        ddof: 1 for the sample standard deviation (as TRL and verl), 0 for the population's.
        rtol: relative range at or below which a channel counts as constant in its group.
        missing: ``"drop"`` leaves an unscored channel out for that completion, ``"error"`` refuses NaN.
        wanted: channels of which any has to rank a group for it to be trained on; empty: all, as every method has it.
            A name also stands for the labels of a rubric of that name.
        whiten: how the aggregate is whitened: as the method's option says, else the method's own way.
        dead_channels: what becomes of constant channels, likewise.

    Raises:
        ConfigError: an unknown method or option, or a value that cannot work.
    """

    method: Method = RVPO()  # noqa: RUF009 (frozen)
    eps: float = 1e-4
    ddof: int = 1
    rtol: float = 1e-6
    missing: str = "drop"
    wanted: tuple[str, ...] = ()
    whiten: str = field(init=False, repr=False, compare=False)
    dead_channels: str = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        """Build the method and refuse impossible values."""
        method = build_method(self.method)
        object.__setattr__(self, "method", method)
        object.__setattr__(self, "whiten", method.whiten or method.own_whiten)
        object.__setattr__(self, "dead_channels", method.dead_channels or method.own_dead_channels)
        require("missing", self.missing, MISSING_REWARDS)
        if not isinstance(self.wanted, list | tuple) or not all(isinstance(name, str) and name for name in self.wanted):
            raise ConfigError(f"wanted is {self.wanted!r}; expected a list of names of channels, such as ['correct']")
        object.__setattr__(self, "wanted", tuple(self.wanted))
        require("ddof", self.ddof, (0, 1))
        require_number("eps", self.eps, math.inf)
        require_number("rtol", self.rtol, 1)

    def __str__(self) -> str:
        """Return the method as text."""
        return spell(self.method)

    def to_mapping(self) -> dict[str, Any]:
        """Return plain values, from which :meth:`from_mapping` builds an equal config."""
        values = {"eps": self.eps, "ddof": self.ddof, "rtol": self.rtol, "missing": self.missing}
        wanted = {"wanted": list(self.wanted)} if self.wanted else {}
        return {"method": as_mapping(self.method), **values, **wanted}

    @classmethod
    def of_record(cls, mapping: Mapping[str, Any]) -> AdvantageConfig:
        """Build from the values of a record, whose method need not be available; nothing that it names is imported.

        Raises:
            ConfigError: a value that cannot work.
        """
        known = {key: mapping[key] for key in ("eps", "ddof", "rtol", "missing", "wanted") if key in mapping}
        return cls(method_of_record(mapping["method"]), **known)

    @classmethod
    def from_mapping(cls, mapping: Mapping[str, Any]) -> AdvantageConfig:
        """Build from plain values.

        Raises:
            ConfigError: an unknown key, or a value that cannot work.
        """
        return build(cls, mapping, "advantage options")
