"""The CPU as a platform of verl: imported by all its processes for VERL_USE_EXTERNAL_MODULES, chosen by VERL_PLATFORM.

Ray is told of as many GPUs as there are workers (they are numbers to Ray, not devices), so that verl's resource pools,
which count GPUs, need no change.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import Any

from verl.plugin.platform import PlatformBase, PlatformRegistry


class _Device(ModuleType):
    """What verl asks of ``torch.cuda``, for a device without memory of its own."""

    def is_available(self) -> bool:
        return False

    def get_device_name(self) -> str:
        return "CPU"  # verl's table of peak FLOPS knows it

    def device_count(self) -> int:
        return 1

    def memory(self, *_: Any) -> int:
        return 0

    def nothing(self, *_: Any) -> None: ...

    memory_allocated = memory_reserved = max_memory_allocated = max_memory_reserved = memory
    empty_cache = synchronize = set_device = nothing

    def mem_get_info(self, *_: Any) -> tuple[int, int]:
        return 0, 0

    def get_rng_state(self, *_: Any) -> Any:
        import torch

        return torch.random.get_rng_state()

    def set_rng_state(self, state: Any, *_: Any) -> None:
        import torch

        torch.random.set_rng_state(state)


_DEVICE = _Device("rig.cpu.device")


@PlatformRegistry.register(platform="cpu")
class PlatformCPU(PlatformBase):
    device_name = "cpu"
    vendor_name = "cpu"
    device_module = _DEVICE

    def is_available(self) -> bool:
        return True

    def is_platform_available(self, use_smi_check: bool = False) -> bool:
        return True

    def current_device(self) -> Any:
        return "cpu"  # verl hands it to Tensor.to and torch.device, which would take an index for a CUDA device

    def device_count(self) -> int:
        return 1

    def set_device(self, device_index: int) -> None: ...

    def synchronize(self, device_index: int | None = None) -> None: ...

    def manual_seed(self, seed: int) -> None: ...

    def manual_seed_all(self, seed: int) -> None: ...

    def set_allocator_settings(self, settings: str) -> None: ...

    def empty_cache(self) -> None: ...

    def get_device_capability(self, device_index: int = 0) -> tuple[None, None]:
        return None, None

    def communication_backend_name(self) -> str:
        return "gloo"

    def visible_devices_envvar(self) -> str:
        return "CUDA_VISIBLE_DEVICES"

    @contextmanager
    def nvtx_range(self, msg: str) -> Iterator[None]:
        yield

    def profiler_start(self) -> None: ...

    def profiler_stop(self) -> None: ...

    def ray_resource_name(self) -> str:
        return "GPU"

    def ray_noset_envvars(self) -> list[str]:
        return []

    def is_ipc_supported(self) -> bool:
        return False

    def cudart(self) -> None:
        return None


# It warns once for every completion that the generic builder serves a Llama, as it should.
logging.getLogger("verl.utils.tokenizer.continuous_token_wiring").setLevel(logging.ERROR)
