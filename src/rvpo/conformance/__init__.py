"""``rvpo check``: test whether an advantage function, ours or yours, has the properties that training relies on.

The function under test (the target) is called on small seeded batches. Each property checks one thing. The modules::

    target.py      what is checked: a batch, an answer, a callable target, and what it declares about itself
    calling.py     the two ways to call a function: by completions (N, M), or by tokens as verl does
    targets.py     from a name such as ``lift``, ``verl:gdpo`` or ``file.py:function`` to a target
    examples.py    the batches
    properties/    the properties: required ones, and others that only describe the kind of rule
    shrink.py      reduce a failing batch to a small one
    processes.py   compare one process with several
    suite.py       run all properties, and the report
    show.py        the report as text and JSON

No module here imports an engine: the adapters to TRL's and verl's own functions are ``rvpo.engines.*.conformance``.
"""
