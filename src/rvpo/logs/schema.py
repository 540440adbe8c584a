"""The record of a run: one row per completion and channel, in parquet, one file per step.

The engines write it (``rvpo.logs.writer``), and ``rvpo.logs.read_channels`` reads it. ``channels/000001.parquet`` is
the first training step, ``channels/eval_000001.parquet`` an evaluation after it. The file's metadata has this JSON
under ``rvpo.records``::

    version    4; a reader refuses a version that is newer than its own
    config     rvpo.AdvantageConfig as plain values: {method: {name, …options}, eps, ddof, rtol, missing}
    progress   share of the training that was done, needed to replay a scheduled k; null if unknown
    ranges     channel -> [lowest, highest] of its rewards; null if not declared
    schedules  reward function -> text of the schedule of its weight; older files do not have this key
    by_token   whether rows were whitened with their number of tokens (verl)
    follows    the previous step with batches, null at the start: a step may train on older completions
    structure  structures that were applied before the method, as texts in order; see rvpo.step.structure
    monitor    names of channels that were only monitored, because the user chose so
    solved     names of channels that a completion has to meet to solve its question; empty or absent: all trained ones
    written    seconds since 1970: shows which files an older run left in the same folder

With this metadata, the advantages can be computed again from the file, and from the files before it if the method
remembers the run.

- Version 4 has the columns and metadata of version 3. It may lack ``structure`` and ``monitor``, as older files do.
  Runs with a structure have further columns (:data:`STRUCTURE`). Up to version 3, the method ``grpo`` was what is
  ``grpo:unscored=left_out`` now; readers rename it.
- Version 3 has the columns and metadata of version 2. In versions 1 and 2, the method ``lift`` was what is ``lift_z``
  now, also as an option of another method; readers rename it.
- Version 1 stored the method's name and its options separately, and had a column ``reliability`` in every file.
"""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa

VERSION = 4
METADATA = b"rvpo.records"
FOLDER = "channels"
EVALUATION = "eval_"
"""Prefix of the step in the names of files that were not trained on."""

SCHEMA = pa.schema(
    {
        "step": pa.int64(),  # first training step that uses the completion, from 1; for an evaluation, the last step
        "batch": pa.int64(),  # index of the batch in the step, from 0: completions that were whitened together
        "completion": pa.int64(),  # row among the step's completions, as in completions/
        "group": pa.int64(),  # index of the prompt within the batch
        "reward_function": pa.string(),
        "channel": pa.string(),  # channel of the run: the function, or a family's category; methods use this name
        "criterion": pa.string(),  # null for a reward function that is one channel
        "text": pa.string(),
        "labels": pa.list_(pa.string()),
        "weight": pa.float64(),  # weight of the function, or of the criterion in its rubric
        "counts": pa.float64(),  # weight in the aggregation: the product of both, 0 if only monitored
        "reward": pa.float64(),  # null if missing
        "reason": pa.string(),  # why it is missing
        "detail": pa.string(),
        "live": pa.bool_(),
        "z": pa.float64(),  # null if missing
        "responsibility": pa.float64(),
        "advantage": pa.float64(),  # advantage of the completion that the policy was trained with
        "tokens": pa.int64(),  # number of tokens that were trained on, if rows are whitened with it
    }
)


RELIABILITY = {"reliability": pa.float64()}
"""An extra column in runs that trust channels differently: share of the channel's variance that is signal."""

STRUCTURE = {"entered": pa.float64(), "outside": pa.bool_()}
"""Extra columns in runs with a structure.

``entered`` is the reward that entered the aggregation, null if missing or outside. ``outside`` says whether the cell
was outside its group's normalisation, with z = 0. A channel that a structure made is a reward function of its own.
"""


PICTURES = {"pictures": pa.list_(pa.string())}
"""An extra column in runs with pictures: their digests, in the order of the prompt; null for an unknown picture.

``pictures/{digest}.png`` or ``.jpg`` in the run's folder is a small copy; see :mod:`rvpo.pictures`.
"""


def last_step(folder: Path, before: int) -> int | None:
    """Return the last training step below ``before`` that has a record in a folder; None without such a record."""
    steps = [int(path.stem) for path in folder.glob("*.parquet") if path.stem.isdecimal()]
    return max((step for step in steps if step < before), default=None)
