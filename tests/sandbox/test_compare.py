"""Outputs are compared as LiveCodeBench does, or closely, as APPS does."""

from __future__ import annotations

import pytest

from rvpo.sandbox.compare import difference_of


@pytest.mark.parametrize(
    ("output", "expected", "strict", "close"),
    [
        ("2\n", "2", True, True),
        ("  2  \n\n", "\n2", True, True),
        ("1 2\n3 ", "1 2\n3", True, True),
        ("1.0", "1", True, True),
        ("1e2 3", "100 3.00", True, True),
        ("YES", "yes", False, False),
        ("1 2", "1\n2", False, False),
        ("1\n\n2", "1\n2", False, True),
        ("0.333333", "0.3333333", False, True),
        ("0.33", "0.34", False, False),
        ("5", "inf", False, False),
        ("5", "-Infinity", False, False),
        ("5", "1e400", False, False),
        ("inf", "Infinity", True, True),
        ("a 0.333333", "a 0.3333333", False, True),
        ("50000000000000000", "50000000000000001", False, False),
        ("nan", "nan", True, True),
        ("nan", "1", False, False),
        ("inf", "1e400", False, False),
        ("sNaN", "1", False, False),
        ("1_0", "10", True, True),
        ("", "", True, True),
        ("1" * 100_000, "1" * 100_001, False, False),
        ("1e999999999", "2e999999999", False, False),
        ("1e999999999999999999999", "1", False, False),
    ],
)
def test_outputs(output: str, expected: str, strict: bool, close: bool):
    assert (difference_of(output, expected) is None) is strict
    assert (difference_of(output, expected, close=True) is None) is close
