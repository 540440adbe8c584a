"""The minimum of a convex quadratic function over nonnegative vectors, which LIFT's guard needs in every batch.

::

    min over x >= 0 of  x^T q x / 2 + c^T x       <=>      x >= 0,  y = q x + c >= 0,  x_j y_j = 0 for every j

Every entry is either free, with y_j = 0, or held at x_j = 0. **Block principal pivoting** (Júdice and Pires 1994; Kim
and Park 2011, *SIAM J. Sci. Comput.* 33) guesses which entries are free, solves for them, and exchanges all entries
with the wrong sign at once. This takes only a few guesses for any K. An active-set method exchanges one entry at a
time.

Block exchanges can cycle. If the number of wrong entries has not fallen for three guesses, the **active-set method** of
Lawson and Hanson (*Solving Least Squares Problems*, 1974, chapter 23) goes on from the last guess. The function's value
falls with each of its steps, so it never sees the same set twice. The usual second stage, Murty's single exchanges,
terminates too, but on bad problems only after up to 2^K steps.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from operator import mul

from rvpo.core.lazy import Tensor, torch
from rvpo.errors import RewardError

FEW = 12  # up to this K, plain Python is faster than the calls of tensor operations
PATIENCE = 3  # block exchanges without fewer wrong entries before the active-set method takes over
ROUNDING = 1e-14  # relative: a y_j that is negative by less than this is 0
SINGULAR = 1e-13  # smallest share of an entry's variance that the other free entries may leave
RIDGES = (0.0, 1e-12, 1e-9, 1e-6, 1e-3)  # added to the diagonal as shares of it, until the systems can be solved

_Point = tuple[Sequence[float], Sequence[float]]
_Solver = Callable[[list[int]], _Point]


class _SingularError(Exception):
    """A system of free entries cannot be solved."""


def least_nonnegative(q: Tensor, c: Tensor) -> Tensor:
    """Minimise x^T q x / 2 + c^T x over x >= 0, exactly up to rounding.

    If ``q`` is singular up to rounding (the other free entries leave less than 1e-13 of an entry's variance), the
    result is that for ``q`` plus 1e-12 of its diagonal, or plus more if that is not enough.

    Args:
        q: (K, K) symmetric and positive definite, float64 on the CPU.
        c: (K,) float64 on the CPU.

    Returns:
        (K,) the x, finite and >= 0.

    Raises:
        RewardError: ``q`` is not positive semidefinite, or a number is not finite.
    """
    if len(c) <= FEW:
        return torch.tensor(least_nonnegative_few(q.tolist(), c.tolist()), dtype=c.dtype)

    def solver(ridge: float) -> _Solver:
        return _tensors(q if ridge == 0 else q + ridge * torch.diag(q.diagonal()), c)

    return torch.tensor(_minimised(_Program(c.tolist(), q.diagonal().tolist()), solver), dtype=c.dtype)


def least_nonnegative_few(q: list[list[float]], c: list[float]) -> list[float]:
    """Return the result of :func:`least_nonnegative` for K lists of K numbers and a list of K numbers.

    Raises:
        RewardError: see :func:`least_nonnegative`.
    """

    def solver(ridge: float) -> _Solver:
        if ridge == 0:
            return _scalars(q, c)
        rows = [[x + ridge * x if i == j else x for j, x in enumerate(row)] for i, row in enumerate(q)]
        return _scalars(rows, c)

    return list(_minimised(_Program(c, [row[i] for i, row in enumerate(q)]), solver))


def _minimised(program: _Program, solver: Callable[[float], _Solver]) -> Sequence[float]:
    """Return the x of a program, K numbers.

    Args:
        program: with c and the diagonal of q.
        solver: returns the solver for a ridge.
    """
    if all(value >= 0 for value in program.c):
        return [0.0] * program.size
    if all(map(math.isfinite, program.c)):
        for ridge in RIDGES:
            try:
                return program.solve(solver(ridge))
            except _SingularError:
                continue
    raise RewardError(
        f"the quadratic program of {program.size} channels has no minimum; expected finite numbers and a matrix that "
        "is positive semidefinite"
    )


class _Program:
    """Exchanges entries until all have the right sign. A function that it gets solves the linear systems."""

    def __init__(self, c: list[float], diagonal: list[float]) -> None:
        self.c, self.size = c, len(c)
        self._scale = [math.sqrt(max(value, 0.0)) for value in diagonal]

    def solve(self, solver: _Solver) -> Sequence[float]:
        """Return x, K numbers.

        Args:
            solver: returns x and y, K numbers each, for a list of free entries; raises _SingularError.
        """
        free = [value < 0 for value in self.c]
        fewest, left = self.size + 1, PATIENCE
        while True:
            x, y = solver(_where(free))
            floor = self._floor(x)
            wrong = [i for i in range(self.size) if (x[i] < 0 if free[i] else y[i] < floor[i])]
            if not wrong:
                return x
            if len(wrong) < fewest:
                fewest, left = len(wrong), PATIENCE
            elif left == 0:
                return self._active_set(solver, [max(value, 0.0) for value in x])
            else:
                left -= 1
            for i in wrong:
                free[i] = not free[i]

    def _active_set(self, solver: _Solver, x: Sequence[float]) -> Sequence[float]:
        """Continue from a feasible x. If rounding prevents progress, return the last x."""
        free = [value > 0 for value in x]
        for _ in range(100 + 10 * self.size):
            target, y = solver(_where(free))
            if falling := [i for i in _where(free) if target[i] <= 0]:
                # Move towards the target until an entry would become negative. Hold entries that reach 0.
                way = {i: x[i] / (x[i] - target[i]) if x[i] > 0 else 0.0 for i in falling}
                shortest = min(way.values())
                x = [max(a + shortest * (b - a), 0.0) for a, b in zip(x, target, strict=True)]
                for i in falling:
                    if way[i] <= shortest:
                        x[i], free[i] = 0.0, False
                continue
            x, floor = target, self._floor(target)
            wrong = [i for i in range(self.size) if not free[i] and y[i] < floor[i]]
            if not wrong:
                break
            free[min(wrong, key=lambda i: y[i] / self._scale[i])] = True
        return x

    def _floor(self, x: Sequence[float]) -> list[float]:
        """Return how negative each y may be by rounding: |q_ij| <= scale_i scale_j bounds the terms of its sum."""
        moved = sum(map(mul, self._scale, map(abs, x)))
        return [-ROUNDING * (abs(value) + scale * moved) for value, scale in zip(self.c, self._scale, strict=True)]


def _where(free: list[bool]) -> list[int]:
    return [i for i, is_free in enumerate(free) if is_free]


def _scalars(rows: list[list[float]], bound: list[float]) -> _Solver:
    """Solve systems in plain Python."""

    def solve(free: list[int]) -> _Point:
        # The Cholesky factor and the forward substitution of -c, row by row.
        factor: list[list[float]] = []
        half: list[float] = []
        for i in free:
            row: list[float] = []
            for j, other in zip(free, factor, strict=False):
                row.append((rows[i][j] - sum(map(mul, row, other))) / other[-1])
            left = rows[i][i] - sum(map(mul, row, row))
            if not SINGULAR * rows[i][i] < left < math.inf:
                raise _SingularError
            root = math.sqrt(left)
            half.append((-bound[i] - sum(map(mul, row, half))) / root)
            factor.append([*row, root])
        x = [0.0] * len(bound)
        for n in reversed(range(len(free))):
            x[free[n]] = value = half[n] / factor[n][n]
            for m in range(n):
                half[m] -= factor[n][m] * value
        return x, [sum(map(mul, row, x)) + value for row, value in zip(rows, bound, strict=True)]

    return solve


def _tensors(q: Tensor, c: Tensor) -> _Solver:
    """Solve systems with tensor operations."""
    variance = q.diagonal()

    def solve(free: list[int]) -> _Point:
        index = torch.tensor(free, dtype=torch.int64)
        is_whole = len(free) == len(c)
        factor, failed = torch.linalg.cholesky_ex(q if is_whole else q.index_select(0, index).index_select(1, index))
        left = factor.diagonal().square()
        if int(failed) or not bool(((left > SINGULAR * variance[index]) & (left < math.inf)).all()):
            raise _SingularError
        x = torch.zeros_like(c)
        x[index] = torch.cholesky_solve(-c[index, None], factor)[:, 0]
        return x.tolist(), torch.addmv(c, q, x).tolist()

    return solve
