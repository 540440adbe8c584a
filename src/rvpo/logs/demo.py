"""``rvpo demo``: a small sample log with known true verdicts, as TRL's trainer writes it. Nothing is trained.

Answers to questions are drawn at random with a few traits: correct or not, the number of sentences, tips and empty
phrases, and in the requested format or not. Six reward functions score them. Over the steps the traits drift as in a
training with GRPO: traits with high advantages become more frequent. The true verdicts follow from the rewards:

- correctness, detail and advice share the decision: healthy.
- brevity is on the same scale, but detail and advice together pull the other way: outvoted.
- format is scored 0 or 0.05 while the others reach 1, and GRPO sums raw rewards: ignored.
- citations are never given: dead.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from rvpo.arrays.groups import Partition
from rvpo.arrays.rules import Cells, advantages
from rvpo.core import GRPO, AdvantageConfig
from rvpo.errors import ConfigError
from rvpo.files import whole, write
from rvpo.logs.run import COMPLETIONS

STEPS, PROMPTS, GENERATIONS = 40, 8, 8
TRUTH: Mapping[str, tuple[str, str]] = {
    "format": ("neglected", "it is scored 0 or 0.05, so it hardly changes the sum of the rewards"),
    "brevity": ("neglected", "detail and advice together pull the other way and outvote it"),
    "citations": ("dead", "no completion ever meets it"),
    "correctness": ("healthy", "it moves the advantage"),
    "detail": ("healthy", "it moves the advantage"),
    "advice": ("healthy", "it moves the advantage"),
}
"""Channel -> its true verdict, and why."""

_SUBJECTS = ("a router", "a bicycle", "a fern", "a sourdough starter", "a tent", "a violin", "a telescope", "a kiln")
_SENTENCES = (
    "Start by cleaning it with a dry cloth.",
    "Keep it out of direct sunlight.",
    "Check every part before you begin.",
    "Write down what you changed and when.",
    "Wait a full day before you try again.",
    "Ask in the shop for the right tool.",
)
_TIPS = ("Tip: a torch helps.", "Tip: work with a friend.", "Tip: take photographs.")
_EMPTY = ("Good question!", "There is much to say about this.", "Let me know if that helps.", "Have a good day.")


@dataclass(frozen=True)
class _Answer:
    right: bool
    sentences: int
    tips: int
    empty: int
    formatted: bool

    def text(self, subject: str) -> str:
        first = f"To look after {subject}, go slowly." if self.right else f"You cannot look after {subject} yourself."
        parts = (first, *_SENTENCES[: self.sentences], *_TIPS[: self.tips], *_EMPTY[: self.empty])
        return f"<answer>{' '.join(parts)}</answer>" if self.formatted else " ".join(parts)

    def rewards(self) -> dict[str, float]:
        length = self.sentences + self.tips + self.empty
        return {
            "correctness": float(self.right),
            "detail": self.sentences / len(_SENTENCES),
            "advice": self.tips / len(_TIPS),
            "brevity": 1 - length / (len(_SENTENCES) + len(_TIPS) + len(_EMPTY)),
            "format": 0.05 if self.formatted else 0.0,
            "citations": 0.0,
        }


def write_demo(folder: Path, seed: int = 0) -> Path:
    """Write the sample log: ``completions/*.parquet`` as TRL does, and ``truth.txt`` with the true verdicts.

    Args:
        folder: folder of the run; it must be new or empty.
        seed: random seed of the answers.

    Raises:
        ConfigError: the folder exists and is not empty.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise ConfigError(f"{folder} already exists; expected a new or an empty folder. Pass another one with --out")
    rng = random.Random(seed)
    asked = [(step, subject) for step in range(1, STEPS + 1) for subject in rng.sample(_SUBJECTS, PROMPTS)]
    answers = [(step, subject, _answer(step, rng)) for step, subject in asked for _ in range(GENERATIONS)]
    table = _table(answers)
    rows = PROMPTS * GENERATIONS
    for step in range(1, STEPS + 1):
        with whole(folder / COMPLETIONS / f"completions_{step:05d}.parquet") as partial:
            pq.write_table(table.slice((step - 1) * rows, rows), partial)
    lines = [f"{name}: {verdict}. {why[0].upper()}{why[1:]}." for name, (verdict, why) in TRUTH.items()]
    write(folder / "truth.txt", "\n".join(lines) + "\n")
    return folder


def _table(answers: Sequence[tuple[int, str, _Answer]]) -> pa.Table:
    """Return N answers, each with its step and subject, as a table in TRL's format, with GRPO's advantages."""
    rewards = [answer.rewards() for _, _, answer in answers]
    matrix = np.array([list(row.values()) for row in rewards])
    groups = Partition.of_ids(np.arange(len(answers)) // GENERATIONS)
    return pa.table(
        {
            "step": [step for step, _, _ in answers],
            "prompt": [f"How do I look after {subject}?" for _, subject, _ in answers],
            "completion": [answer.text(subject) for _, subject, answer in answers],
            **{name: matrix[:, j].tolist() for j, name in enumerate(rewards[0])},
            "advantage": advantages(Cells(matrix, groups), AdvantageConfig(GRPO())).tolist(),
        }
    )


def _answer(step: int, rng: random.Random) -> _Answer:
    """Draw an answer; traits with high advantages become more frequent with the progress of the training."""
    progress = (step - 1) / (STEPS - 1)
    long = rng.gauss(2.6 + 1.2 * progress, 1.7)
    return _Answer(
        right=rng.random() < 0.35 + 0.35 * progress,
        sentences=min(max(round(long), 0), len(_SENTENCES)),
        tips=min(max(round(long / 2 + rng.gauss(0, 0.7)), 0), len(_TIPS)),
        empty=rng.randint(0, len(_EMPTY)),
        formatted=rng.random() < 0.85 - 0.5 * progress,
    )
