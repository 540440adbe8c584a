"""Make the shipped checkpoints: ``python -m rvpo.quickstart.warm_start``, about 15 s per checkpoint on one core.

This is supervised training on random demonstrations. It is deterministic for one build of torch, with one thread.
"""

from __future__ import annotations

import argparse
import math
import random
import time
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812 (torch's own convention)

from rvpo.quickstart.cells import CELLS
from rvpo.quickstart.model import make_model, make_tokenizer, save_checkpoint
from rvpo.quickstart.task import EOS, Habits, demonstrate, draw_request

SEED, STEPS, BATCH, PEAK_LR, WARMUP = 0, 300, 48, 3e-3, 30
IGNORE = -100


def warm_start(habits: Habits, seed: int) -> Any:
    """Train a fresh model to imitate demonstrations with ``habits``, and return it."""
    model, tokenizer, rng = make_model(seed), make_tokenizer(), random.Random(seed)
    optimizer = torch.optim.AdamW(model.parameters(), lr=PEAK_LR, betas=(0.9, 0.98), weight_decay=0.0)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, _learning_rate)
    for _ in range(STEPS):
        ids, labels = _batch(habits, tokenizer, rng)
        logits = model(input_ids=ids).logits[:, :-1]
        loss = F.cross_entropy(logits.flatten(0, 1), labels[:, 1:].flatten(), ignore_index=IGNORE)
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
    return model


def _learning_rate(step: int) -> float:
    """Return the learning rate: a linear warm-up, then half a cosine wave down to a twentieth."""
    return min(1.0, (step + 1) / WARMUP) * (0.95 * (1 + math.cos(math.pi * step / STEPS)) / 2 + 0.05)


def _batch(habits: Habits, tokenizer: Any, rng: random.Random) -> tuple[torch.Tensor, torch.Tensor]:
    """Return token ids (B, T), padded on the right, and labels (B, T) of the replies only."""
    rows, labels = [], []
    for _ in range(BATCH):
        request = draw_request(rng)
        prompt = tokenizer(request.prompt).input_ids
        reply = tokenizer(f"{demonstrate(request, habits, rng)} {EOS}").input_ids
        rows.append(torch.tensor(prompt + reply))
        labels.append(torch.tensor([IGNORE] * len(prompt) + reply))
    pad = torch.nn.utils.rnn.pad_sequence
    return (
        pad(rows, batch_first=True, padding_value=tokenizer.pad_token_id),
        pad(labels, batch_first=True, padding_value=IGNORE),
    )


def main() -> None:
    """Write one checkpoint per cell of the quickstart."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("cells", nargs="*", default=[cell.name for cell in CELLS], help="default: all")
    chosen = parser.parse_args().cells
    torch.set_num_threads(1)  # several threads would round sums differently
    for cell in CELLS:
        if cell.name in chosen:
            start = time.perf_counter()
            save_checkpoint(warm_start(cell.habits, SEED), cell.checkpoint)
            size = cell.checkpoint.stat().st_size
            print(f"{cell.checkpoint} ({size} bytes) in {time.perf_counter() - start:.0f} s")


if __name__ == "__main__":
    main()
