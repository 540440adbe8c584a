"""Read ``channels/*.parquet``, the record that rvpo's engines write. See :mod:`rvpo.logs.schema`."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

import rvpo
from rvpo import pictures
from rvpo.core import AdvantageConfig
from rvpo.core.channels import Range
from rvpo.errors import ConfigError, DataError
from rvpo.logs import read_trl as completions
from rvpo.logs.parquet_files import ParquetFiles, numbers
from rvpo.logs.read_trl import floats
from rvpo.logs.run import COMPLETIONS, Array, Bounds, LoggedBatch, Run, Texts, steps_between
from rvpo.logs.schema import EVALUATION, METADATA, VERSION

NEEDED = (
    "step",
    "batch",
    "completion",
    "group",
    "channel",
    "counts",
    "reward",
    "advantage",
    "tokens",
)
"""Columns of a batch. Columns that link completions to their texts are read only if texts are requested."""

DETAILS = ("channel", "criterion", "text", "reward", "z", "responsibility", "reason", "detail")
"""Columns that describe the channels of a completion to the reader."""


SECONDS = 60.0
"""Largest difference between the time in a record and the time of its file, if the file was not copied."""

MOST_PICTURES = 16
"""Most pictures of one prompt that are read; the page does not show more."""


@dataclass(frozen=True)
class About:
    """What a file says about itself; see :mod:`rvpo.logs.schema`."""

    config: AdvantageConfig
    progress: float | None
    ranges: dict[str, Range | None]
    by_token: bool
    follows: int | None
    written: float
    structure: tuple[str, ...] = ()
    monitor: tuple[str, ...] = ()
    solved: tuple[str, ...] = ()
    version: int = VERSION


def record_files(folder: Path) -> list[Path]:
    """Return the records of training steps in a folder, in order; empty if it has none."""
    if not folder.is_dir():
        return []
    found = [path for path in folder.glob("*.parquet") if path.stem.isdecimal()]
    return sorted(found, key=lambda path: int(path.stem)) if any(map(is_record, found)) else []


def is_record(path: Path) -> bool:
    """Whether a file is a record of rvpo."""
    if path.suffix != ".parquet" or path.stem.startswith(EVALUATION):
        return False
    try:
        return METADATA in (ParquetFiles().schema(path).metadata or {})
    except (pa.ArrowException, OSError):
        return False  # the reader of the file reports what is wrong with it


def open_record(path: Path, paths: Sequence[Path], bounds: Bounds = (None, None)) -> Run:
    """Open the records of a run, or of a part of it.

    Raises:
        ConfigError: no step is between the bounds.
        DataError: a file is damaged, or newer than this version of rvpo.
    """
    notes: list[str] = []
    configs: dict[str, AdvantageConfig] = {}
    files = ParquetFiles()
    if bounds != (None, None):
        paths = _wanted(files, path, paths, bounds)
    abouts = [_about(files, file, configs) for file in paths]
    for i, (before, now) in enumerate(pairwise(abouts), 1):
        if now.written < before.written:
            older, newer = paths[i].name, paths[i - 1].name
            notes.append(f"{len(paths) - i} files from {older} on are left out, because they are older than {newer}")
            abouts, paths = abouts[:i], paths[:i]
            break
    names: dict[str, int] = {}
    steps: list[int] = []
    for file in paths:
        table = _table(files, file, ["step", "channel"])
        steps.append(table["step"][0].as_py() if len(table) else int(file.stem))
        for name in table["channel"].unique().to_pylist():
            names.setdefault(name, len(names))
    if not names:
        raise DataError(f"{path} has no completions; expected at least one. Check whether the run has started")
    every = abouts[0].follows is None and steps[0] == 1
    every = every and all(about.follows == step for about, step in zip(abouts[1:], steps, strict=False))
    notes.extend(_changes(steps, abouts))
    if abouts[-1].config.method.remembers and not every:
        notes.append("some steps since the first are missing, so the memory of a method cannot be replayed")
    structure = tuple(dict.fromkeys(text for about in abouts for text in about.structure))
    if structure:
        notes.append(f"rewards are those that entered the aggregation, after {', '.join(structure)}")
    return Run(
        path,
        "channels",
        tuple(names),
        tuple(steps),
        partial(_read, files, list(zip(paths, abouts, strict=True)), names),
        config=abouts[-1].config,
        ranges={name: limits for about in abouts for name, limits in about.ranges.items()},
        every_batch=every,
        notes=tuple(notes),
        details=partial(_details, files, dict(zip(steps, paths, strict=True))),
        structure=structure,
        monitor=tuple(dict.fromkeys(name for about in abouts for name in about.monitor)),
        solved=abouts[-1].solved,
        pictures=folder if (folder := paths[0].parent.parent / pictures.FOLDER).is_dir() else None,
    ).between(*bounds)


def _changes(steps: Sequence[int], abouts: Sequence[About]) -> list[str]:
    """Return the note on a run that was resumed with another method; empty if it has one method."""
    if abouts[0].version < 2:
        return []  # it has the k of each step in place of a schedule
    parts = [(step, str(about.config)) for step, about in zip(steps, abouts, strict=True)]
    begins = [parts[0], *(now for before, now in pairwise(parts) if before[1] != now[1])]
    if len(begins) == 1:
        return []
    listed = ", ".join(f"{method} from step {step}" for step, method in begins)
    return [f"the method changed during the run: {listed}. Where one method is named for the run, it is the last one"]


def _wanted(files: ParquetFiles, path: Path, paths: Sequence[Path], bounds: Bounds) -> Sequence[Path]:
    """Return the files of the steps to read; all files if only all of them show which belong to the run.

    A file that an older run left in the folder is older than the file before it. If all times of files ascend, there
    is no such file, and no file has to be opened. This holds only if the times are those at which the records were
    written: copied files have other times.
    """
    kept = steps_between(path, [int(file.stem) for file in paths], bounds)
    wanted = [file for file in paths if kept[0] <= int(file.stem) <= kept[-1]]
    times = [file.stat().st_mtime for file in paths]
    if any(later < earlier for earlier, later in pairwise(times)):
        return paths
    configs: dict[str, AdvantageConfig] = {}
    late = (abs(file.stat().st_mtime - _about(files, file, configs).written) for file in wanted)
    return wanted if all(seconds < SECONDS for seconds in late) else paths


def _details(
    files: ParquetFiles, paths: Mapping[int, Path], step: int, numbers: Sequence[int]
) -> dict[int, list[dict[str, Any]]]:
    """Return the cells of some completions, as rows of the record."""
    table = _table(files, paths[step], ["completion", *DETAILS])
    found: dict[int, list[dict[str, Any]]] = {number: [] for number in numbers}
    for row in table.filter(pc.is_in(table["completion"], pa.array(list(numbers)))).to_pylist():
        found[row.pop("completion")].append(row)
    return found


def _read(
    files: ParquetFiles, parts: Sequence[tuple[Path, About]], names: dict[str, int], texts: bool
) -> Iterator[LoggedBatch]:
    for path, about in parts:
        present = _schema(files, path).names
        further = ("reliability", "entered", "outside", *(("criterion", "uid", "pictures") if texts else ()))
        table = _table(files, path, [*NEEDED, *(name for name in further if name in present)])
        number = _ints(table, "batch")
        batches = np.unique(number)
        for batch in batches:
            part = table if len(batches) == 1 else table.filter(pa.array(number == batch))
            read = _batch(part, about, names)
            yield _with_texts(read, path, part) if texts else read


def _batch(table: pa.Table, about: About, names: dict[str, int]) -> LoggedBatch:
    """Put the cells of a batch back into a matrix; the order of a completion's cells does not change."""
    completion = _ints(table, "completion")
    rows, row = np.unique(completion, return_inverse=True)
    order = np.argsort(row, kind="stable")
    counts = np.bincount(row)
    column = np.empty_like(row)
    column[order] = np.arange(len(row)) - np.repeat(np.cumsum(counts) - counts, counts)
    shape = (len(rows), int(counts.max()))
    cells = row, column

    def matrix(name: str, fill: float) -> Array:
        out = np.full(shape, fill)
        out[cells] = numbers(table[name])
        return out

    encoded = table["channel"].combine_chunks().dictionary_encode()
    codes = numbers(pa.chunked_array([encoded.indices])).astype(np.int64)
    of_run = np.array([names[name] for name in encoded.dictionary.to_pylist()])[codes]
    channel = np.zeros(shape, dtype=np.int64)
    channel[cells] = of_run
    applies = np.zeros(shape, dtype=bool)
    applies[cells] = True
    uniform = bool((channel == channel[:1]).all()) and bool(applies.all())
    reliability = matrix("reliability", 1.0) if "reliability" in table.column_names else None
    is_structured = "entered" in table.column_names
    outside = None
    if is_structured:
        outside = matrix("outside", 0.0) > 0
    first = order[np.cumsum(counts) - counts]  # one cell per completion
    tokens = _ints(table, "tokens")[first] if about.by_token else None
    return LoggedBatch(
        step=int(table["step"][0].as_py()),
        rewards=matrix("entered" if is_structured else "reward", np.nan),
        groups=_ints(table, "group")[first],
        channel=channel[0] if uniform else channel,
        advantages=numbers(table["advantage"])[first],
        applies=None if bool(applies.all()) else applies,
        weights=matrix("counts", 0.0),
        reliability=None if reliability is None or bool((reliability == 1).all()) else reliability,
        progress=about.progress,
        tokens=tokens,
        config=about.config,
        numbers=rows,
        outside=outside,
    )


def _with_texts(batch: LoggedBatch, path: Path, table: pa.Table) -> LoggedBatch:
    """Add texts from TRL's completions or verl's dump of the same step, if there are any."""
    if "uid" in table.column_names:
        _, first = np.unique(_ints(table, "completion"), return_index=True)
        uids = [table["uid"][i].as_py() for i in first.tolist()]
        return _with_pictures(_of_dump(batch, path.parent.parent / f"{batch.step}.jsonl", uids), table)
    logged = path.parent.parent / COMPLETIONS / f"completions_{batch.step:05d}.parquet"
    if not logged.exists():
        return batch
    return _with_pictures(_of_completions(batch, logged, table), table)


def _with_pictures(found: LoggedBatch, table: pa.Table) -> LoggedBatch:
    """Add the digests of pictures to texts, if the record has both."""
    if found.texts is None or "pictures" not in table.column_names:
        return found
    _, first = np.unique(_ints(table, "completion"), return_index=True)
    cells = [table["pictures"][i].as_py() for i in first.tolist()]
    named = [cell[:MOST_PICTURES] if isinstance(cell, list) else [] for cell in cells]
    found_pictures = [[name if pictures.is_digest(name) else None for name in cell] for cell in named]
    return replace(found, texts=replace(found.texts, pictures=found_pictures))


def _of_completions(batch: LoggedBatch, logged: Path, table: pa.Table) -> LoggedBatch:
    """Add texts of TRL's completions, if they are those of the batch."""
    # TRL keeps only the last generation of a step, which may be that of an evaluation. So the rewards must agree.
    plain = table.filter(pc.is_null(table["criterion"]))
    own = {
        name: plain.filter(pc.equal(plain["channel"], name))["reward"] for name in plain["channel"].unique().to_pylist()
    }
    texts = completions.texts_of(
        logged,
        {"advantage": batch.advantages, **{name: floats(column, name) for name, column in own.items()}},
    )
    return batch if texts is None else replace(batch, texts=texts)


def _of_dump(batch: LoggedBatch, path: Path, uids: Sequence[str]) -> LoggedBatch:
    """Add texts from verl's dump of a step, if it has the whole batch."""
    try:
        # Not splitlines: a completion may contain any of Unicode's line ends.
        lines = [json.loads(line) for line in path.read_text("utf-8").split("\n") if line]
    except (OSError, ValueError, RecursionError):
        return batch
    by_uid = {line["uid"]: line for line in lines if isinstance(line, dict) and "uid" in line}
    if not all(uid in by_uid for uid in uids):
        return batch
    prompts, answers = ([str(by_uid[uid].get(key, "")) for uid in uids] for key in ("input", "output"))
    return replace(batch, texts=Texts(prompts, answers))


def _schema(files: ParquetFiles, path: Path) -> pa.Schema:
    try:
        return files.schema(path)
    except (pa.ArrowException, OSError) as error:
        raise _damaged(path, error) from error


def _damaged(path: Path, error: Exception) -> DataError:
    return DataError(
        f"{path} is damaged ({error}); expected a complete record of rvpo. Remove the file, or run the step again"
    )


def _about(files: ParquetFiles, path: Path, configs: dict[str, AdvantageConfig]) -> About:
    """Read the metadata of a file; ``configs`` caches configs by their text.

    Raises:
        DataError: the metadata cannot be parsed, is newer than this version, or has values that it does not know.
    """
    try:
        stored: dict[str, Any] = json.loads((_schema(files, path).metadata or {})[METADATA])
        version = int(stored["version"])
    except (KeyError, TypeError, ValueError, AttributeError, IndexError, RecursionError) as error:
        raise _damaged(path, error) from error
    if version > VERSION:
        raise DataError(
            f"{path} is a record of version {version}; expected version {VERSION} or lower. Read it with the version "
            "of rvpo that wrote it, or a newer one"
        )
    try:
        by_token = bool(stored["by_token"])
        key = json.dumps([version, stored["config"], by_token])
        if key not in configs:
            configs[key] = _config(stored["config"], version, by_token)
        ranges = {name: None if pair is None else (pair[0], pair[1]) for name, pair in stored["ranges"].items()}
        return About(
            configs[key],
            stored.get("progress"),
            ranges,
            by_token,
            stored.get("follows"),
            float(stored.get("written", 0)),
            _texts_of(stored, "structure"),
            _texts_of(stored, "monitor"),
            _texts_of(stored, "solved"),
            version,
        )
    except ConfigError as error:
        raise DataError(
            f"{path} is a record of version {version} with a value that rvpo {rvpo.__version__} does not understand: "
            f"{error}. The file is intact. Read it with the version of rvpo that wrote it, or a newer one"
        ) from error
    except (KeyError, TypeError, ValueError, AttributeError, IndexError) as error:
        raise _damaged(path, error) from error


def _texts_of(stored: Mapping[str, Any], key: str) -> tuple[str, ...]:
    """Return a list of texts from the metadata; empty in older records, which do not have it."""
    found = stored.get(key) or []
    if not isinstance(found, list) or not all(isinstance(text, str) for text in found):
        raise ValueError(f"{key} is {found!r}; expected a list of texts")
    return tuple(found)


def _config(stored: Mapping[str, Any], version: int, by_token: bool) -> AdvantageConfig:
    """Return the config of a record; its method need not be available.

    Raises:
        ConfigError: a value that this version does not understand.
    """
    if version < 2:
        stored = _of_version_1(stored, by_token)
    if version < 4:
        stored = {**stored, "method": _renamed(stored["method"], version)}
    return AdvantageConfig.of_record(stored)


def _of_version_1(stored: Mapping[str, Any], by_token: bool) -> dict[str, Any]:
    """Convert a config of version 1, which stored the method's name, k, beta, whiten and other options separately."""
    method = dict(stored.get("options") or {}) | {
        "name": stored["method"],
        "dead_channels": stored.get("dead_channels"),
    }
    method["whiten"] = "token" if by_token else stored.get("whiten")
    method |= {key: stored[key] for key in ("k", "beta") if stored.get(key) is not None}
    if isinstance(score := method.get("score"), dict):
        method["score"] = {("name" if key == "method" else key): value for key, value in score.items()}
    return {**stored, "method": method}


def _renamed(method: Any, version: int) -> Any:
    """Return a method of an older version with its current name and options, also if it is an option of another."""
    if isinstance(method, str):
        name, colon, options = method.partition(":")
        if name == "lift" and version < 3:
            return "lift_z" + colon + options
        if name == "grpo" and "unscored" not in options:
            return "grpo:" + ",".join(filter(None, [options, "unscored=left_out"]))
        return method
    if not isinstance(method, Mapping):
        return method
    renamed = {key: _renamed(value, version) if key == "score" else value for key, value in method.items()}
    if renamed.get("name") == "lift" and version < 3:
        renamed["name"] = "lift_z"
    if renamed.get("name") == "grpo":
        renamed.setdefault("unscored", "left_out")
    return renamed


def _table(files: ParquetFiles, path: Path, columns: Sequence[str]) -> pa.Table:
    try:
        return files.table(path, columns)
    except (pa.ArrowException, OSError, KeyError) as error:
        raise _damaged(path, error) from error


def _ints(table: pa.Table, name: str) -> Any:
    return numbers(table[name]).astype(np.int64)
