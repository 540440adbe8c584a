"""Recipes: every shipped one is whole, and what cannot work is refused with the field and the value seen."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import ValidationError

from rvpo.errors import ConfigError
from rvpo.recipe import Recipe, build_recipe, load_recipe
from rvpo.rewards.registry import load_reward

SHIPPED = sorted((Path(__file__).parents[1] / "recipes").glob("*.yaml"))
LEAST: dict[str, Any] = {"name": "a", "model": {"path": "m"}, "data": {"path": "d"}, "rewards": ["format"]}
FULL = """\
name: a
model: {path: m}
data: {path: d}
rewards:
  - format
  - {function: correctness, weight: 2.0}
schedule: 1.0
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
    paper = recipe.schedule == {"kind": "linear", "start": 0.5, "end": 2.0}
    riskpo = "riskpo" in path.stem
    assert paper == ((path.stem.startswith("qwen") and not riskpo) or "rubrics" in path.stem)
    constant = ("riskpo", None, None) if riskpo else ("rvpo", 1.0, None)
    assert (args.method, args.k, args.k_final) == (("rvpo", 0.5, 2.0) if paper else constant)
    assert (args.method_options or {}).get("bundle_size") == (5 if riskpo else None)
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
    own_options = "riskpo" in path.stem  # which other methods do not have, so the whole section is replaced
    override = f"method={{name: {method}}}" if own_options else f"method.name={method}"
    recipe = load_recipe(path, [override, "schedule=null"])
    assert recipe.advantage_options()["method"] == method


@pytest.mark.parametrize("path", [path for path in SHIPPED if "rar" in path.stem or "rubrics" in path.stem])
@pytest.mark.parametrize("aggregation", ["explicit", "implicit"])
def test_rubric_recipes_name_their_baselines(path: Path, aggregation: str):
    overrides = ["method.name=grpo", "schedule=null", f"rewards.0.options.aggregation={aggregation}"]
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
    assert recipe.advantage_options() == {
        "method": "rvpo",
        "method_options": None,
        "variance_beta": None,
        "whiten": "batch",
        "dead_channels": "drop",
        "missing_rewards": "drop",
        "advantage_eps": 1e-4,
        "advantage_ddof": 1,
        "k": None,
        "k_schedule": "constant",
        "k_final": None,
        "k_adaptive": None,
    }


def test_method_options_reach_the_trainer():
    method = {"name": "rvpo_explicit", "beta": 0.25, "whiten": "group", "dead_channels": "keep", "missing": "error"}
    options = build_recipe(LEAST | {"method": method | {"eps": 1e-6, "ddof": 0}}).advantage_options()
    assert options == {
        "method": "rvpo_explicit",
        "method_options": None,
        "variance_beta": 0.25,
        "whiten": "group",
        "dead_channels": "keep",
        "missing_rewards": "error",
        "advantage_eps": 1e-6,
        "advantage_ddof": 0,
        "k": None,
        "k_schedule": "constant",
        "k_final": None,
        "k_adaptive": None,
    }


@pytest.mark.parametrize(
    ("schedule", "want"),
    [
        (1.5, ("constant", 1.5, None)),
        (2, ("constant", 2, None)),
        (0, ("constant", 0, None)),
        ({"start": 0.25}, ("constant", 0.25, None)),
        ({"kind": "linear", "start": 0.5, "end": 2.0}, ("linear", 0.5, 2.0)),
        ({"kind": "cosine", "start": 2.0, "end": 0}, ("cosine", 2.0, 0)),
    ],
)
def test_schedule(schedule: Any, want: tuple):
    options = build_recipe(LEAST | {"schedule": schedule}).advantage_options()
    assert (options["k_schedule"], options["k"], options["k_final"]) == want


def test_adaptive_schedule():
    options = build_recipe(LEAST | {"schedule": {"kind": "adaptive", "target": 0.3}}).advantage_options()
    assert (options["k_schedule"], options["k"], options["k_adaptive"]) == ("adaptive", None, {"target": 0.3})
    assert "adaptive target is 2, allowed is a number in [0, 1)" in refused(schedule={"kind": "adaptive", "target": 2})
    assert "schedule adaptive: unknown key 'goal'" in refused(schedule={"kind": "adaptive", "goal": 0.3})


def test_options_of_a_method_stand_flat():
    options = build_recipe(LEAST | {"method": {"name": "lift", "kappa": 3.0, "eps": 1e-6}}).advantage_options()
    assert (options["method_options"], options["advantage_eps"]) == ({"kappa": 3.0}, 1e-6)
    assert "method.kapa is no option (did you mean 'kappa'?); allowed are name, beta" in refused(
        method={"name": "lift", "kapa": 3.0}
    )
    assert "method.kappa is no option" in refused(method={"name": "gdpo", "kappa": 3.0})


def test_is_frozen():
    recipe = build_recipe(LEAST)
    for section, field in ((recipe, "seed"), (recipe.model, "path"), (recipe.data, "limit"), (recipe.rewards[0], "x")):
        with pytest.raises(ValidationError, match="frozen"):
            setattr(section, field, 1)


def test_survives_its_own_yaml():
    """The run's folder holds the resolved recipe, which is a recipe."""
    sections = {"schedule": {"kind": "linear", "start": 0.5, "end": 2.0}, "trainer": {"learning_rate": 1e-6}}
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
        ({"modell": {}}, "modell: unknown key (did you mean 'model'?); allowed are name, output, seed, model, data,"),
        ({"rewards": [{"function": "f", "wieght": 1}]}, "mean 'weight'?); allowed are function, name, weight, range,"),
        ({"warm_start": {"data": {"path": "d", "x": 1}}}, "warm_start.data.x: unknown key; allowed are path, layout,"),
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
        ({"method": "gdpo"}, "method: Input should be a valid dictionary, seen 'gdpo'"),
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
        ({"method": {"k": 2.5}}, "method.k is set, but `schedule` decides k: set `schedule: 2.5` instead"),
        ({"rewards": ["format", "format"]}, "rewards.1: another channel is 'format', too: give this one another `na"),
        (
            {"rewards": [{"function": "f", "name": "x"}, {"function": "g", "name": "x"}]},
            "rewards.1: another channel is 'x', too",
        ),
        ({"method": {"nme": "gdpo"}}, "method.nme is no option (did you mean 'name'?); allowed are name, beta"),
        ({"method": {"name": "rvpo", "method": "gdpo"}}, "method.method is no option"),
        ({"method": {"rtol": 0.1}}, "method.rtol is no option"),  # the trainer has none, so it would be lost
        ({"method": {"name": "ppo"}}, "method is 'ppo', allowed are 'rvpo'"),
        ({"method": {"name": "gdpo", "beta": 1.0}}, "beta is 1.0, but method 'gdpo' has no beta"),
        ({"method": {"name": "grpo", "whiten": "batch"}}, "is not GRPO"),
        ({"method": {"eps": -1}}, "eps is -1, allowed is a number in"),
        (
            {"method": {"name": "gdpo"}, "schedule": 1.0},
            "schedule is 1.0, but method 'gdpo' has no k: drop it (on the command line: schedule=null), or use",
        ),
        ({"schedule": "fast"}, "schedule is 'fast', allowed is a number, or a mapping"),
        ({"schedule": True}, "schedule start is True"),
        ({"schedule": -1}, "schedule start is -1"),
        ({"schedule": float("inf")}, "schedule start is inf"),
        ({"schedule": [1, 2]}, "schedule start is [1, 2]"),
        ({"schedule": {"kind": "exponential"}}, "schedule kind is 'exponential', allowed are 'constant'"),
        ({"schedule": {"kind": "linear", "start": 0.5}}, "a linear schedule needs an end value"),
        ({"schedule": {"start": 0.5, "end": 2}}, "a constant schedule has no end, but end is 2"),
        ({"schedule": {"kind": "linear", "form": 0.5}}, "schedule: unknown key 'form'"),
    ],
)
def test_impossible_combination(sections: dict, message: str):
    seen = refused(**sections)
    assert message in seen
    assert "Value error" not in seen  # pydantic's own words


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
        ("- name: a\n", "holds list, allowed is a mapping"),
        ("", "holds NoneType, allowed is a mapping"),
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
            "schedule=null",
            "model.peft={r: 4}",
            "data.path=a=b.jsonl",
            "data.system_prompt=",
            "name=trial-2",
        ],
    )
    assert recipe.seed == 3
    assert recipe.trainer == {"max_steps": 5, "learning_rate": 1e-5, "generation_kwargs": {"top_k": 5}}
    assert [(entry.function, entry.weight) for entry in recipe.rewards] == [("length", 3.0), ("correctness", 0.5)]
    assert recipe.schedule is None
    assert recipe.model.peft == {"r": 4}
    assert recipe.data.path == "a=b.jsonl"
    assert recipe.data.system_prompt is None
    assert recipe.name == "trial-2"


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
        ("schedule.kind=linear", "schedule is 1.0, which has no keys: set it whole"),
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
