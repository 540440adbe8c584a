"""The base class of methods, its input and its output.

A method is a frozen dataclass in a file of its own: the equation first, then options, state and call. Its objects, its
text (``lift:kappa=3``) and its mapping (``{"name": "lift", "kappa": 3}``) are equivalent everywhere; see
:mod:`rvpo.core.methods.registry`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import KW_ONLY, MISSING, dataclass, field, fields, replace
from functools import cached_property
from typing import Any, ClassVar, Self

from rvpo.core.channels import Channels, State
from rvpo.core.checks import require
from rvpo.core.groups import Groups
from rvpo.core.lazy import Tensor, torch
from rvpo.core.normalize import GroupScores
from rvpo.core.scales import Scales
from rvpo.core.shards import WHOLE, Whole, channel_means
from rvpo.errors import RewardError

WHITEN = ("batch", "group", "token", "none")
DEAD_CHANNELS = ("drop", "keep")


@dataclass(frozen=True)
class Batch:
    """Input of a method: N completions on M channels, in float64.

    Attributes:
        rewards: (N, M), NaN = missing.
        weights: (N, M) importance, >= 0.
        scores: group z-scores and the states of the channels.
        present: (N, M) bool, channels that may take part: live ones, or all scored ones (option ``dead_channels``).
        z: (N, M) z-scores, 0 where the channel is not present.
        p: (N, M) weights as shares of the present channels. Rows sum to 1, or to 0 without a present channel.
        groups: the partition of rows into groups.
        channels: the named channels of the cells.
        progress: share of the training that is done, in [0, 1]; None if unknown.
        reliability: (M,) or (N, M) in [0, 1], how far each cell is trusted; None trusts all fully.
        known_scales: state of the channels' scales, see :mod:`rvpo.core.scales`.
        outside: (N, M) bool, cells that are left out of their group's normalisation. They have z = 0, and the mean of
            the others as reward. None if there are no such cells.
        shards: where the rows of the batch are. Everything that a method computes over the batch goes through it.

    Example:
        A method reads ``batch.z`` and ``batch.p``. GDPO, the weighted mean of z-scores, is one line:

        >>> import torch, rvpo
        >>> from dataclasses import dataclass
        >>> @dataclass(frozen=True)
        ... class Mean(rvpo.Method):
        ...     def __call__(self, batch: rvpo.Batch, state) -> rvpo.Outcome:
        ...         return rvpo.Outcome((batch.p * batch.z).sum(1), batch.p)
        >>> rewards = torch.tensor([[3.0, 0.0], [1.0, 1.0], [-1.0, 1.0], [-3.0, 0.0]])
        >>> out = rvpo.advantages(rewards, num_generations=4, method=Mean())
        >>> torch.equal(out.aggregated, rvpo.advantages(rewards, num_generations=4, method="gdpo").aggregated)
        True
    """

    rewards: Tensor
    weights: Tensor
    scores: GroupScores
    present: Tensor
    z: Tensor
    p: Tensor
    groups: Groups
    channels: Channels
    progress: float | None = None
    reliability: Tensor | None = None
    known_scales: State = field(default_factory=dict)
    outside: Tensor | None = None
    shards: Whole = WHOLE

    @cached_property
    def scales(self) -> Scales:
        """The scale of each channel, declared or learned, including this batch.

        If a method reads it, :func:`rvpo.core.compute` adds the scales to the state of the run.
        """
        read = self.weights if self.outside is None else self.weights.masked_fill(self.outside, 0.0)
        return Scales.of(self.rewards, read, self.channels, self.known_scales, self.shards)

    @property
    def attained(self) -> Tensor:
        """Rewards on their channel's scale, (N, M) in [0, 1]; NaN where missing, outside, or of weight 0."""
        return self.scales.shares

    def means(self, x: Tensor) -> Tensor:
        """Average the cells of each channel over the batch, (N, M) with NaN = not counted -> (K,), NaN where none."""
        (mean,) = channel_means(self.channels, self.shards, x)
        return mean


@dataclass(frozen=True)
class Outcome:
    """Result of a method; :class:`Batch` has an example.

    Attributes:
        aggregated: (N,) value of each completion before whitening.
        responsibilities: (N, M) derivative of ``aggregated`` by z: how much each channel counts. The methods of this
            project scale rows to a sum of 1 (or 0 if no channel takes part). Those of a function are not scaled.
        takes_part: (N,) bool, False for rows that the whitening leaves out and that get advantage 0. None selects the
            rows in which a channel has a share.
        state: state for the next batch: plain data or tensors. A checkpoint turns tensors and tuples into lists
            (:func:`rvpo.core.state.plain`), so a resumed run passes lists to the method.
        metrics: metrics of this batch, by name.

    Example:
        >>> import torch, rvpo
        >>> rvpo.Outcome(torch.zeros(2), torch.full((2, 3), 1 / 3), metrics={"steps": 1.0}).metrics
        {'steps': 1.0}
    """

    aggregated: Tensor
    responsibilities: Tensor
    takes_part: Tensor | None = None
    _: KW_ONLY
    state: State = field(default_factory=dict)
    metrics: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Paper:
    """Where a method was published.

    Attributes:
        title: title of the paper.
        arxiv: its id at arXiv, such as ``"2605.05750"``; None if it is not there.
        authors: authors in BibTeX's form; empty if unknown here.
        year: year of publication; None if unknown here.
    """

    title: str
    arxiv: str | None = None
    authors: str = ""
    year: int | None = None

    @property
    def citation(self) -> str:
        """A BibTeX entry."""
        author = self.authors.partition(" and ")[0].split(" ")[-1]
        key = re.sub(r"\W+", "", author or self.title.split(":")[0]).lower()
        lines = {
            "title": f"{{{self.title}}}",
            "author": self.authors,
            "year": "" if self.year is None else str(self.year),
            "eprint": "" if self.arxiv is None else f"arXiv:{self.arxiv}",
        }
        return "\n".join(
            [f"@article{{{key}{self.year or ''},", *(f"    {k:<7}= {{{v}}}," for k, v in lines.items() if v), "}"]
        )


@dataclass(frozen=True, kw_only=True)
class Method:
    """How rewards become one number per completion. Derive from it with ``@dataclass(frozen=True)``.

    Attributes:
        whiten: how the aggregate is centred and scaled: over the ``"batch"`` (as published), within the ``"group"``,
            over the batch with rows weighted by ``"token"``s (as verl), or ``"none"``. None: the method's default.
        dead_channels: ``"drop"`` leaves a channel that is constant in its group out of the aggregation, ``"keep"`` lets
            its z of 0 take part. None: the method's default.

    Example:
        >>> import rvpo
        >>> isinstance(rvpo.LIFT(), rvpo.Method), rvpo.LIFT().remembers, rvpo.GDPO().remembers
        (True, True, False)
    """

    name: ClassVar[str] = ""
    """Name of the method in texts, mappings and records."""
    summary: ClassVar[str] = ""
    """Description for help texts, one phrase."""
    paper: ClassVar[Paper | None] = None
    """Paper of the method, which a model card cites; None without a paper."""
    own_whiten: ClassVar[str] = "batch"
    """Default of ``whiten`` for this method."""
    own_dead_channels: ClassVar[str] = "drop"
    """Default of ``dead_channels`` for this method."""
    uses_z: ClassVar[bool] = True
    """Whether it aggregates z-scores instead of rewards."""
    uses_reliability: ClassVar[bool] = False
    """Whether it reads ``Batch.reliability``. Otherwise z-scores and weights are shrunk by it before."""
    largest_reward: ClassVar[float] = 1e100
    """Largest magnitude of a reward with which nothing overflows. Deviations in units of rewards are squared."""
    sums_weights: ClassVar[bool] = False
    """Whether its aggregate is a weighted sum, which grows with the weights, instead of a weighted mean."""
    centres_groups: ClassVar[bool] = False
    """Whether its advantages are centred within the group, for any scaling."""
    by_sums: ClassVar[bool] = False
    """Whether everything that it computes over the batch goes through ``Batch.shards``. The ranks of a process group
    then exchange only sums. Otherwise the method gets the rows of all ranks. A derived class must set this again."""
    available: ClassVar[bool] = True
    """Whether it can be called; False for a method that is known only from a record."""
    former_options: ClassVar[Mapping[str, str]] = {}
    """Former options -> what to use instead, for the error message."""
    always_spelled: ClassVar[tuple[str, ...]] = ()
    """Options that its text always shows, even with their default values."""

    whiten: str | None = None
    dead_channels: str | None = None

    def __init_subclass__(cls, **kwargs: Any) -> None:
        """Name a class without its own name by its place, module and class."""
        super().__init_subclass__(**kwargs)
        if "name" not in vars(cls):
            cls.name = place_of(cls)

    def __post_init__(self) -> None:
        """Refuse impossible values. A ``whiten`` or ``dead_channels`` that equals the method's default becomes None."""
        require("whiten", self.whiten, (None, *WHITEN))
        require("dead_channels", self.dead_channels, (None, *DEAD_CHANNELS))
        for option, own in (("whiten", self.own_whiten), ("dead_channels", self.own_dead_channels)):
            if getattr(self, option) == own:
                object.__setattr__(self, option, None)

    @property
    def remembers(self) -> bool:
        """Whether it needs the state of the previous batch."""
        return False

    @property
    def needs_progress(self) -> bool:
        """Whether it has to know how much of the training is done."""
        return False

    @property
    def names_channels(self) -> tuple[str, ...]:
        """Names of channels in its options."""
        return ()

    @property
    def traits(self) -> tuple[str, ...]:
        """Traits by its definition, for ``rvpo check``; see :data:`rvpo.conformance.target.TRAITS`."""
        return ()

    def risk(self, progress: float | None) -> float:
        """Return its place between the mean (0) and the minimum (inf). From 1 on it suppresses rare successes.

        Args:
            progress: share of the training that is done, None if unknown.
        """
        return 0.0

    def __call__(self, batch: Batch, state: State) -> Outcome:
        """Aggregate a batch. ``state`` is empty at the start of a run."""
        raise NotImplementedError(f"{type(self).__name__} has no __call__(self, batch, state)")

    @classmethod
    def from_options(cls, options: Mapping[str, Any], parse: Callable[[Any], Method]) -> Self:
        """Build from plain options. ``parse`` builds a method that is an option of this one."""
        return cls(**options)

    def defaults(self) -> dict[str, Any]:
        """Return the default of every option that has one."""
        found = {option.name: option.default for option in fields(self) if option.default is not MISSING}
        made = {
            option.name: option.default_factory() for option in fields(self) if option.default_factory is not MISSING
        }
        return {**found, **made}

    def options(self) -> dict[str, Any]:
        """Return the options by name: the method's own, then ``whiten`` and ``dead_channels`` if they are set."""
        values = {option.name: getattr(self, option.name) for option in fields(self)}
        shared = {name: values.pop(name) for name in ("whiten", "dead_channels")}
        return values | {name: value for name, value in shared.items() if value is not None}


def outcome_of(method: Method, batch: Batch, state: State) -> Outcome:
    """Call a method, and refuse a result that would lead to silent errors later.

    Raises:
        RewardError: the result is not an Outcome, has wrong shapes or dtypes, or its ``aggregated`` is not finite in a
            row that takes part.
    """
    is_shared = batch.shards.is_whole or vars(type(method)).get("by_sums", False)
    outcome = method(batch, state) if is_shared else _of_all_ranks(method, batch, state)
    if not isinstance(outcome, Outcome):
        raise RewardError(f"method {method.name!r} returned a {type(outcome).__name__}; expected a rvpo.Outcome")
    n, m = batch.z.shape
    expected = {"aggregated": (n,), "responsibilities": (n, m)}
    if outcome.takes_part is not None:
        expected["takes_part"] = (n,)
    for name, shape in expected.items():
        value = getattr(outcome, name)
        if isinstance(value, Tensor) and value.shape == shape:
            continue
        seen = f"a tensor of shape {tuple(value.shape)}" if isinstance(value, Tensor) else f"a {type(value).__name__}"
        raise RewardError(
            f"method {method.name!r} returned {seen} as {name}; expected shape {shape}, a row per completion"
        )
    for name in ("aggregated", "responsibilities"):
        dtype = getattr(outcome, name).dtype
        if not dtype.is_floating_point:
            raise RewardError(f"method {method.name!r} returned {name} of {dtype}; expected a floating dtype")
    if outcome.takes_part is not None and outcome.takes_part.dtype != torch.bool:
        dtype = outcome.takes_part.dtype
        raise RewardError(f"method {method.name!r} returned takes_part of {dtype}; expected torch.bool")
    takes_part = (batch.p > 0).any(-1) if outcome.takes_part is None else outcome.takes_part
    bad = ~outcome.aggregated.isfinite() & takes_part
    if bool(bad.any()):
        row = int(bad.nonzero()[0])
        raise RewardError(
            f"method {method.name!r} returned {outcome.aggregated[row].item()} for row {row}; expected finite numbers "
            "in the rows that take part"
        )
    return outcome


def _of_all_ranks(method: Method, batch: Batch, state: State) -> Outcome:
    """Call a method that does not know of ranks with the rows of all of them, and return what it says of ours."""
    shards, scores, columns = batch.shards, batch.scores, batch.z.shape[1]
    parts = [batch.rewards, batch.weights, scores.z, scores.live, scores.missing, batch.present, batch.z, batch.p]
    parts += [x for x in (batch.reliability, batch.outside) if x is not None]
    if batch.channels.index.ndim == 2:
        parts.append(batch.channels.index)
    table, own = shards.joined(torch.cat([part.to(batch.z).expand(batch.z.shape) for part in parts], 1))
    found = dict(enumerate(torch.split(table, columns, 1)))
    by_group, _ = shards.joined(torch.cat([scores.mean, scores.std], 1))
    mean, std = torch.split(by_group, columns, 1)
    rest = list(range(8, len(parts)))
    whole = Batch(
        found[0],
        found[1],
        GroupScores(found[2], found[3] > 0, found[4] > 0, mean, std),
        found[5] > 0,
        found[6],
        found[7],
        shards.grouped(batch.groups),
        batch.channels,
        batch.progress,
        None if batch.reliability is None else found[rest.pop(0)],
        batch.known_scales,
        None if batch.outside is None else found[rest.pop(0)] > 0,
    )
    if rest:
        index = found[rest[0]].to(torch.int64)
        whole = replace(whole, channels=Channels(batch.channels.names, index, batch.channels.ranges))
    outcome = method(whole, state)
    if "scales" in vars(whole):  # the run remembers them
        scales = whole.scales
        vars(batch)["scales"] = replace(scales, shares=scales.shares[own], outside=scales.outside[own], shards=shards)
    if not isinstance(outcome, Outcome):
        return outcome
    rows: dict[str, Any] = {
        name: value[own] if isinstance(value := getattr(outcome, name), Tensor) and value.ndim else value
        for name in ("aggregated", "responsibilities", "takes_part")
    }
    # A value with another number of rows is refused below, with its shape.
    seen = {_rows_of(getattr(outcome, name)) for name in rows}
    wrong = seen - {None, len(table)}
    return outcome if wrong else replace(outcome, **rows)


def _rows_of(value: object) -> int | None:
    return len(value) if isinstance(value, Tensor) and value.ndim else None


def place_of(found: object) -> str:
    """Return ``module:name`` of a class or function."""
    return f"{getattr(found, '__module__', '?')}:{getattr(found, '__qualname__', type(found).__qualname__)}"
