"""verl's single-turn agent loop with a seed for each generation: what is sampled does not depend on who comes first."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path
from typing import Any
from uuid import uuid4

from rig.rewards import vowels
from verl.experimental.agent_loop import AgentLoopOutput
from verl.experimental.agent_loop.single_turn_agent_loop import SingleTurnAgentLoop


class SeededAgentLoop(SingleTurnAgentLoop):
    """The seed is a function of the prompt's index, the session and the step at which it was dispatched."""

    async def run(self, sampling_params: dict[str, Any], priority: int = 0, **kwargs: Any) -> AgentLoopOutput:
        name = f"{self.rollout_config.seed},{kwargs['index']},{kwargs['session_id']},{kwargs['global_steps']}"
        seed = int.from_bytes(hashlib.sha256(name.encode()).digest()[:7])
        return await super().run({**sampling_params, "seed": seed}, priority, **kwargs)


class DraftingAgentLoop(SeededAgentLoop):
    """Every other session writes a draft first, which is an output of its own: the session then has two."""

    async def run(  # type: ignore[override]
        self, sampling_params: dict[str, Any], priority: int = 0, **kwargs: Any
    ) -> AgentLoopOutput | list[AgentLoopOutput]:
        final = await super().run(sampling_params, priority, **kwargs)
        if kwargs["session_id"] % 2 == 0:
            return final
        draft = await super().run(sampling_params, priority, **{**kwargs, "session_id": kwargs["session_id"] + 1000})
        return [draft, final]


class GuessingAgentLoop(SeededAgentLoop):
    """Two turns: writes letters, is asked for more, writes again. Every turn has a reward, None without a letter."""

    async def run(self, sampling_params: dict[str, Any], priority: int = 0, **kwargs: Any) -> AgentLoopOutput:
        output = await super().run({**sampling_params, "max_tokens": 4}, priority, **kwargs)
        words = [self._word(output.response_ids)]
        asked = self.tokenizer.convert_tokens_to_ids(["?", "="])
        prompt = [*output.prompt_ids, *output.response_ids, *asked]
        limited = {**sampling_params, "max_tokens": 4}
        more = await self.server_manager.generate(request_id=uuid4().hex, prompt_ids=prompt, sampling_params=limited)
        words.append(self._word(more.token_ids))
        output.response_ids += [*asked, *more.token_ids]
        output.response_mask += [0] * len(asked) + [1] * len(more.token_ids)
        if output.response_logprobs is not None:
            output.response_logprobs += [0.0] * len(asked) + list(more.log_probs)
        output.num_turns = 4
        turns = [vowels(word, "") if word else None for word in words]
        output.extra_fields["turn_rewards"] = turns
        note = {"event": "turns", "session": f"{kwargs['uid']}_{kwargs['session_id']}", "rewards": turns}
        with (Path(os.environ["RIG_EVENTS"]) / "turns.jsonl").open("a") as file:
            file.write(json.dumps(note) + "\n")
        return output

    def _word(self, tokens: list[int]) -> str:
        return str(self.tokenizer.decode(tokens, skip_special_tokens=True))


class ScoringAgentLoop(GuessingAgentLoop):
    """The same, which scores itself: verl then asks no reward function."""

    async def run(self, sampling_params: dict[str, Any], priority: int = 0, **kwargs: Any) -> AgentLoopOutput:
        output = await super().run(sampling_params, priority, **kwargs)
        first, second = output.extra_fields["turn_rewards"]
        output.reward_score = float(first or 0.0)
        output.extra_fields["reward_extra_info"] = {"first": first, "second": second}
        return output
