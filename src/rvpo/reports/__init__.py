"""See the neglect: logs of any run in, verdicts, replays, comparisons and one page out.

::

    schema.py      the one record of a run, as our engines write it
    records.py     any logs -> batches of rewards, groups and advantages
    diagnose.py    which reward is being ignored, and how sure that is
    replay.py      what another rule would have done
    compare.py     runs by method over seeds, tested
    page.py        one HTML file of it all

Needs the extra ``report``. Reads records only; no engine is named here.
"""
