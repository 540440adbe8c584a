"""``rvpo.trl`` where a package of its extra is not installed."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

import rvpo
from rvpo.errors import ConfigError, MissingExtraError

BLOCK = """
import sys

class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == {package!r}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)

sys.meta_path.insert(0, Blocked())
"""


def python(package: str, code: str) -> subprocess.CompletedProcess[str]:
    """Run code where a package cannot be imported."""
    return subprocess.run(
        [sys.executable, "-c", BLOCK.format(package=package) + code],
        env=os.environ | {"PYTHONPATH": str(Path(rvpo.__file__).parents[1])},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.parametrize("package", ["trl", "transformers", "accelerate"])
@pytest.mark.parametrize(
    "code",
    [
        "from rvpo.trl import RVPOTrainer",
        "from rvpo.cli.app import main; sys.argv = ['rvpo', 'train', 'recipe.yaml']; main()",
    ],
    ids=["import", "train"],
)
def test_the_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, package: str, code: str):
    recipe = "name: a\nmodel: {path: m}\ndata: {path: d.jsonl}\nrewards: [format]\n"
    (tmp_path / "recipe.yaml").write_text(recipe)
    monkeypatch.chdir(tmp_path)
    done = python(package, code)
    last = done.stderr.strip().splitlines()[-1]
    assert done.returncode != 0
    assert "need the extra trl: pip install " in last
    assert last.endswith("'.[trl]' in the clone")
    assert f"No module named '{package}" in last
    assert "Traceback" not in done.stderr or "RVPOTrainer" in code


def test_a_script_can_do_without():
    code = "\ntry:\n    import rvpo.trl\nexcept ImportError as error:\n    print(type(error).__name__)"
    assert python("trl", code).stdout == "MissingExtraError\n"
    assert issubclass(MissingExtraError, ConfigError)
