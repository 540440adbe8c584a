"""Read a server's response: it is a reply of the model, or an error.

A status of 200 does not prove a reply. Gateways put errors into such responses, servers that run out of memory break a
reply off and report it in its last field, and load balancers send pages of HTML. A response is a reply only if the
model finished it, or if it was cut off at the requested length.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from rvpo.judges.failures import of_status
from rvpo.net.failures import TransportError
from rvpo.text.quoting import quoted

_ENDED = frozenset(("stop", "eos", "eos_token", "end_turn", "stop_sequence", "complete", "completed", "finish"))
_CUT = frozenset(("length", "max_tokens", "model_length", "max_completion_tokens", "max_output_tokens"))
_CALLED = frozenset(("tool_calls", "function_call", "tool_use", "tool_call"))
_DECLINED = frozenset(
    ("content_filter", "refusal", "safety", "recitation", "blocklist", "prohibited_content", "spii", "guardrail")
)
_CODES = {
    "invalid_api_key": 401,
    "authentication_error": 401,
    "unauthorized": 401,
    "permission_denied": 403,
    "permission_error": 403,
    "unauthenticated": 401,
    "invalid_authentication_error": 401,
    "incorrect_api_key_error": 401,
    "insufficient_quota": 402,
    "insufficient_balance": 402,
    "insufficient_credits": 402,
    "insufficient_funds": 402,
    "quota_exceeded": 402,
    "exceeded_current_quota_error": 402,
    "payment_required": 402,
    "billing_error": 402,
    "billing_not_active": 402,
    "rate_limit": 429,
    "rate_limit_error": 429,
    "rate_limit_exceeded": 429,
    "rate_limit_reached_error": 429,
    "too_many_requests": 429,
    "resource_exhausted": 429,
    "throttled": 429,
    "throttling": 429,
    "throttlingexception": 429,
    "overloaded": 503,
    "overloaded_error": 503,
    "engine_overloaded_error": 503,
    "unavailable": 503,
    "service_unavailable": 503,
    "deadline_exceeded": 504,
    "server_error": 500,
    "internal_error": 500,
    "internal_server_error": 500,
    "api_error": 500,
    "timeout": 408,
    "context_length_exceeded": 400,
    "invalid_request_error": 400,
    "badrequesterror": 400,
    "not_found_error": 404,
    "model_not_found": 404,
}
"""Name of an error on a server -> status with the same meaning."""

_WORDS = (
    (429, re.compile(r"rate.?limit|too many requests|throttl", re.IGNORECASE)),
    (402, re.compile(r"insufficient (?:balance|quota|credits?|funds)|payment required|exceeded your .*quota", re.I)),
    (401, re.compile(r"(?:invalid|incorrect|wrong|missing|no) api.?key|api.?key (?:is )?(?:not |in)valid"
                     r"|unauthori[sz]ed|authentication (?:failed|error|required)", re.IGNORECASE)),
)  # fmt: skip
_MAX_WORDS = 200  # characters; a longer message may repeat the request, which contains text of the policy

_TEXTS, _THOUGHTS = ("text", "output_text"), ("thinking", "reasoning", "redacted_thinking")


@dataclass(frozen=True, slots=True)
class ServerReply:
    """A reply of the model.

    Attributes:
        text: text of the answer; None without an answer.
        refused: whether the model or a filter declined.
        first_token: token and log probability of the likeliest first tokens; None if the server sent none.
        prompt_tokens, cached_tokens, completion_tokens: numbers of tokens as the server counts them; 0 if unknown.
        finish: why the model stopped: ``"stop"``, ``"length"``, ``"tool_calls"``.
        calls: name and arguments (JSON text) of each tool call that the server parsed; None without calls.
        thought: whether the server sent the model's thoughts separately from its answer.
    """

    text: str | None
    refused: bool
    first_token: tuple[tuple[str, float], ...] | None
    prompt_tokens: int
    cached_tokens: int
    completion_tokens: int
    finish: str = "stop"
    calls: tuple[tuple[str, str], ...] | None = None
    thought: bool = False


@dataclass(frozen=True, slots=True)
class Context:
    """What a reader needs besides the text of a response.

    Attributes:
        headers: headers of the response.
        key_variable: name of the environment variable with the key.
        scrubbed: function that removes the key from a text.
    """

    headers: Mapping[str, str]
    key_variable: str
    scrubbed: Callable[[str], str]

    def shown(self, text: str) -> str:
        """Return a text of the server, shortened and safe for a message."""
        return quoted(self.scrubbed(text), 300)

    def failure(self, status: int, said: str) -> TransportError:
        """Return the error for a status and a message of the server."""
        return of_status(status, self.scrubbed(said), self.headers, self.key_variable)


def read_reply(text: str, context: Context) -> ServerReply:
    """Return the reply in a response with status 200.

    Raises:
        TransportError: the response is an error, contains a reply that was broken off, or does not follow the API.
    """
    response = _json_object(text, context)
    _refuse_errors(response, context)
    if not response.get("choices"):
        message = response.get("message") or response.get("detail") or text
        raise TransportError(
            "malformed", f"a response without choices: {context.shown(str(message))}", again=True, free=True
        )
    try:
        return _read_choice(response, context)
    except (LookupError, TypeError, ValueError, AttributeError, ArithmeticError, RecursionError) as error:
        detail = f"a response that is not a chat completion ({type(error).__name__}): {context.shown(text)}"
        raise TransportError("malformed", detail, again=True) from None


def read_models(text: str, context: Context) -> dict[str, str | None]:
    """Return the models in a list of models: name -> source of its weights, None if unknown.

    Raises:
        TransportError: the response is an error, or is not a list of models.
    """
    response = _json_object(text, context)
    _refuse_errors(response, context)
    try:
        return {str(entry["id"]): entry.get("root") for entry in response["data"]}
    except (AttributeError, KeyError, TypeError):
        detail = f"a response that is not a list of models: {context.shown(text)}"
        raise TransportError("malformed", detail, again=True, free=True) from None


def _json_object(text: str, context: Context) -> dict[str, Any]:
    """Return the JSON object of a response.

    A text that does not begin like a completion was not paid for. A completion that breaks off may have been.
    """
    try:
        response = json.loads(text)
    except (ValueError, RecursionError):
        free = not text.lstrip().startswith("{")
        shown = context.shown(text.strip()) if text.strip() else "an empty response"
        raise TransportError("malformed", f"not JSON: {shown}", again=True, free=free) from None
    if isinstance(response, list) and len(response) == 1:  # Gemini puts its errors into a list
        response = response[0]
    if not isinstance(response, dict):
        raise TransportError("malformed", f"not a JSON object: {context.shown(text)}", again=True, free=True)
    return response


def _refuse_errors(response: Mapping[str, Any], context: Context) -> None:
    """Raise the error that a response has under ``error`` or ``errors``, or that the whole response is."""
    error = response.get("error") or response.get("errors")
    if error:
        raise _error_within(error, context)
    if not response.get("choices") and not response.get("data"):
        for fields in (response, response.get("detail"), response.get("base_resp")):
            if isinstance(fields, Mapping) and (fields.get("object") == "error" or status_of_error(fields)):
                raise _error_within(fields, context)


def _error_within(error: Any, context: Context) -> TransportError:
    """Return the error inside a response with status 200, as if it had been the status of the response."""
    fields = _innermost(error)
    status = status_of_error(fields) or 500
    words = _message(fields) or json.dumps(fields, default=str)
    named = [str(fields[name]) for name in ("code", "type") if isinstance(fields.get(name), str)]
    return context.failure(status, " ".join([words, *named]))


def _innermost(error: Any) -> Mapping[str, Any]:
    """Return the fields of an error. ``{"error": {"error": …}}`` and lists are unpacked. A text is the message."""
    for _ in range(4):
        if isinstance(error, list) and error:
            error = error[0]
        elif isinstance(error, Mapping) and isinstance(error.get("error"), Mapping | list) and error["error"]:
            error = error["error"]
    return error if isinstance(error, Mapping) else {"message": str(error)}


def _message(fields: Mapping[str, Any]) -> str:
    found = (fields.get(name) for name in ("message", "status_msg", "error", "detail", "msg"))
    return next((str(words) for words in found if words and not isinstance(words, Mapping | list)), "")


def status_of_error(fields: Mapping[str, Any]) -> int | None:
    """Return the status of an error, from its codes or from the words of a short message."""
    names = ("code", "status", "status_code", "http_code", "http_status", "type", "reason")
    coded = next((found for name in names if (found := _status(fields.get(name))) is not None), None)
    words = _message(fields)
    if coded in (None, 400, 500) and len(words) <= _MAX_WORDS:
        return next((status for status, pattern in _WORDS if pattern.search(words)), coded)
    return coded


def status_in_body(text: str) -> int | None:
    """Return 401, 402 or 429 if the body of a failed response means one of these; None otherwise."""
    try:
        body = json.loads(text)
    except (ValueError, RecursionError):
        return None
    found = status_of_error(_innermost(body)) if isinstance(body, dict | list) else None
    return found if found in (401, 402, 429) else None


def _status(value: Any) -> int | None:
    """Return the status for a code such as 429, "429" or "rate_limit_exceeded"; None for other codes."""
    if isinstance(value, str):
        name = value.strip().lower().replace(" ", "_")
        if name in _CODES:
            return _CODES[name]
        value = int(name) if name.isascii() and name.isdecimal() and len(name) == 3 else None
    return value if type(value) is int and 400 <= value < 600 else None


def _read_choice(response: Mapping[str, Any], context: Context) -> ServerReply:
    choice = response["choices"][0]
    if choice.get("error"):
        raise _error_within(choice["error"], context)
    message = choice["message"]
    if message.get("error"):
        raise _error_within(message["error"], context)
    text, declined, thought = _content(message.get("content"))
    thought = thought or any(message.get(name) for name in ("reasoning_content", "reasoning"))
    calls = _calls(message)
    finish = _finish(choice, context)
    refused = declined or bool(message.get("refusal")) or finish == "refused"
    usage = response.get("usage") or {}
    cached = (usage.get("prompt_tokens_details") or {}).get("cached_tokens")
    positions = (choice.get("logprobs") or {}).get("content")
    if "finish_reason" not in choice and not (text or calls):
        raise TransportError("server", "a reply without content and without finish_reason", again=True)
    if finish == "stop" and text is None and not (calls or refused or thought):
        raise TransportError("server", "a reply whose content is null, without anything else", again=True)
    return ServerReply(
        text=text,
        refused=refused,
        first_token=_first_token(positions[0]) if positions else None,
        prompt_tokens=_count(usage.get("prompt_tokens")),
        cached_tokens=_count(cached),
        completion_tokens=_count(usage.get("completion_tokens")),
        finish=finish,
        calls=calls,
        thought=thought,
    )


def _finish(choice: Mapping[str, Any], context: Context) -> str:
    """Return why the model stopped.

    Raises:
        TransportError: the server broke the reply off, or the reason is unknown.
    """
    given = choice.get("finish_reason", "stop")  # if the server gives no reason, the reply counts as finished
    if isinstance(given, Mapping):  # SGLang: {"type": "abort", "message": …}
        said = given.get("message")
        given = given.get("type")
    else:
        said = None
    if given is None:
        raise TransportError("server", "the server broke the reply off (finish_reason null)", again=True)
    word = str(given).strip().lower().removeprefix("finish_reason_")
    if word in _ENDED:
        return "stop"
    if word in _CUT:
        return "length"
    if word in _CALLED:
        return "tool_calls"
    if word in _DECLINED:
        return "refused"
    more = f": {context.shown(str(said))}" if said else ""
    raise TransportError(
        "server",
        f"the server broke the reply off (finish_reason {quoted(context.scrubbed(word), 40)}){more}",
        again=True,
    )


def _content(content: Any) -> tuple[str | None, bool, bool]:
    """Return the text of a message's content, whether it is a refusal, and whether it contains thoughts."""
    if content is None or isinstance(content, str):
        return content, False, False
    if not isinstance(content, list):
        raise TypeError("content is not text")
    words, declined, thought = [], False, False
    for part in content:
        kind = part.get("type", "text")
        if kind in _TEXTS:
            words.append(_text(part["text"]))
        elif kind == "refusal":
            declined = True
        elif kind in _THOUGHTS:
            thought = True
        else:
            raise TypeError("content has a part that is not text")
    return "".join(words) if words else None, declined, thought


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError("a part of the content is not text")
    return value


def _calls(message: Mapping[str, Any]) -> tuple[tuple[str, str], ...] | None:
    """Return the tool calls of a message. Older servers send a single one as ``function_call``."""
    functions = [value["function"] for value in message.get("tool_calls") or ()]
    if not functions and message.get("function_call"):
        functions = [message["function_call"]]
    return tuple((str(function["name"]), _arguments(function.get("arguments"))) for function in functions) or None


def _arguments(value: Any) -> str:
    """Return arguments as JSON text. Some servers send an object, or nothing for a function without arguments."""
    if value is None or value == "":
        return "{}"
    return value if isinstance(value, str) else json.dumps(value)


def _first_token(position: Mapping[str, Any]) -> tuple[tuple[str, float], ...]:
    # Without top_logprobs, a server gives only the sampled token, so every verdict would be 0 or 1.
    return tuple((str(entry["token"]), float(entry["logprob"])) for entry in position.get("top_logprobs") or ())


def _count(value: object) -> int:
    return value if type(value) is int and 0 <= value < 1 << 53 else 0
