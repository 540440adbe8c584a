"""rLLM: any method as an advantage estimator, after ``rvpo.rllm.register(…)`` in the training script.

How it connects: rLLM calls the estimator in the trainer's process, with all groups of one role. The trajectories are in
``traj_groups``; their ``signals`` are the rewards by name. rLLM does not collect metrics or state from an estimator, so
both are written into a folder. See docs/engines/rllm.md for details.
"""

from __future__ import annotations

import importlib
import json
import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np

from rvpo.engines.dicts.options import DictOptions
from rvpo.engines.dicts.rewards import RewardDicts
from rvpo.errors import EngineError

logger = logging.getLogger(__name__)

NAME = "rvpo"
METRICS = "metrics.jsonl"
"""One line per call, in the folder of a role."""


class Estimator:
    """The estimator that rLLM calls for each role of its agents. Each role has its own memory."""

    def __init__(self, options: DictOptions, folder: Path) -> None:
        """Start a run, or resume it from the state in its folder."""
        self.options, self.folder = options, folder
        self.roles: dict[str, RewardDicts] = {}
        RewardDicts(options)  # an option that cannot work is refused here

    def __call__(
        self, rewards: Sequence[Any], algorithm_config: Any, *, traj_groups: Sequence[Any] | None = None, **_: Any
    ) -> tuple[list[Any], list[Any]]:
        """Return advantages, one array per group. The returns are the same arrays.

        Args:
            rewards: total rewards of each group; not used.
            algorithm_config: rLLM's own config of the algorithm; not used.
            traj_groups: the groups of one role, whose trajectories have ``signals``.

        Raises:
            EngineError: rLLM did not pass the trajectories.
            RewardError: signals that cannot be aggregated.
        """
        if traj_groups is None:
            raise EngineError("rLLM called the estimator without traj_groups; expected rLLM 0.3 or later: update it")
        role = traj_groups[0].group_role
        run = self._run_of(role)
        ids = [i for i, group in enumerate(traj_groups) for _ in group.trajectories]
        scored = run([trajectory.signals for group in traj_groups for trajectory in group.trajectories], ids)
        self._write(role, scored.metrics)
        ends = np.cumsum([len(group.trajectories) for group in traj_groups])[:-1]
        advantages = np.split(np.array(scored.advantages), ends)
        return advantages, advantages

    def _run_of(self, role: str) -> RewardDicts:
        if role not in self.roles:
            options = self.options
            if options.records is not None:
                options = replace(options, records=str(Path(options.records) / quote(role, safe="")))
            run = self.roles[role] = RewardDicts(options)
            # rLLM uses this estimator for every name that it does not know, also for a mistyped one.
            logger.warning("rvpo computes the advantages of role %s, with method %s.", role, run.aggregator.config)
            if (folder := self._place(role)).exists():
                logger.warning("Role %s resumes from %s. For a new run, name another folder.", role, folder)
                run.load(folder)
        return self.roles[role]

    def _write(self, role: str, metrics: Mapping[str, float]) -> None:
        folder = self._place(role)
        folder.mkdir(parents=True, exist_ok=True)
        self.roles[role].save(folder)
        line = {name: value if math.isfinite(value) else None for name, value in metrics.items()}
        with (folder / METRICS).open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")

    def _place(self, role: str) -> Path:
        return self.folder / quote(role, safe="")


def register(folder: str | Path, **options: Any) -> None:
    """Register ``adv_estimator=rvpo`` in rLLM, and ``traj_group_adv_estimator_map={role: "rvpo"}``.

    Args:
        folder: folder for the method's memory and the metrics; a resumed run names the same folder.
        options: ``method``, ``reward_keys`` and all other options of a section ``rvpo``.

    Raises:
        ConfigError: options that cannot work.
    """
    estimator = Estimator(DictOptions.from_mapping(options, "rvpo.rllm.register"), Path(folder))
    add = importlib.import_module("rllm.trainer.algorithms.advantage").register_rllm_adv_estimator
    add(NAME)(estimator)
    # rLLM's config replaces every name that it does not know by this value.
    add(importlib.import_module("rllm.trainer.algorithms.config").rLLMAdvantageEstimator.OTHER)(estimator)
