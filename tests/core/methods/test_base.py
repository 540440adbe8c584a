"""A method of somebody's own: what it returns is checked, and its defaults are those of a function."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import pytest
import torch

import rvpo
from rvpo.errors import RewardError

R = torch.tensor([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0], [0.0, 0.0]])


@dataclass(frozen=True)
class Returns(rvpo.Method):
    """A method that returns what its function makes of the batch."""

    make: Callable[[rvpo.Batch], object] = lambda batch: None

    def __call__(self, batch: rvpo.Batch, state: object) -> rvpo.Outcome:
        return self.make(batch)  # type: ignore[return-value]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda batch: batch.z.sum(-1), r"returned a Tensor; expected a rvpo\.Outcome"),
        (lambda batch: None, "returned a NoneType"),
        (lambda batch: rvpo.Outcome(batch.z.sum(), batch.p), r"shape \(\) as aggregated; expected shape \(4,\)"),
        (lambda batch: rvpo.Outcome(batch.z, batch.p), r"shape \(4, 2\) as aggregated"),
        (lambda batch: rvpo.Outcome([0.0] * 4, batch.p), "a list as aggregated"),
        (lambda batch: rvpo.Outcome(batch.z[:, 0], batch.p[0]), r"shape \(2,\) as responsibilities"),
        (lambda batch: rvpo.Outcome(batch.z[:, 0], batch.p, batch.present), r"shape \(4, 2\) as takes_part"),
        (lambda batch: rvpo.Outcome(batch.z.argmax(-1), batch.p), "aggregated of torch.int64; expected a floating"),
        (
            lambda batch: rvpo.Outcome(batch.z[:, 0], batch.p, batch.p.sum(-1)),
            "takes_part of torch.*; expected torch.bool",
        ),
        (lambda batch: rvpo.Outcome(batch.z[:, 0] / 0, batch.p), "returned inf for row 0; expected finite"),
        (lambda batch: rvpo.Outcome(batch.z[:, 0] * torch.nan, batch.p), "returned nan for row 0"),
    ],
)
def test_what_a_method_returns_is_checked(make: Callable[[rvpo.Batch], object], message: str):
    with pytest.raises(RewardError, match=message):
        rvpo.advantages(R, num_generations=4, method=Returns(make=make))
    with pytest.raises(RewardError, match=message):  # as the score of another method
        rvpo.advantages(R, num_generations=2, method=rvpo.RiskPO(score=Returns(make=make), bundle_size=2), state={})


def test_a_row_that_takes_no_part_may_hold_anything():
    def make(batch: rvpo.Batch) -> rvpo.Outcome:
        takes_part = torch.tensor([True, True, True, False])
        return rvpo.Outcome(torch.tensor([1.0, 2.0, 3.0, torch.nan]), batch.p, takes_part)

    found = rvpo.advantages(R, num_generations=4, method=Returns(make=make)).advantages
    assert found[3] == 0
    assert found[:3].isfinite().all()


def test_one_formula_is_one_method_as_function_and_as_class():
    def lowest(z, p):  # type: ignore[no-untyped-def]
        return z.masked_fill(p == 0, torch.inf).amin(-1).masked_fill((p == 0).all(-1), 0.0)

    dead = torch.cat([R, torch.ones(4, 1)], 1)
    written = Returns(make=lambda batch: rvpo.Outcome(lowest(batch.z, batch.p), batch.p))
    a, b = (rvpo.advantages(dead, num_generations=4, method=method).advantages for method in (lowest, written))
    assert torch.equal(a, b)
    kept = Returns(make=written.make, dead_channels="keep")
    assert not torch.equal(a, rvpo.advantages(dead, num_generations=4, method=kept).advantages)
