"""Examples run as pasted: those in docstrings of the core and the step, in docs/methods.md and docs/structure.md.

Those of README, tutorials and how-tos are in test_docs_blocks.py, the generated pages in test_docs_site.py.
"""

from __future__ import annotations

import contextlib
import doctest
import importlib
import inspect
import io
import pkgutil
import re
from pathlib import Path

import pytest
import torch

import rvpo
import rvpo.core
import rvpo.step

ROOT = Path(__file__).parents[1]
MODULES = sorted(
    name
    for package in (rvpo.core, rvpo.step)
    for _, name, _ in pkgutil.walk_packages(package.__path__, f"{package.__name__}.")
)
METHODS = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "methods.md").read_text("utf-8"), re.DOTALL)
STRUCTURE = (ROOT / "docs" / "structure.md").read_text("utf-8")


@pytest.mark.parametrize("name", MODULES)
def test_docstrings(name: str):
    failed, _ = doctest.testmod(importlib.import_module(name), optionflags=doctest.NORMALIZE_WHITESPACE)
    assert not failed


def test_there_are_examples():
    finder = doctest.DocTestFinder(exclude_empty=True)
    with_examples = [name for name in MODULES if any(t.examples for t in finder.find(importlib.import_module(name)))]
    assert len(with_examples) > 4


@pytest.mark.parametrize("name", [name for name in rvpo.__all__ if name != "__version__"])
def test_every_public_name_has_an_example(name: str):
    """The examples are run by test_docstrings."""
    assert ">>> " in (inspect.getdoc(getattr(rvpo, name)) or "")


def test_the_examples_of_methods(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    names: dict = {}
    for block in METHODS:
        exec(block, names)
    rule = next(block for block in METHODS if "def cvar" in block)
    (tmp_path / "my_rules.py").write_text(rule)
    assert len([line for line in rule.splitlines() if line.strip()]) <= 15
    monkeypatch.chdir(tmp_path)
    rewards = torch.rand(8, 4, generator=torch.Generator().manual_seed(0))
    for alpha, limit in ((1e-6, "hard_min"), (1.0, "gdpo")):
        ours, theirs = (
            rvpo.advantages(rewards, num_generations=4, method=f"{method}whiten=none").aggregated
            for method in (f"my_rules.py:cvar:alpha={alpha},", f"{limit}:")
        )
        torch.testing.assert_close(ours, theirs)
    agg = rvpo.Aggregator(names["Patient"](wait=1), ["a", "b", "c", "d"])
    assert agg(rewards, num_generations=4).advantages.abs().max() == 0
    assert agg(rewards, num_generations=4).metrics["rvpo/batches"] == 2


def test_the_example_of_structures_prints_what_it_says():
    (block,) = re.findall(r"```python\n(.*?)```", STRUCTURE, re.DOTALL)
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        exec(block, {})
    assert f"    {printed.getvalue().strip()}\n" in STRUCTURE
