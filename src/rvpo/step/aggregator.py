"""``Aggregator``: what every engine does with the rewards of a batch, apart from fetching them."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from rvpo.core import AdvantageConfig, Advantages, Channels, compute
from rvpo.core.channels import Range
from rvpo.core.metrics import rarely_met
from rvpo.core.ragged import ChannelScores, Family, assemble
from rvpo.errors import RewardError
from rvpo.step.memory import Again, Memory
from rvpo.step.options import AggregationOptions

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Aggregated:
    """What a batch comes to.

    Attributes:
        result: its advantages.
        table: where the channels of rubrics lie; None where there is no rubric, and each reward function is a column.
        metrics: under the names that every engine logs, ``rvpo/{channel}/{metric}`` and ``rvpo/{metric}``.
        config: the options with which it was aggregated.
        channels: the named channels of the run that the cells belong to.
        weights: (N, M) of the cells.
        reliability: (M,) or (N, M), how far each cell was trusted; None where all were.
    """

    result: Advantages
    table: ChannelScores | None
    metrics: Mapping[str, float]
    config: AdvantageConfig
    channels: Channels
    weights: Tensor
    reliability: Tensor | None


class Aggregator:
    """From the rewards of a batch to advantages and metrics, with a memory from batch to batch.

    Attributes:
        names: of the reward functions.
        memory: what is remembered, for checkpoints.
    """

    def __init__(
        self,
        options: AggregationOptions,
        names: Sequence[str],
        own_ranges: Sequence[Range | None],
        *,
        judge_twice: bool = False,
    ) -> None:
        """Begin a run; see :class:`rvpo.step.memory.Memory` for the arguments."""
        self.options, self.names = options, list(names)
        self.memory = Memory(options, self.names, own_ranges, judge_twice=judge_twice)
        self._recent_rewards: dict[str, Tensor] = {}
        self._warned = False

    def __call__(
        self,
        rewards: Tensor,
        families: Sequence[Family],
        config: AdvantageConfig,
        *,
        weights: Tensor | Sequence[float] | None,
        num_generations: int | None = None,
        groups: Tensor | None = None,
        learn: bool = True,
        again: Again | None = None,
    ) -> Aggregated:
        """Aggregate the channels of a batch.

        Args:
            rewards: (N, F) one column a reward function, NaN = missing.
            families: those functions that have channels of their own for each prompt.
            config: the options at this moment of training.
            weights: (F,) importance of the functions; None weighs all the same.
            num_generations: G, for rows in blocks of G, or else ``groups``.
            groups: (N,) integer group ids.
            learn: whether the batch is trained on, and so remembered.
            again: the completions that were scored a second time.

        Raises:
            RewardError: rewards that cannot be aggregated.
        """
        names, table = self.names, None
        values, applies = rewards, None
        channels = Channels.columns(names, self.memory.ranges, rewards.device)
        try:
            if families:
                table = assemble(
                    rewards,
                    names,
                    families,
                    num_generations=num_generations,
                    groups=groups,
                    weights=weights,
                    ranges=self.memory.ranges,
                )
                values, weights, applies, channels = table.values, table.weights, table.applies, table.channels
            reliability = self.memory.reliability(channels)  # as used, before this batch is learned from
            result = compute(
                values,
                config,
                groups=groups,
                num_generations=num_generations,
                weights=weights,
                applies=applies,
                channels=channels,
                reliability=reliability,
                state=self.memory.state,
            )
        except RewardError as error:
            hint = ", as reward_ranges, or `range` in a recipe" if "no range was declared" in str(error) else ""
            raise RewardError(f"{error}{hint} (channels in order: {', '.join(names)})") from error
        ours = {**result.rule_metrics, **self.memory.metrics(channels)}  # as used, before this batch is learned from
        if learn:
            pairs = again.pairs(names, rewards, families, table) if again else {}
            self.memory.learn(result, channels, pairs)
            self._warn_of_rarely_met(result, table.cells if table else names, config.risk)
        metrics = {**result.metrics(table.cells if table else names), **ours}
        logged = {f"rvpo/{key}": value for key, value in metrics.items()}
        used = torch.ones(()) if weights is None else torch.as_tensor(weights)
        return Aggregated(result, table, logged, config, channels, used.expand(result.rewards.shape), reliability)

    def _warn_of_rarely_met(self, result: Advantages, names: Sequence[str] | Mapping[str, Tensor], risk: float) -> None:
        """Say once which channels a soft minimum suppresses, judged over the rollouts of many steps."""
        if self._warned:
            return
        counts = (result.responsibilities != 0).any(0) | result.live.any(0)
        cells = (
            names
            if isinstance(names, Mapping)
            else {name: (slice(None), j) for j, name in enumerate(names) if bool(counts[j])}
        )
        rare = []
        for name, where in cells.items():
            met = result.rewards[where]
            before = self._recent_rewards.get(name)
            recent = (met if before is None else torch.cat([before, met]))[-1024:]
            self._recent_rewards[name] = recent
            if risk >= 1 and rarely_met(recent[:, None])[0]:
                rare.append(name)
        if rare:
            self._warned, self._recent_rewards = True, {}
            logger.warning(
                "The soft minimum with k = %g suppresses channels that are rarely met, and %s met in under about 30%% "
                "of rollouts (by a reward above the middle of its range): train with method='lift', which lifts them, "
                "or warm-start the model on examples that meet them. This warning is shown once.",
                risk,
                f"{rare[0]!r} is" if len(rare) == 1 else ", ".join(map(repr, rare)) + " are",
            )
