"""Which reader a file needs, and files that cannot be read: each is refused with the reason and what to do."""

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
    "is a pickle, which can run any program as it is read; {expected}: convert it with the trainer that wrote it, for "
    "slime's --save-debug-rollout-data with json.dump of torch.load(FILE)['samples']"
)
_REFUSED = {
    **dict.fromkeys((".pt", ".pth", ".pkl", ".pickle", ".joblib", ".bin", ".ckpt"), _PICKLE),
    **dict.fromkeys((".npz", ".npy"), "holds arrays without names of rewards; {expected}: write one column per reward"),
    ".wandb": "is W&B's own log of a run; {expected}: read the run with wandb:ENTITY/PROJECT/RUN, or export its table",
    **dict.fromkeys((".xlsx", ".xls", ".ods"), "is a spreadsheet; {expected}: save it as CSV"),
    **dict.fromkeys(
        (".zip", ".tar", ".tgz", ".7z", ".rar"), "is an archive; {expected}: unpack it, and name the folder"
    ),
    **dict.fromkeys((".html", ".htm", ".pdf", ".png"), "is a page; {expected}: name the logs it was made of"),
    **dict.fromkeys((".safetensors", ".gguf"), "holds weights of a model; {expected}: name the logs of the run"),
}


def records_of(path: Path, notes: list[str]) -> Iterator[Record]:
    """Return the records of a file of any format; what was left out is added to ``notes``.

    Raises:
        DataError: the format is not supported, or the file is damaged.
    """
    suffix = suffix_of(path)
    if "tfevents" in path.name:
        raise DataError(
            f"{path} holds TensorBoard's scalars, one mean per step; {EXPECTED}, with one row per completion: log "
            "rollouts, with TRL by log_completions=True, with verl by trainer.rollout_data_dir=FOLDER"
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
    raise DataError(f"cannot read {path}: its kind is not known; {EXPECTED}: convert it, or name another file")


def cannot_be_read(path: Path) -> bool:
    """Tell whether a file is of a kind that is refused with a reason."""
    return suffix_of(path) in _REFUSED or "tfevents" in path.name


def _looks_like_json(path: Path) -> bool:
    with opened(path) as file:
        start = file.read(1000).removeprefix(BOM).lstrip()
    return start[:1] in (b"{", b"[")
