"""A local OpenAI-compatible server that answers by content, fails on demand, and keeps the bill.

    with FaultServer(fault_rate=0.1) as server:
        judge = EndpointJudge(model=server.model, base_url=server.url)

    python tests/fault_server.py --port 8000 --fault-rate 0.1

The answer to a question, and whether its n-th attempt fails and how, depend on its content, n and the seed alone, so
two runs see the same faults whatever order their calls arrive in.
"""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import json
import math
import random
import re
import threading
from collections import Counter
from collections.abc import Sequence
from typing import Any

FAULTS = ("429", "500", "timeout", "drop", "garbage", "truncated_body", "truncated_json", "no_verdict", "refusal")
ANSWERED_FAULTS = tuple(fault for fault in FAULTS if fault != "timeout")
"""Those without a time limit, for tests that count what comes back however slow the machine is."""

_PAIR = re.compile(
    r"\[BEGIN REPLY A (\w+)\]\n(.*)\n\[END REPLY A \1\]\n\n\[BEGIN REPLY B \1\]\n(.*)\n\[END REPLY B \1\]\n\n(.*)",
    re.DOTALL,
)
_SHOWN = re.compile(r"\[BEGIN REPLY (\w+)\]\n(.*)\n\[END REPLY \1\]\n\n(.*)", re.DOTALL)


def degree(reply: str, statement: str) -> float:
    """Return the degree in [0, 1) to which this server finds a statement true of a reply: a hash of both."""
    return int.from_bytes(hashlib.sha256(f"{reply}\0{statement}".encode()).digest()[:4], "big") / 2**32


def preference(first: str, second: str, question: str, position_bias: float = 0.0, tie: float = 0.0) -> float:
    """Return how far this server prefers the reply shown first: 1 or 0, and 0.5 for degrees that differ by ``tie``.

    Of a share ``position_bias`` of the pairs, drawn by their content in either order, the first reply wins.
    """
    drawn = degree("\0".join(sorted((first, second))), question)
    if drawn < position_bias:
        return 1.0
    difference = degree(first, question) - degree(second, question)
    return 0.5 if abs(difference) <= tie else float(difference > 0)


class FaultServer:
    """Serves ``/v1/models`` and ``/v1/chat/completions`` on a thread of its own.

    Args:
        fault_rate: share of attempts that fail.
        faults: the kinds to draw from, each equally likely: :data:`FAULTS`, and "quota", a 429 that no wait mends.
        seed: of the draw.
        model: the only model it has.
        structured: the forms of response_format that it knows; others are answered with 400.
        logprobs: whether it gives them; if not, it ignores the request for them.
        key: the key that it demands, None takes any. A wrong key is repeated in the error, as careless servers do.
        retry_after: header lines sent with a 429.
        context: most characters of a prompt; a longer one is answered with 400.
        latency: seconds that an answer takes.
        position_bias, tie: see :func:`preference`; of questions about two replies.
        quote: what it writes around the JSON of its verdict; ``{}`` stands for the JSON.
        port: 0 takes a free one.

    Attributes:
        requests: body of every request for a completion, in order of arrival.
        answered: how often each content was answered with a completion, which is what a provider would charge for.
        faults_sent: how often each kind of fault was sent.
        in_flight, max_in_flight: requests for completions that are being answered, now and at most.
        hold: while True, no request is answered.
        hold_after: holds from the moment that so many completions were answered.
    """

    def __init__(
        self,
        *,
        fault_rate: float = 0.0,
        faults: Sequence[str] = FAULTS,
        seed: int = 0,
        model: str = "fault-model",
        structured: Sequence[str] = ("json_schema", "json_object"),
        logprobs: bool = True,
        key: str | None = None,
        retry_after: Sequence[str] = ("retry-after-ms: 20",),
        context: int | None = None,
        latency: float = 0.0,
        position_bias: float = 0.0,
        tie: float = 0.0,
        quote: str = "{}",
        port: int = 0,
    ) -> None:
        self.fault_rate, self.faults, self.seed, self.model = fault_rate, tuple(faults), seed, model
        self.structured, self.logprobs, self.key = tuple(structured), logprobs, key
        self.retry_after, self.context, self.latency, self.quote = tuple(retry_after), context, latency, quote
        self.position_bias, self.tie = position_bias, tie
        self.requests: list[dict[str, Any]] = []
        self.answered: Counter[str] = Counter()
        self.faults_sent: Counter[str] = Counter()
        self.max_in_flight = self.in_flight = 0
        self.hold, self.hold_after = False, math.inf
        self._attempts: Counter[str] = Counter()
        self._port = port
        self._loop = asyncio.new_event_loop()
        self._ready = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    @property
    def connections(self) -> int:
        return len(self._connections)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._port}/v1"

    def __enter__(self) -> FaultServer:
        self._thread.start()
        assert self._ready.wait(10), "the fault server did not start"
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(10)

    def _run(self) -> None:
        self._loop.run_until_complete(self._serve())
        self._loop.close()

    async def _serve(self) -> None:
        self._stop = asyncio.Event()
        self._connections: set[asyncio.Task[None]] = set()
        server = await asyncio.start_server(self._connection, "127.0.0.1", self._port, backlog=2048)
        self._port = server.sockets[0].getsockname()[1]
        self._ready.set()
        await self._stop.wait()
        server.close()
        for task in self._connections:
            task.cancel()
        await asyncio.gather(*self._connections, return_exceptions=True)

    async def _connection(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._connections.add(task)
        try:
            while await self._exchange(reader, writer):
                pass
        except (ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass
        finally:
            self._connections.discard(task)
            writer.close()

    async def _exchange(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        """Answer one request; False ends the connection."""
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
        headers = dict(line.lower().split(": ", 1) for line in head.split("\r\n")[1:] if ": " in line)
        body = await reader.readexactly(int(headers.get("content-length", 0)))
        token = re.search(r"(?im)^authorization: bearer (.*)\r$", head)
        status, lines, content = 200, (), b""
        if self.key is not None and (token is None or token[1] != self.key):
            message = f"Incorrect API key provided: {token[1] if token else None}"
            status, content = 401, _error(message)
        elif head.startswith("GET /v1/models "):
            content = json.dumps({"object": "list", "data": [{"id": self.model, "object": "model"}]}).encode()
        elif head.startswith("POST /v1/chat/completions "):
            self.in_flight += 1
            self.max_in_flight = max(self.max_in_flight, self.in_flight)
            try:
                answer = await self._completion(json.loads(body), reader)
            finally:
                self.in_flight -= 1
            if answer is None:
                return False
            status, lines, content = answer
        else:
            status, content = 404, _error("no such path")
        length = f"content-length: {len(content)}"
        top = "\r\n".join([f"HTTP/1.1 {status} X", "content-type: application/json", length, *lines])
        writer.write(top.encode() + b"\r\n\r\n" + content)
        await writer.drain()
        return True

    async def _completion(
        self, request: dict[str, Any], reader: asyncio.StreamReader
    ) -> tuple[int, Sequence[str], bytes] | None:
        """Return status, further header lines and body; None hangs up."""
        self.requests.append(request)
        shown = request["messages"][-1]["content"]
        content = hashlib.sha256(json.dumps(request["messages"]).encode()).hexdigest()
        if request["model"] != self.model:
            return 404, (), _error(f"The model `{request['model']}` does not exist.")
        if self.context is not None and len(shown) > self.context:
            return 400, (), _error(f"This model's maximum context length is {self.context} tokens.")
        form = (request.get("response_format") or {}).get("type")
        if form is not None and form not in self.structured:
            return 400, (), _error(f"response_format of type {form} is not supported")
        fault = self._fault(content)
        if fault == "429":
            return 429, self.retry_after, _error("slow down")
        if fault == "quota":
            return 429, self.retry_after, _error("insufficient_quota: pay first")
        if fault == "500":
            return 500, (), _error("internal error")
        if fault == "drop":
            return None
        if fault == "timeout":
            await asyncio.sleep(3600)
        await asyncio.sleep(self.latency)
        while self.hold or self.answered.total() >= self.hold_after:
            if reader.at_eof():  # nobody waits any more, so nobody pays
                return None
            await asyncio.sleep(0.01)
        if fault == "garbage":
            return 200, (), b"<html>502 Bad Gateway</html>"
        self.answered[content] += 1
        body = json.dumps(self._answer(request, shown, fault)).encode()
        return 200, (), body[: len(body) // 2] if fault == "truncated_body" else body

    def _fault(self, content: str) -> str | None:
        attempt = self._attempts[content]
        self._attempts[content] += 1
        draw = random.Random(f"{self.seed}:{content}:{attempt}")
        if draw.random() >= self.fault_rate:
            return None
        fault = draw.choice(self.faults)
        self.faults_sent[fault] += 1
        return fault

    def _answer(self, request: dict[str, Any], shown: str, fault: str | None) -> dict[str, Any]:
        text, logprobs = self._verdict(request, shown)
        message: dict[str, Any] = {"role": "assistant", "content": text}
        if fault == "truncated_json":
            message["content"] = text[: len(text) // 2]
        elif fault == "no_verdict":
            message["content"] = "I would rather talk about the weather."
            logprobs = [("The", -0.1), ("I", -2.5)]
        elif fault == "refusal":
            message |= {"content": None, "refusal": "I cannot help with that."}
        choice: dict[str, Any] = {"index": 0, "message": message, "finish_reason": "stop"}
        if request.get("logprobs") and self.logprobs:
            top = [{"token": token, "logprob": value} for token, value in logprobs]
            choice["logprobs"] = {"content": [{**top[0], "top_logprobs": top}]}
        prompt = len(json.dumps(request["messages"])) // 4
        usage = {
            "prompt_tokens": prompt,
            "completion_tokens": 8,
            "total_tokens": prompt + 8,
            "prompt_tokens_details": {"cached_tokens": prompt // 2},
        }
        return {"id": "x", "object": "chat.completion", "model": self.model, "choices": [choice], "usage": usage}

    def _winner(self, first: str, second: str, asked: str) -> tuple[str, list[tuple[str, float]]]:
        """Return the text of the answer about two replies, and the likeliest first tokens."""
        value = preference(first, second, asked.partition("\nQuestion: ")[2], self.position_bias, self.tie)
        verdict = {"explanation": "So it is."} if '{"explanation"' in asked else {}
        verdict["winner"] = {1.0: "A", 0.5: "tie", 0.0: "B"}[value]
        sure = 0.2 + 0.6 * value
        logprobs = [("A", _logprob(sure * 0.9)), (" B", _logprob((1 - sure) * 0.9)), ("C", _logprob(0.1))]
        return self.quote.replace("{}", json.dumps(verdict)), logprobs

    def _verdict(self, request: dict[str, Any], shown: str) -> tuple[str, list[tuple[str, float]]]:
        """Return the text of the answer, and the likeliest first tokens."""
        if pair := _PAIR.search(shown):
            return self._winner(*pair.groups()[1:])
        found = _SHOWN.search(shown)
        reply, question = (found[2], found[3]) if found else ("", shown)
        statement = question.partition("\nStatement: ")[2]
        value = degree(reply, statement)
        logprobs = [(" yes", math.log(value * 0.9 + 1e-9)), ("No", math.log((1 - value) * 0.9)), ("The", -3.0)]
        if request.get("logprobs"):
            return ("yes" if value >= 0.5 else "no"), logprobs
        verdict: dict[str, Any] = {"explanation": "So it is."} if '{"explanation"' in question else {}
        bounds = re.search(r"from (-?\d+) \(not at all\) to (-?\d+) \(fully\)", question)
        if items := re.findall(
            r"(?m)^(c\d+) \((?:whole number from (-?\d+) to (-?\d+)|true or false)\): (.*)$", question
        ):
            for key, low, high, text in items:
                verdict[key] = _grade(degree(reply, text), int(low), int(high)) if low else degree(reply, text) >= 0.5
        elif bounds:
            verdict["score"] = _grade(value, int(bounds[1]), int(bounds[2]))
        else:
            verdict["criteria_met"] = value >= 0.5
        return self.quote.replace("{}", json.dumps(verdict)), logprobs


def _logprob(value: float) -> float:
    return math.log(value * 0.9 + 1e-9)


def _grade(value: float, low: int, high: int) -> int:
    return low + int(value * (high - low + 1))


def _error(message: str) -> bytes:
    return json.dumps({"error": {"message": message, "type": "error", "code": None}}).encode()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--port", type=int, default=8000)
    parser.add_argument("--fault-rate", type=float, default=0.0)
    parser.add_argument("--latency", type=float, default=0.0, help="seconds that an answer takes")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    with FaultServer(port=args.port, fault_rate=args.fault_rate, seed=args.seed, latency=args.latency) as server:
        print(f"{server.url}  model {server.model}", flush=True)
        try:
            threading.Event().wait()
        except KeyboardInterrupt:
            print(f"{server.answered.total()} answered, faults {dict(server.faults_sent)}")


if __name__ == "__main__":
    main()
