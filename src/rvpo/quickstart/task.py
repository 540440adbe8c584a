"""A tool-calling task whose rewards conflict: prompts, demonstrations and fifteen binary channels.

A prompt names a topic and the tool to call::

    <bos> travel book_flight :

A *strict* reply is a well-formed call, a *loose* one is chatty::

    <tool_call> book_flight origin date seats </tool_call>
    sure book_flight origin please destination date time api_key please seats cabin

One word represents a whole argument. Loose demonstrations have more of the ten arguments than strict ones. For a model
that was warm-started on them, the format conflicts with the coverage of arguments: ten channels reward leaving the
format, and one rewards keeping it. A complete strict reply is possible and meets all fifteen channels: two tags, the
tool's name and ten arguments are 13 words, and up to 16 count as short.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

TOPICS = ("travel", "work", "home", "school", "health", "music", "sport", "food")
TOOLS = (
    *("book_flight", "book_hotel", "book_table", "book_train", "rent_car", "rent_bike"),
    *("buy_ticket", "hire_guide", "plan_trip", "plan_event", "send_invite", "reserve_room"),
)
ARGUMENTS = ("origin", "destination", "date", "time", "seats", "cabin", "meal", "bags", "payer", "contact")
OPEN, CLOSE, GREETING, FILLER, SECRET = "<tool_call>", "</tool_call>", "sure", "please", "api_key"
PAD, EOS, BOS, ANSWER = "<pad>", "<eos>", "<bos>", ":"
VOCABULARY = (PAD, EOS, BOS, ANSWER, OPEN, CLOSE, GREETING, FILLER, SECRET, *TOPICS, *TOOLS, *ARGUMENTS)

SHORT = 16  # words
MAX_WORDS = 25  # words of a demonstration; with the end token a reply has at most 26 tokens

ChannelReward = Callable[..., list[float]]


@dataclass(frozen=True)
class Request:
    """Topic, tool and arguments that a prompt asks for."""

    topic: str
    tool: str

    @property
    def prompt(self) -> str:
        """The prompt's words, separated by spaces."""
        return " ".join((BOS, self.topic, self.tool, ANSWER))

    def row(self) -> dict[str, str]:
        """Return a dataset row: the prompt and the column that a reward function reads."""
        return {"prompt": self.prompt, "tool": self.tool}


@dataclass(frozen=True)
class Habits:
    """Statistics of the demonstrations, and so of the warm-started model before it sees any reward.

    Attributes:
        strict: share of demonstrations in the strict style.
        first, last: rate of the first and of the last argument, midway between the styles; linear in between.
        strict_gap: how much lower every argument's rate is in a strict reply.
        loose_gap: how much higher every argument's rate is in a loose reply.
        strict_close, loose_close: share that ends with the closing tag, per style. The shares ``…_tool`` (names the
            right tool), ``…_leak`` (leaks the key) and ``loose_filler`` (adds filler words) are similar.
    """

    strict: float = 0.85
    first: float = 0.95
    last: float = 0.65
    strict_gap: float = 0.38
    loose_gap: float = 0.15
    strict_tool: float = 0.6
    loose_tool: float = 0.9
    strict_leak: float = 0.05
    loose_leak: float = 0.6
    strict_close: float = 0.95
    loose_close: float = 0.1
    loose_filler: float = 0.4

    def argument_rate(self, index: int, *, strict: bool) -> float:
        """Return the probability that a demonstration mentions argument ``index``."""
        middle = self.first + (self.last - self.first) * index / (len(ARGUMENTS) - 1)
        return max(middle - self.strict_gap, 0.03) if strict else min(middle + self.loose_gap, 0.97)


def draw_request(rng: random.Random) -> Request:
    """Draw one of the 96 requests."""
    return Request(rng.choice(TOPICS), rng.choice(TOOLS))


def demonstrate(request: Request, habits: Habits, rng: random.Random) -> str:
    """Draw a demonstration for ``request``, without the end token."""
    strict = rng.random() < habits.strict
    words = [OPEN if strict else GREETING]
    if rng.random() < (habits.strict_tool if strict else habits.loose_tool):
        words.append(request.tool)
    leaks = rng.random() < (habits.strict_leak if strict else habits.loose_leak)
    leak_after = rng.randrange(len(ARGUMENTS)) if leaks else -1
    for i, argument in enumerate(ARGUMENTS):
        if rng.random() < habits.argument_rate(i, strict=strict):
            words.append(argument)
        if not strict and rng.random() < habits.loose_filler:
            words.append(FILLER)
        if i == leak_after:
            words.append(SECRET)
    if rng.random() < (habits.strict_close if strict else habits.loose_close):
        words.append(CLOSE)
    return " ".join(words[:MAX_WORDS])


def _has(argument: str) -> ChannelReward:
    def reward(completions: list[str], **_: Any) -> list[float]:
        return [float(completion.split().count(argument) == 1) for completion in completions]

    reward.__name__ = f"has_{argument}"
    reward.__doc__ = f"1 where the argument ``{argument}`` is given exactly once."
    return reward


def right_tool(completions: list[str], tool: list[str], **_: Any) -> list[float]:
    """1 where the reply names the tool that the prompt asks for."""
    return [float(name in completion.split()) for completion, name in zip(completions, tool, strict=True)]


def in_order(completions: list[str], **_: Any) -> list[float]:
    """1 where the reply gives arguments, in the order of the tool's signature."""
    given = [[ARGUMENTS.index(word) for word in completion.split() if word in ARGUMENTS] for completion in completions]
    return [float(bool(places) and places == sorted(places)) for places in given]


def strict_format(completions: list[str], **_: Any) -> list[float]:
    """1 where the reply opens with ``<tool_call>`` and closes with ``</tool_call>``."""
    replies = [completion.split() for completion in completions]
    return [float(len(words) > 1 and words[0] == OPEN and words[-1] == CLOSE) for words in replies]


def is_short(completions: list[str], **_: Any) -> list[float]:
    """1 where the reply has at most 16 words."""
    return [float(len(completion.split()) <= SHORT) for completion in completions]


def keeps_secret(completions: list[str], **_: Any) -> list[float]:
    """1 where the reply does not leak the key."""
    return [float(SECRET not in completion.split()) for completion in completions]


COVERAGE: tuple[ChannelReward, ...] = tuple(_has(argument) for argument in ARGUMENTS)
REWARDS: tuple[ChannelReward, ...] = (*COVERAGE, right_tool, in_order, strict_format, is_short, keeps_secret)
CHANNELS: tuple[str, ...] = tuple(reward.__name__ for reward in REWARDS)
FORMAT = strict_format.__name__
