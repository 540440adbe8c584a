"""Warnings about the scales of rewards. Each is given once.

They are derived from the state before and after a batch, so a resumed run does not repeat them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rvpo.core.channels import State
from rvpo.core.scales import ASSUMED, ENOUGH, KEY, in_short, is_learned

MISFIT = 10.0
"""A range is reported if it is so many times wider or narrower than the rewards."""

HOW = (
    "ranges={{{name!r}: [low, high]}} (reward_ranges in RVPOConfig and in verl, `range` of a recipe's reward, --range "
    "NAME=LOW:HIGH on the command line)"
)


def news_of_scales(before: State, after: State) -> list[str]:
    """Return the warnings about the scales of rewards after a batch.

    * once per reward without a declared range, when it leaves [0, 1]: its scale is learned;
    * once per declared range, when a reward leaves it;
    * once per scale, after ``ENOUGH`` rewards: it is ten times too wide or too narrow for them. A learned scale fits
      the rewards, so without a declared range the scale is checked only while it is [0, 1].

    Args:
        before: state of the run before the batch.
        after: state of the run after the batch.
    """
    old, new = before.get(KEY, {}), after.get(KEY, {})
    said = [_of_channel(name, old.get(name), entry) for name, entry in new.items() if entry is not old.get(name)]
    return [text for text in said if text]


def _of_channel(name: str, old: Mapping[str, Any] | None, new: Mapping[str, Any]) -> str | None:
    how, seen = HOW.format(name=name), in_short((new["low"], new["high"]))
    if old is not None and old.get("range") != new.get("range"):
        old = None
    judged = new["seen"] >= ENOUGH and (old is None or old["seen"] < ENOUGH)
    if "range" not in new:
        if is_learned(new):
            if old is not None and is_learned(old):
                return None
            return (
                f"No range is declared for {name!r}, and its rewards are not all in [0, 1]: its scale is learned from "
                f"what is seen, now {in_short(new.get('frame', ASSUMED))} (seen: {seen}). If you know the range, "
                f"declare it: {how}"
            )
        if judged and 0 < MISFIT * (new["high"] - new["low"]) < 1:
            return (
                f"No range is declared for {name!r}, so its scale is [0, 1], but its first {new['seen']} rewards lie "
                f"in {seen}. If it cannot leave them by much, declare its range: {how}"
            )
        return None
    low, high = new["range"]
    declared, width, spread = f"[{low:.12g}, {high:.12g}]", high - low, new["high"] - new["low"]
    share = new["outside"] / new["seen"]
    if judged and share > 0.5 and spread > MISFIT * width:
        return (
            f"The range {declared} of {name!r} is far too narrow: its first {new['seen']} rewards lie in {seen}, "
            f"{share:.0%} of them outside of the range, where they count as its ends. Correct it: {how}"
        )
    if new["outside"] and not (old and old["outside"]):
        return (
            f"Rewards of {name!r} lie outside of its range {declared} (seen: {seen}). They count as the ends of the "
            f"range; rvpo/{name}/outside logs their share. If the range is wrong, correct it: {how}"
        )
    if judged and 0 < MISFIT * spread < width:
        return (
            f"The range {declared} of {name!r} is far wider than what was seen: its first {new['seen']} rewards lie in "
            f"{seen}. If the rest cannot be reached, declare a narrower one: {how}"
        )
    return None
