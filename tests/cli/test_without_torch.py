"""Logs are diagnosed where torch is not installed, and torch is not imported where it is."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pyarrow.parquet as pq
import pytest

import rvpo
from rvpo.cli.demo import SAMPLE

BLOCKED = """
import sys

class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == "torch":
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Blocked())
import importlib.util
real = importlib.util.find_spec
importlib.util.find_spec = lambda name, package=None: None if name == "torch" else real(name, package)
"""
COMMANDS = """
import sys
from rvpo.cli.app import main
sys.argv = ["rvpo", *sys.argv[1:]]
try:
    main()
finally:
    slow = [name for name in ("torch", "scipy.stats", "pandas") if name in sys.modules]
    print(f"imported: {slow}", file=sys.stderr)
"""


def rvpo_command(*arguments: object, blocked: bool = True) -> subprocess.CompletedProcess[str]:
    code = (BLOCKED if blocked else "") + COMMANDS
    environment = os.environ | {"PYTHONPATH": str(Path(rvpo.__file__).parents[1]), "COLUMNS": "200", "NO_COLOR": "1"}
    command = [sys.executable, "-c", code, *map(str, arguments)]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)


def test_the_demo_imports_nothing_slow():
    done = rvpo_command("demo", blocked=False)
    assert done.returncode == 0, done.stderr
    assert "2 of 6 channels are neglected: brevity, format" in " ".join(done.stdout.split())
    assert "imported: []" in done.stderr


@pytest.fixture(scope="module")
def without_advantages(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The sample without its advantages, and with some rewards missing."""
    table = pq.read_table(SAMPLE / "completions").drop_columns(["advantage"])
    detail = [None if i % 7 == 0 else x for i, x in enumerate(table["detail"].to_pylist())]
    place = table.schema.get_field_index("detail")
    path = tmp_path_factory.mktemp("logs") / "rollouts.parquet"
    pq.write_table(table.set_column(place, "detail", [detail]), path)
    return path


def test_logs_without_advantages_are_diagnosed(without_advantages: Path):
    done = rvpo_command("diagnose", without_advantages)
    assert done.returncode == 0, done.stderr
    assert "advantages are those of GRPO on the plain sum" in done.stdout.replace("\n", " ")
    assert "as TRL does" in done.stdout  # a missing reward counts as 0
    assert "imported: []" in done.stderr
    with_torch = rvpo_command("diagnose", without_advantages, blocked=False)
    assert with_torch.stdout == done.stdout


@pytest.mark.parametrize(
    "arguments", [("replay", SAMPLE), ("diagnose", "LOGS", "--method", "lift")], ids=["replay", "diagnose"]
)
def test_what_needs_torch_names_the_extra(arguments: tuple[object, ...], without_advantages: Path):
    done = rvpo_command(*(without_advantages if part == "LOGS" else part for part in arguments))
    assert done.returncode == 2
    told = " ".join(done.stderr.split())
    assert "No module named 'torch'; replays, and methods other than grpo and gdpo, need the extra torch: pip" in told
    assert told.count("pip install") == 1


def test_a_page_says_that_it_has_no_replays(tmp_path: Path):
    done = rvpo_command("report", SAMPLE, "--out", tmp_path / "report.html")
    assert done.returncode == 0, done.stderr
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert "this page does not replay other methods, because torch is not installed: pip install " in page
    assert "citations" in page
