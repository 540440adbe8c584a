"""Small policies whose replies can be listed, so that every expectation and every gradient is exact.

A policy maps ``theta`` (R, D), one row of parameters per run, to log-probabilities (R, X, K) of the K replies in each of
the X contexts. R runs are computed at once.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import Protocol

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid


class Policy(Protocol):
    """What every policy has."""

    contexts: int
    """X, the number of contexts (prompts)."""
    replies: int
    """K, the number of different replies."""
    size: int
    """D, the number of parameters of a run."""

    def __call__(self, theta: Tensor) -> Tensor:
        """Return log-probabilities (R, X, K) for parameters (R, D)."""


def logit(p: float) -> float:
    """Return the log-odds of a probability in (0, 1)."""
    return math.log(p / (1 - p))


class StyleItems:
    """Style bits first, then item bits whose rates depend on the styles.

    Each logit is the sum of a weight shared by all contexts and a weight of the context.

    Attributes:
        style: (K, styles) style bits of each reply.
        item: (K, items) item bits of each reply.
    """

    def __init__(self, items: int, contexts: int = 4, styles: int = 1) -> None:
        self.items, self.styles, self.contexts = items, styles, contexts
        bits = torch.tensor(list(itertools.product([0.0, 1.0], repeat=styles + items)))
        self.style, self.item = bits[:, :styles], bits[:, styles:]
        self.replies = len(bits)
        self.per_context = styles + items + items * styles
        self.size = self.per_context * (1 + contexts)

    def start(self, style: float | Sequence[float], without: Sequence[float], given: Sequence[float]) -> Tensor:
        """Return parameters (D,) with chosen rates in every context.

        Args:
            style: rate of the style bits, one number for all or one per bit.
            without: rate of each item in replies without any style.
            given: rate of each item in replies with the first style. Other styles change no rate.
        """
        theta = torch.zeros(self.size)
        rates = [style] * self.styles if isinstance(style, float) else style
        base = torch.tensor([logit(p) for p in without])
        theta[: self.styles] = torch.tensor([logit(p) for p in rates])
        theta[self.styles : self.styles + self.items] = base
        theta[self.effects(0)] = torch.tensor([logit(p) for p in given]) - base
        return theta

    def effects(self, style: int) -> slice:
        """Return where ``theta`` holds what a style adds to the logit of each item, shared by all contexts."""
        first = self.styles + self.items * (1 + style)
        return slice(first, first + self.items)

    def __call__(self, theta: Tensor) -> Tensor:
        """Return log-probabilities (R, X, K)."""
        runs, s, n = theta.shape[0], self.styles, self.items
        blocks = theta.view(runs, 1 + self.contexts, self.per_context)
        w = blocks[:, :1] + blocks[:, 1:]  # (R, X, per_context)
        effects = w[..., s + n :].view(runs, self.contexts, s, n)
        log_style = logsigmoid(w[..., None, :s] * (2 * self.style - 1)).sum(-1)
        logits = w[..., None, s : s + n] + torch.einsum("ks,rxsn->rxkn", self.style, effects)
        return log_style + logsigmoid(logits * (2 * self.item - 1)).sum(-1)


class Table:
    """One logit per context and reply."""

    def __init__(self, contexts: int, replies: int) -> None:
        self.contexts, self.replies, self.size = contexts, replies, contexts * replies

    def __call__(self, theta: Tensor) -> Tensor:
        """Return log-probabilities (R, X, K)."""
        return theta.view(-1, self.contexts, self.replies).log_softmax(-1)


class LogLinear:
    """Softmax over linear functions of reply features (K, F), with shared and context weights."""

    def __init__(self, features: Tensor, contexts: int) -> None:
        self.features, self.contexts = features, contexts
        self.replies, self.width = features.shape
        self.size = self.width * (1 + contexts)

    def __call__(self, theta: Tensor) -> Tensor:
        """Return log-probabilities (R, X, K)."""
        blocks = theta.view(-1, 1 + self.contexts, self.width)
        return ((blocks[:, :1] + blocks[:, 1:]) @ self.features.T).log_softmax(-1)


class Mlp:
    """One hidden layer on fixed random features of the context."""

    def __init__(self, contexts: int, replies: int, hidden: int = 16, features: int = 6) -> None:
        self.inputs = torch.randn(contexts, features, generator=torch.Generator().manual_seed(7))
        self.contexts, self.replies, self.hidden, self.features = contexts, replies, hidden, features
        self.size = features * hidden + hidden + hidden * replies + replies

    def start(self, seed: int) -> Tensor:
        """Return random parameters (D,)."""
        generator = torch.Generator().manual_seed(seed)
        theta = torch.zeros(self.size)
        a, b, _ = self._ends
        theta[:a] = torch.randn(a, generator=generator) / self.features**0.5
        count = self.hidden * self.replies
        theta[b : b + count] = torch.randn(count, generator=generator) * 0.8 / self.hidden**0.5
        return theta

    @property
    def _ends(self) -> tuple[int, int, int]:
        """Ends in ``theta`` of the first matrix, the first bias and the second matrix."""
        a = self.features * self.hidden
        return a, a + self.hidden, a + self.hidden + self.hidden * self.replies

    def __call__(self, theta: Tensor) -> Tensor:
        """Return log-probabilities (R, X, K)."""
        runs = theta.shape[0]
        a, b, c = self._ends
        first = theta[:, :a].view(runs, self.features, self.hidden)
        second = theta[:, b:c].view(runs, self.hidden, self.replies)
        hidden = torch.tanh(torch.einsum("xf,rfh->rxh", self.inputs, first) + theta[:, None, a:b])
        return (torch.einsum("rxh,rhk->rxk", hidden, second) + theta[:, None, c:]).log_softmax(-1)


class Tokens:
    """T tokens of V words: a logit per position, previous word and word, and one per context, position and word.

    Attributes:
        words: (K, T) the tokens of each reply.
    """

    def __init__(self, length: int, vocabulary: int, contexts: int) -> None:
        self.length, self.vocabulary, self.contexts = length, vocabulary, contexts
        self.words = torch.tensor(list(itertools.product(range(vocabulary), repeat=length)))
        self.replies = len(self.words)
        self.shared = length * (vocabulary + 1) * vocabulary
        self.size = self.shared + contexts * length * vocabulary

    def start(self, rates: Sequence[float]) -> Tensor:
        """Return parameters (D,) with which every token has these word rates, whatever precedes it."""
        theta = torch.zeros(self.size)
        theta[: self.shared].view(-1, self.vocabulary)[:] = torch.tensor(rates).log()
        return theta

    def __call__(self, theta: Tensor) -> Tensor:
        """Return log-probabilities (R, X, K)."""
        runs, t, v = theta.shape[0], self.length, self.vocabulary
        shared = theta[:, : self.shared].view(runs, 1, t, v + 1, v)
        own = theta[:, self.shared :].view(runs, self.contexts, t, 1, v)
        log_word = (shared + own).log_softmax(-1)  # (R, X, T, V + 1, V)
        previous = torch.cat([torch.full((self.replies, 1), v), self.words[:, :-1]], 1)
        total = log_word[:, :, 0, previous[:, 0], self.words[:, 0]]
        for i in range(1, t):
            total = total + log_word[:, :, i, previous[:, i], self.words[:, i]]
        return total
