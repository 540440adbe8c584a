"""The task: answer a topic with a tool call that carries content, in a strict format or in a loose one.

::

    prompt   <bos> topic_t :
    strict   <call> tool_t item_1 ... item_11 </call> <eos>
    loose    sure tool_t item_1 please item_2 ... secret <eos>

Item 0 is the echo of the topic's tool, the only one that depends on the prompt. Channel 0 is the format; the others
share out the items. A complete strict reply meets every channel: the conflict is only in the demonstrations, where
strict replies leave more items out. Tensors: R runs, B replies a run, T tokens, V vocabulary, M channels.
"""

from __future__ import annotations

import random
from math import comb

import torch
from cells import Cell
from torch import Tensor

TOPICS = 8
WORDS = ["<pad>", "<eos>", "<bos>", ":", "<call>", "</call>", "sure", "please", "secret"]
PAD, EOS, BOS, COLON, CALL, CLOSE, SURE, FILLER, SECRET = range(len(WORDS))
TOPIC = len(WORDS)  # the first of 8 topics
TOOL = TOPIC + TOPICS  # the first of 8 tools
ITEM = TOOL + TOPICS - 1  # item i > 0 is the word ITEM + i
VOCABULARY = ITEM + 14
PROMPT = 3  # tokens of a prompt

FILLS = 0.3  # chance of a filler after an item of a loose reply
LEAKS = 0.2
CLOSES = 0.1  # chance that a loose reply closes with </call>
CLUTTERED = 0.85  # floorless: chance that a reply of either style has fillers
FLOORLESS_HARDER = 0.2  # floorless: how much lower the rates of content are, so that an empty reply loses little
EMPTY = 0.1  # floorless: share of empty replies


class Task:
    """Prompts, demonstrations and rewards of one cell."""

    def __init__(self, cell: Cell) -> None:
        self.cell = cell
        self.contents = 2 if cell.floorless else cell.channels - 1
        # Floorless cells have few items: the cap on length must not forbid a complete strict reply.
        self.items = 8 if cell.floorless else 14 if cell.channels == 15 else 12
        self.length = (12 if cell.floorless else self.items) + 5
        self.share = self.items // self.contents  # items of a channel
        self.needed = 9 if cell.channels == 2 else self.share

    def item_rates(self, strict: bool) -> list[float]:
        """Return the chance of each item in a demonstration: channels from easy (0.8) to hard (0.5), +- conflict / 2."""
        rates = []
        for channel in range(self.contents):
            middle = 0.65 if self.contents == 1 else 0.8 - 0.3 * channel / (self.contents - 1)
            middle -= FLOORLESS_HARDER * self.cell.floorless
            rate = middle + self.cell.conflict * (-0.5 if strict else 0.5)
            rate = min(max(rate, 0.05), 0.97)
            rates += [rate if self.cell.graded else _item_rate(rate, self.share, self.needed)] * self.share
        return rates

    def demonstrations(self, count: int, seed: int) -> tuple[Tensor, Tensor]:
        """Return topics (count,) and replies (count, T), padded, of which exactly the share p_hard is strict."""
        rng = random.Random(seed)
        rates = {strict: self.item_rates(strict) for strict in (True, False)}
        topics, replies = [], []
        for i in range(count):
            topic = rng.randrange(TOPICS)
            strict = i < self.cell.p_hard * count
            reply = [*self._reply(topic, strict, rates[strict], rng), EOS]
            topics.append(topic)
            replies.append(reply + [PAD] * (self.length - len(reply)))
        return torch.tensor(topics), torch.tensor(replies)

    def _reply(self, topic: int, strict: bool, rates: list[float], rng: random.Random) -> list[int]:
        if self.cell.floorless and not strict and rng.random() < EMPTY / (1 - self.cell.p_hard):
            return []
        words = [TOOL + topic, *range(ITEM + 1, ITEM + self.items)]
        items = [word for word, rate in zip(words, rates, strict=True) if rng.random() < rate]
        fills = FILLS * (not strict)
        if self.cell.floorless:
            fills = 0.6 * (rng.random() < CLUTTERED)
        room = self.length - 3 - len(items)  # style, closing and end
        body = []
        if not strict and not self.cell.floorless and rng.random() < LEAKS and room:
            items.insert(rng.randrange(len(items) + 1), SECRET)
            room -= 1
        for item in items:
            body.append(item)
            if room and rng.random() < fills:
                body.append(FILLER)
                room -= 1
        closes = strict or rng.random() < CLOSES
        return [CALL if strict else SURE, *body, *[CLOSE] * closes]

    def prompt(self, topics: Tensor) -> Tensor:
        """Turn topics (...) into prompt tokens (..., 3)."""
        return torch.stack([torch.full_like(topics, BOS), TOPIC + topics, torch.full_like(topics, COLON)], -1)

    def rewards(self, topics: Tensor, replies: Tensor) -> Tensor:
        """Return the true value in [0, 1] of every channel, (..., M), of topics (...) and replies (..., T)."""
        mask = reply_mask(replies) & (replies != EOS)
        length = mask.sum(-1)
        counts = torch.zeros(*replies.shape[:-1], VOCABULARY)
        counts.scatter_add_(-1, replies, mask.float())
        last = replies.gather(-1, (length - 1).clamp(min=0)[..., None])[..., 0]
        ended = length < replies.shape[-1]
        once = (counts[..., CALL] == 1) & (counts[..., CLOSE] == 1)
        hard = ended & once & (replies[..., 0] == CALL) & (last == CLOSE)

        tools = counts[..., TOOL : TOOL + TOPICS]
        echo = (tools.gather(-1, topics[..., None]) == 1) & (tools.sum(-1, keepdim=True) == 1)
        given = torch.cat([echo, counts[..., ITEM + 1 : ITEM + self.items] == 1], -1)
        content = given.unflatten(-1, (self.contents, self.share)).float().mean(-1)
        if not self.cell.graded:
            content = (content > (self.needed - 0.5) / self.share).float()
        channels = [hard[..., None].float(), content]
        if self.cell.floorless:
            clean = (counts[..., FILLER] + counts[..., SECRET]) == 0
            channels.append(torch.stack([ended & (length <= self.items + 2), clean], -1).float())
        return torch.cat(channels, -1)


def reply_mask(replies: Tensor) -> Tensor:
    """Return True for the tokens of replies (..., T) up to the first <eos>, that one included."""
    end = (replies == EOS).int()
    return end.cumsum(-1) - end == 0


def _item_rate(rate: float, share: int, needed: int) -> float:
    """Return the item rate at which at least ``needed`` of ``share`` independent items come with chance ``rate``."""
    low, high = 0.0, 1.0
    for _ in range(40):
        q = (low + high) / 2
        chance = sum(comb(share, n) * q**n * (1 - q) ** (share - n) for n in range(needed, share + 1))
        low, high = (q, high) if chance < rate else (low, q)
    return low
