"""One request to an OpenAI-compatible server: the answer, or why there is none and whether asking again may help."""

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
        """Read the key.

        Args:
            base_url: None is what ``OPENAI_BASE_URL`` says, else OpenAI's.
            api_key_env: name of the variable that holds the key.
            timeout: seconds for a request as a whole.

        Raises:
            JudgeError: no key, and no ``base_url`` of a server that may need none; or a key that cannot be sent.
        """
        key = os.environ.get(api_key_env, "").strip()
        if not (key.isascii() and key.isprintable()):  # the client's own error would repeat it
            raise JudgeError(
                f"the environment variable {api_key_env} holds characters that no HTTP header carries; expected "
                "printable ASCII: export the key again, without quotes and line breaks"
            )
        if not key and base_url is None:
            raise JudgeError(
                f"the environment variable {api_key_env} is not set; expected a key of the judge's server: export "
                "it, name another with api_key_env, or give the base_url of a server of your own"
            )
        self._key_variable, self._scrubbed, self._is_secret = api_key_env, Scrubber(key), len(key) >= 8
        # A server of one's own takes any key.
        headers = {"authorization": f"Bearer {key or 'none'}", "user-agent": "rvpo"}
        self.url = (base_url or os.environ.get("OPENAI_BASE_URL") or DEFAULT_URL).rstrip("/")
        self._connection = Connection(self.url, headers, timeout)

    @classmethod
    async def open(cls, base_url: str | None, api_key_env: str, timeout: float) -> AsyncGenerator[Chat]:
        """Yield one, and close it when the generator is closed, which a loop does with its generators at its end."""
        chat = cls(base_url, api_key_env, timeout)
        try:
            yield chat
        finally:
            await chat._connection.close()

    async def complete(self, body: Mapping[str, Any]) -> ServerReply:
        """Ask once, with the fields of a chat completion request.

        Raises:
            TransportError: there is no answer, or none that follows the API.
        """
        response = await self._ask("POST", "/chat/completions", body)
        return read_reply(response.text, self._context(response))

    async def models(self) -> list[str]:
        """Return the names of the models that the server offers.

        Raises:
            TransportError: the server does not say.
        """
        return list(await self.roots())

    async def roots(self) -> dict[str, str | None]:
        """Return, for each name, where its weights come from, as vLLM tells under ``root``; None where it does not.

        Raises:
            TransportError: the server does not say.
        """
        response = await self._ask("GET", "/models")
        return read_models(response.text, self._context(response))

    def scrubbed(self, text: str) -> str:
        """Return a text about a failure, or an explanation, without the key."""
        return self._scrubbed(text)

    def without_secret(self, text: str) -> str:
        """Return a reply without the key; one of under eight characters is a word, and no secret."""
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
