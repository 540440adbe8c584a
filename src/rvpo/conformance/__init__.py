"""``rvpo check``: does an advantage function, ours or anybody's, keep what training relies on?

A target is called on small seeded batches, and each property asks one thing of its answers. Module by module::

    target.py      what is checked: a batch, an answer, a function that can be called, and what it declares of itself
    calling.py     the two ways a function is called: by completions (N, M), or by tokens as verl does
    targets.py     from a name such as ``lift``, ``verl:gdpo`` or ``file.py:function`` to a target
    examples.py    the batches
    properties/    the properties: required ones, and ones that only describe what kind of rule it is
    shrink.py      a failing batch made small
    processes.py   one process against several
    suite.py       run all, and the report
    show.py        the report as text and JSON

Nothing here knows an engine: the adapters to TRL's and verl's own functions are ``rvpo.engines.*.conformance``.
"""
