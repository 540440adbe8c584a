"""A server that sends exactly the bytes that it is told to, and counts how many of them were taken."""

from __future__ import annotations

import asyncio
import contextlib
import json
import threading
from collections.abc import AsyncIterator, Callable
from typing import Any, TypeAlias

Answer: TypeAlias = "bytes | AsyncIterator[bytes] | None"
"""Bytes of a whole response, parts of one that may never end, or None for hanging up without a word."""


class RawServer:
    """Every POST is answered by ``answer(request, number)``; every GET by a list of models. Then it hangs up."""

    def __init__(self, answer: Callable[[dict[str, Any], int], Answer], models: bytes | None = None) -> None:
        self.answer, self.models = answer, models or ok({"data": [{"id": "m"}]})
        self.requests: list[dict[str, Any]] = []
        self.heads: list[str] = []
        self.sent = 0
        self._loop = asyncio.new_event_loop()
        self._ready = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/v1"

    def __enter__(self) -> RawServer:
        self._thread.start()
        assert self._ready.wait(600)
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(600)

    def _run(self) -> None:
        self._loop.run_until_complete(self._serve())
        self._loop.close()

    async def _serve(self) -> None:
        self._stop = asyncio.Event()
        self._tasks: set[asyncio.Task[None]] = set()
        server = await asyncio.start_server(self._connection, "127.0.0.1", 0)
        self.port = server.sockets[0].getsockname()[1]
        self._ready.set()
        await self._stop.wait()
        server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _connection(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            while await self._exchange(reader, writer):
                pass
        self._tasks.discard(task)
        writer.close()

    async def _exchange(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
        self.heads.append(head)
        headers = dict(line.lower().split(": ", 1) for line in head.split("\r\n")[1:] if ": " in line)
        body = await reader.readexactly(int(headers.get("content-length", 0)))
        if head.startswith("GET"):
            answer: Answer = self.models
        else:
            self.requests.append(json.loads(body))
            answer = self.answer(self.requests[-1], len(self.requests))
        if answer is None:
            return False
        if isinstance(answer, bytes):
            writer.write(answer)
            await writer.drain()
            self.sent += len(answer)
            return False
        async for part in answer:
            writer.write(part)
            await writer.drain()
            self.sent += len(part)
        return False


def http(status: int, body: bytes, *lines: str, length: int | None = None) -> bytes:
    """Return a response; ``length`` is what it claims to be long."""
    top = [f"HTTP/1.1 {status} X", f"content-length: {len(body) if length is None else length}", "connection: close"]
    top += lines
    if not any(line.lower().startswith("content-type") for line in lines):
        top.append("content-type: application/json")
    return "\r\n".join(top).encode("latin-1") + b"\r\n\r\n" + body


def ok(value: Any, *lines: str) -> bytes:
    """Return a response with status 200 and JSON."""
    return http(200, json.dumps(value).encode(), *lines)


def choice(content: Any = '{"criteria_met": true}', finish: Any = "stop", **fields: Any) -> dict[str, Any]:
    """Return a completion; ``message_*`` are further fields of its message."""
    message = {"role": "assistant", "content": content}
    message |= {name.removeprefix("message_"): fields.pop(name) for name in list(fields) if name.startswith("message_")}
    usage = {"prompt_tokens": 10, "completion_tokens": 5}
    return {"choices": [{"index": 0, "finish_reason": finish, "message": message, **fields}], "usage": usage}
