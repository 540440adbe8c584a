"""JSON of a stranger, nested, long or with numbers of hundreds of digits, is read or refused in a moment."""

from __future__ import annotations

import pytest

from rvpo.cli.eval import _mapping
from rvpo.core.checks import plain_value
from rvpo.data.generic import strict_json
from rvpo.errors import ConfigError, DataError
from rvpo.rewards.rubric import Rubric

DIGITS = "9" * 400
KEYS = 60_000


def test_a_key_that_occurs_twice_among_many_is_found_at_once():
    pairs = ",".join(f'"k{i}": {i}' for i in range(KEYS))
    assert len(strict_json(f"{{{pairs}}}")) == KEYS
    with pytest.raises(ValueError, match=f"the key 'k{KEYS - 1}' occurs twice"):
        strict_json(f'{{{pairs}, "k{KEYS - 1}": 0}}')


@pytest.mark.parametrize("points", [DIGITS, f"-{DIGITS}", "9" * 5000, "[" * 100_000, '{"a":' * 100_000, "1e400", "NaN"])
def test_a_rubric_is_refused(points: str):
    with pytest.raises(DataError):
        Rubric.from_json(f'{{"criteria": [{{"id": "a", "text": "b", "points": {points}}}]}}')


@pytest.mark.parametrize("text", [DIGITS, f"-{DIGITS}", f"{{a:{DIGITS}}}", f"[1,{DIGITS}]"])
def test_an_option_of_a_method_is_refused(text: str):
    with pytest.raises(ConfigError, match="expected a number below"):
        plain_value(text)


@pytest.mark.parametrize("text", ["[" * 100_000, '{"a":' * 100_000, "9" * 5000, "{"])
def test_an_option_of_the_command_line_is_refused(text: str):
    with pytest.raises(ConfigError, match="is not JSON"):
        _mapping(text)
