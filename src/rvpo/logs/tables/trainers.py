"""Recognise trainers by the names in their logs, and give the setting of each that logs one row per completion."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass


@dataclass(frozen=True)
class Trainer:
    """A trainer.

    Attributes:
        name: name of the trainer.
        rows: column names that its rollouts have; all of them.
        metrics: parts of names that its metrics per step have; any of them.
        setting: the setting that logs rollouts.
    """

    name: str
    rows: tuple[str, ...]
    metrics: tuple[str, ...]
    setting: str


TRAINERS = (
    Trainer(
        "ms-swift",
        ("completion", "advantages", "line"),
        ("global_step/max_steps", "memory(GiB)", "train_speed"),
        "--log_completions true, which writes completions.jsonl",
    ),
    Trainer(
        "verl",
        ("input", "output", "gts", "score"),
        ("critic/", "actor/", "timing_s/", "training/global_step", "response_length/"),
        "trainer.rollout_data_dir=FOLDER, which writes one JSONL file per step",
    ),
    Trainer(
        "AReaL",
        ("task_id", "sample_idx", "seqlen", "tail_version"),
        ("ppo_actor/", "grpo_actor/", "ppo_critic/", "timeperf/"),
        "rollout.dump_to_file=true, which writes a folder per version",
    ),
    Trainer(
        "open-instruct",
        ("prompt_idx", "sample_idx", "response_tokens"),
        ("objective/", "val/sequence_lengths", "episode"),
        "--save_traces true --rollouts_save_path FOLDER",
    ),
    Trainer(
        "NeMo-RL",
        ("content", "advantages", "input_lengths"),
        ("global_valid_toks", "train/probs_ratio", "performance/", "train/baseline_reward"),
        "its log_dir holds train_data_step*.jsonl already",
    ),
    Trainer(
        "slime",
        ("rollout_id", "samples"),
        ("rollout/raw_reward", "rollout/rewards", "train/pg_loss", "perf/actor_train"),
        "--save-debug-rollout-data PATH, converted to JSONL, as it writes pickles",
    ),
    Trainer(
        "NeMo-Gym",
        ("responses_create_params.input",),
        (),
        "ng_collect_rollouts, which writes one line per rollout",
    ),
    Trainer(
        "prime-rl",
        ("task.data", "rewards"),
        ("progress/", "batch/", "effective_batch", "solve_all", "solve_none"),
        "its output folder holds rollouts/step_*/…/traces.jsonl already, with the monitor for files",
    ),
    Trainer(
        "TRL",
        ("step", "prompt", "completion", "advantage"),
        ("frac_reward_zero_std", "completions/mean_length", "reward_std", "rewards/", "log_history"),
        "log_completions=True in the trainer's config, which writes completions/*.parquet",
    ),
    Trainer(
        "OpenRLHF",
        (),
        ("policy_loss", "actor_lr", "actlr", "response_length"),
        "a reward function of your own that writes {step, prompt, completion, rewards} as JSONL",
    ),
)


SHARED = ("progress/", "batch/", "episode", "response_length", "response_length/")
"""Parts of names that several trainers log: alone they do not identify a trainer."""


def trainer_of_rows(names: Collection[str]) -> Trainer | None:
    """Return the trainer that writes rows with such columns."""
    known = {*names, *(".".join(name.split(".")[:depth]) for name in names for depth in (1, 2))}
    return next((trainer for trainer in TRAINERS if trainer.rows and known.issuperset(trainer.rows)), None)


def trainer_of_metrics(names: Collection[str]) -> Trainer | None:
    """Return the trainer that logs most of such metrics."""
    begun = [f"/{name}" for name in names]  # loggers add folders before names

    def found(trainer: Trainer, shared: bool) -> int:
        parts = [part for part in trainer.metrics if (part in SHARED) == shared]
        return sum(f"/{part}" in name for name in begun for part in parts)

    hits = [(own := found(trainer, False)) and own + found(trainer, True) for trainer in TRAINERS]
    return TRAINERS[hits.index(max(hits))] if max(hits) else None


def setting_of_unknown() -> str:
    """Return the settings of the two most common trainers, for logs of an unknown trainer."""
    settings = {trainer.name: trainer.setting for trainer in TRAINERS}
    return "; ".join(f"{name}: {settings[name]}" for name in ("TRL", "verl"))
