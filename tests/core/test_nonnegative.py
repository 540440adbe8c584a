"""The solver against the active-set method that it replaced, the optimality conditions, and hostile input."""

from __future__ import annotations

import math
import time

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from rvpo.core import nonnegative
from rvpo.core.nonnegative import FEW, least_nonnegative
from rvpo.errors import RewardError

examples = settings(max_examples=80, deadline=None)


def lawson_hanson(q: Tensor, c: Tensor) -> Tensor:
    """Minimise x^T q x / 2 + c^T x over x >= 0 one entry at a time: slow, and the reference."""
    x, free = torch.zeros_like(c), torch.zeros_like(c, dtype=torch.bool)
    tolerance = 1e-12 * (1 + c.abs().max().item()) if c.numel() else 0.0
    for _ in range(10 * c.numel()):
        slope = (q @ x + c).masked_fill(free, torch.inf)
        if not bool((slope < -tolerance).any()):
            break
        free[slope.argmin()] = True
        while True:
            target = torch.zeros_like(x)
            target[free] = torch.linalg.solve(q[free][:, free], -c[free])
            falling = free & (target <= 0)
            if not bool(falling.any()):
                break
            step = (x - target).clamp(min=torch.finfo(x.dtype).tiny)
            way = (x / step).masked_fill(~falling, torch.inf)
            x = x + way.min() * (target - x)
            free &= ~(falling & (way <= way.min()))
            x = x.masked_fill(~free, 0.0)
        x = target
    return x


def randn(seed: int, *shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def correlation(seed: int, size: int, rank: int, ridge: float) -> Tensor:
    """Return u^T u + ridge I for ``size`` unit vectors in ``rank`` dimensions."""
    u = randn(seed, rank, size)
    u = u / u.norm(dim=0)
    return u.T @ u + ridge * torch.eye(size, dtype=torch.float64)


@st.composite
def programs(draw, ridges: list[float], most: int = 30) -> tuple[Tensor, Tensor]:
    """Draw the correlation of K channels, some of them copies or opposites of others, plus a ridge; and a slope."""
    size, seed = draw(st.integers(1, most)), draw(st.integers(0, 2**31))
    u = randn(seed, draw(st.sampled_from([1, 2, size, 4 * size])), size)
    for j in range(size):
        factor = {"free": None, "copy": 1.0, "opposite": -1.0}[
            draw(st.sampled_from(["free"] * 4 + ["copy", "opposite"]))
        ]
        if factor is not None:
            u[:, j] = factor * u[:, draw(st.integers(0, j))]
    u = u / u.norm(dim=0)
    q = u.T @ u
    kind = draw(st.sampled_from(["any", "in range", "lift", "ties"]))
    other = randn(seed + 1, size)
    c = {
        "any": other,
        "in range": q @ other,
        "lift": q @ other.abs() - 0.2 * float(other.abs() @ q @ other.abs()) ** 0.5,
        "ties": other.sign() * (other.abs() > 0.5),
    }[kind]
    return q + draw(st.sampled_from(ridges)) * torch.eye(size, dtype=torch.float64), c


def assert_optimal(q: Tensor, c: Tensor, x: Tensor) -> None:
    """Within the rounding of numbers as large as x."""
    y = q @ x + c
    size = float(x.abs().sum()) + float(c.abs().max())
    assert x.isfinite().all()
    assert (x >= 0).all()
    assert (y >= -1e-12 * size).all()
    assert (y[x > 0].abs() <= 1e-12 * size).all()


@examples
@given(programs([0.02, 0.5]))
def test_it_is_lawson_and_hanson(program: tuple[Tensor, Tensor]):
    q, c = program
    x = least_nonnegative(q, c)
    assert_optimal(q, c, x)
    torch.testing.assert_close(x, lawson_hanson(q, c), rtol=1e-10, atol=1e-10)


@examples
@given(programs([1e-4, 1e-6, 1e-8]))
def test_ill_conditioned_programs_are_solved(program: tuple[Tensor, Tensor]):
    q, c = program
    x, slow = least_nonnegative(q, c), lawson_hanson(q, c)
    assert_optimal(q, c, x)

    def value(z: Tensor) -> float:
        return float(z @ q @ z / 2 + c @ z)

    # Its terms are as large as the square of x.
    assert value(x) <= value(slow) + 1e-14 * float(x.abs().sum()) ** 2 + 1e-12


@examples
@given(programs([0.02], most=FEW))
def test_both_ways_of_solving_agree(program: tuple[Tensor, Tensor]):
    q, c = program
    with pytest.MonkeyPatch.context() as patch:
        want = least_nonnegative(q, c)
        patch.setattr(nonnegative, "FEW", 0)
        torch.testing.assert_close(least_nonnegative(q, c), want, rtol=1e-11, atol=1e-11)


@examples
@given(programs([0.02, 1e-6]))
def test_the_active_set_method_finishes_any_program(program: tuple[Tensor, Tensor]):
    """It takes over where block exchanges cycle, which is rare; here it takes over at once."""
    q, c = program
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(nonnegative, "PATIENCE", 0)
        assert_optimal(q, c, least_nonnegative(q, c))


@examples
@given(programs([0.0]))
def test_a_singular_matrix_gives_finite_numbers(program: tuple[Tensor, Tensor]):
    x = least_nonnegative(*program)
    assert x.isfinite().all()
    assert (x >= 0).all()


@examples
@given(programs([0.02]), st.integers(0, 2**31))
def test_units_do_not_matter(program: tuple[Tensor, Tensor], seed: int):
    """x is in units of 1 / scale. Powers of 2 change no digit, so not even which entries are free may change."""
    q, c = program
    scale = torch.exp2((10 * randn(seed, len(c))).round())
    x = least_nonnegative(q * scale * scale[:, None], c * scale)
    torch.testing.assert_close(x * scale, least_nonnegative(q, c), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("size", [40, 120])
@pytest.mark.parametrize(("rank", "ridge"), [(400, 0.0), (12, 0.02)])
def test_many_channels(size: int, rank: int, ridge: float):
    q = correlation(size, size, rank, ridge)
    for seed in range(3):
        c = randn(seed, size)
        x = least_nonnegative(q, c)
        assert_optimal(q, c, x)
        torch.testing.assert_close(x, lawson_hanson(q, c), rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("size", [4, FEW, FEW + 1, 32, 60])
def test_programs_that_are_exponential_for_single_exchanges(size: int):
    """Fathi 1979: Murty's rule visits 2^K sets. Block exchanges cycle here, too."""
    lower = torch.full((size, size), 2.0, dtype=torch.float64).tril(-1) + torch.eye(size, dtype=torch.float64)
    started = time.perf_counter()
    for q in (lower @ lower.T, lower.T @ lower):
        for c in (-torch.ones(size), -(2.0 ** torch.arange(size)), -(2.0 ** torch.arange(size, 0, -1))):
            x = least_nonnegative(q, c.double())
            assert x.isfinite().all()
            assert (x >= 0).all()
            if size < 20:  # beyond, the matrix is too ill-conditioned
                assert_optimal(q, c.double(), x)
    assert time.perf_counter() - started < 20


def test_by_hand():
    q = torch.tensor([[2.0, 1.0], [1.0, 2.0]], dtype=torch.float64)
    for c, want in (([-1, -1], [1 / 3, 1 / 3]), ([-2, 1], [1, 0]), ([-1, 1], [0.5, 0]), ([1, 0], [0, 0])):
        got = least_nonnegative(q, torch.tensor(c, dtype=torch.float64))
        assert got.tolist() == pytest.approx(want, abs=1e-15)
        assert got.dtype == torch.float64


def test_nothing_to_solve():
    eye = torch.eye(3, dtype=torch.float64)
    assert least_nonnegative(torch.zeros(0, 0), torch.zeros(0)).shape == (0,)
    assert least_nonnegative(eye[:1, :1], torch.tensor([-2.0], dtype=torch.float64)).tolist() == [2.0]
    assert least_nonnegative(eye, torch.zeros(3, dtype=torch.float64)).tolist() == [0, 0, 0]
    # A channel that has no variance and no slope.
    q = torch.diag(torch.tensor([1.0, 0.0, 1.0], dtype=torch.float64))
    assert least_nonnegative(q, torch.tensor([-1.0, 0.0, 1.0], dtype=torch.float64)).tolist() == [1, 0, 0]


@pytest.mark.parametrize("size", [2, FEW + 1])
def test_identical_channels(size: int):
    """With a ridge they share alike; without one, the sum is what is known."""
    ones, c = torch.ones(size, size, dtype=torch.float64), -torch.ones(size, dtype=torch.float64)
    shared = least_nonnegative(ones + 1e-6 * torch.eye(size), c)
    torch.testing.assert_close(shared, torch.full_like(c, 1 / size), rtol=1e-5, atol=0)
    assert float(least_nonnegative(ones, c).sum()) == pytest.approx(1.0, abs=1e-6)


@pytest.mark.parametrize("size", [2, FEW + 1])
@pytest.mark.parametrize("where", ["c", "diagonal", "beside", "indefinite", "inf"])
def test_what_cannot_be_solved_is_refused(size: int, where: str):
    q, c = torch.eye(size, dtype=torch.float64), -torch.ones(size, dtype=torch.float64)
    if where == "c":
        c[1] = math.nan
    elif where == "inf":
        c[1] = -math.inf
    elif where == "diagonal":
        q[1, 1] = math.nan
    elif where == "beside":
        q[0, 1] = q[1, 0] = math.nan
    else:
        q[0, 1] = q[1, 0] = -3.0
    with pytest.raises(RewardError, match="has no minimum; expected finite numbers"):
        least_nonnegative(q, c)
