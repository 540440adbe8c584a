"""prime-rl: any method in place of its algorithm ``grpo``, in an orchestrator started as ``python -m rvpo.prime_rl``.

How it connects: an ``Algorithm`` scores one group of episodes at a time, in the orchestrator, a single process. A trace
has its rewards by name, None where scoring did not run. prime-rl finds an algorithm only by the type in its config, so
:func:`install` replaces ``grpo`` by ours. See docs/engines/prime_rl.md for details.
"""

from __future__ import annotations

import functools
import logging
import shutil
from pathlib import Path
from typing import Any
from urllib.parse import quote

from prime_rl.orchestrator.algo import ALGORITHM_CLASSES, assign_advantages
from prime_rl.orchestrator.algo.base import Algorithm, iter_trainable_traces
from prime_rl.orchestrator.ckpt import CheckpointManager

from rvpo.engines.dicts.options import DictOptions
from rvpo.engines.dicts.rewards import RewardDicts
from rvpo.errors import ConfigError

logger = logging.getLogger(__name__)

_running: dict[str, RVPOAlgorithm] = {}
"""The algorithm of each environment that has scored a group."""
_resumed: list[Path] = []
"""The folder with the saved memory, if the run is resumed."""


class RVPOAlgorithm(Algorithm):  # type: ignore[misc]
    """The algorithm that prime-rl builds for each of its environments."""

    def __init__(self, config: Any, policy_pool: Any) -> None:
        """Start a run with the options in the file that ``RVPO_CONFIG`` names."""
        super().__init__(config, policy_pool)
        if config.length_penalty is not None:
            raise ConfigError(
                "algo.length_penalty is set, which is computed from the total reward; expected null. Return a reward "
                "for length, and name it in reward_keys"
            )
        self.options = DictOptions.from_environment()
        self.run = RewardDicts(self.options, one_group=True)
        logger.warning("rvpo computes the advantages, with method %s.", self.run.aggregator.config)

    async def score_group(self, episodes: list[Any]) -> None:
        """Assign each trainable trace its advantage; traces of different agents are not compared.

        Raises:
            RewardError: rewards that cannot be aggregated.
            ConfigError: weights of verifiers, which would be ignored, or a saved state of another method.
        """
        pairs = list(iter_trainable_traces(episodes))
        if not pairs:
            return
        self._belong_to(str(pairs[0][0].env.name))
        traces = [trace for _, trace in pairs]
        scored = self.run([self._rewards(trace) for trace in traces], [trace.agent.name for trace in traces])
        for trace, advantage in zip(traces, scored.advantages, strict=True):
            assign_advantages(trace, advantage)
            trace.record_metrics(scored.metrics)  # prime-rl logs the mean over the traces of a step

    def _rewards(self, trace: Any) -> dict[str, float | None]:
        """Return scores without the weights of verifiers, which apply only to the sum in verifiers."""
        for name, reward in trace.rewards.items():
            weighted = reward is not None and reward.weight != 1 and name in self.run.names
            if weighted and self.options.reward_weights is None:
                raise ConfigError(
                    f"verifiers gives the reward {name!r} the weight {reward.weight}, which affects only its total; "
                    f"expected rvpo.reward_weights: name the weights there, such as {{{name}: {reward.weight}}}"
                )
        return {name: None if reward is None else reward.score for name, reward in trace.rewards.items()}

    def _belong_to(self, env: str) -> None:
        """Learn the environment's name, and load the memory that was saved for it."""
        if _running.setdefault(env, self) is self and not hasattr(self, "env"):
            self.env = env
            if _resumed:
                self.run.load(_resumed[0] / quote(env, safe=""))


def install() -> None:
    """Replace ``grpo`` by our algorithm, and keep its memory in the orchestrator's checkpoints."""
    ALGORITHM_CLASSES["grpo"] = RVPOAlgorithm
    if not hasattr(CheckpointManager.save, "rvpo"):
        for name, wrapper in (("save", _save), ("load", _load)):
            original = getattr(CheckpointManager, name)

            @functools.wraps(original)
            def wrapped(manager: Any, *args: Any, _do: Any = wrapper, _original: Any = original, **kwargs: Any) -> Any:
                return _do(_original, manager, *args, **kwargs)

            wrapped.rvpo = True  # type: ignore[attr-defined]
            setattr(CheckpointManager, name, wrapped)


def _save(original: Any, manager: Any, progress: Any, train_source: Any, step: int) -> None:
    folder = Path(manager.get_ckpt_path(step)) / "rvpo"
    # Copy the memory of environments that have not had a group since the run was resumed, too.
    if _resumed and _resumed[0].is_dir() and _resumed[0] != folder:
        shutil.copytree(_resumed[0], folder, dirs_exist_ok=True)
    for env, algorithm in _running.items():
        algorithm.run.save(folder / quote(env, safe=""))
    original(manager, progress, train_source, step)


def _load(original: Any, manager: Any, progress: Any, train_source: Any, step: int, path: Path | None = None) -> None:
    original(manager, progress, train_source, step=step, path=path)
    if not manager.config.skip_progress:
        _resumed[:] = [(manager.get_ckpt_path(step) if path is None else Path(path)) / "rvpo"]
