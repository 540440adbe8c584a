"""The parts of a benchmark: items that are asked, replies, and scores.

A benchmark provides items and scores replies; it knows neither the model nor the disk. :mod:`rvpo.evals.run` asks the
model, stores replies and scores, and writes the records.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeAlias

from rvpo.errors import ConfigError
from rvpo.text.numbers import is_finite

Message: TypeAlias = Mapping[str, str]
"""One turn of a chat: ``role`` and ``content``."""


@dataclass(frozen=True, slots=True)
class Item:
    """One question to the model.

    Attributes:
        id: unique in its benchmark; two runs are compared item by item with it.
        messages: the chat that the model continues.
        epoch: 0, 1, … if the same item is asked several times.
        tools: functions in the form of the OpenAI API, if the model is to use its own tool format.
        labels: properties of the item, such as its category; each is a column of the records.
    """

    id: str
    messages: tuple[Message, ...]
    epoch: int = 0
    tools: tuple[Mapping[str, Any], ...] = ()
    labels: Mapping[str, str] = field(default_factory=dict)

    @property
    def key(self) -> Key:
        """The id and the epoch, which together identify this item."""
        return self.id, self.epoch


Key: TypeAlias = tuple[str, int]
"""``(id, epoch)`` of an item."""


@dataclass(frozen=True, slots=True)
class Reply:
    """The model's reply to an item.

    Attributes:
        text: the text of the reply; None if the reply is missing.
        reason: one of ``rvpo.rewards.rubric.verdict.REASONS`` if the reply is missing, else None.
        detail: what went wrong.
        calls: tool calls that a *server* parsed, each ``{"name": text, "arguments": JSON text}``; None if the reply
            is only text.
        finish: ``"stop"``, ``"length"`` (cut off), or the server's own word.
        prompt_tokens: number of tokens of the rendered chat.
        completion_tokens: number of tokens of the reply.
    """

    text: str | None
    reason: str | None = None
    detail: str | None = None
    calls: tuple[Mapping[str, str], ...] | None = None
    finish: str = "stop"
    prompt_tokens: int = 0
    completion_tokens: int = 0

    @classmethod
    def missing(cls, reason: str, detail: str | None = None) -> Reply:
        """Return a missing reply, with the reason why."""
        return cls(None, reason, detail, finish="none")


@dataclass(frozen=True, slots=True)
class Scored:
    """The scores of a reply.

    Attributes:
        scores: metric -> value, None if it is missing. A metric that an item does not have is not in the mapping.
            Metrics of one family (:func:`family_of`) are tested together; so are the metrics without a family.
        reasons: metric -> why its score is missing.
        weights: metric -> weight of this item in the metric's mean, if the mean is weighted.
        details: plain JSON values that explain the scores.

    Items with weights are resampled within their label ``category``, because a leaderboard weights whole categories.
    """

    scores: Mapping[str, float | None]
    reasons: Mapping[str, str] = field(default_factory=dict)
    weights: Mapping[str, float] = field(default_factory=dict)
    details: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def missing(cls, metrics: Sequence[str], reason: str) -> Scored:
        """Return the scores of an item without a reply: every metric is missing, for the same reason."""
        return cls(dict.fromkeys(metrics), dict.fromkeys(metrics, reason))


def family_of(metric: str) -> str:
    """Return the family of a metric; "" if it has none.

    Example:
        >>> family_of("axis:accuracy"), family_of("pass@8"), family_of("score")
        ('axis', 'pass@', '')
    """
    family, colon, _ = metric.partition(":")
    return family if colon else "pass@" if metric.startswith("pass@") else ""


@dataclass(frozen=True, slots=True)
class Generation:
    """How replies are generated.

    Attributes:
        max_tokens: greatest number of tokens of a reply; longer replies are cut off, and the records count them.
        temperature: temperature of sampling; 0 means greedy.
        top_p: share of the probability that nucleus sampling keeps; 1 keeps all tokens.
        seed: seed of sampling. If it is not 0, a server gets a seed with each request. The default is 0 because some
            servers crash on a seed (vLLM 0.32 on a CPU does), and none promises the same reply for the same seed.
    """

    max_tokens: int
    temperature: float = 0.0
    top_p: float = 1.0
    seed: int = 0

    def __post_init__(self) -> None:
        """Refuse values that no model can use."""
        for name, value, expected, fits in (
            ("max_tokens", self.max_tokens, "a whole number of at least 1", lambda v: type(v) is int and v >= 1),
            ("temperature", self.temperature, "a finite number of at least 0", lambda v: _real(v) and v >= 0),
            ("top_p", self.top_p, "a number above 0, at most 1", lambda v: _real(v) and 0 < v <= 1),
            ("seed", self.seed, "a whole number", lambda v: type(v) is int),
        ):
            if not fits(value):
                raise ConfigError(f"{name} is {value!r}; expected {expected}")


def _real(value: object) -> bool:
    return type(value) in (int, float) and is_finite(value)  # type: ignore[arg-type]


class Benchmark(Protocol):
    """A benchmark that ``rvpo eval`` runs. It may have three more methods:

    - ``async def check(self) -> None`` is called before the first reply is asked for. It raises if scoring cannot
      work, for example because the judge does not answer.
    - ``def of_items(self, scored: Sequence[tuple[Item, Scored]]) -> dict[Key, Scored]`` adds metrics that are computed
      from all samples of an item: it returns new scores for the first row of each item (:mod:`rvpo.evals.samples`).
    - ``def report_options(self) -> dict[str, Any]`` returns options that decide which metrics are computed from the
      scores. If they change, the results of a finished run are computed again from its replies and scores.
    """

    name: str
    """The benchmark's name in file names and on the command line."""

    primary: str
    """The metric that stands for the whole benchmark."""

    generation: Generation
    """Default generation settings, the same as in the benchmark's own evaluator."""

    def settings(self) -> dict[str, Any]:
        """Return everything that decides items and scores, as plain JSON: digest of the data, seeds, template, judge.

        A run continues only if its settings are equal, and only runs with equal data are compared.
        """
        ...

    def items(self) -> list[Item]:
        """Return the items in a fixed order; each epoch of an item is an item of its own.

        Raises:
            DataError: the data is absent or malformed.
        """
        ...

    async def score(self, replied: Sequence[tuple[Item, Reply]]) -> list[Scored]:
        """Return the scores of each reply. All replies have a text; a missing score is None.

        No text of a reply makes this method raise.
        """
        ...

    def metrics(self, item: Item) -> Sequence[str]:
        """Return the names of the metrics of an item; they are needed for an item without a reply."""
        ...

    def summary(self, scored: Sequence[tuple[Item, Scored]]) -> dict[str, Any]:
        """Return the benchmark's own aggregates as plain JSON, such as a leaderboard's; ``{}`` if it has none.

        ``notes`` is a list of texts for the reader of the scores: they are shown below the scores.
        """
        ...
