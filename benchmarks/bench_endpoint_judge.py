"""Verdicts per second through EndpointJudge against a bare load generator that saturates the same server, in one run.

Both arms send the same kind of requests with as many in flight: the judge through its client, cache on disk, limits and
parser; the bare arm writes bodies encoded beforehand to raw sockets and only reads the responses' lengths. Every block
judges completions that the server never saw, of equal length in words, so that neither arm profits from the other's
prefixes; the criteria of one completion share theirs in both. Blocks alternate, and so does who begins.

    python benchmarks/bench_endpoint_judge.py --url http://localhost:8000/v1 --model Qwen/Qwen2.5-0.5B-Instruct

The share of prompt tokens that came from the server's prefix cache is read from a vLLM server's /metrics.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import re
import statistics
import tempfile
import time
import urllib.request
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from rvpo.judges.endpoint import EndpointJudge
from rvpo.rewards.rubric import Criterion, Question

WORDS = ["water", "heat", "valve", "dose", "tablet", "doctor", "report", "answer", "number", "engine", "river", "risk"]
PROMPT = "Explain in plain words how this works, what to look out for, and when to ask somebody who knows more."


def questions(completions: int, criteria: int, words: int, rng: random.Random) -> list[Question]:
    """Completions that were never sent before, each with the same criteria."""
    asked = tuple(Criterion(f"k{i}", f"The reply speaks about {WORDS[i % len(WORDS)]}.") for i in range(criteria))
    texts = [" ".join(rng.choices(WORDS, k=words)) for _ in range(completions)]
    return [Question(PROMPT, text, asked) for text in texts]


async def through_judge(judge: EndpointJudge, batch: list[Question]) -> tuple[float, int]:
    """Return seconds and verdicts that were had."""
    start = time.perf_counter()
    verdicts = await judge.judge(batch)
    return time.perf_counter() - start, sum(v.value is not None for given in verdicts for v in given)


def encoded(judge: EndpointJudge, batch: list[Question], host: str, path: str) -> list[bytes]:
    """Return the HTTP requests that the judge would send."""
    requests = []
    for question in batch:
        for criterion in question.criteria:
            inquiry = judge._inquiry(question, (criterion,))
            body = json.dumps(judge._body(inquiry, judge._forms[judge._form], judge._temperature)).encode()
            head = f"POST {path}/chat/completions HTTP/1.1\r\nhost: {host}\r\ncontent-type: application/json\r\n"
            requests.append(f"{head}content-length: {len(body)}\r\n\r\n".encode() + body)
    return requests


async def bare(requests: list[bytes], host: str, port: int, concurrency: int) -> tuple[float, int]:
    """Return seconds and responses with status 200."""
    queue, good = iter(requests), 0

    async def worker() -> None:
        nonlocal good
        reader, writer = await asyncio.open_connection(host, port)
        for request in queue:
            writer.write(request)
            head = await reader.readuntil(b"\r\n\r\n")
            length = re.search(rb"(?i)content-length: (\d+)", head)
            assert length, "the bare load generator needs responses with a content-length"
            await reader.readexactly(int(length[1]))
            good += head.startswith(b"HTTP/1.1 200")
        writer.close()

    start = time.perf_counter()
    await asyncio.gather(*(worker() for _ in range(concurrency)))
    return time.perf_counter() - start, good


def prefix_cache(url: str) -> tuple[float, float] | None:
    """Return (tokens looked up, tokens found) of a vLLM server so far."""
    parts = urlsplit(url)
    try:
        with urllib.request.urlopen(f"{parts.scheme}://{parts.netloc}/metrics", timeout=5) as response:
            text = response.read().decode()
    except OSError:
        return None
    found = [re.search(rf"(?m)^vllm:prefix_cache_{name}_total\S* (\S+)$", text) for name in ("queries", "hits")]
    return (float(found[0][1]), float(found[1][1])) if found[0] and found[1] else None


async def compare(args: argparse.Namespace, judge: EndpointJudge) -> None:
    parts = urlsplit(args.url)
    host, port = parts.hostname or "", parts.port or 80
    rng = random.Random(args.seed)
    speeds: dict[str, list[float]] = {"judge": [], "bare": []}
    await judge.check()
    for block in range(-1, args.blocks):  # the first of each arm warms up
        for arm in ("judge", "bare") if block % 2 else ("bare", "judge"):
            batch = questions(args.completions, args.criteria, args.words, rng)
            if arm == "judge":
                before = prefix_cache(args.url)
                seconds, count = await through_judge(judge, batch)
                after = prefix_cache(args.url)
                share = (
                    f", {(after[1] - before[1]) / (after[0] - before[0]):.1%} from prefix cache"
                    if before and after
                    else ""
                )
            else:
                requests = encoded(judge, batch, parts.netloc, parts.path.rstrip("/"))
                seconds, count = await bare(requests, host, port, args.concurrency)
                share = ""
            assert count == args.completions * args.criteria or arm == "judge", "the server failed in the bare arm"
            print(
                f"block {block:2d} {arm:5s} {count} in {seconds:6.2f} s = {count / seconds:7.1f} /s{share}", flush=True
            )
            if block >= 0:
                speeds[arm].append(count / seconds)
    report(speeds, judge.usage())


def report(speeds: dict[str, list[float]], usage: dict[str, Any]) -> None:
    ratios = [a / b for a, b in zip(speeds["judge"], speeds["bare"], strict=True)]
    means = {arm: statistics.harmonic_mean(values) for arm, values in speeds.items()}  # equal work in each block
    print(
        f"judge {means['judge']:.1f} verdicts/s, bare {means['bare']:.1f} responses/s: {means['judge'] / means['bare']:.1%}"
    )
    print(f"by pair of blocks: median {statistics.median(ratios):.1%}, {min(ratios):.1%} to {max(ratios):.1%}")
    print({key: value for key, value in usage.items() if value})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--url", required=True)
    parser.add_argument("--model", required=True)
    parser.add_argument("--verdict", default="boolean", choices=("boolean", "probability", "scale"))
    parser.add_argument("--concurrency", type=int, default=64)
    parser.add_argument("--completions", type=int, default=16)
    parser.add_argument("--criteria", type=int, default=10)
    parser.add_argument("--words", type=int, default=150)
    parser.add_argument("--blocks", type=int, default=6)
    parser.add_argument("--seed", type=int, default=int(time.time()), help="new by default: a server remembers")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        judge = EndpointJudge(
            model=args.model,
            base_url=args.url,
            verdict=args.verdict,
            concurrency=args.concurrency,
            cache=str(Path(folder) / "cache.sqlite"),
            timeout=600.0,
        )
        asyncio.run(compare(args, judge))


if __name__ == "__main__":
    main()
