"""The task: write a program of a stack machine that passes six tests, each of them a channel.

::

    prompt   <bos> y1 … y6 :            what the function gives for the inputs 0, 1, 2, 4, 7, 10
    reply    x 2 + 3 * <eos>            postfix, modulo 11; operands x 1 2 3, operators + - * max min

A test is passed if the program is valid and gives y_j for the j-th input. Programs have at most two operators. All
functions that such programs compute are questions, each once; a fifth is held out. Tests differ in how often they are
passed: many wrong programs are right at 0, few at 7 and 10, where the modulus and max and min tell them apart.

The warm-started policy has seen demonstrations in which every token is replaced by another of its kind with
probability ``SLIP``, so that it is unsure rather than wrong.
"""

from __future__ import annotations

from functools import cache
from itertools import product

import torch
from torch import Tensor

MODULUS = 11
INPUTS = (0, 1, 2, 4, 7, 10)
PAD, EOS, BOS, COLON = range(4)
OPERANDS = range(4, 8)  # x 1 2 3
OPERATORS = range(8, 13)  # + - * max min
VALUE = 13  # the first of the tokens of values
VOCABULARY = VALUE + MODULUS
TESTS = tuple(f"test at {x}" for x in INPUTS)
PROMPT = len(INPUTS) + 2  # tokens
LENGTH = 6  # of the longest reply, <eos> included
SLIP = 0.15
HELD_OUT = 0.2


def outputs(replies: Tensor) -> Tensor:
    """Run programs (N, T); return what they give for each input, (N, 6), -1 where a program is not valid."""
    size, length = replies.shape
    x = torch.tensor(INPUTS).expand(size, -1)
    stack = torch.zeros(size, len(INPUTS), length + 2, dtype=torch.int64)
    height = torch.zeros(size, dtype=torch.int64)
    valid, ended = torch.ones(size, dtype=torch.bool), torch.zeros(size, dtype=torch.bool)
    rows = torch.arange(size)
    for token in replies.unbind(1):
        ended = ended | (token == EOS)
        pushes = ~ended & (token >= OPERANDS[0]) & (token <= OPERANDS[-1])
        pops = ~ended & (token >= OPERATORS[0]) & (token <= OPERATORS[-1])
        valid = valid & (ended | pushes | (pops & (height >= 2)))
        pops = pops & (height >= 2)
        operand = torch.where(token[:, None] == OPERANDS[0], x, (token - OPERANDS[0])[:, None].expand_as(x))
        a, b = (stack[rows, :, (height - back).clamp(min=0)] for back in (2, 1))
        results = torch.stack([a + b, a - b, a * b, torch.maximum(a, b), torch.minimum(a, b)])
        result = results[(token - OPERATORS[0]).clamp(0, 4), rows] % MODULUS
        place = torch.where(pops, height - 2, height).clamp(min=0)
        new = torch.where(pushes[:, None], operand, result)
        old = stack[rows, :, place]
        stack[rows, :, place] = torch.where((pushes | pops)[:, None], new, old)
        height = height + pushes.long() - pops.long()
    valid = valid & ended & (height == 1)
    return stack[..., 0].masked_fill(~valid[:, None], -1)


@cache
def functions() -> tuple[Tensor, Tensor]:
    """Return all functions (n, 6) by their outputs, and a program of each, (n, T); the order is fixed and mixed."""
    operand, operator = list(OPERANDS), list(OPERATORS)
    shapes = (
        [operand, operand, operator],
        [operand, operand, operator, operand, operator],
        [operand, operand, operand, operator, operator],
    )
    programs = [(*tokens, EOS, *(PAD,) * (LENGTH - len(tokens) - 1)) for shape in shapes for tokens in product(*shape)]
    every = torch.tensor(programs)
    found, index = torch.unique(outputs(every), dim=0, return_inverse=True)
    first = torch.full((len(found),), len(every)).scatter_reduce(0, index, torch.arange(len(every)), "amin")
    order = torch.randperm(len(found), generator=torch.Generator().manual_seed(0))
    return found[order], every[first][order]


def pool(held_out: bool) -> tuple[Tensor, Tensor]:
    """Return the functions for training or for evaluation, with their programs."""
    asked, programs = functions()
    cut = int(len(asked) * HELD_OUT)
    part = slice(cut) if held_out else slice(cut, None)
    return asked[part], programs[part]


def prompt(asked: Tensor) -> Tensor:
    """Turn functions (..., 6) into prompt tokens (..., 8)."""
    edge = torch.ones_like(asked[..., :1])
    return torch.cat([edge * BOS, asked + VALUE, edge * COLON], -1)


def rewards(asked: Tensor, replies: Tensor) -> Tensor:
    """Return which tests replies (..., T) pass, (..., 6) of 0 and 1."""
    given = outputs(replies.flatten(0, -2)).view(*replies.shape[:-1], -1)
    return (given == asked).float()


def demonstrations(count: int, seed: int) -> tuple[Tensor, Tensor]:
    """Return functions (count, 6) for training and noisy programs (count, T)."""
    generator = torch.Generator().manual_seed(seed)
    asked, programs = pool(held_out=False)
    rows = torch.randint(len(asked), (count,), generator=generator)
    replies = programs[rows]
    for kind in (OPERANDS, OPERATORS):
        own = (replies >= kind[0]) & (replies <= kind[-1])
        other = torch.randint(kind[0], kind[-1] + 1, replies.shape, generator=generator)
        slips = torch.rand(replies.shape, generator=generator) < SLIP
        replies = torch.where(own & slips, other, replies)
    return asked[rows], replies
