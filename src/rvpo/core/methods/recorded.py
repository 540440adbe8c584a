"""A method known only from a record: a user's own rule, or one of a newer version. It cannot be called."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

from rvpo.core.channels import State
from rvpo.core.methods.base import Batch, Method, Outcome
from rvpo.core.methods.registry import build_method, is_known, spell
from rvpo.errors import ConfigError
from rvpo.importing import is_object_spec


@dataclass(frozen=True)
class Recorded(Method):
    """The name and the options of a method that is not available here.

    Attributes:
        given: options in the record.
        spelled_name: name in the record.
    """

    available: ClassVar[bool] = False
    given: Mapping[str, Any] = field(default_factory=dict, kw_only=True)
    spelled_name: str = field(default="", kw_only=True)

    @property
    def name(self) -> str:  # type: ignore[override]
        """Name in the record."""
        return self.spelled_name

    def options(self) -> dict[str, Any]:
        """Return the options in the record."""
        return dict(self.given)

    def defaults(self) -> dict[str, Any]:
        """Return an empty mapping: the defaults of a method that is not available are unknown."""
        return {}

    def __call__(self, batch: Batch, state: State) -> Outcome:
        """Refuse to aggregate.

        Raises:
            ConfigError: always.
        """
        raise ConfigError(f"method {self.name!r} {self.unavailable}")

    @property
    def unavailable(self) -> str:
        """Message that it cannot be called, and how to name it instead."""
        importable = is_object_spec(self.name) and not self.name.startswith("__main__:")
        place = spell(self) if importable else "my_rules.py:name"
        return (
            "is not available here; expected a method of this version or of an installed package. If it is your own, "
            f"name it: --method {place}"
        )


def method_of_record(mapping: Mapping[str, Any]) -> Method:
    """Return the method of a record, as :class:`Recorded` if it is not available.

    A record is data: names such as ``file.py:rule`` in it are never imported, also not inside options.

    Raises:
        ConfigError: the mapping has no name.
    """
    name = mapping.get("name")
    if not isinstance(name, str):
        raise ConfigError(f"the record's method is {mapping!r}; expected a mapping with a name")
    if is_known(name):
        try:
            return build_method(mapping, known_only=True)
        except (ConfigError, TypeError, ValueError, AttributeError):  # an option of another version
            pass
    options = {str(key): value for key, value in mapping.items() if key != "name"}
    return Recorded(given=options, spelled_name=name)
