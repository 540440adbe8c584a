"""The section ``rvpo:`` of axolotl's YAML file."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any

from rvpo.core.checks import unknown_option
from rvpo.errors import ConfigError
from rvpo.step.options import AggregationOptions

SECTION = "rvpo"
_OF_THE_METHOD = tuple(f.name for f in fields(AggregationOptions))
_OF_THE_TRAINER = ("reward_weights", "reward_timeout", "skip_dead_groups")


@dataclass
class RVPOTrainingArgs:
    """The field that the plug-in adds to axolotl's training arguments, so that the trainer gets the section."""

    rvpo: dict[str, Any] | None = field(default=None, metadata={"help": "The section rvpo of the configuration."})


def read_section(section: object) -> dict[str, Any]:
    """Return the options of the section as plain values.

    Raises:
        ConfigError: the section is not a mapping, has an unknown key, or has a value that cannot work.
    """
    keys = (*_OF_THE_METHOD, *_OF_THE_TRAINER)
    if not isinstance(section, Mapping) or not section:
        raise ConfigError(f"{SECTION} is {section!r}; expected a section with options such as `method: lift`")
    if unknown := [key for key in section if key not in keys]:
        raise unknown_option(f"section {SECTION}", unknown[0], keys)
    options = {str(key): _plain(value) for key, value in section.items()}
    AggregationOptions(**{key: value for key, value in options.items() if key in _OF_THE_METHOD}).check_aggregation()
    return options


def _plain(value: Any) -> Any:
    """Convert axolotl's kind of dict, which has a value for every name, to a plain dict."""
    if isinstance(value, Mapping):
        return {key: _plain(inner) for key, inner in value.items()}
    return [_plain(inner) for inner in value] if isinstance(value, list | tuple) else value
