"""axolotl: ``RVPOTrainer`` for ``rl: grpo``, with a plug-in and a section ``rvpo:`` in its YAML file.

axolotl asks plug-ins for a trainer class, but then builds it without the model and the reward functions. So the plug-in
sets ``trainer_cls`` instead: that trainer gets both. The modules::

    plugin.py    the plug-in: checks the section, and refuses settings that would bypass RVPO
    section.py   the options of the section
    trainer.py   axolotl's trainer with RVPOMixin before it, and its arguments with the section's options
"""
