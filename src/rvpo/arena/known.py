"""Scores of earlier trainings in a file, so that a new rule is compared with all others without training them again.

``known.json`` next to this module has the published scores. A score is used only if its rule and its task have not
changed:

- **Rule.** The advantages for a fixed series of batches are recorded with the scores. If a rule gives different
  advantages today, it has changed, and it is trained again.
- **Task.** A digest of the field's scripts, without comments and docstrings, is recorded with the scores.
"""

from __future__ import annotations

import ast
import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch

from rvpo.arena.fields import Run
from rvpo.arena.table import Scores
from rvpo.core.methods.registry import METHODS
from rvpo.errors import ConfigError
from rvpo.step.aggregator import Aggregator

PUBLISHED = Path(__file__).with_name("known.json")
VERSION = 1
SCALE = 100_000  # scores are stored as whole numbers of 1e-5
TOLERANCE = 1e-3  # for a rule's answers: larger than differences between processors, smaller than between rules

BATCHES, COMPLETIONS, GROUP, CHANNELS = 4, 64, 8, 5
REPORTS = ("table.py", "plot.py", "scores.py")  # scripts that do not train


@dataclass(frozen=True)
class Known:
    """The content of a file.

    Attributes:
        answers: text of a rule -> result of :func:`answers_of` when it was trained.
        tasks: name of a field -> digest of its scripts.
        runs: name of a field -> its runs.
    """

    answers: Mapping[str, Sequence[float]] = field(default_factory=dict)
    tasks: Mapping[str, str] = field(default_factory=dict)
    runs: Mapping[str, Sequence[Run]] = field(default_factory=dict)

    @classmethod
    def read(cls, path: Path) -> Known:
        """Read a file that :func:`text` wrote.

        Raises:
            ConfigError: the file cannot be read or has another layout.
        """
        try:
            content: dict[str, Any] = json.loads(path.read_text("utf-8"))
            if content["version"] != VERSION:
                raise ValueError(f"version {content['version']}")
            return cls(
                content["answers"],
                {name: one["task"] for name, one in content["fields"].items()},
                {name: list(_unpacked(one["cells"], one["seeds"])) for name, one in content["fields"].items()},
            )
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise ConfigError(
                f"cannot read known scores in {path} ({error}); expected a scores.json of `rvpo arena`. "
                "To train all rules, set --known none"
            ) from error

    def changed(self, methods: Iterable[str]) -> list[str]:
        """Return the rules of the file that give different advantages today."""
        return [method for method in methods if method in self.answers and not _same(self.answers[method], method)]

    def without(self, method: str) -> Known:
        """Return the scores of all other rules."""
        runs = {name: [run for run in runs if run.method != method] for name, runs in self.runs.items()}
        return replace(self, runs=runs)

    def is_of(self, name: str, task: str) -> bool:
        """Whether a field's scores, if there are any, were made with the same task."""
        return self.tasks.get(name, task) == task

    def of(self, name: str, task: str, methods: Sequence[str], cells: Sequence[str], seeds: Sequence[int]) -> list[Run]:
        """Return the runs of a field for these rules, cells and seeds; empty if the task has changed."""
        if self.tasks.get(name) != task:
            return []
        return [run for run in self.runs[name] if run.method in methods and run.cell in cells and run.seed in seeds]


def answers_of(method: str) -> list[float]:
    """Return the advantages of a rule for a fixed series of batches, each projected on a fixed direction.

    The batches have binary and graded rewards and one constant group, and need no random numbers.
    """
    names = [f"channel {j}" for j in range(CHANNELS)]
    aggregator = Aggregator(method, names)
    aggregator.quiet = True
    row = torch.arange(COMPLETIONS, dtype=torch.float64)[:, None]
    column = torch.arange(CHANNELS, dtype=torch.float64)[None]
    direction = torch.sin(1.7 * row[:, 0])
    answers = []
    for number in range(BATCHES):
        waves = torch.sin(12.9898 * (row + 1) + 78.233 * (column + 1) + 37.719 * number)
        rewards = (waves + 1) / 2
        rewards[:, :3] = (rewards[:, :3] > torch.tensor([0.3, 0.5, 0.8])).double()
        rewards[:GROUP] = 0.5
        advantages = aggregator(rewards, num_generations=GROUP, progress=number / BATCHES).advantages
        answers.append(round(float(advantages.double() @ direction), 6))
    return answers


def task_of(folder: Path) -> str:
    """Return a digest of the syntax of a folder's training scripts, without comments and docstrings."""
    digest = hashlib.sha256()
    for path in sorted(folder.glob("*.py")):
        if path.name not in REPORTS:
            tree = ast.parse(path.read_text("utf-8"))
            for node in list(ast.walk(tree)):
                if body := getattr(node, "body", None):
                    node.body = _without_docstring(body)  # type: ignore[attr-defined]
            for node in ast.walk(tree):
                digest.update(repr(_atoms(node)).encode())
    return digest.hexdigest()[:16]


def text(tasks: Mapping[str, str], scores: Mapping[str, Scores], runs: Mapping[str, Sequence[Run]]) -> str:
    """Return the content of a file: the runs of all complete cells.

    Rules from a user's own file are left out, because their path is not valid on other machines.
    """
    texts = list(dict.fromkeys(method for one in scores.values() for method in one.methods if _is_shipped(method)))
    fields = {}
    for name, one in scores.items():
        kept = [run for run in runs[name] if run.cell in one.cells and run.method in texts and run.seed in one.seeds]
        fields[name] = {"task": tasks[name], "seeds": list(one.seeds), "cells": _packed(kept)}
    content = {"version": VERSION, "answers": {method: answers_of(method) for method in texts}, "fields": fields}
    return json.dumps(content, separators=(",", ":")).replace('"],', '"],\n').replace('}},"', '}},\n"') + "\n"


def _is_shipped(method: str) -> bool:
    return method.partition(":")[0] in METHODS


def _same(answers: Sequence[float], method: str) -> bool:
    today = answers_of(method)
    return len(today) == len(answers) and max(abs(a - b) for a, b in zip(today, answers, strict=True)) <= TOLERANCE


def _packed(runs: Sequence[Run]) -> dict[str, Any]:
    """Return cell -> method -> learning rate -> [AUC, final], each with one value per seed in units of 1 / SCALE."""
    cells: dict[str, Any] = {}
    for run in sorted(runs, key=lambda run: (run.cell, run.method, run.rate, run.seed)):
        place = cells.setdefault(run.cell, {}).setdefault(run.method, {}).setdefault(repr(run.rate), [[], []])
        place[0].append(round(SCALE * run.auc))
        place[1].append(round(SCALE * run.final))
    return cells


def _unpacked(cells: Mapping[str, Any], seeds: Sequence[int]) -> Iterable[Run]:
    for cell, methods in cells.items():
        for method, rates in methods.items():
            for rate, columns in rates.items():
                for seed, auc, final in zip(seeds, *columns, strict=True):
                    yield Run(cell, method, float(rate), seed, auc / SCALE, final / SCALE)


def _without_docstring(body: Any) -> Any:
    """Return the statements of a function, class or module; the body of a lambda or condition unchanged."""
    if not isinstance(body, list) or not isinstance(body[0], ast.Expr):
        return body
    value = body[0].value
    return body[1:] if isinstance(value, ast.Constant) and isinstance(value.value, str) else body


def _atoms(node: ast.AST) -> list[Any]:
    """Return a node's type with the names and constants in it, which are the same in all versions of Python."""
    values = [(name, value) for name, value in ast.iter_fields(node) if isinstance(value, (str, int, float))]
    return [type(node).__name__, *values]
