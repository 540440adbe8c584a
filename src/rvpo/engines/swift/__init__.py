"""ms-swift: every method of ``rvpo.core`` in its GRPO trainers, with a plug-in of two lines::

    import rvpo.swift                                                   # plugin.py, for --external_plugins
    rvpo.swift.use(method="lift", reward_ranges={"correct": [-3, 3]})

ms-swift computes advantages in two functions of ``swift.rl_core.advantage``. Its trainers import them by name, and
ms-swift has no registry for others. So these functions are replaced. The modules::

    plugin.py   ``use``: checks the options of a run, and refuses a second call with other options
    seam.py     replaces the functions of ms-swift, and checks at the start and at every batch that they are in use
    hooks.py    the trainer of transformers (``swift rlhf``): saves checkpoints, and checks what reaches the loss
    adapter.py  one trainer: passes its rewards to ``rvpo.Aggregator``, and gives it advantages, metrics and records
"""
