"""``DictOptions``: the options in a section ``rvpo`` of an engine's config, or in a separate file."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from rvpo.core.checks import unknown_option
from rvpo.errors import ConfigError
from rvpo.step.aggregator import Aggregator
from rvpo.step.options import AggregationOptions
from rvpo.text.strict_yaml import load_yaml

SECTION = "rvpo"
"""Name of the section, in an engine's config and in a separate file."""

VARIABLE = "RVPO_CONFIG"
"""Environment variable with the path of such a file, for engines whose config has no place for the section."""


@dataclass
class DictOptions(AggregationOptions):
    """The options of every engine, and the names and weights of the rewards in the dicts."""

    reward_keys: list[str] = field(
        default_factory=list,
        metadata={"help": "Names of the rewards in the dicts, such as [correct, safe]. Other keys are ignored."},
    )
    reward_weights: dict[str, Any] | None = field(
        default=None,
        metadata={"help": "Importance by name: a number, or a text such as linear(0.2,1). Default: all the same."},
    )

    records: str | None = field(
        default=None,
        metadata={
            "help": "Folder in which every batch is recorded, for rvpo diagnose, replay and report. The first batch is "
            "channels/000001.parquet. A resumed run names the same folder. Default: no record."
        },
    )

    def __post_init__(self) -> None:
        """Refuse values and combinations that cannot work.

        Raises:
            ConfigError: there is such a value or combination.
        """
        keys = self.reward_keys
        if not isinstance(keys, list | tuple) or not keys or not all(isinstance(key, str) and key for key in keys):
            raise ConfigError(
                f"{SECTION}.reward_keys is {keys!r}; expected the names of the rewards in the dicts: "
                "reward_keys: [correct, safe]"
            )
        if not isinstance(self.reward_weights or {}, Mapping):
            raise ConfigError(
                f"{SECTION}.reward_weights is {self.reward_weights!r}; expected a mapping by name: {{correct: 2.0}}"
            )
        if self.records is not None and (not isinstance(self.records, str) or not self.records):
            raise ConfigError(
                f"{SECTION}.records is {self.records!r}; expected the path of a folder: records: runs/mine"
            )
        self.check_aggregation()

    @classmethod
    def from_mapping(cls, section: object, where: str = SECTION) -> DictOptions:
        """Read the section.

        Args:
            section: the section, as a YAML reader returns it.
            where: name of the section in errors.

        Raises:
            ConfigError: it is not a mapping, has an unknown key, names no rewards, or has a value that cannot work.
        """
        if not isinstance(section, Mapping):
            raise ConfigError(f"{where} is {section!r}; expected a mapping with reward_keys and method")
        known = [f.name for f in fields(cls)]
        for key in section:
            if key not in known:
                raise unknown_option(where, key, known)
        if "method" not in section:
            raise ConfigError(f"{where} has no method; expected one, such as method: lift")
        return cls(**section)

    @classmethod
    def from_file(cls, path: Path) -> DictOptions:
        """Read the section ``rvpo`` of a YAML file.

        Raises:
            ConfigError: the file cannot be read, is not YAML, or does not have this section.
        """
        try:
            content = load_yaml(path.read_text("utf-8"))
        except (OSError, ValueError) as error:
            raise ConfigError(f"{path} cannot be read ({error}); expected YAML with a section {SECTION}") from error
        if not isinstance(content, Mapping) or SECTION not in content:
            raise ConfigError(f"{path} has no section {SECTION!r}; expected {SECTION}: {{method: …, reward_keys: […]}}")
        return cls.from_mapping(content[SECTION], f"{path}: {SECTION}")

    @classmethod
    def from_environment(cls, instead: str = "") -> DictOptions:
        """Read the file that the environment variable ``RVPO_CONFIG`` names.

        Args:
            instead: another place for the options, which the error also names.

        Raises:
            ConfigError: the variable is not set, or see :meth:`from_file`.
        """
        if not (path := os.environ.get(VARIABLE)):
            raise ConfigError(
                f"{VARIABLE} is not set; expected the path of a YAML file with a section {SECTION}{instead}. Set it "
                "where the process that computes advantages is started"
            )
        return cls.from_file(Path(path).expanduser())

    def build(self) -> Aggregator:
        """Return the aggregator of a new run.

        Raises:
            ConfigError: an option names a reward that ``reward_keys`` does not name.
        """
        return self.aggregator(self.reward_keys, [None] * len(self.reward_keys), self.reward_weights)
