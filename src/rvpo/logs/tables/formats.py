"""Select the reader for a file, and refuse files that cannot be read, with the reason and the next step."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from rvpo.errors import DataError
from rvpo.logs.tables.arrow_files import arrow_records
from rvpo.logs.tables.csv_files import csv_records
from rvpo.logs.tables.files import ARROW, DELIMITED, JSON, opened, suffix_of
from rvpo.logs.tables.json_files import BOM, Record, json_records
from rvpo.logs.tables.trackio_files import trackio_records

DATABASES = (".db", ".sqlite", ".sqlite3")
EXPECTED = "expected JSONL, JSON, CSV, TSV, parquet, Arrow or Feather, also gzip or zstd, or trackio's database"

_PICKLE = (
    "is a pickle, which can run any program when it is read; {expected}. Convert it with the trainer that wrote it; "
    "for slime's --save-debug-rollout-data, use json.dump of torch.load(FILE)['samples']"
)
_REFUSED = {
    **dict.fromkeys((".pt", ".pth", ".pkl", ".pickle", ".joblib", ".bin", ".ckpt"), _PICKLE),
    **dict.fromkeys((".npz", ".npy"), "has arrays without names of rewards; {expected}. Write one column per reward"),
    ".wandb": "is W&B's own log of a run; {expected}. Read the run with wandb:ENTITY/PROJECT/RUN, or export its table",
    **dict.fromkeys((".xlsx", ".xls", ".ods"), "is a spreadsheet; {expected}. Save it as CSV"),
    **dict.fromkeys(
        (".zip", ".tar", ".tgz", ".7z", ".rar"), "is an archive; {expected}. Unpack it, and pass the folder"
    ),
    **dict.fromkeys((".html", ".htm", ".pdf", ".png"), "is a page; {expected}. Pass the logs that it was made from"),
    **dict.fromkeys((".safetensors", ".gguf"), "has the weights of a model; {expected}. Pass the logs of the run"),
}


def records_of(path: Path, notes: list[str]) -> Iterator[Record]:
    """Return the records of a file of any format; what was left out is added to ``notes``.

    Raises:
        DataError: the format is not supported, or the file is damaged.
    """
    suffix = suffix_of(path)
    if "tfevents" in path.name:
        raise DataError(
            f"{path} has TensorBoard's scalars, one mean per step; {EXPECTED}, with one row per completion. Log "
            "rollouts: in TRL with log_completions=True, in verl with trainer.rollout_data_dir=FOLDER"
        )
    if suffix in _REFUSED:
        raise DataError(f"{path} {_REFUSED[suffix].format(expected=EXPECTED)}")
    if suffix in DATABASES:
        return trackio_records(path)
    if suffix in ARROW:
        return arrow_records(path)
    if suffix in DELIMITED:
        return csv_records(path, notes)
    if suffix in JSON or _looks_like_json(path):
        return json_records(path, notes)
    raise DataError(f"cannot read {path}: its format is unknown; {EXPECTED}. Convert it, or pass another file")


def cannot_be_read(path: Path) -> bool:
    """Return whether a file is of a kind that is refused with a reason."""
    return suffix_of(path) in _REFUSED or "tfevents" in path.name


def _looks_like_json(path: Path) -> bool:
    with opened(path) as file:
        start = file.read(1000).removeprefix(BOM).lstrip()
    return start[:1] in (b"{", b"[")
