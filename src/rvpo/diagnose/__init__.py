"""Which reward is being ignored? From the logs of a run to a verdict per channel.

::

    diagnose.py      the whole diagnosis: count, estimate, judge
    aggregating.py   applies a method to a batch: in NumPy, or with the core, which needs torch
    group_sums.py    the sums per group and channel
    sums.py          the sums of a whole run, in memory that does not grow with it
    estimates.py     statistics from these sums, with intervals
    verdicts.py      the rules from statistics to verdicts, and the sentences
    diagnosis.py     the result
    replay.py        the advantages that other methods would have given the same rewards
    text.py          diagnosis and replay as tables for a terminal or Markdown

Needs the extra ``report``. Parts that call the core, such as a replay, also need ``torch``.
"""
