"""What a benchmark is: items that are asked, replies, and scores.

A benchmark gives its items and scores replies; it knows neither the model nor the disk. :mod:`rvpo.evals.run` asks the
model, keeps replies and scores, and writes the records.
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
        id: unique in its benchmark; runs are paired by it.
        messages: the chat that the model continues.
        epoch: 0, 1, … where the same item is asked several times.
        tools: functions in the form of the OpenAI API, where the model's own tool format is asked for.
        labels: what the item is about, such as its category; a column each in the records.
    """

    id: str
    messages: tuple[Message, ...]
    epoch: int = 0
    tools: tuple[Mapping[str, Any], ...] = ()
    labels: Mapping[str, str] = field(default_factory=dict)

    @property
    def key(self) -> Key:
        """What tells this item from every other."""
        return self.id, self.epoch


Key: TypeAlias = tuple[str, int]
"""``(id, epoch)`` of an item."""


@dataclass(frozen=True, slots=True)
class Reply:
    """What the model said to an item.

    Attributes:
        text: its words; None where there is no reply.
        reason: one of ``rvpo.rewards.rubric.verdict.REASONS`` where there is no reply, else None.
        detail: what went wrong.
        calls: tool calls that a *server* parsed, each ``{"name": text, "arguments": JSON text}``; None where the reply
            is text alone.
        finish: ``"stop"``, ``"length"`` (cut off), or the server's own word.
        prompt_tokens: of the rendered chat.
        completion_tokens: of the reply.
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
        """Return a reply that could not be had."""
        return cls(None, reason, detail, finish="none")


@dataclass(frozen=True, slots=True)
class Scored:
    """What a reply is worth.

    Attributes:
        scores: metric -> value, None where it is missing. A metric that an item does not have is not in the mapping.
            Metrics of one family (:func:`family_of`) are tested together, as those without a family are.
        reasons: metric -> why its score is missing.
        weights: metric -> weight of this item in the metric's mean, where that is not the plain mean.
        details: what explains the scores, as plain JSON values.

    Items with weights are resampled within their label ``category``: a leaderboard's weights come by category.
    """

    scores: Mapping[str, float | None]
    reasons: Mapping[str, str] = field(default_factory=dict)
    weights: Mapping[str, float] = field(default_factory=dict)
    details: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def missing(cls, metrics: Sequence[str], reason: str) -> Scored:
        """Return the scores of an item about which nothing is known, because there is no reply."""
        return cls(dict.fromkeys(metrics), dict.fromkeys(metrics, reason))


def family_of(metric: str) -> str:
    """Return the family of a metric: ``axis`` of ``axis:accuracy``, ``pass@`` of ``pass@8``; "" of one without."""
    family, colon, _ = metric.partition(":")
    return family if colon else "pass@" if metric.startswith("pass@") else ""


@dataclass(frozen=True, slots=True)
class Generation:
    """How replies are generated.

    Attributes:
        max_tokens: longest reply; longer ones are cut off, and counted.
        temperature: 0 is greedy.
        top_p: nucleus; 1 is all.
        seed: of sampling. A server is sent one with each request where it is not 0: not every server survives one
            (vLLM 0.32 on a CPU does not), and none promises the same reply for it.
    """

    max_tokens: int
    temperature: float = 0.0
    top_p: float = 1.0
    seed: int = 0

    def __post_init__(self) -> None:
        """Refuse what no model can do."""
        for name, value, allowed, fits in (
            ("max_tokens", self.max_tokens, "a whole number of at least 1", lambda v: type(v) is int and v >= 1),
            ("temperature", self.temperature, "a finite number of at least 0", lambda v: _real(v) and v >= 0),
            ("top_p", self.top_p, "a number above 0, at most 1", lambda v: _real(v) and 0 < v <= 1),
            ("seed", self.seed, "a whole number", lambda v: type(v) is int),
        ):
            if not fits(value):
                raise ConfigError(f"{name} is {value!r}; expected {allowed}")


def _real(value: object) -> bool:
    return type(value) in (int, float) and is_finite(value)  # type: ignore[arg-type]


class Benchmark(Protocol):
    """What ``rvpo eval`` runs. It may have three methods more:

    - ``async def check(self) -> None`` is called before the first reply is asked for, and raises where scores could not
      be had, for example because a judge cannot work.
    - ``def of_items(self, scored: Sequence[tuple[Item, Scored]]) -> dict[Key, Scored]`` adds metrics that are made of
      all samples of an item: it returns new scores for the first row of each item (:mod:`rvpo.evals.samples`).
    - ``def report_options(self) -> dict[str, Any]`` returns options that decide which metrics are made of the scores:
      where they change, the results of a finished run are made again from its replies and scores.
    """

    name: str
    """In file names and on the command line."""

    primary: str
    """The metric that the benchmark is known by."""

    generation: Generation
    """Defaults, as the benchmark's own evaluator has them."""

    def settings(self) -> dict[str, Any]:
        """Return all that decides items and scores as plain JSON: digest of the data, seeds, template, judge.

        A run goes on only where they are equal, and only runs with equal data are compared.
        """
        ...

    def items(self) -> list[Item]:
        """Return the items in a fixed order; several epochs of one item are items of their own.

        Raises:
            DataError: the data is absent or malformed.
        """
        ...

    async def score(self, replied: Sequence[tuple[Item, Reply]]) -> list[Scored]:
        """Return what each reply is worth. All replies have a text; a score that cannot be had is None.

        Never raises for what a reply holds.
        """
        ...

    def metrics(self, item: Item) -> Sequence[str]:
        """Return the metrics that an item has, needed where there is no reply to score."""
        ...

    def summary(self, scored: Sequence[tuple[Item, Scored]]) -> dict[str, Any]:
        """Return the benchmark's own aggregates as plain JSON, such as a leaderboard's; ``{}`` where it has none.

        ``notes``, a list of texts, is what a reader of the scores must know: it is shown below them.
        """
        ...
