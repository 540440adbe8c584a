"""The parts of the algorithm that a diagnosis needs, in NumPy, so that logs can be diagnosed without torch.

::

    groups.py    groups of rows with the same prompt, and sums over them
    scores.py    z-scores within groups, as in rvpo.core.normalize
    rules.py     the soft minimum's responsibilities, and the advantages of GRPO and GDPO
    met.py       which completions meet a channel, and Pass@k

:mod:`rvpo.core` is the specification, and tests/arrays compares each function with it. Other methods are not
implemented here: a replay calls the core.
"""
