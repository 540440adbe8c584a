"""``DiagnosisCallback``: warns during training which rewards are being neglected, and why.

A callback of transformers does not receive its trainer. This one finds it when training begins: the trainer is the
``self`` of the method that called the callback, and it has the callback in its list. After that

* an ``RVPOTrainer`` passes each generation to the callback (:func:`watched`), with all channels of its rubrics;
* for any other ``GRPOTrainer``, the callback reads the rewards that ``_calculate_rewards`` returns, and the advantages
  in the output of ``_generate_and_score_completions``, with which the policy is trained.

If it cannot read them, it raises an error. It is never silently inactive.
"""

from __future__ import annotations

import inspect
import json
import logging
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers import Trainer, TrainerCallback
from trl import GRPOTrainer

from rvpo.core import GRPO, AdvantageConfig, Channels, compute
from rvpo.core.groups import Groups
from rvpo.core.metrics import DIVERGING, NEGLECTED, PREFIX
from rvpo.diagnose.alarm import Alarm, Call, Generation
from rvpo.errors import EngineError
from rvpo.files import whole
from rvpo.step.aggregator import Aggregated, Aggregator
from rvpo.step.reward_news import news_of_rewards, next_seen, sights
from rvpo.text.tables import printable

logger = logging.getLogger(__name__)

FILE = "rvpo_alarm.npz"
"""File in a checkpoint, with the last generations and the warnings that were given."""


class DiagnosisCallback(TrainerCallback):  # type: ignore[misc]
    """Watches the rewards of any TRL ``GRPOTrainer``, and warns once of each that is neglected or gamed.

    Example:
        trainer = GRPOTrainer(…, callbacks=[DiagnosisCallback()])

    An ``RVPOTrainer`` has this callback already. Each generation is evaluated with the sums of ``rvpo diagnose``, see
    :mod:`rvpo.diagnose.alarm`. ``rvpo/{reward}/neglected`` is logged: 1 if the reward is neglected now, otherwise 0.
    When it becomes 1 for the first time, a warning says why, and what to do. ``rvpo/{reward}/diverging`` works in the
    same way for a reward that rises while a monitor (a reward of weight 0) falls, see :mod:`rvpo.diagnose.diverging`.
    Rewards that are constant, always missing or outside their range are reported, too
    (:mod:`rvpo.step.reward_news`). A summary is printed at the end.

    With several processes, only the first one warns. A resumed training loads ``rvpo_alarm.npz`` from the checkpoint
    and does not repeat a warning.

    Raises:
        EngineError: training begins with a trainer that is not a ``GRPOTrainer`` or cannot be found, or the callback
            saw no generation although the trainer must have made one.
    """

    def __init__(self, trainer: Trainer | None = None, *, summary: bool = True) -> None:
        """Create the callback.

        Args:
            trainer: the trainer to watch; None is the trainer that has this callback.
            summary: whether to print a note at the start if no record is kept, and a summary at the end.
        """
        self._given, self._summary = trainer, summary
        self._trainer: Any = None
        self._wrapped: Any = None  # the plain trainer whose methods were wrapped
        self._rewards: Tensor | None = None  # (N, M) rewards of the current generation
        self.alarm = Alarm()
        self._seen: dict[str, Any] = {}  # state of a plain trainer's rewards; our trainer has it in its aggregator
        self._since = self._first_step = 0  # generations since training began, and the step at which it began

    @property
    def is_active(self) -> bool:
        """Whether this callback watches. If a trainer has several of them, only the first one does."""
        return self._trainer is not None

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Find the trainer, and load the checkpoint's state if training is resumed."""
        caller, checkpoint = _caller(self)
        trainer: Any = self._given or caller
        if trainer is None:
            raise EngineError(
                "DiagnosisCallback cannot find the trainer that it belongs to: pass it, as in "
                "trainer.add_callback(DiagnosisCallback(trainer))"
            )
        if not isinstance(trainer, GRPOTrainer):
            raise EngineError(
                f"DiagnosisCallback watches a {type(trainer).__name__}; expected trl.GRPOTrainer or a subclass, whose "
                "rewards it reads. Remove the callback. `rvpo diagnose` reads any log with one column per reward"
            )
        if next(_callbacks(trainer), self) is not self:
            self._trainer = None
            return
        self._trainer, self._since, self._first_step, self._seen = trainer, 0, state.global_step, {}
        self.alarm = Alarm(sums_raw=_sums_raw(trainer))
        if state.global_step:
            self._load(checkpoint or self._checkpoint(state.global_step))
        if _is_ours(trainer):
            trainer.aggregator.quiet = not state.is_world_process_zero
        else:
            self._wrap(trainer)
        if self._summary and state.is_world_process_zero and not trainer.log_completions:
            print(
                "rvpo: log_completions is off, so no record of the rewards is kept, and `rvpo diagnose`, `rvpo replay` "
                "and `rvpo report` cannot read this run later. log_completions=True keeps a record.",
                flush=True,
            )

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Raise an error if the callback does not see the trainer's generations."""
        if not self.is_active or self._since:
            return
        trainer = self._trainer
        batches = trainer.args.steps_per_generation * trainer.num_iterations
        # A resumed training may begin with completions of the last generation.
        steps = math.ceil(batches / trainer.args.gradient_accumulation_steps) + 1
        if state.global_step - self._first_step >= steps:
            raise EngineError(
                f"DiagnosisCallback has seen no generation in {steps} steps of {type(trainer).__name__}: this trainer "
                "does not score as trl.GRPOTrainer does. Remove the callback, or call super() in "
                "_generate_and_score_completions; see `rvpo doctor` for the versions that were tested"
            )

    def on_save(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Save the callback's state in the checkpoint."""
        if self.is_active and state.is_world_process_zero:
            folder = self._checkpoint(state.global_step)
            if folder.is_dir():
                arrays = self.alarm.state() | {"seen": np.array(json.dumps(self._seen))}
                with whole(folder / FILE) as partial, partial.open("wb") as file:
                    np.savez_compressed(file, **arrays)  # type: ignore[arg-type]  # numpy's annotation of its flag

    def on_train_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Print the verdicts and the next command."""
        if self.is_active and self._summary and state.is_world_process_zero and self.alarm.generations:
            print(self.summary(), flush=True)

    def see(self, batch: Generation) -> None:
        """Add a generation with the rewards of all processes: log its state, and give the warnings that are new."""
        self._since += 1
        trainer = self._trainer
        for call in self.alarm.add(batch):
            if trainer.is_world_process_zero():
                logger.warning("%s", self._warning(call))
        for word, calling in ((NEGLECTED, self.alarm.calling), (DIVERGING, self.alarm.diverging)):
            for name, calls in calling.items():
                trainer._metrics["train"][f"{PREFIX}{name}/{word}"].append(float(calls))

    def summary(self) -> str:
        """Return the verdict on each reward so far, and the next command, as text for a terminal."""
        alarm, folder = self.alarm, self._trainer.args.output_dir
        generations = "1 generation" if alarm.generations == 1 else f"{alarm.generations} generations"
        lines = [f"rvpo: the rewards of the last {alarm.groups} groups, after {generations}:"]
        for name, judged in alarm.verdicts().items():
            called = f" (called as neglected at generation {alarm.called[name]})" if name in alarm.called else ""
            lines.append(f"  {printable(name)}: {judged.verdict}{called}: {printable(judged.rule)}")
        if self._trainer.log_completions:
            lines.append(f"Next: rvpo diagnose {folder}")
        else:
            lines.append("Next: train with log_completions=True, then rvpo diagnose OUTPUT_DIR looks at the whole run")
        return "\n".join(lines)

    def _warning(self, call: Call) -> str:
        name = call.name
        if call.divergence is not None:
            return (
                f"{name!r} is diverging from a monitor, seen at generation {call.generation}: {call.rule}. What to do: "
                f"read the completions that {name!r} prefers now, and go back to a checkpoint before generation "
                f"{call.divergence.since}; then close the hole in {name!r}, or train on {call.divergence.monitor!r}, "
                f"too. rvpo/{name}/{DIVERGING} logs how long it lasts; this warning is shown once per reward."
            )
        return (
            f"{name!r} is being neglected, seen at generation {call.generation}: {call.rule}. What to do: "
            f"{_remedy(self._trainer, name)}. rvpo/{name}/{NEGLECTED} logs how long it lasts; this warning is shown "
            "once per reward."
        )

    def _checkpoint(self, step: int) -> Path:
        return Path(self._trainer._get_output_dir(trial=None)) / f"checkpoint-{step}"

    def _load(self, checkpoint: Path) -> None:
        path = checkpoint / FILE
        if not path.exists():
            if self._trainer.is_world_process_zero():
                logger.warning("There is no %s: the watch for neglected rewards begins anew.", path)
            return
        with np.load(path, allow_pickle=False) as arrays:
            self.alarm.load_state(arrays)
            self._seen = json.loads(str(arrays["seen"]))

    # --- trainers that are not ours -----------------------------------------------------------------------------------

    def _wrap(self, trainer: Any) -> None:
        """Read what the trainer's two methods return. The outermost methods are wrapped, including all overrides."""
        if self._wrapped is trainer:
            return
        self._wrapped = trainer
        score, generate = trainer._calculate_rewards, trainer._generate_and_score_completions

        def calculate_rewards(*args: Any, **kwargs: Any) -> Tensor:
            self._rewards = score(*args, **kwargs)
            return self._rewards

        def generate_and_score_completions(*args: Any, **kwargs: Any) -> Any:
            self._rewards = None
            output = generate(*args, **kwargs)
            if self.is_active and trainer.model.training:
                self._see_plain(output)
            return output

        trainer._calculate_rewards = calculate_rewards
        trainer._generate_and_score_completions = generate_and_score_completions

    def _see_plain(self, output: Any) -> None:
        trainer, rewards = self._trainer, self._rewards
        local = output.get("advantages") if isinstance(output, dict) else None
        used = trainer.accelerator.gather(local) if isinstance(local, Tensor) else None
        count = trainer.num_generations
        if rewards is None or used is None or used.shape != rewards.shape[:1] or len(rewards) % count:
            seen = "no rewards" if rewards is None else f"rewards of shape {tuple(rewards.shape)}"
            found = "no advantages" if used is None else f"advantages of shape {tuple(used.shape)}"
            raise EngineError(
                f"DiagnosisCallback saw {seen} and {found} of {type(trainer).__name__}; expected (N, M) and (N,), in "
                f"groups of {count}. Remove the callback, and read the logs with `rvpo diagnose` afterwards"
            )
        channels = _channels(trainer, rewards.device)
        rewards = rewards.detach().masked_fill(rewards.isinf(), torch.nan).double()
        self._warn_of_rewards(rewards, channels)
        groups = Groups.from_blocks(len(rewards), count, rewards.device)
        self.see(Generation(rewards, used, groups, channels, torch.as_tensor(trainer.reward_weights)))

    def _warn_of_rewards(self, rewards: Tensor, channels: Channels) -> None:
        config = AdvantageConfig(GRPO())
        result = compute(rewards, config, num_generations=self._trainer.num_generations, channels=channels)
        shown = sights(result, channels)
        self._seen = next_seen(self._seen, shown, dict(zip(channels.names, channels.ranges, strict=True)))
        for text in news_of_rewards(self._seen, shown, config.method, {}):
            if self._trainer.is_world_process_zero():
                logger.warning("%s", text)


def add_alarm(trainer: Any) -> None:
    """Add the callback to a trainer of ours, unless the user has passed one."""
    if next(_callbacks(trainer), None) is None:
        trainer.add_callback(DiagnosisCallback())


def watched(trainer: Any, mode: str, done: Aggregated) -> None:
    """Pass a generation of a trainer of ours to its callback. Evaluations are ignored."""
    for callback in _callbacks(trainer) if mode == "train" else ():
        if callback.is_active:
            result = done.result
            callback.see(
                Generation(done.entered, result.advantages, result.groups, done.channels, done.weights, result.applies)
            )


def _callbacks(trainer: Any) -> Iterator[DiagnosisCallback]:
    return (callback for callback in trainer.callback_handler.callbacks if isinstance(callback, DiagnosisCallback))


def _caller(callback: DiagnosisCallback) -> tuple[Trainer | None, Path | None]:
    """Return the trainer that calls a callback of its list, and the checkpoint from which it resumes."""
    frame = inspect.currentframe()
    while frame is not None:
        found = frame.f_locals.get("self")
        if isinstance(found, Trainer) and any(one is callback for one in found.callback_handler.callbacks):
            checkpoint = frame.f_locals.get("resume_from_checkpoint")
            return found, Path(checkpoint) if isinstance(checkpoint, str | Path) else None
        frame = frame.f_back
    return None, None


def _is_ours(trainer: Any) -> bool:
    return isinstance(getattr(trainer, "aggregator", None), Aggregator)


def _sums_raw(trainer: Any) -> bool:
    if _is_ours(trainer):
        return bool(trainer.aggregator.config.method.name == "grpo")
    return getattr(trainer, "multi_objective_aggregation", "") == "sum_then_normalize"


def _channels(trainer: Any, device: torch.device) -> Channels:
    """Return the channels of a plain trainer's reward functions. Equal names get a number."""
    names: list[str] = []
    for name in trainer.reward_func_names:
        same = sum(other == name or other.startswith(f"{name}#") for other in names)
        names.append(f"{name}#{same + 1}" if same else name)
    ranges = [getattr(function, "reward_range", None) for function in trainer.reward_funcs]
    return Channels.columns(names, ranges, device)


def _remedy(trainer: Any, name: str) -> str:
    if not _is_ours(trainer):
        return (
            "raise its weight in reward_weights, or train with rvpo.trl.RVPOTrainer and method='lift', which lets no "
            "reward fall for the sake of the others"
        )
    if trainer.aggregator.config.method.name.startswith("lift"):
        return f"raise its weight in reward_weights, or give it a floor, method=rvpo.LIFT(floors={{{name!r}: 0.8}})"
    return (
        "train with method='lift', which lets no reward fall for the sake of the others, or raise its weight in "
        "reward_weights"
    )
