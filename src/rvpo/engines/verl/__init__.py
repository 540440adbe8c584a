"""verl: every method of ``rvpo.core`` in verl's v1 trainer, started as ``python -m rvpo.verl <verl's overrides>``.

The seam, for verl 0.9.1, whose estimators never see the single rewards of a completion: ``trainer.py`` subclasses
verl's trainers through its registry, fetches what the reward function returned (``extra_fields["reward_extra_info"]``)
and hands it to the advantage estimator that ``estimator.py`` registers; ``main.py`` gives verl's ``run_ppo`` a task
runner that knows both. Nothing of verl is patched or copied. Module by module::

    config.py     verl's config, read and checked before Ray starts
    checks.py     what verl would ignore, or fail on late
    spelling.py   ``algorithm.adv_estimator``, in every spelling of a method
    options.py    the options under ``algorithm.rvpo``
    rewards.py    our rewards and judges as verl's ``custom_reward_function``
    wire.py       how channels that differ between prompts travel from there to the trainer
    node_cache.py where the reward workers of a node share verdicts if no file is named
    judge_totals.py what the judges in the reward workers did and cost
    rows.py       which rows of a batch count, and their channels
    estimator.py  one advantage per completion -> verl's token-level tensor
    trainer.py    the step: fetch, aggregate, log; state in verl's checkpoints
    last_step.py  a checkpoint when rewards end the run
    losses.py     rollouts that verl loses: counted, with their cause
    plugin.py     what verl's own entry point says about our methods; placeholder.py has the text
    data.py       our prompts -> verl's parquet files
"""
