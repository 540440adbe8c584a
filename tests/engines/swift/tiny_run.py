"""A short GRPO training of ms-swift on a tiny model, by its own command: started as a process by the tests.

``python tiny_run.py JOB.json``; the job holds ``model`` and ``output`` (folders), and ``arguments`` of ``swift rlhf``.
What each step came to is written to ``output/made.jsonl``: the rewards that rvpo got, and the advantages that the loss
got.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

import torch
from swift.rlhf_trainers import grpo_trainer

PLUGIN = Path(__file__).with_name("tiny_plugin.py")
ARGUMENTS = {
    "rlhf_type": "grpo",
    "model_type": "llama",
    "template": "dummy",
    "tuner_type": "full",
    "torch_dtype": "float32",
    "reward_funcs": ["many_words", "has_the", "maybe"],
    "num_generations": 4,
    "per_device_train_batch_size": 8,
    "per_device_eval_batch_size": 8,
    "max_completion_length": 5,
    "max_length": 64,
    "max_steps": 4,
    "learning_rate": 1e-2,
    "logging_steps": 1,
    "save_strategy": "steps",
    "save_steps": 2,
    "save_total_limit": 5,
    "eval_strategy": "no",
    "split_dataset_ratio": 0,
    "report_to": "none",
    "log_completions": True,
    "use_vllm": False,
    "bf16": False,
    "fp16": False,
    "beta": 0.0,
    "add_version": False,
    "dataloader_num_workers": 0,
    "dataset_num_proc": 1,
    "temperature": 1.0,
    "seed": 7,
    "check_model": False,
}


def command(job: dict[str, Any]) -> list[str]:
    """Return the arguments of ``swift rlhf``."""
    data = Path(job["output"]).parent / "data.jsonl"
    lines = [
        {"messages": [{"role": "user", "content": f"what is the {word}"}]} for word in ["cat", "dog", "sun", "rain"]
    ]
    data.write_text("".join(json.dumps(line) + "\n" for line in lines * 3))
    given = {
        **ARGUMENTS,
        "model": job["model"],
        "output_dir": job["output"],
        "dataset": str(data),
        "external_plugins": str(PLUGIN),
        **job.get("arguments", {}),
    }
    words: list[str] = []
    for name, value in given.items():
        if value is None:
            continue
        values = value if isinstance(value, list) else [value]
        words += [f"--{name}", *(str(one).lower() if isinstance(one, bool) else str(one) for one in values)]
    return words


def note_what_the_loss_gets(path: Path) -> None:
    """Append the advantages of each batch that the loss is computed of."""
    theirs = grpo_trainer.GRPOTrainer.compute_loss

    def compute_loss(self: Any, model: Any, inputs: Any, *args: Any, **kwargs: Any) -> Any:
        of_tokens = inputs["grpo_batch"].advantages
        assert torch.equal(of_tokens, of_tokens[:, :1].expand_as(of_tokens))
        line = {"step": self.state.global_step + 1, "advantages": of_tokens[:, 0].tolist()}
        with path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")
        return theirs(self, model, inputs, *args, **kwargs)

    grpo_trainer.GRPOTrainer.compute_loss = compute_loss


def main() -> None:
    job = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    output = Path(job["output"])
    output.mkdir(parents=True, exist_ok=True)
    note_what_the_loss_gets(output / f"made.jsonl.{os.environ.get('RANK', 0)}")
    from swift.pipelines import rlhf_main

    rlhf_main(command(job))


if __name__ == "__main__":
    main()
