"""The same rewards under another rule: the advantages that each method would give the completions of a finished run.

This is counterfactual for one step only: the completions are from the policy that the run's own method trained. No log
shows what a policy trained with another method would have written.

A method that remembers the run is applied from the first batch on, as in training.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from rvpo.core import AdvantageConfig, Method
from rvpo.core.methods.recorded import Recorded
from rvpo.core.methods.registry import as_mapping, build_method
from rvpo.diagnose.aggregating import one_thread, require_torch
from rvpo.diagnose.diagnosis import or_none
from rvpo.diagnose.followed import Compared, Followed
from rvpo.diagnose.followed import spearman as spearman
from rvpo.diagnose.joining import Joined
from rvpo.diagnose.readings import Reading, guesses_of, readings_of
from rvpo.diagnose.sums import estimated_progress, note_of_scales
from rvpo.errors import ConfigError
from rvpo.logs.guess import Guess, unsaid
from rvpo.logs.run import Run

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
"""Methods without memory that may have given the advantages if the logs do not name a method, the likeliest first."""
NO_ADVANTAGES = (
    "{} has no advantages; expected advantages to compare with. Name their column (--advantage), or the method that "
    "the run used (--method grpo)"
)
UNKNOWN_GROUPS = (
    "{} does not show which completions belong to the same prompt (plausible: groups of {}); a replay needs the "
    "groups. Pass the number of completions per prompt (--group-size)"
)
FAR = 10 * 1e-4
"""A method whose advantages differ by at least this much did not give them: ten times :data:`EQUAL`."""
EQUAL = 1e-4  # a difference below this is rounding: rewards and advantages are logged in single precision


@dataclass(frozen=True, slots=True)
class ReplayedMethod:
    """The result of a method.

    Attributes:
        method: the method in words, with its options.
        sign_flips: share of completions that the run encouraged and the method discourages, or the other way round.
        rank_correlation: Spearman's correlation, within groups, of its advantages with those that the run used.
        effective_channels: how many channels decide a completion, 1 / sum r^2 of the responsibilities r.
        influence: channel -> correlation within groups of its advantages with the channel, where it is live.
        responsibility: channel -> mean share of the decision.
        largest_difference: largest difference between its advantages and those that the run used.
        problem: why the method could not be applied; the numbers are then None.
        pull: channel -> how far it moves the method's advantages while all other channels stay the same; the average
            channel has 1.
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
    """A run under several methods.

    Attributes:
        run: name of the run.
        own: the run's own method in words; None if no known method gave its advantages.
        own_difference: largest difference between its replayed and its logged advantages.
        completions: number of completions.
        rules: one result per method.
        notes: facts that a reader has to know.
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
    """Aggregate the rewards of a run again, with other methods and with its own.

    If the logs have no advantages and no method is assumed, the likeliest reading of the logs gives them, as in a
    diagnosis, and the guesses say so.

    Args:
        run: logs of a run, from :func:`rvpo.logs.open.open_run`.
        methods: the methods to try.
        assumed: the run's own method, if its logs do not name it or if it is not available. Without logged advantages,
            this method gives them.
        progress: called with the number of steps that were read.

    Raises:
        ConfigError: nothing is logged, or the logs do not show which completions belong to the same prompt.
        MissingExtraError: torch is not installed.
    """
    require_torch()
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
    mine = Followed(run, own, own=first.advantages is None, as_recorded=recorded) if own else None
    tried = [Followed(run, config) for config in methods]
    guesses = [Compared(run, config) for config in candidates]
    _follow(run, [*([mine] if mine else []), *tried], guesses, mine, progress)
    notes = unsaid(run.notes, guesses_of_run)
    if note := estimated_progress(run, first, [own, *methods]):
        notes.append(note)
    if note := note_of_scales(method.state for method in [*([mine] if mine else []), *tried]):
        notes.append(note)
    own_name: str | None
    if mine is not None:
        own_name, difference = str(mine.config), mine.largest if first.advantages is not None else None
        notes += _of_own(mine, difference)
    elif reading is not None:
        own_name, difference = reading.name, None
    else:
        own_name, difference, note = _guessed(
            run, guesses, "equal weights" if first.weights is None else "the given weights"
        )
        notes.append(note)
    own_name = reading.label if reading is not None else own_name
    rows = max((method.rows for method in (mine, *tried, *guesses) if method), default=0)
    return Replay(
        run.name,
        own_name,
        difference,
        rows,
        tuple(_replayed(run, method) for method in tried),
        tuple(notes),
        guesses_of_run,
    )


def _as_read(run: Run, reading: Reading) -> Run:
    """Return the run with the groups and the advantages of a reading."""
    whole = run.read
    return dataclasses.replace(run, read=lambda texts: (reading.batch(batch) for batch in whole(texts)))


def _own(run: Run, methods: Sequence[AdvantageConfig], assumed: AdvantageConfig | None) -> AdvantageConfig | None:
    """Return how the run aggregated: as recorded, or as assumed if the logs do not say.

    If the recorded method is not available here, take the one that the caller assumes, or the one of ``methods`` with
    the recorded name and options.
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
    run: Run,
    followed: Sequence[Followed],
    guesses: Sequence[Compared],
    mine: Followed | None,
    progress: Callable[[int], None] | None,
) -> None:
    """Apply every method to the run, batch by batch."""
    step = None
    with one_thread():
        for batch in run.batches():
            one, used = Joined.single(batch), batch.advantages
            for method in followed:
                found = method.follow(one, used)
                if method is mine and used is None:  # the assumed method, which comes first
                    used = found
            for guess in guesses:
                if not _is_out(guess):
                    guess.follow(one, used)
            if progress is not None and batch.step != step:
                step = batch.step
                progress(1)
        for method in (*followed, *guesses):
            method.settle()


def _is_out(guess: Compared) -> bool:
    """Whether a method cannot have given the advantages, whatever further batches show."""
    return guess.largest is not None and guess.largest >= FAR


def _replayed(run: Run, method: Followed) -> ReplayedMethod:
    """Return the counts of a method."""
    if method.problem:
        return ReplayedMethod(str(method.config), problem=method.problem)
    found = method.numbers()
    influence, responsibility, pull = (
        dict(zip(run.channels, map(or_none, column), strict=True))
        for column in (found.influence, found.responsibility, found.pull)
    )
    return ReplayedMethod(
        str(method.config),
        found.flips,
        found.rank,
        found.effective,
        influence,
        responsibility,
        method.largest,
        pull=pull,
    )


def _of_own(mine: Followed, difference: float | None) -> list[str]:
    """Return the notes on the replay of the run's own method."""
    if mine.problem:
        return [f"the run's own method {mine.config} cannot be replayed: {mine.problem}"]
    if difference is not None and difference > EQUAL * max(1.0, mine.extreme):
        return [f"{mine.config} does not give the logged advantages: they differ by up to {difference:.3g}"]
    return []


def _guessed(run: Run, guesses: Sequence[Compared], weighted: str) -> tuple[str | None, float | None, str]:
    """Return the method without memory that gives the logged advantages, if any, its difference, and a note."""
    if all(_is_out(guess) or guess.problem for guess in guesses):  # none fits: find the nearest over the whole run
        guesses = [Compared(run, guess.config) for guess in guesses]
        with one_thread():
            for one in map(Joined.single, run.batches()):
                for guess in guesses:
                    guess.follow(one, one.batch.advantages)
            for guess in guesses:
                guess.settle()
    tried = [(guess.largest, guess) for guess in guesses if guess.largest is not None and not guess.problem]
    if not tried:
        raise ConfigError(NO_ADVANTAGES.format(run.path))
    nearest, best = min(tried, key=lambda pair: pair[0])
    if nearest < EQUAL:
        # Several methods can agree, for example if no reward is missing. Then take the likeliest, not the closest.
        nearest, best = next(pair for pair in tried if pair[0] <= max(10 * nearest, EQUAL / 100))
        note = f"the logs do not name the method; {best.config} with {weighted} gives the logged advantages"
        return str(best.config), nearest, note
    example = ",".join(["1", *["0.5"] * (len(run.channels) - 1)])
    note = (
        f"the logs do not name the method, and no method with {weighted} gives the logged advantages (nearest: "
        f"{best.config}, which differs by up to {nearest:.3g}). If the run had other weights, name them in the order "
        f"of {', '.join(run.channels)}, such as --weights {example}. If it had another method, name it with --method"
    )
    return None, None, note
