"""Read ``completions/*.parquet``, which TRL's trainers write with ``log_completions=True``.

There is one column per reward, and no group ids. How TRL 1.16 behaves, and how this reader deals with it:

- A file is written at every log, with the completions of the last generation. A generation that was logged before
  (several iterations or steps on one generation) is skipped.
- Groups are blocks of equal prompts. If several blocks of a prompt follow each other, the block length is the greatest
  common divisor of the lengths in most files. A file to which this does not apply uses its own divisor.
- ``log_extra`` adds columns after the rewards. :mod:`rvpo.logs.trl_rewards` distinguishes them from rewards.
- At a step with an evaluation the file contains the completions of the evaluation, without a mark. It is left out if
  the trainer's state says that an evaluation was logged at this step (:mod:`rvpo.logs.trainer_facts`), or if its groups
  have a different size than those before and after it. The next file may repeat these completions, and is then left out
  as well.
- A resumed run may have more generations per prompt, or more rewards, from some file on.
"""

from __future__ import annotations

import json
import math
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence, Set
from functools import partial
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from rvpo.errors import ConfigError, DataError
from rvpo.logs.guess import Guess, guess_by_text
from rvpo.logs.parquet_files import ParquetFiles, numbers
from rvpo.logs.run import Array, Bounds, Columns, Ints, LoggedBatch, Run, Texts, steps_between
from rvpo.logs.tables.columns import Column
from rvpo.logs.tables.marks import marks_of_missing
from rvpo.logs.tables.rewards import Chosen, class_of
from rvpo.logs.trainer_facts import TrainerFacts, trainer_facts
from rvpo.logs.trl_rewards import choose

_NAME = re.compile(r"completions_(\d+)\.parquet")
LOOKED_AT = 60  # number of files that are read to determine which columns are rewards
NEIGHBOURS = 25  # number of files that are read before and after a part of a run
NEVER_REWARDS = ("step", "prompt", "completion", "advantage", "image", "images")


def completion_files(folder: Path) -> list[Path]:
    """Return the completion files of a folder in order of their steps; empty if it has none."""
    found = [path for path in folder.glob("completions_*.parquet") if _NAME.fullmatch(path.name)]
    return sorted(found, key=_step)


def open_completions(path: Path, paths: Sequence[Path], columns: Columns, bounds: Bounds = (None, None)) -> Run:
    """Open the completions of a run, or of a part of it.

    Raises:
        ConfigError: no step is between the bounds, or an option was given that does not apply to these logs.
        DataError: a file is damaged, or none of its columns is a reward.
    """
    for option in ("group", "advantage", "step"):
        if (given := getattr(columns, option)) is not None:
            raise ConfigError(
                f"--{option} is {given!r}, but {path} contains TRL's completions, whose columns are known. Omit it"
            )
    paths = _around(path, paths, bounds)
    files = ParquetFiles()
    facts = trainer_facts(path)
    left: list[Path] = []
    odd: list[Path] = []
    evaluated = _at_evaluations(files, paths, facts.evaluated)
    doubtful = [] if len(evaluated) < len(paths) else [_of_evaluations_alone(paths)]
    if not doubtful:
        paths = [file for file in paths if file not in evaluated]
    size = columns.group_size or _group_size(files, paths)
    if columns.group_size:
        _check_size(files, paths, columns.group_size)
    else:
        left, odd = _evaluations(files, paths, size)
        paths = [file for file in paths if file not in left]
    chosen = _rewards(files, path, paths, size, columns, facts)
    rewards = chosen.rewards
    notes = [f"rewards are the columns {', '.join(rewards)} (--rewards names others)", *chosen.notes]
    if evaluated and not doubtful:
        notes.append(
            f"{_files(evaluated)} left out, because the trainer logged an evaluation there, and TRL then writes the "
            "completions of the evaluation in place of the training's"
        )
    if left:
        listed = ", ".join(str(_step(file)) for file in left[:5])
        notes.append(f"{len(left)} files are left out as evaluations (steps {listed}): their groups have another size")
    notes.append(
        f"groups of {size} completions, found from equal prompts (change with --group-size)"
        if columns.group_size is None and size
        else "groups are consecutive completions of the same prompt; their sizes differ"
        if not size
        else f"groups of {size} completions"
    )
    if columns.group_size and (mixed := _mixed(files, paths[0], columns.group_size)):
        notes.append(f"{mixed} of the first file's blocks of {size} contain several prompts; check --group-size")
    for name in rewards:
        if lacking := [file for file in paths if name not in _schema(files, file).names]:
            notes.append(f"{len(lacking)} of {len(paths)} files lack the reward {name!r}, so it is missing there")
    steps = tuple(_step(file) for file in paths)
    return Run(
        path,
        "completions",
        tuple(rewards),
        steps,
        partial(_read, files, list(paths), tuple(rewards), size, columns.group_size is not None),
        every_batch=steps == tuple(range(1, len(steps) + 1)),
        notes=tuple(notes),
        guesses=(*doubtful, *chosen.guesses, *_of_other_size(odd, size), *_by_text(files, paths[0], columns)),
    ).between(*bounds)


def _around(path: Path, paths: Sequence[Path], bounds: Bounds) -> Sequence[Path]:
    """Return the files of the steps to read, and some before and after them.

    A few files alone do not show which of them are evaluations, or whether a generation was logged before.
    """
    kept = steps_between(path, list(map(_step, paths)), bounds)
    wanted = [i for i, file in enumerate(paths) if kept[0] <= _step(file) <= kept[-1]]
    return paths[max(0, wanted[0] - NEIGHBOURS) : wanted[-1] + 1 + NEIGHBOURS]


def _by_text(files: ParquetFiles, path: Path, columns: Columns) -> list[Guess]:
    """Return the guess that is made if groups are found from prompts with pictures."""
    if columns.group_size is not None:
        return []
    found = guess_by_text(
        _texts(_table(files, path, ["prompt"])["prompt"]), "--group-size sets the number of completions"
    )
    return [] if found is None else [found]


def texts_of(path: Path, agrees: Mapping[str, Array | None]) -> Texts | None:
    """Return prompts and completions of a file, if it is about the same completions.

    Args:
        path: path of the file.
        agrees: name of a column -> numbers (N,) that it must contain; None, and columns that the file lacks, are not
            compared.

    Returns:
        N texts each; None if there is no such file, or if it has other completions.
    """
    try:
        files = ParquetFiles()
        names = files.schema(path).names
        known = {name: values for name, values in agrees.items() if values is not None and name in names}
        table = files.table(path, ["prompt", "completion", *known])
    except (pa.ArrowException, OSError, KeyError):
        return None
    for name, values in known.items():
        there = floats(table[name], str(path))
        if there.shape != values.shape or not np.allclose(there, values, rtol=1e-5, atol=1e-6, equal_nan=True):
            return None
    return Texts(_texts(table["prompt"]), _texts(table["completion"])) if known else None


def _read(
    files: ParquetFiles, paths: Sequence[Path], rewards: tuple[str, ...], size: int, given: bool, texts: bool
) -> Iterator[LoggedBatch]:
    before: tuple[list[str], Array, Path] | None = None
    for path in paths:
        wanted = ["prompt", *rewards, "advantage", *(["completion"] if texts else [])]
        table = _table(files, path, wanted, may_lack=rewards)
        if not len(table):
            continue
        values = np.stack([_floats(path, table, name) for name in rewards], 1)
        advantages = _floats(path, table, "advantage")
        prompts = _texts(table["prompt"])
        numbers = np.concatenate([values, advantages[:, None]], 1)
        again = before is not None and before[0] == prompts and np.array_equal(before[1], numbers, equal_nan=True)
        # Constant rewards do not distinguish generations, so the completions are compared, too.
        if again and before is not None and _completions(files, before[2]) == _completions(files, path):
            continue  # the same generation, logged again
        before = prompts, numbers, path
        yield LoggedBatch(
            _step(path),
            values,
            np.arange(len(prompts)) // size if given else _groups(prompts, size, advantages),
            np.arange(len(rewards)),
            advantages,
            texts=Texts(prompts, _texts(table["completion"])) if texts else None,
        )


def _check_size(files: ParquetFiles, paths: Sequence[Path], size: int) -> None:
    for path in paths:
        rows = _rows(files, path)
        if rows % size:
            raise DataError(
                f"{path} has {rows} completions; expected a multiple of {size}. Pass the number of completions per "
                "prompt (--group-size)"
            )


def _mixed(files: ParquetFiles, path: Path, size: int) -> int:
    """Return how many blocks of a file contain more than one prompt."""
    prompts = _texts(_table(files, path, ["prompt"])["prompt"])
    return sum(len(set(prompts[start : start + size])) > 1 for start in range(0, len(prompts), size))


def _completions(files: ParquetFiles, path: Path) -> list[str]:
    return _texts(_table(files, path, ["completion"])["completion"])


def _groups(prompts: Sequence[str], size: int, advantages: Array) -> Ints:
    """Cut a file into blocks of ``size``, or of its own size if that does not fit, as in an evaluation.

    If all blocks of equal prompts are several times as long, a resumed run may have more generations per prompt. Then
    the advantages sum to 0 only in the longer blocks.
    """
    lengths = _lengths(prompts)
    if size and len(set(lengths)) == 1 and lengths[0] > size and lengths[0] % size == 0:
        longer, shorter = (_sums_are_0(advantages, length) for length in (lengths[0], size))
        several = len(lengths) > 1
        if not shorter and (longer or several):
            size = lengths[0]
    if not size or any(length % size for length in lengths):
        own = math.gcd(*lengths)
        if own == 1:
            return np.repeat(np.arange(len(lengths)), lengths)
        size = own
    return np.arange(len(prompts)) // size


def _lengths(prompts: Sequence[str]) -> list[int]:
    """Return the lengths of the blocks of consecutive equal prompts."""
    return [len(list(same)) for _, same in groupby(prompts)]


def _group_size(files: ParquetFiles, paths: Sequence[Path], look_at: int = 50) -> int:
    """Return the number of completions per prompt in most files; 0 if there is no such number."""
    sizes: Counter[int] = Counter()
    single: Array | None = None
    for path in paths[:look_at]:
        table = _table(files, path, ["prompt", "advantage"])
        if len(table):
            lengths = _lengths(_texts(table["prompt"]))
            sizes[math.gcd(*lengths)] += 1
            if single is None and len(lengths) == 1:
                single = _floats(path, table, "advantage")
    size = sizes.most_common(1)[0][0] if sizes else 0
    if single is not None and len(single) == size:  # a single prompt, which may have several groups
        size = _by_sums(single)
    return size if size > 1 else 0


def _sums_are_0(advantages: Array, size: int) -> bool:
    """Whether advantages sum to 0 in blocks of ``size``; constant advantages of 0 also do."""
    known = np.nan_to_num(advantages, nan=0.0)
    return bool((np.abs(known.reshape(-1, size).sum(1)) < 1e-3 * size).all())


def _by_sums(advantages: Array) -> int:
    """Return the smallest size of blocks whose advantages sum to 0, as in a group; otherwise the number of rows."""
    n = len(advantages)
    if np.isnan(advantages).any() or not np.abs(advantages).max() > 1e-3:
        return n
    fitting = (d for d in range(2, n + 1) if n % d == 0)
    return next((d for d in fitting if _sums_are_0(advantages, d)), n)


def _rewards(
    files: ParquetFiles, path: Path, paths: Sequence[Path], size: int, columns: Columns, facts: TrainerFacts
) -> Chosen:
    """Find the rewards among the columns of all files; see :mod:`rvpo.logs.trl_rewards`.

    Args:
        files: reader of files.
        path: path of the logs.
        paths: files of the training.
        size: number of completions per group.
        columns: names that the user gave.
        facts: facts in the trainer's state.
    """
    if columns.rewards is not None:
        there = {name for file in paths for name in _schema(files, file).names}
        _table(files, paths[0], [name for name in columns.rewards if name not in there])  # raises for unknown columns
        return Chosen(list(columns.rewards))
    names: dict[str, bool] = {}
    for file in paths:
        for field in _schema(files, file):
            kind = field.type
            if field.name in NEVER_REWARDS:
                continue
            if pa.types.is_floating(kind) or pa.types.is_null(kind) or _is_reward_by_name(field):
                names[field.name] = names.get(field.name, False) or not pa.types.is_null(kind)
    candidates = [name for name, numeric in names.items() if numeric]
    if not candidates:
        schema = _schema(files, paths[0])
        raise DataError(
            f"{paths[0]} has the columns {', '.join(schema.names)}; expected at least one reward (a column of floating "
            "point numbers). Name the rewards with --rewards"
        )
    looked_at = list(_looked_at(files, paths, candidates, size))
    known = [name for name in candidates if name in facts.rewards]
    # A reward that was added after the last checkpoint is not in the state.
    new = [
        name
        for name in candidates
        if name not in known
        and not any(_step(file) <= facts.last and name in _schema(files, file).names for file in paths)
    ]
    chosen = _by_state(known, candidates) if known and not new else choose(path, looked_at, candidates)
    if not looked_at:
        return chosen
    values = {name: np.concatenate([rewards[:, j] for rewards, *_ in looked_at]) for j, name in enumerate(candidates)}
    chosen.guesses.extend(marks_of_missing(path, {name: values[name] for name in chosen.rewards}, named=False))
    chosen.guesses.extend(_in_words(_schema(files, paths[0])))
    chosen.guesses.extend(_never_scored(name for name, numeric in names.items() if not numeric))
    return chosen


def _by_state(rewards: list[str], candidates: Sequence[str]) -> Chosen:
    """Return the reward functions that the trainer's state names. Other columns are from ``log_extra``."""
    others = [name for name in candidates if name not in rewards]
    notes = [f"{', '.join(others)}: not treated as a reward, because the trainer's state has no such reward function"]
    return Chosen(rewards, notes=notes if others else [])


def _never_scored(names: Iterable[str]) -> Iterator[Guess]:
    """Yield a guess for each column without any value that has the name of a reward function."""
    for name in names:
        if class_of(Column(name, "empty")) in ("marked", "named"):
            why = "its name is that of a reward, but no row has a value, so this reward was never scored"
            yield Guess(f"{name!r} is left out", why, "--rewards", trust=1.0)


def _in_words(schema: pa.Schema) -> Iterator[Guess]:
    """Yield a guess for each column of texts with the name of a reward function."""
    for field in schema:
        text = pa.types.is_string(field.type) or pa.types.is_large_string(field.type)
        if text and field.name not in NEVER_REWARDS and class_of(Column(field.name, "flag")) in ("marked", "named"):
            yield Guess(
                f"{field.name!r} is left out", "its name is that of a reward, but it has texts", "log numbers", 0.8
            )


def _is_reward_by_name(field: pa.Field) -> bool:
    """Whether a column of integers or flags has the name of a reward. TRL writes floats, other programs do not."""
    if pa.types.is_boolean(field.type):
        return class_of(Column(field.name, "flag")) in ("marked", "named")
    return pa.types.is_integer(field.type) and class_of(Column(field.name, "number")) in ("marked", "named")


def _looked_at(
    files: ParquetFiles, paths: Sequence[Path], candidates: Sequence[str], size: int
) -> Iterator[tuple[Array, Ints, Array]]:
    """Yield rewards (N, M), groups and advantages of some files, spread over the run."""
    for file in paths[:: max(1, len(paths) // LOOKED_AT)]:
        table = _table(files, file, ["prompt", *candidates, "advantage"], may_lack=candidates)
        if len(table):
            advantages = _floats(file, table, "advantage")
            values = np.stack([_floats(file, table, name) for name in candidates], 1)
            yield values, _groups(_texts(table["prompt"]), size, advantages), advantages


def _at_evaluations(files: ParquetFiles, paths: Sequence[Path], steps: Set[int]) -> list[Path]:
    """Return the files of steps with an evaluation, and those after them that repeat their completions."""
    found: list[Path] = []
    for before, file in zip((None, *paths), paths, strict=False):
        repeats = before is not None and before in found and _same_completions(files, before, file)
        if _step(file) in steps or repeats:
            found.append(file)
    return found


def _same_completions(files: ParquetFiles, first: Path, second: Path) -> bool:
    return _texts(_table(files, first, ["prompt"])["prompt"]) == _texts(
        _table(files, second, ["prompt"])["prompt"]
    ) and _completions(files, first) == _completions(files, second)


def _of_evaluations_alone(paths: Sequence[Path]) -> Guess:
    """Return the guess about a run that has an evaluation at each step that it logs."""
    return Guess(
        "all completions are of the training",
        f"the trainer logged an evaluation at each of the {len(paths)} steps, and TRL then writes the completions of "
        "the evaluation in place of the training's",
        "evaluate less often than you log",
        trust=0.5,
    )


def _files(paths: Sequence[Path]) -> str:
    """Return how many files there are, and their steps."""
    more = f" and {len(paths) - 5} more" if len(paths) > 5 else ""
    steps = ", ".join(str(_step(file)) for file in paths[:5]) + more
    return f"the file of step {steps} is" if len(paths) == 1 else f"{len(paths)} files (steps {steps}) are"


def _evaluations(files: ParquetFiles, paths: Sequence[Path], size: int) -> tuple[list[Path], list[Path]]:
    """Return files whose groups have a different size than the groups of most files.

    Returns:
        Evaluations, which are between files of the usual size, and files before the first or after the last of these,
        which may be evaluations or a part of the training with another size.
    """
    sizes = []
    for file in paths:
        table = _table(files, file, ["prompt"])
        lengths = _lengths(_texts(table["prompt"]))
        sizes.append(math.gcd(*lengths) if lengths else 0)
    usual = [i for i, found in enumerate(sizes) if size and found and found % size == 0]
    if len(usual) < 3:
        return [], []
    other = [i for i, found in enumerate(sizes) if found and found % size]
    between = [paths[i] for i in other if usual[0] < i < usual[-1] and sizes[i] > 1]
    return between, [paths[i] for i in other if not usual[0] < i < usual[-1]]


def _of_other_size(odd: Sequence[Path], size: int) -> list[Guess]:
    """Return the guess about files at the start or the end whose groups have another size."""
    if not odd:
        return []
    steps = ", ".join(str(_step(file)) for file in odd[:5]) + (f" and {len(odd) - 5} more" if len(odd) > 5 else "")
    what = f"all files are a part of the training, also those of step {steps}"
    return [
        Guess(what, f"their groups do not have {size} completions, so they may be evaluations", "--steps", trust=0.9)
    ]


def _schema(files: ParquetFiles, path: Path) -> pa.Schema:
    try:
        return files.schema(path)
    except (pa.ArrowException, OSError) as error:
        raise DataError(f"{path} cannot be read ({error}); expected parquet. Remove the damaged file") from error


def _rows(files: ParquetFiles, path: Path) -> int:
    _schema(files, path)  # raises for a damaged file
    return files.rows(path)


def _table(files: ParquetFiles, path: Path, columns: Sequence[str], may_lack: Sequence[str] = ()) -> pa.Table:
    """Read columns; a column of ``may_lack`` that the file does not have is null."""
    schema = _schema(files, path)
    lacking = [name for name in columns if name not in schema.names]
    if absent := [name for name in lacking if name not in may_lack or schema.names == []]:
        raise DataError(
            f"{path} has no column {absent[0]!r}; expected one of {', '.join(schema.names)}. Name the columns "
            "(--rewards), or read files of a single kind"
        )
    try:
        there = [name for name in dict.fromkeys(columns) if name not in lacking]
        table = files.table(path, there)
        for name in lacking:
            table = table.append_column(name, pa.nulls(len(table)))
        return table
    except (pa.ArrowException, OSError, KeyError) as error:
        raise DataError(f"{path} cannot be read ({error}); expected complete parquet. Remove the file") from error


def _floats(path: Path, table: pa.Table, name: str) -> Array:
    return floats(table[name], f"{path}, column {name!r}")


def floats(column: pa.ChunkedArray, where: str) -> Array:
    """Return a column of numbers as (N,) float64, null as NaN.

    Raises:
        DataError: it does not contain numbers; ``where`` names it in the message.
    """
    kind = column.type
    if pa.types.is_null(kind):
        return np.full(len(column), np.nan)
    if not (pa.types.is_floating(kind) or pa.types.is_integer(kind) or pa.types.is_boolean(kind)):
        raise DataError(f"{where} contains {kind}; expected numbers, null if missing. Name other columns")
    return numbers(column)


def _texts(column: pa.ChunkedArray) -> list[str]:
    return [text_of_cell(value) for value in column.to_pylist()]


def text_of_cell(value: Any) -> str:
    """Return a text as it is, anything else (a chat) as JSON."""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)


def _step(path: Path) -> int:
    match = _NAME.fullmatch(path.name)
    assert match is not None  # completion_files() returns only such names
    return int(match[1])
