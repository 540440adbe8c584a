"""slime: any method as ``--custom-reward-post-process-path rvpo.slime.post_process``.

How it connects: slime's rollout manager, a single process, passes all samples of a rollout to that function. It gets
back the raw rewards, which it logs, and the advantages, which the loss uses. For the estimators in ``BROADCAST``, slime
gives every token the advantage unchanged. All other estimators change it, so they are refused. See
docs/engines/slime.md for details.
"""

from __future__ import annotations

import importlib
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rvpo.engines.dicts.options import SECTION, DictOptions
from rvpo.engines.dicts.rewards import RewardDicts
from rvpo.errors import ConfigError, EngineError, RewardError

BROADCAST = ("grpo", "gspo", "cispo")
FILTERS = "slime.rollout.filter_hub.dynamic_sampling_filters."


class PostProcess:
    """The function that slime calls. It starts a run at the first call, when slime's arguments are known."""

    def __init__(self) -> None:
        """Wait for the first call."""
        self._run: RewardDicts | None = None
        self._resumed = False

    def __call__(self, args: Any, samples: Sequence[Any]) -> tuple[list[float], list[float]]:
        """Return the raw reward and the advantage of each sample.

        Args:
            args: slime's arguments.
            samples: all samples of one rollout step, in one list; ``reward`` is a dict, or None for a sample without
                scores.

        Raises:
            ConfigError: invalid options, or arguments of slime that would change the advantages.
            RewardError: rewards that cannot be aggregated.
            EngineError: this version of slime does not number its rollouts.
        """
        run, step = self._begun(args), _rollout_id()
        if not self._resumed and step > 0:  # slime resumes from the checkpoint of the previous rollout
            run.load(_folder(args.load, step - 1))
        self._resumed = True
        scored = run(
            [sample.reward for sample in samples],
            [sample.group_index for sample in samples],
            rollouts=[("sample", i) if s.rollout_id is None else s.rollout_id for i, s in enumerate(samples)],
            progress=min(step / args.num_rollout, 1.0) if args.num_rollout else None,
            other_keys=[args.reward_key],
        )
        if args.save is not None:
            run.save(_folder(args.save, step))
        _log(args, step, scored.metrics)
        return [_raw(sample.reward, args.reward_key) for sample in samples], scored.advantages

    def keep_ranked(self, args: Any, samples: Sequence[Any], **_: Any) -> bool:
        """Keep a group if any of its rewards ranks it: ``--dynamic-sampling-filter-path rvpo.slime.keep_ranked``."""
        flat = [part for one in samples for part in (one if isinstance(one, list) else [one])]
        return self._begun(args).ranks([sample.reward for sample in flat])

    def _begun(self, args: Any) -> RewardDicts:
        if self._run is None:
            check(args)
            section = getattr(args, SECTION, None)
            instead = f", or a section {SECTION} in slime's --custom-config-path"
            options = DictOptions.from_environment(instead) if section is None else DictOptions.from_mapping(section)
            self._run = RewardDicts(options, with_progress=bool(args.num_rollout))
        return self._run


def check(args: Any) -> None:
    """Refuse arguments with which slime would not train on our advantages.

    Raises:
        ConfigError: there is such an argument.
    """
    if args.advantage_estimator not in BROADCAST:
        raise ConfigError(
            f"--advantage-estimator is {args.advantage_estimator!r}, which changes advantages again; expected one of "
            f"{', '.join(BROADCAST)}. Set grpo"
        )
    if args.normalize_advantages:
        raise ConfigError(
            "--normalize-advantages is set, which whitens advantages again; expected it unset: the method whitens"
        )
    if not args.reward_key:
        raise ConfigError(
            "--reward-key is not set, but rewards are dicts; expected the key of the number that slime logs, such as "
            "--reward-key score. It affects the advantages only if reward_keys names it, too"
        )
    if (args.dynamic_sampling_filter_path or "").startswith(FILTERS):
        raise ConfigError(
            f"--dynamic-sampling-filter-path is {args.dynamic_sampling_filter_path}, which drops groups in which "
            f"{args.reward_key!r} is constant, even if another reward ranks them; expected rvpo.slime.keep_ranked"
        )


def _raw(reward: Mapping[str, Any] | None, key: str) -> float:
    """Return the number that slime logs. A missing value is NaN, which makes slime's mean of the step NaN, too."""
    value = None if reward is None else reward.get(key)
    try:
        return math.nan if value is None else float(value)
    except (TypeError, ValueError, RuntimeError) as error:
        raise RewardError(
            f"the reward dict has {value!r:.80} under --reward-key {key}; expected the number that slime logs"
        ) from error


def _folder(root: str | None, step: int) -> Path:
    return Path(root or "") / SECTION / f"rollout_{step}"


def _rollout_id() -> int:
    """Return the number of slime's current rollout."""
    try:
        step = importlib.import_module("slime.rollout.sample_hooks")._current_rollout_id
    except (ImportError, AttributeError):
        step = None
    if not isinstance(step, int):
        raise EngineError(
            "slime does not say at which rollout it is (slime.rollout.sample_hooks has no _current_rollout_id); "
            "expected slime of August 2026 or later. Update slime"
        )
    return step


def _log(args: Any, step: int, metrics: Mapping[str, float]) -> None:
    """Log next to slime's own rollout metrics."""
    logging_utils = importlib.import_module("slime.observability.logging_utils")
    number = importlib.import_module("slime.observability.metric_utils").compute_rollout_step(args, step)
    logging_utils.log(args, {**metrics, "rollout/step": number}, step_key="rollout/step")


post_process = PostProcess()
keep_ranked = post_process.keep_ranked
