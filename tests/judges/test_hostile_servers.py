"""A judge and an evaluation in front of servers that fail in every way: what is no reply is missing."""

from __future__ import annotations

import asyncio
import gzip
import itertools
import json
import logging
import zlib
from collections.abc import AsyncIterator
from typing import Any

import pytest

pytest.importorskip("aiohttp")

from raw_server import RawServer, choice, http, ok
from rvpo.errors import JudgeError, ModelError
from rvpo.evals.endpoint import EndpointPolicy
from rvpo.evals.items import Generation, Item, Reply
from rvpo.judges.endpoint import EndpointJudge
from rvpo.net.http import MAX_BYTES
from rvpo.rewards.rubric.criteria import Criterion
from rvpo.rewards.rubric.verdict import REASONS, Question, Verdict
from turned_clock import turn_clock

SECRET = "sk-Secret/Key+with=signs%20and~more0123456789"
ASKED = Question("What is it?", "A cat.", (Criterion("a", "Is it a cat?"),))
GOOD = ok(choice())
FOUND = json.dumps(choice()).encode()


@pytest.fixture(autouse=True)
def naps(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Waiting turns a clock and takes no time; what was waited is returned."""
    monkeypatch.setenv("KEY", SECRET)
    return turn_clock(monkeypatch)


def judged(
    server: RawServer, timeout: float = 600.0, retries: int = 1, **options: Any
) -> tuple[Verdict, EndpointJudge]:
    judge = EndpointJudge(
        model="m", base_url=server.url, api_key_env="KEY", timeout=timeout, retries=retries, **options
    )
    [[verdict]] = asyncio.run(judge.judge([ASKED]))
    return verdict, judge


def replied(server: RawServer, count: int = 1, timeout: float = 600.0) -> list[Reply]:
    policy = EndpointPolicy(server.url, "m", api_key_env="KEY", timeout=timeout, concurrency=1)
    return replies_of(policy, [Item(str(i), ({"role": "user", "content": f"hi {i}"},)) for i in range(count)])


def replies_of(policy: EndpointPolicy, items: list[Item]) -> list[Reply]:
    async def go() -> list[Reply]:
        wanted = {item.key for item in items}
        return [reply async for batch in policy.replies(items, wanted, Generation(16)) for _, reply in batch]

    return asyncio.run(go())


def error(code: Any, message: str = "the upstream said no", **more: Any) -> dict[str, Any]:
    return {"error": {"code": code, "message": message, **more}}


def deep(levels: int) -> bytes:
    return b'{"choices": ' + b"[" * levels + b"]" * levels + b"}"


BROKEN_OFF = {
    f"finish {json.dumps(finish)}, {name}": ok(choice(content, finish, **more))
    for finish in (
        "error",
        "abort",
        "cancelled",
        "timeout",
        "unknown",
        "",
        {"type": "abort", "message": "out of memory"},
    )
    for name, content, more in (("text", "Let me", {}), ("verdict", '{"criteria_met": true}', {}))
} | {
    "an error in the choice": ok(choice("", "stop", error={"code": 502, "message": "upstream"})),
    "an error in the choice beside text": ok(choice(finish="error", error={"code": 502, "message": "upstream"})),
    "an error in the choice as text": ok(choice("Let me", "stop", error="upstream")),
    "an error in the message": ok(choice("Let me", "stop", message_error={"message": "upstream"})),
    "null content": ok(choice(None)),
    "null content, no finish": ok(choice(None, None)),
    "empty content, no finish": ok(choice("", None)),
    "text, and a finish that is null": ok(choice("Let me", None)),
    "verdict, and a finish that is null": ok(choice(finish=None)),
}

ERRORS_WITHIN = {
    "code 500": ok(error(500)),
    "code 502 as text": ok(error("502")),
    "code 503": ok(error(503)),
    "no code": ok({"error": {"message": "boom"}}),
    "a text": ok({"error": "boom"}),
    "type overloaded_error": ok({"type": "error", "error": {"type": "overloaded_error", "message": "busy"}}),
    "type server_error": ok(error(None, type="server_error")),
    "null choices beside an error": ok({"choices": None, **error(504)}),
    "a list": ok({"error": ["boom"]}),
    "beside a reply": ok({**choice(), **error(500)}),
    "within an error": ok({"error": error(500)}),
    "a list around it": ok([error(503)]),
    "vLLM's": ok({"object": "error", "message": "boom", "type": "InternalServerError", "code": 500}),
    "errors": ok({"success": False, "errors": [{"code": 7003, "message": "no route"}]}),
    "in a detail": ok({"detail": {"status_code": 503, "message": "busy"}}),
    "MiniMax's": ok({"choices": None, "base_resp": {"status_code": 529, "status_msg": "overloaded"}}),
}

NO_COMPLETION = {
    "an HTML page": http(200, b"<html><body>502 Bad Gateway</body></html>", "content-type: text/html"),
    "an empty body": http(200, b""),
    "spaces": http(200, b"   \r\n"),
    "null": http(200, b"null"),
    "a number": http(200, b"7"),
    "a list": http(200, b"[]"),
    "a text": http(200, b'"hello"'),
    "no choices": ok({"id": "x"}),
    "empty choices": ok({"choices": []}),
    "choices as text": ok({"choices": "stop"}),
    "a choice as text": ok({"choices": ["stop"]}),
    "no message": ok({"choices": [{"index": 0, "finish_reason": "stop"}]}),
    "message as text": ok({"choices": [{"message": "hi", "finish_reason": "stop"}]}),
    "content as number": ok(choice(5)),
    "content as object": ok(choice({"text": "hi"})),
    "content with a picture": ok(choice([{"type": "image_url", "image_url": {"url": "x"}}])),
    "content with a number in it": ok(choice([{"type": "text", "text": 5}])),
    "cut off": http(200, FOUND[: len(FOUND) // 2]),
    "a stream of events": http(200, b"data: " + FOUND + b"\n\ndata: [DONE]\n\n", "content-type: text/event-stream"),
    "no UTF-8": http(200, b"\xff\xfe\xfa" * 10),
    "UTF-16": http(200, json.dumps(choice()).encode("utf-16")),
    "NaN everywhere": http(200, b'{"choices": NaN}'),
    "deep": http(200, deep(100_000)),
    "long numbers": http(200, b'{"choices": [' + b"9" * 10_000 + b"]}"),
    "a zip of something else": http(200, b"\x1f\x8bnothing", "content-encoding: gzip"),
    "an unknown packing": http(200, FOUND, "content-encoding: br"),
    "a damaged zip": http(200, gzip.compress(FOUND)[:-20] + b"\0" * 40, "content-encoding: gzip"),
    "calls that are no list": ok(choice("x", "tool_calls", message_tool_calls=7)),
}

NO_HTTP = {
    "a bad status line": b"HTP/9 hello\r\n\r\n",
    "a status in words": b"HTTP/1.1 OK OK\r\ncontent-length: 2\r\n\r\n{}",
    "no status line": b"\r\n\r\n",
    "SSH": b"SSH-2.0-OpenSSH_9.6\r\n",
    "TLS": b"\x15\x03\x01\x00\x02\x02\x28",
    "a huge header": b"HTTP/1.1 200 OK\r\nx: " + b"a" * 100_000 + b"\r\ncontent-length: 2\r\n\r\n{}",
    "many headers": b"HTTP/1.1 200 OK\r\n" + b"x: y\r\n" * 20_000 + b"content-length: 2\r\n\r\n{}",
    "a header without a colon": b"HTTP/1.1 200 OK\r\nnothing here\r\ncontent-length: 2\r\n\r\n{}",
    "a header with a zero": b"HTTP/1.1 200 OK\r\nx: a\0b\r\ncontent-length: 2\r\n\r\n{}",
    "two lengths": b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\ncontent-length: 30\r\n\r\n{}",
    "a negative length": b"HTTP/1.1 200 OK\r\ncontent-length: -2\r\n\r\n{}",
    "a length in words": b"HTTP/1.1 200 OK\r\ncontent-length: two\r\n\r\n{}",
    "a chunk of no size": b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n{}\r\n0\r\n\r\n",
    "an echoed key in the head": b"HTTP/1.1 200 OK " + SECRET.encode() + b"\r\n" + SECRET.encode() + b"\r\n\r\n",
    "less than promised": http(200, FOUND, length=len(FOUND) + 100),
    "nothing": None,
}

STATUSES = {
    **{str(status): http(status, b"<html>no</html>") for status in (408, 409, 425, 500, 502, 503, 504, 520, 529)},
    "429": http(429, b"slow down"),
    "500 with a body of bytes": http(500, bytes(range(256))),
    "204": http(204, b""),
    "400": http(400, b'{"error": "bad"}'),
    "403": http(403, b"moderated"),
    "413": http(413, b"too large"),
    "301": http(301, b"", "location: http://127.0.0.2:1/v1/chat/completions"),
    "307 elsewhere": http(307, b"", "location: https://elsewhere.invalid/v1/chat/completions"),
    "307 without a place": http(307, b""),
    "307 in a circle": http(307, b"", "location: /v1/chat/completions"),
    "308 to a broken address": http(308, b"", "location: http://[/"),
    "308 with a password": http(308, b"", "location: http://a:b@127.0.0.1/v1"),
}

MODES = BROKEN_OFF | ERRORS_WITHIN | NO_COMPLETION | NO_HTTP | STATUSES


def test_there_are_many_modes():
    assert len(MODES) >= 80


@pytest.mark.parametrize("mode", MODES)
def test_what_is_no_reply_is_missing(mode: str, caplog: pytest.LogCaptureFixture):
    caplog.set_level(logging.DEBUG)
    with RawServer(lambda request, number: MODES[mode]) as server:
        verdict, judge = judged(server)
        assert verdict.value is None
        assert verdict.reason in REASONS
        [reply] = replied(server)
        assert reply.text is None
        assert reply.reason in REASONS
        for told in (verdict, reply, vars(judge), judge.usage(), caplog.text):
            assert SECRET not in str(told)
        assert "\x1b" not in str(verdict.detail)
        if mode in {**ERRORS_WITHIN, **STATUSES}:
            assert judge.usage()["calls"] == 0, "nothing of it was paid for"


@pytest.mark.parametrize("mode", [*BROKEN_OFF, "code 500", "no code", "an HTML page", "a bad status line", "nothing"])
def test_after_such_a_failure_the_next_attempt_counts(mode: str):
    with RawServer(lambda request, number: MODES[mode] if number == 1 else GOOD) as server:
        assert judged(server)[0] == Verdict(1.0)
    with RawServer(lambda request, number: MODES[mode] if number == 1 else ok(choice("yes"))) as server:
        assert replied(server)[0].text == "yes"


# --- bounds


def endless(head: bytes, part: bytes) -> Any:
    async def parts() -> AsyncIterator[bytes]:
        yield head
        for _ in itertools.count():
            yield part

    return parts()


BOMB = zlib.compressobj(9, zlib.DEFLATED, 31)
BOMB_BYTES = b"".join([BOMB.compress(b"[" * (1 << 20)) for _ in range(200)]) + BOMB.flush()
DEFLATED_BOMB = zlib.compress(b" " * (64 << 20), 9)
CHUNKED = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n"
ENDLESS = {
    "spaces": lambda: endless(
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n", b"1000\r\n" + b" " * 4096 + b"\r\n"
    ),
    "a text": lambda: endless(b'HTTP/1.1 200 OK\r\n\r\n{"choices": "', b"a" * 65_536),
    "an error": lambda: endless(b"HTTP/1.1 500 No\r\n\r\n", b"a" * 65_536),
    "headers": lambda: endless(b"HTTP/1.1 200 OK\r\n", b"x: " + b"y" * 1000 + b"\r\n"),
    "one header": lambda: endless(b"HTTP/1.1 200 OK\r\nx: ", b"y" * 1000),
    "a status line": lambda: endless(b"HTTP/1.1 200 ", b"OK" * 1000),
    "a zip": lambda: http(200, BOMB_BYTES, "content-encoding: gzip"),
    "a deflated zip": lambda: http(200, DEFLATED_BOMB, "content-encoding: deflate"),
}


@pytest.mark.parametrize("mode", ENDLESS)
def test_no_more_than_a_megabyte_is_taken(mode: str):
    with RawServer(lambda request, number: ENDLESS[mode]()) as server:
        assert judged(server, retries=0)[0].value is None
        assert server.sent < MAX_BYTES + (16 << 20), "what lies in the buffers of both sides"


def test_a_body_that_comes_byte_by_byte_ends_with_the_timeout():
    async def drip() -> AsyncIterator[bytes]:
        yield b"HTTP/1.1 200 OK\r\n\r\n"
        while True:
            yield b" "
            await asyncio.sleep(0.01)

    with RawServer(lambda request, number: drip()) as server:
        assert judged(server, timeout=0.5, retries=0)[0].reason == "timeout"


# --- what is a reply, though it looks strange

PACKED = gzip.compress(FOUND)
THOUGHT = {"type": "thinking", "thinking": [{"type": "text", "text": "hm"}]}
REPLIES = {
    "plain": GOOD,
    "zipped": http(200, PACKED, "content-encoding: gzip"),
    "deflated": http(200, zlib.compress(FOUND), "content-encoding: deflate"),
    "raw deflated": http(200, zlib.compress(FOUND)[2:-4], "content-encoding: deflate"),
    "no finish": ok({"choices": [{"index": 0, "message": {"role": "assistant", "content": '{"criteria_met": true}'}}]}),
    "eos": ok(choice(finish="eos_token")),
    "STOP": ok(choice(finish="STOP")),
    "finish as an object": ok(choice(finish={"type": "stop", "matched": 2})),
    "content in parts": ok(choice([{"type": "text", "text": '{"criteria_met":'}, {"type": "text", "text": " true}"}])),
    "a thought before it": ok(choice([THOUGHT, {"type": "text", "text": '{"criteria_met": true}'}])),
    "reasoning beside it": ok(choice(message_reasoning_content="hm")),
    "an error that is null": ok({**choice(), "error": None}),
    "no usage": ok({"choices": choice()["choices"]}),
    "usage that is wrong": ok({**choice(), "usage": {"prompt_tokens": "many", "completion_tokens": -1}}),
    "a redirect to a slash": None,
}


@pytest.mark.parametrize("mode", REPLIES)
def test_a_reply_is_read_however_it_is_dressed(mode: str):
    def answer(request: dict[str, Any], number: int) -> bytes:
        if mode == "a redirect to a slash":
            return http(307, b"", "location: /v1/chat/completions/") if number % 2 else GOOD
        return REPLIES[mode]

    with RawServer(answer) as server:
        assert judged(server, retries=0)[0] == Verdict(1.0)
        [reply] = replied(server)
        assert "criteria_met" in (reply.text or "")


@pytest.mark.parametrize(
    ("arguments", "read"),
    [({"a": 1}, '{"a": 1}'), (None, "{}"), ("", "{}"), ('{"a": 1}', '{"a": 1}'), ([1], "[1]"), (..., "{}")],
)
def test_arguments_of_tool_calls(arguments: Any, read: str):
    function = {"name": "f"} if arguments is ... else {"name": "f", "arguments": arguments}
    with RawServer(lambda *_: ok(choice(None, "tool_calls", message_tool_calls=[{"function": function}]))) as server:
        [reply] = replied(server)
    assert reply.calls == ({"name": "f", "arguments": read},)


# --- what ends a command


@pytest.mark.parametrize(
    "answer",
    [
        http(401, b"no"),
        http(402, b"pay"),
        ok(error(401)),
        ok(error("402")),
        ok(error("invalid_api_key")),
        ok(error(429, "insufficient_quota: pay first")),
        http(429, b"insufficient_quota"),
        ok({"object": "error", "message": "no", "code": 401}),
        ok([error(401)]),
        ok({"error": error("401")}),
        ok({"error": "Incorrect API key provided"}),
        ok({"detail": "Unauthorized"}),
        ok({"error": {"status": "UNAUTHENTICATED"}}),
        ok({"error": {"message": "Insufficient balance"}}),
        http(400, json.dumps([error(400, "API key not valid. Please pass a valid API key.")]).encode()),
        http(500, json.dumps({"error": {"type": "authentication_error"}}).encode()),
    ],
)
def test_a_key_that_is_refused_ends_an_evaluation_and_is_told_by_a_judge(answer: bytes):
    with RawServer(lambda request, number: answer) as server:
        with pytest.raises(ModelError, match="the same command continues from here"):
            replied(server, 3)
        assert len(server.requests) == 1
        verdict, judge = judged(server)
        assert (verdict.value, verdict.reason) == (None, "rejected")
        assert judge.refusal == verdict.detail
        with pytest.raises(JudgeError):
            asyncio.run(judge.check())


@pytest.mark.parametrize("mode", ["a bad status line", "code 500", "an HTML page", "500"])
def test_sixteen_failures_in_a_row_end_an_evaluation(mode: str):
    told = pytest.raises(ModelError, match="no reply to 16 items in a row")
    with RawServer(lambda request, number: MODES[mode]) as server, told:
        replied(server, 20)
    with RawServer(lambda request, number: ok(choice("yes")) if number % 60 == 0 else MODES[mode]) as server:
        replies = replied(server, 20)
    assert [reply.text for reply in replies].count("yes") == 2


def test_a_429_within_a_200_pauses_everybody(naps: list[float]):
    others = ({"error": "Rate limit reached"}, {"code": "429"}, error("RESOURCE_EXHAUSTED"))
    for told in (error(429, "slow down"), *others):
        naps.clear()
        busy = ok(told, "retry-after: 7")
        with RawServer(lambda request, number, busy=busy: busy if number == 1 else GOOD) as server:
            assert judged(server)[0] == Verdict(1.0)
        assert sum(naps) >= 7.0 - 1e-9  # by the clock, which only naps turn


def test_check_refuses_a_server_that_answers_with_errors():
    broken = (ERRORS_WITHIN["a text"], BROKEN_OFF["null content"], NO_COMPLETION["no choices"])
    for answer in (ok(error(500)), http(200, b"<html>"), http(200, b""), *broken):
        with RawServer(lambda *_, answer=answer: answer, models=http(404, b"none")) as server:
            judge = EndpointJudge(model="m", base_url=server.url, api_key_env="KEY", retries=0)
            with pytest.raises(JudgeError):
                asyncio.run(judge.check())


# --- what servers do not know


def refused(message: str, status: int = 400) -> bytes:
    return http(status, json.dumps({"error": {"message": message}}).encode())


def test_the_other_name_of_the_limit_is_found_out():
    said = "Unsupported parameter: 'max_tokens' is not supported with this model. Use 'max_completion_tokens' instead."
    unknown = "Unrecognized request argument supplied: max_completion_tokens"

    def newer(request: dict[str, Any], number: int) -> bytes:
        return refused(said) if "max_tokens" in request else GOOD

    def older(request: dict[str, Any], number: int) -> bytes:
        return refused(unknown) if "max_completion_tokens" in request else GOOD

    for answer in (newer, older):
        with RawServer(answer) as server:
            limit = {"extra_body": {"max_completion_tokens": 100}} if answer is older else {}
            assert judged(server, retries=0, **limit)[0] == Verdict(1.0)
    with RawServer(newer) as server:
        assert [reply.text is None for reply in replied(server, 3)] == [False] * 3
        assert len(server.requests) == 4, "it is found out once"


def test_a_value_of_the_limit_that_is_refused_stays_refused():
    with RawServer(lambda *_: refused("max_tokens must be at most 100")) as server:
        assert judged(server, retries=0)[0].reason == "rejected"
        assert len(server.requests) == 1


@pytest.mark.parametrize("status", [400, 500])
@pytest.mark.parametrize("said", ["System role not supported", "the chat template knows no system message: role"])
def test_a_server_without_a_system_role_is_asked_in_the_users(status: int, said: str):
    def answer(request: dict[str, Any], number: int) -> bytes:
        roles = [message["role"] for message in request["messages"]]
        return refused(said, status) if "system" in roles else GOOD

    with RawServer(answer) as server:
        assert judged(server, retries=0)[0] == Verdict(1.0)
        first, second = server.requests
    [merged] = second["messages"]
    assert merged["content"] == "\n\n".join(message["content"] for message in first["messages"])


def test_a_server_that_is_known_to_have_no_system_role_is_never_sent_one():
    with RawServer(lambda *_: GOOD) as server:
        assert judged(server, system_role=False)[0] == Verdict(1.0)
        policy = EndpointPolicy(server.url, "m", api_key_env="KEY", system_role=False)
        assert policy.identity()["system_role"] is False
        item = Item("1", ({"role": "system", "content": "Be brief."}, {"role": "user", "content": "hi"}))
        replies_of(policy, [item])
    assert [[message["role"] for message in request["messages"]] for request in server.requests] == [["user"]] * 2
    assert server.requests[1]["messages"][0]["content"] == "Be brief.\n\nhi"


def test_five_log_probabilities_are_enough():
    top = [{"token": token, "logprob": -1.0} for token in ("yes", "no")]
    answered = choice("yes", logprobs={"content": [{"token": "yes", "logprob": -1.0, "top_logprobs": top}]})

    def answer(request: dict[str, Any], number: int) -> bytes:
        return refused("top_logprobs must be between 0 and 5") if request["top_logprobs"] > 5 else ok(answered)

    with RawServer(answer) as server:
        assert judged(server, retries=0, verdict="probability")[0] == Verdict(0.5)


@pytest.mark.parametrize("status", [400, 404, 422, 500, 501, 200])
def test_a_form_of_answer_that_the_server_cannot_is_given_up(status: int):
    """With 200 the server answers, but the schema leaves nothing of the answer."""

    def answer(request: dict[str, Any], number: int) -> bytes:
        if request.get("response_format", {}).get("type") != "json_schema":
            return GOOD
        if status == 200:
            return ok(choice(""))
        return refused("response_format is not supported" if status in (400, 422) else "oops", status)

    with RawServer(answer) as server:
        judge = EndpointJudge(model="m", base_url=server.url, api_key_env="KEY", retries=3)
        other = Question("What is it?", "A dog.", ASKED.criteria)
        for question in (ASKED, other):
            [[verdict]] = asyncio.run(judge.judge([question]))
            assert verdict == Verdict(1.0)
        forms = [request["response_format"]["type"] for request in server.requests]
    assert forms[-2:] == ["json_object", "json_object"]


def test_a_chance_failure_does_not_give_the_form_up():
    with RawServer(lambda request, number: refused("oops", 500) if number in (2, 3) else GOOD) as server:
        judge = EndpointJudge(model="m", base_url=server.url, api_key_env="KEY", retries=3)
        for completion in ("A cat.", "A dog.", "A cow."):
            asyncio.run(judge.judge([Question("What is it?", completion, ASKED.criteria)]))
        assert {request["response_format"]["type"] for request in server.requests} == {"json_schema"}


@pytest.mark.parametrize(
    "answer",
    [choice("", "length"), choice(None, "length"), choice(None, "stop", message_reasoning_content="hm, let me see"),
     choice([{"type": "thinking", "thinking": "hm"}], "length")],
)  # fmt: skip
def test_thoughts_that_ate_the_budget_say_what_to_do(answer: dict[str, Any]):
    with RawServer(lambda *_: ok(answer)) as server:
        verdict, _ = judged(server, retries=0)
    assert verdict.reason == "malformed"
    assert "raise max_output_tokens" in str(verdict.detail)


@pytest.mark.parametrize(
    "said",
    [
        "the request exceeds the available context size (4096 tokens), try increasing it",  # llama.cpp
        "Input validation error: `inputs` must have less than 4096 tokens. Given: 5000",  # TGI
        "Input validation error: `inputs` tokens + `max_new_tokens` must be <= 4096",
        "This model's maximum context length is 4096 tokens. Please reduce the length of the input",  # vLLM
        "The decoder prompt (length 5000) is longer than the maximum model length of 4096",
        "Input length (5000 tokens) exceeds the maximum allowed length (4090 tokens)",  # SGLang
        "prompt is too long: 300000 tokens > 200000 maximum",
    ],
)
@pytest.mark.parametrize("status", [400, 413, 422, 500])
def test_a_prompt_that_is_too_long_is_called_so(said: str, status: int):
    with RawServer(lambda *_: refused(said, status)) as server:
        assert judged(server, retries=0)[0].reason == "too_long"


def test_a_malformed_answer_is_shown():
    with RawServer(lambda *_: ok(choice("I think \x1b[31m\nyes" + "!" * 1000))) as server:
        verdict, _ = judged(server, retries=0)
    assert "I think \\x1b[31m\\nyes" in str(verdict.detail)
    assert len(str(verdict.detail)) < 400


# --- keys


@pytest.mark.parametrize(
    "form", ["plain", "quoted", "base64", "within base64", "urlsafe base64", "escaped", "slashes", "hex", "unicode"]
)
def test_a_key_that_a_server_repeats_is_taken_out(form: str):
    import base64
    from urllib.parse import quote

    shown = {
        "plain": SECRET,
        "quoted": quote(SECRET, safe=""),
        "base64": base64.b64encode(SECRET.encode()).decode(),
        "within base64": base64.b64encode(f"Bearer {SECRET}, and more".encode()).decode(),
        "urlsafe base64": base64.urlsafe_b64encode(f"user:{SECRET}".encode()).decode(),
        "escaped": json.dumps(SECRET)[1:-1],
        "slashes": SECRET.replace("/", "\\/"),
        "hex": SECRET.encode().hex(),
        "unicode": "".join(f"\\u{ord(sign):04x}" for sign in SECRET),
    }[form]
    core = shown[12:-12]
    for answer in (http(500, shown.encode()), ok(error(500, shown)), ok(choice(shown)), ok({"message": shown})):
        with RawServer(lambda *_, answer=answer: answer) as server:
            verdict, _ = judged(server, retries=0)
            assert "***" in str(verdict.detail)
            assert core not in str(verdict.detail)
    with RawServer(lambda *_: ok(choice(shown))) as server:
        [reply] = replied(server)
        assert core not in str(reply)


def test_an_explanation_that_repeats_the_key_is_not_kept(tmp_path: Any):
    told = json.dumps({"explanation": f"you sent {SECRET}", "criteria_met": True})
    with RawServer(lambda *_: ok(choice(told))) as server:
        verdict, _ = judged(server, explain=True, cache=str(tmp_path / "cache.sqlite"))
    assert verdict == Verdict(1.0, None, "you sent ***")
    assert not [path for path in tmp_path.iterdir() if SECRET.encode() in path.read_bytes()]


@pytest.mark.parametrize(
    "url",
    ["http://[", "ftp://host/v1", SECRET, f"http://user:{SECRET}@host/v1", f"http://user:{SECRET}@[", "http://h:x/v1"],
)
def test_a_url_that_is_none_is_refused_without_the_key(url: str):
    from rvpo.errors import ConfigError

    for build in (lambda: EndpointJudge(model="m", base_url=url), lambda: EndpointPolicy(url, "m")):
        with pytest.raises(ConfigError) as caught:
            build()
        assert SECRET not in str(caught.value)


def test_the_key_goes_to_no_other_server():
    with RawServer(lambda *_: GOOD) as other:
        elsewhere = http(307, b"", f"location: {other.url.replace('127.0.0.1', 'localhost')}/chat/completions")
        with RawServer(lambda *_: elsewhere) as server:
            assert judged(server, retries=0)[0].value is None
        assert not other.heads
