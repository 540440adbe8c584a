"""Did it help? Benchmarks on a checkpoint, and comparisons that say what is signal and what is noise.

::

    items.py        what a benchmark is: items, replies, scores
    run.py          generate, score, keep everything on disk: resumable
    models.py       who replies: a folder, an adapter, a hub id, a server
    gpqa.py  healthbench.py  bfcl.py  toolcall.py      the benchmarks
    statistics.py   intervals and tests on paired items
    compare.py      runs beside each other
    commands.py     ``rvpo eval …``
"""
