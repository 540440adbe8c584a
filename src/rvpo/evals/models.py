"""Who replies: a model on this machine, or one behind an OpenAI-compatible server."""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import AsyncIterator, Coroutine, Sequence, Set
from concurrent.futures import ThreadPoolExecutor
from contextlib import aclosing
from typing import Any, Protocol, TypeAlias, TypeVar

from rvpo.errors import ConfigError, JudgeError, ModelError
from rvpo.evals.items import Generation, Item, Key, Reply

T = TypeVar("T")

Replied: TypeAlias = list[tuple[Item, Reply]]

_RETRIES = 5  # further attempts after a lost connection, 429 or 5xx


class Policy(Protocol):
    """A model under evaluation."""

    def identity(self) -> dict[str, Any]:
        """Return what tells this model from every other, as plain JSON; ``name`` is for people.

        A run is never continued with another identity: for a folder it holds the digest of the weights.
        """
        ...

    def replies(self, items: Sequence[Item], wanted: Set[Key], generation: Generation) -> AsyncIterator[Replied]:
        """Yield replies to the ``wanted`` items as they come; those that cannot be had are missing.

        Args:
            items: all items of the run, so that what is generated together does not depend on what is wanted.
            wanted: keys of the items to reply to.
            generation: how.

        Raises:
            ModelError: the model cannot be loaded or asked.
        """
        ...


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

    Raises:
        ConfigError: an option cannot work, or the folder holds no model.
    """
    for name, value in (("batch_size", batch_size), ("concurrency", concurrency)):
        if type(value) is not int or value < 1:
            raise ConfigError(f"{name} is {value!r}, allowed is a whole number of at least 1")
    if model.startswith(("http://", "https://")):
        url, _, name = model.partition("#")
        if not name:
            raise ConfigError(f"model is {model!r}, which names no model: write http://host:port/v1#MODEL")
        return EndpointPolicy(url, name, api_key_env, concurrency, timeout, extra_body)
    from rvpo.evals.local import LocalPolicy  # loads torch and transformers

    return LocalPolicy.at(model, gguf_file=gguf_file, dtype=dtype, device=device, batch_size=batch_size)


class EndpointPolicy:
    """A model behind an OpenAI-compatible server. Chat template and tool calls are the server's."""

    def __init__(
        self,
        base_url: str,
        model: str,
        api_key_env: str = "OPENAI_API_KEY",
        concurrency: int = 32,
        timeout: float = 600.0,
        extra_body: dict[str, Any] | None = None,
    ) -> None:
        """Name the server; see :func:`load_policy` for the arguments.

        Raises:
            ConfigError: the URL holds a password or a query, or the server is missing or does not have the model.
        """
        from rvpo.judges.options import check_url

        check_url(base_url)
        self._url, self._model, self._api_key_env = base_url, model, api_key_env
        self._concurrency, self._timeout, self._extra = concurrency, timeout, dict(extra_body or {})

    def identity(self) -> dict[str, Any]:
        """Ask the server for the model: its name, and the place of its weights where the server tells it.

        Servers tell no more. Another checkpoint under the same name and place is not noticed: name a new folder then.

        Raises:
            ModelError: no server there, or one without the model.
        """
        root = wait_for(self._root())
        # By its digest alone: it may hold a key.
        extra = {"extra_body": _digest(self._extra)} if self._extra else {}
        return {"kind": "endpoint", "name": self._model, "root": root, **extra}

    async def replies(self, items: Sequence[Item], wanted: Set[Key], generation: Generation) -> AsyncIterator[Replied]:
        """Yield replies one by one in the order in which they come; see :class:`Policy`."""
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

    def _open(self) -> Any:
        from rvpo.judges.transport import Chat

        return Chat.open(self._url, self._api_key_env, self._timeout)

    async def _root(self) -> str | None:
        from rvpo.judges.transport import CallError

        try:
            async with aclosing(self._open()) as owner:
                roots: dict[str, str | None] = await (await anext(owner)).roots()
        except JudgeError as error:  # about the key
            raise ModelError(str(error)) from None
        except CallError as failure:
            if failure.reason in ("connection", "timeout") or failure.status in (401, 403):
                step = "start the server, correct the URL, or export the key"
                raise ModelError(f"no model at {self._url}: {failure.detail}; {step}") from None
            return None  # a server without such a list
        if self._model not in roots:
            raise ModelError(f"{self._url} has no model {self._model!r}, allowed are {', '.join(sorted(roots))}")
        return roots[self._model]

    async def _reply(self, chat: Any, item: Item, generation: Generation) -> Reply:
        from rvpo.judges import limits
        from rvpo.judges.transport import CallError

        body = self._body(item, generation)
        attempt = 0
        while True:
            try:
                answer = await chat.complete(body)
                break
            except CallError as error:
                failure = error
            if not failure.again or attempt == _RETRIES:
                return Reply.missing(failure.reason, failure.detail)
            await limits.sleep(limits.backoff(attempt) if failure.wait is None else failure.wait)
            attempt += 1
        # No text is a reply, too: a model that declines, or that thinks until it is cut off, has not answered.
        calls = answer.calls and tuple({"name": name, "arguments": arguments} for name, arguments in answer.calls)
        return Reply(
            text=answer.text or "",
            calls=calls,
            finish="refused" if answer.refused else answer.finish,
            prompt_tokens=answer.prompt_tokens,
            completion_tokens=answer.completion_tokens,
        )

    def _body(self, item: Item, generation: Generation) -> dict[str, Any]:
        # OpenAI's reasoning models know only the one, many other servers only the other.
        limit = "max_completion_tokens" if "://api.openai.com" in self._url else "max_tokens"
        body: dict[str, Any] = {
            "model": self._model,
            "messages": [dict(message) for message in item.messages],
            limit: generation.max_tokens,
            "temperature": generation.temperature,
            "top_p": generation.top_p,
        }
        if generation.temperature > 0 and generation.seed:
            body["seed"] = seed_of(generation.seed, [item])
        if item.tools:
            body["tools"] = [dict(tool) for tool in item.tools]
        return body | self._extra


def wait_for(work: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine to its end, also where a loop runs already, as in a notebook.

    Unlike ``asyncio.run`` it lets Ctrl-C interrupt at once: a batch on a CPU may take many minutes.
    """
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return _to_the_end(work)
    with ThreadPoolExecutor(1) as thread:
        return thread.submit(_to_the_end, work).result()


def _to_the_end(work: Coroutine[Any, Any, T]) -> T:
    loop = asyncio.new_event_loop()
    try:
        return loop.run_until_complete(work)
    finally:
        loop.run_until_complete(_end_tasks(asyncio.all_tasks(loop)))
        loop.run_until_complete(loop.shutdown_asyncgens())
        loop.close()


async def _end_tasks(tasks: Set[asyncio.Task[Any]]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


def seed_of(seed: int, items: Sequence[Item]) -> int:
    """Return a seed in [0, 2^31) for the items generated together: a function of the run's seed and their keys."""
    return int(_digest([seed, [item.key for item in items]])[:8], 16) >> 1


def _digest(values: Any) -> str:
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()
