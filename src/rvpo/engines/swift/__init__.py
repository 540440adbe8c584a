"""ms-swift: every method of ``rvpo.core`` in its GRPO trainers, by a plug-in of two lines::

    import rvpo.swift                                                   # plugin.py, for --external_plugins
    rvpo.swift.use(method="lift", reward_ranges={"correct": [-3, 3]})

ms-swift computes advantages in two functions of ``swift.rl_core.advantage`` that its trainers import by name and that
nothing can register for. Module by module::

    plugin.py   ``use``: the options of a run, checked; every second setup refused
    seam.py     what of ms-swift is replaced, and how its place is checked before and at every batch
    hooks.py    the trainer of transformers (``swift rlhf``): checkpoints, and what reaches the loss
    adapter.py  one trainer: its rewards to ``rvpo.Aggregator``, its metrics and records back
"""
