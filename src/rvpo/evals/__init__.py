"""Did it help? Benchmarks on a checkpoint, and comparisons that say what is signal and what is noise.

::

    items.py        what a benchmark is: items, replies, scores
    run.py          generate, score, write the records
    store.py        replies and scores on disk as they come: what a stopped run goes on from
    policy.py       who replies: endpoint.py (a server), local.py (a folder, an adapter, a hub id); models.py chooses
    gpqa.py  healthbench.py  bfcl.py  toolcall.py    the benchmarks; build.py makes them from plain options
    compare.py      runs beside each other, as finished.py reads them back, by the tests of rvpo/statistics
    commands.py     ``rvpo eval …``

During training: ``rvpo/engines/trl/evaluation.py``. For users: ``docs/evals.md``.
"""
