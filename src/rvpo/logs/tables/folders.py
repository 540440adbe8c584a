"""Select the files of a folder that are parts of one table, in order; and read the step from a file's path."""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from itertools import islice
from pathlib import Path

from rvpo.errors import ConfigError
from rvpo.logs.tables.arrow_files import arrow_part
from rvpo.logs.tables.files import ARROW, KNOWN, in_order, stem_of, suffix_of
from rvpo.logs.tables.flatten import Flattening
from rvpo.logs.tables.formats import DATABASES, cannot_be_read, records_of
from rvpo.logs.tables.history import TEXTS
from rvpo.logs.tables.layouts import Layout

BESIDE = re.compile(
    r"(^|[._-])(metadata|config|args|summary|state|info|readme|tokenizer|special_tokens_map|vocab|index|tokens)\.json$",
    re.IGNORECASE,
)
"""Names of files next to logs that are not logs."""
ROLLOUTS = ("rollouts", "completions")
"""Folders inside the folder of a run that contain its rollouts, if they exist."""
PART = re.compile(
    r"\d+|(step|global_step|version|iter|iteration|epoch|rank|shard|part|worker|node|gpu)s?[_-]?\d*"
    r"|train|training|eval|val|validation|test|all|effective|media|table|tables|data|logs|rollouts|completions",
    re.IGNORECASE,
)
"""Names of folders that are parts of one run."""
MOST_FILES = 100_000
EVALUATION = re.compile(r"(^|[_.-])(val|eval|valid|validation|test|evaluation)([_.-]|\d|$)", re.IGNORECASE)
CHECKPOINT = re.compile(r"(^|[_-])(checkpoint|ckpt|global_step|tokenizer)([_-]|$)", re.IGNORECASE)
STEP = re.compile(r"(?:^|[_.-]|[a-z])(?:step|rollout|iter|iteration)s?[_-]?(\d{1,15})(?:[_.-]|$)", re.IGNORECASE)
WANDB_TABLE = re.compile(r"_(\d{1,15})_[0-9a-f]{8,}$")
AREAL = {"task_id", "tail_version"}
LOOKED_AT = 20  # number of rows that are read to find the columns of a file
ALIKE = 0.5  # share of the columns of the smaller of two files


def files_in(folder: Path) -> list[Path]:
    """Return the files of a run's folder that may contain rows, with 2 before 10.

    Files directly in the folder have priority, then files in folders that are parts of one run, such as one folder per
    step. If no file can be read, one of them is returned, so that the error can say what it is.

    Raises:
        ConfigError: the folder contains the folders of several runs, or too many files.
    """
    for name in ROLLOUTS:
        if (folder / name).is_dir() and (found := files_in(folder / name)):
            return found
    entries = [entry for entry in _entries(folder) if not entry.name.startswith((".", "_"))]
    files = [entry for entry in entries if entry.is_file()]
    found = [path for path in files if suffix_of(path) in (*KNOWN, *DATABASES) and not BESIDE.search(path.name)]
    if found:
        return in_order(found)
    inside = {
        entry: found
        for entry in entries
        if entry.is_dir()
        and not entry.is_symlink()
        and not CHECKPOINT.search(entry.name)
        and (found := files_in(entry))
    }
    if len([entry for entry in inside if not PART.fullmatch(entry.name)]) > 1:
        raise ConfigError(
            f"{folder} contains the folders of several runs ({', '.join(sorted(entry.name for entry in inside)[:4])}); "
            "expected one run. Pass one of them, or use rvpo compare or rvpo report, which take several runs"
        )
    found = in_order([path for paths in inside.values() for path in paths])
    readable = [path for path in found if not cannot_be_read(path)]
    return readable or found[:1] or [path for path in files if cannot_be_read(path)][:1]


def _entries(folder: Path) -> list[Path]:
    entries = list(islice(folder.iterdir(), MOST_FILES + 1))
    if len(entries) > MOST_FILES:
        raise ConfigError(f"{folder} contains more than {MOST_FILES} files; expected the folder of one run. Pass it")
    return entries


def parts_of_one(paths: Sequence[Path], notes: list[str]) -> list[Path]:
    """Return the files that belong together; add a note about the others.

    Left out are evaluations next to trainings, the second copy of prime-rl's traces, and files with different columns.
    """
    kept = _without(paths, _evaluations(paths), "evaluations", notes)
    kept = _without(kept, _copies(kept), "rollouts that were discarded, or that are also in effective/", notes)
    if len(kept) < 2:
        return kept
    names = {path: _names(path) for path in kept}
    main = max(kept, key=lambda path: (sum(map(bool, map(TEXTS.search, names[path]))) > 0, path.stat().st_size))
    other = [path for path in kept if not _alike(names[path], names[main])]
    return _without(kept, other, f"other columns than {main.name}", notes)


def step_of(path: Path, names: Collection[str]) -> int | None:
    """Return the step in the name of a file or of its folder; None without a step.

    Args:
        path: path of the file.
        names: names of its columns.
    """
    stem = stem_of(path)
    if AREAL.issubset(names) and path.parent.name.isdecimal():  # one folder per version of the policy, a file per task
        return int(path.parent.name[:15])
    if match := WANDB_TABLE.search(stem) if path.name.endswith(".table.json") else STEP.search(stem):
        return int(match[1])
    folders = [STEP.search(parent.name) for parent in list(path.parents)[:4] if parent.name.startswith("step")]
    return next((int(match[1]) for match in folders if match), None)


def _without(paths: Sequence[Path], out: Sequence[Path], why: str, notes: list[str]) -> list[Path]:
    if not out:
        return list(paths)
    shown = ", ".join(path.name for path in out[:3]) + (f" and {len(out) - 3} more files" if len(out) > 3 else "")
    notes.append(f"left out: {shown} ({why}); pass the path of a file to read it")
    return [path for path in paths if path not in set(out)]


def _evaluations(paths: Sequence[Path]) -> list[Path]:
    common = set(paths[0].parts[:-1]).intersection(*(path.parts[:-1] for path in paths[1:])) if paths else set()
    found = [
        path
        for path in paths
        if any(EVALUATION.search(part) for part in (*(p for p in path.parts[:-1] if p not in common), stem_of(path)))
    ]
    return [] if len(found) == len(paths) else found


def _copies(paths: Sequence[Path]) -> list[Path]:
    there = set(paths)
    return [
        path for path in paths if path.parent.name == "all" and path.parent.parent / "effective" / path.name in there
    ]


def _names(path: Path) -> set[str]:
    if suffix_of(path) in ARROW:
        return set(arrow_part(path).schema.names)
    layout, flattening = Layout(), Flattening()
    names: set[str] = set()
    for where, record in islice(records_of(path, []), LOOKED_AT):
        for row in islice(layout.rows(record, where), LOOKED_AT):
            names.update(name.split(".")[0] for name in flattening.flat(row))
    return names


def _alike(names: set[str], main: set[str]) -> bool:
    return len(names & main) >= ALIKE * min(len(names), len(main)) if names and main else not names
