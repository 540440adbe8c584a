"""Which files of a folder are the parts of one table, in order; and what the place of a file says of its rows."""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from itertools import islice
from pathlib import Path

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
"""Files that lie next to logs and are none."""
EVALUATION = re.compile(r"(^|[_.-])(val|eval|valid|validation|test|evaluation)([_.-]|\d|$)", re.IGNORECASE)
CHECKPOINT = re.compile(r"(^|[_-])(checkpoint|ckpt|global_step|tokenizer)([_-]|$)", re.IGNORECASE)
STEP = re.compile(r"(?:^|[_.-]|[a-z])(?:step|rollout|iter|iteration)s?[_-]?(\d{1,15})(?:[_.-]|$)", re.IGNORECASE)
WANDB_TABLE = re.compile(r"_(\d{1,15})_[0-9a-f]{8,}$")
AREAL = {"task_id", "tail_version"}
LOOKED_AT = 20  # rows of a file, for its columns
ALIKE = 0.5  # of the columns of the smaller of two files


def files_in(folder: Path) -> list[Path]:
    """Return the files that may hold rows, folders in it too, with 2 before 10.

    Where there are none, those are returned that can be named as what they are, for the error.
    """
    inside = [path for path in folder.rglob("*") if path.is_file() and not _is_aside(path.relative_to(folder))]
    readable = [path for path in inside if suffix_of(path) in (*KNOWN, *DATABASES) and not BESIDE.search(path.name)]
    return in_order(readable or [path for path in inside if cannot_be_read(path)][:1])


def parts_of_one(paths: Sequence[Path], notes: list[str]) -> list[Path]:
    """Return the files that belong together; the others are named in ``notes``.

    Left out are evaluations next to trainings, the second copy of prime-rl's traces, and files with other columns.
    """
    kept = _without(paths, _evaluations(paths), "evaluations", notes)
    kept = _without(kept, _copies(kept), "rollouts that were discarded, or are in effective/ too", notes)
    if len(kept) < 2:
        return kept
    names = {path: _names(path) for path in kept}
    main = max(kept, key=lambda path: (sum(map(bool, map(TEXTS.search, names[path]))) > 0, path.stat().st_size))
    other = [path for path in kept if not _alike(names[path], names[main])]
    return _without(kept, other, f"other columns than {main.name}", notes)


def step_of(path: Path, names: Collection[str]) -> int | None:
    """Return the step that the name of a file, or of the folder that it lies in, stands for; None: it names none.

    Args:
        path: of the file.
        names: of its columns.
    """
    stem = stem_of(path)
    if AREAL.issubset(names):  # a folder per version of the policy, a file per task
        stem = path.parent.name
    if stem.isdecimal() and len(stem) <= 15:
        return int(stem)
    if match := WANDB_TABLE.search(stem) if path.name.endswith(".table.json") else STEP.search(stem):
        return int(match[1])
    folders = [STEP.search(parent.name) for parent in list(path.parents)[:4] if parent.name.startswith("step")]
    return next((int(match[1]) for match in folders if match), None)


def _is_aside(path: Path) -> bool:
    hidden = any(part.startswith((".", "_")) for part in path.parts)
    return hidden or any(CHECKPOINT.search(part) for part in path.parts[:-1])


def _without(paths: Sequence[Path], out: Sequence[Path], why: str, notes: list[str]) -> list[Path]:
    if not out:
        return list(paths)
    shown = ", ".join(path.name for path in out[:3]) + (f" and {len(out) - 3} more files" if len(out) > 3 else "")
    notes.append(f"left out: {shown} ({why}); name a file alone to read it")
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
