"""The verifiable task: the running totals, modulo 10, of two to four digits; right if every total is.

::

    prompt   <bos> d1 d2 d3 d4 :        missing digits are <pad>
    reply    total_2 ... total_n <eos>  each as a digit or as a word: either is right

The warm-started policy is unsure rather than wrong. Its demonstrations know additions without a carry (0.97), and each
addition with one at a rate drawn from ``KNOWN``, in digits and in words apart; the rest of the probability is on three
wrong totals, the first of which is then often the likeliest of all. So a question has several ways to be right and
several modes of being wrong, and is the harder the more of its additions carry. Both ways of writing are as frequent.
"""

from __future__ import annotations

import torch
from torch import Tensor

PAD, EOS, BOS, COLON, DIGIT = range(5)
WORD = DIGIT + 10
VOCABULARY = WORD + 10
OPERANDS = 4  # at most
PROMPT = OPERANDS + 2  # tokens
LENGTH = OPERANDS  # tokens of the longest reply, <eos> included

EASY = 0.97
KNOWN = (0.01, 0.03, 0.1, 0.4)  # rates at which an addition with a carry is right
SLIPS = ((1, 0.65), (9, 0.25), (5, 0.1))  # what is added to the right total by mistake, and how often
HELD_OUT = 0.2  # share of the questions of every length that are never trained on


def questions(held_out: bool) -> list[Tensor]:
    """Return all questions (n, 4) for training or for evaluation, by length; blanks are -1. The split is fixed."""
    generator = torch.Generator().manual_seed(0)
    pools = []
    for length in range(2, OPERANDS + 1):
        digits = torch.cartesian_prod(*[torch.arange(10)] * length)
        digits = digits[torch.randperm(len(digits), generator=generator)]
        cut = int(len(digits) * HELD_OUT)
        pool = digits[:cut] if held_out else digits[cut:]
        pools.append(torch.nn.functional.pad(pool, (0, OPERANDS - length), value=-1))
    return pools


def draw(pools: list[Tensor], count: int, generator: torch.Generator) -> Tensor:
    """Draw questions (count, 4), each length as likely."""
    length = torch.randint(len(pools), (count,), generator=generator)
    place = torch.rand(count, generator=generator)
    return torch.stack([pools[i][int(u * len(pools[i]))] for i, u in zip(length.tolist(), place.tolist(), strict=True)])


def prompt(asked: Tensor) -> Tensor:
    """Turn questions (..., 4) into prompt tokens (..., 6)."""
    digits = torch.where(asked < 0, PAD, asked + DIGIT)
    edge = torch.ones_like(asked[..., :1])
    return torch.cat([edge * BOS, digits, edge * COLON], -1)


def carries(asked: Tensor) -> Tensor:
    """Return how many additions of questions (..., 4) carry, (...)."""
    total, count = asked[..., 0], torch.zeros_like(asked[..., 0])
    for digit in asked[..., 1:].unbind(-1):
        count = count + (total + digit >= 10)  # a blank, -1, never carries
        total = (total + digit.clamp(min=0)) % 10
    return count


def rewards(asked: Tensor, replies: Tensor) -> Tensor:
    """Return 1 where every total is right and <eos> follows the last, else 0, for questions (..., 4), replies (..., T)."""
    blank = asked[..., 1:] < 0
    totals = asked.clamp(min=0).cumsum(-1)[..., 1:] % 10
    given = replies[..., :-1]
    right = blank | (given == DIGIT + totals) | (given == WORD + totals)
    end = replies.gather(-1, (~blank).sum(-1, keepdim=True))[..., 0]
    return (right.all(-1) & (end == EOS)).float()


def demonstrations(pools: list[Tensor], count: int, seed: int) -> tuple[Tensor, Tensor]:
    """Return questions (count, 4) and noisy replies (count, T), padded; the seed also draws what is known."""
    generator = torch.Generator().manual_seed(seed)
    habits = _habits(generator)
    asked = draw(pools, count, generator)
    total, replies = asked[:, 0], []
    ended = torch.zeros(count, dtype=torch.bool)
    for digit in asked[:, 1:].unbind(1):
        words = torch.randint(2, (count,), generator=generator)
        total = torch.multinomial(habits[words, total, digit.clamp(min=0)], 1, generator=generator)[:, 0]
        blank = digit < 0
        replies.append(torch.where(blank, torch.where(ended, PAD, EOS), DIGIT + 10 * words + total))
        ended = ended | blank
    replies.append(torch.where(ended, PAD, EOS))
    return asked, torch.stack(replies, 1)


def _habits(generator: torch.Generator) -> Tensor:
    """Return the chance of each next total (10) by way of writing (2), running total (10) and digit (10)."""
    known = torch.tensor(KNOWN)[torch.randint(len(KNOWN), (2, 10, 10), generator=generator)]
    a, b = torch.arange(10)[:, None], torch.arange(10)
    right = torch.where(a + b < 10, torch.tensor(EASY), known)
    chance = torch.zeros(2, 10, 10, 10)
    for slip, share in ((0, None), *SLIPS):
        rate = right if share is None else share * (1 - right)
        chance.scatter_add_(3, ((a + b + slip) % 10).expand(2, 10, 10)[..., None], rate[..., None])
    return chance
