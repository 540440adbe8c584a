"""The tiny language of ``benchmarks/programs``: its machine against a plain interpreter, and its pools."""

from __future__ import annotations

import sys
from pathlib import Path

import torch

sys.path.append(str(Path(__file__).resolve().parents[2] / "benchmarks" / "programs"))

import language

APPLY = (lambda a, b: a + b, lambda a, b: a - b, lambda a, b: a * b, max, min)


def plain(tokens: list[int], x: int) -> int:
    """Run one program on one input; -1 where it is not valid."""
    stack: list[int] = []
    for token in tokens:
        if token == language.EOS:
            return stack[0] if len(stack) == 1 else -1
        if token in language.OPERANDS:
            stack.append(x if token == language.OPERANDS[0] else token - language.OPERANDS[0])
        elif token in language.OPERATORS and len(stack) >= 2:
            b, a = stack.pop(), stack.pop()
            stack.append(APPLY[token - language.OPERATORS[0]](a, b) % language.MODULUS)
        else:
            return -1
    return -1


def test_the_machine_gives_what_an_interpreter_gives():
    generator = torch.Generator().manual_seed(0)
    random = torch.randint(0, language.VOCABULARY, (500, language.LENGTH), generator=generator)
    _, programs = language.functions()
    _, noisy = language.demonstrations(500, 0)
    for replies in (random, programs, noisy):
        want = [[plain(row, x) for x in language.INPUTS] for row in replies.tolist()]
        assert language.outputs(replies).tolist() == want


def test_pools_are_apart_and_their_programs_pass():
    asked, programs = language.pool(held_out=False)
    held_out, _ = language.pool(held_out=True)
    assert not {tuple(row) for row in asked.tolist()} & {tuple(row) for row in held_out.tolist()}
    assert bool((language.rewards(asked, programs) == 1).all())
    assert bool((language.outputs(programs) >= 0).all())
