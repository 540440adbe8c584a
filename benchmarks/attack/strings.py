"""Attack parsers and rules with strings that a policy could write; print what each family cost.

::

    python benchmarks/attack/strings.py [--strings 1000000] [--seed 0] [--maths 2000]

Each string comes from one of the families below, goes through every target, and must neither raise nor take more than
50 ms of processor time, unless it ends as missing at its limit. The maths reward compares in a process of its own, so
its targets see fewer strings and only the time in this process is measured.
"""

from __future__ import annotations

import argparse
import json
import random
import time
from collections import Counter, defaultdict
from collections.abc import Callable

from rvpo.data.generic import strict_json
from rvpo.errors import RVPOError
from rvpo.judges.control_tokens import harmless
from rvpo.judges.parsing import MalformedError, read_object
from rvpo.judges.rule import RuleJudge, _decide
from rvpo.rewards.math import math_reward
from rvpo.rewards.math_worker import as_meant
from rvpo.rewards.rubric.criteria import Criterion
from rvpo.rewards.toolcall import correctness_reward, format_reward, length_reward
from rvpo.text.quoting import escaped, quoted

LIMIT = 0.05  # seconds of processor time
NODE = {"type": "object", "properties": {"value": {"type": "integer"}}, "required": ["value"]}
TREE = {"oneOf": [NODE, {"type": "object", "properties": {"next": {"$ref": "#"}}, "required": ["next"]}]}
RULES = {
    "rule words": {"contains_none": ["call 911", "a b"], "min_words": 0},
    "rule counts": {"max_sentences": 10**9, "max_lines": 10**9, "max_words": 10**9, "max_chars": 10**9},
    "rule regex": {"regex": [r"\w+", r"(?i)a.*b"]},
    "rule tree": {"json_schema": TREE},
    "rule items": {"json_schema": {"items": {"$ref": "#"}, "uniqueItems": True, "multipleOf": 0.3}},
}
TOKENS = ["<|im_end|>", "[INST]", "]~b]", "<s>", "<｜User｜>", "</think>", ">>TITLE<<", "\\boxed{", "<tool_call>"]
WORDS = [
    "a",
    "b",
    "dose",
    "call 911",
    "0",
    "1e308",
    "true",
    "null",
    "\u0323",
    "\uff9e",
    "\u200b",
    "\ud800",
    "\x00",
    "é",
]
SIGNS = list('{}[]()<>|"\\/:,.!?-+*^_$%&~`\n\t ')


def nested(r: random.Random) -> str:
    opened, closed = r.choice([("[", "]"), ('{"next": ', "}"), ('{"a": [', "]}"), ("(", ")"), ("\\frac{1}{", "}")])
    depth = int(2 ** r.uniform(0, 11))
    return opened * depth + r.choice(["1", '{"value": 1}', "", '"x"']) + closed * r.choice([depth, depth - 1, 0])


def repeated(r: random.Random) -> str:
    piece = "".join(r.choices([*WORDS, *SIGNS, *TOKENS], k=r.randint(1, 4)))
    return piece * int(2 ** r.uniform(0, 12))


def mixed(r: random.Random) -> str:
    return "".join(r.choices([*WORDS, *SIGNS, *TOKENS], k=int(2 ** r.uniform(0, 8))))


def json_like(r: random.Random) -> str:
    def value(depth: int) -> object:
        kind = r.random()
        if depth > 4 or kind < 0.5:
            return r.choice([1, -0.0, 1e300, None, True, "dose", "\u0323" * 50, 10**50])
        if kind < 0.75:
            return [value(depth + 1) for _ in range(r.randint(0, 4))]
        return {
            r.choice(["dose", "next", "value", "criteria_met", ""]): value(depth + 1) for _ in range(r.randint(0, 4))
        }

    text = json.dumps(value(0), ensure_ascii=r.random() < 0.5)
    cut = r.randint(0, len(text))
    return r.choice([text, f"```json\n{text}\n```", text[:cut], text[:cut] + r.choice(SIGNS) + text[cut:], text + text])


def marks(r: random.Random) -> str:
    return "a" + "".join(r.choices(["\u0323", "\u0307", "\uff9e", "\u0344", "\u0f73"], k=int(2 ** r.uniform(0, 13))))


def numbers(r: random.Random) -> str:
    digits = "".join(r.choices("0123456789", k=r.randint(1, 400)))
    return r.choice(["", "-", "["]) + digits + r.choice(["", ".", "e9", "e-400", "\\,000", "i", ",", "!", "^{9^{9}}"])


def calls(r: random.Random) -> str:
    body = json.dumps({"name": r.choice(["run", "", 1]), "arguments": r.choice([{}, "{}", None, [1], {"a": "b" * 50}])})
    return mixed(r)[:50] + "<think>" * r.randint(0, 2) + "<tool_call>\n" * r.randint(0, 3) + body + "\n</tool_call>"


FAMILIES: dict[str, Callable[[random.Random], str]] = {
    family.__name__: family for family in (nested, repeated, mixed, json_like, marks, numbers, calls)
}


def read_verdict(text: str) -> object:
    try:
        return read_object(text, ("criteria_met",), "")
    except MalformedError:
        return None


def read_calls(text: str) -> object:
    wanted = '<tool_call>\n{"name": "run", "parameters": {}}\n</tool_call>'
    return [reward(text, wanted) for reward in (format_reward, correctness_reward, length_reward)]


def read_json(text: str) -> object:
    try:
        return strict_json(text)
    except (RVPOError, ValueError, RecursionError):  # how it refuses
        return None


def targets() -> dict[str, Callable[[str], object]]:
    found: dict[str, Callable[[str], object]] = {
        "control tokens": harmless,
        "quoting": lambda text: escaped(text) + quoted(text),
        "LaTeX as meant": lambda text: as_meant(text[:1000]),
        "verdict parser": read_verdict,
        "strict JSON": read_json,
        "tool calls": read_calls,
    }
    for name, rule in RULES.items():
        criterion = Criterion(name, name, rule=rule)
        RuleJudge().check_criteria([criterion])
        found[name] = lambda text, criterion=criterion: _decide(criterion, text)  # type: ignore[misc]
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--strings", type=int, default=1_000_000)
    parser.add_argument("--maths", type=int, default=2_000, help="strings that the maths reward sees")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    r, aims, names = random.Random(options.seed), targets(), list(FAMILIES)
    counts: dict[str, Counter[str]] = defaultdict(Counter)
    slowest: dict[str, float] = defaultdict(float)

    def attack(name: str, aim: Callable[[str], object], text: str) -> None:
        start = time.thread_time()
        try:
            result = aim(text)
        except Exception as error:  # what must not be
            counts[name][f"raised {type(error).__name__}"] += 1
            return
        took = time.thread_time() - start
        missing = getattr(result, "reason", None) is not None
        counts[name].update({"strings": 1, "missing": missing, "over": took > LIMIT and not missing})
        if not missing:
            slowest[name] = max(slowest[name], took)

    for number in range(options.strings):
        text = FAMILIES[names[number % len(names)]](r)
        for name, aim in aims.items():
            attack(name, aim, text)
        if number < options.maths:
            attack("maths reward", lambda text: math_reward(f"\\boxed{{{text}}}", "5"), text)
    print(f"{options.strings} strings, seed {options.seed}, families: {', '.join(names)}")
    print("| target | strings | raised | missing at its limit | over 50 ms | slowest decided, ms |")
    print("|---|---:|---:|---:|---:|---:|")
    for name, count in counts.items():
        raised = sum(value for key, value in count.items() if key.startswith("raised"))
        shown = f"| {name} | {count['strings']} | {raised} | {count['missing']} | {count['over']} "
        print(shown + f"| {1000 * slowest[name]:.1f} |")


if __name__ == "__main__":
    main()
