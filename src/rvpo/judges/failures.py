"""Classify failed requests: the reason, and whether another attempt may help."""

from __future__ import annotations

from collections.abc import Mapping

from rvpo.net.failures import TransportError
from rvpo.net.limits import retry_after
from rvpo.text.quoting import escaped

MAX_DETAIL_CHARS = 2000  # characters of a server's message that are kept

_TOO_LONG = (
    "context_length",
    "context length",
    "maximum context",
    "context window",
    "context size",  # llama.cpp: the request exceeds the available context size
    "exceed_context_size",
    "too long",
    "too many tokens",
    "max_model_len",
    "maximum model length",
    "model's context",
    "must have less than",  # TGI: `inputs` must have less than 4096 tokens
    "max_new_tokens` must be <=",  # TGI: `inputs` tokens + `max_new_tokens` must be <= 4096
    "maximum allowed length",  # SGLang: the input is longer than the maximum allowed length
    "longer than the model",  # SGLang and vLLM
    "maximum input length",
    "max_total_tokens",
    "input length",
    "prompt length",
    "reduce the length",
    "reduce your prompt",
)
_NO_FORMAT = ("response_format", "json_schema", "json_object", "structured", "guided", "grammar", "schema")
_NO_MONEY = ("insufficient_quota", "billing", "payment required", "insufficient credit", "insufficient balance")


def of_status(status: int, said: str, headers: Mapping[str, str], key_variable: str) -> TransportError:
    """Return the error for a response with an error status.

    Args:
        status: status of the response, or of the error in its body.
        said: message of the server, without the key.
        headers: headers of the response.
        key_variable: name of the environment variable with the key.
    """
    message = escaped(f"HTTP {status}: {' '.join(said.split())}", MAX_DETAIL_CHARS)
    low = message.lower()
    wait = retry_after(headers)
    if status in (401, 403):  # some servers repeat the rejected key, so their message is not shown
        detail = f"HTTP {status}: the server does not accept the key in the environment variable {key_variable}"
        return TransportError("rejected", detail, free=True, status=status)
    if status == 402 or (status == 429 and any(word in low for word in _NO_MONEY)):
        return TransportError("rejected", message, free=True, status=status)
    if status == 429:
        return TransportError("rate_limit", message, again=True, wait=wait, free=True, status=status)
    if 300 <= status < 400:
        return TransportError(
            "rejected",
            f"{message}; a redirect to another server, which is not followed. Correct the URL",
            free=True,
            status=status,
        )
    if status >= 400 and any(word in low for word in _TOO_LONG):
        return TransportError("too_long", message, free=True, status=status)
    if status in (408, 409, 425) or status >= 500:
        reason = "timeout" if status == 408 else "server"
        return TransportError(reason, message, again=True, wait=wait, free=True, status=status)
    return TransportError("rejected", message, free=True, status=status)


def about_response_format(failure: TransportError) -> bool:
    """Return whether a request was rejected because of the form of the answer that it asks for."""
    if failure.status in (400, 404, 405, 415, 422, 500, 501):
        return any(word in failure.detail.lower() for word in _NO_FORMAT)
    return False


def perhaps_about_response_format(failure: TransportError) -> bool:
    """Return whether the form of the answer may be the cause, although the server does not say so."""
    about_the_model = failure.status == 404 and "model" in failure.detail.lower()
    return failure.status in (404, 500, 501) and not about_the_model
