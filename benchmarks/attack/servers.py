"""Put a judge and an evaluation in front of a server that fails in every way; count what came out of it.

::

    python benchmarks/attack/servers.py [--timeout 3] [--in-flight 64]

The ways to fail are those of ``tests/judges/test_hostile_servers.py``. Each is asked by a judge and by an evaluation.
Those of endless size are also asked ``--in-flight`` times at once. The servers run in a process of their own, so that
the memory is that of the client alone.
"""

from __future__ import annotations

import argparse
import asyncio
import logging
import multiprocessing
import os
import resource
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

from rvpo.evals.endpoint import EndpointPolicy
from rvpo.evals.items import Generation, Item
from rvpo.judges.endpoint import EndpointJudge
from rvpo.net import limits
from rvpo.rewards.rubric.criteria import Criterion
from rvpo.rewards.rubric.verdict import Question

CRITERION = Criterion("a", "Is it a cat?")


def serve(pipe: Any) -> None:
    """Serve each way to fail on a port of its own, until the parent hangs up."""
    sys.path[:0] = [str(Path(__file__).parents[2] / "tests" / name) for name in (".", "judges")]
    import test_hostile_servers as known

    from raw_server import RawServer

    servers: dict[str, RawServer] = {}
    for name, answer in known.MODES.items():
        servers[name] = RawServer(lambda *_, answer=answer: answer)
    for name, make in known.ENDLESS.items():
        servers[f"endless {name}"] = RawServer(lambda *_, make=make: make())
    for server in servers.values():
        server.__enter__()
    pipe.send((known.SECRET, {name: server.url for name, server in servers.items()}))
    pipe.recv()
    os._exit(0)


def megabytes() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


async def attack(url: str, timeout: float, times: int) -> list[Any]:
    """Return the verdicts of a judge and the replies of an evaluation."""
    judge = EndpointJudge(model="m", base_url=url, api_key_env="ATTACKED_KEY", timeout=timeout, retries=1)
    verdicts = await judge.judge([Question("What is it?", f"A cat, {i}.", (CRITERION,)) for i in range(times)])
    policy = EndpointPolicy(url, "m", api_key_env="ATTACKED_KEY", timeout=timeout, concurrency=times)
    items = [Item(str(i), ({"role": "user", "content": f"hi {i}"},)) for i in range(times)]
    told: list[Any] = [verdict for row in verdicts for verdict in row]
    try:
        async for batch in policy.replies(items, {item.key for item in items}, Generation(16)):
            told += [reply for _, reply in batch]
    except Exception as error:  # 16 failures in a row end an evaluation
        told.append(error)
    return told


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--timeout", type=float, default=3.0)
    parser.add_argument("--in-flight", type=int, default=64)
    options = parser.parse_args()

    ours, theirs = multiprocessing.get_context("spawn").Pipe()
    process = multiprocessing.get_context("spawn").Process(target=serve, args=(theirs,), daemon=True)
    process.start()
    secret, urls = ours.recv()
    os.environ["ATTACKED_KEY"] = secret

    logged: list[str] = []
    handler = logging.StreamHandler()
    handler.emit = lambda record: logged.append(handler.format(record))  # type: ignore[method-assign]
    logging.basicConfig(level=logging.DEBUG, handlers=[handler], force=True)

    async def no_wait(seconds: float) -> None:
        await asyncio.sleep(0)

    limits.sleep = no_wait  # between attempts
    before = megabytes()
    counts: Counter[str] = Counter()
    longest = 0.0
    for name, url in urls.items():
        for times in (1, options.in_flight) if name.startswith("endless") else (1,):
            start = time.monotonic()
            told = asyncio.run(attack(url, options.timeout, times))
            took = time.monotonic() - start
            longest = max(longest, took)
            # two attempts of the judge and those of the evaluation, each with its timeout
            values = [getattr(answer, "value", None) or getattr(answer, "text", None) for answer in told]
            counts["asked"] += len(told)
            counts["verdicts or replies from a failure"] += sum(value is not None for value in values)
            shown = [repr(answer) + str(answer) for answer in told] + logged
            counts["keys shown"] += sum(secret in text for text in shown)
            logged.clear()
            print(f"{name}, {times} at once: {took:.1f} s, {megabytes():.0f} MB", flush=True)
    ours.send("end")
    print(f"\n{len(urls)} ways to fail, timeout {options.timeout:g} s")
    for key, count in counts.items():
        print(f"{key}: {count}")
    print(f"longest: {longest:.1f} s; peak memory {megabytes():.0f} MB, of which {before:.0f} MB before the first call")


if __name__ == "__main__":
    main()
