"""Group runs that differ only in their training seed.

An argument of a command line is a run, a folder of runs (a sweep), or ``NAME=FOLDER,FOLDER,…``. Runs without a given
name are grouped by their ``recipe.yaml``, without names, folders and seeds. Runs without a recipe are grouped by the
method in their record and the folder's name without a number at its end (``grpo-0``). Groups are named after their
methods. If two groups would have the same name, the settings in which they differ are added.
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
"""Suffixes that mark a folder as logs. Files such as .json are in many folders. They can still be passed as files."""

_DEPTH = 2  # levels below a sweep's folder that are searched for runs: gdpo/0, gdpo/1


@dataclass(frozen=True)
class RunGroups:
    """Runs by method.

    Attributes:
        runs: name of the group -> its runs, in order of their seeds.
        notes: sentences on how the runs were found.
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
    """Runs that a command line names.

    Attributes:
        paths: for each run, the given name (None without one) and the folder or file.
        notes: sentences on folders that were left out.
    """

    paths: Sequence[tuple[str | None, Path]]
    notes: tuple[str, ...]


def find_runs(arguments: Sequence[str | Path]) -> Found:
    """Find the runs that a command line names.

    Args:
        arguments: each is the folder or file of a run, a folder of runs, or ``NAME=FOLDER,FOLDER,…`` of these.

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
        found: runs from :func:`find_runs`.
        columns: names of columns, for tables of other programs.
        between: first and last step to read; None is the run's own first or last step.
        progress: function that is called with the number of runs that were read.

    Raises:
        ConfigError: a path has no logs, or none of these steps, or two groups would have the same name.
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
    """Return the run of a path, or all runs in a folder of runs. Runs without logs are added to the notes."""
    if not path.is_dir() or _has_record(path):
        return [path]
    below = list(_below(path, _DEPTH))
    if any(entry.suffix in TABLES for entry in path.iterdir()):
        below = [run for run in below if _has_record(run)]  # next to tables, a folder with only tables is not a run
    if not below:
        return [path]  # the reader of logs then reports what is missing
    if begun := [run.name for run in _begun(path) if run not in below]:
        notes.append(f"left out, because they have no logs: {', '.join(begun)}")
    return below


def _below(path: Path, depth: int) -> Iterator[Path]:
    """Yield the runs in a folder, in order of their names. Numbers in names are sorted by value."""
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
    """Return whether a folder belongs to one run. Tables alone do not show this."""
    return any(channel_tables.record_files(folder) for folder in (path / FOLDER, path)) or any(
        completions.completion_files(folder) for folder in (path / COMPLETIONS, path)
    )


# --- names -------------------------------------------------------------------------------------------------------


def _names(groups: Sequence[_Group]) -> list[str]:
    """Return one name per group: the given one, or its method and the settings in which it differs from others.

    Raises:
        ConfigError: two groups have the same name.
    """
    names = [group.name or group.origins[0].method or group.origins[0].stem for group in groups]
    out = list(names)
    for name in {name for name in names if names.count(name) > 1}:
        alike = [i for i, group in enumerate(groups) if names[i] == name and not group.name]
        for i, settings in zip(alike, _distinguishing([groups[i].origins[0] for i in alike]), strict=True):
            out[i] = f"{name} ({settings})"
    for name, group in zip(out, groups, strict=True):
        if out.count(name) > 1:
            raise ConfigError(
                f"two groups of runs are both called {name!r}, one of them {group.runs[0].path}; expected different "
                "names. Name them with NAME=FOLDER,FOLDER"
            )
    return out


def _distinguishing(origins: Sequence[Origin]) -> list[str]:
    """Return one text per origin with the few settings that distinguish it; without recipes, the folders' names."""
    settings = [_flat(origin.settings) for origin in origins if origin.settings is not None]
    if len(settings) < max(2, len(origins)):
        return [origin.stem for origin in origins]
    chosen: list[tuple[str, ...]] = [()] * len(origins)
    for key in dict.fromkeys(key for flat in settings for key in flat):
        longer = [(*so_far, f"{key}={_short(flat.get(key))}") for so_far, flat in zip(chosen, settings, strict=True)]
        if len(set(longer)) > len(set(chosen)):
            chosen = longer
    return [", ".join(parts) for parts in chosen]


def _flat(settings: Any, where: str = "") -> dict[str, Any]:
    if not isinstance(settings, Mapping):
        return {where: settings}
    return {k: v for key, item in settings.items() for k, v in _flat(item, f"{where}.{key}".lstrip(".")).items()}


def _differing(name: str, group: _Group) -> Iterator[str]:
    """Yield a note if the runs of a group differ in more than their seeds. A given name may join such runs."""
    first = group.origins[0]
    for run, origin in zip(group.runs[1:], group.origins[1:], strict=True):
        if first.settings is not None and origin.settings is not None:
            if differs := difference(first.settings, origin.settings):
                where, ours, theirs = differs
                which = f"{where} is {_short(ours)} in {group.runs[0].name} and {_short(theirs)} in {run.name}"
                yield f"{name}: runs differ in more than their seeds; {which}."
                return
        elif first.method != origin.method:
            ours, theirs = (method or "unknown" for method in (first.method, origin.method))
            which = f"it is {ours} in {group.runs[0].name} and {theirs} in {run.name}"
            yield f"{name}: runs differ in their method; {which}."
            return


def _short(value: Any) -> str:
    text = "none" if value is None else str(value)
    return text if len(text) <= 40 else text[:39] + "…"
