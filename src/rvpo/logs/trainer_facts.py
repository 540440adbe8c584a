"""What the state of TRL's trainer says about the completions that it logged: evaluations, and names of rewards."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from rvpo.logs.metric_files import folder_of_run, rows, states

_REWARD = re.compile(r"(?:eval_)?rewards/(.+)/mean")


@dataclass(frozen=True)
class TrainerFacts:
    """Facts from the metrics of a run.

    Attributes:
        evaluated: steps at which an evaluation was logged.
        rewards: names of the reward functions; empty if unknown.
        last: last step at which rewards were logged; a run may have gone on after its last checkpoint.
    """

    evaluated: frozenset[int] = frozenset()
    rewards: frozenset[str] = frozenset()
    last: int = 0


def trainer_facts(path: Path) -> TrainerFacts:
    """Read the newest state of the trainer of a run; without any, nothing is known."""
    for state in states(folder_of_run(path)):
        try:
            entries = list(rows(state)) if state.is_file() else []
        except OSError:
            continue
        if entries:
            evaluated = frozenset(step for step, metrics in entries if _is_evaluation(metrics))
            named = [(step, match[1]) for step, metrics in entries for key in metrics if (match := _REWARD.match(key))]
            last = max((step for step, _ in named), default=0)
            return TrainerFacts(evaluated, frozenset(name for _, name in named), last)
    return TrainerFacts()


def _is_evaluation(metrics: Mapping[str, object]) -> bool:
    return any(key.startswith("eval_") for key in metrics)
