"""Files of a run: opened once, read like Arrow does, and anew when they change."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from rvpo import Aggregator
from rvpo.errors import ConfigError
from rvpo.logs.open import open_run
from rvpo.logs.parquet_files import ParquetFiles, numbers
from rvpo.logs.writer import ChannelTable


@pytest.mark.parametrize(
    "column",
    [
        pa.chunked_array([[1.5, None, float("nan")], [-0.0]], pa.float64()),
        pa.chunked_array([[0.1, None]], pa.float32()),
        pa.chunked_array([[True, None, False]]),
        pa.chunked_array([[2**62 + 1, None, -3]], pa.int64()),
        pa.chunked_array([pa.array([1.0, None, 3.0, 4.0, None, 6.0, 7.0, 8.0, 9.0, None]).slice(3, 7)]),
        pa.chunked_array([[None, None]], pa.float64()),
        pa.chunked_array([], pa.float64()),
    ],
    ids=["chunks", "single", "bool", "int", "slice", "nothing", "empty"],
)
def test_numbers_are_those_of_arrow(column: pa.ChunkedArray):
    whole = column.cast(pa.int8()) if pa.types.is_boolean(column.type) else column
    np.testing.assert_array_equal(numbers(column), whole.cast(pa.float64(), safe=False).to_numpy())


def test_columns_come_by_their_names_alone(tmp_path: Path):
    path = tmp_path / "a.parquet"
    pq.write_table(pa.table({"a": [1], "a.b": [2], "c": [{"d": 3}]}), path)
    files = ParquetFiles()
    assert files.table(path, ["c", "a", "a"]).to_pylist() == [{"c": {"d": 3}, "a": 1}]
    assert files.table(path, ["a.b"]).to_pylist() == [{"a.b": 2}]
    with pytest.raises(KeyError):
        files.table(path, ["c.d"])


def test_a_file_that_changed_is_read_anew_by_the_next_reader(tmp_path: Path):
    path = tmp_path / "a.parquet"
    pq.write_table(pa.table({"a": [1]}), path)
    files = ParquetFiles()
    assert files.table(path, ["a"])["a"].to_pylist() == [1]
    pq.write_table(pa.table({"a": [2]}), path)
    assert files.table(path, ["a"])["a"].to_pylist() == [1]  # all passes of one reader agree
    assert ParquetFiles().table(path, ["a"])["a"].to_pylist() == [2]


def trl(folder: Path, steps: int) -> Path:
    """Write the completions of a run of TRL."""
    (folder / "completions").mkdir(parents=True)
    for step in range(1, steps + 1):
        rewards = [0.0, 1.0, 1.0, float(step % 2)]
        advantages = (np.array(rewards) - np.mean(rewards)).tolist()
        columns = {"prompt": [f"question {step}"] * 4, "completion": list("abcd"), "correct": rewards}
        table = pa.table({"step": [step] * 4, **columns, "advantage": advantages})
        pq.write_table(table, folder / "completions" / f"completions_{step:05d}.parquet")
    return folder


def record(folder: Path, steps: int) -> Path:
    """Write the record of a run."""
    aggregator, table = Aggregator("rvpo", ["correct"]), ChannelTable(folder / "channels")
    for step in range(1, steps + 1):
        table.add(step, aggregator(torch.tensor([[0.0], [1.0], [1.0], [step % 2]]), num_generations=4))
    return folder


@pytest.mark.parametrize("write", [trl, record])
def test_a_part_of_a_long_run_needs_its_own_files_alone(tmp_path: Path, write):
    write(tmp_path, 40)
    whole = open_run(tmp_path).between(36, None)
    for step in (1, 3):
        file = next(iter(tmp_path.glob(f"*/*{step:05d}.parquet")))
        stamp = file.stat().st_mtime
        file.write_bytes(b"damaged")
        os.utime(file, (stamp, stamp))
    part = open_run(tmp_path, steps=(36, None))
    assert (part.steps, part.every_batch) == (whole.steps, whole.every_batch)
    for one, other in zip(part.batches(), whole.batches(), strict=True):
        assert np.array_equal(one.rewards, other.rewards)
    with pytest.raises(ConfigError, match=r"steps 50 to 40 of .* do not exist; expected steps from 1 to 40"):
        open_run(tmp_path, steps=(50, None))


@pytest.mark.parametrize("copied", [False, True])
def test_what_an_older_run_left_behind_is_not_taken_for_a_part(tmp_path: Path, copied: bool):
    record(tmp_path, 8)
    later = tmp_path / "later"
    record(later, 4)
    for file in (later / "channels").iterdir():  # a second run that got as far as step 4
        file.rename(tmp_path / "channels" / file.name)
    if copied:  # all files are of the same time then
        for file in (tmp_path / "channels").iterdir():
            file.write_bytes(file.read_bytes())
            os.utime(file, (10.0, 10.0))
    assert open_run(tmp_path).steps == (1, 2, 3, 4)
    with pytest.raises(ConfigError, match="do not exist"):
        open_run(tmp_path, steps=(6, None))
