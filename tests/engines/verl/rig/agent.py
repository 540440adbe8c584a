"""verl's single-turn agent loop with a seed for each generation: what is sampled does not depend on who comes first."""

from __future__ import annotations

import hashlib
from typing import Any

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
