"""Compare our BFCL scores with ``bfcl evaluate`` on the same replies: item by item, by category, and the aggregates.

    python benchmarks/evals/bfcl_vs_official.py --official-python OTHER_ENVIRONMENT/bin/python

The official side runs in an environment of its own, where ``pip install bfcl-eval==2026.3.23 soundfile`` brought all of
its dependencies (soundfile is one that it does not name). Replies are made from the answers of the benchmark: right ones,
and ones spoiled in every way of ``SPOILERS``. Each is written in every format and scored there:

    ours                              theirs
    own, calls parsed by a server     an OpenAI handler; "." in names is "_"
    own, text as Qwen writes it       Qwen's handler; names keep their dots there, ours are "_"
    the same, characters changed      the same
    rlla                              Qwen's handler

A reply on which the official checker raises would stop its whole run; we count it as wrong. Such replies are counted and
left out of the comparison. With ``--run FOLDER`` (of ``rvpo eval bfcl``) replies of a real model are compared, too: read by
us, judged by both.

Exit code 1 on any difference.
"""

from __future__ import annotations

import argparse
import asyncio
import csv
import json
import os
import random
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from rvpo.evals.bfcl import BFCL
from rvpo.evals.bfcl_package import Entry, load_package
from rvpo.evals.items import Item, Reply, Scored
from rvpo.evals.tool_formats import own_calls, rlla_calls

# Models of the official list, each for its handler, with their names in its tables.
UNDERSCORES = "openbmb/MiniCPM-SALA-FC"  # OpenAI's handler; names have no dots
DOTS, MUTATED = "Qwen/Qwen3-0.6B-FC", "Qwen/Qwen3-1.7B-FC"  # Qwen's
DISPLAY = {UNDERSCORES: "MiniCPM-SALA (FC)", DOTS: "Qwen3-0.6B (FC)", MUTATED: "Qwen3-1.7B (FC)"}
CHAT = "There is nothing that I could call for this."


@dataclass(frozen=True)
class Spoken:
    """A reply before it is written in a format: calls, each a name and arguments as JSON text; without any, words."""

    calls: tuple[tuple[str, str], ...] = ()
    words: str = CHAT
    dots_kept: bool = True  # False: "." and "_" in names are the wrong way round for the format


# --- right replies


def right(entry: Entry) -> Spoken:
    """Return a reply that the checker must accept."""
    if entry.answers is None:
        return Spoken() if "irrelevance" in entry.category else Spoken(((entry.functions[0]["name"], "{}"),))
    return Spoken(tuple(_call(entry, answer) for answer in entry.answers))


def _call(entry: Entry, answer: dict[str, Any]) -> tuple[str, str]:
    ((name, allowed),) = answer.items()
    function = next((function for function in entry.functions if function["name"] == name), entry.functions[0])
    types = function["parameters"]["properties"]
    required = function["parameters"]["required"]
    arguments = {}
    for parameter, values in allowed.items():
        if parameter not in types and "" in values:
            continue
        value = _first(values)
        if value == "" and parameter not in required:
            continue
        if entry.category == "simple_java":
            value = java(_chosen(values, types[parameter]), types[parameter])
        elif entry.category == "simple_javascript":
            value = javascript(_chosen(values, types[parameter]), types[parameter])
        elif isinstance(value, dict):
            value = _one(value)
        elif isinstance(value, list) and types[parameter].get("items", {}).get("type") == "dict":
            value = [_one(element) if isinstance(element, dict) else element for element in value]
        arguments[parameter] = value
    return name, json.dumps(arguments)


def _first(values: list[Any]) -> Any:
    """Return the first allowed value; "", which stands for leaving it out, where there is no other."""
    return next((value for value in values if value != ""), "")


def _chosen(values: list[Any], described: dict[str, Any]) -> Any:
    """Prefer a string for a parameter of any type: that is what the converters make of it."""
    texts = [value for value in values if isinstance(value, str) and value]
    value = texts[0] if texts and described["type"] in ("any", "String") else _first(values)
    return _one(value) if isinstance(value, dict) else value


def _one(value: dict[str, Any]) -> dict[str, Any]:
    """Return a dict of allowed values as one of single values."""
    return {key: first for key, allowed in value.items() if (first := _first(allowed)) != ""}


def java(value: Any, described: dict[str, Any]) -> str:
    """Write a value as Java code of the described type."""
    kind, inner = described["type"], described.get("items", {"type": "any"})
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list):
        quote = '"' if kind == "ArrayList" and inner["type"] == "String" else ""  # the checker keeps those of an array
        elements = ", ".join(
            f"{quote}{element}{quote}" if isinstance(element, str) else java(element, inner) for element in value
        )
        return f"new ArrayList<>(Arrays.asList({elements}))" if kind == "ArrayList" else f"new Object[]{{{elements}}}"
    if isinstance(value, dict):
        puts = "".join(f'put("{key}", {json.dumps(element)}); ' for key, element in value.items())
        return f"new HashMap<>() {{{{ {puts}}}}}"
    return f"{value}{ {'long': 'L', 'float': 'f'}.get(kind, '') if not isinstance(value, str) else '' }"


def javascript(value: Any, described: dict[str, Any]) -> str:
    """Write a value as JavaScript code of the described type."""
    if isinstance(value, str):
        return value
    return json.dumps(value) + ("n" if described["type"] == "Bigint" else "")


# --- spoiled replies: each takes a reply and a source of chance, and returns another


def _edit(change: Callable[[dict[str, Any], random.Random], None]) -> Callable[[Spoken, random.Random], Spoken]:
    """Return a spoiler that changes the arguments of one call."""

    def spoil(spoken: Spoken, rng: random.Random) -> Spoken:
        calls = list(spoken.calls)
        if not calls:
            return spoken
        index = rng.randrange(len(calls))
        arguments = json.loads(calls[index][1])
        change(arguments, rng)
        calls[index] = calls[index][0], json.dumps(arguments)
        return replace(spoken, calls=tuple(calls))

    return spoil


def _put(make: Callable[[Any], Any]) -> Callable[[dict[str, Any], random.Random], None]:
    def change(arguments: dict[str, Any], rng: random.Random) -> None:
        if arguments:
            key = rng.choice(sorted(arguments))
            arguments[key] = make(arguments[key])

    return change


def _other(value: Any) -> Any:
    if isinstance(value, bool):
        return not value
    if isinstance(value, int | float):
        return value + 1
    if isinstance(value, str):
        return value + " or so"
    if isinstance(value, dict):
        return {**value, "more": 1}
    return value[1:] if isinstance(value, list) else "something"


def _near(value: Any) -> Any:
    """Change what the checker overlooks: case and punctuation of strings, 1 for 1.0."""
    if isinstance(value, str):
        return value.upper().replace(" ", "-")
    return float(value) if type(value) is int else value


def _name(spoken: Spoken, rng: random.Random) -> Spoken:
    if not spoken.calls:
        return Spoken((("made_up", "{}"),))
    index = rng.randrange(len(spoken.calls))
    changed = [(name + "_2" if place == index else name, text) for place, (name, text) in enumerate(spoken.calls)]
    return replace(spoken, calls=tuple(changed))


def _arguments(make: Callable[[str], str]) -> Callable[[Spoken, random.Random], Spoken]:
    """Return a spoiler that changes the text of all arguments."""
    return lambda spoken, rng: replace(spoken, calls=tuple((name, make(text)) for name, text in spoken.calls))


def _shuffled(spoken: Spoken, rng: random.Random) -> Spoken:
    return replace(spoken, calls=tuple(rng.sample(spoken.calls, len(spoken.calls))))


SPOILERS: dict[str, Callable[[Spoken, random.Random], Spoken]] = {
    "right": lambda spoken, rng: spoken,
    "near": _edit(_put(_near)),
    "another value": _edit(_put(_other)),
    "value as text": _edit(_put(str)),
    "value in a list": _edit(_put(lambda value: [value])),
    "value in a dict": _edit(_put(lambda value: {"value": value})),
    "null": _edit(_put(lambda value: None)),
    "empty": _edit(_put(lambda value: "")),
    "a parameter too few": _edit(lambda arguments, rng: arguments.pop(rng.choice(sorted(arguments) or [""]), None)),
    "a parameter too many": _edit(lambda arguments, rng: arguments.update(surprise=1)),
    "another name": _name,
    "dots": lambda spoken, rng: replace(spoken, dots_kept=False),
    "calls in another order": _shuffled,
    "a call too many": lambda spoken, rng: replace(
        spoken, calls=spoken.calls + (spoken.calls[:1] or (("made_up", "{}"),))
    ),
    "a call too few": lambda spoken, rng: replace(spoken, calls=spoken.calls[1:]),
    "broken JSON": _arguments(lambda text: text[:-1]),
    "arguments in a list": _arguments(lambda text: f"[{text}]"),
    "arguments null": _arguments(lambda text: "null"),
    "no calls": lambda spoken, rng: Spoken(),
    "silence": lambda spoken, rng: Spoken(words=""),
}


# --- formats


def _names(spoken: Spoken, dots: bool) -> list[tuple[str, str]]:
    if dots == spoken.dots_kept:
        return list(spoken.calls)
    return [(name.replace(".", "_"), text) for name, text in spoken.calls]


def server_calls(spoken: Spoken) -> Reply:
    calls = tuple({"name": name, "arguments": text} for name, text in _names(spoken, dots=False))
    return Reply("" if calls else spoken.words, calls=calls or None)


def qwen_text(spoken: Spoken, dots: bool) -> str:
    blocks = (f'{{"name": {json.dumps(name)}, "arguments": {text}}}' for name, text in _names(spoken, dots))
    return "\n".join(f"<tool_call>\n{block}\n</tool_call>" for block in blocks) or spoken.words


def mutate(text: str, seed: str) -> str:
    """Delete or replace one character inside a block of some texts; the same for texts of one length."""
    rng = random.Random(seed)
    lines = text.split("\n")
    inside = [place for place, line in enumerate(lines) if line.startswith("{")]
    if inside and rng.random() < 0.3:
        line = rng.choice(inside)
        place = rng.randrange(len(lines[line]))
        lines[line] = lines[line][:place] + rng.choice(["", *'{}[]",:1a\\ ']) + lines[line][place + 1 :]
    return "\n".join(lines)


def rlla_text(spoken: Spoken) -> str:
    if not spoken.calls:
        return f"<think> Let me see. </think>\n<response> {spoken.words} </response>"
    lines = (f'{{"name": {json.dumps(name)}, "parameters": {text}}}' for name, text in _names(spoken, dots=True))
    return "<think> Let me see. </think>\n<tool_call>\n" + "\n".join(lines) + "\n</tool_call>"


def openai_result(spoken: Spoken) -> Any:
    return [{name: text} for name, text in _names(spoken, dots=False)] or spoken.words


# --- theirs


@dataclass(frozen=True)
class Official:
    """What ``bfcl evaluate`` wrote about one model: the ids of wrong replies, accuracies, and rows of its tables."""

    wrong: set[str]
    accuracy: dict[str, float]
    tables: dict[str, dict[str, str]]


def evaluate(python: Path, results: dict[str, dict[str, Any]], benchmark: BFCL, partial: bool) -> dict[str, Official]:
    """Write result files (model -> id -> result) as the official generation does, and judge them."""
    items = {item.id: item for item in benchmark.items()}
    categories = sorted({item.labels["category"] for item in items.values()})
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        for model, replies in results.items():
            for category in categories:
                chosen = [identity for identity in replies if items[identity].labels["category"] == category]
                group = items[chosen[0]].labels["group"]
                path = root / "result" / model.replace("/", "_") / group / f"BFCL_v4_{category}_result.json"
                path.parent.mkdir(parents=True, exist_ok=True)
                lines = (json.dumps({"id": identity, "result": replies[identity]}) for identity in chosen)
                path.write_text("".join(line + "\n" for line in lines), encoding="utf-8")
        command = [str(python), "-m", "bfcl_eval", "evaluate", "--model", ",".join(results)]
        command += ["--test-category", ",".join(categories), *(["--partial-eval"] if partial else [])]
        # The key is never used: nothing is asked, but the client wants one when it is made.
        environment = os.environ | {"BFCL_PROJECT_ROOT": str(root), "OPENAI_API_KEY": "unused"}
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        if done.returncode or not (root / "score" / "data_overall.csv").exists():
            raise SystemExit(f"{' '.join(command)} failed:\n{done.stdout[-2000:]}\n{done.stderr[-4000:]}")
        return {model: _read_scores(root / "score", model) for model in results}


def _read_scores(folder: Path, model: str) -> Official:
    wrong: set[str] = set()
    accuracy = {}
    for path in sorted((folder / model.replace("/", "_")).rglob("BFCL_v4_*_score.json")):
        header, *failed = (json.loads(line) for line in path.read_text(encoding="utf-8").splitlines())
        accuracy[path.name.removeprefix("BFCL_v4_").removesuffix("_score.json")] = header["accuracy"]
        wrong |= {row["id"] for row in failed}
    tables = {}
    for name in ("non_live", "live", "overall"):
        with (folder / f"data_{name}.csv").open(encoding="utf-8", newline="") as file:
            rows = list(csv.DictReader(file))
        tables[name] = next(row for row in rows if row["Model"] == DISPLAY[model])
    return Official(wrong, accuracy, tables)


# --- the comparison


def compare(label: str, benchmark: BFCL, replies: dict[str, Reply], official: Official, partial: bool) -> int:
    """Print one line a category and one for the tables; return the number of differences."""
    items = [item for item in benchmark.items() if item.id in replies]
    scored = list(zip(items, score(benchmark, replies), strict=True))
    print(f"\n{label}\n{'category':24} {'items':>6} {'ours':>8} {'theirs':>8}  differences", flush=True)
    differences = 0
    for category in dict.fromkeys(item.labels["category"] for item in items):
        mine = {item.id: result.scores["accuracy"] for item, result in scored if item.labels["category"] == category}
        differ = [identity for identity, value in mine.items() if value != (identity not in official.wrong)]
        mean = sum(value or 0.0 for value in mine.values()) / len(mine)
        differ += ["accuracy"] if mean != official.accuracy[category] else []
        print(f"{category:24} {len(mine):6} {mean:8.4f} {official.accuracy[category]:8.4f}  {len(differ)} {differ[:5]}")
        differences += len(differ)
    cells = 0
    for name, row in benchmark.summary(scored)["leaderboard"].items() if not partial else ():
        for cell, value in row.items():
            cells += 1
            if f"{100 * value:.2f}%" != official.tables[name][cell]:
                print(f"{name} / {cell}: ours {100 * value:.4f}%, theirs {official.tables[name][cell]}")
                differences += 1
    if not partial:
        row = official.tables
        print(f"{cells} cells of the leaderboard: {row['non_live']['Non-Live Overall Acc']} non-live, ", end="")
        print(f"{row['live']['Live Overall Acc']} live, {row['overall']['Irrelevance Detection']} irrelevance")
        differences += means_differ(benchmark, scored)
    return differences


def means_differ(benchmark: BFCL, scored: list[tuple[Item, Scored]]) -> int:
    """Count the aggregates whose weighted mean over items is not the leaderboard's value."""
    row = benchmark.summary(scored)["leaderboard"]
    official = {"non_live": row["non_live"]["Non-Live Overall Acc"], "live": row["live"]["Live Overall Acc"]}
    official |= {"simple": row["non_live"]["Simple AST"], "irrelevance": row["overall"]["Irrelevance Detection"]}
    differences = 0
    for metric, value in official.items():
        rows = [(result.scores[metric], result.weights[metric]) for _, result in scored if metric in result.scores]
        mean = sum((score or 0.0) * weight for score, weight in rows) / sum(weight for _, weight in rows)
        differences += abs(mean - value) > 1e-12
    return differences


def score(benchmark: BFCL, replies: dict[str, Reply]) -> list[Scored]:
    pairs = [(item, replies[item.id]) for item in benchmark.items() if item.id in replies]
    return asyncio.run(benchmark.score(pairs))


def spoiled(seed: int) -> tuple[dict[str, Spoken], Counter[str]]:
    """Return a reply to each question, most of them spoiled, and how many the official checker cannot take."""
    rng = random.Random(seed)
    replies: dict[str, Spoken] = {}
    raised: Counter[str] = Counter()
    package = load_package()
    for category in BFCL().settings()["categories"]:
        for entry in package.entries(category):
            kind = rng.choice(["right"] * 8 + list(SPOILERS))
            spoken = SPOILERS[kind](right(entry), rng)
            calls = rlla_calls(Reply(rlla_text(spoken)))
            if package.check(entry, calls, dots=True).error_type == "rvpo:checker_failed":
                raised[f"{category}, {kind}"] += 1
                spoken = right(entry)
            replies[entry.id] = spoken
    return replies, raised


def synthetic(python: Path, seed: int) -> int:
    replies, raised = spoiled(seed)
    print(f"\nseed {seed}: {len(replies)} replies; left out, as the official checker raises: {dict(raised) or 'none'}")
    results = {
        UNDERSCORES: {identity: openai_result(spoken) for identity, spoken in replies.items()},
        DOTS: {identity: qwen_text(spoken, dots=True) for identity, spoken in replies.items()},
        MUTATED: {identity: mutate(qwen_text(spoken, dots=True), identity) for identity, spoken in replies.items()},
    }
    own, rlla = BFCL(prompting="own"), BFCL(prompting="rlla")
    official = evaluate(python, results, own, partial=False)
    served = {identity: server_calls(spoken) for identity, spoken in replies.items()}
    texts = {identity: Reply(qwen_text(spoken, dots=False)) for identity, spoken in replies.items()}
    broken = {identity: Reply(mutate(qwen_text(spoken, dots=False), identity)) for identity, spoken in replies.items()}
    lines = {identity: Reply(rlla_text(spoken)) for identity, spoken in replies.items()}
    differences = compare("own, calls parsed by a server", own, served, official[UNDERSCORES], partial=False)
    differences += compare("own, text", own, texts, official[DOTS], partial=False)
    differences += compare(
        "own, text, single characters lost or changed", own, broken, official[MUTATED], partial=False
    )
    return differences + compare("rlla", rlla, lines, official[DOTS], partial=False)


def real(python: Path, folder: Path) -> int:
    """Compare on the replies of a run of ``rvpo eval bfcl``: what we read in them, judged by both."""
    import pyarrow.parquet

    settings = json.loads((folder / "results.json").read_text(encoding="utf-8"))["settings"]
    rows = pyarrow.parquet.read_table(folder / "items.parquet").to_pylist()
    rlla = settings["prompting"] == "rlla"
    replies, results = {}, {}
    for row in rows:
        if row["completion"] is None:
            continue
        calls = json.loads(row["calls"]) if row["calls"] else None
        reply = replies[row["id"]] = Reply(row["completion"], calls=tuple(calls) if calls else None)
        read = [
            (name, json.dumps(arguments))
            for call in (rlla_calls if rlla else own_calls)(reply) or []
            for name, arguments in call.items()
        ]
        words = Spoken(words="no call that can be read")
        spoken = Spoken(tuple(read), dots_kept=rlla) if read else words
        results[row["id"]] = qwen_text(spoken, dots=True) if rlla else openai_result(replace(spoken, dots_kept=True))
    benchmark = BFCL(
        settings["categories"], prompting=settings["prompting"], limit=settings["limit"], seed=settings["seed"]
    )
    model, partial = (DOTS if rlla else UNDERSCORES), settings["limit"] is not None or len(replies) < 3641
    official = evaluate(python, {model: results}, benchmark, partial)
    return compare(f"{folder.name}: {len(replies)} replies", benchmark, replies, official[model], partial)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--official-python", type=Path, required=True, help="an interpreter with bfcl-eval and all it needs"
    )
    parser.add_argument("--seeds", type=int, default=3, help="how many sets of replies")
    parser.add_argument("--run", type=Path, action="append", default=[], help="folder of a run of rvpo eval bfcl")
    options = parser.parse_args()
    differences = sum(synthetic(options.official_python, seed) for seed in range(options.seeds))
    differences += sum(real(options.official_python, folder) for folder in options.run)
    print(f"\n{differences} differences")
    return int(differences > 0)


if __name__ == "__main__":
    sys.exit(main())
