"""Which runs belong together: those that differ in nothing but their training seed.

What a command line names is a run, a folder of runs (a sweep), or ``NAME=FOLDER,FOLDER,…``. Runs without a given name
are grouped by all that is known of them: the run's ``recipe.yaml``, where names, folders and seeds are left out; else
the method that the record tells, and the folder's name without a number at its end (``grpo-0``). Groups are named after
their methods; where that is not enough, also after the first thing in which they differ.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rvpo.compare.curves import RunCurves
from rvpo.compare.folders import named_folders, require_once
from rvpo.errors import ConfigError
from rvpo.files import difference
from rvpo.logs import read_channels as channel_tables
from rvpo.logs import read_trl as completions
from rvpo.logs.run import COMPLETIONS, Bounds, Columns
from rvpo.logs.schema import FOLDER

if TYPE_CHECKING:
    from rvpo.compare.run_origins import Origin

TABLES = (".parquet", ".jsonl")
"""Files that make a folder one of logs; others, such as .json, lie in many folders. They can be named themselves."""

_DEPTH = 2  # how far below a sweep's folder runs are looked for: gdpo/0, gdpo/1


@dataclass(frozen=True)
class RunGroups:
    """Runs by method.

    Attributes:
        runs: name -> its runs, in order of their seeds.
        notes: what a reader has to know of how they were found.
    """

    runs: Mapping[str, Sequence[RunCurves]]
    notes: tuple[str, ...]


@dataclass
class _Group:
    name: str | None
    runs: list[RunCurves] = field(default_factory=list)
    origins: list[Origin] = field(default_factory=list)


@dataclass(frozen=True)
class Found:
    """Runs that a command line names: of each the given name, None without one, and the folder or file."""

    paths: Sequence[tuple[str | None, Path]]
    notes: tuple[str, ...]


def find_runs(arguments: Sequence[str | Path]) -> Found:
    """Find the runs that are meant.

    Args:
        arguments: each a run's folder or file, a folder of runs, or ``NAME=FOLDER,FOLDER,…`` of these.

    Raises:
        ConfigError: a run is given twice, or a name is empty.
    """
    found: list[tuple[str | None, Path]] = []
    notes: list[str] = []
    for argument in arguments:
        name, paths = named_folders(argument)
        found += [(name, run) for path in paths for run in _runs(path, notes)]
    require_once([path for _, path in found])
    return Found(found, tuple(notes))


def group_runs(
    found: Found,
    columns: Columns | None = None,
    between: Bounds = (None, None),
    progress: Callable[[int], None] | None = None,
) -> RunGroups:
    """Read runs and group them by method.

    Args:
        found: from :func:`find_runs`.
        columns: names of columns, for tables that others wrote.
        between: first and last step to read; None: the run's own.
        progress: called with the number of runs that were read.

    Raises:
        ConfigError: a path holds no logs, or none of these steps, or two groups would have one name.
        DataError: a file is damaged.
    """
    from rvpo.compare.run_origins import read_training  # reads recipes, whose checks take a while to import

    groups: dict[str, _Group] = {}
    for name, path in found.paths:
        run, origin = read_training(path, columns, between)
        group = groups.setdefault(f"={name}" if name is not None else origin.key, _Group(name))
        group.runs.append(run)
        group.origins.append(origin)
        if progress is not None:
            progress(1)
    names = _names(list(groups.values()))
    differing = (note for name, group in zip(names, groups.values(), strict=True) for note in _differing(name, group))
    ordered = (sorted(group.runs, key=lambda run: (run.seed is None, run.seed or 0)) for group in groups.values())
    return RunGroups(dict(zip(names, ordered, strict=True)), (*found.notes, *differing))


# --- folders -----------------------------------------------------------------------------------------------------


def _runs(path: Path, notes: list[str]) -> list[Path]:
    """Return a run, or those in a folder of runs; what it holds without logs is noted."""
    if not path.is_dir() or _has_record(path):
        return [path]
    below = list(_below(path, _DEPTH))
    if any(entry.suffix in TABLES for entry in path.iterdir()):
        below = [run for run in below if _has_record(run)]  # beside tables, other tables are no runs
    if not below:
        return [path]  # whose reader says what is missing
    if begun := [run.name for run in _begun(path) if run not in below]:
        notes.append(f"without logs, so left out: {', '.join(begun)}")
    return below


def _below(path: Path, depth: int) -> Iterator[Path]:
    """Yield the runs in a folder, in order of their names, numbers as numbers."""
    for entry in sorted((entry for entry in path.iterdir() if entry.is_dir()), key=_natural):
        if _has_record(entry) or any(file.suffix in TABLES for file in entry.iterdir()):
            yield entry
        elif depth > 1 and not (entry / "recipe.yaml").exists():
            yield from _below(entry, depth - 1)


def _begun(path: Path) -> list[Path]:
    return sorted((recipe.parent for recipe in path.glob("*/recipe.yaml")), key=_natural)


def _natural(path: Path) -> list[tuple[int, str]]:
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in re.split(r"(\d+)", path.name)]


def _has_record(path: Path) -> bool:
    """Tell whether a folder is that of one run, which tables alone do not say."""
    return any(channel_tables.record_files(folder) for folder in (path / FOLDER, path)) or any(
        completions.completion_files(folder) for folder in (path / COMPLETIONS, path)
    )


# --- names -------------------------------------------------------------------------------------------------------


def _names(groups: Sequence[_Group]) -> list[str]:
    """Return a name for each group: its own, or its method and what tells it from others of this method.

    Raises:
        ConfigError: two have the same.
    """
    names = [group.name or group.origins[0].method or group.origins[0].stem for group in groups]
    out = list(names)
    for name in {name for name in names if names.count(name) > 1}:
        alike = [i for i, group in enumerate(groups) if names[i] == name and not group.name]
        for i, told in zip(alike, _told_apart([groups[i].origins[0] for i in alike]), strict=True):
            out[i] = f"{name} ({told})"
    for name, group in zip(out, groups, strict=True):
        if out.count(name) > 1:
            raise ConfigError(
                f"two groups of runs are both called {name!r}, one of them {group.runs[0].path}: tell them apart with "
                "NAME=FOLDER,FOLDER"
            )
    return out


def _told_apart(origins: Sequence[Origin]) -> list[str]:
    """Return the settings in which recipes differ, as few as tell them apart; folders' names without recipes."""
    settings = [_flat(origin.settings) for origin in origins if origin.settings is not None]
    if len(settings) < max(2, len(origins)):
        return [origin.stem for origin in origins]
    told: list[tuple[str, ...]] = [()] * len(origins)
    for key in dict.fromkeys(key for flat in settings for key in flat):
        longer = [(*so_far, f"{key}={_short(flat.get(key))}") for so_far, flat in zip(told, settings, strict=True)]
        if len(set(longer)) > len(set(told)):
            told = longer
    return [", ".join(parts) for parts in told]


def _flat(settings: Any, where: str = "") -> dict[str, Any]:
    if not isinstance(settings, Mapping):
        return {where: settings}
    return {k: v for key, item in settings.items() for k, v in _flat(item, f"{where}.{key}".lstrip(".")).items()}


def _differing(name: str, group: _Group) -> Iterator[str]:
    """Note in what the runs of a group differ beside their seeds, which a given name may bring together."""
    first = group.origins[0]
    for run, origin in zip(group.runs[1:], group.origins[1:], strict=True):
        if first.settings is not None and origin.settings is not None:
            if differs := difference(first.settings, origin.settings):
                where, ours, theirs = differs
                told = f"{where} is {_short(ours)} in {group.runs[0].name} and {_short(theirs)} in {run.name}"
                yield f"{name}: runs differ in more than their seeds; {told}."
                return
        elif first.method != origin.method:
            told = f"{group.runs[0].name} is {first.method or 'unknown'} and {run.name} {origin.method or 'unknown'}"
            yield f"{name}: runs differ in their method; {told}."
            return


def _short(value: Any) -> str:
    text = "none" if value is None else str(value)
    return text if len(text) <= 40 else text[:39] + "…"
