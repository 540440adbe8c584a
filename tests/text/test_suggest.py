from __future__ import annotations

import pytest

from rvpo.text.suggest import did_you_mean


@pytest.mark.parametrize(
    ("seen", "allowed", "said"),
    [
        ("kapa", ["margin", "kappa"], " (did you mean 'kappa'?)"),
        ("kapa", {"kappa": 1.0}, " (did you mean 'kappa'?)"),
        ("kapa", (name for name in ("kappa",)), " (did you mean 'kappa'?)"),
        ("zzz", ["kappa"], ""),
        ("kapa", [], ""),
        ("10", [10, None, "100"], " (did you mean '100'?)"),
        (None, ["none"], " (did you mean 'none'?)"),
    ],
)
def test_the_closest_name_is_suggested(seen: object, allowed: list[object], said: str):
    assert did_you_mean(seen, allowed) == said
