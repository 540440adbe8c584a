"""Call ``rvpo.rllm.register(…)`` in a training script of rLLM, before its trainer. See docs/engines/rllm.md."""

from rvpo.engines.rllm import register

__all__ = ["register"]
