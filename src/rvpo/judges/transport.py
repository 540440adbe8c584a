"""One request to an OpenAI-compatible server: the answer, or why there is none and whether asking again may help."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import AsyncGenerator, Mapping
from dataclasses import dataclass
from typing import Any

import aiohttp
import openai

from rvpo.errors import JudgeError
from rvpo.judges.limits import retry_after

_CONNECT_SECONDS = 10.0  # a server that cannot even be connected to in this time is down
_MAX_DETAIL_CHARS = 2000  # of a server's message that are kept
_TOO_LONG = ("context_length", "context length", "maximum context", "context window", "too long", "max_model_len")
_NO_FORMAT = ("response_format", "json_schema", "json_object", "structured", "guided", "grammar", "schema")


@dataclass(eq=False)
class TransportError(Exception):
    """A request without an answer.

    Attributes:
        reason: one of ``rvpo.rewards.rubric.verdict.REASONS``.
        detail: what happened; holds no key.
        again: whether another attempt may help.
        wait: seconds in which the server wants no further request; None where it did not say.
        free: whether the server surely charged nothing.
        status: of the HTTP response, None where there was none.
    """

    reason: str
    detail: str
    again: bool = False
    wait: float | None = None
    free: bool = False
    status: int | None = None


@dataclass(frozen=True, slots=True)
class ServerReply:
    """What the model said.

    Attributes:
        text: its answer, None where it gave none.
        refused: whether the model or a filter declined.
        first_token: (token, log probability) of the likeliest first tokens, None where the server sent none.
        prompt_tokens, cached_tokens, completion_tokens: as the server counts them, 0 where it does not.
        finish: why the model stopped, in the server's word: ``"stop"``, ``"length"``, ``"tool_calls"``.
        calls: (name, arguments as JSON text) of the tool calls that the server parsed; None where there are none.
    """

    text: str | None
    refused: bool
    first_token: tuple[tuple[str, float], ...] | None
    prompt_tokens: int
    cached_tokens: int
    completion_tokens: int
    finish: str = "stop"
    calls: tuple[tuple[str, str], ...] | None = None


class Chat:
    """The chat endpoint of one server, for one event loop."""

    def __init__(self, base_url: str | None, api_key_env: str, timeout: float) -> None:
        """Read the key and make the client.

        Args:
            base_url: None is the client's default.
            api_key_env: name of the variable that holds the key.
            timeout: seconds for a request as a whole.

        Raises:
            JudgeError: no key, and no ``base_url`` of a server that may need none; or a key that cannot be sent.
        """
        self._key = os.environ.get(api_key_env, "").strip()
        if not (self._key.isascii() and self._key.isprintable()):  # the client's own error would repeat it
            raise JudgeError(
                f"the environment variable {api_key_env} holds characters that no HTTP header carries; allowed is "
                "printable ASCII: export the key again, without quotes and line breaks"
            )
        if not self._key and base_url is None:
            raise JudgeError(
                f"the environment variable {api_key_env} is not set; allowed is a key of the judge's server: export "
                "it, name another with api_key_env, or give the base_url of a server of your own"
            )
        self._timeout = timeout
        # A server of one's own takes any key. The client's own retries would know neither our pause nor our budget.
        self._client = openai.AsyncOpenAI(
            api_key=self._key or "none",
            base_url=base_url,
            max_retries=0,
            timeout=openai.Timeout(timeout, connect=min(timeout, _CONNECT_SECONDS)),
            http_client=openai.DefaultAioHttpClient(),  # half the processor time of the default
        )
        self.url = str(self._client.base_url)

    @classmethod
    async def open(cls, base_url: str | None, api_key_env: str, timeout: float) -> AsyncGenerator[Chat]:
        """Yield one, and close it when the generator is closed, which a loop does with its generators at its end."""
        chat = cls(base_url, api_key_env, timeout)
        try:
            yield chat
        finally:
            await chat._client.close()

    async def complete(self, body: Mapping[str, Any]) -> ServerReply:
        """Ask once, with the fields of a chat completion request.

        Raises:
            CallError: there is no answer, or none that follows the API.
        """
        try:
            async with asyncio.timeout(self._timeout):  # the client's own limit begins anew with each byte
                # The client's typed method takes half a millisecond more, and trusts the response to follow the API.
                text = await self._client.post("/chat/completions", body=dict(body), cast_to=str)
        except (openai.APIError, TimeoutError) as error:
            raise self._failure(error) from None  # the client's exceptions carry the request with its headers
        try:
            return _read(text)
        except (LookupError, TypeError, ValueError, AttributeError, ArithmeticError, RecursionError) as error:
            detail = f"a response that is no chat completion ({type(error).__name__})"
            raise TransportError("malformed", detail, again=True) from None

    async def models(self) -> list[str]:
        """Return the names of the models that the server offers; CallError where it does not say."""
        return list(await self.roots())

    async def roots(self) -> dict[str, str | None]:
        """Return, for each name, where its weights come from, as vLLM tells under ``root``; None where it does not."""
        try:
            async with asyncio.timeout(self._timeout):
                text = await self._client.get("/models", cast_to=str)
            return {str(entry["id"]): entry.get("root") for entry in json.loads(text)["data"]}
        except (openai.APIError, TimeoutError) as error:
            raise self._failure(error) from None
        except (AttributeError, KeyError, TypeError, ValueError, RecursionError):
            raise TransportError("malformed", "a response that is no list of models", again=True) from None

    def _failure(self, error: openai.APIError | TimeoutError) -> TransportError:
        if isinstance(error, openai.APIStatusError):
            return self._status_failure(error)
        causes = _causes(error)
        if any(isinstance(cause, TimeoutError) for cause in causes):
            return TransportError("timeout", f"no answer within {self._timeout:g} s", again=True)
        # The client calls every lost connection a timeout, too, so the causes are asked.
        free = any(isinstance(cause, aiohttp.ClientConnectorError) for cause in causes)  # never connected
        return TransportError("connection", f"connection failed ({type(causes[-1]).__name__})", again=True, free=free)

    def _status_failure(self, error: openai.APIStatusError) -> TransportError:
        status = error.status_code
        message = self._scrubbed(f"HTTP {status}: {error.response.text}")[:_MAX_DETAIL_CHARS]
        wait = retry_after(error.response.headers)
        if status in (401, 403):  # some servers repeat the key that they do not like, so nothing they say is repeated
            return TransportError(
                "rejected", f"HTTP {status}: the server does not accept the key", free=True, status=status
            )
        if status == 429 and "insufficient_quota" not in message:
            return TransportError("rate_limit", message, again=True, wait=wait, free=True, status=status)
        if status in (408, 409) or status >= 500:
            reason = "timeout" if status == 408 else "server"
            return TransportError(reason, message, again=True, wait=wait, free=True, status=status)
        too_long = status in (400, 413, 422) and any(word in message.lower() for word in _TOO_LONG)
        return TransportError("too_long" if too_long else "rejected", message, free=True, status=status)

    def _scrubbed(self, text: str) -> str:
        return text.replace(self._key, "***") if self._key else text


def about_response_format(failure: TransportError) -> bool:
    """Whether a request was rejected for the form of answer that it asks for."""
    return failure.status in (400, 404, 422) and any(word in failure.detail.lower() for word in _NO_FORMAT)


def _causes(error: BaseException) -> list[BaseException]:
    """Return an exception, its cause, the cause of that, and so on."""
    causes = [error]
    while (cause := causes[-1].__cause__ or causes[-1].__context__) and cause not in causes:
        causes.append(cause)
    return causes


def _read(text: str) -> ServerReply:
    response = json.loads(text)
    choice = response["choices"][0]
    message = choice["message"]
    content = message.get("content")
    if not isinstance(content, str | None):
        raise TypeError("content is no text")
    usage = response.get("usage") or {}
    cached = (usage.get("prompt_tokens_details") or {}).get("cached_tokens")
    positions = (choice.get("logprobs") or {}).get("content")
    return ServerReply(
        text=content,
        refused=bool(message.get("refusal")) or choice.get("finish_reason") == "content_filter",
        first_token=_first_token(positions[0]) if positions else None,
        prompt_tokens=_count(usage.get("prompt_tokens")),
        cached_tokens=_count(cached),
        completion_tokens=_count(usage.get("completion_tokens")),
        finish=str(choice.get("finish_reason") or "stop"),
        calls=_calls(message.get("tool_calls")),
    )


def _calls(values: Any) -> tuple[tuple[str, str], ...] | None:
    functions = [value["function"] for value in values or ()]
    return tuple((str(function["name"]), str(function["arguments"])) for function in functions) or None


def _first_token(position: Mapping[str, Any]) -> tuple[tuple[str, float], ...]:
    # Without top_logprobs a server tells the sampled token alone: that would make each verdict 0 or 1.
    return tuple((str(entry["token"]), float(entry["logprob"])) for entry in position.get("top_logprobs") or ())


def _count(value: object) -> int:
    return value if type(value) is int and 0 <= value < 1 << 53 else 0
