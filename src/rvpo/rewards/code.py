"""``CodeReward``: run the program in a reply against the prompt's tests. Every test is a channel.

The outcomes can be used in three ways:

- ``"channels"``: every test, or every named group of tests, is its own channel: 3 for one prompt, 40 for the next.
- ``"share"``: one reward, the share of the tests that pass.
- ``"all_pass"``: one reward, 1 if all tests pass.

Programs run in a sandbox (:mod:`rvpo.sandbox`), each test in its own process. A reply without a program fails all
tests, because the policy caused it. If the sandbox fails to run a test, its outcome is missing.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

from rvpo.core.ragged import Score
from rvpo.errors import ConfigError, DataError
from rvpo.rewards.code_runner import ProgramRunner
from rvpo.rewards.judged import MAX_MISSING, JudgedReward
from rvpo.rewards.rubric.texts import chat, completion_texts
from rvpo.rewards.rubric.verdict import Prompt
from rvpo.sandbox.layouts import LAYOUTS, tests_of
from rvpo.sandbox.open import AUTO, open_sandbox
from rvpo.sandbox.outcomes import Limits, Outcome, Sandbox, Test
from rvpo.sandbox.pool import cores
from rvpo.sandbox.programs import program_after, program_of

AGGREGATIONS = ("channels", "share", "all_pass")
COLUMNS: Mapping[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "humaneval": (("test", "entry_point"), ()),
    "mbpp": (("test_list",), ("test_setup_code", "test_imports", "challenge_test_list", "test")),
    "input_output": (("input_output",), ()),
    "livecodebench": (("public_test_cases",), ("private_test_cases", "metadata")),
}
"""Layout -> its needed columns, and its optional columns."""
REST = "other"  # group of the tests that match no pattern


class CodeReward(JudgedReward):
    """An async reward function that runs programs.

    Args:
        layout: layout of the tests in the data: ``humaneval``, ``mbpp``, ``input_output`` (APPS, TACO, PRIME) or
            ``livecodebench``; see :mod:`rvpo.sandbox.layouts`.
        columns: names of the layout's columns in the data, if they differ, such as
            ``{"input_output": "ground_truth"}``.
        aggregation: ``"channels"`` (one channel per test or group), ``"share"`` (share of the tests that pass) or
            ``"all_pass"`` (1 if all tests pass).
        groups: name of a channel -> patterns of test names, such as ``{"public": ["public_*"]}``. The channel's value
            is the share of its tests that pass. Tests that match no pattern form the group ``other``. None gives one
            channel per test.
        split: whether each assertion of HumanEval's ``check`` is a separate test.
        max_tests: maximum number of tests per prompt; the first ones are run. None runs all.
        completes_prompt: whether the reply continues the prompt, which is code, as replies of base models do. Prose
            after the program is removed. Otherwise the program is the last block of Python in the reply.
        sandbox: text, see :func:`rvpo.sandbox.open_sandbox`, or object with the methods of
            :class:`rvpo.sandbox.Sandbox`.
        limits: limits per test, with the fields of :class:`rvpo.sandbox.Limits`.
        cache: path of an SQLite file with outcomes, which processes may share; None keeps them only in memory.
        workers: number of tests at the same time in this process; None is an equal share of the cores.
        processes: number of processes on this machine that build such a reward; None is ``LOCAL_WORLD_SIZE``, or 1.
        max_missing: share in [0, 1] of the tests of a batch whose outcome may be missing. If more are missing,
            ``RVPOTrainer`` saves a checkpoint and stops.
        name: name of the reward function in metrics and tables.

    Raises:
        ConfigError: an option has an invalid value, or no sandbox works on this machine.
    """

    judge: ProgramRunner

    def __init__(
        self,
        layout: str,
        *,
        columns: Mapping[str, str] | None = None,
        aggregation: str = "channels",
        groups: Mapping[str, Sequence[str]] | None = None,
        split: bool = False,
        max_tests: int | None = None,
        completes_prompt: bool = False,
        sandbox: str | Sandbox = AUTO,
        limits: Mapping[str, Any] | Limits | None = None,
        cache: str | None = None,
        workers: int | None = None,
        processes: int | None = None,
        max_missing: float = MAX_MISSING,
        name: str = "code",
    ) -> None:
        """Keep the options, open the sandbox, and test it with two small programs."""
        if layout not in LAYOUTS:
            raise ConfigError(f"layout is {layout!r}; expected one of {', '.join(LAYOUTS)}: the layout of the data")
        if aggregation not in AGGREGATIONS:
            raise ConfigError(f"aggregation is {aggregation!r}; expected one of {', '.join(AGGREGATIONS)}")
        _check_options(layout, columns, groups, max_tests)
        if split and layout != "humaneval":
            raise ConfigError(f"split is True, but layout is {layout!r}; expected layout humaneval. Leave split out")
        runner = ProgramRunner(
            sandbox if not isinstance(sandbox, str) else open_sandbox(sandbox, workers=_workers(workers, processes)),
            _limits(limits),
            cache,
        )
        super().__init__(runner, max_missing, name)
        needed, optional = COLUMNS[layout]
        renamed = columns or {}
        self.layout, self.aggregation, self.split, self.max_tests = layout, aggregation, split, max_tests
        self.groups = None if groups is None else {name: tuple(patterns) for name, patterns in groups.items()}
        self.completes_prompt = completes_prompt
        self._columns = {column: renamed.get(column, column) for column in (*needed, *optional)}
        self.needed_columns = [self._columns[column] for column in needed]

    @property
    def only_monitored(self) -> bool:
        """Whether scores are only for metrics, because the function's own value is the only channel."""
        return self.aggregation != "channels"

    def check_column(self, values: Sequence[Any]) -> None:
        """Check a whole column before training.

        Raises:
            DataError: a row has no tests of the layout.
        """
        if self.layout == "humaneval" and all(isinstance(value, str) and value.isidentifier() for value in values):
            return  # this is the column with the names of the functions
        column = COLUMNS[self.layout][0][0]
        for row, value in enumerate(values):
            known = {column: value, "entry_point": "candidate", "metadata": {"func_name": "f"}}
            try:
                tests_of(known, self.layout, split=self.split)
            except DataError as error:
                raise DataError(f"row {row}, column {self._columns[column]!r}: {error}") from error

    async def __call__(
        self, prompts: Sequence[Prompt], completions: Sequence[Any], **columns: Any
    ) -> list[float | None]:
        """Run programs. :attr:`latest` then has the single outcomes.

        Returns:
            One reward in [0, 1] per completion: the share of its tests that pass, or 1 if all pass; None if it is
            unknown because tests could not be run.
        """
        rows = [
            {name: values[i] for name, values in columns.items() if _is_column(values, len(completions))}
            for i in range(len(completions))
        ]
        totals, self.latest = await self.score(prompts, completions, rows)
        return totals

    async def score(
        self, prompts: Sequence[Prompt], completions: Sequence[Any], rows: Sequence[Mapping[str, Any]]
    ) -> tuple[list[float | None], list[list[Score]]]:
        """Run programs without changing :attr:`latest`, so that calls may overlap.

        Args:
            prompts: N prompts.
            completions: N completions, text or chat.
            rows: N rows of the data: column -> value.

        Returns:
            The result of a call, and the value of :attr:`latest` after it.
        """
        read: dict[str, list[Test]] = {}  # the completions of a prompt share its tests
        tasks = [
            self._task(prompt, text, row, read)
            for prompt, text, row in zip(prompts, completion_texts(completions), rows, strict=True)
        ]
        outcomes = await self.judge.outcomes([(task.program, task.tests) for task in tasks], self.repeat)
        totals = [self._total(found) for found in outcomes]
        return totals, [self._scores(task, found) for task, found in zip(tasks, outcomes, strict=True)]

    async def score_row(
        self, prompt: Prompt, completion: Any, columns: Mapping[str, Any]
    ) -> tuple[float | None, list[Score]]:
        """Run one program without changing :attr:`latest`."""
        [total], [scores] = await self.score([prompt], [completion], [columns])
        return total, scores

    def _task(self, prompt: Prompt, text: str, row: Mapping[str, Any], read: dict[str, list[Test]]) -> _Task:
        known = {column: row[name] for column, name in self._columns.items() if name in row}
        if lacking := [column for column in COLUMNS[self.layout][0] if column not in known]:
            raise DataError(
                f"reward {self.__name__!r} needs the column {self._columns[lacking[0]]!r}, but the data has "
                f"{sorted(row)}. Add it to reference_columns, or set `columns`"
            )
        messages = chat(prompt)
        asked = messages[-1][1] if messages else ""
        key = repr((asked, known))
        if key not in read:
            read[key] = tests_of({**known, "prompt": asked}, self.layout, split=self.split)[: self.max_tests]
        return _Task(program_after(asked, text) if self.completes_prompt else program_of(text), read[key])

    def _total(self, outcomes: Sequence[Outcome]) -> float | None:
        if self.aggregation != "all_pass":
            return _share(outcomes)
        if any(outcome.passed is False for outcome in outcomes):
            return 0.0
        return None if any(outcome.passed is None for outcome in outcomes) else 1.0

    def _scores(self, task: _Task, outcomes: Sequence[Outcome]) -> list[Score]:
        if self.groups is None:
            return [_score(test.name, [outcome]) for test, outcome in zip(task.tests, outcomes, strict=True)]
        by_group: dict[str, list[Outcome]] = {}
        for test, outcome in zip(task.tests, outcomes, strict=True):
            by_group.setdefault(self._group(test), []).append(outcome)
        return [_score(name, by_group[name], (name,)) for name in (*self.groups, REST) if name in by_group]

    def _group(self, test: Test) -> str:
        for name, patterns in (self.groups or {}).items():
            if any(fnmatchcase(test.name, pattern) for pattern in patterns):
                return name
        return REST


@dataclass(frozen=True, slots=True)
class _Task:
    """One completion: its program, None if it has none, and the tests of its prompt."""

    program: str | None
    tests: Sequence[Test]


def _share(outcomes: Sequence[Outcome]) -> float | None:
    known = [float(outcome.passed) for outcome in outcomes if outcome.passed is not None]
    return sum(known) / len(known) if known else None


def _score(channel: str, outcomes: Sequence[Outcome], labels: tuple[str, ...] = ()) -> Score:
    value = _share(outcomes)
    shown = next((outcome for outcome in outcomes if outcome.passed is not True), outcomes[0])
    detail = f"{shown.reason}: {shown.detail}" if shown.detail else shown.reason
    return Score(channel, value, labels=labels, reason=None if value is not None else "sandbox", detail=detail)


def _is_column(values: Any, count: int) -> bool:
    return hasattr(values, "__len__") and not isinstance(values, str | Mapping) and len(values) == count


def _workers(workers: int | None, processes: int | None) -> int | None:
    """Return the number of tests that this process runs at the same time. The default is its share of the cores."""
    if workers is not None:
        return workers
    if processes is not None and (isinstance(processes, bool) or not isinstance(processes, int) or processes < 1):
        raise ConfigError(f"processes is {processes!r}; expected a whole number of at least 1, or None")
    return max(1, cores() // (processes or max(1, int(os.environ.get("LOCAL_WORLD_SIZE") or 1))))


def _limits(limits: Mapping[str, Any] | Limits | None) -> Limits:
    if isinstance(limits, Limits) or limits is None:
        return limits or Limits()
    names = tuple(Limits.__dataclass_fields__)
    if unknown := [key for key in limits if key not in names]:
        raise ConfigError(f"limits has an unknown option {unknown[0]!r}; expected one of {', '.join(names)}")
    return Limits(**limits)


def _check_options(
    layout: str,
    columns: Mapping[str, str] | None,
    groups: Mapping[str, Sequence[str]] | None,
    max_tests: int | None,
) -> None:
    known = [column for part in COLUMNS[layout] for column in part]
    if columns is not None and not isinstance(columns, Mapping):
        raise ConfigError(f"columns is {columns!r}; expected a mapping from {', '.join(known)} to names in the data")
    if unknown := [column for column in columns or {} if column not in known]:
        raise ConfigError(
            f"columns has the key {unknown[0]!r}; expected one of {', '.join(known)}, the columns of layout {layout!r}"
        )
    if max_tests is not None and (isinstance(max_tests, bool) or not isinstance(max_tests, int) or max_tests < 1):
        raise ConfigError(f"max_tests is {max_tests!r}; expected a whole number of at least 1, or None for all")
    if groups is None:
        return
    if not isinstance(groups, Mapping) or not groups:
        raise ConfigError(f"groups is {groups!r}; expected a mapping from names to lists of patterns. Name a group")
    for name, patterns in groups.items():
        listed = isinstance(patterns, Sequence) and not isinstance(patterns, str)
        if not isinstance(name, str) or not name or name == REST or not listed or not patterns:
            raise ConfigError(
                f"groups has {name!r}: {patterns!r}; expected a name and a list of patterns of test names"
            )
