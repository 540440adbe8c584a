"""Recipes: every shipped one is whole, and what cannot work is refused with the field and the value seen."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import ValidationError

import rvpo
from rvpo.errors import ConfigError
from rvpo.recipe import Recipe, build_recipe, load_recipe, load_recorded_recipe
from rvpo.rewards.registry import load_reward
from rvpo.step.structure import AllOf, Gate

SHIPPED = sorted((Path(__file__).parents[1] / "recipes").glob("*.yaml"))
LEAST: dict[str, Any] = {"name": "a", "model": {"path": "m"}, "data": {"path": "d"}, "rewards": ["format"]}
FULL = """\
name: a
model: {path: m}
data: {path: d}
rewards:
  - format
  - {function: correctness, weight: 2.0}
method: rvpo:k=1.0
trainer: {max_steps: 5}
"""


def write(folder: Path, text: str) -> Path:
    path = folder / "recipe.yaml"
    path.write_text(text, encoding="utf-8")
    return path


@pytest.fixture
def full(tmp_path: Path) -> Path:
    return write(tmp_path, FULL)


def refused(**sections: Any) -> str:
    with pytest.raises(ConfigError) as caught:
        build_recipe(LEAST | sections)
    return str(caught.value)


# --- the shipped recipes ----------------------------------------------------------------------------------------------


def test_recipes_are_shipped():
    assert len(SHIPPED) >= 7


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_shipped_recipe_parses(path: Path):
    recipe = load_recipe(path)
    assert recipe.name == path.stem
    rewards = ["rubric"] if recipe.data.layout in ("rar", "rubrics") else ["format", "correctness"]
    rewards = ["math"] if "math" in path.stem else rewards
    assert [entry.function for entry in recipe.rewards] == rewards


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_shipped_recipe_makes_trainer_arguments(path: Path):
    """As they are: without a GPU rvpo sets ``use_cpu``, with which bf16 is allowed; vLLM starts with the trainer."""
    pytest.importorskip("trl")
    from rvpo.engines.trl import run
    from rvpo.engines.trl.warm_start import config

    recipe = load_recipe(path)
    args = run._config(recipe, [entry.name or entry.function for entry in recipe.rewards])
    method = args.advantage_config().method
    if "riskpo" in path.stem:
        assert method == rvpo.RiskPO(bundle_size=5, lower=0.2, upper=0.8, tail_weight=0.5, quantiles="track")
    elif path.stem.startswith("qwen"):
        assert method == rvpo.RVPO(rvpo.Linear(0.5, 2.0), dead_channels="keep")
    else:
        assert method == rvpo.RVPO(rvpo.Linear(0.5, 2.0) if "rubrics" in path.stem else 1.0)
    assert recipe.method == args.method == str(args.advantage_config())
    assert args.output_dir == f"runs/{path.stem}"
    assert args.reward_weights == [1.0] * len(recipe.rewards)
    for option, value in recipe.trainer.items():
        assert getattr(args, option) == value, option
    warm_start = config(recipe)
    assert (warm_start is None) == (recipe.warm_start is None)


@pytest.mark.parametrize("method", ["rvpo_explicit", "hard_min", "gdpo", "grpo", "lift"])
@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_shipped_recipe_compares_methods(path: Path, method: str):
    """With the overrides that the recipes' comments name."""
    assert load_recipe(path, [f"method={method}"]).method == method


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_methods_in_comments_of_shipped_recipes_work(path: Path):
    named = re.findall(r"(?<=\s)method=\S+?(?=[,.]?\s)", path.read_text("utf-8"))
    for override in named:
        load_recipe(path, [override])
    assert named or path.stem == "smollm2-rlla"


@pytest.mark.parametrize("path", [path for path in SHIPPED if "rar" in path.stem or "rubrics" in path.stem])
@pytest.mark.parametrize("aggregation", ["explicit", "implicit"])
def test_rubric_recipes_name_their_baselines(path: Path, aggregation: str):
    overrides = ["method=grpo", f"rewards.0.options.aggregation={aggregation}"]
    options = load_recipe(path, overrides).rewards[0].options
    judge = {"kind": "rule"}  # the judge itself would load a model
    assert load_reward("rubric", options | {"judge": judge}).aggregation == aggregation


def test_rar_recipes_name_their_sizes():
    for path in SHIPPED:
        if "rar" in path.stem:
            text = path.read_text("utf-8")
            for size in ("3", "14"):
                assert f"model.path=Qwen/Qwen2.5-{size}B-Instruct name={path.stem.replace('7b', f'{size}b')}" in text


# --- what a recipe says -----------------------------------------------------------------------------------------------


def test_defaults():
    recipe = build_recipe(LEAST)
    assert recipe.folder == Path("runs/a")
    assert recipe.seed == 0
    assert (recipe.rewards[0].function, recipe.rewards[0].weight) == ("format", 1.0)
    assert recipe.method == "rvpo:k=1"


@pytest.mark.parametrize(
    ("spelling", "text"),
    [
        ("lift", "lift"),
        ("lift:kappa=3,margin=0.1", "lift:kappa=3,margin=0.1"),
        (" lift : margin=0.1 , kappa=3.0 ", "lift:kappa=3,margin=0.1"),
        ({"name": "lift", "kappa": 3, "margin": 0.1}, "lift:kappa=3,margin=0.1"),
        (rvpo.LIFT(kappa=3.0, margin=0.1), "lift:kappa=3,margin=0.1"),
        ("rvpo", "rvpo:k=1"),
        ({"name": "rvpo", "k": 2}, "rvpo:k=2"),
        ({"name": "rvpo", "k": "linear(0.5, 2)"}, "rvpo:k=linear(0.5,2)"),
        ({"name": "rvpo", "k": {"kind": "cosine", "start": 2, "end": 0}}, "rvpo:k=cosine(2,0)"),
        ({"name": "rvpo", "k": {"kind": "adaptive", "target": 0.3}}, "rvpo:k=adaptive(target=0.3)"),
        ({"name": "gdpo", "whiten": "group", "dead_channels": "keep"}, "gdpo:whiten=group"),
        ({"name": "riskpo", "score": {"name": "rvpo", "k": 2}}, "riskpo:score={name:rvpo,k:2}"),
    ],
)
def test_method_has_one_text(spelling: Any, text: str):
    """Whatever its spelling, so that equal methods are equal recipes and a finished run is known again."""
    recipe = build_recipe(LEAST | {"method": spelling})
    assert recipe.method == text
    assert build_recipe(LEAST | {"method": text}) == recipe


CVAR = """\
import torch


def cvar(z, p, *, alpha=0.5):
    low = z.sort(-1).values[:, : max(1, round(alpha * z.shape[1]))]
    return low.mean(-1)
"""


def test_method_of_ones_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """By its file, relative to the current folder, as reward functions are."""
    (tmp_path / "my_rules.py").write_text(CVAR, "utf-8")
    monkeypatch.chdir(tmp_path)
    assert build_recipe(LEAST | {"method": "my_rules.py:cvar"}).method == "my_rules.py:cvar"
    by_mapping = {"name": "my_rules.py:cvar", "alpha": 0.25}
    assert build_recipe(LEAST | {"method": by_mapping}).method == "my_rules.py:cvar:alpha=0.25"
    assert "'my_rules.py:cvar' has no option 'alhpa' (did you mean 'alpha'?)" in refused(
        method="my_rules.py:cvar:alhpa=1"
    )
    assert "the file others.py does not exist in" in refused(method="others.py:cvar")


@pytest.mark.parametrize("option", ["eps", "ddof", "missing"])
def test_method_of_ones_own_may_have_options_that_moved(tmp_path: Path, option: str):
    (tmp_path / "rules.py").write_text(f"def mine(z, p, *, {option}=1):\n    return z.sum(-1)\n", "utf-8")
    method = f"{tmp_path}/rules.py:mine:{option}=2"
    assert build_recipe(LEAST | {"method": method}).method == method


def test_is_frozen():
    recipe = build_recipe(LEAST)
    for section, field in ((recipe, "seed"), (recipe.model, "path"), (recipe.data, "limit"), (recipe.rewards[0], "x")):
        with pytest.raises(ValidationError, match="frozen"):
            setattr(section, field, 1)


def test_survives_its_own_yaml():
    """The run's folder holds the resolved recipe, which is a recipe."""
    sections = {"method": "rvpo:k=linear(0.5,2)", "trainer": {"learning_rate": 1e-6}}
    recipe = build_recipe(LEAST | sections)
    assert Recipe(**yaml.safe_load(yaml.safe_dump(recipe.model_dump()))) == recipe


# --- what is refused --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("sections", "field"),
    [
        ({"modell": {}}, "modell"),
        ({"model": {"path": "m", "pth": 1}}, "model.pth"),
        ({"data": {"path": "d", "colum": "x"}}, "data.colum"),
        ({"eval_data": {"path": "d", "colum": "x"}}, "eval_data.colum"),
        ({"rewards": ["format", {"function": "f", "wieght": 1}]}, "rewards.1.wieght"),
        ({"warm_start": {"data": {"path": "d"}, "trainr": {}}}, "warm_start.trainr"),
        ({"warm_start": {"data": {"path": "d", "x": 1}}}, "warm_start.data.x"),
    ],
)
def test_unknown_key(sections: dict, field: str):
    assert f"\n  {field}: unknown key" in refused(**sections)


@pytest.mark.parametrize(
    ("sections", "message"),
    [
        (
            {"modell": {}},
            "modell: unknown key (did you mean 'model'?); expected one of name, output, seed, model,",
        ),
        (
            {"rewards": [{"function": "f", "wieght": 1}]},
            "mean 'weight'?); expected one of function, name, weight,",
        ),
        (
            {"warm_start": {"data": {"path": "d", "x": 1}}},
            "warm_start.data.x: unknown key; expected one of path,",
        ),
    ],
)
def test_unknown_key_is_told_the_allowed_ones(sections: dict, message: str):
    assert message in refused(**sections)


@pytest.mark.parametrize(
    ("sections", "message"),
    [
        ({"name": 2024}, "name: Input should be a valid string, seen 2024"),
        ({"name": "a/b"}, "seen 'a/b'"),
        ({"name": ".."}, "seen '..'"),  # would be the output folder's parent
        ({"name": ""}, "seen ''"),
        ({"seed": "3"}, "seed: Input should be a valid integer, seen '3'"),
        ({"seed": True}, "seed: Input should be a valid integer, seen True"),  # YAML's `yes`
        ({"model": "m"}, "model: Input should be a valid dictionary"),
        ({"model": {"path": "m", "dtype": "fp8"}}, "seen 'fp8'"),
        ({"model": {"path": "m", "peft": [8]}}, "model.peft: Input should be a valid dictionary, seen [8]"),
        ({"data": {"path": "d", "limit": "many"}}, "data.limit: Input should be a valid integer, seen 'many'"),
        ({"data": {"path": "d", "offset": 0.5}}, "data.offset: Input should be a valid integer, seen 0.5"),
        ({"data": {"path": "d", "reference_columns": ["answer"]}}, "data.reference_columns: Input should be"),
        ({"rewards": "format"}, "rewards: Input should be a valid list, seen 'format'"),
        ({"rewards": []}, "rewards: List should have at least 1 item"),
        ({"rewards": [3]}, "rewards.0: "),
        ({"rewards": [{"function": "f", "weight": -1}]}, "rewards.0.weight: Input should be greater than or equal"),
        ({"rewards": [{"function": "f", "weight": float("inf")}]}, "rewards.0.weight: Input should be a finite"),
        ({"rewards": [{"function": "f", "options": None}]}, "rewards.0.options: Input should be a valid dictionary"),
        ({"method": 3}, "method is 3; expected a text such as 'lift:kappa=3', a mapping"),
        ({"method": None}, "method is None; expected a text such as 'lift:kappa=3', a mapping"),
        ({"method": ["gdpo"]}, "method is ['gdpo']; expected a text such as 'lift:kappa=3', a mapping"),
        ({"trainer": [1]}, "trainer: Input should be a valid dictionary, seen [1]"),
        ({"trainer": {1: 2}}, "seen 1"),
        ({"warm_start": {}}, "warm_start.data: Field required"),
    ],
)
def test_wrong_value(sections: dict, message: str):
    assert message in refused(**sections)


@pytest.mark.parametrize(
    ("sections", "message"),
    [
        ({"method": {"k": 2.5}}, "method is {'k': 2.5}; expected a mapping with a name, such as {'name': 'lift'}"),
        ({"method": {}}, "method is {}; expected a mapping with a name, such as {'name': 'lift'}"),
        ({"rewards": ["format", "format"]}, "rewards.1: another channel is also 'format'; expected another `na"),
        (
            {"rewards": [{"function": "f", "name": "x"}, {"function": "g", "name": "x"}]},
            "rewards.1: another channel is also 'x'",
        ),
        ({"method": {"nme": "gdpo"}}, "method is {'nme': 'gdpo'}; expected a mapping with a name"),
        ({"method": {"name": "rvpo", "method": "gdpo"}}, "but method 'rvpo' has no option 'method'"),
        ({"method": {"name": "lift", "kapa": 3.0}}, "but method 'lift' has no option 'kapa' (did you mean 'kappa'?)"),
        ({"method": {"name": "gdpo", "kappa": 3.0}}, "method 'gdpo' has no option 'kappa'. Use method lift for it"),
        ({"method": {"name": "rvpo", "rtol": 0.1}}, "but method 'rvpo' has no option 'rtol'"),  # the trainer has none
        ({"method": {"name": "ppo"}}, "method is 'ppo'"),
        ({"method": "rvop"}, "method is 'rvop' (did you mean 'rvpo'?); expected one of rvpo, rvpo_explicit, "),
        ({"method": {"name": "gdpo", "beta": 1.0}}, "method 'gdpo' has no option 'beta'. Use method rvpo_explicit"),
        ({"method": {"name": "grpo", "dead_channels": "drop"}}, "is not GRPO"),
        ({"method": "gdpo:k=1"}, "method 'gdpo' has no option 'k'. Use method rvpo for it"),
        ({"method": "rvpo:k"}, "method is 'rvpo:k'"),
        ({"method": "rvpo:k=fast"}, "k is 'fast'; expected a number in [0, inf], linear(0.5,2), cosine(0.5,2) or adap"),
        ({"method": "rvpo:k=-1"}, "k is -1; expected a number in [0, inf]"),
        ({"method": {"name": "rvpo", "k": True}}, "k is True; expected a number"),
        ({"method": {"name": "rvpo", "k": [1, 2]}}, "k is [1, 2]; expected a number"),
        ({"method": "rvpo:k=exponential(1,2)"}, "k is 'exponential(1,2)'; expected a number"),
        ({"method": {"name": "rvpo", "k": {"kind": "linear", "form": 0.5}}}, "k: linear: unknown key 'form'"),
        ({"method": {"name": "rvpo", "k": {"kind": "adaptive", "goal": 0.3}}}, "k: adaptive: unknown key 'goal'"),
        ({"method": "rvpo:k=adaptive(target=2)"}, "adaptive target is 2; expected a number in [0, 1)"),
    ],
)
def test_impossible_combination(sections: dict, message: str):
    seen = refused(**sections)
    assert message in seen
    assert "Value error" not in seen  # pydantic's own words


@pytest.mark.parametrize("method", ["rvpo", "lift:kappa=3"])
@pytest.mark.parametrize(
    ("option", "value", "trainer"),
    [
        ("missing", "error", "missing_rewards: error"),
        ("eps", 1e-6, "advantage_eps: 1e-06"),
        ("ddof", 0, "advantage_ddof: 0"),
    ],
)
def test_options_that_the_method_had_are_the_trainers(method: str, option: str, value: Any, trainer: str):
    name, _, options = method.partition(":")
    text = f"{name}:{','.join(filter(None, [options, f'{option}={value}']))}"
    for spelling in (text, {"name": name, option: value}):
        said = refused(method=spelling)
        assert f"method has the option {option} ({value!r}), but that is an option of the trainer" in said
        assert said.endswith(f"Write `trainer: {{{trainer}}}`")


SCHEDULE = "but k is an option of the method now"


@pytest.mark.parametrize(
    ("sections", "written"),
    [
        ({"schedule": 1.5}, "method: rvpo:k=1.5"),
        ({"schedule": {"start": 0.25}}, "method: rvpo:k=0.25"),
        ({"schedule": {"kind": "linear", "start": 0.5, "end": 2.0}}, "method: rvpo:k=linear(0.5,2)"),
        ({"schedule": {"kind": "linear", "end": 2.0}}, "method: rvpo:k=linear(1,2)"),  # it started at 1
        ({"schedule": {"kind": "cosine", "start": 2.0, "end": 0}}, "method: rvpo:k=cosine(2,0)"),
        ({"schedule": {"kind": "adaptive", "target": 0.3}}, "method: rvpo:k=adaptive(target=0.3)"),
        ({"schedule": 1.0, "method": {"name": "rvpo"}}, "method: rvpo:k=1"),
        ({"schedule": 1.0, "method": "rvpo:k=linear(0.5,2)"}, "method: rvpo:k=1"),
        (
            {"schedule": 2, "method": {"name": "rvpo", "dead_channels": "keep"}},
            "method: rvpo:k=2,dead_channels=keep",
        ),
        (
            {"schedule": 2, "method": {"dead_channels": "keep", "eps": 1e-6, "missing": "error"}},
            "method: rvpo:k=2,dead_channels=keep` and `trainer: {missing_rewards: error, advantage_eps: 1e-06}",
        ),
        ({"schedule": "fast"}, "method: rvpo:k=linear(0.5,2)"),  # what never worked gets an example
    ],
)
def test_schedule_is_refused_with_what_to_write(sections: dict, written: str):
    said = refused(**sections)
    assert said.startswith(f"recipe: schedule is {sections['schedule']!r}, {SCHEDULE}")
    assert said.endswith(f"; expected no `schedule`. Drop it and write `{written}`")
    if "trainer" not in written:  # what it says can be written
        build_recipe(LEAST | {"method": written.removeprefix("method: ")})


def test_schedule_of_another_method_is_refused():
    assert refused(schedule=1.0, method="gdpo") == (
        f"recipe: schedule is 1.0, {SCHEDULE}, and method 'gdpo' has no k; expected no `schedule`. Drop it, or write "
        "method=rvpo:k=2"
    )


def test_schedule_null_is_refused(full: Path):
    """In the file, and as the override that command lines of older versions have."""
    said = f"schedule is null, {SCHEDULE}; expected no `schedule`. Drop it, and name a method as text, such as method="
    assert said in refused(schedule=None)
    for overrides in (["schedule=null"], ["method=gdpo", "schedule=null"], ["schedule="]):
        with pytest.raises(ConfigError) as caught:
            load_recipe(full, overrides)
        assert str(caught.value) == f"{full}: {said}gdpo"


def test_reliability_of_a_reward_is_refused():
    said = refused(rewards=[{"function": "f", "reliability": 0.6}])
    assert (
        "\n  rewards.0.reliability is 0.6; expected no such key: the reliability of a channel is set in Python" in said
    )


def test_every_problem_is_named_at_once():
    seen = refused(seed="x", colour="red", model={})
    assert all(f"\n  {field}: " in seen for field in ("seed", "colour", "model.path"))


# --- the file ---------------------------------------------------------------------------------------------------------


def test_error_names_the_file(tmp_path: Path):
    path = write(tmp_path, FULL + "colour: red\n")
    with pytest.raises(ConfigError, match=r"recipe\.yaml cannot work:\n  colour: unknown key"):
        load_recipe(path)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("- name: a\n", "contains list; expected a mapping"),
        ("", "contains NoneType; expected a mapping"),
        ("name: [a\n", "is not YAML"),
        ("name: a\nname: b\n", "the key 'name' occurs twice, first in line 1.*line 2"),
        ("trainer: {max_steps: 1, max_steps: 2}\n", "the key 'max_steps' occurs twice"),
        ("name: 2024-13-01\n", "is not YAML: month must be in 1..12"),
        ("? [a]\n: b\n", "unhashable key"),
        ("a: !!python/object/apply:os.system ['true']\n", "could not determine a constructor"),
    ],
)
def test_file_that_is_no_recipe(tmp_path: Path, text: str, message: str):
    with pytest.raises(ConfigError, match=f"(?s)recipe\\.yaml.*{message}"):
        load_recipe(write(tmp_path, text))


def test_file_that_cannot_be_read(tmp_path: Path):
    with pytest.raises(ConfigError, match=r"none\.yaml: cannot be read \(No such file or directory\); check the path"):
        load_recipe(tmp_path / "none.yaml")
    with pytest.raises(ConfigError, match="cannot be read"):
        load_recipe(tmp_path)
    (tmp_path / "latin.yaml").write_bytes("name: é".encode("latin-1"))
    with pytest.raises(ConfigError, match=r"latin\.yaml is not YAML"):
        load_recipe(tmp_path / "latin.yaml")


def test_numbers_in_scientific_notation(tmp_path: Path):
    """YAML 1.1 reads 1e-5 as text, and so would a trainer."""
    text = FULL.replace("max_steps: 5", "a: 1e-5, b: 2E+3, c: 1.5e4, d: -3e0, e: 1e5x, f: '1e5'")
    trainer = load_recipe(write(tmp_path, text)).trainer
    assert trainer == {"a": 1e-5, "b": 2e3, "c": 1.5e4, "d": -3.0, "e": "1e5x", "f": "1e5"}
    assert all(isinstance(trainer[key], float) for key in "abcd")


def test_merge_keys(tmp_path: Path):
    text = FULL + "eval_data: &base {path: e, limit: 3}\nwarm_start: {data: {<<: *base, limit: 5}}\n"
    recipe = load_recipe(write(tmp_path, text))
    assert recipe.eval_data is not None
    assert recipe.warm_start is not None
    assert (recipe.eval_data.limit, recipe.warm_start.data.path, recipe.warm_start.data.limit) == (3, "e", 5)


# --- overrides --------------------------------------------------------------------------------------------------------


def test_overrides(full: Path):
    recipe = load_recipe(
        full,
        [
            "seed=3",
            "trainer.learning_rate=1e-5",
            "trainer.generation_kwargs.top_k=5",  # through sections that are not there yet
            "rewards.1.weight=0.5",
            "rewards.0={function: length, weight: 3.0}",
            "method=lift:kappa=3",
            "model.peft={r: 4}",
            "data.path=a=b.jsonl",
            "data.system_prompt=",
            "name=trial-2",
        ],
    )
    assert recipe.seed == 3
    assert recipe.trainer == {"max_steps": 5, "learning_rate": 1e-5, "generation_kwargs": {"top_k": 5}}
    assert [(entry.function, entry.weight) for entry in recipe.rewards] == [("length", 3.0), ("correctness", 0.5)]
    assert recipe.method == "lift:kappa=3"
    assert recipe.model.peft == {"r": 4}
    assert recipe.data.path == "a=b.jsonl"
    assert recipe.data.system_prompt is None
    assert recipe.name == "trial-2"


def test_options_of_a_method_are_overridden(full: Path):
    assert load_recipe(full, ["method.k=2"]).method == "rvpo:k=2"
    assert load_recipe(full, ["method.k={kind: linear, start: 0, end: 2}"]).method == "rvpo:k=linear(0,2)"
    assert load_recipe(full, ["method=lift:margin=0.1", "method.kappa=3"]).method == "lift:kappa=3,margin=0.1"
    assert load_recipe(full, ["method={name: lift}", "method.kappa=3"]).method == "lift:kappa=3"
    assert load_recipe(full, ["method=lift", "method.name=gdpo"]).method == "gdpo"


def test_later_override_wins(full: Path):
    assert load_recipe(full, ["seed=1", "seed=2"]).seed == 2


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("trainer.max_steps", "'trainer.max_steps' is not key=value, for example trainer.max_steps=20"),
        ("=3", "'=3' is not key=value"),
        ("rewards.2.weight=1", "there is no rewards.2 to set; lists are indexed from 0"),
        ("rewards.2=format", "there is no rewards.2 to set"),
        ("rewards.-1=format", "there is no rewards.-1 to set"),
        ("rewards.first=format", "there is no rewards.first to set"),
        ("rewards.0.weight=2", "rewards.0 is 'format', which has no keys: set it whole, rewards.0='{weight: 2, …}'"),
        ("name.first=x", "name is 'a', which has no keys: set it whole"),
        (
            "method.name=gdpo",
            "method is 'rvpo:k=1.0', whose options belong to rvpo; expected another method as a whole, me",
        ),
        ("method.kappa=3", "kappa is 3, but method 'rvpo' has no option 'kappa'. Use method lift for it"),
        ("name.first.second=x", "there is no name.first to set"),
        ("seed=[1", "'seed=[1': the value is not YAML"),
        ("seed=2024-13-01", "'seed=2024-13-01': the value is not YAML"),
        ("colour=red", "colour: unknown key"),
        ("trainer=", "trainer: Input should be a valid dictionary, seen None"),
        ("seed=many", "seed: Input should be a valid integer, seen 'many'"),
    ],
)
def test_override_that_cannot_work(full: Path, override: str, message: str):
    with pytest.raises(ConfigError) as caught:
        load_recipe(full, [override])
    assert message in str(caught.value)


# --- recipes in folders of runs ---------------------------------------------------------------------------------------

# As version 0.1 wrote them, to the letter; what all have in common comes first.
OLD = """\
name: old
output: runs
seed: 0
model:
  path: m
  gguf_file: null
  dtype: float32
  peft: null
data:
  path: d
  layout: auto
  prompt_column: prompt
  reference_columns: null
  pitfalls: null
  subset: null
  split: null
  system_prompt: null
  max_prompt_chars: null
  shuffle_seed: null
  offset: 0
  limit: null
eval_data: null
rewards:
- function: format
  name: null
  weight: 1.0
  range: null
  reliability: null
  options: {}
- function: correctness
  name: null
  weight: 2.0
  range:
  - -3.0
  - 3.0
  reliability: null
  options: {}
"""
OLD_END = """\
warm_start: null
evals: null
trainer:
  max_steps: 5
"""


@pytest.mark.parametrize(
    ("sections", "method", "trainer"),
    [
        ("method: {}\nschedule: null\n", "rvpo", {}),
        ("method: {}\nschedule: 2\n", "rvpo:k=2", {}),
        ("method:\n  name: rvpo\nschedule: 1.0\n", "rvpo:k=1", {}),
        (
            "method:\n  name: rvpo\n  dead_channels: keep\nschedule:\n  kind: linear\n  start: 0.5\n  end: 2.0\n",
            "rvpo:k=linear(0.5,2),dead_channels=keep",
            {},
        ),
        ("method: {}\nschedule:\n  kind: cosine\n  end: 3\n", "rvpo:k=cosine(1,3)", {}),
        ("method: {}\nschedule:\n  start: 0.25\n", "rvpo:k=0.25", {}),
        (
            "method:\n  name: rvpo\nschedule:\n  kind: adaptive\n  target: 0.3\n  horizon: 20\n",
            "rvpo:k=adaptive(target=0.3,horizon=20)",
            {},
        ),
        ("method:\n  name: rvpo\nschedule:\n  kind: adaptive\n", "rvpo:k=adaptive", {}),
        ("method:\n  name: lift\n  kappa: 3.0\nschedule: null\n", "lift:kappa=3", {}),
        ("method:\n  name: rvpo_explicit\n  beta: 0.25\n  whiten: group\nschedule: null\n", None, {}),
        ("method:\n  name: gdpo\n  dead_channels: keep\nschedule: null\n", "gdpo", {}),
        (
            "method:\n  name: riskpo\n  bundle_size: 3\n  score:\n    method: rvpo\n    k: 2.0\nschedule: null\n",
            "riskpo:bundle_size=3,score=rvpo:k=2",
            {},
        ),
        ("method:\n  name: riskpo\n  score: gdpo\nschedule: null\n", "riskpo:score=gdpo", {}),
        (
            "method:\n  name: lagrangian\n  thresholds:\n    format: 0.9\nschedule: null\n",
            "lagrangian:thresholds={format:0.9}",
            {},
        ),
        (
            "method:\n  name: lift\n  missing: error\n  eps: 1.0e-06\n  ddof: 0\nschedule: null\n",
            "lift",
            {"missing_rewards": "error", "advantage_eps": 1e-6, "advantage_ddof": 0},
        ),
    ],
)
def test_recipe_of_an_older_run_is_read(tmp_path: Path, sections: str, method: str | None, trainer: dict):
    """It equals the recipe that says the same today, so that the run can be resumed."""
    before = load_recorded_recipe(write(tmp_path, OLD + sections + OLD_END))
    rewards = ["format", {"function": "correctness", "weight": 2.0, "range": [-3, 3]}]
    now = LEAST | {"name": "old", "rewards": rewards, "trainer": {"max_steps": 5, **trainer}}
    method = method or {"name": "rvpo_explicit", "beta": 0.25, "whiten": "group"}  # type: ignore[assignment]
    assert before == build_recipe(now | {"method": method})


def test_recipe_of_a_run_survives_its_record(tmp_path: Path):
    recipe = build_recipe(LEAST | {"method": "rvpo:k=linear(0.5,2)"})
    assert load_recorded_recipe(write(tmp_path, yaml.safe_dump(recipe.model_dump()))) == recipe


def test_record_is_data(tmp_path: Path):
    """A method of one's own that a record names is not imported; the recipe that is run now names it itself."""
    (tmp_path / "rules.py").write_text("raise SystemExit('imported')\n", "utf-8")
    method = f"{tmp_path}/rules.py:cvar:alpha=0.5"
    recorded = load_recorded_recipe(write(tmp_path, yaml.safe_dump(LEAST | {"method": method})))
    assert recorded.method == method
    assert "cannot be imported (SystemExit: imported" in refused(method=method)


@pytest.mark.parametrize(
    "spelling",
    [
        "gate(safe) all_of(a,b)",
        ["veto(safe)", {"name": "all_of", "parts": ["a", "b"]}],
        [Gate("safe"), AllOf(("a", "b"))],
    ],
)
def test_structure_has_one_text(spelling: Any):
    recipe = build_recipe(LEAST | {"structure": spelling, "monitor": "gold"})
    assert recipe.structure == ["gate(safe)", "all_of(a,b)"]
    assert recipe.monitor == ["gold"]
    assert build_recipe(recipe.model_dump()) == recipe


def test_structure_that_cannot_work_is_refused():
    with pytest.raises(ConfigError, match="did you mean 'gate'"):
        build_recipe(LEAST | {"structure": ["gat(safe)"]})
