"""SmolLM2 for many runs at once: one frozen model, and adapters of each run in its last layers, stacked.

A run's batch is P prompts with G replies each. The replies of a prompt follow it in one sequence, token by token and
side by side (the first token of each reply, then the second, …), under a mask that shows a token its prompt and its own
reply only: so a prompt is computed once, not G times, and the frozen layers once, while sampling.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import pad, rms_norm, scaled_dot_product_attention, silu
from transformers import AutoModelForCausalLM

ADAPTED = ("q", "v", "o", "up", "down")
"""The projections that have an adapter, as in the recipes."""

Adapters = Sequence[dict[str, tuple[Tensor, Tensor]]]
"""For each of the last layers and projection: (R, rank, in) and (R, out, rank)."""


@dataclass(frozen=True)
class Sampled:
    """Replies of R runs to P prompts each, and what training needs of the passes that made them.

    Attributes:
        tokens: (R P, T, G), the ends of replies included.
        trained: (R P, T, G), False behind a reply's end.
        hidden: (R P, L + (T - 1) G, D), what goes into the first adapted layer; L is the length of the longest prompt.
        rope: cosines and sines of the positions, (R P, 1, L + (T - 1) G, d) each.
        mask: (R P, 1, S, S) of the whole sequence, S = L + (T - 1) G.
    """

    tokens: Tensor
    trained: Tensor
    hidden: Tensor
    rope: tuple[Tensor, Tensor]
    mask: Tensor


class Frozen(torch.autograd.Function):
    """x W^T for a weight that is not trained, packed once for each direction: half as long again without."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, packed: tuple[Tensor, Tensor]) -> Tensor:
        ctx.backwards = packed[1]
        return _product(x, packed[0])

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        return _product(gradient, ctx.backwards), None


def _packed(weight: Tensor) -> tuple[Tensor, Tensor]:
    return tuple(torch.ops.mkldnn._reorder_linear_weight(part.contiguous()) for part in (weight, weight.T))


def _product(x: Tensor, packed: Tensor) -> Tensor:
    return torch.ops.mkldnn._linear_pointwise(x.contiguous(), packed, None, "none", [], "")


def _linear(x: Tensor, packed: tuple[Tensor, Tensor]) -> Tensor:
    return Frozen.apply(x, packed)


class Policy:
    """The frozen weights, and passes through them."""

    def __init__(self, path: str, adapted: int, alpha: float = 32, rank: int = 16) -> None:
        """Load a Llama-like model; ``adapted`` is the number of last layers that have adapters."""
        model = AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32).requires_grad_(False)
        config = model.config
        self.heads, self.key_heads, self.width = config.num_attention_heads, config.num_key_value_heads, config.head_dim
        self.eps, self.base = config.rms_norm_eps, config.rope_parameters["rope_theta"]
        self.end = config.eos_token_id
        self.embedding, self.norm, self.head = (
            model.model.embed_tokens.weight,
            model.model.norm.weight,
            model.lm_head.weight,
        )
        self.packed_head = _packed(self.head)
        self.layers = [_weights(layer) for layer in model.model.layers]
        self.frozen = len(self.layers) - adapted
        self.rank, self.scale = rank, alpha / rank

    def new_adapters(self, seeds: Sequence[int]) -> Adapters:
        """Return adapters that change nothing yet, of a run for each seed, as PEFT starts them."""
        generators = [torch.Generator().manual_seed(seed) for seed in seeds]
        adapters = []
        for weights in self.layers[self.frozen :]:
            pairs = {}
            for name in ADAPTED:
                out, into = weights[name]
                down = torch.stack([torch.rand(self.rank, into, generator=generator) for generator in generators])
                pair = (2 * down - 1) / math.sqrt(into), torch.zeros(len(seeds), out, self.rank)
                pairs[name] = (pair[0].requires_grad_(), pair[1].requires_grad_())
            adapters.append(pairs)
        return adapters

    @torch.no_grad()
    def sample(self, adapters: Adapters, prompts: Sequence[Sequence[int]], uniforms: Tensor) -> Sampled:
        """Sample replies at temperature 1.

        Args:
            adapters: of R runs.
            prompts: R P prompts as tokens, a run's next to each other.
            uniforms: (R P, T, G) in [0, 1), one decides each token.
        """
        rows, steps, replies = uniforms.shape
        longest = max(map(len, prompts))
        ids = torch.tensor([[self.end] * (longest - len(prompt)) + list(prompt) for prompt in prompts])
        lengths = torch.tensor([len(prompt) for prompt in prompts])
        mask = _mask(lengths, longest, steps - 1, replies)
        size = mask.shape[-1]
        time = torch.arange(size - longest) // replies
        positions = torch.cat(
            [(torch.arange(longest) - longest + lengths[:, None]).clamp(min=0), lengths[:, None] + time], 1
        )
        rope = self._rope(positions)
        cache = [torch.empty(2, rows, self.key_heads, size, self.width) for _ in self.layers]
        hidden = torch.empty(rows, size, self.embedding.shape[1])
        tokens = torch.empty(rows, steps, replies, dtype=torch.long)
        first, last = 0, longest
        for step in range(steps):
            seen = mask[:, :, first:last, :last], tuple(part[:, :, first:last] for part in rope)
            x = self.embedding[ids]
            for i in range(self.frozen):
                x = self._layer(i, x, *seen, cache=cache[i], first=first)
            hidden[:, first:last] = x
            for i in range(self.frozen, len(self.layers)):
                x = self._layer(i, x, *seen, adapters[i - self.frozen], cache[i], first)
            # The prompt's last token has all replies' first tokens to draw, a reply's token one.
            x, shares = (x, uniforms[:, step, :, None]) if step else (x[:, -1:], uniforms[:, step, None])
            logits = _linear(rms_norm(x, self.norm.shape, self.norm, self.eps), self.packed_head)
            cumulated = logits.softmax(-1).cumsum(-1)
            ids = torch.searchsorted(cumulated, shares * cumulated[..., -1:], right=True).view(rows, replies)
            tokens[:, step] = ids = ids.clamp(max=len(self.head) - 1)
            first, last = last, last + replies
        ended = (tokens == self.end).int().cumsum(1)
        return Sampled(tokens, (ended - (tokens == self.end).int()) == 0, hidden, rope, mask)

    def ascend(self, adapters: Adapters, sampled: Sampled, coefficients: Tensor) -> None:
        """Add to the adapters' gradients those of -sum of coefficient * log-probability, over all tokens of replies.

        The head is passed by hand, a few rows at a time: the gradient by its input is coefficient * (p W - W[token]).

        Args:
            adapters: of R runs.
            sampled: what they sampled.
            coefficients: (R P, T, G), 0 where nothing is to be learned.
        """
        x = sampled.hidden
        for i, pairs in enumerate(adapters, self.frozen):
            x = self._layer(i, x, sampled.mask, sampled.rope, pairs)
        steps, replies = coefficients.shape[1:]
        before = x.shape[1] - (steps - 1) * replies  # the last token of the prompt is followed by each reply's first
        x = torch.cat([x[:, before - 1 : before].expand(-1, replies, -1), x[:, before:]], 1)
        x = rms_norm(x, self.norm.shape, self.norm, self.eps)
        coefficients, tokens = coefficients.flatten(1), sampled.tokens.flatten(1)
        gradient = torch.zeros_like(x)
        with torch.no_grad():
            for row in range(len(x)):
                used = coefficients[row].nonzero()[:, 0]
                p = _linear(x[row, used], self.packed_head).softmax(-1)
                gradient[row, used] = coefficients[row, used, None] * (
                    _product(p, self.packed_head[1]) - self.head[tokens[row, used]]
                )
        x.backward(gradient)

    def _layer(
        self,
        i: int,
        x: Tensor,
        mask: Tensor,
        rope: tuple[Tensor, ...],
        adapters: dict[str, tuple[Tensor, Tensor]] | None = None,
        cache: Tensor | None = None,
        first: int = 0,
    ) -> Tensor:
        """Pass x (B, S, D) through layer i; with a cache, tokens from ``first`` on, which see those before, too."""
        w = self.layers[i]
        rows, size, _ = x.shape

        def adapted(name: str, y: Tensor, out: Tensor) -> Tensor:
            if adapters is None:
                return out
            down, up = adapters[name]
            stacked = y.reshape(len(down), -1, y.shape[-1])
            return out + (stacked @ down.mT @ (self.scale * up).mT).view(out.shape)

        y = rms_norm(x, w["before"].shape, w["before"], self.eps)
        widths = [self.width * self.heads, self.width * self.key_heads, self.width * self.key_heads]
        q, k, v = _linear(y, w["qkv"]).split(widths, -1)
        q, v = adapted("q", y, q), adapted("v", y, v)
        q, k, v = (part.view(rows, size, -1, self.width).transpose(1, 2) for part in (q, k, v))
        q, k = _turned(q, rope), _turned(k, rope)
        if cache is not None:
            cache[0, :, :, first : first + size], cache[1, :, :, first : first + size] = k, v
            k, v = cache[0, :, :, : first + size], cache[1, :, :, : first + size]
        share = self.heads // self.key_heads  # heads that share a key are one head with several times the queries
        q = q.reshape(rows, self.key_heads, share * size, self.width)
        y = scaled_dot_product_attention(q, k, v, mask.repeat(1, 1, share, 1))
        y = y.view(rows, self.heads, size, self.width).transpose(1, 2).reshape(rows, size, -1)
        x = x + adapted("o", y, _linear(y, w["out"]))
        y = rms_norm(x, w["after"].shape, w["after"], self.eps)
        gate, up = _linear(y, w["gate_up"]).chunk(2, -1)
        y = silu(gate) * adapted("up", y, up)
        return x + adapted("down", y, _linear(y, w["last"]))

    def _rope(self, positions: Tensor) -> tuple[Tensor, Tensor]:
        """Return cosines and sines of (B, S) positions, (B, 1, S, width) each."""
        speeds = 1 / self.base ** (torch.arange(0, self.width, 2) / self.width)
        angles = (positions[:, None, :, None] * speeds).repeat(1, 1, 1, 2)
        return angles.cos(), angles.sin()


def _weights(layer: Any) -> dict[str, Any]:
    """Return a layer's weights by short names, joint ones packed; of those with an adapter, (out, in)."""
    attention, mlp = layer.self_attn, layer.mlp
    return {
        "before": layer.input_layernorm.weight,
        "after": layer.post_attention_layernorm.weight,
        "qkv": _packed(torch.cat([attention.q_proj.weight, attention.k_proj.weight, attention.v_proj.weight])),
        "gate_up": _packed(torch.cat([mlp.gate_proj.weight, mlp.up_proj.weight])),
        "out": _packed(attention.o_proj.weight),
        "last": _packed(mlp.down_proj.weight),
        "q": tuple(attention.q_proj.weight.shape),
        "v": tuple(attention.v_proj.weight.shape),
        "o": tuple(attention.o_proj.weight.shape),
        "up": tuple(mlp.up_proj.weight.shape),
        "down": tuple(mlp.down_proj.weight.shape),
    }


def _turned(x: Tensor, rope: tuple[Tensor, ...]) -> Tensor:
    """Return heads (B, h, S, width) turned by the angles of their positions."""
    left, right = x.chunk(2, -1)
    return x * rope[0] + torch.cat([-right, left], -1) * rope[1]


def _mask(lengths: Tensor, longest: int, steps: int, replies: int) -> Tensor:
    """Return which tokens see which, (B, 1, S, S): prompts are padded on the left, and a token sees itself at least."""
    real = torch.arange(longest) >= longest - lengths[:, None]
    real = pad(real, (0, steps * replies), value=True)
    index = torch.arange(longest + steps * replies)
    reply = torch.where(index < longest, -1, (index - longest) % replies)
    allowed = (index <= index[:, None]) & ((reply == -1) | (reply == reply[:, None]))
    return ((allowed & real[:, None, :]) | torch.eye(len(index), dtype=torch.bool))[:, None]
