"""The record of a run: one row for each completion and each of its channels, in parquet, one file per step.

Both engines write it (``rvpo.logs.writer``), ``rvpo.logs.read_channels`` reads it. ``channels/000001.parquet`` is the
first training step, ``channels/eval_000001.parquet`` an evaluation after it. The file's metadata says under
``rvpo.records``, as JSON::

    version    5; a reader refuses what is newer than itself
    config     rvpo.AdvantageConfig as plain values: {method: {name, …options}, eps, ddof, rtol, missing}
    progress   share of the training that was done, by which a scheduled k is replayed; null if unknown
    ranges     channel -> [lowest, highest] of its rewards, null where nobody declared it
    schedules  reward function -> text of the schedule that its weight follows; older files lack it, as they had none
    by_token   whether rows were whitened by their number of tokens (verl)
    follows    the step whose batches came before these, null at the start: a step may train on older completions
    structure  structures that were applied before the method, as texts in order; see rvpo.step.structure
    monitor    names of channels that were only monitored by the user's choice
    solved     names of channels that a completion has to meet to solve its question; empty or absent: all trained ones
    written    seconds since 1970: what an older run left in the same folder is older than what precedes it

so that the advantages can be computed again from the file, and from the files before it where a method remembers.

- Version 4 has the columns and metadata of version 3. It may lack ``structure`` and ``monitor``, as files did before
  there was any; runs with a structure have further columns (:data:`STRUCTURE`). Up to version 3, the method ``grpo``
  was the one that is ``grpo:unscored=left_out`` now; readers say so.
- Version 3 has the columns and metadata of version 2. In versions 1 and 2, the method that is called ``lift`` is the
  one that is ``lift_z`` now, also as an option of another method; readers rename it.
- Version 1 had the method's name and its options apart, and a column ``reliability`` in every file.
"""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa

VERSION = 4
METADATA = b"rvpo.records"
FOLDER = "channels"
EVALUATION = "eval_"
"""Before the step in the names of files that were not trained on."""

SCHEMA = pa.schema(
    {
        "step": pa.int64(),  # the training step that first uses the completion, from 1; for an evaluation, the last
        "batch": pa.int64(),  # of the step, from 0: completions that were whitened together
        "completion": pa.int64(),  # its row among the step's completions, as in completions/
        "group": pa.int64(),  # its prompt, within the batch
        "reward_function": pa.string(),
        "channel": pa.string(),  # of the run: the function, or a family's category, under which methods remember it
        "criterion": pa.string(),  # null for a reward function that is one channel
        "text": pa.string(),
        "labels": pa.list_(pa.string()),
        "weight": pa.float64(),  # of the function; of the criterion in its rubric
        "counts": pa.float64(),  # weight in the aggregation: both multiplied, 0 where only monitored
        "reward": pa.float64(),  # null where missing
        "reason": pa.string(),  # why it is missing
        "detail": pa.string(),
        "live": pa.bool_(),
        "z": pa.float64(),  # null where missing
        "responsibility": pa.float64(),
        "advantage": pa.float64(),  # of the completion, as trained with
        "tokens": pa.int64(),  # of the completion that were trained on, where rows are whitened by them
    }
)


RELIABILITY = {"reliability": pa.float64()}
"""A further column, share of the channel's variance that counts as signal, in runs that trust channels differently."""

STRUCTURE = {"entered": pa.float64(), "outside": pa.bool_()}
"""Further columns in runs with a structure.

``entered`` is the reward as it entered the aggregation, null where missing or outside; ``outside`` whether the cell
stood outside of its group's normalisation, with z = 0. A channel that a structure made is a reward function of its own.
"""


PICTURES = {"pictures": pa.list_(pa.string())}
"""A further column in runs with pictures: their digests, in the order of the prompt; null for one that is unknown.

``pictures/{digest}.png`` or ``.jpg`` in the run's folder is a small copy; see :mod:`rvpo.pictures`.
"""


def last_step(folder: Path, before: int) -> int | None:
    """Return the last training step below ``before`` that has a record in a folder, None where there is none."""
    steps = [int(path.stem) for path in folder.glob("*.parquet") if path.stem.isdecimal()]
    return max((step for step in steps if step < before), default=None)
