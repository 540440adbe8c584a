"""Sampling for the rollout server: any number of requests together, each repeatable whatever runs beside it.

No KV cache: the model is tiny, the whole sequence costs less than the bookkeeping would, and no cache can outlive the
weights it was computed with. Sequences are padded on the right, where a causal model cannot see the padding.

The random number of a token is a function of (seed of the request, position), and the model runs in float64, so that
the rounding of a differently composed batch does not reach a sample. A request that was aborted and resumed therefore
goes on as if it had not been, but for the new weights.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor


@dataclass
class Request:
    """One completion under way: ``prompt`` may already hold tokens of an aborted attempt."""

    prompt: list[int]
    max_tokens: int
    seed: int
    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = -1
    tokens: list[int] = field(default_factory=list)
    log_probs: list[float] = field(default_factory=list)
    stopped: str | None = None  # "completed" or "aborted", as verl's servers say
    pictures: dict[str, Tensor] = field(default_factory=dict)  # what the model's processor makes of them

    @classmethod
    def of(cls, prompt: list[int], params: dict[str, Any], max_tokens: int) -> Request:
        """Read verl's ``sampling_params``; refuses those that would be ignored."""
        known = {"temperature", "top_p", "top_k", "max_tokens", "max_new_tokens", "seed", "logprobs"}
        ignored = {k: v for k, v in params.items() if k not in known and (k, v) != ("repetition_penalty", 1.0)}
        if ignored:
            raise ValueError(f"sampling parameters {ignored} are not served by the rig, allowed are {sorted(known)}")
        limit = params.get("max_tokens", params.get("max_new_tokens", max_tokens))
        seed = params.get("seed", int.from_bytes(hashlib.sha256(str(prompt).encode()).digest()[:7]))
        return cls(list(prompt), limit, seed, params["temperature"], params["top_p"], params["top_k"])


@torch.inference_mode()
def step(model: torch.nn.Module, requests: list[Request], eos: int) -> None:
    """Add one token to each request: the model's logits, then temperature, top-k, top-p and a seeded draw."""
    rows = [r.prompt + r.tokens for r in requests]
    width = max(map(len, rows))
    ids = torch.tensor([row + [eos] * (width - len(row)) for row in rows])
    of_pictures = picture_tokens(model)
    logits = model(ids, use_cache=False, **_pictures(requests, ids, of_pictures)).logits
    for request, row, each in zip(requests, rows, logits, strict=True):
        log_probs = filtered(each[len(row) - 1], request.temperature, request.top_p, request.top_k)
        noise = torch.rand(len(log_probs), generator=_generator(request.seed, len(row)), dtype=log_probs.dtype)
        drawn = log_probs - (-noise.log()).log()  # Gumbel's trick: a draw from softmax(log_probs)
        token = int(drawn.index_fill(0, of_pictures, -torch.inf).argmax())
        request.tokens.append(token)
        request.log_probs.append(float(log_probs[token]))
        if token == eos or len(request.tokens) >= request.max_tokens:
            request.stopped = "completed"


def picture_tokens(model: torch.nn.Module) -> Tensor:
    """Return the tokens that stand for pictures and videos. In a completion, they would need a picture of their own."""
    config = getattr(model, "config", None)
    found = [getattr(config, name, None) for name in ("image_token_id", "video_token_id")]
    return torch.tensor([token for token in found if token is not None], dtype=torch.int64)


def _pictures(requests: list[Request], ids: Tensor, of_pictures: Tensor) -> dict[str, Tensor]:
    """Return what a vision-language model takes besides the tokens; nothing without pictures."""
    having = [request.pictures for request in requests if request.pictures]
    if not having:
        return {}
    joined = {name: torch.cat([each[name] for each in having]) for name in ("pixel_values", "image_grid_thw")}
    return joined | {"mm_token_type_ids": torch.isin(ids, of_pictures).long()}


def filtered(logits: Tensor, temperature: float, top_p: float, top_k: int) -> Tensor:
    """Log-probabilities (V,) that are sampled from, of logits (V,): -inf outside top-k and top-p.

    A temperature of 0 is greedy: 0 for the most likely token.
    """
    if temperature == 0:
        return torch.full_like(logits, -torch.inf).index_fill(0, logits.argmax(), 0.0)
    logits = logits / temperature
    if 0 < top_k < len(logits):
        logits = logits.masked_fill(logits < logits.topk(top_k).values[-1], -torch.inf)
    if top_p < 1:
        ordered, order = logits.softmax(-1).sort(descending=True)
        beyond = ordered.cumsum(-1) - ordered >= top_p  # the first is always kept
        logits = logits.index_fill(0, order[beyond], -torch.inf)
    return logits.log_softmax(-1)


def _generator(seed: int, position: int) -> torch.Generator:
    digest = hashlib.sha256(f"{seed},{position}".encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:7]))
