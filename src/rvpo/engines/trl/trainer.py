"""``RVPOMixin`` and ``RVPOTrainer``: TRL's ``GRPOTrainer`` with advantages from ``rvpo.Aggregator``.

It overrides ``_generate_and_score_completions`` (keeps the rewards that TRL receives, and replaces the advantages that
TRL computed from them) and ``_prepare_inputs`` (records the advantages that are trained on).
``_calculate_rewards`` records the verdicts of rubrics. The other methods are for the record and for an exact resume:
``train``, ``_maybe_log_save_evaluate``, ``_save_checkpoint``, ``_get_train_sampler`` and
``_load_optimizer_and_scheduler``.
"""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any, NoReturn

import torch
from transformers.trainer_utils import rotate_checkpoints
from trl import GRPOTrainer

from rvpo import interrupts
from rvpo.core.metrics import PREFIX, SKIPPED
from rvpo.core.ragged import Family
from rvpo.core.weights import weights_at
from rvpo.engines.trl import (
    buffer,
    callables,
    checkpoints,
    dead_groups,
    greedy,
    model_card,
    peers,
    pictures,
    resume,
    weights,
)
from rvpo.engines.trl.alarm import add_alarm, watched
from rvpo.engines.trl.best_metric import has_best_metric, missing_best_metric
from rvpo.engines.trl.config import RVPOConfig, numbers_of_weights, taken
from rvpo.engines.trl.judged_twice import score_again
from rvpo.engines.trl.last_step import LastStep, WholeSteps, save_last_step
from rvpo.engines.trl.owner import owned
from rvpo.engines.trl.peers import Calls
from rvpo.engines.trl.reward_calls import Failure, first_failure, guarded_calls
from rvpo.engines.trl.reward_cells import failure_of
from rvpo.engines.trl.reward_names import named_rewards
from rvpo.engines.trl.rubrics import as_received, gather_families, judge_totals
from rvpo.engines.trl.seams import (
    GENERATE,
    PREPARE,
    REWARDS,
    check_order,
    check_received,
    check_seam,
    check_trainer,
    check_untouched,
    outermost,
)
from rvpo.errors import ConfigError, EngineError, JudgeError, RewardError
from rvpo.logs.schema import FOLDER
from rvpo.logs.writer import ChannelTable
from rvpo.rewards.judged import JudgedReward
from rvpo.rewards.rubric.reward import too_many_missing
from rvpo.step import memory
from rvpo.step.aggregator import Aggregated
from rvpo.step.trust import Again, Reliability

_IN_ORDER = ("model", "reward_funcs", "args")
"""The first parameters of ``trl.GRPOTrainer``, which scripts pass by position."""


class RVPOMixin:
    """A base class to put before ``trl.GRPOTrainer`` or a subclass: ``class Mine(RVPOMixin, TheirTrainer): ...``.

    It takes the arguments of that trainer, with an :class:`RVPOConfig` as ``args``, and two more keyword arguments.
    Each reward function is one channel. It may be sync or async. It may return None (or NaN) if a completion could not
    be scored; that channel is then left out for that completion. A :class:`rvpo.rewards.rubric.RubricReward` has one
    channel per criterion of the prompt's rubric.

    Args:
        *positional: arguments of the trainer: model, reward_funcs, args, …
        reward_names: names of the reward functions in order, such as ``["correct", "safe"]``; ``reward_funcs`` can also
            be a dict by name. None uses the functions' own names.
        reliability: how much each channel is trusted; None trusts all fully. See :mod:`rvpo.step.trust`.
        **keywords: keyword arguments of the trainer.

    Besides TRL's own metrics, it logs those of :data:`rvpo.core.metrics.CATALOGUE`. With ``log_completions``, every
    channel of every completion is written to ``channels/*.parquet``, which ``rvpo diagnose`` reads. A
    :class:`rvpo.trl.DiagnosisCallback` warns of neglected rewards; call ``remove_callback`` to turn it off.

    The trainer saves a checkpoint of the last finished step and raises an error if a reward function fails, if an async
    function does not return within ``reward_timeout``, or if more verdicts of a generation are missing than
    ``RubricReward.max_missing`` allows. All processes raise the same error. A resumed run generates the same
    completions again (vLLM draws others).

    Raises:
        ConfigError: ``args`` is a plain ``GRPOConfig``, or two reward functions share a name. In training:
            ``metric_for_best_model`` is not a metric that an evaluation logs.
        EngineError: the installed TRL does not behave as the overrides require.
        RewardError: in training, a reward function raises an error, does not return one number per completion, or the
            rewards cannot be aggregated. The message names the function and, if it is known, the completion.
        JudgeError: in training, too many verdicts are missing.
    """

    def __init_subclass__(cls, **keywords: Any) -> None:
        """Refuse an order of base classes in which the methods of this class would not be called."""
        super().__init_subclass__(**keywords)
        check_order(cls, RVPOMixin)

    def __init__(
        self,
        *positional: Any,
        reward_names: Sequence[str] | None = None,
        reliability: Reliability | None = None,
        **keywords: Any,
    ) -> None:
        """Check the config's type and the names of the rewards, and build the trainer."""
        check_trainer(self, RVPOMixin)
        check_seam()
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
            # Errors appear before a model is loaded.
            own_weights = given["args"].reward_weights
            if own_weights is not None and len(own_weights) != len(names) and not isinstance(own_weights, dict):
                own_weights = None  # TRL refuses the number of weights with its own message
            given["args"].aggregator(names, own_ranges, own_weights, reliability)
        self._channel_rewards: torch.Tensor | None = None
        self._scored_rewards: torch.Tensor | None = None
        self._aggregated: Aggregated | None = None
        self._prepared = self._made = False  # whether our _prepare_inputs ran, and whether we computed advantages
        self._first_made: torch.Tensor | None = None  # advantages of the first batch, and whether the loss got them
        self._received = False
        self._again: Again | None = None
        self._train_sampler: Any = None
        config = given["args"]
        functions = given.get("reward_funcs")
        handed = callables.plain(functions)
        # A copy of the list, because TRL puts the models that it loads into the list that it gets.
        given["reward_funcs"] = list(handed) if isinstance(handed, list) else handed
        in_order = [given.pop(name) for name, _ in zip(_IN_ORDER, positional, strict=False)]
        with taken(), numbers_of_weights(config, names) as weights:
            super().__init__(*in_order, *positional[len(_IN_ORDER) :], **given)
        this: Any = self  # TRL's trainer has set the attributes that are used from here on
        callables.restore(this, functions, handed)
        # An environment's own reward comes after the user's functions.
        names = this.reward_func_names = [*names, *this.reward_func_names[len(names) :]]
        named_rewards(this.reward_funcs, names)
        own_ranges = [getattr(function, "reward_range", None) for function in this.reward_funcs]
        weights = [*weights, *this.reward_weights.tolist()[len(weights) :]]
        for name in this.args.monitor or []:  # monitors are also not part of the total that TRL logs as `reward`
            if name in names:
                this.reward_weights[names.index(name)] = 0.0
        self.aggregator = this.args.aggregator(names, own_ranges, weights, reliability)
        self._given_weights = this.reward_weights.cpu().clone()
        if this.args.skip_dead_groups:
            dead_groups.check_skipping(self)
        self._rubrics = {
            name: function
            for name, function in zip(names, this.reward_funcs, strict=True)
            if isinstance(function, JudgedReward)
        }
        greedy.refuse_impossible(this)
        pictures.keep_out_of_completions(this)
        self._channels = ChannelTable(Path(this.args.output_dir) / FOLDER, pictures.columns_of(this))
        self._pictures: list[list[str | None]] | None = None
        self._last_step: LastStep | None = None
        self._saved_step = 0  # step of this run's last checkpoint; the folder may have checkpoints of an older run
        self._checked: Path | None = None  # a checkpoint that was found complete
        self._calls = Calls.of(this.accelerator, this.args.reward_timeout)
        self._updating = False  # whether a step is changing the weights now
        # The first of all callbacks: others may take long at the end of a step, and an interrupt would end them.
        this.callback_handler.callbacks.insert(0, WholeSteps(self))
        model_card.describe(this)
        add_alarm(this)

    def train(self: Any, *args: Any, **kwargs: Any) -> Any:
        """Train. Before that, check all rubrics and send each judge a question, so that a dead server is found."""
        evaluated = self.eval_dataset.values() if isinstance(self.eval_dataset, dict) else [self.eval_dataset]
        for reward in self._rubrics.values():
            for dataset in (self.train_dataset, *evaluated):
                # Do not read a stream: it has no length, and reading it may never end.
                for column in reward.needed_columns if hasattr(dataset, "num_rows") else ():
                    if column in dataset.column_names:
                        reward.check_column(dataset[column])
            asyncio.run_coroutine_threadsafe(reward.check(), self.async_loop).result()
        args, kwargs = self._resuming(args, kwargs)
        writes = self.args.save_strategy != "no" or self.log_completions
        keeps = writes and self.is_world_process_zero()
        try:
            with owned(Path(self.args.output_dir)) if keeps else nullcontext():
                return super().train(*args, **kwargs)  # type: ignore[misc]
        except (RuntimeError, MemoryError) as error:
            process, processes = self.accelerator.process_index, self.accelerator.num_processes
            if peers.is_memory(error):  # keep the class of the error, because scripts look for it
                error.add_note(peers.about_memory(process, processes, self.state.global_step))
            elif processes > 1 and (gone := peers.about_gone(error, process, self.state.global_step)):
                raise EngineError(gone) from error
            raise
        finally:
            interrupts.forget()

    def _resuming(self: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Return the arguments of ``train``, in which the checkpoint to resume from is complete."""
        asked = args[0] if args else kwargs.get("resume_from_checkpoint")
        if asked is None or (self._checked is not None and asked == str(self._checked)):
            return args, kwargs
        chosen = resume.checked(self, asked)
        return ((chosen, *args[1:]), kwargs) if args else (args, kwargs | {"resume_from_checkpoint": chosen})

    def _calculate_rewards(
        self: Any, inputs: list[Any], prompts: list[Any], completions: list[Any], completion_ids_list: list[Any]
    ) -> torch.Tensor:
        """Keep the rewards (N, M) before other classes change them, because rubrics must be changed with them."""
        greedy.prepare(self, prompts)
        rewards: torch.Tensor = super()._calculate_rewards(  # type: ignore[misc]
            inputs, prompts, completions, completion_ids_list
        )
        self._scored_rewards = rewards.clone() if self._rubrics else None
        return rewards

    def _generate_and_score_completions(self: Any, inputs: list[dict[str, Any]]) -> dict[str, Any]:
        """Replace the advantages that TRL computed from the rewards, in the output and in the completions log."""
        self._channel_rewards = self._scored_rewards = self._again = None
        self._set_weights()
        interrupts.release()  # an interrupt is safe here
        for reward in self._rubrics.values():
            reward.at(self.state.global_step if self.model.training else None)
        try:
            with (
                guarded_calls(self, self.args.reward_timeout, self._calls) as failures,
                outermost(self, REWARDS, self._keeping_rewards),
            ):
                output: dict[str, Any] = super()._generate_and_score_completions(inputs)  # type: ignore[misc]
        except RewardError as error:  # from an override in a user's class
            if self.accelerator.num_processes > 1:  # saving needs all processes; the others do not know of the error
                raise
            self._stop(Failure(str(error), type(error), error))
        if (failure := first_failure(self.accelerator, failures)) is not None:
            self._stop(failure)
        rewards, self._channel_rewards = self._channel_rewards, None
        local, completions = output["advantages"], len(output["completion_ids"])
        if rewards is None or len(rewards) != completions * self.accelerator.num_processes:
            seen = "no rewards" if rewards is None else f"rewards of shape {tuple(rewards.shape)}"
            raise EngineError(
                f"TRL passed {seen} for {completions} completions per process: this version's GRPOTrainer does not "
                "score as RVPOTrainer requires. Install the versions in constraints.txt, and see `rvpo doctor`"
            )
        mode = "train" if self.model.training else "eval"
        generations = self.num_generations if mode == "train" else self.num_generations_eval
        check_untouched(self, local, rewards, generations)
        families = gather_families(self._rubrics) if self._rubrics else []
        if families and mode == "train" and (problem := self._too_many_missing(families)):
            self._stop(Failure(problem, JudgeError))
        families = as_received(families, self.reward_func_names, self._scored_rewards, rewards)
        done = self._aggregate(rewards, mode, families)
        if self.args.skip_dead_groups:
            done = dead_groups.without_rounding(done)
        start = self.accelerator.process_index * local.shape[0]
        # A copy, because a class before ours may change it in place.
        output["advantages"] = done.advantages[start : start + local.shape[0]].to(local, copy=True)
        self._show(done.advantages)
        self._aggregated = done
        self._pictures = pictures.recorded(self, inputs)
        return output

    def _set_weights(self: Any) -> None:
        """Give TRL the weights of this step, with which it logs `reward`.

        Raises:
            ConfigError: other code has changed the weights, which would not change the method's weights.
        """
        if not torch.equal(self.reward_weights.cpu(), self._given_weights):
            raise ConfigError(
                f"reward_weights of the trainer are {self.reward_weights.tolist()}, but the method uses "
                f"{self._given_weights.tolist()}; expected no change after the trainer is built. Set "
                "RVPOConfig(reward_weights=…). For weights that change in training, use schedules such as "
                "'linear(0.2,1)'"
            )
        weights = weights_at(self.aggregator.weights, self._progress(), self.aggregator.names)
        self.reward_weights = self.reward_weights.new_tensor(weights)
        self._given_weights = self.reward_weights.cpu().clone()

    def _aggregate(self: Any, rewards: torch.Tensor, mode: str, families: list[Family]) -> Aggregated:
        """Turn rewards into advantages. If this fails in one process, end all processes with its error."""
        done, failures = None, []
        try:
            done = self.aggregator(
                rewards,
                num_generations=self.num_generations if mode == "train" else self.num_generations_eval,
                progress=self._progress(),
                families=families,
                learn=mode == "train",
                again=self._again,
            )
        except Exception as error:  # a user's method may raise any error
            failures.append(failure_of(self, error, rewards, families))
        if (failure := first_failure(self.accelerator, failures)) is not None:
            self._stop(failure)
        return done  # type: ignore[return-value]

    def _prepare_inputs(self: Any, generation_batch: Any) -> Any:
        """Let TRL generate, check that RVPO computed the advantages, and record the advantages that are trained on."""
        self._prepared = True
        with outermost(self, GENERATE, self._keeping_record):
            return super()._prepare_inputs(generation_batch)  # type: ignore[misc]

    def training_step(self: Any, *args: Any, **kwargs: Any) -> Any:
        """Train on a batch. Raise if it has no advantages of RVPO, before the step's end changes the weights."""
        loss = super().training_step(*args, **kwargs)  # type: ignore[misc]
        if not (self._prepared and self._made):
            missed = PREPARE if not self._prepared else GENERATE
            raise EngineError(
                f"{type(self).__name__} trains on completions without RVPO's advantages: its {PREPARE} does not lead "
                f"to RVPOMixin's {missed}. Let it call super(), and put RVPOMixin in front of trainers that do not: "
                "class Mine(RVPOMixin, TheirTrainer)"
            )
        return loss

    def compute_loss(self: Any, model: Any, inputs: dict[str, Any], *args: Any, **kwargs: Any) -> Any:
        """Check once that the loss gets our advantages: a version of TRL could pass other ones."""
        if not self._received and self._first_made is not None and self.model.training:
            check_received(inputs, self._first_made)
            self._received = True
        return super().compute_loss(model, inputs, *args, **kwargs)  # type: ignore[misc]

    def _compute_loss(self: Any, model: Any, inputs: dict[str, Any]) -> torch.Tensor:
        """With ``skip_dead_groups``, leave out completions with advantage 0; see ``dead_groups``."""
        if not self.args.skip_dead_groups or not self.model.training:
            return super()._compute_loss(model, inputs)  # type: ignore[misc,no-any-return]
        rows, total = dead_groups.kept_rows(inputs, self.accelerator), len(inputs["completion_ids"])
        self._metrics["train"][f"{PREFIX}{SKIPPED}"].append(1 - len(rows) / total)
        if len(rows) == total:
            return super()._compute_loss(model, inputs)  # type: ignore[misc,no-any-return]
        loss: torch.Tensor = super()._compute_loss(model, dead_groups.smaller(inputs, rows))  # type: ignore[misc]
        return loss * dead_groups.scale(self.loss_type, inputs, rows)

    def _keeping_rewards(self: Any, score: Callable[..., torch.Tensor]) -> Callable[..., torch.Tensor]:
        """Wrap ``score``, TRL's ``_calculate_rewards`` with all overrides, so that its result is kept."""

        def scoring(*scored: Any, **named: Any) -> torch.Tensor:
            rewards = score(*scored, **named)
            reliability = self.aggregator.reliability
            if reliability is not None and reliability.twice and self.model.training:
                first = self._scored_rewards  # restored below: the second judgement must not change the first
                self._again = score_again(self, reliability.twice, self._rubrics, score, scored, rewards)
                self._scored_rewards = first
            self._channel_rewards = rewards
            return rewards

        return scoring

    def _keeping_record(self: Any, generate: Callable[..., Any]) -> Callable[..., Any]:
        """Wrap ``generate``, TRL's ``_generate_and_score_completions`` with all overrides, to write the record."""

        def generating(inputs: Any) -> Any:
            self._aggregated = None
            output = generate(inputs)
            done: Aggregated | None = self._aggregated
            if done is None:
                raise EngineError(
                    f"{type(self).__name__} has generated completions without RVPO's advantages: its {GENERATE} does "
                    "not call RVPOMixin's. Let it call super(), or derive it from the class that it replaces and put "
                    "RVPOMixin in front: class Mine(RVPOMixin, TheirTrainer)"
                )
            self._made = True
            if self.model.training:
                self._first_made = None if self._received else output["advantages"].detach().clone()
            self._log("train" if self.model.training else "eval", self._as_trained(done, output["advantages"]))
            return output

        return generating

    def _as_trained(self: Any, done: Aggregated, local: torch.Tensor) -> Aggregated:
        """Return the aggregated batch with the advantages of all processes, as changed by classes before ours."""
        if local.shape[0] * self.accelerator.num_processes != done.advantages.shape[0] or local.ndim != 1:
            return done  # rows were dropped or added: the record has RVPO's advantages of all completions
        trained = self.accelerator.gather(local.contiguous()).to(done.advantages)
        if torch.equal(trained, done.advantages):
            return done
        self._show(trained)
        return dataclasses.replace(
            done, advantages=trained, result=dataclasses.replace(done.result, advantages=trained)
        )

    def _show(self: Any, advantages: torch.Tensor) -> None:
        """Replace the latest advantages in TRL's completions log by those (N,) of all processes."""
        logged = self._logs["advantages"]
        for _ in range(min(len(logged), len(advantages))):
            logged.pop()
        logged.extend(advantages.tolist())

    def _log(self: Any, mode: str, done: Aggregated) -> None:
        """Log the metrics of all channels, and write their record."""
        for key, value in done.metrics.items():
            self._metrics[mode][key].append(value)
        watched(self, mode, done)
        if self._rubrics:
            for key, value in judge_totals(self._rubrics).items():
                self._metrics[mode][key] = [value]  # a list of one: TRL averages it, and this is a running total
        if self.log_completions and self.accelerator.is_main_process:
            trained = mode == "train"
            extra = None
            if self._pictures is not None:
                whole = len(self._pictures) == len(done.advantages)
                extra = {"pictures": self._pictures if whole else [None] * len(done.advantages)}
            self._channels.add(self.state.global_step + trained, done, trained=trained, extra=extra)

    def _maybe_log_save_evaluate(self: Any, *args: Any, **kwargs: Any) -> Any:
        interrupts.hold()  # an interrupt must not leave half-written files; an evaluation releases it
        before = self._saved_step
        result = super()._maybe_log_save_evaluate(*args, **kwargs)  # type: ignore[misc]
        if self._saved_step != before and self.accelerator.is_main_process:
            checkpoints.extend(Path(self._get_output_dir(trial=None)) / f"checkpoint-{self._saved_step}")
        # The state for a checkpoint of this step if the next generation fails; a new epoch draws random numbers before.
        self._last_step = LastStep.of(self)
        interrupts.release()
        return result

    def _determine_best_metric(self: Any, metrics: dict[str, Any], trial: Any) -> bool:
        interrupts.hold()  # a checkpoint may follow
        if (failure := missing_best_metric(self, metrics)) is not None:
            self._stop(failure)
        return has_best_metric(self, metrics) and bool(super()._determine_best_metric(metrics, trial))  # type: ignore[misc]

    def _evaluate(self: Any, *args: Any, **kwargs: Any) -> Any:
        try:
            return super()._evaluate(*args, **kwargs)  # type: ignore[misc]
        except KeyError:  # from a learning rate schedule that uses the metric of the best model
            if (failure := missing_best_metric(self, self.state.log_history[-1])) is not None:
                self._stop(failure)
            raise

    def _too_many_missing(self: Any, families: list[Family]) -> str | None:
        """Return a problem with the verdicts of this generation, or None; it is the same in all processes."""
        for family, reward in zip(families, self._rubrics.values(), strict=True):
            if problem := too_many_missing(family.rows, reward.max_missing):
                return f"{family.name!r}: {problem}"
        return None

    def _stop(self: Any, failure: Failure) -> NoReturn:
        """End the run: in training, save a checkpoint of the last finished step first. Collective.

        A run that resumes from that checkpoint generates this batch again.
        """
        if not self.is_in_train:  # an evaluation without training: there is nothing to save
            raise failure.kind(failure.text) from failure.error
        saved = save_last_step(self)
        if failure.kind is JudgeError:
            advice = "fix the judge and resume the run. Cached verdicts are not asked for again"
        elif not self.state.global_step:
            advice = "fix it and start again"
        else:
            advice = "fix it and resume the run: trainer.train(resume_from_checkpoint=True), or rvpo train … --resume"
        raise failure.kind(f"{failure.text}. {saved}: {advice}") from failure.error

    def _progress(self: Any) -> float:
        """Return the share of training that is done: 0 up to the first step, 1 from the last one on."""
        return float(min(self.state.global_step / max(self.state.max_steps - 1, 1), 1.0))

    # A checkpoint may be saved between two generations (num_iterations > 1, or steps_per_generation above the
    # accumulation steps). On resume, TRL restarts its step counter at 0, and its order of prompts at the first epoch.
    # That would train on the wrong prompts.

    def _save_checkpoint(self: Any, model: Any, trial: Any) -> None:
        run = Path(self._get_output_dir(trial=trial))
        folder = run / f"checkpoint-{self.state.global_step}"
        if self.accelerator.is_main_process:
            checkpoints.begin(folder)
        self.accelerator.wait_for_everyone()
        if self._buffered_inputs is not None and self._step % (self.args.steps_per_generation * self.num_iterations):
            buffer.save_buffer(self._buffered_inputs, folder, self.accelerator.process_index)
        if self.accelerator.is_main_process:
            memory.save_memory(self.aggregator, folder)
        kept, self.args.save_total_limit = self.args.save_total_limit, None
        try:
            super()._save_checkpoint(model, trial)  # type: ignore[misc]
        finally:
            self.args.save_total_limit = kept
        self.accelerator.wait_for_everyone()
        if self.accelerator.is_main_process:
            checkpoints.seal(folder)
        if self.args.should_save:  # remove an older checkpoint only after this one is on the disk
            rotate_checkpoints(str(run), kept, self.state.best_model_checkpoint, use_mtime=True)
        self._saved_step = self.state.global_step

    def _load_from_checkpoint(self: Any, checkpoint: str, *args: Any, **kwargs: Any) -> None:
        with weights.of_checkpoint(self, checkpoint):
            super()._load_from_checkpoint(checkpoint, *args, **kwargs)  # type: ignore[misc]

    def _load_best_model(self: Any) -> None:
        with weights.of_checkpoint(self, self.state.best_model_checkpoint):
            super()._load_best_model()  # type: ignore[misc]

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
                # Not computed from the number of steps: an epoch's last step may accumulate fewer batches.
                batches = len(self._train_sampler) / self.args.generation_batch_size
                self._step = round(self.state.epoch * batches)
                # Each epoch draws its order of prompts from one generator, which transformers does not advance.
                for _ in range(int(self.state.epoch)):
                    next(iter(self._train_sampler), None)
            self._buffered_inputs = buffer.load_buffer(
                Path(checkpoint), self.accelerator.process_index, self.accelerator.device
            )
            self._made = self._buffered_inputs is not None


class RVPOTrainer(RVPOMixin, GRPOTrainer):  # type: ignore[misc]
    """Train on many rewards with TRL: :class:`RVPOMixin` before ``trl.GRPOTrainer``.

    Example:
        trainer = RVPOTrainer(
            "Qwen/Qwen2.5-1.5B-Instruct",
            {"correct": correctness, "safe": safety},
            RVPOConfig(output_dir="out", method="lift", reward_ranges={"correct": [-3, 3]}),
            train_dataset=dataset,
        )
    """

    _tag_names = ("trl", "rvpo")  # model_card.describe adds the method
