"""verl: every method of ``rvpo.core`` in verl's v1 trainer, started as ``python -m rvpo.verl <verl's overrides>``.

How it connects to verl 0.9.1: verl's estimators do not get the single rewards of a completion. So ``trainer.py``
subclasses verl's trainers through its registry, reads the results of the reward function
(``extra_fields["reward_extra_info"]``) and passes them to the advantage estimator that ``estimator.py`` registers.
``main.py`` gives verl's ``run_ppo`` a task runner that uses both. No code of verl is patched or copied. The modules::

    config.py     reads and checks verl's config before Ray starts
    checks.py     refuses settings that verl would ignore, or fail on late
    spelling.py   reads ``algorithm.adv_estimator``, in every spelling of a method
    options.py    the options under ``algorithm.rvpo``
    rewards.py    our rewards and judges as verl's ``custom_reward_function``
    wire.py       sends channels that differ between prompts from there to the trainer, as text
    node_cache.py the file in which the reward workers of a node share verdicts if no file is named
    judge_totals.py sums what the judges in the reward workers did and cost
    rows.py       finds the rows of a batch that count, and their channels
    estimator.py  one advantage per completion -> verl's token-level tensor
    trainer.py    the step: fetch, aggregate, log; saves state in verl's checkpoints
    last_step.py  saves a checkpoint when rewards end the run
    losses.py     counts rollouts that verl loses, with their cause
    plugin.py     the error of verl's own entry point about our methods; placeholder.py has the text
    data.py       our prompts -> verl's parquet files
"""
