"""All options that turn rewards into advantages, as a frozen config that is checked when it is built."""

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
    """A method, and the numerical options that all methods share.

    Attributes:
        method: an object such as ``rvpo.LIFT()``, a text or a mapping; always an object once the config is built.
        eps: number added to every standard deviation, in reward units; TRL uses 1e-4, verl 1e-6.
        ddof: 1 for the sample standard deviation (as TRL and verl), 0 for the population's.
        rtol: a channel is constant in its group if its relative range is at most this.
        missing: ``"drop"`` leaves an unscored channel out for that completion, ``"error"`` refuses NaN.
        wanted: names of channels. Only groups that at least one of them ranks are trained on; empty for all groups. The
            name of a rubric includes all of its labels.
        whiten: how the aggregate is whitened: the method's option if set, otherwise the method's default.
        dead_channels: what happens to constant channels, by the same rule.

    Raises:
        ConfigError: a method or option is unknown, or a value cannot work.

    Example:
        >>> import rvpo
        >>> config = rvpo.AdvantageConfig(method="rvpo:k=2", eps=1e-6)
        >>> config.method == rvpo.RVPO(2.0), config.whiten
        (True, 'batch')
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
        """Build from the values of a record. Its method need not be available, and names in it are never imported.

        Raises:
            ConfigError: a value cannot work.
        """
        known = {key: mapping[key] for key in ("eps", "ddof", "rtol", "missing", "wanted") if key in mapping}
        return cls(method_of_record(mapping["method"]), **known)

    @classmethod
    def from_mapping(cls, mapping: Mapping[str, Any]) -> AdvantageConfig:
        """Build from plain values.

        Raises:
            ConfigError: a key is unknown, or a value cannot work.
        """
        return build(cls, mapping, "advantage options")
