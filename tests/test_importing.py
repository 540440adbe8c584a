"""From text to an object of foreign code."""

from __future__ import annotations

import pickle
import sys
import threading
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from rvpo.errors import ConfigError
from rvpo.importing import is_object_spec, load_callable, load_object

FILE = """
from dataclasses import dataclass

ran = []
weight = 0.5


@dataclass
class Point:
    x: int = 0

    def norm(self):
        return abs(self.x)

    @classmethod
    def make(cls):
        return cls(3)


def politeness(completions, **_):
    return [1.0 for _ in completions]
"""


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder, with my_rewards.py in it."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "my_rewards.py").write_text(FILE, encoding="utf-8")
    return tmp_path


def put(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return path


def refused(spec: str) -> str:
    with pytest.raises(ConfigError) as caught:
        load_object(spec, "reward")
    return str(caught.value)


@pytest.mark.parametrize(
    "text",
    [
        "x.py:name",
        "folder/x.py:name",
        "~/x.py:Class.method",
        r"C:\x.py:f",
        "a.b:name",
        "math:sqrt",
        "with blank/my-file.py:f",
    ],
)
def test_object_specs(text: str):
    assert is_object_spec(text)


@pytest.mark.parametrize(
    "text",
    [
        "",
        ":",
        "format",
        "x.py",
        "x.py:",
        ":f",
        r"C:\x.py",
        "a.b:",
        "a..b:f",
        "a.b:f.",
        "a.b:f()",
        "folder/x.txt:f",
        "a b:f",
        "a.b:1f",
        "rvpo:rvpo?k=1",
        "http://localhost:8000/v1#model",
        "__import__('os').system('true'):f",
    ],
)
def test_what_is_no_object_spec(text: str):
    assert not is_object_spec(text)
    assert f"reward is {text!r}; expected package.module:name or path/to/file.py:name. Give" in refused(text)


def test_files_and_modules_are_found_from_the_current_folder(here: Path):
    put(here / "a_package_of_this_folder" / "__init__.py", "")
    put(here / "a_package_of_this_folder" / "inner.py", "def f():\n    return 'inner'\n")
    before = list(sys.path)
    assert load_object("my_rewards.py:politeness", "reward")(["a", "b"]) == [1.0, 1.0]
    assert load_object("a_package_of_this_folder.inner:f", "reward")() == "inner"
    assert load_object("math:sqrt", "reward")(4.0) == 2.0
    assert sys.path == before


def test_a_home_folder_is_expanded(here: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("HOME", str(here))
    monkeypatch.setenv("USERPROFILE", str(here))
    assert load_object("~/my_rewards.py:weight", "reward") == 0.5


def test_names_may_have_dots(here: Path):
    assert load_object("my_rewards.py:Point.make", "reward")().norm() == 3
    assert load_object("os:path.join", "reward")


def test_a_file_is_imported_once_whatever_its_path_is_called(here: Path, monkeypatch: pytest.MonkeyPatch):
    put(here / "folder" / "x.py", "")
    (here / "link.py").symlink_to(here / "my_rewards.py")
    ran = load_object("my_rewards.py:ran", "reward")
    for spec in (f"{here}/my_rewards.py:ran", "folder/../my_rewards.py:ran", "link.py:ran"):
        assert load_object(spec, "judge") is ran
    monkeypatch.chdir(here / "folder")
    assert load_object("../my_rewards.py:ran", "reward") is ran


def test_threads_get_one_module(here: Path):
    put(here / "slow.py", "import time\ntime.sleep(0.2)\nran = []\n")
    found: list[Any] = []
    threads = [threading.Thread(target=lambda: found.append(load_object("slow.py:ran", "reward"))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 4
    assert len({id(ran) for ran in found}) == 1


def test_two_files_with_one_stem_are_two_modules(here: Path):
    """Also when the stem is that of an installed module."""
    for folder in ("a", "b"):
        put(here / folder / "json.py", f"class Where:\n    folder = {folder!r}\n")
    found = [load_object(f"{folder}/json.py:Where", "reward") for folder in ("a", "b")]
    assert [where.folder for where in found] == ["a", "b"]
    assert sys.modules["json"].__name__ == "json"
    assert not hasattr(sys.modules["json"], "Where")


def test_dataclasses_and_pickle_find_their_module(here: Path):
    put(here / "odd folder.v2" / "my-points.v1.py", "from __future__ import annotations\n" + FILE)
    for where in ("my_rewards.py", "odd folder.v2/my-points.v1.py"):
        point = load_object(f"{where}:Point", "reward")(4)
        assert pickle.loads(pickle.dumps(point)) == point


def test_modules_next_to_the_file_can_be_imported_while_it_loads(here: Path):
    put(here / "project" / "helper_next_to_it.py", "VALUE = 7\n")
    put(here / "project" / "uses_helper.py", "import helper_next_to_it\nvalue = helper_next_to_it.VALUE\n")
    before = list(sys.path)
    assert load_object("project/uses_helper.py:value", "reward") == 7
    assert sys.path == before


def test_a_file_may_load_another_one(here: Path):
    put(
        here / "outer.py", "from rvpo.importing import load_object\nf = load_object('my_rewards.py:weight', 'reward')\n"
    )
    assert load_object("outer.py:f", "reward") == 0.5


@pytest.mark.parametrize(
    ("code", "said"),
    [
        ("x = 1\nraise RuntimeError('no judge here')\n", "RuntimeError: no judge here, {path}, line 2)"),
        ("import sys\nsys.exit(3)\n", "SystemExit: 3, {path}, line 2)"),
        ("def f(:\n", "SyntaxError: invalid syntax (broken.py, line 1))"),
        ("import no_such_module\n", "ModuleNotFoundError: No module named 'no_such_module', {path}, line 1)"),
        ("def f():\n    return f()\nf()\n", "RecursionError: maximum recursion depth exceeded"),
        ("x = '\ud800'\n", "cannot be imported ("),
    ],
)
def test_a_file_that_cannot_be_imported_says_where_it_fails(here: Path, code: str, said: str):
    path = here / "broken.py"
    path.write_bytes(code.encode(errors="surrogatepass"))
    before = set(sys.modules)
    for _ in range(2):
        message = refused("broken.py:f")
        assert "reward 'broken.py:f': broken.py cannot be imported (" in message
        assert said.format(path=path) in message
        assert f"found from {here}" in message
    assert not [name for name in set(sys.modules) - before if "broken" in name], "a second try runs it again"
    put(path, "f = 1\n# longer than before, so that no cache is taken for it\n")
    assert load_object("broken.py:f", "reward") == 1


def test_an_interrupt_of_the_user_passes_through(here: Path):
    put(here / "interrupted.py", "raise KeyboardInterrupt\n")
    with pytest.raises(KeyboardInterrupt):
        load_object("interrupted.py:f", "reward")
    assert not [name for name in sys.modules if name.endswith("/interrupted.py") or name == "interrupted"]


def test_what_does_not_exist_is_named_with_what_does(here: Path):
    assert f"reward 'none.py:f': the file none.py does not exist in {here}; expected package.module:name" in refused(
        "none.py:f"
    )
    put(here / "folder.py" / "x", "")
    assert "the file folder.py does not exist" in refused("folder.py:f")
    message = refused("no.such.module:f")
    assert "no.such.module cannot be imported (ModuleNotFoundError: No module named 'no'); expected" in message
    assert "Check the name and its folder, or install no." in message
    message = refused("my_rewards.py:politenes")
    assert "my_rewards.py has no 'politenes' (did you mean 'politeness'?); expected one of its functions and" in message
    assert "classes: Point, politeness. Check the name." in message
    assert "my_rewards.py.Point has no 'mke' (did you mean 'make'?)" in refused("my_rewards.py:Point.mke")
    assert "has no 'x'; expected one of its functions and classes: " in refused("my_rewards.py:weight.x")


def test_a_module_that_fails_to_give_a_name(here: Path):
    put(here / "lazy.py", "def __getattr__(name):\n    if name[0] != '_':\n        raise RuntimeError('not today')\n")
    assert "lazy.py fails to give 'f' (RuntimeError: not today, " in refused("lazy.py:f")


def test_only_what_can_be_called_is_a_callable(here: Path):
    assert load_callable("my_rewards.py:Point", "judge")(2).x == 2
    with pytest.raises(ConfigError, match=r"judge 'my_rewards.py:weight' has the type float; expected a function"):
        load_callable("my_rewards.py:weight", "judge")


def test_a_drive_letter_is_part_of_the_path(monkeypatch: pytest.MonkeyPatch):
    asked: list[str] = []

    def module(where: str, what: str) -> ModuleType:
        asked.append(where)
        return ModuleType("x", "doc")

    monkeypatch.setattr("rvpo.importing._module_of_file", module)
    assert load_object(r"C:\folder\x.py:__doc__", "reward") == "doc"
    assert asked == [r"C:\folder\x.py"]


def test_the_module_names_no_heavy_package():
    import ast

    import rvpo.importing

    tree = ast.parse(Path(rvpo.importing.__file__).read_text("utf-8"))
    found = {node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) and node.module}
    assert {name for name in found if name.startswith("rvpo")} == {"rvpo.errors", "rvpo.text.suggest"}
    others = {name.partition(".")[0] for name in found} | {
        alias.name.partition(".")[0] for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names
    }
    assert others - sys.stdlib_module_names == {"rvpo"}
