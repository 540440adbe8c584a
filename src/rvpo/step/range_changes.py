"""Find ranges that a resumed run declares differently than the saved run. The state is in units of the ranges."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rvpo.core.channels import Range, owner_of
from rvpo.core.scales import KEY


def saved_ranges(
    names: Sequence[str], ranges: Sequence[Range | None], label_ranges: Mapping[str, Range]
) -> dict[str, Any]:
    """Return the declared ranges as plain data for a checkpoint: None for a reward without one.

    Args:
        names: names of the reward functions.
        ranges: ranges of the reward functions, in order.
        label_ranges: ranges of labels of rubrics, by ``{function}/{label}``.
    """
    declared = dict(zip(names, ranges, strict=True)) | dict(label_ranges)
    return {name: None if limits is None else list(limits) for name, limits in declared.items()}


def changed_ranges(state: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """Return one text per channel whose range differed when ``state`` was saved; empty if nothing changed.

    A method that does not read scales has no state in their units, so nothing changes for it.

    Args:
        state: a result of ``state_dict()`` of an Aggregator. Older versions did not save ranges, except for channels
            whose rewards had left [0, 1]. Only these can be compared.
        now: :func:`saved_ranges` of the resumed run.

    Example:
        >>> state = {"remembered": {"scales": {}}, "ranges": {"a": [0, 1], "b": None}}
        >>> changed_ranges(state, {"a": [-3, 3], "b": None})
        ["the range of 'a' was [0, 1] and is [-3, 3] now"]
    """
    scales = state["remembered"].get(KEY)
    if scales is None:
        return []
    if "ranges" in state:
        before = state["ranges"]
        compared = [name for name in dict.fromkeys([*before, *now]) if owner_of(name, before) is not None]
    else:
        before = {name: entry.get("range") for name, entry in scales.items()}
        compared = list(before)
    texts = []
    for name in compared:
        if owner_of(name, now) is None:  # this run does not have the reward
            continue
        was, is_now = _of(name, before), _of(name, now)
        if was != is_now:
            texts.append(f"the range of {name!r} was {_told(was)} and is {_told(is_now)} now")
    return texts


def _of(name: str, declared: Mapping[str, Any]) -> Any:
    """Return the range of a channel: its own, or otherwise that of the rubric whose label it is."""
    owner = owner_of(name, declared)
    return None if owner is None else declared[owner]


def _told(limits: Any) -> str:
    return "not declared" if limits is None else "[{:.12g}, {:.12g}]".format(*limits)
