"""What outlives a step: channels' ranges and reliabilities, and what the method remembers. Saved with checkpoints."""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from rvpo.core import Advantages, Channels
from rvpo.core.channels import Range, State, check_ranges
from rvpo.core.ragged import ChannelScores, Family
from rvpo.core.trust import Evidence, Trust
from rvpo.errors import ConfigError
from rvpo.files import write
from rvpo.step.options import AggregationOptions

logger = logging.getLogger(__name__)

FILE = "rvpo_state.json"
"""In a checkpoint. Only runs that remember something have it."""


class Memory:
    """The same on every process, because each of them sees the rewards of all.

    Attributes:
        ranges: lowest and highest reward of each reward function, None where nobody said.
        state: of the method; see :mod:`rvpo.core.channels`.
    """

    def __init__(
        self,
        options: AggregationOptions,
        names: Sequence[str],
        own_ranges: Sequence[Range | None],
        *,
        judge_twice: bool = False,
    ) -> None:
        """Take the options of the channels from the config, else from the reward functions themselves.

        Args:
            options: of the engine.
            names: of the reward functions.
            own_ranges: what these say of their lowest and highest reward.
            judge_twice: whether reliabilities are estimated from completions that are judged twice.

        Raises:
            ConfigError: an option for a channel that is not there, or a range that is none.
        """
        given: Mapping[str, Any] = options.reward_ranges or {}  # type: ignore[assignment]
        self._given: Mapping[str, float] = options.reliability or {}  # type: ignore[assignment]
        # A rubric's labels are channels, too, and not known before the first step; their scores lie in [0, 1].
        functions_of = [name.split("/")[0] for name in self._given]
        rule = options.advantage_config(progress=0.0).rule
        named = [name.split("/")[0] for name in rule.names_channels]
        for option, mapping in (("reward_ranges", list(given)), ("reliability", functions_of), (options.method, named)):
            if unknown := [name for name in mapping if name not in names]:
                raise ConfigError(f"{option} names the channel {unknown[0]!r}; the channels are {', '.join(names)}")
        ranges = [given.get(name, own) for name, own in zip(names, own_ranges, strict=True)]
        self.ranges: tuple[Range | None, ...] = check_ranges(ranges, len(names))
        self.state: State = {}
        self._method, self._remembers = options.method, rule.remembers
        self._trust = Trust() if judge_twice else None
        self._evidence = Evidence()

    def reliability(self, channels: Channels) -> Tensor | None:
        """Return how far each cell is trusted, (M,) or (N, M); None where nothing is known of any."""
        trusted = self._trusted(channels)
        if not trusted:
            return None
        # On the CPU: whoever uses it moves it, in a dtype that the device has.
        return torch.tensor(list(trusted.values()), dtype=torch.float64)[channels.index.cpu()]

    def metrics(self, channels: Channels) -> dict[str, float]:
        """Return the reliabilities in use, if any."""
        return {f"{name}/reliability": rho for name, rho in self._trusted(channels).items()}

    def _trusted(self, channels: Channels) -> dict[str, float]:
        """Return a reliability for each channel, or none at all.

        What was given counts, for a channel or, among a rubric's labels, for the whole function; else the estimate.
        """
        if not self._given and self._trust is None:
            return {}
        known = self._evidence.reliability(channels.names, self._trust) if self._trust else {}
        given = self._given
        return {name: given.get(name, given.get(name.split("/")[0], known.get(name, 1.0))) for name in channels.names}

    def learn(self, result: Advantages, channels: Channels, pairs: Mapping[str, list[tuple[float, float]]]) -> None:
        """Take in a batch: what the method wants to remember, and completions that were judged twice."""
        self.state = result.state
        if self._trust is not None:
            self._evidence = self._evidence.update(result.rewards, result.groups, channels, pairs, self._trust)

    def save(self, folder: Path) -> None:
        """Write the state into a checkpoint's folder, if there is any."""
        state = {"remembered": self.state, "evidence": self._evidence.to_state()}
        path = folder / FILE
        if not any(state.values()):
            path.unlink(missing_ok=True)  # of an older run in the same folder
            return
        write(path, json.dumps({"method": self._method, **state}))

    def load(self, folder: Path) -> None:
        """Read what :meth:`save` wrote; a checkpoint without it, or of another method, begins anew."""
        path = folder / FILE
        state = json.loads(path.read_text("utf-8")) if path.exists() else {}
        if not state and self._remembers:
            logger.warning("There is no %s: method %r begins anew.", path, self._method)
        self.state = state.get("remembered", {})
        if state and state["method"] != self._method:
            logger.warning(
                "%s is what method %r remembered; method %r begins anew.", path, state["method"], self._method
            )
            self.state = {}
        self._evidence = Evidence.from_state(state.get("evidence"))


@dataclass(frozen=True)
class Again:
    """Completions that were scored a second time.

    Attributes:
        rows: which of the N completions of all processes.
        rewards: (len(rows), F) their second rewards.
        families: their second verdicts.
    """

    rows: list[int]
    rewards: Tensor
    families: list[Family]

    def pairs(
        self, names: Sequence[str], rewards: Tensor, families: Sequence[Family], table: ChannelScores | None
    ) -> dict[str, list[tuple[float, float]]]:
        """Return both judgements by channel of the run; ``rewards`` (N, F) and ``families`` are the first ones."""
        replaced = {family.name for family in families if not family.only_monitored}
        firsts, seconds = rewards[self.rows].T.tolist(), self.rewards.T.tolist()
        pairs = {
            name: list(zip(first, second, strict=True))
            for name, first, second in zip(names, firsts, seconds, strict=True)
            if name not in replaced
        }
        for family, again in zip(families, self.families, strict=True):
            assert table is not None  # where there are families
            column = table.first_column[family.name]
            for row, scores in zip(self.rows, again.rows, strict=True):
                channels = table.channels.index[row].tolist()
                for j, (first, second) in enumerate(zip(family.rows[row], scores, strict=True), column):
                    values = tuple(math.nan if score.value is None else score.value for score in (first, second))
                    pairs.setdefault(table.channels.names[channels[j]], []).append(values)  # type: ignore[arg-type]
        return pairs
