"""What ``import unsloth`` does to TRL's GRPO trainer, in miniature, and a training on top of it.

The real import needs a GPU. Unsloth (2026.10) compiles TRL's own source under another name, derives a class with
explicit arguments from it, and puts that in place of ``GRPOTrainer`` in ``trl``, ``trl.trainer`` and the module that
defines it; the same with ``GRPOConfig``, whose new class says that it is TRL's. ``python unsloth_stand_in.py JOB.json``
trains and prints what reached the loss.
"""

from __future__ import annotations

import dataclasses
import functools
import inspect
import json
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import trl
import trl.trainer.grpo_config
import trl.trainer.grpo_trainer

DERIVED = """

@dataclasses.dataclass
class UnslothGRPOConfig(GRPOConfig):
    vllm_sampling_params: object = None
    unsloth_num_chunks: int = -1

    def __init__(self, output_dir=None, learning_rate=5e-05, vllm_sampling_params=None, unsloth_num_chunks=-1,
                 **kwargs):
        super().__init__(output_dir=output_dir, learning_rate=learning_rate, **kwargs)
        self.vllm_sampling_params, self.unsloth_num_chunks = vllm_sampling_params, unsloth_num_chunks


class UnslothGRPOTrainer(_UnslothGRPOTrainer):
    def __init__(self, model, reward_funcs, args=None, train_dataset=None, eval_dataset=None, processing_class=None,
                 callbacks=None, **kwargs):
        if args is None:
            args = UnslothGRPOConfig()
        model.for_training = model.for_inference = lambda *_, **__: None
        super().__init__(model=model, reward_funcs=reward_funcs, args=args, train_dataset=train_dataset,
                         eval_dataset=eval_dataset, processing_class=processing_class, callbacks=callbacks, **kwargs)
        assert args.unsloth_num_chunks == -1
"""


def patch() -> None:
    """Replace TRL's classes as Unsloth does."""
    source = inspect.getsource(trl.trainer.grpo_trainer)
    scored = "rewards_per_func = self._calculate_rewards(inputs, prompts, completions, completion_ids_list)"
    assert scored in source
    source = source.replace("class GRPOTrainer", "class _UnslothGRPOTrainer", 1)
    created = ModuleType("UnslothGRPOTrainer")
    created.__package__ = "trl.trainer"
    sys.modules["UnslothGRPOTrainer"] = created
    vars(created)["dataclasses"] = dataclasses
    exec(compile(source + DERIVED, "UnslothGRPOTrainer.py", "exec"), vars(created))
    trainer, config = created.UnslothGRPOTrainer, created.UnslothGRPOConfig
    theirs = trainer._generate_and_score_completions

    @functools.wraps(theirs)
    def restoring(self: Any, *args: Any, **kwargs: Any) -> Any:
        try:
            return theirs(self, *args, **kwargs)
        finally:
            self.model.for_inference()

    trainer._generate_and_score_completions = restoring
    config.__module__, config.__qualname__, config.__name__ = "trl.trainer.grpo_config", "GRPOConfig", "GRPOConfig"
    for module in (trl, trl.trainer, trl.trainer.grpo_trainer):
        module.GRPOTrainer, module.GRPOConfig = trainer, config
    trl.trainer.grpo_config.GRPOConfig = config


def main() -> None:
    job = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    patch()
    from tiny_run import even, high, make_trainer

    from rvpo.trl import RVPOConfig, RVPOTrainer

    assert any(cls.__name__ == "UnslothGRPOTrainer" for cls in RVPOTrainer.__mro__)
    seen: dict[str, list[Any]] = {"rewards": [], "advantages": []}

    class Noting(RVPOTrainer):
        def _calculate_rewards(self, *args: Any, **kwargs: Any) -> Any:
            rewards = super()._calculate_rewards(*args, **kwargs)
            rewards[::3, 1] = float("nan")
            seen["rewards"].append(rewards.nan_to_num(nan=-1.0).tolist())
            return rewards

        def compute_loss(self, model: Any, inputs: Any, *args: Any, **kwargs: Any) -> Any:
            seen["advantages"].append(inputs["advantages"].tolist())
            return super().compute_loss(model, inputs, *args, **kwargs)

    trainer = make_trainer(
        Path(job["model"]),
        Path(job["output"]),
        [even, high],
        trainer=Noting,
        config=RVPOConfig,
        method="lift",
        max_steps=3,
        save_strategy="steps",
        save_steps=3,
    )
    trainer.train()
    assert isinstance(trainer.args, trl.GRPOConfig)
    print(json.dumps(seen))


if __name__ == "__main__":
    main()
