"""A tiny decoder (RMSNorm, causal attention, SwiGLU, tied embeddings), R of them at once.

The parameters of a run are one row of ``theta`` (R, D), so that Adam, clipping and storage know nothing of layers, and
every matmul is a batched one over runs. Norms have no gain of their own: the matrix that follows can carry it.
Tensors: R runs, B replies a run, T tokens, V vocabulary, H hidden size.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import prod

import torch
from torch import Tensor
from torch.nn.functional import embedding as look_up
from torch.nn.functional import scaled_dot_product_attention, silu


@dataclass(frozen=True)
class Policy:
    """Shapes of the model; ``theta`` is passed to every method."""

    vocabulary: int
    positions: int
    hidden: int = 32
    heads: int = 2
    inner: int = 64
    layers: int = 1

    @property
    def shapes(self) -> dict[str, tuple[int, int]]:
        """Name and shape of every matrix, in the order in which ``theta`` holds them."""
        h = self.hidden
        shapes = {"embedding": (self.vocabulary, h), "position": (self.positions, h)}
        for layer in range(self.layers):
            shapes |= {f"qkv{layer}": (h, 3 * h), f"out{layer}": (h, h)}
            shapes |= {f"up{layer}": (h, 2 * self.inner), f"down{layer}": (self.inner, h)}
        return shapes

    def init(self, seed: int) -> Tensor:
        """Return the untrained parameters (D,) of one run."""
        generator = torch.Generator().manual_seed(seed)
        return torch.cat(
            [torch.randn(prod(s), generator=generator) * (self.hidden if i < 2 else s[0]) ** -0.5
             for i, s in enumerate(self.shapes.values())]
        )  # fmt: skip

    def log_probs(self, theta: Tensor, prompts: Tensor, replies: Tensor) -> Tensor:
        """Return log-probabilities (R, B, T, V) at every place of replies (R, B, T) after prompts (R, B, 3)."""
        tokens = torch.cat([prompts, replies[..., :-1]], -1)
        logits = self._forward(self._weights(theta), tokens, prompts.shape[-1] - 1)
        return logits.log_softmax(-1)

    @torch.no_grad()
    def sample(self, theta: Tensor, prompts: Tensor, uniforms: Tensor) -> Tensor:
        """Sample replies (R, B, T) by the inverse CDF at uniforms (R, B, T) in [0, 1); past the end they are noise."""
        weights = self._weights(theta)
        runs, size, length = uniforms.shape
        cache = torch.empty(2, self.layers, runs * size, self.heads, self.positions, self.hidden // self.heads)
        tokens, replies, start = prompts, [], 0
        for t in range(length):
            logits = self._forward(weights, tokens, tokens.shape[-1] - 1, cache, start)[:, :, 0]
            start += tokens.shape[-1]
            cdf = logits.softmax(-1).cumsum(-1)
            # Scaled, so that a sum just below 1 cannot make u fall off the end.
            choice = (cdf <= uniforms[..., t, None] * cdf[..., -1:]).sum(-1).clamp(max=self.vocabulary - 1)
            replies.append(choice)
            tokens = choice[..., None]
        return torch.stack(replies, -1)

    def _weights(self, theta: Tensor) -> dict[str, Tensor]:
        parts = theta.split([prod(shape) for shape in self.shapes.values()], 1)
        return {name: part.view(-1, *shape) for (name, shape), part in zip(self.shapes.items(), parts, strict=True)}

    def _forward(
        self, weights: dict[str, Tensor], tokens: Tensor, skip: int, cache: Tensor | None = None, start: int = 0
    ) -> Tensor:
        """Return logits (R, B, T - skip, V) of tokens (R, B, T) that stand at positions from ``start`` on."""
        runs, size, length = tokens.shape
        embedding = weights["embedding"]
        offset = torch.arange(runs)[:, None] * self.vocabulary
        x = look_up(tokens.flatten(1) + offset, embedding.flatten(0, 1)).view(runs, size, length, self.hidden)
        x = (x + weights["position"][:, None, start : start + length]).flatten(1, 2)
        for layer in range(self.layers):
            qkv = torch.bmm(_norm(x), weights[f"qkv{layer}"])
            q, k, v = qkv.view(runs * size, length, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
            if cache is not None:
                here = cache[:, layer, :, :, : start + length]
                here[0, :, :, start:], here[1, :, :, start:] = k, v
                k, v = here
            mixed = scaled_dot_product_attention(q, k, v, is_causal=length > 1)
            x = torch.baddbmm(x, mixed.transpose(1, 2).reshape(x.shape), weights[f"out{layer}"])
            gate, up = torch.bmm(_norm(x), weights[f"up{layer}"]).chunk(2, -1)
            x = torch.baddbmm(x, silu(gate) * up, weights[f"down{layer}"])
        x = x.view(runs, size, length, self.hidden)[:, :, skip:].flatten(1, 2)
        return torch.bmm(_norm(x), embedding.transpose(1, 2)).view(runs, size, length - skip, self.vocabulary)


def _norm(x: Tensor) -> Tensor:
    return x * (x.square().mean(-1, keepdim=True) + 1e-6).rsqrt()
