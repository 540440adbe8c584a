"""Make a policy from a model's name: a model on this machine, or one on a server."""

from __future__ import annotations

from typing import Any

from rvpo.errors import ConfigError
from rvpo.evals.policy import Policy


def load_policy(
    model: str,
    *,
    gguf_file: str | None = None,
    dtype: str | None = None,
    device: str | None = None,
    batch_size: int = 16,
    api_key_env: str = "OPENAI_API_KEY",
    concurrency: int = 32,
    timeout: float = 600.0,
    extra_body: dict[str, Any] | None = None,
    system_role: bool = True,
) -> Policy:
    """Return the policy for a model's name.

    Args:
        model: a folder (of a model, or of an adapter that names its base), a hub id, or ``http://host:port/v1#MODEL``.
        gguf_file: name of a GGUF file in the folder.
        dtype: number format of the weights; None means the checkpoint's own on a GPU, and float32 on a CPU.
        device: device of PyTorch; None means CUDA if this machine has a GPU, else the CPU.
        batch_size: number of items that a model on this machine generates together.
        api_key_env: NAME of the environment variable with the server's key; your own server needs no key.
        concurrency: number of requests at the same time.
        timeout: longest time for one reply of a server, in seconds.
        extra_body: further fields of a request, such as ``{"chat_template_kwargs": {"enable_thinking": false}}``.
        system_role: False puts the system text before the user's text, for servers that ignore a system turn.

    Raises:
        ConfigError: an option has a value that cannot work, or the folder does not hold a model.
    """
    for name, value in (("batch_size", batch_size), ("concurrency", concurrency)):
        if type(value) is not int or value < 1:
            raise ConfigError(f"{name} is {value!r}; expected a whole number of at least 1")
    if model.startswith(("http://", "https://")):
        url, _, name = model.partition("#")
        if not name:
            raise ConfigError(f"model is {model!r}, a server without a model; expected http://host:port/v1#MODEL")
        from rvpo.evals.endpoint import EndpointPolicy

        return EndpointPolicy(url, name, api_key_env, concurrency, timeout, extra_body, system_role)
    from rvpo.evals.local import LocalPolicy  # loads torch and transformers

    return LocalPolicy.at(model, gguf_file=gguf_file, dtype=dtype, device=device, batch_size=batch_size)
