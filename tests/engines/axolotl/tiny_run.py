"""A short GRPO training of axolotl on a tiny model, started as a process: ``python tiny_run.py JOB.json``.

The job holds ``model`` and ``output`` (folders), ``resume`` (a checkpoint or null) and ``config`` (of the YAML).
Rewards and what the loss got are written to ``output/seen.jsonl``.
"""

from __future__ import annotations

import json
import math
import sys
from pathlib import Path
from typing import Any

import yaml

CONFIG = {
    "rl": "grpo",
    "plugins": ["rvpo.axolotl.RVPOPlugin"],
    "rvpo": {"method": "lift", "reward_ranges": {"many_words": [0, 3]}},
    "trl": {
        "num_generations": 4,
        "max_completion_length": 5,
        "reward_funcs": ["tiny_rewards.many_words", "tiny_rewards.has_the", "tiny_rewards.maybe"],
        "log_completions": False,
        "beta": 0.0,
    },
    "datasets": [{"path": "unused", "type": "unused"}],
    "micro_batch_size": 8,
    "gradient_accumulation_steps": 1,
    "num_epochs": 1,
    "max_steps": 4,
    "save_steps": 2,
    "save_strategy": "steps",
    "learning_rate": 1e-2,
    "optimizer": "adamw_torch",
    "lr_scheduler": "constant",
    "sequence_len": 64,
    "bf16": False,
    "fp16": False,
    "tf32": False,
    "seed": 3,
}


def main() -> None:
    job = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    output = Path(job["output"])
    written = {**CONFIG, "base_model": job["model"], "output_dir": str(output), **job["config"]}
    text = yaml.safe_dump({key: value for key, value in written.items() if value is not None})

    from axolotl.cli.config import plugin_set_cfg, prepare_plugins
    from axolotl.utils.config import normalize_config, validate_config
    from axolotl.utils.dict import DictDefault

    cfg = DictDefault(yaml.safe_load(text))
    prepare_plugins(cfg)
    cfg = validate_config(cfg)
    normalize_config(cfg)
    plugin_set_cfg(cfg)

    from axolotl.core.builders import HFRLTrainerBuilder
    from axolotl.integrations.base import PluginManager
    from datasets import Dataset
    from transformers import AutoModelForCausalLM, AutoTokenizer

    prompts = [f"what is the {word}" for word in ["cat", "dog", "sun", "rain"]] * 3
    tokenizer = AutoTokenizer.from_pretrained(job["model"])
    builder = HFRLTrainerBuilder(cfg, AutoModelForCausalLM.from_pretrained(job["model"]), tokenizer)
    builder.train_dataset = Dataset.from_dict({"prompt": prompts})
    trainer = builder.build(cfg.max_steps)
    PluginManager.get_instance().post_trainer_create(cfg, trainer)
    note(type(trainer), output / "seen.jsonl")
    trainer.train(resume_from_checkpoint=job["resume"])


def note(cls: type, path: Path) -> None:
    """Append the rewards of each batch, and the advantages that its loss gets."""
    theirs_of_rewards, theirs_of_loss = cls._calculate_rewards, cls.compute_loss

    def rewards(self: Any, *args: Any, **kwargs: Any) -> Any:
        self.noted = theirs_of_rewards(self, *args, **kwargs)
        return self.noted

    def loss(self: Any, model: Any, inputs: Any, *args: Any, **kwargs: Any) -> Any:
        rows = [[None if math.isnan(value) else value for value in row] for row in self.noted.tolist()]
        line = {"step": self.state.global_step + 1, "rewards": rows, "advantages": inputs["advantages"].tolist()}
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")
        return theirs_of_loss(self, model, inputs, *args, **kwargs)

    cls._calculate_rewards, cls.compute_loss = rewards, loss


if __name__ == "__main__":
    main()
