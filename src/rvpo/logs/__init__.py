"""The record of a run: written by our engines, read back from anybody's logs.

::

    schema.py           the one record that our engines write
    writer.py           writes it, one file per step
    run.py              what every reader returns: a run of batches
    guess.py            what had to be guessed
    open.py             finds out what a path holds and picks the reader:
    read_channels.py    our own record
    read_trl.py         TRL's completions/
    tables/             any other file or folder with one row per completion

Needs the extra ``report``. Batches are arrays of NumPy; the writer alone takes tensors. No engine is named here.
"""
