"""A method that only a record knows: a rule of somebody's own, or of a newer version. It cannot be called."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from rvpo.core.channels import State
from rvpo.core.methods.base import Batch, Method, Outcome
from rvpo.core.methods.registry import build_method, is_known
from rvpo.errors import ConfigError


@dataclass(frozen=True)
class Recorded(Method):
    """The name and the options of a method that is not available here.

    Attributes:
        given: its options as the record has them.
        spelled_name: its name there.
    """

    given: Mapping[str, Any] = field(default_factory=dict, kw_only=True)
    spelled_name: str = field(default="", kw_only=True)

    @property
    def name(self) -> str:  # type: ignore[override]
        """Its name in the record."""
        return self.spelled_name

    def options(self) -> dict[str, Any]:
        """Return its options as the record has them."""
        return dict(self.given)

    def defaults(self) -> dict[str, Any]:
        """Return nothing: the defaults of a method that is not here are unknown."""
        return {}

    def __call__(self, batch: Batch, state: State) -> Outcome:
        """Refuse.

        Raises:
            ConfigError: always.
        """
        raise ConfigError(
            f"method {self.name!r} is not available here; expected a method of this version or of an installed "
            f"package. If it is your own, name it: --method {self.name}"
        )


def method_of_record(mapping: Mapping[str, Any]) -> Method:
    """Return the method of a record, as :class:`Recorded` where it is not available.

    A record is data: a name such as ``file.py:rule`` in it is never imported.

    Raises:
        ConfigError: the mapping has no name.
    """
    name = mapping.get("name")
    if not isinstance(name, str):
        raise ConfigError(f"the record's method is {mapping!r}; expected a mapping with a name")
    if is_known(name):
        try:
            return build_method(mapping)
        except ConfigError:  # an option of another version
            pass
    options = {str(key): value for key, value in mapping.items() if key != "name"}
    return Recorded(given=options, spelled_name=name)
