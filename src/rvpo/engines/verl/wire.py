"""The JSON text with which a reward worker sends the channels of one completion to the trainer.

verl passes every key that a reward function returns to its trainer as an array of one type, with the same keys for all
completions. Rubrics differ between prompts, so their scores are sent as a text under the key :data:`KEY`::

    {"rubric": [{"name": "dose", "value": 1.0, "labels": ["essential"]},
                {"name": "tone", "value": null, "reason": "timeout"}]}

An object ``"monitored"`` of the same form holds scores that are only recorded, for a reward that is one number. Only
our own reward workers write two more objects: ``"judge_totals"``, the totals of the worker's judges so far, and
``"second_scores"``, the rewards of a completion that was scored a second time. A missing score is ``null``; NaN
does not occur, and nothing is padded. Fields that have the default of :class:`~rvpo.core.ragged.Score` are left out.
"""

from __future__ import annotations

import json
import math
import reprlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any

from rvpo.core.ragged import Score
from rvpo.data.generic import strict_json
from rvpo.errors import RewardError
from rvpo.files import sound
from rvpo.text.numbers import is_finite

KEY = "rvpo"
"""Key of the text in the result of ``compute_score``."""

MONITORED, TOTALS, SECOND = "monitored", "judge_totals", "second_scores"
"""Keys in the text that are not names of rewards."""

_DEFAULTS = {one.name: one.default for one in fields(Score) if one.name not in ("channel", "value")}
_TEXTS = ("reason", "judge", "text", "detail")


_MOST = 2000  # largest number of characters of an error, which is sent with every completion


@dataclass(frozen=True)
class Totals:
    """The totals of the judges of one reward worker since it started.

    Attributes:
        worker: name of the worker.
        call: number of completions that it has scored; later totals of a worker have a higher number.
        by_reward: name of a reward -> the totals of its judge.
    """

    worker: str
    call: int
    by_reward: Mapping[str, Mapping[str, float]]


@dataclass(frozen=True)
class Second:
    """The rewards of a completion that was scored a second time.

    Attributes:
        numbers: name of a reward that is one number -> the number, None if it is missing.
        scores: name of a reward -> its scores, both channels and scores that are only recorded.
    """

    numbers: Mapping[str, float | None]
    scores: Mapping[str, Sequence[Score]]


@dataclass(frozen=True)
class Message:
    """The content of a completion's text.

    Attributes:
        channels: name of a reward function -> the scores that are its channels.
        monitored: the same for functions whose one number is the channel, and whose scores are only recorded.
        totals: totals of the judges of the worker that scored the completion; None if it does not have judges.
        second: the second rewards; None if the completion was scored once.
    """

    channels: Mapping[str, list[Score]] = field(default_factory=dict)
    monitored: Mapping[str, list[Score]] = field(default_factory=dict)
    totals: Totals | None = None
    second: Second | None = None


def write(
    families: Mapping[str, Sequence[Score]],
    monitored: Mapping[str, Sequence[Score]] | None = None,
    totals: Totals | None = None,
    second: Second | None = None,
) -> str:
    """Return the text for one completion.

    Args:
        families: name of a reward function -> its scores for this completion; empty if the prompt does not have a
            rubric.
        monitored: the same for functions whose scores are not channels.
        totals: totals of the worker's judges; numbers that are 0 or unknown are left out.
        second: the completion's second rewards.

    Raises:
        RewardError: the reader would refuse a value or weight.
    """

    def entries(rows: Mapping[str, Sequence[Score]]) -> dict[str, Any]:
        return {name: [_entry(score, f"{name}.{j}") for j, score in enumerate(scores)] for name, scores in rows.items()}

    values = entries(families)
    if monitored:
        values[MONITORED] = entries(monitored)
    if totals is not None:
        numbers = {
            name: {key: value for key, value in usage.items() if value and not math.isnan(value)}
            for name, usage in totals.by_reward.items()
        }
        values[TOTALS] = {"worker": totals.worker, "call": totals.call, "totals": numbers}
    if second is not None:
        values[SECOND] = {"numbers": dict(second.numbers), "scores": entries(second.scores)}
    return json.dumps(values, allow_nan=False, separators=(",", ":"))


def write_error(error: Exception) -> str:
    """Return the text for a completion for which a reward function raised an error."""
    return json.dumps({"error": f"{type(error).__name__}: {error}"[:_MOST]})


def parse(text: object) -> Message:
    """Undo :func:`write`.

    Raises:
        RewardError: a reward function raised (:func:`write_error`), the text is not JSON, or its content does not have
            the format that :func:`write` writes.
    """
    if not isinstance(text, str):
        raise _error("", f"{type(text).__name__} {reprlib.repr(text)}", "a JSON text")
    try:
        families = strict_json(text)
    except (ValueError, RecursionError) as error:
        raise _error("", f"{reprlib.repr(text)} ({error})", "JSON") from error
    if not isinstance(families, dict):
        raise _error("", reprlib.repr(families), "an object of reward functions")
    if isinstance(families.get("error"), str):
        raise RewardError(f"a reward function failed; the log of its worker shows where: {families['error']}")
    own = {key: families.pop(key) for key in (MONITORED, TOTALS, SECOND) if isinstance(families.get(key), dict)}
    return Message(
        _families(families),
        _families(own.get(MONITORED, {})),
        _totals(own[TOTALS]) if TOTALS in own else None,
        _second(own[SECOND]) if SECOND in own else None,
    )


def _families(rows: Mapping[str, object]) -> dict[str, list[Score]]:
    return {name: _scores(name, scores) for name, scores in rows.items()}


def _totals(given: Mapping[str, Any]) -> Totals:
    worker, call, rows = given.get("worker"), given.get("call"), given.get("totals")
    if not isinstance(worker, str) or type(call) is not int or not isinstance(rows, dict):
        raise _error(TOTALS, reprlib.repr(given), "an object with worker, call and totals")
    by_reward: dict[str, dict[str, float]] = {}
    for name, usage in rows.items():
        if not isinstance(usage, dict):
            raise _error(f"{TOTALS}.{name}", reprlib.repr(usage), "an object of numbers")
        by_reward[name] = {
            key: _number(value, f"{TOTALS}.{name}.{key}", "a finite number") for key, value in usage.items()
        }
    return Totals(worker, call, by_reward)


def _second(given: Mapping[str, Any]) -> Second:
    numbers, scores = given.get("numbers"), given.get("scores")
    if not isinstance(numbers, dict) or not isinstance(scores, dict):
        raise _error(SECOND, reprlib.repr(given), "an object with numbers and scores")
    values = {
        name: None if value is None else _number(value, f"{SECOND}.{name}", "a finite number or null")
        for name, value in numbers.items()
    }
    return Second(values, _families(scores))


def _entry(score: Score, where: str) -> dict[str, Any]:
    value = score.value
    if value is not None:
        value = None if math.isnan(value) else _number(value, f"{where}.value", "a finite number or null")
    entry: dict[str, Any] = {"name": score.channel, "value": value}
    _weight(score.weight, f"{where}.weight")
    return entry | {key: getattr(score, key) for key, default in _DEFAULTS.items() if getattr(score, key) != default}


def _scores(name: str, entries: object) -> list[Score]:
    if not isinstance(entries, list):
        raise _error(name, reprlib.repr(entries), "a list of scores")
    scores = [_score(entry, f"{name}.{j}") for j, entry in enumerate(entries)]
    seen: set[str] = set()
    for j, score in enumerate(scores):
        if score.channel in seen:
            raise _error(f"{name}.{j}.name", repr(score.channel), "a name that no other channel of the completion has")
        seen.add(score.channel)
    return scores


def _score(entry: object, where: str) -> Score:
    if not isinstance(entry, dict) or not {"name", "value"} <= entry.keys():
        raise _error(where, reprlib.repr(entry), "an object with name and value")
    if unknown := [key for key in entry if key not in ("name", "value", *_DEFAULTS)]:
        raise _error(f"{where}.{unknown[0]}", "an unknown field", ", ".join(("name", "value", *_DEFAULTS)))
    labels = entry.get("labels", [])
    if not isinstance(labels, list) or not all(isinstance(label, str) for label in labels):
        raise _error(f"{where}.labels", reprlib.repr(labels), "a list of texts")
    for key in ("name", *_TEXTS):
        if not isinstance(entry.get(key, ""), str):
            raise _error(f"{where}.{key}", reprlib.repr(entry[key]), "a text")
    value = entry["value"]
    return Score(
        sound(entry["name"]),
        None if value is None else _number(value, f"{where}.value", "a finite number or null"),
        _weight(entry.get("weight", 1.0), f"{where}.weight"),
        tuple(map(sound, labels)),
        *(None if entry.get(key) is None else sound(entry[key]) for key in _TEXTS),
    )


def _weight(weight: object, where: str) -> float:
    allowed = "a finite number of at least 0"
    number = _number(weight, where, allowed)
    if number < 0:
        raise _error(where, reprlib.repr(weight), allowed)
    return number


def _number(value: object, where: str, allowed: str) -> float:
    try:
        if isinstance(value, int | float) and not isinstance(value, bool) and is_finite(value):
            return float(value)
    except OverflowError:  # an integer beyond every float
        pass
    raise _error(where, reprlib.repr(value), allowed)


def _error(where: str, seen: str, allowed: str) -> RewardError:
    return RewardError(
        f"channels of a completion (key {KEY!r}){where and f', {where}'}: got {seen}; expected {allowed}. "
        "rvpo.engines.verl.wire.write makes such a text"
    )
