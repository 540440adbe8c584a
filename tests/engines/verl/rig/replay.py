"""verl's replay buffers, looking for finished groups ten times a second instead of every two seconds.

They also put a batch in the order of the data: verl's order is that of random uids, and so is its rounding.
"""

from __future__ import annotations

from typing import Any

import transfer_queue as tq
from transfer_queue import KVBatchMeta
from verl.trainer.ppo.v1.replay_buffer import ReplayBuffer, ReplayBufferAsync

POLL_SECONDS = 0.05


def _ordered(batch: KVBatchMeta) -> KVBatchMeta:
    data = tq.kv_batch_get(keys=batch.keys, partition_id=batch.partition_id, select_fields=["index"])
    index = [int(each) for each in data["index"]]
    sessions = [tuple(map(int, key.rsplit("_", 2)[1:])) for key in batch.keys]
    batch.reorder(sorted(range(len(batch.keys)), key=lambda i: (batch.tags[i]["global_steps"], index[i], sessions[i])))
    return batch


class Sync(ReplayBuffer):
    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, poll_interval=POLL_SECONDS, **kwargs)

    def sample(self, *args: Any, **kwargs: Any) -> tuple[KVBatchMeta, dict[str, Any]]:
        batch, metrics = super().sample(*args, **kwargs)
        return _ordered(batch), metrics


class ColocateAsync(ReplayBufferAsync):
    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, poll_interval=POLL_SECONDS, **kwargs)

    def sample(self, *args: Any, **kwargs: Any) -> tuple[KVBatchMeta, dict[str, Any]]:
        batch, metrics = super().sample(*args, **kwargs)
        return _ordered(batch), metrics
