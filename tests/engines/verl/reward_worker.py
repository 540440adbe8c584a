"""A reward worker as verl's: a module of its own, because Ray's processes import it by name."""

from __future__ import annotations

from typing import Any

import torch
from verl import DataProto


class Characters:
    """A tokenizer of one token per character."""

    def decode(self, ids: torch.Tensor, skip_special_tokens: bool) -> str:
        assert skip_special_tokens
        return "".join(map(chr, ids.tolist()))


class Worker:
    """Scores with verl's own reward manager."""

    def __init__(self, config: Any) -> None:
        self.config = config

    async def score(self, batch: DataProto) -> dict[str, Any]:
        from verl.trainer.ppo.reward import load_reward_manager

        if not hasattr(self, "manager"):
            self.manager = load_reward_manager(self.config, Characters())
        return await self.manager.run_single(batch)
