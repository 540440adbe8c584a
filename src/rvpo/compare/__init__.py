"""Compares runs: is one method better than another, or was it luck?

One engine, two kinds of input. Each kind reads its runs and makes samples; everything after that is shared::

    trainings.py       training runs, grouped by method over seeds -> samples, one per measure and channel
        run_groups.py, run_origins.py    which runs belong together; the method and the seed of a run
        curves.py                        the curves of a run, and the few numbers that summarise it
        exploration.py                   solved questions, Pass@k and entropy of all runs
    benchmarks.py      runs of ``rvpo eval``, paired by item -> samples, one per metric
        finished.py                      reads the folder of a finished run
        foreign.py, foreign_items.py     read results of other evaluators

    folders.py         parses ``NAME=FOLDER,FOLDER`` on a command line
    engine.py          options, baseline, Holm's adjustment over families, verdicts
    comparison.py      the result: rows, groups, notes, JSON
    pass_curve.py      Pass@k over k as a picture
    tables.py          the result as tables, for a terminal and in Markdown
"""
