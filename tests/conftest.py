"""Fixtures shared by all tests. Nothing is downloaded: the model and the tokenizer are made here."""

from __future__ import annotations

import importlib.metadata
import multiprocessing
import os
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING

import pytest

# Before any import of transformers or datasets, in this process and in the ones that tests start.
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["HF_DATASETS_OFFLINE"] = "1"
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

# verl and TRL exclude each other, so each has its own environment: `make test-trl`, `make test-verl`.
HAS_VERL = any(importlib.metadata.packages_distributions().get("verl", []))
HERE = Path(__file__).parent
OF_VERL = HERE / "engines" / "verl"


def pytest_ignore_collect(collection_path: Path) -> bool | None:
    """Leave out what this environment cannot run."""
    if collection_path.is_dir() and (collection_path in OF_VERL.parents or collection_path in HERE.parents):
        return None
    if collection_path == HERE / "conftest.py":
        return None
    of_verl = collection_path == OF_VERL or OF_VERL in collection_path.parents
    return True if of_verl != HAS_VERL else None


def pytest_report_header() -> str:
    return "without what needs TRL (make test-trl)" if HAS_VERL else "without what needs verl (make test-verl)"


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Let ``--dist loadgroup`` see the groups: tests of one ``xdist_group`` run on one worker and share fixtures.

    pytest-xdist 3.8 appends the group to ``Item._nodeid``, which pytest 9.2 no longer reads.
    """
    if not config.getoption("loadgroup", False):
        return
    for item in items:
        for mark in item.iter_markers("xdist_group"):
            if not item.nodeid.endswith(end := f"@{mark.args[0]}"):
                item._id = type(item._id).parse(item.nodeid + end)  # type: ignore[attr-defined]


if TYPE_CHECKING:
    from datasets import Dataset


@pytest.fixture(scope="session")
def tiny_model_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with a random 2-layer Llama and its word-level tokenizer, 40 words with a chat template.

    ``AutoModelForCausalLM`` and ``AutoTokenizer`` load it; every session makes the same weights. Tests must not
    write into it.
    """
    for name in ("torch", "tokenizers", "transformers"):
        pytest.importorskip(name)
    from tiny_model import save_tiny_model

    folder = tmp_path_factory.mktemp("tiny-model")
    save_tiny_model(folder)
    return folder


@pytest.fixture(scope="session")
def prompt_dataset() -> Callable[..., Dataset]:
    """Return a builder ``prompt_dataset(rows, conversational=False)`` of a ``datasets.Dataset`` of distinct prompts.

    Columns: ``prompt`` (a string, or one user message where ``conversational``) and ``index`` (int, the row), by which
    a reward function can look up rewards that a test chose.
    """
    datasets = pytest.importorskip("datasets")

    from tiny_model import WORDS

    def build(rows: int, *, conversational: bool = False) -> Dataset:
        texts = [f"{WORDS[i % len(WORDS)]} {WORDS[i // len(WORDS) % len(WORDS)]} what is it" for i in range(rows)]
        prompts = [[{"role": "user", "content": text}] for text in texts] if conversational else texts
        return datasets.Dataset.from_dict({"prompt": prompts, "index": list(range(rows))})

    return build


@pytest.fixture
def warm_workers(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the quickstart fork its workers from a process that has imported TRL, instead of starting each anew."""
    from rvpo.quickstart import runner

    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["rvpo.quickstart.train"])
    monkeypatch.setattr(runner, "mp", SimpleNamespace(get_context=lambda _: context))


@pytest.fixture(autouse=True)
def one_thread():
    """Tiny models gain nothing from threads, and results stay the same on every machine."""
    torch = pytest.importorskip("torch")
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
