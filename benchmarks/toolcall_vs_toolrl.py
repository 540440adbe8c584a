"""Compare the tool-calling rewards with ToolRL's own, then fuzz them.

Needs two files that are not part of this project, both Apache-2.0:

    --reference  verl/utils/reward_score/rlla.py of the repository qiancheng0/ToolRL (arXiv 2504.13958)
    --data       rlla_sft.json, a JSON list of {"instruction", "input", "output"}

The reference file is imported, that is, run. Every reference reply and every mutation of one is scored by both; equal
means the same float to the last bit. A case is undefined where the reference raises (its own answer is unparsable);
there our correctness must be None. The fuzzing part times each call on its own.

Exit code 1 on any difference or exception.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.util
import io
import json
import os
import random
import string
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

from rvpo.rewards.toolcall import correctness_reward, format_reward, length_reward

Case = tuple[str, str, str]  # family, reply, reference reply
REWARDS = {"format": format_reward, "correctness": correctness_reward, "length": length_reward}
# The reference's switches; it must run with none of them set, but for the length reward in compute_score.
SWITCHES = ["REFINEDREWARD", "MAX1STEP30MAX3", "SCHEDULEREWARD", "SCHEDULELENGTH", "COARSEREWARD", "INTERMEDIATEREWARD"]
SWITCHES += ["CORRECTMAX1"]
TAGS = ["<think>", "</think>", "<tool_call>", "</tool_call>", "<response>", "</response>"]
PIECES = [
    *TAGS,
    "\n",
    "\n\n",
    " ",
    "\t",
    "\r\n",
    "\u2028",
    "\0",
    "\ud800",
    "{",
    "}",
    "[",
    "]",
    '"',
    "\\",
    ",",
    ":",
    "1",
]
# As JSON, so that every use is a new object.
VALUES = [
    "null",
    "true",
    "false",
    "0",
    "1",
    "1.0",
    "-1",
    '"1"',
    '""',
    "[]",
    "{}",
    "[1]",
    '{"a": 1}',
    "NaN",
    "-Infinity",
]


# --- the reference -----------------------------------------------------------------------------------------------------


class Reference:
    """ToolRL's functions, silenced; ``raised`` stands for a case that they do not define."""

    raised = object()

    def __init__(self, path: Path) -> None:
        for name in SWITCHES:
            os.environ.pop(name, None)
        os.environ |= {"EXPERIMENT_NAME": "qwen", "WITHLENGTH": "1"}
        spec = importlib.util.spec_from_file_location("toolrl_rlla", path)
        if spec is None or spec.loader is None:
            raise SystemExit(f"--reference {path} is not a Python file")
        self.module: ModuleType = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(self.module)
        # It prints every reply; a print that does nothing is faster than a redirected stream.
        self.module.print = lambda *_, **__: None  # type: ignore[attr-defined]
        self.functions: dict[str, tuple[Callable[..., Any], float, float]] = {
            "format": (self.module.customize_format_reward_func, 1.0, 0.0),
            "correctness": (self.module.customize_correctness_reward_tool, 3.0, -3.0),
            "length": (self.module.customize_length_reward_func, 1.0, 0.0),
        }

    def single(self, channel: str, reply: str, answer: str) -> Any:
        """Score a stripped reply with the channel's own function."""
        function, highest, lowest = self.functions[channel]
        try:
            return function([[{"role": "assistant", "content": reply.strip()}]], [answer], 0, highest, lowest)[0]
        except Exception:
            return self.raised

    def whole(self, reply: str, answer: str) -> dict[str, Any]:
        """Score a reply through ``compute_score``, inside the chat template that it cuts off."""
        try:
            scores = self.module.compute_score(f"<|im_start|>assistant\n{reply}<|im_end|>", answer)[1:]
        except Exception:
            scores = (self.raised,) * 3
        return dict(zip(("format", "correctness", "length"), scores, strict=True))


# --- mutations -----------------------------------------------------------------------------------------------------------


def edit_characters(text: str, rng: random.Random) -> str:
    for _ in range(rng.randint(1, 4)):
        # Half of the edits hit the calls and the tags: most of the text is reasoning, where nothing depends on them.
        low = max(0, text.find("</think>")) if rng.random() < 0.5 else 0
        at = rng.randint(low, len(text))
        text = text[:at] + rng.choice(["", *PIECES, rng.choice(string.printable)]) + text[at + rng.randint(0, 2) :]
    return text


def change_tags(text: str, rng: random.Random) -> str:
    tag, other = rng.sample(TAGS, 2)
    match rng.randrange(5):
        case 0:
            return text.replace(tag, "", 1)
        case 1:
            return text.replace(tag, tag + rng.choice(["", "\n", " "]) + tag, 1)
        case 2:
            return text.replace(tag, "\1").replace(other, tag).replace("\1", other)
        case 3:
            at = rng.randint(0, len(text))
            return text[:at] + tag + text[at:]
        case _:
            lines = text.split("\n")
            rng.shuffle(lines)
            return "\n".join(lines)


def change_space(text: str, rng: random.Random) -> str:
    space = rng.choice([" ", "\n", "\t", "\r\n", "\u3000", "\x1c", "\ufeff"])
    match rng.randrange(4):
        case 0:
            return space + text + rng.choice(["", space])
        case 1:
            return text.replace("\n", rng.choice(["", " ", "\n\n", "\r\n"]), rng.randint(1, 3))
        case 2:
            tag = rng.choice(TAGS)
            return text.replace(tag, space + tag + space)
        case _:
            return text.replace(" ", space)


def change_calls(text: str, rng: random.Random) -> str:
    """Change the calls as JSON: names, parameters, types, number and order."""
    before, opening, rest = text.partition("<tool_call>")
    block, closing, after = rest.partition("</tool_call>")
    try:
        calls = [json.loads(line) for line in block.strip().split("\n")]
    except ValueError:
        return edit_characters(text, rng)
    for _ in range(rng.randint(1, 3)):
        _change_one(calls, rng)
    lines = [json.dumps(call, ensure_ascii=rng.random() < 0.5) for call in calls]
    return f"{before}{opening}\n" + "\n".join(lines) + f"\n{closing}{after}"


def _change_one(calls: list[Any], rng: random.Random) -> None:
    kind = rng.randrange(13)
    if not calls or kind == 0:
        calls.append({"name": rng.choice("fg"), "parameters": {"a": json.loads(rng.choice(VALUES))}})
        return
    index = rng.randrange(len(calls))
    call = calls[index]
    parameters = call.get("parameters") if isinstance(call, dict) else None
    match kind:
        case 1:
            calls.insert(rng.randint(0, len(calls)), json.loads(json.dumps(call)))
        case 2:
            rng.shuffle(calls)
        case 3:
            del calls[index]
        case 4:
            calls[index] = json.loads(rng.choice(VALUES))
    if not isinstance(call, dict):
        return
    match kind:
        case 5:
            call["name"] = rng.choice(["f", str(call.get("name")) + "x", json.loads(rng.choice(VALUES))])
        case 6:
            call.pop(rng.choice([*call, "name"]), None)
        case 7:
            call["extra"] = json.loads(rng.choice(VALUES))
        case 8:
            call["parameters"] = json.loads(rng.choice(VALUES))
    if not isinstance(parameters, dict) or not parameters:
        return
    key = rng.choice(list(parameters))
    match kind:
        case 9:
            parameters[key] = json.loads(rng.choice(VALUES))
        case 10:
            del parameters[key]
        case 11:
            parameters[rng.choice(["a", key + "_", "é"])] = parameters[key]
        case 12:
            value = parameters[key]
            same = {bool: int, int: float, float: str, str: list}.get(type(value), str)
            with contextlib.suppress(OverflowError):
                parameters[key] = same(value)


MUTATIONS: dict[str, Callable[[str, random.Random], str]] = {
    "characters": edit_characters,
    "tags": change_tags,
    "white space": change_space,
    "calls": change_calls,
    "calls, again": change_calls,
    "calls and tags": lambda text, rng: change_tags(change_calls(text, rng), rng),
    "all": lambda text, rng: edit_characters(change_space(change_tags(change_calls(text, rng), rng), rng), rng),
}


def cases(replies: list[str], count: int, rng: random.Random) -> Iterator[Case]:
    """Yield each reply against itself, then ``count`` mutations; some mutate the reference or swap rows instead."""
    for reply in replies:
        yield "unchanged", reply, reply
    with_calls = [reply for reply in replies if "<tool_call>" in reply]
    for _ in range(count):
        reference = rng.choice(with_calls if rng.random() < 0.8 else replies)
        family = rng.choice([*MUTATIONS, "rows swapped", "reference", "both"])
        if family == "rows swapped":
            yield family, rng.choice(replies), reference
        elif family == "reference":
            yield family, reference, rng.choice(list(MUTATIONS.values()))(reference, rng)
        elif family == "both":
            # The reference's calls change and are then changed again, so that many names and keys are shared.
            changed = change_calls(reference, rng)
            yield family, change_calls(changed, rng), changed
        else:
            yield family, MUTATIONS[family](reference, rng), reference


# --- fuzzing ---------------------------------------------------------------------------------------------------------------


def block(text: str) -> str:
    return f"<think> t </think>\n<tool_call>\n{text}\n</tool_call>"


def json_soup(rng: random.Random) -> str:
    atoms = [
        '"name"',
        '"parameters"',
        '"f"',
        "{",
        "}",
        "[",
        "]",
        ":",
        ",",
        "NaN",
        "-Infinity",
        "1e999",
        "-0",
        "\n",
        '"',
    ]
    return "".join(rng.choices(atoms, k=rng.randint(1, 60)))


def many_calls(rng: random.Random, reference: str) -> str:
    calls = reference.partition("<tool_call>")[2].partition("</tool_call>")[0].strip().split("\n")
    return "\n".join(rng.choices([*calls, '{"name": "f", "parameters": {}}'], k=rng.choice([63, 64, 65, 5000])))


def random_text(rng: random.Random) -> str:
    return "".join(chr(rng.choice([rng.randrange(0x80), rng.randrange(0x110000)])) for _ in range(rng.randint(0, 80)))


# Large texts cost milliseconds to build, so they are a small share of the strings; each share is a weight.
FUZZ: dict[str, tuple[float, Callable[[random.Random, str], str]]] = {
    "mutation": (30, lambda rng, ref: rng.choice(list(MUTATIONS.values()))(ref, rng)),
    "tag soup": (20, lambda rng, _: "".join(rng.choices([*PIECES, "word", '{"name": "f"}'], k=rng.randint(1, 60)))),
    "JSON soup": (20, lambda rng, _: block(json_soup(rng))),
    "any text": (10, lambda rng, _: block(random_text(rng))),
    "lone surrogates": (
        8,
        lambda rng, _: block(json.dumps({"name": chr(rng.randint(0xD800, 0xDFFF))}, ensure_ascii=False)),
    ),
    "NUL": (8, lambda rng, ref: ref.replace(rng.choice('"{ :1'), "\0", rng.randint(1, 9))),
    "nesting 10,000 deep": (1, lambda rng, _: block(rng.choice(["[", '{"a":', "[{", '["]",']) * 10_000)),
    "nesting near the limit": (1, lambda rng, _: block("[" * (n := rng.randint(850, 1050)) + "]" * n)),
    "thousands of calls": (1, lambda rng, ref: block(many_calls(rng, ref))),
    "quotes": (0.3, lambda rng, _: block("[" * 950 + rng.choice(['"', '\\"', '"\\']) * 20_000)),
    "large JSON": (
        0.3,
        lambda rng, _: block(f'{{"name": "f", "parameters": {{"a": [{rng.choice(["1,", "[],", "{},"]) * 20_000}1]}}}}'),
    ),
    "digits, 60,000": (0.3, lambda rng, _: block("1" * 60_000 + rng.choice(["", ".5", "e5"]))),
    "digits, 1 to 4 million": (0.2, lambda rng, _: rng.choice([block, str])("7" * rng.randint(1_000_000, 4_000_000))),
    "tags, megabytes": (0.2, lambda rng, _: "".join(rng.choices(TAGS, k=3)) * rng.randint(20_000, 100_000)),
    "words, megabytes": (0.2, lambda rng, _: "<think>" + rng.choice(["w ", " ", "\u3000"]) * 1_000_000 + "</think>"),
}


def compare(reference: Reference, replies: list[str], mutations: int, rng: random.Random) -> int:
    """Score all cases with both, print the table, and return the number of differences."""
    differences: Counter[tuple[str, str]] = Counter()
    undefined: Counter[str] = Counter()
    families: Counter[str] = Counter()
    values: dict[str, set[Any]] = {channel: set() for channel in REWARDS}
    shown = 0
    for family, reply, answer in cases(replies, mutations, rng):
        families[family] += 1
        # compute_score cuts the reply at its template's tokens; no mutation writes one.
        whole = reference.whole(reply, answer)
        # compute_score raises as a whole where only the correctness is undefined.
        whole_raised = whole["correctness"] is Reference.raised
        for channel, reward in REWARDS.items():
            ours: Any = reward(reply, answer)
            single = reference.single(channel, reply, answer)
            if single is Reference.raised:
                undefined[channel] += 1
                equal = ours is None and whole_raised
            else:
                values[channel].add(single)
                equal = _identical(ours, single) and (whole_raised or _identical(ours, whole[channel]))
            if not equal:
                differences[channel, family] += 1
                if shown < 5:
                    shown += 1
                    print(f"{channel}, {family}: ours {ours}, reference {single}\n  {reply!r}\n  {answer!r}")
    print("\n| channel | cases | differences | undefined | distinct values |\n|---|--:|--:|--:|--:|")
    for channel in REWARDS:
        wrong = sum(n for (name, _), n in differences.items() if name == channel)
        print(f"| {channel} | {families.total():,} | {wrong:,} | {undefined[channel]:,} | {len(values[channel]):,} |")
    print("\nCases: " + ", ".join(f"{name} {count:,}" for name, count in families.items()) + ".")
    return differences.total()


def _identical(ours: Any, theirs: Any) -> bool:
    return ours is not None and float(ours).hex() == float(theirs).hex()


def fuzz(replies: list[str], count: int, rng: random.Random) -> int:
    """Score ``count`` hostile strings, print the slowest calls, and return the number of exceptions.

    A value that is missing or out of range counts as one too.
    """
    # Against references that can be met, so that None would be a fault of ours.
    replies = [reply for reply in replies if correctness_reward(reply, reply) is not None]
    wall_ms: dict[str, tuple[float, str]] = {}
    cpu_ms: dict[str, tuple[float, str]] = {}  # on a busy machine the wall time counts other processes as well
    seen: Counter[str] = Counter()
    exceptions = 0
    families, weights = list(FUZZ), [weight for weight, _ in FUZZ.values()]
    for family in rng.choices(families, weights, k=count):
        answer = rng.choice(replies)
        reply = FUZZ[family][1](rng, answer)
        seen[family] += 1
        for channel, reward in REWARDS.items():
            start, start_cpu = time.perf_counter(), time.thread_time()
            try:
                value = reward(reply, answer)
            except Exception as error:
                exceptions += 1
                print(f"{channel}, {family}: {type(error).__name__}: {error}")
                continue
            cpu, wall = time.thread_time() - start_cpu, time.perf_counter() - start
            low, high = (-3, 3) if channel == "correctness" else (0, 1)
            if value is None or not low <= value <= high:
                exceptions += 1
                print(f"{channel}, {family}: value {value}")
            wall_ms[family] = max(wall_ms.get(family, (0.0, "")), (wall * 1e3, channel))
            cpu_ms[family] = max(cpu_ms.get(family, (0.0, "")), (cpu * 1e3, channel))
    print("\n| fuzz family | strings | slowest call, wall ms | slowest call, CPU ms |\n|---|--:|--:|--:|")
    for family, (cpu, channel) in sorted(cpu_ms.items(), key=lambda item: -item[1][0]):
        wall, wall_channel = wall_ms[family]
        print(f"| {family} | {seen[family]:,} | {wall:.2f} ({wall_channel}) | {cpu:.2f} ({channel}) |")
    print(f"\n{count:,} strings, {count * len(REWARDS):,} calls, {exceptions} exceptions or values out of range.")
    return exceptions


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--reference", type=Path, required=True, help="ToolRL's rlla.py")
    parser.add_argument("--data", type=Path, required=True, help="rlla_sft.json")
    parser.add_argument("--mutations", type=int, default=30_000, help="mutated cases (default: %(default)s)")
    parser.add_argument("--fuzz", type=int, default=100_000, help="fuzzed strings (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    replies = [row["output"] for row in json.loads(args.data.read_text("utf-8"))]
    with contextlib.redirect_stdout(io.StringIO()):
        reference = Reference(args.reference)
    differences = compare(reference, replies, args.mutations, random.Random(args.seed))
    exceptions = fuzz(replies, args.fuzz, random.Random(args.seed + 1))
    return 1 if differences or exceptions else 0


if __name__ == "__main__":
    sys.exit(main())
