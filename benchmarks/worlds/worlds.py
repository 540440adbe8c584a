"""All worlds by name."""

from __future__ import annotations

from courses import course_worlds
from frontiers import frontier_worlds
from given import given_worlds
from sizes import size_worlds
from world import World

from judges import judge_worlds

SPLITS = ("given", "design", "confirm")

WORLDS: dict[str, World] = {
    world.name: world
    for world in [*given_worlds(), *frontier_worlds(), *judge_worlds(), *course_worlds(), *size_worlds()]
}
"""The 17 given ones first."""


def named(names: list[str]) -> list[str]:
    """Return the names of worlds; a split stands for all of its worlds.

    >>> named(["plain", "given"])[:2]
    ['plain', 'exclusive3']
    """
    found = []
    for name in names:
        if name not in WORLDS and name not in SPLITS:
            raise ValueError(f"unknown world {name!r}; expected a name such as 'plain', or one of {', '.join(SPLITS)}")
        found += [name] if name in WORLDS else [world.name for world in WORLDS.values() if world.split == name]
    return list(dict.fromkeys(found))
