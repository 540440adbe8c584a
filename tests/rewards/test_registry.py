"""Reward entries of a recipe become callables: built-in names, modules and files, with their options bound."""

from __future__ import annotations

import asyncio
import inspect
from pathlib import Path

import pytest

from rvpo.errors import ConfigError
from rvpo.rewards import math, toolcall
from rvpo.rewards.registry import BUILTIN, FACTORIES, load_reward, needed_arguments
from rvpo.rewards.rubric import RubricReward

FILE = '''\
from __future__ import annotations

from dataclasses import dataclass

LOADED = []  # what a judge's weights would be


@dataclass
class Judged:  # needs its module to be registered
    value: float


def longer(completions, than=3, scale=1.0, **_):
    """Whether a completion is longer."""
    return [Judged(scale * (len(text) > than)).value for text in completions]


def state(completions, **_):
    return LOADED


async def later(completions, value=0.0, **_):
    return [value for _ in completions]


threshold = 3
'''


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "my_rewards.py"
    path.write_text(FILE, encoding="utf-8")
    return path


@pytest.mark.parametrize("name", [name for name in BUILTIN if name not in FACTORIES])
def test_builtin_names(name: str):
    module = math if name == "math" else toolcall
    assert load_reward(name) is getattr(module, f"{name}_reward")


def test_a_factory_is_called_with_the_options():
    reward = load_reward("rubric", {"judge": {"kind": "rule"}, "column": "mine", "max_missing": 0.5}, "manners")
    assert isinstance(reward, RubricReward)
    assert (reward.__name__, reward.column, reward.max_missing) == ("manners", "mine", 0.5)
    assert needed_arguments(reward) == ["mine"]
    with pytest.raises(ConfigError, match=r"reward 'rubric' cannot be built with these options: .*'judge'"):
        load_reward("rubric")
    with pytest.raises(ConfigError, match="has no option 'jugde'; it takes judge, column, aggregation"):
        load_reward("rubric", {"jugde": {"kind": "rule"}})


def test_a_class_is_built_with_the_options(tmp_path: Path):
    path = tmp_path / "mine.py"
    path.write_text(
        "class Threshold:\n"
        "    def __init__(self, at=1.0):\n"
        "        self.at = at\n"
        "    async def __call__(self, completions, **_):\n"
        "        return [self.at] * len(completions)\n"
    )
    reward = load_reward(f"{path}:Threshold", {"at": 0.5})
    assert asyncio.run(reward(completions=["a", "b"], prompts=["c", "d"])) == [0.5, 0.5]
    assert reward.__name__ == "Threshold"
    assert load_reward(f"{path}:Threshold", {"at": 0.5}, "half").__name__ == "half"


def test_module_function():
    assert load_reward("rvpo.rewards.toolcall:format_reward") is toolcall.format_reward


def test_function_of_a_file(file: Path):
    assert load_reward(f"{file}:longer")(["ab", "abcd"]) == [0.0, 1.0]


def test_file_relative_to_here_and_to_home(file: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(file.parent)
    assert load_reward("my_rewards.py:longer")(["abcd"]) == [1.0]
    monkeypatch.setenv("HOME", str(file.parent))
    assert load_reward("~/my_rewards.py:longer")(["abcd"]) == [1.0]


def test_a_file_is_loaded_once(file: Path):
    assert load_reward(f"{file}:state")([]) is load_reward(f"{file.parent}/./my_rewards.py:state")([])


def test_files_of_the_same_name_are_two(file: Path, tmp_path: Path):
    other = tmp_path / "other" / file.name
    other.parent.mkdir()
    other.write_text("def longer(completions, **_):\n    return [7.0]\n", encoding="utf-8")
    assert load_reward(f"{file}:longer")(["abcd"]) == [1.0]
    assert load_reward(f"{other}:longer")(["abcd"]) == [7.0]


def test_options_are_bound_and_the_name_is_kept(file: Path):
    """TRL names the channel after the function."""
    bound = load_reward(f"{file}:longer", {"than": 1, "scale": 2.0})
    assert bound(["a", "ab"]) == [0.0, 2.0]
    assert bound.__name__ == "longer"
    assert load_reward(f"{file}:longer", {})(["ab"]) == [0.0]


def test_options_of_an_async_function(file: Path):
    """TRL asks whether to await it."""
    bound = load_reward(f"{file}:later", {"value": 0.5})
    assert inspect.iscoroutinefunction(bound)
    assert asyncio.run(bound(["a", "b"])) == [0.5, 0.5]


def test_name_is_what_trl_logs(file: Path):
    """Whatever is wrapped; and TRL still knows what to await."""
    utils = pytest.importorskip("trl.trainer.utils")
    for spec, options in ((f"{file}:longer", {}), (f"{file}:longer", {"than": 1}), (f"{file}:later", {"value": 0.5})):
        named = load_reward(spec, options, "other")
        assert utils.get_callable_name(named) == "other"
        assert utils.is_async_callable(named) == spec.endswith("later")
    assert asyncio.run(named(completions=["a"])) == [0.5]
    assert load_reward(f"{file}:longer", {"than": 1}, "other")(["ab"]) == [1.0]
    assert load_reward(f"{file}:longer").__name__ == "longer"


def test_function_without_room_for_what_it_does_not_use(tmp_path: Path):
    path = tmp_path / "narrow.py"
    path.write_text("def narrow(completions):\n    return [0.0] * len(completions)\n")
    with pytest.raises(ConfigError, match=r"called with prompts, completions, .* Add \*\*_ to its parameters"):
        load_reward(f"{path}:narrow")


def test_needed_arguments(file: Path):
    assert needed_arguments(load_reward("format", None, "other")) == ["answer"]
    assert needed_arguments(load_reward(f"{file}:longer")) == []


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        (
            "formt",
            "'formt' (did you mean 'format'?); expected a built-in name (format, correctness, length, math, rubric, "
            "pairwise, code, turns), 'module:function' or 'file.py:function'",
        ),
        (":format_reward", "reward is ':format_reward' (did you mean 'format'?); expected a built-in name"),
        (
            "rvpo.rewards.toolcall:formt",
            "rvpo.rewards.toolcall has no 'formt'; expected one of its functions and classes: ",
        ),
        ("rvpo.rewards.toolcall:formatreward", "has no 'formatreward' (did you mean 'format_reward'?)"),
        ("rvpo.rewards.toolcall:", "reward is 'rvpo.rewards.toolcall:'; expected a built-in name"),
        ("rvpo.rewards.toolcall:WORDS", "has the type int; expected a function or a class"),
        ("rvpo.rewards.toolcall:__name__", "has the type str; expected a function or a class"),
        (
            "no_such_module:f",
            "no_such_module cannot be imported (ModuleNotFoundError: No module named 'no_such_module'",
        ),
        ("none.py:f", "the file none.py does not exist in "),
    ],
)
def test_nothing_callable_there(spec: str, message: str):
    with pytest.raises(ConfigError) as caught:
        load_reward(spec)
    assert message in str(caught.value)
    assert repr(spec) in str(caught.value)


def test_file_without_the_function(file: Path):
    with pytest.raises(ConfigError, match="has no 'shorter'"):
        load_reward(f"{file}:shorter")
    with pytest.raises(ConfigError, match=r":threshold' has the type int; expected a function or a class"):
        load_reward(f"{file}:threshold")


def test_unknown_option(file: Path):
    with pytest.raises(ConfigError, match="has no option 'then'; it takes completions, than, scale"):
        load_reward(f"{file}:longer", {"then": 1})


def test_errors_of_the_file_itself_name_their_line(tmp_path: Path):
    """Its author needs the place; and a second try runs the file again."""
    path = tmp_path / "broken.py"
    path.write_text("raise RuntimeError('no judge here')\n", encoding="utf-8")
    for _ in range(2):
        with pytest.raises(ConfigError, match=r"RuntimeError: no judge here, .*broken\.py, line 1\)") as caught:
            load_reward(f"{path}:f")
        assert isinstance(caught.value.__cause__, RuntimeError), "with its traceback"
