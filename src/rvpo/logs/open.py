"""``open_run``: find out what logs a path holds. One module reads each kind::

channel_tables.py   channels/*.parquet of our own engines: everything, exactly
completions.py      completions/*.parquet, which TRL's trainers write with log_completions=True
tables.py           parquet or JSONL with named columns, from anywhere
"""

from __future__ import annotations

from pathlib import Path

from rvpo.errors import ConfigError
from rvpo.logs import read_channels as channel_tables
from rvpo.logs.tables import understand as tables
from rvpo.logs import read_trl as completions
from rvpo.logs.run import COMPLETIONS, Columns, Run
from rvpo.logs.schema import FOLDER

TABLES = (".parquet", ".jsonl")


def files_of_run(folder: Path) -> bool:
    """Tell whether a folder is that of a run of ours or of TRL's."""
    return bool(channel_tables.record_files(folder / FOLDER) or completions.completion_files(folder / COMPLETIONS))


def open_run(path: str | Path, columns: Columns | None = None) -> Run:
    """Find out what logs a path holds.

    Args:
        path: folder of a run (ours, TRL's or verl's ``rollout_data_dir``), its ``channels`` or ``completions``, or a
            parquet or JSONL file, or a folder of these.
        columns: names of columns, for tables that others wrote.

    Raises:
        ConfigError: nothing is there, or nothing that can be read.
        DataError: a file is damaged, newer than this version of rvpo, or lacks a column.
    """
    path, columns = Path(path), columns or Columns()
    if not path.exists():
        raise ConfigError(
            f"{path} does not exist; expected the folder of a run, or a parquet or JSONL file of logs: "
            "check the spelling"
        )
    if path.is_dir():
        for folder in (path / FOLDER, path):
            if files := channel_tables.record_files(folder):
                return channel_tables.open_record(path, files)
        for folder in (path / COMPLETIONS, path):
            if files := completions.completion_files(folder):
                return completions.open_completions(path, files, columns)
        files = sorted(file for file in path.iterdir() if file.suffix in TABLES)
    else:
        if channel_tables.is_record(path):
            return channel_tables.open_record(path, [path])
        files = [path] if path.suffix in TABLES else []
    if not files:
        if path.is_dir() and any(files_of_run(entry) for entry in path.iterdir() if entry.is_dir()):
            raise ConfigError(
                f"{path} holds the folders of runs; expected one run: name one of them, or use rvpo compare or rvpo "
                "report, which take several"
            )
        entries = sorted(entry.name for entry in path.iterdir()) if path.is_dir() else [path.name]
        held = [*entries[:6], f"{len(entries) - 6} more"] if len(entries) > 6 else entries
        raise ConfigError(
            f"{path} holds {', '.join(held) or 'nothing'}; expected channels/ (rvpo), completions/ (TRL with "
            "log_completions=True), and files *.parquet or *.jsonl with a column a reward: name the folder or the file"
        )
    return tables.open_tables(path, files, columns)
