"""``RVPOMixin`` and ``RVPOTrainer``: TRL's ``GRPOTrainer`` with advantages from ``rvpo.Aggregator``.

It overrides ``_calculate_rewards`` (keeps the matrix of rewards) and ``_generate_and_score_completions`` (replaces the
advantages). The others are for the record and for a resume that is exact: ``train``, ``_maybe_log_save_evaluate``,
``_save_checkpoint``, ``_get_train_sampler`` and ``_load_optimizer_and_scheduler``.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from trl import GRPOTrainer

from rvpo.core.ragged import Family
from rvpo.engines.trl import buffer
from rvpo.engines.trl.alarm import add_alarm, watched
from rvpo.engines.trl.config import RVPOConfig
from rvpo.engines.trl.judged_twice import score_again
from rvpo.engines.trl.reward_names import named_rewards
from rvpo.engines.trl.rubrics import RandomState, gather_families, judge_totals
from rvpo.errors import ConfigError, EngineError, JudgeError
from rvpo.logs.schema import FOLDER
from rvpo.logs.writer import ChannelTable
from rvpo.rewards.rubric import RubricReward
from rvpo.rewards.rubric.reward import too_many_missing
from rvpo.step import memory
from rvpo.step.aggregator import Aggregated
from rvpo.step.trust import Again, Reliability

_IN_ORDER = ("model", "reward_funcs", "args")
"""The first parameters of ``trl.GRPOTrainer``, which scripts pass by position."""


class RVPOMixin:
    """Put in front of ``trl.GRPOTrainer`` or a subclass of it: ``class Mine(RVPOMixin, TheirTrainer): ...``.

    Takes the arguments of the trainer behind it, with an :class:`RVPOConfig` as ``args``, and two keyword arguments of
    its own. Each reward function is one channel. It may be sync or async and may return None (or NaN) where a
    completion could not be scored; that channel is then left out for that completion. A
    :class:`rvpo.rewards.rubric.RubricReward` is as many channels as the prompt's rubric has criteria.

    Args:
        *positional: as of the trainer behind it: model, reward_funcs, args, …
        reward_names: names of the reward functions in order, such as ``["correct", "safe"]``; ``reward_funcs`` can also
            be a dict by name. None: the functions' own names.
        reliability: how far each channel is trusted; None trusts all. See :mod:`rvpo.step.trust`.
        **keywords: as of the trainer behind it.

    Besides TRL's own metrics it logs those of :data:`rvpo.core.metrics.CATALOGUE`. With ``log_completions``, every
    channel of every completion is written to ``channels/*.parquet``, which ``rvpo diagnose`` reads. A
    :class:`rvpo.trl.DiagnosisCallback` warns of rewards that are being neglected; ``remove_callback`` leaves it out.

    When more verdicts of a generation are missing than ``RubricReward.max_missing`` allows, the trainer saves a
    checkpoint and raises JudgeError; resumed, it generates the same completions again (vLLM draws others).

    Raises:
        ConfigError: when ``args`` is a plain ``GRPOConfig``, or two reward functions share a name.
        EngineError: when the installed TRL does not behave as the two overrides rely on.
    """

    def __init__(
        self,
        *positional: Any,
        reward_names: Sequence[str] | None = None,
        reliability: Reliability | None = None,
        **keywords: Any,
    ) -> None:
        """Check the config's type and the names of the rewards, and hand everything to the trainer behind."""
        given = dict(zip(_IN_ORDER, positional, strict=False)) | keywords
        args = given.get("args")
        if args is not None and not isinstance(args, RVPOConfig):
            raise ConfigError(
                f"args is a {type(args).__name__}; expected rvpo.trl.RVPOConfig. Rename GRPOConfig, its options stay"
            )
        if args is None:
            model = given.get("model")
            name = model if isinstance(model, str) else model.config._name_or_path  # type: ignore[union-attr]
            given["args"] = RVPOConfig(f"{Path(name).name}-RVPO")
        given["reward_funcs"], names = named_rewards(given.get("reward_funcs"), reward_names)
        own_ranges = [getattr(function, "reward_range", None) for function in given["reward_funcs"] or []]
        if names:
            given["args"].aggregator(names, own_ranges, None, reliability)  # fails before a model is loaded
        self._channel_rewards: torch.Tensor | None = None
        self._again: Again | None = None
        self._train_sampler: Any = None
        in_order = [given.pop(name) for name, _ in zip(_IN_ORDER, positional, strict=False)]
        super().__init__(*in_order, *positional[len(_IN_ORDER) :], **given)
        this: Any = self  # the trainer behind brings the attributes used from here on
        # An environment's own reward comes after the user's functions.
        names = this.reward_func_names = [*names, *this.reward_func_names[len(names) :]]
        named_rewards(this.reward_funcs, names)
        own_ranges = [getattr(function, "reward_range", None) for function in this.reward_funcs]
        weights = this.reward_weights.tolist()
        self.aggregator = this.args.aggregator(names, own_ranges, weights, reliability)
        self._rubrics = {
            name: function
            for name, function in zip(names, this.reward_funcs, strict=True)
            if isinstance(function, RubricReward)
        }
        self._channels = ChannelTable(Path(this.args.output_dir) / FOLDER)
        self._after_step = RandomState()
        self._saved_step = 0  # of this run's last checkpoint; an older run's may lie in the folder
        add_alarm(this)

    def train(self: Any, *args: Any, **kwargs: Any) -> Any:
        """Train, after a look at every rubric and a question to every judge: a dead server is found now."""
        evaluated = self.eval_dataset.values() if isinstance(self.eval_dataset, dict) else [self.eval_dataset]
        for reward in self._rubrics.values():
            for dataset in (self.train_dataset, *evaluated):
                # A stream has no length, and reading it would not end.
                if hasattr(dataset, "num_rows") and reward.column in dataset.column_names:
                    reward.check_rubrics(dataset[reward.column])
            asyncio.run_coroutine_threadsafe(reward.check(), self.async_loop).result()
        return super().train(*args, **kwargs)  # type: ignore[misc]

    def _calculate_rewards(
        self: Any, inputs: list[Any], prompts: list[Any], completions: list[Any], completion_ids_list: list[Any]
    ) -> torch.Tensor:
        """Keep the rewards of all processes, (N, M), for the aggregation, and score some completions twice."""
        score = super()._calculate_rewards  # type: ignore[misc]
        scored = inputs, prompts, completions, completion_ids_list
        rewards: torch.Tensor = score(*scored)
        reliability = self.aggregator.reliability
        if reliability is not None and reliability.twice and self.model.training:
            self._again = score_again(self, reliability.twice, self._rubrics, score, scored, rewards)
        self._channel_rewards = rewards
        return rewards

    def _generate_and_score_completions(self: Any, inputs: list[dict[str, Any]]) -> dict[str, Any]:
        """Replace the advantages that TRL made of the rewards, in the output and in the completions log."""
        self._channel_rewards = self._again = None
        tokens_before = self.state.num_input_tokens_seen
        output: dict[str, Any] = super()._generate_and_score_completions(inputs)  # type: ignore[misc]
        rewards, self._channel_rewards = self._channel_rewards, None
        local = output["advantages"]
        if rewards is None or rewards.shape[0] != local.shape[0] * self.accelerator.num_processes:
            seen = "no rewards" if rewards is None else f"rewards of shape {tuple(rewards.shape)}"
            raise EngineError(
                f"TRL passed {seen} for {local.shape[0]} completions per process: this version's GRPOTrainer does not "
                "score as RVPOTrainer relies on. Install the versions in constraints.txt, and see `rvpo doctor`"
            )
        mode = "train" if self.model.training else "eval"
        families = gather_families(self._rubrics) if self._rubrics else []
        if families and mode == "train" and (problem := self._too_many_missing(families)):
            self.state.num_input_tokens_seen = tokens_before
            self._stop(problem)
        done: Aggregated = self.aggregator(
            rewards,
            num_generations=self.num_generations if mode == "train" else self.num_generations_eval,
            progress=self._progress(),
            families=families,
            learn=mode == "train",
            again=self._again,
        )
        self._log(mode, done)
        start = self.accelerator.process_index * local.shape[0]
        output["advantages"] = done.advantages[start : start + local.shape[0]].to(local)
        logged = self._logs["advantages"]
        for _ in range(min(len(logged), rewards.shape[0])):
            logged.pop()
        logged.extend(done.advantages.tolist())
        return output

    def _log(self: Any, mode: str, done: Aggregated) -> None:
        """Log what the channels of all processes say, and write their record."""
        for key, value in done.metrics.items():
            self._metrics[mode][key].append(value)
        watched(self, mode, done)
        if self._rubrics:
            for key, value in judge_totals(self._rubrics).items():
                self._metrics[mode][key] = [value]  # a total: TRL would average those of several generations
        if self.log_completions and self.accelerator.is_main_process:
            trained = mode == "train"
            self._channels.add(self.state.global_step + trained, done, trained=trained)

    def _maybe_log_save_evaluate(self: Any, *args: Any, **kwargs: Any) -> Any:
        result = super()._maybe_log_save_evaluate(*args, **kwargs)  # type: ignore[misc]
        if self._rubrics:
            # What a checkpoint of this step holds, should the next generation's judge fail: a new epoch draws before.
            self._after_step = RandomState()
        return result

    def _too_many_missing(self: Any, families: list[Family]) -> str | None:
        """Return what is wrong with the verdicts of this generation; all processes see the same."""
        for family, reward in zip(families, self._rubrics.values(), strict=True):
            if problem := too_many_missing(family.rows, reward.max_missing):
                return f"{family.name!r}: {problem}"
        return None

    def _stop(self: Any, problem: str) -> None:
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
            f"{problem}. Stopped after step {step}, {saved}: fix the judge and resume the run. What was judged and "
            "cached is not asked again"
        )

    def _progress(self: Any) -> float:
        """Return the share of training that is done: 0 at the first step, 1 at the last, 0 before training."""
        return float(self.state.global_step / max(self.state.max_steps - 1, 1))

    # A checkpoint may fall between two generations (num_iterations > 1 or steps_per_generation above the accumulation
    # steps). TRL restarts its step counter at 0 on resume, which would pair the wrong prompts with the wrong step, and
    # its order of prompts at that of the first epoch.

    def _save_checkpoint(self: Any, model: Any, trial: Any) -> None:
        folder = Path(self._get_output_dir(trial=trial)) / f"checkpoint-{self.state.global_step}"
        if self._buffered_inputs is not None and self._step % (self.args.steps_per_generation * self.num_iterations):
            buffer.save_buffer(self._buffered_inputs, folder, self.accelerator.process_index)
        if self.accelerator.is_main_process:
            memory.save_memory(self.aggregator, folder)
        # Last, because a checkpoint is complete once TRL has written its trainer state.
        super()._save_checkpoint(model, trial)  # type: ignore[misc]
        self._saved_step = self.state.global_step

    def _get_train_sampler(self: Any, dataset: Any = None) -> Any:
        self._train_sampler = super()._get_train_sampler(dataset)  # type: ignore[misc]
        return self._train_sampler

    def _load_optimizer_and_scheduler(self: Any, checkpoint: str | None) -> None:
        super()._load_optimizer_and_scheduler(checkpoint)  # type: ignore[misc]
        if checkpoint is not None:
            self._saved_step = self.state.global_step
            memory.load_memory(self.aggregator, Path(checkpoint))
            self._step = self.state.global_step * self.args.gradient_accumulation_steps
            if self._train_sampler is not None:  # None for an iterable dataset
                # Not a product of steps, because an epoch's last step may accumulate fewer batches.
                batches = len(self._train_sampler) / self.args.generation_batch_size
                self._step = round(self.state.epoch * batches)
                # Each epoch draws its order of prompts from one generator, which transformers does not wind forward.
                for _ in range(int(self.state.epoch)):
                    next(iter(self._train_sampler), None)
            self._buffered_inputs = buffer.load_buffer(
                Path(checkpoint), self.accelerator.process_index, self.accelerator.device
            )


class RVPOTrainer(RVPOMixin, GRPOTrainer):  # type: ignore[misc]
    """Train on many rewards with TRL: :class:`RVPOMixin` in front of ``trl.GRPOTrainer``.

    Example:
        trainer = RVPOTrainer(
            "Qwen/Qwen2.5-1.5B-Instruct",
            {"correct": correctness, "safe": safety},
            RVPOConfig(output_dir="out", method="lift", reward_ranges={"correct": [-3, 3]}),
            train_dataset=dataset,
        )
    """

    _tag_names = ("trl", "rvpo")
    _name = "RVPO"
    _paper = {  # noqa: RUF012 (TRL's own declaration)
        "title": "RVPO: Risk-Sensitive Alignment via Variance Regularization",
        "id": "2605.05750",
    }
