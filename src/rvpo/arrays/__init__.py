"""What a diagnosis needs of the algorithm, in NumPy: logs are read and diagnosed where torch is not installed.

::

    groups.py    rows that answer one prompt, and sums over them
    scores.py    z-scores within groups, as rvpo.core.normalize
    rules.py     the soft minimum's responsibilities, and the advantages of GRPO and GDPO
    met.py       which completions meet a channel, and Pass@k

:mod:`rvpo.core` is the specification: tests/arrays compares each function with it. Other methods are not repeated here.
A replay calls the core itself.
"""
