"""The commands of ``rvpo eval``: their own options, those of every model, and names as the classes have them."""

from __future__ import annotations

import importlib
import inspect
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from rvpo.cli import eval as commands
from rvpo.cli.eval import _folder, app
from rvpo.errors import ConfigError
from rvpo.evals.build import BENCHMARKS, generation_of, load_benchmark
from rvpo.evals.toolcall import ToolCall

REQUIRED: dict[str, dict[str, Any]] = {
    "bfcl": {},
    "code": {"data": "x.jsonl"},
    "gpqa": {},
    "healthbench": {"data": Path("x.jsonl"), "judge": "rule"},
    "math": {"data": "x.jsonl"},
    "toolcall": {"data": "x.jsonl"},
}


@pytest.mark.parametrize("name", BENCHMARKS)
def test_options_of_a_command_are_those_of_its_benchmark(name: str):
    options = getattr(commands, name)
    defaults = {
        key: parameter.default
        for key, parameter in inspect.signature(options).parameters.items()
        if parameter.default is not inspect.Parameter.empty
    }
    module, maker = BENCHMARKS[name]
    signature = inspect.signature(getattr(importlib.import_module(module), maker))
    folder = {"folder": Path("out")} if name == "healthbench" else {}
    signature.bind(**options(**defaults, **REQUIRED[name]), **folder)  # TypeError for a name that the class has not


@pytest.mark.parametrize("name", BENCHMARKS)
def test_every_command_offers_the_options_of_models(name: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("COLUMNS", "200")
    told = CliRunner().invoke(app, [name, "--help"])
    assert told.exit_code == 0
    for option in ("--limit", "--out", "--temperature", "--batch-size", "--device", "--concurrency", "--extra-body"):
        assert option in told.output
    assert "Replies have up to" in told.output


def test_the_default_folder_is_named_after_benchmark_and_model(tmp_path: Path):
    assert _folder("gpqa", "http://localhost:8000/v1#org/my-model", None) == Path("runs/evals/gpqa/org-my-model")
    assert _folder("gpqa", str(tmp_path / "my-run" / "checkpoint-5"), None).name == "my-run-checkpoint-5"
    assert _folder("gpqa", "org/model", None).name == "org-model"
    assert _folder("gpqa", "org/model", tmp_path) == tmp_path


def test_words_that_no_benchmark_knows_are_refused(tmp_path: Path):
    with pytest.raises(ConfigError, match="benchmark is 'mmlu'; expected one of bfcl, gpqa, healthbench, toolcall"):
        load_benchmark("mmlu", {}, tmp_path)
    with pytest.raises(ConfigError, match=r"'data'; its options are path, epochs, seed, limit, subset, split"):
        load_benchmark("gpqa", {"data": "x.csv"}, tmp_path)
    with pytest.raises(ConfigError, match="its options are path, judge, subset, limit"):
        load_benchmark("healthbench", {"path": "x.jsonl", "judge": "rule", "limt": 3}, tmp_path)
    with pytest.raises(ConfigError, match=r"benchmark gpqa: .*; its options are"):
        load_benchmark("gpqa", {"path": "x.csv", "limit": "48"}, tmp_path)
    with pytest.raises(ConfigError, match=r"generation: unknown key 'max_token' \(did you mean 'max_tokens'\?\)"):
        generation_of(ToolCall, {"max_token": 5})
    assert generation_of(ToolCall, {"max_tokens": 5}).max_tokens == 5


def test_k_of_the_command_line():
    assert commands._whole_numbers("--k", "1, 8,32") == [1, 8, 32]
    assert commands._whole_numbers("--k", None) is None
    for text in ("", "1,", "1;2", "-1", "1.5", "²"):
        with pytest.raises(ConfigError, match=r"--k is .*; expected whole numbers, separated by commas"):
            commands._whole_numbers("--k", text)


def test_a_nucleus_that_is_not_given_is_the_benchmarks_own():
    from rvpo.evals.math import Math

    top_p = inspect.signature(commands._evaluate).parameters["top_p"].default
    assert top_p is None
    assert generation_of(Math, {}).top_p == 0.95
    assert generation_of(ToolCall, {}).top_p == 1.0
