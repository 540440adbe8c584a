"""What verl's processes need before they build a model: imported through ``actor_rollout_ref.model.external_lib``.

verl imports it in the trainer (where the replica class is looked up) and in every worker, ahead of the process group.
"""

from __future__ import annotations

import os

import torch
from rig import pictures
from verl.workers.rollout import base
from verl.workers.rollout.replica import RolloutReplica, RolloutReplicaRegistry

NAME = "rig"


def _replica() -> type[RolloutReplica]:
    from rig.rollout import Replica

    return Replica


RolloutReplicaRegistry.register(NAME, _replica)
base._ROLLOUT_REGISTRY[NAME, "async"] = "rig.rollout.Adapter"  # verl has a registry here, but no function to add to it

pictures.register()

if "WG_BACKEND" in os.environ:  # set by verl for the members of a worker group
    from verl.workers.engine import EngineRegistry, FSDPEngineWithLMHead

    EngineRegistry.register(model_type="language_model", backend=["fsdp", "fsdp2"], device="cpu")(FSDPEngineWithLMHead)
    torch.set_num_threads(1)
    if not torch.distributed.is_initialized():
        # verl would ask for "cpu:gloo,cpu:gloo", which torch refuses; it leaves a group that exists alone.
        torch.distributed.init_process_group(
            "cpu:gloo", rank=int(os.environ["RANK"]), world_size=int(os.environ["WORLD_SIZE"])
        )
