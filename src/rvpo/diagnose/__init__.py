"""Which reward is being ignored? From the logs of a run to a verdict per channel.

::

    diagnose.py      count, estimate, judge: the whole way
    aggregating.py   what a method makes of a batch: in NumPy, or by the core, which needs torch
    group_sums.py    what is counted per group and channel
    sums.py          the sums of a whole run, in memory that does not grow with it
    estimates.py     statistics from these sums, with intervals
    verdicts.py      the rules from statistics to verdicts, and the sentences
    diagnosis.py     the result
    replay.py        what other rules would have done with the same rewards
    text.py          both as tables for a terminal or Markdown

Needs the extra ``report``; what calls the core, such as a replay, also ``torch``.
"""
