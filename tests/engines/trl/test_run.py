"""Run folders: what a run leaves behind, what may be resumed, and every shipped recipe for a step or two."""

from __future__ import annotations

import json
import logging
import math
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml

pytest.importorskip("trl")
pytest.importorskip("peft")

import pyarrow as pa
import pyarrow.parquet as pq
import torch
from safetensors.torch import load_file
from tiny_run import NOT_COMPARED, launched_twice
from transformers import AutoModelForCausalLM, AutoTokenizer
from transformers.utils import logging as transformers_logging
from trl import SFTTrainer

import rvpo
from rvpo.engines.trl.run import train_recipe
from rvpo.errors import ConfigError, DataError
from rvpo.recipe import Recipe, load_recipe

RECIPES = Path(__file__).parents[3] / "recipes"
NOUNS = ["cat", "dog", "sun", "rain", "red", "blue"]
REWARDS = '''\
import os
import signal


def even(completion_ids, scale=1.0, **_):
    """Share of tokens with an even id."""
    return [scale * sum(token % 2 == 0 for token in ids) / len(ids) for ids in completion_ids]


def high(completion_ids, trainer_state, **_):
    """First token in the upper half of the vocabulary."""
    if os.environ.get("KILL_AT_STEP") == str(trainer_state.global_step):
        os.kill(os.getpid(), signal.SIGKILL)
    return [float(ids[0] >= 20) for ids in completion_ids]
'''
RECIPE = """\
name: whole
output: {folder}/runs
model: {{path: {model}}}
data: {{path: {folder}/prompts.jsonl}}
rewards:
  - {folder}/rewards.py:even
  - {{function: {folder}/rewards.py:high, weight: 0.5}}
method: rvpo:k=linear(0.5,2)
trainer:
  max_steps: 4
  save_steps: 2
  per_device_train_batch_size: 8
  num_generations: 4
  max_completion_length: 5
  learning_rate: 1e-2
  bf16: false
  use_cpu: true  # equal to the last bit
  disable_tqdm: true
"""


@pytest.fixture(scope="module", autouse=True)
def no_bars_of_weights():
    transformers_logging.disable_progress_bar()
    yield
    transformers_logging.enable_progress_bar()


def write_inputs(folder: Path, model: Path) -> Path:
    """Write prompts, reward functions and a recipe; return the recipe."""
    rows = [{"prompt": f"what is the {noun}", "answer": f"it is the {noun}"} for noun in NOUNS]
    (folder / "prompts.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    (folder / "rewards.py").write_text(REWARDS, "utf-8")
    (folder / "recipe.yaml").write_text(RECIPE.format(folder=folder, model=model), "utf-8")
    return folder / "recipe.yaml"


def metrics(folder: Path) -> list[dict[str, Any]]:
    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} is no JSON")

    lines = (folder / "metrics.jsonl").read_text("utf-8").splitlines()
    return [json.loads(line, parse_constant=refuse) for line in lines]


def comparable(folder: Path) -> list[dict[str, Any]]:
    """Return the metrics without what measures the machine or one process's share of a run."""
    return [
        {key: value for key, value in line.items() if not any(word in key for word in NOT_COMPARED)}
        for line in metrics(folder)
    ]


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "model" / "model.safetensors")


def assert_same_run(folder: Path, other: Path) -> None:
    assert comparable(folder) == comparable(other)
    torch.testing.assert_close(weights(folder), weights(other), rtol=0, atol=0)


@pytest.fixture(scope="module")
def inputs(tiny_model_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_inputs(tmp_path_factory.mktemp("inputs"), tiny_model_dir)


@pytest.fixture(scope="module")
def whole(inputs: Path) -> Path:
    """The folder of an uninterrupted run. Tests must not write into it."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    folder = train_recipe(load_recipe(inputs))
    torch.set_num_threads(threads)
    return folder


def copy(whole: Path, to: Path, *leave_out: str) -> Path:
    """Copy a run to ``to/runs/whole``, as if it had stopped before the ``leave_out`` were written."""
    folder = to / "runs" / "whole"
    shutil.copytree(whole, folder, ignore=shutil.ignore_patterns(*leave_out))
    recipe = yaml.safe_load((folder / "recipe.yaml").read_text("utf-8"))
    (folder / "recipe.yaml").write_text(yaml.safe_dump(recipe | {"output": str(to / "runs")}), "utf-8")
    return folder


# --- what a run leaves behind -----------------------------------------------------------------------------------------


def test_folder_explains_itself(whole: Path, inputs: Path, tiny_model_dir: Path):
    recipe = load_recipe(inputs)
    assert whole == recipe.folder
    assert Recipe(**yaml.safe_load((whole / "recipe.yaml").read_text("utf-8"))) == recipe
    versions = json.loads((whole / "versions.json").read_text("utf-8"))
    assert versions["packages"]["rvpo"] == rvpo.__version__
    assert versions["packages"]["trl"]
    assert not list(whole.glob("*.partial"))

    model = AutoModelForCausalLM.from_pretrained(whole / "model")
    assert AutoTokenizer.from_pretrained(whole / "model").eos_token == "<eos>"
    before = load_file(tiny_model_dir / "model.safetensors")
    assert model.num_parameters() == sum(tensor.numel() for tensor in before.values())
    assert any(not torch.equal(tensor, before[name]) for name, tensor in weights(whole).items())
    assert [path.name for path in sorted(whole.glob("checkpoint-*"))] == ["checkpoint-2", "checkpoint-4"]


def test_one_json_object_a_step(whole: Path):
    *steps, summary = metrics(whole)
    assert [line["step"] for line in steps] == [1, 2, 3, 4]
    assert summary["step"] == 4
    assert "train_runtime" in summary
    for line in steps:
        assert {"loss", "reward", "rvpo/even/mean", "rvpo/high/responsibility", "rvpo/k"} <= line.keys()
    assert [line["rvpo/k"] for line in steps] == [0.5, 1.0, 1.5, 2.0]


def test_completions_show_rewards_and_our_advantages(whole: Path):
    files = sorted((whole / "completions").glob("*.parquet"))
    assert len(files) == 4
    rows = pq.read_table(files[0]).to_pylist()
    assert {"step", "prompt", "completion", "even", "high", "advantage"} <= rows[0].keys()
    rewards = torch.tensor([[row["even"], row["high"]] for row in rows])
    want = rvpo.advantages(rewards, num_generations=4, k=0.5, weights=[1.0, 0.5]).advantages
    torch.testing.assert_close(torch.tensor([row["advantage"] for row in rows]), want)


def test_undefined_values_are_null(tmp_path: Path):
    from transformers import TrainerState

    from rvpo.engines.trl.logs import MetricsFile

    file = MetricsFile(tmp_path / "metrics.jsonl", None)
    values = {"a": math.nan, "b": math.inf, "c": -math.inf, "d": 1.5, "e": "text"}
    file.on_log(None, TrainerState(global_step=7), None, logs=values)
    assert metrics(tmp_path) == [{"step": 7, "a": None, "b": None, "c": None, "d": 1.5, "e": "text"}]


def test_terminal_shows_a_short_line_a_step(inputs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    for bar in (False, True):
        options = [f"output={tmp_path / str(bar)}", "trainer.max_steps=1", f"trainer.disable_tqdm={not bar}"]
        train_recipe(load_recipe(inputs, options))
        step, summary, title, *verdicts, following = capsys.readouterr().out.splitlines()
        assert step.startswith("step 1/1  even 0.")
        assert "  high 0." in step
        assert "train_runtime" in summary
        assert len(step) < 100
        assert title == "rvpo: the rewards of the last 2 groups, after 1 generation:"
        assert [line.split(":")[0] for line in verdicts] == ["  even", "  high"]
        assert following == f"Next: rvpo diagnose {tmp_path / str(bar) / 'whole'}"


# --- which folder may be taken ----------------------------------------------------------------------------------------


def test_finished_run_is_kept(whole: Path, inputs: Path):
    recipe = load_recipe(inputs)
    before = {path: path.stat().st_mtime_ns for path in whole.rglob("*")}
    with pytest.raises(ConfigError, match=r"holds a finished run: choose another name \(name=…\), or remove"):
        train_recipe(recipe)
    assert train_recipe(recipe, resume=True) == whole
    with pytest.raises(ConfigError, match=r"was started with another seed \(0, now 1\)"):
        train_recipe(load_recipe(inputs, ["seed=1"]), resume=True)
    assert {path: path.stat().st_mtime_ns for path in whole.rglob("*")} == before


def test_unfinished_run_needs_resume(whole: Path, inputs: Path, tmp_path: Path):
    copy(whole, tmp_path, "model")
    with pytest.raises(ConfigError, match="holds an unfinished run: pass --resume, choose another name, or remove it"):
        train_recipe(load_recipe(inputs, [f"output={tmp_path / 'runs'}"]))


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("trainer.learning_rate=1.0", r"another trainer\.learning_rate \(0\.01, now 1\.0\)"),
        ("trainer.beta=0.1", r"another trainer\.beta \(None, now 0\.1\)"),
        ("seed=1", r"another seed \(0, now 1\)"),
        ("method=rvpo:k=1", r"another method \('rvpo:k=linear\(0\.5,2\)', now 'rvpo:k=1'\)"),
        ("rewards=[format]", "another rewards "),
    ],
)
def test_other_recipe_cannot_resume(whole: Path, inputs: Path, tmp_path: Path, override: str, message: str):
    folder = copy(whole, tmp_path, "model")
    before = (folder / "recipe.yaml").read_bytes()
    with pytest.raises(ConfigError, match=f"was started with {message}.*: resume with the same recipe"):
        train_recipe(load_recipe(inputs, [f"output={tmp_path / 'runs'}", override]), resume=True)
    assert (folder / "recipe.yaml").read_bytes() == before


def test_recipe_from_before_an_option_existed_resumes(whole: Path, inputs: Path, tmp_path: Path):
    folder = copy(whole, tmp_path)
    recipe = yaml.safe_load((folder / "recipe.yaml").read_text("utf-8"))
    for entry in recipe["rewards"]:
        del entry["name"]
    (folder / "recipe.yaml").write_text(yaml.safe_dump(recipe), "utf-8")
    assert resume(inputs, tmp_path) == folder


# What version 0.1 wrote of the method, to the letter, and how the same is said today.
OLDER = {
    "rvpo:k=linear(0.5,2)": "method: {}\nschedule:\n  kind: linear\n  start: 0.5\n  end: 2.0\n",
    "rvpo:k=adaptive(target=0.3)": "method:\n  name: rvpo\nschedule:\n  kind: adaptive\n  target: 0.3\n",
    "lift:kappa=3": "method:\n  name: lift\n  kappa: 3.0\nschedule: null\n",
    "riskpo:score=rvpo:k=2": "method:\n  name: riskpo\n  score:\n    method: rvpo\n    k: 2.0\nschedule: null\n",
    "rvpo": "method: {}\nschedule: null\n",
}


@pytest.mark.parametrize("method", OLDER)
def test_run_of_an_older_version_resumes(whole: Path, inputs: Path, tmp_path: Path, method: str):
    """Its folder holds another spelling of the same recipe; another method is still another recipe."""
    folder = copy(whole, tmp_path)
    recipe = yaml.safe_load((folder / "recipe.yaml").read_text("utf-8"))
    del recipe["method"]
    for entry in recipe["rewards"]:
        entry["reliability"] = None
    (folder / "recipe.yaml").write_text(yaml.safe_dump(recipe, sort_keys=False) + OLDER[method], "utf-8")
    options = [f"output={tmp_path / 'runs'}", f"method={method}"]
    assert train_recipe(load_recipe(inputs, options), resume=True) == folder
    with pytest.raises(ConfigError, match=r"was started with another method \('.*', now 'gdpo'\)"):
        train_recipe(load_recipe(inputs, [*options, "method=gdpo"]), resume=True)


def test_folder_that_cannot_be_created(inputs: Path, tmp_path: Path):
    (tmp_path / "file").write_text("", "utf-8")
    with pytest.raises(ConfigError, match=r"file/whole cannot be created \(Not a directory\): choose another output"):
        train_recipe(load_recipe(inputs, [f"output={tmp_path / 'file'}"]))


@pytest.mark.parametrize(
    ("override", "error", "message"),
    [
        ("trainer.learning_rte=1", ConfigError, r"trainer\.learning_rte is not an option.*mean 'learning_rate'"),
        ("trainer.max_steps=few", ConfigError, r"trainer\.max_steps is 'few'; expected a value of type int"),
        ("trainer.learning_rate=fast", ConfigError, r"trainer\.learning_rate is 'fast'.* type float"),
        ("trainer.num_generations=3", ConfigError, "trainer: .*num_generations"),
        ("trainer.advantage_eps=small", ConfigError, "advantage_eps is "),
        ("trainer.scale_rewards=rows", ConfigError, "scale_rewards is 'rows'"),
        ("trainer.max_steps=1e1", ConfigError, r"trainer\.max_steps is 10\.0; expected a value of type int"),
        ("trainer.generation_batch_size=8.0", ConfigError, r"generation_batch_size is 8\.0; expected .* type int"),
        ("trainer.zzz=1", ConfigError, r"trainer\.zzz is not an option.*docs/trl lists those of GRPOConfig"),
        ("trainer.seed=3", ConfigError, r"trainer\.seed is decided by `seed`"),
        ("trainer.structure=[gate(even)]", ConfigError, r"trainer\.structure is decided by `structure`"),
        ("structure=[gate(evne)]", ConfigError, r"names the channel 'evne' \(did you mean 'even'\?\)"),
        ("trainer.method=gdpo", ConfigError, r"trainer\.method is decided by `method`"),
        ("trainer.k=3.0", ConfigError, r"trainer\.k is not an option.*in `method`, such as method: rvpo:k=3\.0"),
        ("trainer.whiten=none", ConfigError, r"trainer\.whiten is not .*`method`, such as method: rvpo:whiten=none"),
        ("trainer.kappa=3", ConfigError, r"trainer\.kappa is not an option.*such as method: lift:kappa=3"),
        (
            "trainer.judge_twice=0.1",
            ConfigError,
            r"expected it in Python: RVPOTrainer\(…, reliability=Reliability\(twi",
        ),
        ("trainer.output_dir=x", ConfigError, r"trainer\.output_dir is decided by `output and name`"),
        ("trainer.reward_weights=[1]", ConfigError, r"trainer\.reward_weights is decided by `rewards\[\]\.weight`"),
        ("trainer.eval_strategy=steps", ConfigError, "eval_strategy is 'steps', but there is no eval_data: add the"),
        ("model.peft={rank: 4}", ConfigError, "model.peft: .*'rank'"),
        ("rewards.1={function: format, name: even}", ConfigError, r"rewards\.1: another channel is 'even', too"),
        ("rewards=[formt]", ConfigError, r"reward is 'formt' \(did you mean 'format'\?\); expected a built-in"),
        ("data.path=none.jsonl", DataError, r"none\.jsonl"),
        ("model.path=none/here", ConfigError, r"model\.path is 'none/here', and transformers finds no tokenizer"),
        ("warm_start={data: {path: none.jsonl}, trainer: {max_stps: 1}}", ConfigError, r"warm_start\.trainer\.max_st"),
    ],
)
def test_what_cannot_work_leaves_no_folder(inputs: Path, tmp_path: Path, override: str, error: type, message: str):
    """So that the corrected command is not told of an unfinished run."""
    with pytest.raises(error, match=f"(?s){message}"):
        train_recipe(load_recipe(inputs, [f"output={tmp_path / 'runs'}", override]))
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize("section", ["data", "eval_data"])
def test_column_that_a_reward_needs(inputs: Path, tmp_path: Path, section: str):
    options = [f"output={tmp_path / 'runs'}", "rewards.0=format", f"eval_data.path={inputs.parent / 'prompts.jsonl'}"]
    message = rf"'format' needs the column 'answer'; the data has \['prompt'\]: add it to {section}\.reference_columns"
    with pytest.raises(ConfigError, match=message):
        train_recipe(load_recipe(inputs, [*options, f"{section}.reference_columns={{}}"]))
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize("reward", ["math", "{function: math, name: right}"])
def test_references_that_the_reward_cannot_read(inputs: Path, tmp_path: Path, reward: str):
    """Every reward would be missing, which is found before a model is loaded."""
    rows = [{"prompt": word, "answer": "N/A"} for word in NOUNS]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    options = [f"output={tmp_path / 'runs'}", f"rewards=[{reward}]", f"data.path={tmp_path / 'rows.jsonl'}"]
    with pytest.raises(DataError, match="answer: saw 6 of 6 references that cannot be read, such as 'N/A'; expected"):
        train_recipe(load_recipe(inputs, options))
    assert not (tmp_path / "runs").exists()


# --- resuming ---------------------------------------------------------------------------------------------------------


def resume(inputs: Path, tmp_path: Path) -> Path:
    return train_recipe(load_recipe(inputs, [f"output={tmp_path / 'runs'}"]), resume=True)


def test_resume_where_nothing_was_started(whole: Path, inputs: Path, tmp_path: Path):
    assert_same_run(resume(inputs, tmp_path), whole)


def test_resume_before_the_first_checkpoint(whole: Path, inputs: Path, tmp_path: Path):
    copy(whole, tmp_path, "model", "checkpoint-*")
    assert_same_run(resume(inputs, tmp_path), whole)


@pytest.mark.parametrize("damage", ["missing", "cut", "empty"])
def test_incomplete_checkpoint_is_passed_over(
    whole: Path, inputs: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture, damage: str
):
    folder = copy(whole, tmp_path, "model")
    state = folder / "checkpoint-4" / "trainer_state.json"
    if damage == "missing":
        state.unlink()
    else:
        state.write_text(state.read_text("utf-8")[:200] if damage == "cut" else "", "utf-8")
    (folder / "checkpoint-best").mkdir()  # not ours
    with caplog.at_level(logging.WARNING):
        assert_same_run(resume(inputs, tmp_path), whole)
    assert "checkpoint-4 is passed over: " in caplog.text


def test_killed_while_writing_a_line_or_the_model(whole: Path, inputs: Path, tmp_path: Path):
    folder = copy(whole, tmp_path, "model")
    with (folder / "metrics.jsonl").open("a", encoding="utf-8") as file:
        file.write('{"step": 4, "lo')
    (folder / "model.partial").mkdir()
    (folder / "model.partial" / "model.safetensors").write_bytes(b"cut")
    assert_same_run(resume(inputs, tmp_path), whole)
    assert sum("train_runtime" in line for line in metrics(folder)) == 1


def test_killed_while_writing_the_adapter(inputs: Path, tmp_path: Path):
    recipe = load_recipe(inputs, [f"output={tmp_path / 'runs'}", "model.peft={r: 4, target_modules: [q_proj]}"])
    folder = train_recipe(recipe)
    (folder / "model").rename(tmp_path / "before")
    lines = comparable(folder)
    train_recipe(recipe, resume=True)
    assert comparable(folder) == lines
    adapters = [load_file(path / "adapter_model.safetensors") for path in (tmp_path / "before", folder / "model")]
    torch.testing.assert_close(*adapters, rtol=0, atol=0)


# --- a method of one's own --------------------------------------------------------------------------------------------

CVAR = '''\
def cvar(z, p, *, alpha=0.5):
    """Mean of the lowest z-scores that together have the share alpha."""
    low, order = z.sort(-1)
    before = p.gather(1, order).cumsum(-1) - p.gather(1, order)
    kept = (alpha - before).clamp(min=0).minimum(p.gather(1, order))
    return (kept * low).sum(-1) / kept.sum(-1).clamp(min=1e-9)
'''


def test_method_of_ones_own_trains(inputs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Named by its file, relative to the current folder; the recipe, the metrics and the record name it."""
    (tmp_path / "my_rules.py").write_text(CVAR, "utf-8")
    monkeypatch.chdir(tmp_path)
    method = "my_rules.py:cvar:alpha=0.25"
    recipe = load_recipe(inputs, [f"output={tmp_path / 'runs'}", f"method={method}", "trainer.max_steps=2"])
    folder = train_recipe(recipe)
    assert yaml.safe_load((folder / "recipe.yaml").read_text("utf-8"))["method"] == method
    assert {"rvpo/even/responsibility", "rvpo/high/bottleneck"} <= metrics(folder)[0].keys()

    files = sorted((folder / "channels").glob("*.parquet"))
    recorded = json.loads(pq.read_schema(files[0]).metadata[b"rvpo.records"])
    assert recorded["config"]["method"] == {"name": "my_rules.py:cvar", "alpha": 0.25}

    # Both channels share the weights 1 and 0.5, so a share of 0.25 is the lowest channel alone.
    rows = pq.read_table(sorted((folder / "completions").glob("*.parquet"))[0]).to_pylist()
    rewards = torch.tensor([[row["even"], row["high"]] for row in rows])
    want = rvpo.advantages(rewards, num_generations=4, method="hard_min", weights=[1.0, 0.5]).advantages
    torch.testing.assert_close(torch.tensor([row["advantage"] for row in rows]), want)

    assert train_recipe(recipe, resume=True) == folder
    with pytest.raises(
        ConfigError, match=r"another method \('my_rules\.py:cvar:alpha=0\.25', now 'my_rules\.py:cvar'\)"
    ):
        train_recipe(load_recipe(inputs, [f"output={tmp_path / 'runs'}", "method=my_rules.py:cvar"]), resume=True)


# --- rewards ----------------------------------------------------------------------------------------------------------


def test_reward_options_reach_the_function(whole: Path, inputs: Path, tmp_path: Path):
    override = f"rewards.0={{function: {inputs.parent}/rewards.py:even, options: {{scale: 3.0}}}}"
    recipe = load_recipe(inputs, [f"output={tmp_path}", "trainer.max_steps=1", "method.k=0.5", override])
    line, scaled = metrics(whole)[0], metrics(train_recipe(recipe))[0]
    # The first completions are the same, and the channel keeps its name.
    assert scaled["rvpo/even/mean"] == pytest.approx(3 * line["rvpo/even/mean"])
    assert scaled["rvpo/high/mean"] == line["rvpo/high/mean"]


def test_evaluation_data_is_used_or_named_as_unused(
    inputs: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
):
    options = [f"output={tmp_path}", f"eval_data.path={inputs.parent / 'prompts.jsonl'}", "trainer.max_steps=1"]
    evaluate = ["trainer.eval_strategy=steps", "trainer.eval_steps=1", "trainer.num_generations_eval=4"]
    lines = metrics(train_recipe(load_recipe(inputs, [*options, *evaluate])))
    assert [line["step"] for line in lines if "eval_rvpo/even/mean" in line] == [1]
    assert "\neval 1/1  even 0." in capsys.readouterr().out
    assert "eval_data" not in caplog.text

    train_recipe(load_recipe(inputs, [*options, "name=unused"]))
    assert "eval_data is not used: set trainer.eval_strategy=steps" in caplog.text


# --- warm start -------------------------------------------------------------------------------------------------------

WARM = [
    "trainer.max_steps=1",
    "trainer.save_strategy=no",
    "warm_start.trainer={max_steps: 2, per_device_train_batch_size: 2, learning_rate: 1e-2, disable_tqdm: true, "
    "use_cpu: true}",
]


def warm(inputs: Path, tmp_path: Path, *overrides: str) -> Recipe:
    data = f"warm_start.data.path={inputs.parent / 'prompts.jsonl'}"
    return load_recipe(inputs, [f"output={tmp_path / 'runs'}", *WARM, data, *overrides])


def test_warm_start_is_the_runs_own(inputs: Path, tmp_path: Path, tiny_model_dir: Path):
    folder = train_recipe(warm(inputs, tmp_path))
    started = load_file(folder / "warm_start" / "model.safetensors")
    cold = load_file(tiny_model_dir / "model.safetensors")
    assert all(tensor.dtype == torch.float32 for tensor in started.values())
    assert any(not torch.equal(tensor, cold[name]) for name, tensor in started.items())
    # The policy started there: one step away from it, and with Adam's step of 1e-2 no further.
    assert max(float((tensor - started[name]).abs().max()) for name, tensor in weights(folder).items()) < 0.0101
    assert sorted(path.name for path in folder.iterdir() if "warm" in path.name) == ["warm_start"]


def test_warm_start_is_shared(inputs: Path, tmp_path: Path):
    """LoRA's random start, too, is the same in the run that made the warm start and in one that found it."""
    shared = tmp_path / "models" / "base-0.5B-warm"  # the dot is no suffix
    options = [f"warm_start.output={shared}", "model.peft={r: 4, target_modules: [q_proj]}"]
    first = train_recipe(warm(inputs, tmp_path, *options))
    made = {path: path.stat().st_mtime_ns for path in shared.iterdir()}
    assert [path.name for path in shared.parent.iterdir()] == [shared.name]
    second = train_recipe(warm(inputs, tmp_path, *options, "name=second"))
    assert {path: path.stat().st_mtime_ns for path in shared.iterdir()} == made

    adapters = [load_file(folder / "model" / "adapter_model.safetensors") for folder in (first, second)]
    torch.testing.assert_close(*adapters, rtol=0, atol=0)
    assert comparable(first) == comparable(second)

    # Method, seed and policy options are the run's; the rest makes another warm start.
    with pytest.raises(ConfigError, match=r"was made with another trainer\.max_steps \(2, now 3\): choose another"):
        train_recipe(warm(inputs, tmp_path, *options, "name=third", "warm_start.trainer.max_steps=3"))
    with pytest.raises(ConfigError, match=r"was made with another data\.limit \(None, now 2\)"):
        train_recipe(warm(inputs, tmp_path, *options, "name=third", "warm_start.data.limit=2"))
    assert not (tmp_path / "runs" / "third").exists()


def test_warm_start_that_another_run_makes_meanwhile(inputs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    shared = tmp_path / "models" / "warm"
    first = train_recipe(warm(inputs, tmp_path, f"warm_start.output={shared}"))
    shared.rename(tmp_path / "theirs")

    class Slower(SFTTrainer):
        def save_model(self, *args: Any, **kwargs: Any) -> None:
            super().save_model(*args, **kwargs)
            (tmp_path / "theirs").rename(shared)

    monkeypatch.setattr("rvpo.engines.trl.warm_start.SFTTrainer", Slower)
    second = train_recipe(warm(inputs, tmp_path, f"warm_start.output={shared}", "name=second"))
    assert [path.name for path in shared.parent.iterdir()] == ["warm"]
    assert_same_run(second, first)


def test_warm_start_does_not_overwrite(inputs: Path, tmp_path: Path):
    other = tmp_path / "somebodys"
    other.mkdir()
    (other / "model.safetensors").write_bytes(b"precious")
    with pytest.raises(ConfigError, match="somebodys is not a warm start of rvpo: choose another"):
        train_recipe(warm(inputs, tmp_path, f"warm_start.output={other}"))
    assert [path.name for path in other.iterdir()] == ["model.safetensors"]


# --- several processes ------------------------------------------------------------------------------------------------


def test_two_processes_share_a_folder(inputs: Path, tmp_path: Path):
    """One claims it and none is refused, with a warm start, as ``torchrun -m rvpo train`` in the recipes."""
    recipe = [str(inputs), f"output={tmp_path / 'runs'}", *WARM, "trainer.max_steps=2"]
    recipe.append(f"warm_start.data.path={inputs.parent / 'prompts.jsonl'}")
    recipe.append("trainer.per_device_train_batch_size=4")
    assert launched_twice("-m", "rvpo", "train", *recipe).count("done: ") == 1
    folder = tmp_path / "runs" / "whole"
    assert [line["step"] for line in metrics(folder)] == [1, 2, 2]
    assert (folder / "model" / "model.safetensors").exists()


# --- the shipped recipes ----------------------------------------------------------------------------------------------

SYSTEM, USER = "call the tool", "what is the {}"
REPLY = '<think> it is </think>\n<tool_call>\n{{"name": "tool", "parameters": {{"a": "{}"}}}}\n</tool_call>'


def write_layout(layout: str, path: Path) -> Path:
    """Write six dialogues in a layout that a recipe names."""
    turns = [[(SYSTEM, USER.format(noun)), REPLY.format(noun)] for noun in NOUNS]
    prompts = [
        [{"role": "system", "content": system}, {"role": "user", "content": user}] for (system, user), _ in turns
    ]
    if layout == "rlla":
        rows = [{"instruction": system, "input": user, "output": reply} for (system, user), reply in turns]
        path.write_text(json.dumps(rows), "utf-8")
    elif layout == "jsonl":
        rows = [{"prompt": prompt, "answer": reply} for prompt, (_, reply) in zip(prompts, turns, strict=True)]
        path.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    elif layout == "rubrics":
        criteria = [
            {"id": "short", "text": "is it short", "rule": {"max_words": 2}, "category": "essential"},
            {"id": "cat", "text": "is it a cat", "points": -1},
        ]
        rows = [{"prompt": USER.format(noun), "criteria": criteria[: 1 + i % 2]} for i, noun in enumerate(NOUNS)]
        path.write_text(yaml.safe_dump(rows), "utf-8")
    elif layout == "rar":
        criteria = [
            {"title": "a", "description": "Essential Criteria: it is a cat", "weight": 5},
            {"title": "b", "description": "Pitfall Criteria: it is a dog", "weight": -1},
        ]
        rows = [
            {"question": USER.format(noun), "reference_answer": noun, "rubric": criteria[: 1 + i % 2]}
            for i, noun in enumerate(NOUNS)
        ]
        path = path.with_suffix(".jsonl")
        path.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    elif layout == "hub":  # MATH
        solutions = [f"So it is $\\boxed{{{i}}}$." for i in range(len(NOUNS))]
        rows = [{"problem": USER.format(noun), "solution": text} for noun, text in zip(NOUNS, solutions, strict=True)]
        path = path.with_suffix(".jsonl")
        path.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    else:
        assert layout == "rlla_parquet"
        rows = [
            {"data_source": "rlla", "prompt": prompt, "reward_model": {"style": "rule", "ground_truth": reply}}
            for prompt, (_, reply) in zip(prompts, turns, strict=True)
        ]
        pq.write_table(pa.Table.from_pylist(rows), path)
    return path


# What a recipe asks of its machine and data, and the tiny model's stand-in has not.
SMALLER = {
    "trainer.use_vllm": "false",  # needs a GPU
    "trainer.generation_batch_size": "16",
    "trainer.gradient_accumulation_steps": "1",
    "warm_start.trainer.max_steps": "1",
    "data.offset": "2",  # of six dialogues
    "warm_start.data.limit": "2",
    "data.split": "null",  # of a hub dataset
    "trainer.num_generations": "4",
}


@pytest.mark.parametrize("path", sorted(RECIPES.glob("*.yaml")), ids=lambda path: path.stem)
def test_shipped_recipe_runs(path: Path, tmp_path: Path, tiny_model_dir: Path):
    """Three steps of the real thing: only the sizes above, the model and the rows are others.

    bf16, KL to a reference, gradient checkpointing, LoRA and several updates a generation stay as each recipe has them.
    """
    shipped = yaml.safe_load(path.read_text("utf-8"))

    def has(key: str) -> bool:
        *parents, last = key.split(".")
        section = shipped
        for parent in parents:
            section = section.get(parent) or {}
        return last in section

    data = write_layout(shipped["data"]["layout"], tmp_path / Path(shipped["data"]["path"]).name)
    overrides = [f"{key}={value}" for key, value in SMALLER.items() if has(key)]
    overrides += [f"{key}={data}" for key in ("data.path", "eval_data.path", "warm_start.data.path") if has(key)]
    rubric, math = (shipped["rewards"][0] not in ("format", "math")), shipped["rewards"] == ["math"]
    if math:
        overrides += ["data.layout=jsonl", "data.subset=null"]
    if rubric:
        overrides.append(f"rewards.0.options.judge={{kind: local, model: {tiny_model_dir}, dtype: float32}}")
    if has("warm_start.output"):
        overrides.append(f"warm_start.output={tmp_path / 'models' / 'warm'}")
    overrides += [
        f"output={tmp_path / 'runs'}",
        f"model.path={tiny_model_dir}",
        "trainer.per_device_train_batch_size=8",
        "trainer.max_completion_length=6",
        "trainer.max_steps=3",
        "trainer.save_strategy=no",
    ]
    recipe = load_recipe(path, overrides)
    folder = train_recipe(recipe)

    *steps, _ = metrics(folder)
    assert [line["step"] for line in steps] == [1, 2, 3]
    # The paper's generation serves several updates; the others generate anew in each step.
    generating = steps[::2] if path.stem.startswith("qwen") and not rubric else steps
    paper = [0.5, 2.0] if len(generating) == 2 else [0.5, 1.25, 2.0]
    if not math:
        assert [line["rvpo/k"] for line in generating] == ([1.0] * 3 if recipe.method == "rvpo:k=1" else paper)
    for line in generating:
        if math:  # the tiny model boxes nothing; risk across questions tracks its quantiles
            assert (line["rvpo/math_reward/mean"], line["rvpo/math_reward/missing"]) == (0.0, 0.0)
            assert 0 <= line["rvpo/riskpo/quantile_upper"] <= 3 * 0.1  # of S = 0, moved by at most quantile_lr a step
            assert line["entropy"] > 0
            continue
        if rubric:
            assert line["rvpo/rubric/missing"] == 0.0
            assert 0 <= line["rvpo/rubric/mean"] <= 1
            assert line["rvpo/rubric/judge/verdicts"] > 0
            continue
        # The tiny model knows no tags: every reply misses the format and calls nothing.
        assert (line["rvpo/format_reward/mean"], line["rvpo/correctness_reward/mean"]) == (0.0, -3.0)
        assert line["rvpo/correctness_reward/missing"] == 0.0
    adapter = folder / "model" / "adapter_config.json"
    assert adapter.exists() == (recipe.model.peft is not None)
    assert (tmp_path / "models" / "warm" / "model.safetensors").exists() == (recipe.warm_start is not None)
