"""``open_run``: determine what logs a path contains. There is one reader per kind::

read_channels.py    channels/*.parquet of our own engines: everything, exactly
read_trl.py         completions/*.parquet, which TRL's trainers write with log_completions=True
tables/             any other file or folder with one row per completion, and the runs of W&B and trackio
"""

from __future__ import annotations

from pathlib import Path

from rvpo.errors import ConfigError
from rvpo.logs import read_channels as channel_tables
from rvpo.logs import read_trl as completions
from rvpo.logs.run import COMPLETIONS, Bounds, Columns, Run
from rvpo.logs.schema import FOLDER
from rvpo.logs.tables.folders import files_in
from rvpo.logs.tables.remote import files_of_remote, is_remote
from rvpo.logs.tables.understand import open_tables


def files_of_run(folder: Path) -> bool:
    """Return whether a folder is the folder of an rvpo or TRL run."""
    return bool(channel_tables.record_files(folder / FOLDER) or completions.completion_files(folder / COMPLETIONS))


def open_run(path: str | Path, columns: Columns | None = None, steps: Bounds = (None, None)) -> Run:
    """Open the logs in a path.

    Args:
        path: folder of a run (ours, TRL's, verl's ``rollout_data_dir`` or another trainer's), its ``channels`` or
            ``completions``, a file of rollouts (JSONL, JSON, CSV, TSV, parquet, Arrow; also gzip or zstd), a folder of
            these, or the name of a tracker's run: ``wandb:ENTITY/PROJECT/RUN``, ``trackio:PROJECT/RUN``.
        columns: names of columns, for tables that other programs wrote.
        steps: first and last step to read. If a run has one file per step, only these files are read, so facts about
            the run, such as the size of its groups, are determined from these files.

    Raises:
        ConfigError: the path does not exist, nothing in it can be read, or no step is between the bounds.
        DataError: a file is damaged, newer than this version of rvpo, or lacks a column.
    """
    path, columns = Path(path), columns or Columns()
    if is_remote(path):
        return open_tables(path, files_of_remote(path), columns).between(*steps)
    if not path.exists():
        raise ConfigError(
            f"{path} does not exist; expected the folder of a run, or a file of rollouts (JSONL, JSON, CSV, parquet). "
            "Check the spelling"
        )
    if not path.is_dir():
        if channel_tables.is_record(path):
            return channel_tables.open_record(path, [path]).between(*steps)
        return open_tables(path, [path], columns).between(*steps)
    for folder in (path / FOLDER, path):
        if files := channel_tables.record_files(folder):
            return channel_tables.open_record(path, files, steps)
    for folder in (path / COMPLETIONS, path):
        if files := completions.completion_files(folder):
            return completions.open_completions(path, files, columns, steps)
    if any(files_of_run(entry) for entry in path.iterdir() if entry.is_dir()):
        raise ConfigError(
            f"{path} contains the folders of several runs; expected one run. Pass one of them, or use rvpo compare or "
            "rvpo report, which take several runs"
        )
    files = files_in(path)
    if not files:
        entries = sorted(entry.name for entry in path.iterdir())
        held = [*entries[:6], f"{len(entries) - 6} more"] if len(entries) > 6 else entries
        raise ConfigError(
            f"{path} contains {', '.join(held) or 'nothing'}; expected channels/ (rvpo), completions/ (TRL with "
            "log_completions=True), or files of rollouts with one column per reward (JSONL, JSON, CSV, parquet). Pass "
            "the path of such a folder or file"
        )
    return open_tables(path, files, columns).between(*steps)
