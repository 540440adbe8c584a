"""When the neglect alarm of a training calls, what was lost afterwards, and what it calls wrongly.

    python benchmarks/reports/alarm.py --out runs/alarm --seeds 1000-1019
    python benchmarks/reports/alarm.py --out runs/alarm-live --seeds 1000-1001 --live

Trains the quickstart's policies (both starts, three methods each) with their settings, and keeps the rewards and the
advantages of every step. Finished runs are kept, so a stopped command continues. Then the alarm of
:mod:`rvpo.diagnose.alarm` reads each run step by step, as it does in training, and the tables are printed.

``--live`` trains with the alarm itself, from the start at which the format is mostly met: TRL's own GRPOTrainer with a
DiagnosisCallback (its sum of rewards, and its normalize_then_sum), and RVPOTrainer. It prints when each reward was
called, what became of it, and which share of the processor time the callback took.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import PrinterCallback
from trl import GRPOConfig, GRPOTrainer

from rvpo.core import Channels
from rvpo.core.groups import Groups
from rvpo.diagnose.alarm import Alarm, Generation
from rvpo.files import whole, write
from rvpo.quickstart.cells import CELLS, GDPO, MOSTLY_MET, Cell, Contender, Settings
from rvpo.quickstart.model import load_checkpoint, make_tokenizer
from rvpo.quickstart.task import CHANNELS, FORMAT, REWARDS
from rvpo.quickstart.train import _arguments, _requests
from rvpo.trl import DiagnosisCallback, RVPOTrainer

SETTINGS = Settings()
QUARTER = SETTINGS.steps // 4
Array = np.ndarray


def train(cell: Cell, contender: Contender, seed: int, path: Path) -> None:
    """Train one policy and write its rewards (S, N, M) and advantages (S, N)."""
    rewards: list[torch.Tensor] = []
    advantages: list[torch.Tensor] = []

    class Recorder(RVPOTrainer):
        def _log(self, mode: str, done: Any) -> None:
            rewards.append(done.result.rewards.cpu())
            advantages.append(done.result.advantages.cpu())
            super()._log(mode, done)

    with tempfile.TemporaryDirectory() as folder:
        trainer = Recorder(
            load_checkpoint(cell.checkpoint),
            reward_funcs=list(REWARDS),
            args=_arguments(contender, seed, SETTINGS, folder),
            train_dataset=_requests(seed, SETTINGS.steps * SETTINGS.prompts),
            processing_class=make_tokenizer(),
        )
        trainer.remove_callback(PrinterCallback)
        trainer.train()
    with whole(path) as partial, partial.open("wb") as file:
        np.savez_compressed(file, rewards=torch.stack(rewards).numpy(), advantages=torch.stack(advantages).numpy())


@dataclass(frozen=True)
class Story:
    """What became of a run, and what the alarm said of it.

    Attributes:
        start: mean reward of each channel in the first two steps, (M,).
        lowest: of each channel the lowest mean over ten steps after the first quarter, (M,).
        end: mean reward of each channel in the last ten steps, (M,).
        calls: channel -> step of the first call.
        milliseconds: that the alarm took per step.
    """

    start: Array
    lowest: Array
    end: Array
    calls: dict[str, int]
    milliseconds: float

    @property
    def outcome(self) -> str:
        """What became of the format; a channel is lost where under half of its starting rate is left."""
        j = CHANNELS.index(FORMAT)
        if self.end[j] < self.start[j] / 2:
            return "lost"
        return "lost for a while" if self.lowest[j] < self.start[j] / 2 else "kept"


def read(path: Path) -> Story:
    """Let an alarm look at a recorded run, step by step."""
    with np.load(path) as recorded:
        rewards, advantages = torch.from_numpy(recorded["rewards"]), torch.from_numpy(recorded["advantages"])
    steps, rows, _ = rewards.shape
    groups = Groups.from_blocks(rows, SETTINGS.generations, rewards.device)
    channels, weights = Channels.columns(CHANNELS), torch.ones(len(CHANNELS))
    alarm = Alarm()
    began = time.process_time()
    for step in range(steps):
        alarm.add(Generation(rewards[step], advantages[step], groups, channels, weights))
    seconds = time.process_time() - began
    rates = rewards.mean(1).numpy()
    later = [rates[i : i + 10].mean(0) for i in range(QUARTER, steps - 9)]
    return Story(rates[:2].mean(0), np.min(later, axis=0), rates[-10:].mean(0), alarm.called, 1000 * seconds / steps)


def show(out: Path) -> None:
    """Print what the alarm said, by start, method and outcome."""
    stories = {path.stem: read(path) for path in sorted(out.glob("*.npz"))}
    print(
        f"\n{'start, method, format':<40}{'runs':>6}{'called in the first quarter':>29}{'at step':>16}{'later':>7}{'never':>7}"
    )
    for kind in sorted({_kind(name, story) for name, story in stories.items()}):
        calls = [story.calls.get(FORMAT) for name, story in stories.items() if _kind(name, story) == kind]
        soon = sorted(call for call in calls if call is not None and call <= QUARTER)
        late = sum(call is not None and call > QUARTER for call in calls)
        span = f"{soon[0]} to {soon[-1]}" if soon else "-"
        print(f"{kind:<40}{len(calls):>6}{len(soon):>29}{span:>16}{late:>7}{calls.count(None):>7}")
    print("\ncalls of other channels than the format:")
    for name, story in stories.items():
        for channel, step in story.calls.items():
            if channel != FORMAT:
                j = CHANNELS.index(channel)
                rates = f"{story.start[j]:.2f}, lowest {story.lowest[j]:.2f}, end {story.end[j]:.2f}"
                print(f"  {name:<28}{channel:<18} step {step:>2}: {rates}; format {story.outcome}")
    others = sum(any(channel != FORMAT for channel in story.calls) for story in stories.values())
    times = [story.milliseconds for story in stories.values()]
    print(
        f"\n{len(stories)} runs, {others} with such a call; {np.median(times):.1f} ms of processor time per step (median)"
    )


def _kind(name: str, story: Story) -> str:
    start, method, _ = name.split("-")
    return f"{start}, {method}, {story.outcome}"


class Timed(DiagnosisCallback):
    """Counts the processor time that it takes."""

    spent = 0.0

    def see(self, batch: Generation) -> None:
        """Take in a generation."""
        began = time.process_time()
        super().see(batch)
        self.spent += time.process_time() - began


LIVE: dict[str, tuple[type, dict[str, Any]]] = {
    "trl-sum": (GRPOTrainer, {}),
    "trl-gdpo": (GRPOTrainer, {"multi_objective_aggregation": "normalize_then_sum"}),
    "rvpo-gdpo": (RVPOTrainer, {}),
}


def live(kind: str, seed: int, path: Path) -> None:
    """Train with the alarm, and write its calls, the mean reward of each step, and the time that it took."""
    trainer_class, options = LIVE[kind]
    callback = Timed(summary=False)
    with tempfile.TemporaryDirectory() as folder:
        ours = _arguments(GDPO, seed, SETTINGS, folder)
        given = {name: getattr(ours, name) for name in _GIVEN} | options
        trainer = trainer_class(
            load_checkpoint(MOSTLY_MET.checkpoint),
            reward_funcs=list(REWARDS),
            args=ours if trainer_class is RVPOTrainer else GRPOConfig(**given),
            train_dataset=_requests(seed, SETTINGS.steps * SETTINGS.prompts),
            processing_class=make_tokenizer(),
            callbacks=[callback],
        )
        trainer.remove_callback(PrinterCallback)
        began = time.process_time()
        trainer.train()
        whole_time = time.process_time() - began
    logs = [entry for entry in trainer.state.log_history if f"rewards/{FORMAT}/mean" in entry]
    told = {
        "calls": callback.alarm.called,
        "neglected": [entry[f"rvpo/{FORMAT}/neglected"] for entry in logs],
        "format": [entry[f"rewards/{FORMAT}/mean"] for entry in logs],
        "milliseconds": 1000 * callback.spent / SETTINGS.steps,
        "step": 1000 * whole_time / SETTINGS.steps,
    }
    write(path, json.dumps(told))


_GIVEN = (
    *("output_dir", "seed", "max_steps", "per_device_train_batch_size", "num_generations", "max_completion_length"),
    *("learning_rate", "lr_scheduler_type", "adam_beta2", "beta", "logging_steps", "save_strategy", "report_to"),
    *("disable_tqdm", "use_cpu", "bf16", "gradient_checkpointing"),
)


def show_live(out: Path) -> None:
    """Print what the alarm said while it trained."""
    print(f"{'run':<20}{'format in steps 1-2, 16-25, 51-60':>36}{'calls (step)':>40}{'ms per step':>14}{'of':>8}")
    for path in sorted(out.glob("*.json")):
        told = json.loads(path.read_text("utf-8"))
        rates = [np.mean(told["format"][first:last]) for first, last in ((0, 2), (15, 25), (50, 60))]
        calls = ", ".join(f"{name} {step}" for name, step in told["calls"].items()) or "-"
        means = " ".join(f"{rate:.2f}" for rate in rates)
        print(f"{path.stem:<20}{means:>36}{calls:>40}{told['milliseconds']:>14.1f}{told['step']:>8.0f}")


def main() -> None:
    """Train what is not there yet, and show what the alarm says of it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seeds", default="1000-1019", help="first and last")
    parser.add_argument("--show", action="store_true", help="train nothing")
    parser.add_argument("--live", action="store_true", help="train with the alarm, and with TRL alone")
    args = parser.parse_args()
    first, last = map(int, args.seeds.split("-"))
    torch.set_num_threads(1)
    if args.live:
        for seed in range(first, last + 1):
            for kind in LIVE:
                path = args.out / f"{kind}-{seed}.json"
                if not path.exists():
                    live(kind, seed, path)
        show_live(args.out)
        return
    for seed in range(first, last + 1) if not args.show else ():
        for cell in CELLS:
            for contender in cell.methods:
                path = args.out / f"{cell.name}-{contender.method.partition(':')[0]}-{seed}.npz"
                if not path.exists():
                    train(cell, contender, seed, path)
                    print(path.name, flush=True)
    show(args.out)


if __name__ == "__main__":
    main()
