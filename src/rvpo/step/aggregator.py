"""``Aggregator``: from the rewards of a batch to advantages, with a memory from batch to batch."""

from __future__ import annotations

import copy
import dataclasses
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from rvpo.core import AdvantageConfig, Advantages, Channels, Method, compute
from rvpo.core.advantages import ranked_by
from rvpo.core.channels import Range, State, check_ranges, owner_of
from rvpo.core.groups import block_size
from rvpo.core.methods.registry import METHODS
from rvpo.core.metrics import (
    PREFIX,
    RELIABILITY,
    UNWANTED_COMPLETIONS,
    UNWANTED_GROUPS,
    counter_metrics,
)
from rvpo.core.ragged import ChannelScores, Family, assemble
from rvpo.core.scales import ENOUGH, KEY
from rvpo.core.schedules import checked_progress
from rvpo.core.shards import WHOLE, Whole
from rvpo.core.solved import counting_cells, is_named
from rvpo.core.state import not_finite, plain
from rvpo.core.weights import Weight, check_weights, mean_weight, read_weight, weights_at
from rvpo.errors import ConfigError, RewardError
from rvpo.step.lift_news import news_of_lift
from rvpo.step.old_states import of_this_version
from rvpo.step.range_changes import changed_ranges, saved_ranges
from rvpo.step.rare import RecentRewards
from rvpo.step.reading import Rewards, aligned_families, group_numbers
from rvpo.step.reward_news import Sight, lines_of, news_of_rewards, next_seen, sights
from rvpo.step.scale_news import news_of_scales
from rvpo.step.shards import Shards
from rvpo.step.structure.all_of import AllOf
from rvpo.step.structure.base import Layout
from rvpo.step.structure.batch import Structures, checked_monitor
from rvpo.step.structure.spelling import build_structures
from rvpo.step.together import meet
from rvpo.step.trust import Again, Reliability, trusting
from rvpo.text.suggest import did_you_mean

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Aggregated:
    """Result of :class:`Aggregator` for a batch.

    Example:
        >>> import rvpo
        >>> out = rvpo.Aggregator("gdpo", ["correct", "safe"])([[1, 0], [0, 1], [0, 0]], num_generations=3)
        >>> type(out.advantages).__name__, round(out.metrics["rvpo/correct/mean"], 4)
        ('list', 0.3333)

    Attributes:
        advantages: (N,), in the form of the rewards: a tensor, an array or a list.
        metrics: metrics by name, the same in every engine; see :mod:`rvpo.core.metrics`.
        result: all values as tensors: z-scores, responsibilities, live and missing cells.
        table: columns of the rubrics' channels; None without a rubric, when each name is a column.
        config: options of the aggregation.
        progress: share of the training that was done; None if it was not given.
        channels: the named channels of the cells.
        weights: (N, M) weights of the cells.
        families: the rubrics of the batch.
        importance: weight of each reward function, by name.
        schedules: name of a reward function -> text of its weight's schedule, for those with a schedule.
        tokens: (N,) trained tokens by which rows were whitened; None without whitening by tokens.
        reliability: (M,) or (N, M), how far each cell was trusted; None if all were trusted fully.
        structures: structures and monitored channels of the run; None without any.
        layout: the batch after the structures: the rewards that entered the aggregation, and added columns, which
            ``result`` has as well; None without structures.
        solved: names of the channels that a completion must meet to solve its question; empty for all trained ones.
    """

    advantages: Any
    metrics: Mapping[str, float]
    result: Advantages
    table: ChannelScores | None
    config: AdvantageConfig
    progress: float | None
    channels: Channels
    weights: Tensor
    families: Sequence[Family]
    importance: Mapping[str, float]
    schedules: Mapping[str, str]
    tokens: Tensor | None
    reliability: Tensor | None
    structures: Structures | None = None
    layout: Layout | None = None
    solved: tuple[str, ...] = ()

    @property
    def entered(self) -> Tensor:
        """(N, M) rewards that entered the aggregation, NaN = missing or outside of the normalisation."""
        return self.result.rewards if self.layout is None else self.layout.entered


class Aggregator:
    """Turns the rewards of each batch into advantages and metrics, with a state from batch to batch.

    Example:
        >>> import rvpo
        >>> agg = rvpo.Aggregator("lift", ["correct", "safe"], ranges={"correct": (-3, 3)}, weights={"correct": 2.0})
        >>> rewards = [{"correct": 3.0, "safe": 0}, {"correct": -1.0, "safe": 1}, {"correct": 0.5, "safe": None}]
        >>> out = agg(rewards, num_generations=3)
        >>> [round(a, 2) for a in out.advantages]
        [1.15, -0.68, -0.47]

    With a process group, each rank hands in its own groups, and only sums travel::

        agg = rvpo.Aggregator("lift", ["correct", "safe"], process_group=torch.distributed.group.WORLD)
        out = agg(rewards_of_this_rank, num_generations=8)  # on every rank, once per step

    Attributes:
        config: the method and the numerical options.
        names: M names of the channels or of the reward functions.
        ranges: lowest and highest reward in the order of ``names``, None without a declared range.
        label_ranges: declared ranges of labels of rubrics, by ``{function}/{label}``.
        weights: importance in the order of ``names``: numbers, or schedules over the training.
        quiet: whether warnings are off, as in all except one of several processes that see the same rewards.
        shards: where the rows of a batch are: all in this process, or in the ranks of a process group.
        steps: number of batches that were learned from since this process started or loaded a state.
    """

    def __init__(
        self,
        method: str | Mapping[str, Any] | Method,
        names: Sequence[str],
        *,
        ranges: Mapping[str, Range | None] | Sequence[Range | None] | None = None,
        weights: Mapping[str, Any] | Sequence[Any] | None = None,
        eps: float = 1e-4,
        ddof: int = 1,
        missing: str = "drop",
        wanted: Sequence[str] | None = None,
        reliability: Reliability | None = None,
        structure: Any = None,
        monitor: Sequence[str] | str | None = None,
        solved: Sequence[str] | str | None = None,
        process_group: Any = None,
    ) -> None:
        """Start a run.

        Args:
            method: text such as ``"lift:kappa=3"``, a mapping, or an object such as ``rvpo.LIFT()``.
            names: names of the channels, in the order of the columns of the rewards.
            ranges: lowest and highest reward, by name or in order, for methods that compare how far channels are met.
                A reward beyond its range counts as the end of the range. Without a range, the scale of a reward is
                [0, 1]. Once rewards lie outside of [0, 1], it is learned from them; see :mod:`rvpo.core.scales`. The
                range of a rubric is that of its scores. By name, a label of a rubric can have its own range,
                ``{"rubric/tone": (1, 10)}``.
            weights: importance >= 0, by name or in order; 1 if not given. A weight can follow the training, such as
                ``"linear(0.2,1)"`` or ``"alternate(1,0)"``; see :mod:`rvpo.core.weights`.
            eps: number added to every standard deviation, in reward units.
            ddof: 1 for the sample standard deviation (as TRL and verl), 0 for the population's.
            missing: ``"drop"`` leaves an unscored channel out for that completion, ``"error"`` refuses it.
            wanted: names of channels. Only groups that at least one of them ranks are trained on. Completions of other
                groups get advantage 0 and are left out of the whitening. ``"rubric/tone"`` names a label of a rubric,
                ``"rubric"`` all of its labels. None: all channels.
            reliability: how far each channel is trusted; None trusts all fully.
            structure: dependencies between channels, applied in this order before the method: a list of
                ``"all_of(a,b)"``, ``"gate(safe)"``, ``"only_where(style,correct)"``; see :mod:`rvpo.step.structure`.
            monitor: names of channels that are scored, logged and diagnosed, but never decide an advantage.
            solved: names of the channels that a completion must meet to solve its question, used only for the metrics
                ``solved/…``. They may be monitored. None: all channels that are trained on.
            process_group: ranks that each pass their own groups of the batch, such as
                ``torch.distributed.group.WORLD``; see :mod:`rvpo.step.shards`. None: this process has the whole batch.

        Raises:
            ConfigError: a method, option or name is unknown, or a value cannot work.
        """
        self.names = _checked_names(names)
        wanted = () if wanted is None else wanted
        self.config = AdvantageConfig(method=method, eps=eps, ddof=ddof, missing=missing, wanted=wanted)  # type: ignore[arg-type]
        _require_names("wanted", [owner_of(name, self.names) or name for name in self.config.wanted], self.names)
        named = self.config.method.names_channels
        # A label of a rubric, "function/label", is not known before the first batch.
        parts = build_structures(structure)
        known = [*self.names, *(part.channel for part in parts if isinstance(part, AllOf))]
        _require_names(self.config.method.name, [owner_of(name, known) or name for name in named], known)
        self.ranges, self.label_ranges = _checked_ranges(ranges, self.names)
        watched = checked_monitor(monitor, self.names, named)
        self.weights = _checked_weights(weights, self.names, watched)
        by_name = {name: mean_weight(weight) for name, weight in zip(self.names, self.weights, strict=True)}
        declared = dict(zip(self.names, self.ranges, strict=True)) | self.label_ranges
        self.structures = None
        if parts or watched:
            self.structures = Structures.of(parts, watched, self.names, declared, by_name, named)
        self.solved = checked_solved(solved, known)
        self.reliability = copy.deepcopy(reliability)  # two runs may be given one object, and learn different evidence
        if self.reliability is not None:
            self.reliability.check(self.names)
            if not self.config.method.uses_z and not self.config.method.uses_reliability:
                raise ConfigError(
                    f"reliability is set, but method {str(self.config)!r} aggregates rewards and not z-scores; "
                    "expected a method such as gdpo, rvpo or lift, or no reliability"
                )
        self.shards: Whole = WHOLE if process_group is None else Shards(process_group)
        self.quiet = not self.shards.is_whole and self.shards.rank > 0  # type: ignore[attr-defined]
        # Options name these. Which channels rubrics have shows in training alone.
        self._unseen = dict.fromkeys(self.label_ranges, "ranges") | dict.fromkeys(named, self.config.method.name)
        self._unseen |= {name: "monitor" for name in watched if name not in self.names}
        self._unseen |= {name: "wanted" for name in self.config.wanted if name not in self.names}
        self._unseen |= {name: "reliability" for name in (reliability.given if reliability else ()) if "/" in name}
        self._completions = 0  # since the start of this process
        self._state: State = {}
        self._seen: dict[str, Any] = {}  # of each channel, and what was said of it
        self._columns: Channels | None = None  # of batches without rubrics, the same every time
        self._recent = RecentRewards()
        self.steps = 0  # that were learned from since the start or a load
        # A rule that never nears the minimum holds back nothing.
        self._warned = max(self.config.method.risk(0.0), self.config.method.risk(1.0)) < 1

    def __call__(
        self,
        rewards: Any,
        *,
        num_generations: int | None = None,
        groups: Any = None,
        progress: float | None = None,
        tokens: Tensor | None = None,
        families: Sequence[Family] = (),
        learn: bool = True,
        again: Again | None = None,
    ) -> Aggregated:
        """Turn the rewards of N completions into N advantages.

        Args:
            rewards: (N, M) tensor, array or nested lists, or N mappings by name; None, NaN or an absent name = missing.
                A mapping may contain a rubric, ``{name: {criterion: verdict}}``. Criteria may differ between prompts.
            num_generations: G, for rows in consecutive blocks of G completions of one prompt; or use ``groups``.
            groups: N hashable ids, equal for completions of one prompt.
            progress: share of the training that is done, in [0, 1]; needed by a scheduled k or weight.
            tokens: (N,) number of trained tokens, needed by ``whiten="token"``.
            families: rubrics with weights, labels and reasons. They replace their columns in ``rewards``.
            learn: whether to update the state with this batch; False for an evaluation.
            again: completions that were scored a second time, for ``reliability``.

        Returns:
            The advantages (N,), in the form of the rewards, with metrics and all intermediate values.

        Raises:
            RewardError: the rewards or groups cannot be aggregated.
            ConfigError: a k or weight follows a schedule, and ``progress`` is None.

        With a process group, all ranks call this once per step. Each passes the rows of its own groups, possibly none,
        and gets their advantages. Metrics and state are those of the whole batch. An error in one rank is raised in all
        ranks.
        """
        if not isinstance(self.shards, Shards):
            return self._step(rewards, num_generations, groups, progress, tokens, families, learn, again)
        before, steps = self.snapshot(), self.steps
        try:
            with self.shards.together():
                return self._step(rewards, num_generations, groups, progress, tokens, families, learn, again)
        except Exception:
            self.rewind(before)  # some ranks may have learned from the batch already
            self.steps, self._recent = steps, RecentRewards()
            raise

    def _step(
        self,
        rewards: Any,
        num_generations: int | None,
        groups: Any,
        progress: float | None,
        tokens: Tensor | None,
        families: Sequence[Family],
        learn: bool,
        again: Again | None,
    ) -> Aggregated:
        """See :meth:`__call__`."""
        shards = self.shards
        progress = checked_progress(progress)
        weights_now = weights_at(self.weights, progress, self.names)
        is_ready = _is_ready(rewards, len(self.names))
        read = None if is_ready else Rewards(rewards, self.names, may_be_empty=not shards.is_whole)
        matrix: Tensor = rewards if read is None else read.matrix
        ids = groups
        if groups is not None:
            groups = group_numbers(groups, len(matrix), matrix.device)
            if num_generations is None and (size := block_size(groups)) is not None:
                num_generations, groups = size, None  # the same groups, in the layout whose sums are plain views
        if read is not None and read.families:
            rows = range(len(matrix))
            index = [row // (num_generations or 1) for row in rows] if groups is None else groups.tolist()
            families = [*families, *aligned_families(read.families, index)]
        completions = len(matrix)
        if isinstance(shards, Shards):
            if not len(matrix):
                num_generations, groups = None, torch.zeros(0, dtype=torch.int64, device=matrix.device)
            met = meet(shards, self, matrix, ids, families, progress, learn, tokens)
            completions, families = met.completions, met.families
        try:
            values, weights, applies, channels, table = self._laid_out(
                matrix, families, num_generations, groups, weights_now
            )
            layout = None
            if self.structures is not None:
                layout = self.structures.apply(values, weights, applies, channels, table, shards)
                values, weights, applies, channels = layout.entered, layout.weights, layout.applies, layout.channels
            # As it was before this batch is learned from.
            cells = None if self.reliability is None else self.reliability.cells(channels)
            result = compute(
                values,
                self.config,
                groups=groups,
                num_generations=num_generations,
                weights=weights,
                applies=applies,
                channels=channels,
                progress=progress,
                tokens=tokens,
                monitored=self.structures is not None and bool(self.structures.monitor),
                # Of several ranks, all or none look at what is outside.
                outside=None if layout is None or (shards.is_whole and not layout.outside.any()) else layout.outside,
                state=self._state,
                shards=shards,
                **trusting(self.config.method, cells),
            )
        except RewardError as error:
            raise RewardError(f"{error} (channels in order: {', '.join(self.names)})") from error
        shown: Sequence[str] | Mapping[str, Tensor] = self.names if table is None else table.cells
        counted = result
        of_layout: Mapping[str, float] = {}
        if layout is not None:
            counted = dataclasses.replace(result, rewards=layout.entered)
            result = dataclasses.replace(result, rewards=layout.rewards)
            shown = [*self.names, *layout.made] if table is None else layout.cells
            of_layout = layout.metrics
        sight = sights(counted, channels, shards)
        seen = next_seen(self._seen, sight, dict(zip(channels.names, channels.ranges, strict=True)))
        counters = counter_metrics(
            counted,
            shown,
            lines_of(seen, channels),
            counting_cells(
                None if table is None and layout is None else result.applies,
                _in_double(weights),
                channels,
                self._counting(channels),
                shards,
            ),
            None if layout is None else layout.outside,
            shards,
        )
        unwanted = self._unwanted(result, channels)
        metrics = {**result.metrics(shown, shards), **counters, **unwanted, **result.method_metrics, **of_layout}
        if self.reliability is not None:
            trusted = self.reliability.by_name(channels)
            metrics |= {f"{name}/{RELIABILITY}": rho for name, rho in trusted.items()}
        if learn:
            # First, because a second judgement may be refused: then nothing is learned from this batch.
            if self.reliability is not None:
                pairs = again.pairs(self.names, matrix, families, table) if again else {}
                self.reliability.learn(result, channels, pairs, self.shards)
            self._seen = seen
            self.steps += 1
            self._learn(result, sight)
            self._warn_of_unseen(channels, completions)
            self._warn_of_rarely_met(result, shown, progress, completions)
        return Aggregated(
            advantages=result.advantages if read is None else read.give_back(result.advantages),
            metrics={f"{PREFIX}{key}": value for key, value in metrics.items()},
            result=result,
            table=table,
            config=self.config,
            progress=progress,
            channels=channels,
            weights=_in_double(weights).expand(result.rewards.shape),
            families=families,
            importance={
                **dict(zip(self.names, weights_now, strict=True)),
                **(self.structures.conjunctions if self.structures else {}),
            },
            schedules={
                name: str(weight)
                for name, weight in zip(self.names, self.weights, strict=True)
                if not isinstance(weight, int | float)
            },
            tokens=tokens if self.config.whiten == "token" else None,
            reliability=cells,
            structures=self.structures,
            layout=layout,
            solved=self.solved,
        )

    def _counting(self, channels: Channels) -> set[str]:
        """Return the channels of a batch that a completion has to meet to solve its question."""
        made = {} if self.structures is None else self.structures.conjunctions
        functions = [*self.names, *made]
        if self.solved:
            return {name for name in channels.names if is_named(name, self.solved, functions)}
        trained = {name for name, weight in zip(self.names, self.weights, strict=True) if mean_weight(weight) > 0}
        left_out = set() if self.structures is None else {*self.structures.monitor, *self.structures.replaced}
        return {
            name
            for name in channels.names
            if is_named(name, trained | set(made), functions) and not is_named(name, left_out, functions)
        }

    def _unwanted(self, result: Advantages, channels: Channels) -> dict[str, float]:
        """Return what the filter by ``wanted`` leaves out, besides groups without any signal."""
        if not self.config.wanted:
            return {}
        out = result.signal & ~ranked_by(self.config.wanted, channels, result.live, result.groups)
        shares = result.groups.max(out[:, None].to(torch.float32))
        left_out, groups, rows = self.shards.sum(shares.sum(), torch.tensor(result.groups.count), out.sum())
        return {UNWANTED_GROUPS: left_out.item() / int(groups), UNWANTED_COMPLETIONS: float(rows)}

    def state_dict(self) -> dict[str, Any]:
        """Return what is remembered as plain JSON data, for a checkpoint."""
        state: dict[str, Any] = {"method": self.config.method.name, "remembered": plain(self._state)}
        if self._seen:
            state["seen"] = copy.deepcopy(self._seen)
        if KEY in self._state:
            state["ranges"] = saved_ranges(self.names, self.ranges, self.label_ranges)
        if self.reliability is not None:
            state["evidence"] = copy.deepcopy(self.reliability.to_state())
        return state

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from what :meth:`state_dict` returned, to the last bit.

        Raises:
            ConfigError: it is of another method, of a run with other ranges, damaged, or not a state.
        """
        if not isinstance(state, Mapping) or not isinstance(state.get("remembered"), Mapping):
            raise ConfigError(f"state is {str(state)[:80]!r}; expected what state_dict() of an Aggregator returned")
        state = of_this_version(state, self.config.method)
        if state.get("method") != self.config.method.name:
            raise ConfigError(
                f"state is what method {state.get('method')!r} remembered; expected one of method "
                f"{self.config.method.name!r}. Build the Aggregator with that method, or start without a state"
            )
        if changed := self.changed_ranges(state):
            raise ConfigError(
                f"{'; '.join(changed)}, so what method {state['method']!r} remembered is in other units; expected the "
                "ranges with which the state was saved. Build the Aggregator with those, or start without a state"
            )
        own = state["remembered"] if self.config.method.name in METHODS else {}
        if place := not_finite({"remembered": own, "evidence": state.get("evidence")}):
            raise ConfigError(
                f"state has a number at {place} that is not finite; expected finite numbers, so the state is damaged. "
                "Load that of an earlier checkpoint, or start without a state"
            )
        self._state = copy.deepcopy(dict(state["remembered"]))
        self.steps = 0
        self._seen = copy.deepcopy(dict(state.get("seen", {})))
        if self.reliability is not None:
            self.reliability.load_state(state.get("evidence"))

    def snapshot(self) -> Any:
        """Return what is remembered, for :meth:`rewind`. No method changes its state in place."""
        seen = {name: {**record, "said": list(record["said"])} for name, record in self._seen.items()}
        evidence = None if self.reliability is None else copy.deepcopy(self.reliability.to_state())
        return self._state, seen, evidence

    def rewind(self, snapshot: Any) -> None:
        """Go back to a :meth:`snapshot` of this aggregator: what came after it is forgotten."""
        self._state, self._seen, evidence = snapshot
        if self.reliability is not None:
            self.reliability.load_state(evidence)

    def changed_ranges(self, state: Mapping[str, Any]) -> list[str]:
        """Return what to say of each range that is not the one with which ``state`` was saved; see :meth:`state_dict`.

        Only methods that compare rewards on their scales have such a state.
        """
        return changed_ranges(state, saved_ranges(self.names, self.ranges, self.label_ranges))

    def _laid_out(
        self,
        matrix: Tensor,
        families: Sequence[Family],
        num_generations: int | None,
        groups: Tensor | None,
        function_weights: list[float],
    ) -> tuple[Tensor, Tensor | list[float], Tensor | None, Channels, ChannelScores | None]:
        """Return rewards, weights, which cells apply, channels and, with rubrics, the table of these."""
        if not families:
            if self._columns is None or self._columns.index.device != matrix.device:
                self._columns = Channels.columns(self.names, self.ranges, matrix.device)
            return matrix, function_weights, None, self._columns, None
        table = assemble(
            matrix,
            self.names,
            families,
            num_generations=num_generations,
            groups=groups,
            weights=function_weights,
            ranges=self.ranges,
            label_ranges=self.label_ranges,
        )
        return table.values, table.weights, table.applies, table.channels, table

    def _learn(self, result: Advantages, sight: Mapping[str, Sight]) -> None:
        method = self.config.method
        said = [
            *news_of_scales(self._state, result.state),
            *news_of_lift(method, self._state, result.state),
            *news_of_rewards(self._seen, sight, method, result.state),
        ]
        after = ", ".join(map(str, self.structures.parts)) if self.structures else ""
        for text in said if not self.quiet else ():
            logger.warning("%s%s", text, f". This is about rewards as they count after {after}" if after else "")
        self._state = result.state

    def _warn_of_unseen(self, channels: Channels, rows: int) -> None:
        """Say once, after :data:`ENOUGH` completions, which channels are named in options but never came."""
        if not self._unseen:
            return
        self._unseen = {name: option for name, option in self._unseen.items() if name not in channels.names}
        self._completions += rows
        if self._completions < ENOUGH or not self._unseen:
            return
        told = ", ".join(f"{option} names {name!r}" for name, option in self._unseen.items())
        logger.warning(
            "%s, but none of the first %d completions has such a channel, so that has no effect yet. The channel of a "
            "criterion is its rubric and its first label: correct the name if it is mistyped. The last batch has %s.",
            told,
            self._completions,
            ", ".join(channels.names),
        )
        self._unseen = {}

    def _counted_columns(self, result: Advantages) -> Tensor:
        """Return which columns rank a group or count in an aggregate, (M,) bool."""
        summary = result.summary
        if summary is None:
            counting = ((result.responsibilities != 0) | result.live).sum(0)
            return self.shards.sum(counting)[0] > 0
        # Every weight is above 0.
        return summary.ranks if self.config.dead_channels == "drop" else torch.ones_like(summary.ranks)

    def _warn_of_rarely_met(
        self,
        result: Advantages,
        shown: Sequence[str] | Mapping[str, Tensor],
        progress: float | None,
        completions: int,
    ) -> None:
        """Say once which channels a soft minimum suppresses, judged over the rollouts of many steps."""
        if self._warned:
            return
        counts = None if isinstance(shown, Mapping) else self._counted_columns(result)
        self._recent.add(result.rewards.detach(), shown, counts, completions)
        risk = self.config.method.risk(progress)
        rare = self._recent.rare(shown, self.shards) if risk >= 1 else []
        if rare:
            self._warned, self._recent = True, RecentRewards()
            if self.quiet:
                return
            logger.warning(
                "The soft minimum with k = %g suppresses channels that are rarely met, and %s met in under about 30%% "
                "of rollouts (by a reward above the middle of its range): train with method='lift', which lifts them, "
                "or warm-start the model on examples that meet them. This warning is shown once.",
                risk,
                f"{rare[0]!r} is" if len(rare) == 1 else ", ".join(map(repr, rare)) + " are",
            )


def checked_solved(solved: Sequence[str] | str | None, known: Sequence[str]) -> tuple[str, ...]:
    """Return the names of the channels that a completion has to meet; empty: all that are trained on.

    Args:
        solved: as given; a name may be a label of a rubric, ``"rubric/tone"``.
        known: names of the reward functions, and of channels that structures make.

    Raises:
        ConfigError: not a list of names, or an unknown one.
    """
    if solved is None:
        return ()
    names = [solved] if isinstance(solved, str) else solved
    if not isinstance(names, Sequence) or not names or not all(isinstance(name, str) and name for name in names):
        raise ConfigError(f"solved is {solved!r}; expected names of channels, such as ['correct'], or no such option")
    _require_names("solved", [owner_of(name, known) or name for name in names], known)
    return tuple(dict.fromkeys(names))


def _in_double(weights: Tensor | list[float]) -> Tensor:
    """Return weights as a tensor; numbers exactly as they were given, so that a replay has the same."""
    return weights if isinstance(weights, Tensor) else torch.tensor(weights, dtype=torch.float64)


def _is_ready(rewards: Any, columns: int) -> bool:
    """Return whether rewards are a tensor (N, M) of floating point already, as engines have them."""
    return isinstance(rewards, Tensor) and rewards.is_floating_point() and rewards.shape[1:] == (columns,)


def _checked_names(names: Sequence[str]) -> list[str]:
    # Keys of a dict and columns of a table have an order; a set has none.
    is_ordered = hasattr(names, "__iter__") and not isinstance(names, str | bytes | set | frozenset | Mapping)
    given = list(names) if is_ordered else []
    if not given or not all(isinstance(name, str) and name for name in given):
        raise ConfigError(f"names is {names!r}; expected a list of names, one per channel, such as ['correct', 'safe']")
    if twice := [name for i, name in enumerate(given) if name in given[:i]]:
        raise ConfigError(f"names has {twice[0]!r} twice; expected a name of its own for each channel")
    return [str(name) for name in given]  # those of NumPy are a type of their own


def _require_names(option: str, named: Sequence[str], names: Sequence[str]) -> None:
    if unknown := [name for name in named if name not in names]:
        raise ConfigError(
            f"{option} names the channel {unknown[0]!r}{did_you_mean(unknown[0], names)}; expected one of "
            f"{', '.join(names)}"
        )


def _checked_ranges(
    ranges: Mapping[str, Range | None] | Sequence[Range | None] | None, names: Sequence[str]
) -> tuple[tuple[Range | None, ...], dict[str, Range]]:
    """Return the ranges of reward functions, in order, and those of labels of rubrics, by name."""
    labels: dict[str, Range] = {}
    if isinstance(ranges, Mapping):
        _require_names("ranges", [owner_of(name, names) or name for name in ranges], names)
        named = [name for name in ranges if name not in names]
        checked = check_ranges([ranges[name] for name in named], len(named), named)
        labels = {name: limits for name, limits in zip(named, checked, strict=True) if limits is not None}
        ranges = [ranges.get(name) for name in names]
    if isinstance(ranges, set | frozenset):
        raise _without_order("ranges", ranges)
    return check_ranges(ranges, len(names), names), labels


def _checked_weights(
    weights: Mapping[str, Any] | Sequence[Any] | None, names: Sequence[str], monitor: Sequence[str] = ()
) -> list[Weight]:
    """Return a weight per name, 0 for those that are only monitored."""
    if weights is None:
        weights = [1.0] * len(names)
    if isinstance(weights, Mapping):
        _require_names("weights", list(weights), names)
        for name in monitor:
            if weights.get(name, 0) != 0:
                raise _monitored_weight(name, weights[name])
        weights = [weights.get(name, 1.0) for name in names]
    if isinstance(weights, set | frozenset):
        raise _without_order("weights", weights)
    given = weights.tolist() if hasattr(weights, "tolist") else list(weights)
    if len(given) != len(names):
        raise ConfigError(f"weights has {len(given)} numbers for the {len(names)} channels {', '.join(names)}")
    read = [read_weight(weight, name) for name, weight in zip(names, given, strict=True)]
    for name, weight in zip(names, read, strict=True):
        if name in monitor and weight not in (0, 1):  # engines fill in a 1 where nothing is given
            raise _monitored_weight(name, weight)
    counted: list[Weight] = [0.0 if name in monitor else weight for name, weight in zip(names, read, strict=True)]
    if monitor and not any(weight != 0 for weight in counted):
        raise ConfigError(f"weights are all 0 ({counted}); expected at least one above 0 besides what is monitored")
    check_weights(counted, names)
    return counted


def _without_order(option: str, given: object) -> ConfigError:
    return ConfigError(f"{option} is the set {given!r}, which has no order; expected a list, or a mapping by name")


def _monitored_weight(name: str, weight: object) -> ConfigError:
    return ConfigError(
        f"weight of {name!r} is {weight}, but monitor names it, too; expected one of them: a channel that is only "
        "monitored has weight 0"
    )
