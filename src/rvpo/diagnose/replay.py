"""The same rewards under another rule: what each method would have done with the completions of a finished run.

Counterfactual for one step only: the completions are those of the policy that the run's own rule trained. What another
rule's policy would have written, no log can say.

A method that remembers the run is followed from the first batch on, as in training.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from rvpo.core import AdvantageConfig, Advantages, Method
from rvpo.core.channels import State
from rvpo.core.groups import Groups
from rvpo.core.methods.recorded import Recorded
from rvpo.core.methods.registry import as_mapping, build_method
from rvpo.core.metrics import effective_channels
from rvpo.core.scales import learned_scales
from rvpo.diagnose.diagnosis import or_none
from rvpo.diagnose.estimates import pulls
from rvpo.diagnose.group_sums import SAME, by_channel, centred
from rvpo.diagnose.readings import Reading, guesses_of, readings_of
from rvpo.diagnose.sums import aggregated, estimated_progress, note_of_scales, one_thread
from rvpo.diagnose.verdicts import RULES
from rvpo.errors import ConfigError, RewardError
from rvpo.logs.guess import Guess
from rvpo.logs.run import LoggedBatch, Run

DEFAULT = ("grpo", "gdpo", "rvpo:k=0.5", "rvpo:k=1", "rvpo:k=2", "rvpo:k=5", "rvpo_explicit", "hard_min", "lift")
CANDIDATES = (
    "grpo",
    "gdpo",
    "gdpo:unscored=zero",  # as TRL normalises and sums
    "grpo:whiten=none",  # Dr. GRPO
    "grpo:whiten=batch",
    "grpo:unscored=left_out",
    "rvpo:k=1",
    "rvpo:k=2",
    "hard_min",
    "rvpo_explicit",
)
"""Rules without memory that may have given advantages whose method the logs do not tell, the likeliest first."""
NO_ADVANTAGES = (
    "{} has no advantages to compare with: name the column (--advantage), or the method that the run used "
    "(--method grpo)"
)
UNKNOWN_GROUPS = (
    "{} does not say which completions answer one prompt, and what another method would have done depends on it "
    "(plausible: groups of {}): name the number of completions per prompt (--group-size)"
)
EQUAL = 1e-4  # advantages that agree so far are those of a rule: rewards and advantages are logged in single precision


@dataclass(frozen=True, slots=True)
class ReplayedMethod:
    """What a method would have done.

    Attributes:
        method: in words, with its options.
        sign_flips: share of completions that the run encouraged and the rule discourages, or the other way round.
        rank_correlation: Spearman's, within groups, of its advantages with those that the run used.
        effective_channels: how many channels decide a completion, 1 / sum r^2 of the responsibilities r.
        influence: channel -> correlation within groups of its advantages with the channel, where it is live.
        responsibility: channel -> mean share of the decision.
        largest_difference: to the advantages that the run used.
        problem: why the rule could not be applied; the numbers are then None.
        pull: channel -> how far it moves the rule's advantages while all others stay, in units of the average channel.
    """

    method: str
    sign_flips: float | None = None
    rank_correlation: float | None = None
    effective_channels: float | None = None
    influence: Mapping[str, float | None] | None = None
    responsibility: Mapping[str, float | None] | None = None
    largest_difference: float | None = None
    problem: str | None = None
    pull: Mapping[str, float | None] | None = None


@dataclass(frozen=True, slots=True)
class Replay:
    """A run under several rules.

    Attributes:
        run: its name.
        own: the run's own method in words; None where no rule is known to have given its advantages.
        own_difference: largest difference of its replayed advantages to the logged ones.
        completions: how many.
        rules: one each.
        notes: what a reader has to know.
        guesses: what was guessed about the logs.
    """

    run: str
    own: str | None
    own_difference: float | None
    completions: int
    rules: tuple[ReplayedMethod, ...]
    notes: tuple[str, ...]
    guesses: tuple[Guess, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Return everything as plain JSON values."""
        return {"schema": "rvpo.replay/1", **asdict(self)}


def replay(
    run: Run,
    methods: Sequence[AdvantageConfig],
    *,
    assumed: AdvantageConfig | None = None,
    progress: Callable[[int], None] | None = None,
) -> Replay:
    """Aggregate the rewards of a run again, by other methods and by its own.

    Args:
        run: from :func:`rvpo.logs.open.open_run`.
        methods: what to try.
        assumed: the run's own method, where its logs do not say or where it is not available; it takes the place of
            the logged advantages where there are none.
        progress: called with the number of steps that were read.

    Where the logs have no advantages and no method is assumed, they are those of the likeliest reading of the logs,
    as in a diagnosis, and the guesses say so.

    Raises:
        ConfigError: nothing is logged, or not which completions answer one prompt.
    """
    first = next(run.batches(), None)
    if first is None:
        raise ConfigError(NO_ADVANTAGES.format(run.path))
    if len(first.groupings) > 1:
        raise ConfigError(UNKNOWN_GROUPS.format(run.path, ", ".join(map(str, sorted(first.groupings)))))
    guesses_of_run = (*guesses_of(run, first, assumed), *run.guesses)
    reading: Reading | None = None
    if first.advantages is None and assumed is None:
        reading = readings_of(run, first, None)[0]
        if not reading.of_total:
            assumed = reading.config
        run = _as_read(run, reading)
        first = next(run.batches())
    own = _own(run, methods, assumed)
    candidates = [] if own or reading else [AdvantageConfig(build_method(text)) for text in CANDIDATES]
    recorded = own is not None and run.config is not None
    mine = _Followed(run, own, as_recorded=recorded) if own else None
    tried = [_Followed(run, config) for config in methods]
    guesses = [_Followed(run, config) for config in candidates]
    _follow(run, [*([mine] if mine else []), *tried, *guesses], mine, progress)
    notes = list(run.notes)
    if note := estimated_progress(run, first, [own, *methods]):
        notes.append(note)
    if note := note_of_scales(method.state for method in [*([mine] if mine else []), *tried]):
        notes.append(note)
    told: str | None
    if mine is not None:
        told, difference = str(mine.config), mine.largest if first.advantages is not None else None
        notes += _of_own(mine, difference)
    elif reading is not None:
        told, difference = reading.name, None
    else:
        told, difference, note = _guessed(
            run, guesses, "equal weights" if first.weights is None else "the given weights"
        )
        notes.append(note)
    told = f"{told} (assumed)" if reading is not None else told
    rows = max((method.rows for method in (mine, *tried, *guesses) if method), default=0)
    return Replay(
        run.name, told, difference, rows, tuple(method.finished() for method in tried), tuple(notes), guesses_of_run
    )


def _as_read(run: Run, reading: Reading) -> Run:
    """Return the run with the groups and the advantages of a reading."""
    whole = run.read
    return dataclasses.replace(run, read=lambda texts: (reading.batch(batch) for batch in whole(texts)))


def _own(run: Run, methods: Sequence[AdvantageConfig], assumed: AdvantageConfig | None) -> AdvantageConfig | None:
    """Return how the run aggregated: as recorded, or as assumed where the logs do not say.

    If the recorded method is not available, it is the one that the caller assumes, or one of ``methods`` with the
    recorded name and options.
    """
    if run.config is None:
        return assumed
    recorded = run.config.method
    if not isinstance(recorded, Recorded):
        return run.config
    named = assumed or next((config for config in methods if _is(config.method, recorded)), None)
    return run.config if named is None else dataclasses.replace(run.config, method=named.method)


def _is(method: Method, recorded: Recorded) -> bool:
    """Whether a method has the name and the options of a record, in which defaults may be left out."""
    defaults = {name: value for name, value in method.defaults().items() if name not in ("whiten", "dead_channels")}
    plain = [as_mapping(Recorded(spelled_name=m.name, given={**defaults, **m.options()})) for m in (method, recorded)]
    return plain[0] == plain[1]


def _follow(
    run: Run, followed: Sequence[_Followed], mine: _Followed | None, progress: Callable[[int], None] | None
) -> None:
    """Lead every method through the run, batch by batch."""
    step = None
    with one_thread():
        for batch in run.batches():
            used = batch.advantages
            for method in followed:
                result = method.result(batch)
                if used is None and method is mine and result is not None:
                    used = result.advantages  # of the assumed method, which comes first
                method.add(batch, result, used)
            if progress is not None and batch.step != step:
                step = batch.step
                progress(1)


def _of_own(mine: _Followed, difference: float | None) -> list[str]:
    """Return what a reader has to know of the replay of the run's own method."""
    if mine.problem:
        return [f"its own method {mine.config} cannot be replayed: {mine.problem}"]
    if difference is not None and difference > EQUAL * max(1.0, mine.extreme):
        return [f"{mine.config} does not give the logged advantages: they differ by up to {difference:.3g}"]
    return []


def _guessed(run: Run, guesses: Sequence[_Followed], weighted: str) -> tuple[str | None, float | None, str]:
    """Return which method without memory gives the logged advantages, if one does, its difference, and a note."""
    tried = [(guess.largest, guess) for guess in guesses if guess.largest is not None and not guess.problem]
    if not tried:
        raise ConfigError(NO_ADVANTAGES.format(run.path))
    nearest, best = min(tried, key=lambda pair: pair[0])
    if nearest < EQUAL:
        # Several agree where nothing tells them apart, such as no missing reward: then the likeliest, not the roundest.
        nearest, best = next(pair for pair in tried if pair[0] <= max(10 * nearest, EQUAL / 100))
        note = f"the logs do not say the method; {best.config} with {weighted} gives the logged advantages"
        return str(best.config), nearest, note
    note = (
        f"the logs do not say the method, and no method with {weighted} gives the logged advantages (nearest: "
        f"{best.config}, off by up to {nearest:.3g})"
    )
    return None, None, note


class _Followed:
    """A method on its way through a run."""

    def __init__(self, run: Run, config: AdvantageConfig, *, as_recorded: bool = False) -> None:
        self.config, self.rows = config, 0
        self._as_recorded = as_recorded
        self.largest: float | None = None
        self.extreme = 0.0  # of the advantages that the run used
        self.problem: str | None = None
        self._run = run
        self.state: State = {}
        self._flips = self._compared = self._rank = self._ranked = self._effective = self._signal = 0.0
        k = len(run.channels)
        self._influence: NDArray[np.float64] = np.zeros((k, 3))
        self._responsibility: NDArray[np.float64] = np.zeros((k, 2))
        self._products: NDArray[np.float64] = np.zeros((k, k + 1))
        self._ranked_rows: NDArray[np.float64] = np.zeros((k, 2))
        if isinstance(config.method, Recorded):
            self.problem = f"it {config.method.unavailable}"
        elif config.whiten == "token" and not as_recorded:
            self.problem = "it whitens by tokens, which are not known for another method's record"
        elif config.method.remembers and not run.every_batch:
            self.problem = "it remembers the run, and not every batch since the first step is logged"

    def result(self, batch: LoggedBatch) -> Advantages | None:
        """Aggregate a batch; None once there is a problem."""
        if self.problem:
            return None
        config = self.config
        if self._as_recorded and batch.config is not None and not isinstance(batch.config.method, Recorded):
            config = batch.config
        try:
            result = aggregated(batch, config, self._run, self.state)
        except (RewardError, ConfigError) as error:
            self.problem = str(error)
            return None
        self.state = result.state
        if not self._run.every_batch and (learned := learned_scales(self.state)):
            self.problem = (
                f"the scale of {next(iter(learned))!r} is learned over the run, and not every batch since the first "
                "step is logged: declare its range with --range NAME=LOW:HIGH"
            )
            return None
        return result

    def add(self, batch: LoggedBatch, result: Advantages | None, used: Tensor | None) -> None:
        """Count what the rule did to a batch."""
        self.rows += len(batch.groups)
        if result is None:
            return
        if used is not None:
            self._against(result, used)
        z, live = result.z.masked_fill(~result.live, 0.0), result.live.double()
        a = result.advantages[:, None] * live
        a = (a - result.groups.broadcast(result.groups.sum(a) / result.groups.sum(live).clamp(min=1))) * live
        channel = batch.channel.expand(z.shape)
        for slot, x in enumerate((a * z, a * a, z * z)):
            np.add.at(self._influence[:, slot], channel.numpy(), x.numpy())
        self._regress(result, channel)
        r = result.responsibilities * result.signal[:, None]
        signal = result.signal[:, None].double() * result.applies
        for slot, x in enumerate((r, signal)):
            np.add.at(self._responsibility[:, slot], channel.numpy(), x.numpy())
        numbers = effective_channels(result)
        self._effective += float(numbers.sum())
        self._signal += len(numbers)

    def _regress(self, result: Advantages, channel: Tensor) -> None:
        """Add what the regression of the rule's advantages on all channels needs, as a diagnosis does."""
        z, live = by_channel(result, channel, len(self._run.channels))
        both = torch.cat([z, centred(result.advantages, result.groups)[:, None]], 1)
        self._products += (z.T @ both).numpy()
        there = torch.zeros_like(live).scatter_add(1, channel, (result.applies & ~result.missing).double())
        self._ranked_rows += torch.stack([live.sum(0), (there > 0).sum(0)], 1).numpy()

    def _against(self, result: Advantages, used: Tensor) -> None:
        ours, known = result.advantages, ~used.isnan()
        if bool(known.any()):
            self.largest = max(self.largest or 0.0, float((ours - used)[known].abs().max()))
            self.extreme = max(self.extreme, float(used[known].abs().max()))
        both = known & (ours.abs() > SAME) & (used.abs() > SAME)
        self._flips += float((both & (ours.sign() != used.sign())).sum())
        self._compared += float(known.sum())
        correlation, groups = spearman(ours[known], used[known], result.groups.index[known])
        self._rank += correlation
        self._ranked += groups

    def finished(self) -> ReplayedMethod:
        """Return what was counted."""
        if self.problem:
            return ReplayedMethod(str(self.config), problem=self.problem)
        names = self._run.channels
        az, aa, zz = self._influence.T
        with np.errstate(invalid="ignore", divide="ignore"):
            influence, responsibility = az / np.sqrt(aa * zz), self._responsibility[:, 0] / self._responsibility[:, 1]
        return ReplayedMethod(
            str(self.config),
            self._flips / self._compared if self._compared else None,
            self._rank / self._ranked if self._ranked else None,
            self._effective / self._signal if self._signal else None,
            dict(zip(names, map(or_none, influence), strict=True)),
            dict(zip(names, map(or_none, responsibility), strict=True)),
            self.largest,
            pull=dict(zip(names, map(or_none, self._pulls()), strict=True)),
        )

    def _pulls(self) -> NDArray[np.float64]:
        live, scored = self._ranked_rows.T
        return pulls(self._products, live >= RULES.dead * scored)


def spearman(a: Tensor, b: Tensor, groups: Tensor) -> tuple[float, int]:
    """Return the sum of the rank correlations of a and b (N,) within groups, and the number of groups that have one.

    Ties have their mean rank; values nearer than single precision tells are ties. A group has none where either is
    constant.
    """
    if not len(a):
        return 0.0, 0
    of = Groups.from_ids(groups, len(groups))
    ranks = torch.stack([_ranks(x, of) for x in (a, b)], 1)
    size = of.sum(torch.ones_like(ranks))
    centred = ranks - of.broadcast(of.sum(ranks) / size)
    variance = of.sum(centred.square())
    both = of.sum((centred[:, 0] * centred[:, 1])[:, None])[:, 0]
    there = (variance > 0).all(1)
    return float((both / variance.prod(1).sqrt())[there].sum()), int(there.sum())


def _ranks(x: Tensor, groups: Groups) -> Tensor:
    """Return mean ranks within groups, (N,)."""
    rounded = (x.double() / SAME).round()
    order = np.lexsort((rounded.numpy(), groups.index.numpy()))
    value, group = rounded.numpy()[order], groups.index.numpy()[order]
    new = np.r_[True, (value[1:] != value[:-1]) | (group[1:] != group[:-1])]
    run = np.cumsum(new) - 1
    starts = np.flatnonzero(new)
    ends = np.r_[starts[1:], len(value)]
    ranks = np.empty(len(value))
    ranks[order] = ((starts + ends - 1) / 2)[run]
    return torch.from_numpy(ranks)
