"""Did it help? Benchmarks on a checkpoint, and comparisons that say what is signal and what is noise.

::

    items.py        what a benchmark is: items, replies, scores
    run.py          generate, score, write the records
    store.py        replies and scores, saved as they arrive, so that a stopped run can continue
    policy.py       the model that replies: endpoint.py (a server), local.py (a folder, an adapter, a hub id);
                    models.py chooses between the two
    gpqa.py  healthbench.py  bfcl.py  toolcall.py  math.py  code.py    the benchmarks; build.py makes them from options
    math_data.py  code_data.py    rows of public data sets as problems
    answers.py      the answer that a reply states
    samples.py  votes.py    several samples of an item: Pass@k, majority

Comparisons are in ``rvpo/compare``, the command line in ``rvpo/cli/eval.py``.

During training: ``rvpo/engines/trl/evaluation.py``. For users: ``docs/evals.md``.
"""
