from __future__ import annotations

import math
from types import SimpleNamespace

import pytest
import torch
from rig.sampling import Request, filtered, step

EOS = 0


class Counting(torch.nn.Module):
    """Logits (B, T, 5) that depend on the tokens so far only, as a causal model's do."""

    def forward(self, ids: torch.Tensor, use_cache: bool) -> SimpleNamespace:
        seen = torch.nn.functional.one_hot(ids, 5).double().cumsum(1)
        return SimpleNamespace(logits=seen * torch.tensor([-1.0, 0.5, 0.2, -0.3, 0.1], dtype=torch.float64))


def generate(requests: list[Request]) -> list[Request]:
    while under_way := [request for request in requests if not request.stopped]:
        step(Counting(), under_way, EOS)
    return requests


def test_filters_keep_what_they_should_and_renormalise():
    probabilities = [0.5, 0.3, 0.15, 0.05]
    logits = torch.tensor([math.log(p) for p in probabilities], dtype=torch.float64)

    def kept(temperature: float = 1.0, top_p: float = 1.0, top_k: int = -1) -> list[float]:
        return filtered(logits, temperature, top_p, top_k).exp().tolist()

    assert kept() == pytest.approx(probabilities)
    squares = [p**2 for p in probabilities]
    assert kept(temperature=0.5) == pytest.approx([p / sum(squares) for p in squares])
    assert kept(top_k=2) == pytest.approx([0.5 / 0.8, 0.3 / 0.8, 0, 0])
    assert kept(top_p=0.6) == pytest.approx([0.5 / 0.8, 0.3 / 0.8, 0, 0])  # 0.5 alone is less than 0.6
    assert kept(top_p=0.4) == [1, 0, 0, 0]
    assert kept(temperature=0) == [1, 0, 0, 0]


def test_draws_follow_the_distribution():
    requests = [Request([1], 1, seed) for seed in range(4000)]
    step(Counting(), requests, EOS)
    logits = torch.tensor([0.0, 0.5, 0.0, 0.0, 0.0], dtype=torch.float64)
    for token, p in enumerate(logits.softmax(-1).tolist()):
        share = sum(request.tokens == [token] for request in requests) / len(requests)
        assert abs(share - p) < 4 * math.sqrt(p * (1 - p) / len(requests))


def test_a_completion_does_not_depend_on_what_runs_beside_it():
    alone = generate([Request([1, 2], 9, 7)])[0]
    others = [Request([3] * n, 9, n) for n in range(1, 6)]
    beside = generate([others[0], Request([1, 2], 9, 7), *others[1:]])[1]
    assert (beside.tokens, beside.log_probs) == (alone.tokens, alone.log_probs)


def test_a_resumed_completion_goes_on_as_if_it_had_not_been_aborted():
    whole = generate([Request([1, 2], 9, 7)])[0]
    assert len(whole.tokens) > 4
    begun = Request([1, 2], 9, 7)
    for _ in range(3):
        step(Counting(), [begun], EOS)
    rest = generate([Request([1, 2, *begun.tokens], 6, 7)])[0]
    assert begun.tokens + rest.tokens == whole.tokens
    assert begun.log_probs + rest.log_probs == whole.log_probs


def test_stops_at_the_end_token_and_at_the_limit():
    requests = generate([Request([1], 6, seed) for seed in range(50)])
    for request in requests:
        assert EOS not in request.tokens[:-1]
        assert request.tokens[-1] == EOS or len(request.tokens) == 6
    assert len({request.tokens[-1] == EOS for request in requests}) == 2, "both happen"


def test_reads_verls_parameters_and_refuses_others():
    verls = {"temperature": 0.7, "top_p": 0.9, "top_k": 3, "repetition_penalty": 1.0, "logprobs": True}
    request = Request.of([1, 2], {**verls, "max_tokens": 5, "seed": 4}, 12)
    assert (request.temperature, request.top_p, request.top_k) == (0.7, 0.9, 3)
    assert (request.max_tokens, request.seed) == (5, 4)
    assert Request.of([1, 2], verls, 12).max_tokens == 12
    with pytest.raises(ValueError, match="repetition_penalty"):
        Request.of([1], {**verls, "repetition_penalty": 1.2}, 12)
