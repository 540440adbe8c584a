"""A model behind a server: what is asked of it, what its failures become, and a run that is killed and goes on."""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

import rvpo
from fault_server import FaultServer
from rvpo.cli.eval import _mapping
from rvpo.errors import ConfigError, ModelError
from rvpo.evals.endpoint import EndpointPolicy
from rvpo.evals.items import Generation, Item, Reply
from rvpo.evals.models import load_policy
from rvpo.judges.transport import Chat, ServerReply
from rvpo.net import limits

TOOL = {"type": "function", "function": {"name": "get_weather", "description": "", "parameters": {"type": "object"}}}
ITEMS = [Item(f"q{i}", ({"role": "user", "content": f"question {i}"},)) for i in range(12)]
GENERATION = Generation(max_tokens=32, temperature=0.5, seed=7)


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Waits between attempts take no time."""

    async def no_wait(seconds: float) -> None:
        await asyncio.sleep(0)

    monkeypatch.setattr(limits, "sleep", no_wait)


def replies(policy: Any, items: Sequence[Item] = ITEMS, generation: Generation = GENERATION) -> dict[str, Reply]:
    async def collect() -> dict[str, Reply]:
        keys = frozenset(item.key for item in items)
        return {item.id: r async for batch in policy.replies(items, keys, generation) for item, r in batch}

    return asyncio.run(collect())


def test_the_request_says_all_that_decides_the_reply():
    with FaultServer() as server:
        policy = load_policy(f"{server.url}#{server.model}", extra_body={"top_k": 5})
        found = replies(
            policy, [ITEMS[0], Item("q0", ITEMS[0].messages, epoch=1), Item("t", ITEMS[0].messages, tools=(TOOL,))]
        )
        first, second, with_tools = sorted(server.requests, key=lambda body: ("tools" in body, body["seed"]))
    assert first["messages"] == [{"role": "user", "content": "question 0"}]
    assert (first["max_tokens"], first["temperature"], first["top_p"], first["top_k"]) == (32, 0.5, 1.0, 5)
    assert first["seed"] != second["seed"]  # epochs differ
    with FaultServer() as server:
        replies(EndpointPolicy(server.url, server.model), ITEMS[:1], Generation(max_tokens=32, temperature=0.5))
        replies(EndpointPolicy(server.url, server.model), ITEMS[:1], Generation(max_tokens=32, seed=3))
        assert not any("seed" in body for body in server.requests)  # none given, and none needed
    assert "tools" not in first
    assert with_tools["tools"] == [TOOL]
    assert found["t"].text is not None
    assert found["t"].completion_tokens == 8


@pytest.mark.usefixtures("quick")
def test_faults_are_tried_again_and_change_nothing():
    with FaultServer() as clean, FaultServer(fault_rate=0.4, faults=("429", "500", "drop", "garbage")) as server:
        expected = replies(EndpointPolicy(clean.url, clean.model))
        assert replies(EndpointPolicy(server.url, server.model)) == expected
        assert server.faults_sent.total() > 0


@pytest.mark.usefixtures("quick")
def test_what_cannot_be_had_is_missing_with_its_reason():
    with FaultServer(fault_rate=1.0, faults=("500",)) as server:
        assert {reply.reason for reply in replies(EndpointPolicy(server.url, server.model)).values()} == {"server"}
    with FaultServer(context=5) as server:
        found = replies(EndpointPolicy(server.url, server.model))
        assert {reply.reason for reply in found.values()} == {"too_long"}
        assert len(server.requests) == len(ITEMS)  # asked once each: no retry would help
    with FaultServer(fault_rate=1.0, faults=("refusal",)) as server:  # the model's own choice is a reply, and none else
        found = replies(EndpointPolicy(server.url, server.model))
        assert {(reply.text, reply.reason, reply.finish) for reply in found.values()} == {("", None, "refused")}


def test_no_text_is_a_reply(monkeypatch: pytest.MonkeyPatch):
    """As of a model that thinks, in a part of its own, until it is cut off: it has not answered, so it is wrong."""

    async def silent(self: Chat, body: Any) -> ServerReply:
        return ServerReply(None, False, None, 10, 0, 32, finish="length")

    monkeypatch.setattr(Chat, "complete", silent)
    found = replies(EndpointPolicy("http://127.0.0.1:9/v1", "m"))
    assert {(reply.text, reply.reason, reply.finish) for reply in found.values()} == {("", None, "length")}


def test_further_fields_of_a_request_are_known_by_their_digest_alone(capsys: pytest.CaptureFixture[str]):
    with FaultServer() as server:
        spec = f"{server.url}#{server.model}"
        identities = [load_policy(spec, extra_body=extra).identity() for extra in ({"key": "sk-secret"}, {"key": "b"})]
    assert "sk-secret" not in json.dumps(identities)
    assert identities[0] != identities[1]
    with pytest.raises(ConfigError, match="--extra-body is not JSON") as caught:
        _mapping("{'key': 'sk-secret'}")
    assert "sk-secret" not in str(caught.value)


def test_a_server_or_model_that_is_not_there_is_told_at_once(monkeypatch: pytest.MonkeyPatch):
    with pytest.raises(ConfigError, match="a server without a model; expected http://host:port/v1#MODEL"):
        load_policy("http://localhost:1/v1")
    with pytest.raises(ConfigError, match="base_url contains a user, password or query"):
        load_policy("http://me:secret@localhost:1/v1#m")
    with pytest.raises(ModelError, match=r"no model at http://127\.0\.0\.1:9/v1: "):
        load_policy("http://127.0.0.1:9/v1#m").identity()
    monkeypatch.setenv("OPENAI_API_KEY", "sk-very-secret")
    with FaultServer(key="another") as server:
        with pytest.raises(ModelError, match="does not accept the key") as caught:
            load_policy(f"{server.url}#{server.model}").identity()
        assert "secret" not in str(caught.value)
    with FaultServer() as server, pytest.raises(ModelError, match=r"no model 'other'; expected one of fault-model"):
        load_policy(f"{server.url}#other").identity()


def test_in_flight_is_bounded():
    with FaultServer(latency=0.05) as server:
        replies(EndpointPolicy(server.url, server.model, concurrency=3))
        assert server.max_in_flight == 3


def command(url: str, model: str, data: Path, out: Path) -> list[str]:
    line = "from rvpo.cli.app import main; main()"
    return [
        sys.executable, "-c", line, "eval", "toolcall", f"{url}#{model}", "--data", str(data), "--out", str(out),
        "--concurrency", "2",
    ]  # fmt: skip


def test_a_killed_run_goes_on_and_ends_as_if_it_had_not_been_killed(tmp_path: Path):
    data = tmp_path / "heldout.jsonl"
    answer = "<think> so </think>\n<response> yes </response>"
    lines = [{"prompt": f"call tool {i}", "answer": answer} for i in range(30)]
    data.write_text("".join(json.dumps(line) + "\n" for line in lines))
    environment = os.environ | {"PYTHONPATH": str(Path(rvpo.__file__).parents[1]), "OPENAI_API_KEY": ""}
    with FaultServer() as server:
        server.hold_after = 10
        killed = subprocess.Popen(
            command(server.url, server.model, data, tmp_path / "run"),
            env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        deadline = time.monotonic() + 900
        while server.in_flight < 2 or server.answered.total() < 10:
            assert killed.poll() is None, "the run ended before it could be killed"
            assert time.monotonic() < deadline
            time.sleep(0.02)
        time.sleep(0.5)  # the tenth reply is on its way to the disk
        killed.send_signal(signal.SIGKILL)
        killed.wait()
        while server.in_flight:  # held back, and nobody waits for them any more
            assert time.monotonic() < deadline
            time.sleep(0.02)
        server.hold_after = float("inf")
        done = subprocess.run(
            command(server.url, server.model, data, tmp_path / "run"),
            env=environment, capture_output=True, text=True, check=False, timeout=900,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        assert max(server.answered.values()) == 1  # no item was answered, and so paid for, twice
        assert server.answered.total() == 30
        whole = subprocess.run(
            command(server.url, server.model, data, tmp_path / "whole"),
            env=environment, capture_output=True, text=True, check=False, timeout=900,
        )  # fmt: skip
        assert whole.returncode == 0, whole.stderr
    assert "format" in done.stdout
    run, uninterrupted = (json.loads((tmp_path / name / "results.json").read_text()) for name in ("run", "whole"))
    for result in (run, uninterrupted):
        result.pop("seconds_of_last_call")
    assert run == uninterrupted
    assert pq.read_table(tmp_path / "run" / "items.parquet").equals(pq.read_table(tmp_path / "whole" / "items.parquet"))


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (
            ["eval", "gpqa", "m", "--data", "x.csv"],
            "No module named 'scipy'.*pip install -c constraints.txt -e '.\\[eval\\]'",
        ),
        (["eval", "compare", "a", "b"], "No module named 'scipy'.*the extra eval"),
    ],
)
def test_an_environment_without_the_extra_is_told_what_to_install(words: list[str], told: str):
    code = f"""
import sys

class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == "scipy":
            raise ModuleNotFoundError("No module named 'scipy'")

sys.meta_path.insert(0, Blocked())
sys.argv[1:] = {words!r}
from rvpo.cli.app import main
main()
"""
    environment = os.environ | {"PYTHONPATH": str(Path(rvpo.__file__).parents[1])}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
    assert re.search(told, done.stderr, re.DOTALL)
