"""Cells as numbers: what writers make of a number is read, and nothing else is taken for one."""

from __future__ import annotations

import math
from decimal import Decimal

import pytest

from rvpo.logs.tables.cells import ABSENT, number_of, read_cells


@pytest.mark.parametrize(
    ("cell", "number"),
    [
        (1, 1.0),
        (True, 1.0),
        (Decimal("0.25"), 0.25),
        ([0.5], 0.5),
        ("0.5", 0.5),
        (" -1e-3 ", -0.001),
        (".5", 0.5),
        ("True", 1.0),
        ("[0.5]", 0.5),
        ("np.float64(0.5)", 0.5),
        ("tensor(0.5000)", 0.5),
        ("tensor([0.5], device='cuda:0', dtype=torch.float64)", 0.5),
        ("tensor(0.5, grad_fn=<MeanBackward0>)", 0.5),
        ("array([0.5])", 0.5),
        ("Decimal('0.5')", 0.5),
        ("(0.5,)", 0.5),
        ("inf", math.inf),
        ("-Infinity", -math.inf),
        (float("inf"), math.inf),
    ],
)
def test_a_number_however_it_was_written(cell: object, number: float) -> None:
    assert number_of(cell)[0] == number


@pytest.mark.parametrize("cell", [None, "", "NaN", "nan", "null", "None", "N/A", "<NA>", float("nan"), " "])
def test_a_missing_value_however_it_was_written(cell: object) -> None:
    number = number_of(cell)[0]
    assert number is not None
    assert math.isnan(number)


@pytest.mark.parametrize(
    "cell",
    [
        *(
            "good",
            "1_000",
            "0x10",
            "12 apples",
            "1,5",
            "[0.5, 0.5]",
            "50%",
            "1" * 200,
            "((((((1))))))",
            "²",
            "１２ or so",
        ),
        *([1, 2], {"a": 1}, b"1", 10**400),
    ],
)
def test_what_is_no_number_stays_text(cell: object) -> None:
    assert number_of(cell)[0] is None


def test_a_column_counts_what_it_holds() -> None:
    cells = read_cells([1, "0.5", "NaN", None, ABSENT, "bad", False])
    assert cells.numbers.tolist()[:2] == [1.0, 0.5]
    assert (cells.missing, cells.absent, cells.as_text, cells.odd, cells.flags) == (3, 1, 1, 1, 1)
    assert cells.first_odd == (5, "'bad'")


def test_ids_that_float64_would_merge_keep_their_digits() -> None:
    cells = read_cells([2**53, 2**53 + 1, 7])
    assert cells.texts == [str(2**53), str(2**53 + 1), None]
    assert read_cells([2**1100]).odd == 1
