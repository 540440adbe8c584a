"""See the neglect: logs of any run in, verdicts, replays, comparisons and one page out.

::

    schema.py      the one record of a run, as our engines write it
    opening.py     any logs -> a run of batches (records.py): channel_tables, completions, tables read them
    diagnose.py    which reward is being ignored, and how sure that is: group_sums, sums -> estimates -> verdicts
    replay.py      what another rule would have done
    compare.py     runs by method over seeds, tested: run_groups, curves -> compare_rows -> compare_tables
    report.py      the data of one HTML file of it all; page/ is the file, live.py serves it

Needs the extra ``report``. Reads records only; no engine is named here.
"""
