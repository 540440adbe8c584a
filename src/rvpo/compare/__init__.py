"""Runs next to each other: is one better, or was it luck?

::

    trainings.py     training runs by method over seeds: run_groups.py, run_origins.py and curves.py read them
    benchmarks.py    runs of ``rvpo eval``, paired by item: finished.py reads them
    rows.py, comparison.py, tables.py    the tests, the result and its tables, for trainings
    folders.py       ``NAME=FOLDER,FOLDER`` on a command line
"""
