"""Which reward was ignored? The diagnosis of rollouts that any trainer could have logged, from Python.

The log is made here, so its truth is known: format is scored 0 or 0.05 and hardly changes the sum of the rewards.
Needs the extra report. Run it with: python examples/diagnose_a_run.py
The same from a shell: rvpo diagnose rollouts.jsonl --method grpo
"""

import json
import random
import tempfile
from pathlib import Path

import rvpo
from rvpo.diagnose.diagnose import diagnose
from rvpo.logs.open import open_run

STEPS, PROMPTS, GENERATIONS = 20, 6, 8


def write_rollouts(path: Path) -> None:
    """Write one line per completion: its step, prompt, text and rewards."""
    rng = random.Random(0)
    with path.open("w") as file:
        for step in range(STEPS):
            for prompt in range(PROMPTS):
                for completion in range(GENERATIONS):
                    correct, fluent = float(rng.random() < 0.5), rng.random()
                    row = {
                        "step": step,
                        "prompt": f"question {prompt} of step {step}",
                        "completion": f"answer {completion} to question {prompt} of step {step}",
                        "correct_reward": correct,
                        "fluency_reward": fluent,
                        "format_reward": 0.05 * (rng.random() < 0.5),
                    }
                    rewards = [value for name, value in row.items() if name.endswith("_reward")]
                    file.write(json.dumps({**row, "reward": sum(rewards)}) + "\n")


def main() -> None:
    """Diagnose the log and print one line per reward."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "rollouts.jsonl"
        write_rollouts(path)
        # The log has no advantages, so say what the run was trained with; else some verdicts are unclear.
        found = diagnose(open_run(path), assumed=rvpo.AdvantageConfig(rvpo.GRPO()))
    for channel in found.channels:
        print(f"{channel.name}: {channel.verdict}")


if __name__ == "__main__":
    main()
