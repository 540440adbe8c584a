"""When the neglect alarm of a training calls, what was lost afterwards, and what it calls wrongly.

    python benchmarks/reports/alarm.py --out runs/alarm --seeds 1000-1019

Trains the quickstart's policies (both starts, three methods each) with their settings, and keeps the rewards and the
advantages of every step. Finished runs are kept, so a stopped command continues. Then the alarm of
:mod:`rvpo.diagnose.alarm` reads each run step by step, as it does in training, and the tables are printed.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import PrinterCallback

from rvpo.files import whole
from rvpo.quickstart.cells import CELLS, Cell, Contender, Settings
from rvpo.quickstart.model import load_checkpoint, make_tokenizer
from rvpo.quickstart.task import REWARDS
from rvpo.quickstart.train import _arguments, _requests
from rvpo.trl import RVPOTrainer

SETTINGS = Settings()


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


def main() -> None:
    """Train what is not there yet."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seeds", default="1000-1019", help="first and last")
    args = parser.parse_args()
    first, last = map(int, args.seeds.split("-"))
    torch.set_num_threads(1)
    for seed in range(first, last + 1):
        for cell in CELLS:
            for contender in cell.methods:
                path = args.out / f"{cell.name}-{contender.method.partition(':')[0]}-{seed}.npz"
                if not path.exists():
                    train(cell, contender, seed, path)
                    print(path.name, flush=True)


if __name__ == "__main__":
    main()
