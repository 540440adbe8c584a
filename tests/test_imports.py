"""The import law: the core needs torch alone, and only ``rvpo.engines`` knows an engine."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import rvpo

PACKAGE = Path(rvpo.__file__).parent
# From the ground up: a room imports only from rooms that stand before it.
ROOMS = (
    "errors",
    "extras",
    "interrupts",
    "forks",
    "text",
    "importing",
    "files",
    "database",
    "pictures",
    "net",
    "sandbox",
    "statistics",
    "core",
    "arrays",
    "step",
    "rewards",
    "data",
    "recipe",
    "logs",
    "judges",
    "conformance",
    "diagnose",
    "evals",
    "compare",
    "page",
    "engines",
    "trl",
    "verl",
    "swift",
    "axolotl",
    "slime",
    "nemo_rl",
    "prime_rl",
    "rllm",
    "skyrl",
    "tinker",
    "quickstart",
    "arena",
    "cli",
    "__main__",
)
ENGINES = ("trl", "transformers", "verl", "ray", "datasets", "accelerate", "peft", "vllm")

TRAINERS = (
    "trl",
    "verl",
    "ray",
    "vllm",
    "slime",
    "nemo_rl",
    "prime_rl",
    "verifiers",
    "rllm",
    "skyrl",
    "tinker_cookbook",
    "swift",
    "axolotl",
)


def python(code: str) -> str:
    """Run code in a fresh interpreter that finds this checkout of rvpo, and return what it printed."""
    environment = os.environ | {"PYTHONPATH": str(PACKAGE.parent)}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def imports(path: Path) -> Iterator[tuple[str, int]]:
    """Yield the absolute dotted name and the line of every import in a file, at any depth."""
    package = path.relative_to(PACKAGE.parent).parent.parts
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from ((alias.name, node.lineno) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = ".".join(package[: len(package) - node.level + 1]) + "." if node.level else ""
            yield from ((f"{base}{node.module or ''}.{alias.name}", node.lineno) for alias in node.names)


def files(folder: str) -> list[Path]:
    found = sorted((PACKAGE / folder).rglob("*.py"))
    assert found, f"no Python files under {folder}"
    return found


def test_core_works_where_engines_cannot_be_imported():
    code = f"""
import sys

class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {ENGINES!r}:
            raise ImportError(f"{{name}} is blocked")

sys.meta_path.insert(0, Blocked())
import torch, rvpo
out = rvpo.advantages(torch.tensor([[0., 2.], [1., 0.], [2., 1.]]), num_generations=3, method="gdpo", eps=0.)
assert rvpo.Linear()(0.5) == 1.25
assert rvpo.Aggregator("lift", ["a", "b"])([[0, 1], [1, 0]], num_generations=2).advantages is not None
print([round(value, 6) for value in out.advantages.tolist()], len(out.metrics()))
"""
    assert python(code) == "[0.0, -1.0, 1.0] 20"  # eight metrics per channel, and four of the batch


def test_import_rvpo_loads_nothing_heavy():
    """Not even torch: a command line that only prints its help should not wait for it."""
    code = f"""
import sys
before = set(sys.modules)
import rvpo
loaded = {{name.partition(".")[0] for name in set(sys.modules) - before}}
print(sorted(loaded - set(sys.stdlib_module_names)))
assert not loaded & {{"torch", "numpy", *{ENGINES!r}}}
"""
    assert python(code) == "['rvpo']"


def test_importing_the_core_adds_only_rvpo_to_torch():
    code = """
import sys
import torch
before = set(sys.modules)
import rvpo.core, rvpo.core.metrics, rvpo.core.schedules
loaded = {name.partition(".")[0] for name in set(sys.modules) - before}
print(sorted(loaded - set(sys.stdlib_module_names)))
"""
    assert python(code) == "['rvpo']"


@pytest.mark.parametrize("path", files("core"), ids=lambda path: path.name)
def test_core_imports_only_torch_and_the_standard_library(path: Path):
    for name, line in imports(path):
        top = name.partition(".")[0]
        own = name.startswith(("rvpo.core", "rvpo.errors", "rvpo.text.suggest", "rvpo.importing"))
        assert own or top == "torch" or top in sys.stdlib_module_names, f"{path.name}:{line} imports {name}"


def room(name: str) -> str | None:
    """Return the room of a dotted name of ours, None for names of others and for ``rvpo`` itself."""
    first, _, rest = name.partition(".")
    return rest.partition(".")[0] if first == "rvpo" and rest.partition(".")[0] in ROOMS else None


def test_every_room_has_its_floor():
    here = {path.stem for path in PACKAGE.iterdir() if path.suffix == ".py" or (path / "__init__.py").is_file()}
    assert here - {"__init__", "_version"} == set(ROOMS)  # the version is written by an install


@pytest.mark.parametrize("place", ROOMS)
def test_a_room_imports_only_from_rooms_below_it(place: str):
    below = ROOMS[: ROOMS.index(place) + 1]
    own = files(place) if (PACKAGE / place).is_dir() else [PACKAGE / f"{place}.py"]
    for path in own:
        for name, line in imports(path):
            assert room(name) in (None, *below), f"{path}:{line} imports {name}, which lies above {place}"


def test_typer_is_imported_by_the_command_line_alone():
    for path in sorted(PACKAGE.rglob("*.py")):
        if path.is_relative_to(PACKAGE / "cli"):
            continue
        for name, line in imports(path):
            assert name.partition(".")[0] not in ("typer", "click"), f"{path}:{line} imports {name}"


def test_one_room_has_a_network():
    """The hub aside, which ``datasets`` and ``transformers`` reach for. A live report is served, and asks nobody."""
    for path in sorted(PACKAGE.rglob("*.py")):
        if "net" in path.relative_to(PACKAGE).parts:
            continue
        if path == PACKAGE / "page" / "live.py":
            assert {name for name, _ in imports(path) if name.startswith(("http", "socket"))} == {
                "http.server.BaseHTTPRequestHandler",
                "http.server.ThreadingHTTPServer",
                "socket",  # for the names of the families of addresses
            }
            continue
        for name, line in imports(path):
            top = name.partition(".")[0]
            assert top not in ("openai", "aiohttp", "httpx", "requests", "urllib3", "socket", "http"), f"{path}:{line}"


def test_the_command_line_loads_nothing_of_an_evaluation():
    code = """
import sys
import rvpo.cli.app
heavy = ("torch", "numpy", "scipy", "pyarrow", "transformers", "inspect_ai", "bfcl_eval", "openai", "aiohttp")
print([name for name in heavy if name in sys.modules])
"""
    assert python(code) == "[]"


def test_rubrics_know_no_judge():
    """The protocol lies with the rubrics, so that judges import rewards and never the other way round."""
    for path in files("rewards"):
        for name, line in imports(path):
            assert not name.startswith("rvpo.judges"), f"{path}:{line} imports {name}"


def test_rubrics_and_judges_load_without_anything_heavy():
    code = """
import sys
import rvpo.judges
from rvpo.rewards.rubric import Judge, Rubric
print([name for name in ("torch", "transformers", "openai", "aiohttp", "jsonschema", "regex") if name in sys.modules])
"""
    assert python(code) == "[]"


def test_training_engines_are_named_in_rvpo_engines_only():
    """``rvpo/trl.py`` re-exports rvpo.engines.trl and so names no engine itself."""
    for path in sorted(PACKAGE.rglob("*.py")):
        if "engines" in path.relative_to(PACKAGE).parts:
            continue
        for name, line in imports(path):
            assert name.partition(".")[0] not in TRAINERS, f"{path}:{line} imports {name}"


def test_every_public_name_loads():
    for name in rvpo.__all__:
        assert getattr(rvpo, name) is not None
    assert set(dir(rvpo)) == set(rvpo.__all__)
    with pytest.raises(AttributeError, match="no attribute 'advantage'; public names are CTWA, DARA"):
        rvpo.advantage  # noqa: B018
