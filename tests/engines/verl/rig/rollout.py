"""The rollout: a Ray actor that samples from a Hugging Face model, and the two classes by which verl reaches it.

``Replica`` (in the trainer) starts the ``Server``; ``Adapter`` (in the actor's worker) hands it the new weights.
Each server writes what happened to it, one JSON object a line, into ``$RIG_EVENTS/rollout-<replica>.jsonl``.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import ray
import torch
from rig import pictures
from rig.sampling import Request, step
from verl.workers.rollout.base import BaseRollout
from verl.workers.rollout.replica import RolloutReplica, TokenOutput


class Server:
    """Serves one replica: all requests under way advance together, a token at a time."""

    def __init__(self, path: str, replica: int, max_tokens: int, max_requests: int, seconds_per_token: float) -> None:
        from transformers import AutoConfig
        from verl.utils import hf_processor
        from verl.utils.model import get_hf_auto_model_class

        torch.set_num_threads(1)
        pictures.register()
        kind = get_hf_auto_model_class(AutoConfig.from_pretrained(path))  # as verl's actor chooses it
        self.model = kind.from_pretrained(path, dtype=torch.float64, attn_implementation="eager").eval()
        self.processor = hf_processor(path)  # None for a model of text
        self.eos = self.model.config.get_text_config().eos_token_id
        self.max_tokens, self.max_requests, self.seconds_per_token = max_tokens, max_requests, seconds_per_token
        self.events = Path(os.environ["RIG_EVENTS"]) / f"rollout-{replica}.jsonl"
        self.waiting: list[tuple[Request, asyncio.Event]] = []
        self.running: list[tuple[Request, asyncio.Event]] = []
        self.version: int | None = None
        self.open = asyncio.Event()  # set by the first weights, cleared by abort_all_requests
        self.rejects = False
        self.loop: asyncio.Task[None] | None = None
        self.ready = False

    async def generate(
        self,
        request_id: str,
        prompt_ids: list[int],
        sampling_params: dict[str, Any],
        image_data: Any = None,
        video_data: Any = None,
        audio_data: Any = None,
        mm_processor_output: Any = None,
        mm_processor_kwargs: Any = None,
    ) -> TokenOutput:
        while not self.open.is_set():
            if self.rejects:
                return self._output(Request.of(prompt_ids, sampling_params, self.max_tokens), "aborted")
            await self.open.wait()
        if not self.ready:
            raise RuntimeError("the rollout server has no weights: its first update failed, see its log")
        request, done = Request.of(prompt_ids, sampling_params, self.max_tokens), asyncio.Event()
        if image_data:
            request.pictures = dict(self.processor.image_processor(image_data, return_tensors="pt"))
            self._log("pictures", pixels=[digest({"": torch.tensor(each.getdata())}) for each in image_data])
        self.waiting.append((request, done))
        if self.loop is None or self.loop.done():
            self.loop = asyncio.create_task(self._run())
        await done.wait()
        if request.stopped is None:
            self.loop.result()  # raises what ended the loop
        return self._output(request, request.stopped)

    def _output(self, request: Request, stop_reason: str | None) -> TokenOutput:
        return TokenOutput(
            token_ids=request.tokens,
            log_probs=request.log_probs,
            stop_reason=stop_reason,
            num_preempted=0,
            extra_fields={"global_steps": self.version},
        )

    async def _run(self) -> None:
        """Advance until nothing is left; calls to other methods are served between two tokens."""
        try:
            while self.running or self.waiting:
                room = self.max_requests - len(self.running)
                self.running += self.waiting[:room]
                del self.waiting[:room]
                step(self.model, [request for request, _ in self.running], self.eos)
                self._release()
                await asyncio.sleep(self.seconds_per_token)
        finally:  # after an error nobody is left waiting
            for _, done in self.running + self.waiting:
                done.set()
            self.running, self.waiting = [], []

    def _release(self) -> None:
        for request, done in self.running:
            if request.stopped:
                done.set()
        self.running = [(request, done) for request, done in self.running if not request.stopped]

    async def update_weights(self, weights: dict[str, torch.Tensor], global_steps: int | None) -> None:
        try:
            self.model.load_state_dict(weights)
            self.version = global_steps
        except Exception:
            self.open.set()  # so that what waits for the first weights fails too
            raise
        if not self.ready:
            self.ready = True
            self.open.set()
        held = {name: tensor.float() for name, tensor in self.model.state_dict().items()}
        self._log("weights", sent=digest(weights), held=digest(held))

    async def abort_all_requests(self, reject_request: bool = False) -> None:
        """Hand back what is under way, with the tokens so far, and hold what arrives until generation resumes."""
        self.open.clear()
        self.rejects = reject_request
        aborted, self.running, self.waiting = self.running + self.waiting, [], []
        for request, done in aborted:
            request.stopped = "aborted"
            done.set()
        self._log("abort", requests=len(aborted), begun=sum(bool(request.tokens) for request, _ in aborted))

    async def resume_generation(self) -> None:
        self.rejects = False
        self.open.set()
        self._log("resume")

    async def nothing(self, *_: Any, **__: Any) -> None:
        """There is no device memory to hand back, no cache to clear, and no profiler."""

    sleep = wake_up = clear_kv_cache = release_kv_cache = resume_kv_cache = start_profile = stop_profile = nothing

    def _log(self, event: str, **facts: Any) -> None:
        with self.events.open("a") as file:
            file.write(json.dumps({"event": event, "global_steps": self.version, **facts}) + "\n")


def digest(weights: dict[str, torch.Tensor]) -> str:
    """Return a checksum of float32 weights."""
    total = hashlib.sha256()
    for name in sorted(weights):
        total.update(name.encode() + weights[name].contiguous().numpy().tobytes())
    return total.hexdigest()[:16]


def server_name(replica: int) -> str:
    return f"rig_server_{replica}"


class Replica(RolloutReplica):
    """Starts the server of a replica beside the workers whose weights it serves."""

    async def launch_servers(self) -> None:
        name = server_name(self.replica_rank)
        server = (
            ray.remote(Server)
            .options(name=name, num_cpus=0, max_concurrency=self.max_concurrency)
            .remote(
                self.model_config.path,
                self.replica_rank,
                max_tokens=self.config.response_length,
                max_requests=self.config.max_num_seqs,
                seconds_per_token=self.config.engine_kwargs["rig"]["seconds_per_token"],
            )
        )
        self.servers = [server]
        self._server_handle, self._server_address = server, name

    async def sleep(self) -> None:
        """There is no device memory to hand back; not asking spares waiting for a server that is still starting."""


class Adapter(BaseRollout):
    """Lives in each worker of the actor; the first of a replica's workers speaks to its server."""

    started = False

    async def update_weights(
        self, weights: Iterable[tuple[str, torch.Tensor]], wire_format: str = "named_tensors", **kwargs: Any
    ) -> None:
        if wire_format != "named_tensors":
            raise NotImplementedError(f"wire format {wire_format!r} is not served by the rig: use 'named_tensors'")
        gathered = {name: tensor.detach().clone() for name, tensor in weights}  # every worker takes part in gathering
        size = self.config.tensor_model_parallel_size
        if self.device_mesh.get_rank() % size == 0:
            server = ray.get_actor(server_name(self.device_mesh.get_rank() // size))
            update = server.update_weights.remote(gathered, kwargs.get("global_steps"))
            if self.started:  # the first time it is still importing torch, and generates only when it has weights
                await update
        self.started = True

    async def resume(self, tags: list[str]) -> None: ...

    async def release(self) -> None: ...
