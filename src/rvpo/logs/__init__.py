"""The record of a run: written by our engines, read back from anybody's logs.

::

    schema.py           the one record that our engines write
    writer.py           writes it, one file per step
    run.py              what every reader returns: a run of batches
    open.py             finds out what a path holds and picks the reader:
    read_channels.py    our own record
    read_trl.py         TRL's completions/
    tables/             any other file or folder with one row per completion

Needs the extra ``report``. No engine is named here.
"""
