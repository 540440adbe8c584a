"""Requests to an OpenAI-compatible server. The result is the answer, or an error with a reason."""

from __future__ import annotations

import os
from collections.abc import AsyncGenerator, Mapping
from typing import Any

from rvpo.errors import JudgeError
from rvpo.judges.failures import about_response_format
from rvpo.judges.keys import Scrubber
from rvpo.judges.replies import Context, ServerReply, read_models, read_reply, status_in_body
from rvpo.net.failures import TransportError
from rvpo.net.http import Connection, Response

__all__ = ["DEFAULT_URL", "Chat", "ServerReply", "TransportError", "about_response_format"]

DEFAULT_URL = "https://api.openai.com/v1"


class Chat:
    """The chat endpoint of one server, for one event loop."""

    def __init__(self, base_url: str | None, api_key_env: str, timeout: float) -> None:
        """Read the key from the environment.

        Args:
            base_url: URL of the server; None is the value of ``OPENAI_BASE_URL``, or else OpenAI's URL.
            api_key_env: name of the environment variable with the key.
            timeout: time limit for a whole request, in seconds.

        Raises:
            JudgeError: the key is absent and ``base_url`` is not given, or the key cannot be sent.
        """
        key = os.environ.get(api_key_env, "").strip()
        if not (key.isascii() and key.isprintable()):  # the client's own error would repeat it
            raise JudgeError(
                f"the environment variable {api_key_env} contains characters that an HTTP header cannot carry; "
                "expected printable ASCII. Export the key again, without quotes and line breaks"
            )
        if not key and base_url is None:
            raise JudgeError(
                f"the environment variable {api_key_env} is not set; expected the key of the judge's server. Export "
                "it, name another variable with api_key_env, or set base_url to your own server"
            )
        self._key_variable, self._scrubbed, self._is_secret = api_key_env, Scrubber(key), len(key) >= 8
        # The user's own server accepts any key.
        headers = {"authorization": f"Bearer {key or 'none'}", "user-agent": "rvpo"}
        self.url = (base_url or os.environ.get("OPENAI_BASE_URL") or DEFAULT_URL).rstrip("/")
        self._connection = Connection(self.url, headers, timeout)

    @classmethod
    async def open(cls, base_url: str | None, api_key_env: str, timeout: float) -> AsyncGenerator[Chat]:
        """Yield a chat endpoint, and close it when the generator is closed. A loop closes its generators at its end."""
        chat = cls(base_url, api_key_env, timeout)
        try:
            yield chat
        finally:
            await chat._connection.close()

    async def complete(self, body: Mapping[str, Any]) -> ServerReply:
        """Send one chat completion request.

        Args:
            body: fields of the request.

        Raises:
            TransportError: the server gave no answer, or one that does not follow the API.
        """
        response = await self._ask("POST", "/chat/completions", body)
        return read_reply(response.text, self._context(response))

    async def models(self) -> list[str]:
        """Return the names of the models that the server offers.

        Raises:
            TransportError: the server does not list its models.
        """
        return list(await self.roots())

    async def roots(self) -> dict[str, str | None]:
        """Return the models of the server: name -> source of its weights (``root`` of vLLM), None if unknown.

        Raises:
            TransportError: the server does not list its models.
        """
        response = await self._ask("GET", "/models")
        return read_models(response.text, self._context(response))

    def scrubbed(self, text: str) -> str:
        """Return a text, such as a failure or an explanation, without the key."""
        return self._scrubbed(text)

    def without_secret(self, text: str) -> str:
        """Return a reply without the key. A key of fewer than eight characters counts as a word, not as a secret."""
        return self._scrubbed(text) if self._is_secret else text

    def _context(self, response: Response) -> Context:
        return Context(response.headers, self._key_variable, self._scrubbed)

    async def _ask(self, method: str, path: str, body: Mapping[str, Any] | None = None) -> Response:
        """Return a response with status 200."""
        response = await self._connection.request(method, path, body)
        if response.status != 200:
            status = status_in_body(response.text) or response.status
            raise self._context(response).failure(status, response.text)
        return response
