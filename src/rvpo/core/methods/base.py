"""What a method is, what it sees, and what it returns.

A method is one frozen dataclass in one file: the equation at the top, then options, state and call together. Its
objects, its text (``lift:kappa=3``) and its mapping (``{"name": "lift", "kappa": 3}``) mean the same everywhere; see
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
    """What a method sees: N completions on M channels, in float64.

    Attributes:
        rewards: (N, M), NaN = missing.
        weights: (N, M) importance, >= 0.
        scores: group z-scores and the states of the channels.
        present: (N, M) bool, which channels may take part: the live ones, or all that are scored (``dead_channels``).
        z: (N, M) z-scores, 0 where the channel is not present.
        p: (N, M) weights as shares of the channels present: rows sum to 1, or to 0 if none is.
        groups: which rows belong together.
        channels: the named channels of the run that the cells belong to.
        progress: share of the training that is done, in [0, 1]; None if unknown.
        reliability: (M,) or (N, M) in [0, 1], how far each cell is trusted; None if all are.
        known_scales: what is remembered of the channels' scales, see :mod:`rvpo.core.scales`.
        outside: (N, M) bool, cells that stand outside of their group's normalisation. They have z = 0 and, as reward,
            the mean of the others. None: none do.
        shards: where the rows of the batch are. Whatever a method computes over the batch goes through it.
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
        """The scale of each channel, declared or learned, with this batch taken into account.

        Whoever reads it makes the run remember the scales: :func:`rvpo.core.compute` adds them to the state.
        """
        read = self.weights if self.outside is None else self.weights.masked_fill(self.outside, 0.0)
        return Scales.of(self.rewards, read, self.channels, self.known_scales, self.shards)

    @property
    def attained(self) -> Tensor:
        """Rewards on their channel's scale, (N, M) in [0, 1], NaN where missing, outside or of weight 0."""
        return self.scales.shares

    def means(self, x: Tensor) -> Tensor:
        """Average the cells of each channel over the batch, (N, M) with NaN = not counted -> (K,), NaN where none."""
        (mean,) = channel_means(self.channels, self.shards, x)
        return mean


@dataclass(frozen=True)
class Outcome:
    """What a method returns.

    Attributes:
        aggregated: (N,).
        responsibilities: (N, M), what each channel counts for in ``aggregated``, its derivative by z. The methods of
            this project scale rows to a sum of 1 (or 0 where no channel takes part), a function's are not scaled.
        takes_part: (N,) bool, False for rows that the whitening leaves out and that get advantage 0. None: the rows in
            which a channel has a share.
        state: what the method needs with the next batch: plain data or tensors. A checkpoint turns tensors and tuples
            into lists (:func:`rvpo.core.state.plain`), so a resumed run passes lists to the method.
        metrics: what it logs about this batch, by name.
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
        authors: as BibTeX has them; empty if not stated here.
        year: None if not stated here.
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
            over the batch with each row counted by its ``"token"``s (as verl), or ``"none"``. None: the method's own.
        dead_channels: ``"drop"`` leaves a channel that is constant in its group out of the aggregation, ``"keep"`` lets
            its z of 0 take part. None: the method's own.
    """

    name: ClassVar[str] = ""
    """Name by which text, mappings and records know the method."""
    summary: ClassVar[str] = ""
    """One sentence for help texts."""
    paper: ClassVar[Paper | None] = None
    """Where it was published; None if it has no paper. A model card cites it."""
    own_whiten: ClassVar[str] = "batch"
    """``whiten`` of this method where its user does not set it."""
    own_dead_channels: ClassVar[str] = "drop"
    """``dead_channels`` of this method where its user does not set it."""
    uses_z: ClassVar[bool] = True
    """Whether it aggregates z-scores, and not rewards."""
    uses_reliability: ClassVar[bool] = False
    """Whether it reads ``Batch.reliability``; else z-scores and weights are shrunk by it before."""
    sums_weights: ClassVar[bool] = False
    """Whether its aggregate is a weighted sum, which grows with the weights, and not a weighted mean."""
    centres_groups: ClassVar[bool] = False
    """Whether its advantages are centred within the group, whatever they are scaled by."""
    by_sums: ClassVar[bool] = False
    """Whether everything that it computes over the batch goes through ``Batch.shards``, so that the ranks of a process
    group exchange sums alone. Else it gets the rows of all ranks. A derived class has to say this again."""
    available: ClassVar[bool] = True
    """Whether it can be called; False for one that only a record knows."""
    former_options: ClassVar[Mapping[str, str]] = {}
    """Options that it had once -> what to use instead, for the error message."""
    always_spelled: ClassVar[tuple[str, ...]] = ()
    """Options that its text always shows, whatever their value."""

    whiten: str | None = None
    dead_channels: str | None = None

    def __init_subclass__(cls, **kwargs: Any) -> None:
        """Name a class that has no name of its own by its place."""
        super().__init_subclass__(**kwargs)
        if "name" not in vars(cls):
            cls.name = place_of(cls)

    def __post_init__(self) -> None:
        """Refuse impossible values; the method's own way of whitening and of dead channels is None."""
        require("whiten", self.whiten, (None, *WHITEN))
        require("dead_channels", self.dead_channels, (None, *DEAD_CHANNELS))
        for option, own in (("whiten", self.own_whiten), ("dead_channels", self.own_dead_channels)):
            if getattr(self, option) == own:
                object.__setattr__(self, option, None)

    @property
    def remembers(self) -> bool:
        """Whether it needs its state to go on."""
        return False

    @property
    def needs_progress(self) -> bool:
        """Whether it has to know how much of the training is done."""
        return False

    @property
    def names_channels(self) -> tuple[str, ...]:
        """Channels that its options name."""
        return ()

    @property
    def traits(self) -> tuple[str, ...]:
        """What it is by its definition, for ``rvpo check``; see :data:`rvpo.conformance.target.TRAITS`."""
        return ()

    def risk(self, progress: float | None) -> float:
        """Its place between the mean (0) and the minimum (inf) over z-scores; from 1 on it holds rare successes back.

        Args:
            progress: share of the training that is done, None if unknown.
        """
        return 0.0

    def __call__(self, batch: Batch, state: State) -> Outcome:
        """Aggregate a batch; ``state`` is empty at the start of a run."""
        raise NotImplementedError(f"{type(self).__name__} has no __call__(self, batch, state)")

    @classmethod
    def from_options(cls, options: Mapping[str, Any], parse: Callable[[Any], Method]) -> Self:
        """Build from plain options; ``parse`` builds a method that is an option of this one."""
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
    """Call a method and refuse what would be wrong without a word later.

    Raises:
        RewardError: it does not return an Outcome, or one with other shapes, or one whose ``aggregated`` is not finite
            in a row that takes part.
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
