"""What to do about a channel that is gamed or neglected: the reason in a short sentence, and the lines to copy.

Names of channels come from data. They are quoted in lines that users paste into a shell or a file. A name that could
end a comment or a list is left out.
"""

from __future__ import annotations

import math
import re
import shlex
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from rvpo.diagnose.conclusion import ENOUGH, Best, best_methods, share
from rvpo.diagnose.diagnosis import Cause, ChannelDiagnosis, Diagnosis, say
from rvpo.diagnose.replay import Replay

UNTRIED = "lift"  # proposed without a replay: it lets no channel fall for the sake of the others
TRIED = (1.5, 2.0, 3.0, 4.0, 5.0, 7.0, 10.0, 15.0, 20.0, 30.0, 50.0, 100.0)  # factors for the weight
FEWEST = 0.02  # with a smaller pull, no weight helps
_PLAIN = re.compile(r"[\w.-]+", re.ASCII)


@dataclass(frozen=True, slots=True)
class Line:
    """Code or a command to copy.

    Attributes:
        where: where it belongs, in a few words.
        code: one or more lines.
    """

    where: str
    code: str


@dataclass(frozen=True, slots=True)
class Remedy:
    """The card of a neglected or diverging channel.

    Attributes:
        channel: name of the channel.
        sure: share of bootstrap resamples with this verdict; None if unknown.
        why: short sentences that say how it is neglected, and how its mean changed.
        evidence: what the replay shows about the proposal; empty without a replay.
        lines: proposals, the best one first.
        verdict: ``"neglected"`` or ``"diverging"``.
    """

    channel: str
    sure: float | None
    why: str
    evidence: str
    lines: tuple[Line, ...]
    verdict: str = "neglected"

    def to_json(self) -> dict[str, Any]:
        """Return everything as plain JSON values."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class _Setup:
    """What all cards of a run have in common.

    Attributes:
        path: path of the run.
        used: the run's method in words, as far as it is known.
        engine: the engine that wrote the logs.
        names: names of the channels.
        weights: weights of the channels, NaN if unknown; None if channels are criteria of a rubric, not functions.
    """

    path: str
    used: str
    engine: str | None
    names: Sequence[str]
    weights: Sequence[float] | None


def remedies(
    diagnosis: Diagnosis,
    replay: Replay | None,
    *,
    engine: str | None = None,
    weights: Sequence[float] | None = None,
) -> tuple[Remedy, ...]:
    """Return one remedy per diverging channel, then one per neglected channel, the one with least influence first.

    Args:
        diagnosis: diagnosis of a run.
        replay: replay of the same run; None if its logs have no advantages to compare with.
        engine: the engine that wrote the logs, see :func:`rvpo.logs.engine.engine_of`.
        weights: weights of the channels, see :func:`rvpo.logs.engine.function_weights`; None: no weight is proposed.
    """
    neglected = [channel for channel in diagnosis.channels if channel.verdict == "neglected"]
    neglected.sort(key=lambda channel: channel.say or 0.0)
    best = best_methods(diagnosis, replay)
    used = (replay and replay.own) or diagnosis.method
    setup = _Setup(diagnosis.path, used, engine, [channel.name for channel in diagnosis.channels], weights)
    cards = [_remedy(channel, diagnosis, setup, best[channel.name]) for channel in neglected]
    if replay is None:
        again = _command("rvpo", "replay", diagnosis.path, "--method", "grpo")
        more = Line("compare the advantages that other methods would give", again)
        cards = [replace(card, lines=(*card.lines, more)) for card in cards]
    return (*(_of_diverging(channel, diagnosis.path) for channel in diagnosis.channels if channel.divergence), *cards)


def _of_diverging(channel: ChannelDiagnosis, path: str) -> Remedy:
    """Return the card of a channel that is gamed: where to look, and what to do."""
    seen = channel.divergence
    assert seen is not None  # callers pass diverging channels only
    why = (
        f"Since step {seen.since}, it rose from {seen.rise[0]:.3g} to {seen.rise[1]:.3g} while the monitor "
        f"{seen.monitor} fell from {seen.fall[0]:.3g} to {seen.fall[1]:.3g}: the policy may have found a loophole in "
        "it."
    )
    advice = (
        f"Read the completions that it now scores highest. Then close the loophole and resume from a checkpoint before "
        f"step {seen.since}, or also train on {seen.monitor}."
    )
    look = Line(f"read its best and worst completions after step {seen.since}", _command("rvpo", "report", path))
    return Remedy(channel.name, None, why, advice, (look,), "diverging")


def _remedy(channel: ChannelDiagnosis, diagnosis: Diagnosis, setup: _Setup, best: Best | None) -> Remedy:
    cause = channel.cause or Cause(())
    if not _may_sum(setup.used):
        cause = replace(cause, wider=None, times_wider=None)
    proposed = best.method if best else UNTRIED
    if cause.monitored:
        lines = _weights(setup, channel.name, None)
    elif "reversed" in cause.kinds:
        lines = [Line("if lower is better, in its reward function", "return [-score for score in scores]")]
    else:
        lines = [] if setup.used == proposed else _methods(proposed, setup)
        times = weight_needed(channel.name, diagnosis) if _is_linear(setup.used) else None
        weighed = [] if times is None else _weights(setup, channel.name, times)
        lines = [*weighed, *lines] if best and not best.enough else [*lines, *weighed]
    why = _why(channel, cause, sums=setup.used.startswith("grpo"))
    return Remedy(channel.name, channel.confidence, why, _evidence(channel, cause, best), tuple(lines))


def _is_linear(used: str) -> bool:
    """Return whether a method is, or may be, a weighted sum of rewards or z-scores."""
    return _may_sum(used) or used.startswith("gdpo")


def _may_sum(used: str) -> bool:
    """Return whether a method sums raw rewards, or may do so because it is not known."""
    return used == "as logged" or used.startswith("grpo")


def weight_needed(name: str, diagnosis: Diagnosis) -> float | None:
    """Return the factor for a channel's weight that gives it enough influence; None if none can be determined.

    Under a weighted sum, the pulls are proportional to the weights. The correlation of the advantage with a channel
    follows from the pulls and from the correlations between the channels.
    """
    channels = diagnosis.channels
    pull = np.array([channel.pull.value or 0.0 for channel in channels])
    c = np.array([[np.nan if x is None else x for x in row] for row in diagnosis.correlations])
    np.fill_diagonal(c, 1.0)
    c = np.nan_to_num(c)
    j = next(i for i, channel in enumerate(channels) if channel.name == name)
    moving = max(int((pull != 0).sum()), 1)
    if pull[j] < FEWEST:
        return None
    for times in TRIED:
        weighed = pull.copy()
        weighed[j] *= times
        spread = float(weighed @ c @ weighed)
        correlation = float(c[j] @ weighed) / math.sqrt(spread) if spread > 0 else 0.0
        gained = say(float(weighed[j] * moving / np.abs(weighed).sum()), correlation, channels[j].fair)
        if gained is not None and gained >= ENOUGH:
            return times
    return None


# --- sentences -------------------------------------------------------------------------------------------------------


def _why(channel: ChannelDiagnosis, cause: Cause, *, sums: bool) -> str:
    return " ".join([_how(channel, cause, sums), *_moved(channel)])


def _moved(channel: ChannelDiagnosis) -> list[str]:
    """Return the sentence that its mean rose or fell; empty if it did not clearly do so."""
    low, high, early, late = channel.trend.low, channel.trend.high, channel.early, channel.late
    if low is None or high is None or early is None or late is None:
        return []
    if high < 0 and late < early:
        return [f"Its mean fell from {early:.3g} to {late:.3g}."]
    return [f"Its mean still rose from {early:.3g} to {late:.3g}."] if low > 0 and late > early else []


def _how(channel: ChannelDiagnosis, cause: Cause, sums: bool) -> str:
    pull, punished = channel.pull.value or 0.0, channel.punished.value
    if cause.monitored:
        return "Its weight is 0, so it does not enter the advantage."
    if "reversed" in cause.kinds:
        return f"A higher reward lowers the advantage: it moves it {pull:.2f} times as far as the average channel."
    if cause.wider is not None and cause.times_wider is not None:
        hardly = "it hardly changes the sum of the rewards" if sums else "it is lost if the run sums raw rewards"
        return (
            f"Its scores vary {cause.times_wider:.0f} times less than those of {cause.wider}, so {hardly}: it moves "
            f"the advantage {pull:.2f} times as far as the average channel."
        )
    if "outvoted" in cause.kinds and "ignored" not in cause.kinds:
        lost = "" if punished is None else f": in {punished:.0%} of the pairs, the better completion was discouraged"
        if cause.opposed:
            against = " and ".join(name for name, _ in cause.opposed)
            pull_away = "which pulls" if len(cause.opposed) == 1 else "which pull"
            how = ", ".join(f"{value:+.2f}" for _, value in cause.opposed)
            return (
                f"It moves the advantage, but is outvoted by {against}, {pull_away} the other way (correlation {how})"
                f"{lost}."
            )
        return f"It moves the advantage, but the other channels outvote it{lost}."
    return f"It hardly moves the advantage: {pull:.2f} times as far as the average channel."


def _evidence(channel: ChannelDiagnosis, cause: Cause, best: Best | None) -> str:
    if best is None or cause.monitored or "reversed" in cause.kinds:
        return ""
    if best.enough:
        gained = f"it would have had {share(best.say)} of a fair share of influence, instead of {share(channel.say)}"
        return f"Replayed on these completions with {best.method}, {gained}."
    most = f"{share(best.say)} of a fair share of influence with {best.method}, {share(channel.say)} in this run"
    return f"Replayed on these completions, no other method gives it enough influence: at best {most}."


# --- lines -----------------------------------------------------------------------------------------------------------


def _methods(method: str, setup: _Setup) -> list[Line]:
    """Return how to train with another method: in the run's own engine, or in both engines if that is not known."""
    path = setup.path
    recipe = Path(path) / "recipe.yaml"
    if recipe.is_file():
        name = f"name={Path(path).resolve().name}-{re.sub(r'[^A-Za-z0-9.]+', '-', method).strip('-')}"
        again = _command("rvpo", "train", str(recipe), f"method={method}", name)
        return [Line("train again with another method", again)]
    trl = Line(
        "TRL script: use these in place of GRPOConfig and GRPOTrainer, with your other arguments",
        f"from rvpo.trl import RVPOConfig, RVPOTrainer\nargs = RVPOConfig(method={_python(method)})",
    )
    estimator = f"algorithm.adv_estimator={'grpo-multi' if method == 'grpo' else method}"
    known = setup.weights is not None and all(map(_PLAIN.fullmatch, setup.names))
    keys = [f"+algorithm.rvpo.reward_keys=[{','.join(setup.names)}]"] if known else []
    verl = Line("verl: add your other arguments", _command("python", "-m", "rvpo.verl", estimator, *keys))
    return {"trl": [trl], "verl": [verl, trl]}.get(setup.engine or "", [trl, verl])


def _weights(setup: _Setup, name: str, times: float | None) -> list[Line]:
    """Return the line that multiplies the weight of a channel, or sets it to 1 for ``times=None``; [] for criteria."""
    if setup.weights is None or any(other.startswith("-") for other in setup.names):
        return []  # only the reward function of a cost shows which sign its weight needs
    known = not any(map(math.isnan, setup.weights))
    now = [1.0 if math.isnan(weight) else weight for weight in setup.weights]
    changed = [weight * (times or 1.0) if times else weight or 1.0 for weight in now]
    weights = [
        f"{new if other == name else old:.3g}" for other, old, new in zip(setup.names, now, changed, strict=True)
    ]
    where = f"the same method, about {times:g} times the weight for {name}" if times else f"a weight for {name}"
    where += "" if known else ", if all weights are 1 now"
    if setup.engine == "verl":
        return [Line(f"verl: {where}", _command(f"+algorithm.rvpo.reward_weights=[{','.join(weights)}]"))]
    order = f"  # {', '.join(setup.names)}" if all(map(_PLAIN.fullmatch, setup.names)) else ""
    return [Line(f"GRPOConfig: {where}", f"reward_weights=[{', '.join(weights)}],{order}")]


def _python(text: str) -> str:
    """Return a text as a Python literal, in double quotes if possible."""
    return f'"{text}"' if re.fullmatch(r"[^\"\\\x00-\x1f\x7f-\uffff]*", text) else ascii(text)


def _command(*parts: str) -> str:
    return shlex.join(parts)
