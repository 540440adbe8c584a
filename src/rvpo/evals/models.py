"""From a model's name to a policy, on this machine or behind a server."""

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
    """Return the policy that a text names.

    Args:
        model: a folder (of a model, or of an adapter that names its base), a hub id, or ``http://host:port/v1#MODEL``.
        gguf_file: name of a GGUF file in the folder.
        dtype: of the weights; None is the checkpoint's own on a GPU, float32 on a CPU.
        device: None is CUDA where there is one, else the CPU.
        batch_size: items generated together by a model on this machine.
        api_key_env: NAME of the environment variable with the server's key; one of your own needs none.
        concurrency: requests in flight.
        timeout: seconds for one reply of a server.
        extra_body: further fields of a request, such as ``{"chat_template_kwargs": {"enable_thinking": false}}``.
        system_role: False puts the system text before the user's, for servers that pass over a system turn.

    Raises:
        ConfigError: an option cannot work, or the folder holds no model.
    """
    for name, value in (("batch_size", batch_size), ("concurrency", concurrency)):
        if type(value) is not int or value < 1:
            raise ConfigError(f"{name} is {value!r}; expected a whole number of at least 1")
    if model.startswith(("http://", "https://")):
        url, _, name = model.partition("#")
        if not name:
            raise ConfigError(f"model is {model!r}, which names no model: write http://host:port/v1#MODEL")
        from rvpo.evals.endpoint import EndpointPolicy

        return EndpointPolicy(url, name, api_key_env, concurrency, timeout, extra_body, system_role)
    from rvpo.evals.local import LocalPolicy  # loads torch and transformers

    return LocalPolicy.at(model, gguf_file=gguf_file, dtype=dtype, device=device, batch_size=batch_size)
