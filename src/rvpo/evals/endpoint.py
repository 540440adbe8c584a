"""``EndpointPolicy``: replies of a model on an OpenAI-compatible server."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Sequence, Set
from contextlib import aclosing
from typing import Any

from rvpo.errors import JudgeError, ModelError
from rvpo.evals.items import Generation, Item, Key, Reply
from rvpo.evals.policy import Replied, seed_of, wait_for
from rvpo.files import digest
from rvpo.judges.dialect import LIMITS, Dialect
from rvpo.judges.options import check_url
from rvpo.judges.transport import DEFAULT_URL, Chat, ServerReply, TransportError
from rvpo.net import limits

_RETRIES = 5  # further attempts after a lost connection, 429 or 5xx
_FAILURES_IN_A_ROW = 16  # after so many failed requests in a row, nothing more is asked


class EndpointPolicy:
    """A model on an OpenAI-compatible server. The server applies the chat template and parses tool calls."""

    def __init__(
        self,
        base_url: str,
        model: str,
        api_key_env: str = "OPENAI_API_KEY",
        concurrency: int = 32,
        timeout: float = 600.0,
        extra_body: dict[str, Any] | None = None,
        system_role: bool = True,
    ) -> None:
        """Store the options of the server; see :func:`rvpo.evals.models.load_policy` for the arguments.

        Raises:
            ConfigError: the URL is malformed, or holds a password or a query.
        """
        check_url(base_url)
        self._url, self._model, self._api_key_env = base_url, model, api_key_env
        self._concurrency, self._timeout, self._extra = concurrency, timeout, dict(extra_body or {})
        # OpenAI's reasoning models know only one name of the token limit, many other servers only the other name.
        self._dialect = Dialect(LIMITS[1] if DEFAULT_URL.rpartition("/")[0] in base_url else LIMITS[0], system_role)
        self._asked = {} if system_role else {"system_role": False}  # part of the identity: it changes the prompts
        self._pace = limits.Pace(None, None)
        self._failures = 0  # since the last reply

    def identity(self) -> dict[str, Any]:
        """Return the model's name, and the path of its weights if the server reports it.

        Servers report no more than this. A new checkpoint with the same name and path is not noticed: use a new folder
        for its run.

        Raises:
            ModelError: the server does not answer, or does not have the model.
        """
        root = wait_for(self._root())
        # Only a digest is stored, because the extra fields may hold a key.
        extra = {"extra_body": digest(self._extra)} if self._extra else {}
        return {"kind": "endpoint", "name": self._model, "root": root, **extra, **self._asked}

    async def replies(self, items: Sequence[Item], wanted: Set[Key], generation: Generation) -> AsyncIterator[Replied]:
        """Yield replies one by one as they arrive; see :class:`rvpo.evals.policy.Policy`."""
        slots = asyncio.Semaphore(self._concurrency)
        async with aclosing(self._open()) as owner:
            chat = await anext(owner)

            async def reply(item: Item) -> tuple[Item, Reply]:
                async with slots:
                    return item, await self._reply(chat, item, generation)

            tasks = [asyncio.create_task(reply(item)) for item in items if item.key in wanted]
            try:
                for done in asyncio.as_completed(tasks):
                    yield [await done]
            finally:
                for task in tasks:
                    task.cancel()
                await asyncio.gather(*tasks, return_exceptions=True)

    def _open(self) -> AsyncGenerator[Chat]:
        return Chat.open(self._url, self._api_key_env, self._timeout)

    async def _root(self) -> str | None:
        try:
            async with aclosing(self._open()) as owner:
                roots = await (await anext(owner)).roots()
        except JudgeError as error:  # about the key
            raise ModelError(str(error)) from None
        except TransportError as failure:
            if failure.reason in ("connection", "timeout") or failure.status in (401, 403):
                step = "start the server, correct the URL, or export the key"
                raise ModelError(f"no model at {self._url}: {failure.detail}. To continue, {step}") from None
            return None  # the server has no list of models
        if self._model not in roots:
            raise ModelError(f"{self._url} has no model {self._model!r}; expected one of {', '.join(sorted(roots))}")
        return roots[self._model]

    async def _reply(self, chat: Chat, item: Item, generation: Generation) -> Reply:
        try:
            answer = await self._answer(chat, self._body(item, generation))
        except TransportError as failure:
            if failure.ends:
                raise ModelError(f"{self._url}: {failure.detail}; the same command continues from here") from None
            self._failures += failure.reason != "too_long"  # "too_long" is the item's fault, not the server's
            if self._failures >= _FAILURES_IN_A_ROW:
                raise ModelError(
                    f"{self._url} gave no reply to {self._failures} items in a row, the last time: {failure.detail}; "
                    "repair the server, and run the same command again: it continues from here"
                ) from None
            return Reply.missing(failure.reason, failure.detail)
        self._failures = 0
        # An empty text is a reply, too: the model refused, or was cut off while it was thinking.
        calls = None
        if answer.calls is not None:
            calls = tuple(
                {"name": chat.without_secret(name), "arguments": chat.without_secret(arguments)}
                for name, arguments in answer.calls
            )
        return Reply(
            text=chat.without_secret(answer.text or ""),
            calls=calls,
            finish="refused" if answer.refused else answer.finish,
            prompt_tokens=answer.prompt_tokens,
            completion_tokens=answer.completion_tokens,
        )

    async def _answer(self, chat: Chat, body: dict[str, Any]) -> ServerReply:
        """Ask until there is an answer; if all attempts fail, raise the last failure."""
        attempt = 0
        while True:
            await self._pace.start(0)  # if the server is too busy for one request, all requests wait
            sent = self._dialect.spelled(body)
            try:
                return await chat.complete(sent)
            except TransportError as failure:
                if self._dialect.learns(failure, sent):
                    continue
                if not failure.again or attempt == _RETRIES:
                    raise
                wait = limits.backoff(attempt) if failure.wait is None else failure.wait
                if failure.wait is not None or failure.reason == "rate_limit":
                    self._pace.pause(wait)
            await limits.sleep(wait)
            attempt += 1

    def _body(self, item: Item, generation: Generation) -> dict[str, Any]:
        body: dict[str, Any] = {
            "model": self._model,
            "messages": [dict(message) for message in item.messages],
            LIMITS[0]: generation.max_tokens,
            "temperature": generation.temperature,
            "top_p": generation.top_p,
        }
        if generation.temperature > 0 and generation.seed:
            body["seed"] = seed_of(generation.seed, [item])
        if item.tools:
            body["tools"] = [dict(tool) for tool in item.tools]
        return body | self._extra
