"""Did it help? Benchmarks on a checkpoint, and comparisons that say what is signal and what is noise.

::

    items.py        what a benchmark is: items, replies, scores
    run.py          generate, score, write the records
    store.py        replies and scores on disk as they come: what a stopped run goes on from
    policy.py       who replies: endpoint.py (a server), local.py (a folder, an adapter, a hub id); models.py chooses
    gpqa.py  healthbench.py  bfcl.py  toolcall.py  math.py  code.py    the benchmarks; build.py makes them from options
    math_data.py  code_data.py    rows of public data sets as problems
    answers.py      what a reply states as its answer
    samples.py  votes.py    several samples of an item: Pass@k, majority

Comparisons are in ``rvpo/compare``, the command line in ``rvpo/cli/eval.py``.

During training: ``rvpo/engines/trl/evaluation.py``. For users: ``docs/evals.md``.
"""
