"""axolotl: ``RVPOTrainer`` for ``rl: grpo``, by a plug-in and a section ``rvpo:`` in its YAML file.

axolotl asks plug-ins for a trainer class, but then builds it without the model and the reward functions. So the plug-in
sets ``trainer_cls``, whose trainer gets both. Module by module::

    plugin.py    the plug-in: the section, checked; settings refused that would go past RVPO
    section.py   the options of the section
    trainer.py   axolotl's trainer with RVPOMixin in front, and its arguments with the section's options
"""
