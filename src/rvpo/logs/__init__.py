"""The record of a run: our engines write it, and readers also accept the logs of other trainers.

::

    schema.py           the record that our engines write
    writer.py           writes it, one file per step
    run.py              the result of every reader: a run of batches
    guess.py            a guess about the logs
    open.py             determines what a path contains and picks the reader:
    read_channels.py    our own record
    read_trl.py         TRL's completions/
    tables/             any other file or folder with one row per completion

Needs the extra ``report``. Batches are NumPy arrays; only the writer takes tensors. Nothing here depends on an engine.
"""
