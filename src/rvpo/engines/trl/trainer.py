"""``RVPOTrainer``: TRL's ``GRPOTrainer`` with advantages from ``rvpo.core``."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import torch
from trl import GRPOTrainer

from rvpo.core import AdvantageConfig, Advantages
from rvpo.core.ragged import Family
from rvpo.engines.trl import buffer
from rvpo.engines.trl.config import RVPOConfig
from rvpo.engines.trl.judged_twice import rows_to_judge_twice, second_judgement
from rvpo.engines.trl.rubrics import RandomState, gather_families, judge_totals
from rvpo.errors import ConfigError, EngineError, JudgeError
from rvpo.logs.schema import FOLDER
from rvpo.logs.writer import ChannelTable
from rvpo.rewards.rubric import RubricReward
from rvpo.rewards.rubric.reward import too_many_missing
from rvpo.step.aggregator import Aggregator
from rvpo.step.memory import Again


class RVPOTrainer(GRPOTrainer):  # type: ignore[misc]
    """Train on many rewards. Takes the arguments of ``trl.GRPOTrainer``, with an :class:`RVPOConfig` as ``args``.

    Each reward function is one channel. It may be sync or async and may return None (or NaN) where a completion could
    not be scored; that channel is then left out for that completion. A :class:`rvpo.rewards.rubric.RubricReward` is as
    many channels as the prompt's rubric has criteria.

    Besides TRL's own metrics it logs ``rvpo/k``, ``rvpo/no_signal/groups``, ``rvpo/no_signal/completions`` and, for
    each channel, ``rvpo/{name}/mean``, ``std``, ``live``, ``dead``, ``missing``, ``responsibility``, ``bottleneck``
    and ``advantage_corr`` (see :func:`rvpo.core.metrics.channel_metrics`), and what the method itself has to say,
    such as ``rvpo/{name}/weight``. For rubrics the same by category and tag
    (``rvpo/{name}/{label}/mean`` …) and the judge's totals (``rvpo/{name}/judge/calls`` …). With ``log_completions``,
    every channel of every completion stands in ``channels/*.parquet``, which ``rvpo diagnose`` reads.

    When more verdicts of a generation are missing than ``RubricReward.max_missing`` allows, the trainer saves a
    checkpoint and raises JudgeError; resumed, it generates the same completions again (vLLM draws others).

    Raises:
        ConfigError: when ``args`` is a plain ``GRPOConfig``, or two reward functions share a name.
        EngineError: when the installed TRL does not behave as the two overrides rely on.
    """

    _tag_names = ("trl", "rvpo")
    _name = "RVPO"
    _paper = {  # noqa: RUF012 (TRL's own declaration)
        "title": "RVPO: Risk-Sensitive Alignment via Variance Regularization",
        "id": "2605.05750",
    }

    def __init__(
        self, model: Any, reward_funcs: Any = None, args: RVPOConfig | None = None, *rest: Any, **kwargs: Any
    ) -> None:
        """Check the config's type and hand everything to TRL."""
        if args is not None and not isinstance(args, RVPOConfig):
            raise ConfigError(
                f"args is a {type(args).__name__}, allowed is rvpo.trl.RVPOConfig: rename GRPOConfig, its options stay"
            )
        if args is None:
            name = model if isinstance(model, str) else model.config._name_or_path
            args = RVPOConfig(f"{Path(name).name}-RVPO")
        self._channel_rewards: torch.Tensor | None = None
        self._again: Again | None = None
        self._train_sampler: Any = None
        super().__init__(model, reward_funcs, args, *rest, **kwargs)
        names = self.reward_func_names
        if twice := sorted({name for name in names if names.count(name) > 1}):
            raise ConfigError(
                f"{names.count(twice[0])} reward functions are named {twice[0]!r}, so their metrics and columns would "
                "overwrite each other: give each its own __name__"
            )
        own_ranges = [getattr(function, "reward_range", None) for function in self.reward_funcs]
        self._aggregator = Aggregator(self.args, names, own_ranges, judge_twice=bool(self.args.judge_twice))
        self._rubric_rewards = [function for function in self.reward_funcs if isinstance(function, RubricReward)]
        self._channels = ChannelTable(Path(self.args.output_dir) / FOLDER)
        self._after_step = RandomState()
        self._saved_step = 0  # of this run's last checkpoint; an older run's may lie in the folder

    def train(self, *args: Any, **kwargs: Any) -> Any:
        """Train, after a look at every rubric and a question to every judge: a dead server is found now."""
        evaluated = self.eval_dataset.values() if isinstance(self.eval_dataset, dict) else [self.eval_dataset]
        for reward in self._rubric_rewards:
            for dataset in (self.train_dataset, *evaluated):
                # A stream has no length, and reading it would not end.
                if hasattr(dataset, "num_rows") and reward.column in dataset.column_names:
                    reward.check_rubrics(dataset[reward.column])
            asyncio.run_coroutine_threadsafe(reward.check(), self.async_loop).result()
        return super().train(*args, **kwargs)

    def _calculate_rewards(
        self, inputs: list[Any], prompts: list[Any], completions: list[Any], completion_ids_list: list[Any]
    ) -> torch.Tensor:
        """Keep the rewards of all processes, (N, M), for the aggregation, and score some completions twice."""
        rewards: torch.Tensor = super()._calculate_rewards(inputs, prompts, completions, completion_ids_list)
        share = self.args.judge_twice if self.model.training else 0.0
        if rows := rows_to_judge_twice(share, len(prompts), self.args.seed, self._step):
            with second_judgement(self, self._rubric_rewards, rows):
                chosen = [[values[i] for i in rows] for values in (inputs, prompts, completions, completion_ids_list)]
                scored = super()._calculate_rewards(*chosen)
                families = gather_families(self._rubric_rewards)
            starts = range(0, rewards.shape[0], len(prompts))
            self._again = Again([start + i for start in starts for i in rows], scored, families)
        self._channel_rewards = rewards
        return rewards

    def _generate_and_score_completions(self, inputs: list[dict[str, Any]]) -> dict[str, Any]:
        """Replace the advantages that TRL made of the rewards, in the output and in the completions log."""
        self._channel_rewards = self._again = None
        tokens_before = self.state.num_input_tokens_seen
        output: dict[str, Any] = super()._generate_and_score_completions(inputs)
        rewards, self._channel_rewards = self._channel_rewards, None
        local = output["advantages"]
        if rewards is None or rewards.shape[0] != local.shape[0] * self.accelerator.num_processes:
            seen = "no rewards" if rewards is None else f"rewards of shape {tuple(rewards.shape)}"
            raise EngineError(
                f"TRL passed {seen} for {local.shape[0]} completions a process: this version's GRPOTrainer does not "
                "score as RVPOTrainer relies on. Install the versions in constraints.txt, and see `rvpo doctor`"
            )
        mode = "train" if self.model.training else "eval"
        families = gather_families(self._rubric_rewards)
        if mode == "train" and (problem := self._too_many_missing(families)):
            self.state.num_input_tokens_seen = tokens_before
            self._stop(problem)
        config = self.args.advantage_config(self._progress())
        result = self._advantages(mode, rewards, families, config)
        start = self.accelerator.process_index * local.shape[0]
        output["advantages"] = result.advantages[start : start + local.shape[0]].to(local)
        logged = self._logs["advantages"]
        for _ in range(min(len(logged), rewards.shape[0])):
            logged.pop()
        logged.extend(result.advantages.tolist())
        return output

    def _advantages(
        self, mode: str, rewards: torch.Tensor, families: list[Family], config: AdvantageConfig
    ) -> Advantages:
        """Aggregate the channels of all processes, and log what they say."""
        done = self._aggregator(
            rewards,
            families,
            config,
            weights=self.reward_weights,
            num_generations=self.num_generations if mode == "train" else self.num_generations_eval,
            learn=mode == "train",
            again=self._again,
        )
        for key, value in done.metrics.items():
            self._metrics[mode][key].append(value)
        for key, value in judge_totals(self._rubric_rewards).items():
            self._metrics[mode][key] = [value]  # a total: TRL would average those of several generations
        if self.log_completions and self.accelerator.is_main_process:
            trained = mode == "train"
            weights = dict(zip(self.reward_func_names, self.reward_weights.tolist(), strict=True))
            self._channels.add(self.state.global_step + trained, weights, families, done, trained=trained)
        return done.result

    def _maybe_log_save_evaluate(self, *args: Any, **kwargs: Any) -> Any:
        result = super()._maybe_log_save_evaluate(*args, **kwargs)
        if self._rubric_rewards:
            # What a checkpoint of this step holds, should the next generation's judge fail: a new epoch draws before.
            self._after_step = RandomState()
        return result

    def _too_many_missing(self, families: list[Family]) -> str | None:
        """Return what is wrong with the verdicts of this generation; all processes see the same."""
        for family, reward in zip(families, self._rubric_rewards, strict=True):
            if problem := too_many_missing(family.rows, reward.max_missing):
                return f"{family.name!r}: {problem}"
        return None

    def _stop(self, problem: str) -> None:
        """Save a checkpoint of the last finished step, from which a resumed run generates this batch again; raise."""
        step = self.state.global_step
        saved = "nothing was trained yet"
        if step:
            folder = Path(self.args.output_dir) / f"checkpoint-{step}"
            if self._saved_step != step:
                self._after_step.restore()
                self._save_checkpoint(self.model, trial=None)
            saved = f"{folder} is saved"
        raise JudgeError(
            f"{problem}. Stopped after step {step}, {saved}: mend the judge and resume the run. What was judged and "
            "cached is not asked again"
        )

    def _progress(self) -> float:
        """Return the share of training that is done: 0 at the first step, 1 at the last, 0 before training."""
        return float(self.state.global_step / max(self.state.max_steps - 1, 1))

    # A checkpoint may fall between two generations (num_iterations > 1 or steps_per_generation above the accumulation
    # steps). TRL restarts its step counter at 0 on resume, which would pair the wrong prompts with the wrong step, and
    # its order of prompts at that of the first epoch.

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        folder = Path(self._get_output_dir(trial=trial)) / f"checkpoint-{self.state.global_step}"
        if self._buffered_inputs is not None and self._step % (self.args.steps_per_generation * self.num_iterations):
            buffer.save(self._buffered_inputs, folder, self.accelerator.process_index)
        if self.accelerator.is_main_process:
            self._aggregator.memory.save(folder)
        # Last, because a checkpoint is complete once TRL has written its trainer state.
        super()._save_checkpoint(model, trial)
        self._saved_step = self.state.global_step

    def _get_train_sampler(self, dataset: Any = None) -> Any:
        self._train_sampler = super()._get_train_sampler(dataset)
        return self._train_sampler

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        super()._load_optimizer_and_scheduler(checkpoint)
        if checkpoint is not None:
            self._saved_step = self.state.global_step
            self._aggregator.memory.load(Path(checkpoint))
            self._step = self.state.global_step * self.args.gradient_accumulation_steps
            if self._train_sampler is not None:  # None for an iterable dataset
                # Not a product of steps, because an epoch's last step may accumulate fewer batches.
                batches = len(self._train_sampler) / self.args.generation_batch_size
                self._step = round(self.state.epoch * batches)
                # Each epoch draws its order of prompts from one generator, which transformers does not wind forward.
                for _ in range(int(self.state.epoch)):
                    next(iter(self._train_sampler), None)
            self._buffered_inputs = buffer.load(
                Path(checkpoint), self.accelerator.process_index, self.accelerator.device
            )
