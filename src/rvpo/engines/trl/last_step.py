"""State for a checkpoint of the last finished step, for a run that ends in the middle of the next step.

A step changes more than the weights before it is finished: random generators, the counter of tokens, TRL's counter and
buffer of completions, and the method's memory. :class:`LastStep` copies all of these when a step is finished. So a run
that ends later can still save a checkpoint, and a resumed run repeats the whole step.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from transformers import TrainerCallback

from rvpo import interrupts
from rvpo.engines.trl.rubrics import RandomState


@dataclass(frozen=True)
class LastStep:
    """The state of a trainer after a step, besides its weights and its optimizer.

    Attributes:
        step: number of finished steps.
        random: random generators of this process.
        tokens: number of tokens seen.
        batches: TRL's number of batches, which gives the position in a generation cycle.
        buffered: completions that are generated but not yet trained on; None between two generations.
        remembered: the aggregator's memory.
    """

    step: int
    random: RandomState
    tokens: int
    batches: int
    buffered: Any
    remembered: Any

    @classmethod
    def of(cls, trainer: Any) -> LastStep:
        """Copy the state of a trainer that has just finished a step."""
        cycle = trainer.args.steps_per_generation * trainer.num_iterations
        return cls(
            trainer.state.global_step,
            RandomState(),
            trainer.state.num_input_tokens_seen,
            trainer._step,
            trainer._buffered_inputs if trainer._step % cycle else None,
            trainer.aggregator.snapshot(),
        )

    def restore(self, trainer: Any) -> None:
        """Put the state back."""
        self.random.restore()
        trainer.state.num_input_tokens_seen = self.tokens
        trainer._step, trainer._buffered_inputs = self.batches, self.buffered
        trainer.aggregator.rewind(self.remembered)


class WholeSteps(TrainerCallback):  # type: ignore[misc]
    """Holds interrupts back from the update of the weights until the state of the finished step is copied."""

    def __init__(self, trainer: Any) -> None:
        """Copy the state of this trainer after each step, into its attribute ``_last_step``."""
        self._trainer = trainer

    def on_pre_optimizer_step(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Begin the part of a step that must not be interrupted."""
        interrupts.hold()
        self._trainer._updating = True

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Copy the state of the finished step. An interrupt that was held back ends the run here."""
        self._trainer._last_step = LastStep.of(self._trainer)
        self._trainer._updating = False
        interrupts.release()


def save_last_step(trainer: Any) -> str:
    """Save a checkpoint of the last finished step, unless it exists, and return a sentence about it. Collective.

    Example:
        >>> save_last_step(trainer)  # doctest: +SKIP
        'Stopped after step 2, out/checkpoint-2 is saved'
    """
    step = trainer.state.global_step
    if not step:
        return "Stopped after step 0, nothing was trained yet"
    folder = Path(trainer.args.output_dir) / f"checkpoint-{step}"
    if trainer._updating:  # a KeyboardInterrupt that does not come from rvpo.interrupts, or an error of the optimizer
        return f"Stopped while step {step + 1} changed the weights, so no checkpoint could be saved"
    if trainer._saved_step != step:
        if trainer._last_step is not None and trainer._last_step.step == step:
            trainer._last_step.restore(trainer)
        try:
            trainer._save_checkpoint(trainer.model, trial=None)
        except Exception as error:  # a full disk must not hide what ended the run
            return f"Stopped after step {step}, and no checkpoint could be saved ({type(error).__name__}: {error})"
    return f"Stopped after step {step}, {folder} is saved"
