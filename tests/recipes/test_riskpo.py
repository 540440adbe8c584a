"""The runs of the RiskPO paper: their files have the released settings, what their comments say can be typed, and each
runs on a tiny model."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Any

import pytest
import yaml

import rvpo
from rvpo.core.methods.registry import build_method
from rvpo.recipe import load_data_sections, load_recipe
from rvpo.rewards.registry import find_reward

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "recipes" / "riskpo"
RUNS = ("code", "easy-maths", "hard-maths", "multi-modal", "risk-seeking")
BOX = "Reason step by step and put your final answer within \\boxed{}."

EASY = rvpo.RiskPO(lower=0.2, upper=0.9, tail_weight=1.5, credit="std")
HARD = rvpo.RiskPO(lower=0.2, upper=0.8, tail_weight=1.5, credit="deviation", anchored=False)
METHODS = {
    "easy-maths": EASY,
    "risk-seeking": rvpo.RiskPO(lower=0.2, upper=0.8, tail_weight=1.5, credit="std", seek=True),
    "hard-maths": HARD,
    "code": HARD,
    "multi-modal": EASY,
}
# Questions of a batch and of a mini-batch, rollouts, tokens of a reply, batches: riskpo.md's table, and our reading.
SIZES = {
    "easy-maths": (1024, 512, 5, 1024, 200),
    "risk-seeking": (1024, 512, 5, 1024, 200),
    "hard-maths": (512, 128, 10, 3072, 500),
    "code": (512, 128, 10, 3072, 500),
    "multi-modal": (512, 128, 5, 2048, 60),
}
UNRELEASED = ("code", "multi-modal")


def test_every_run_is_shipped_for_both_engines():
    assert tuple(sorted(path.stem for path in FOLDER.glob("*.yaml"))) == RUNS
    assert tuple(sorted(path.stem for path in (FOLDER / "verl").glob("*.yaml") if path.stem != "riskpo")) == RUNS


@pytest.mark.parametrize("name", RUNS)
def test_it_has_the_settings_of_the_run(name: str):
    recipe, trainer = load_recipe(FOLDER / f"{name}.yaml"), load_recipe(FOLDER / f"{name}.yaml").trainer
    assert recipe.name == name
    assert build_method(recipe.method) == METHODS[name]
    questions, mini, rollouts, tokens, batches = SIZES[name]
    update = 8 * trainer["per_device_train_batch_size"] * trainer["gradient_accumulation_steps"]
    assert (trainer["generation_batch_size"], update) == (questions * rollouts, mini * rollouts)
    assert (trainer["num_generations"], trainer["max_completion_length"]) == (rollouts, tokens)
    assert trainer["max_steps"] == batches * questions / mini
    assert (trainer["learning_rate"], trainer["beta"], trainer["temperature"]) == (1e-6, 0.0, 1.0)
    assert [entry.function for entry in recipe.rewards] == ["code" if name == "code" else "math"]


@pytest.mark.parametrize("name", RUNS)
def test_trl_takes_its_options(name: str):
    pytest.importorskip("trl")
    from rvpo.engines.trl import run

    recipe = load_recipe(FOLDER / f"{name}.yaml")
    args = run._config(recipe, [entry.name or entry.function for entry in recipe.rewards])
    assert args.advantage_config().method == METHODS[name]
    for option, value in recipe.trainer.items():
        assert getattr(args, option) == value, option


@pytest.mark.parametrize("name", RUNS)
def test_the_commands_of_its_comments_can_be_typed(name: str):
    text = (FOLDER / f"{name}.yaml").read_text("utf-8")
    commands = [shlex.split(line) for line in re.findall(r"^#   (.*)$", text, re.MULTILINE)]
    trained = []
    for words in commands:
        if "rvpo" in words and "train" in words:
            path, overrides = words[words.index("train") + 1], words[words.index("train") + 2 :]
            trained.append(load_recipe(ROOT / path, overrides))
        elif words[:2] == ["rvpo", "verl-data"]:
            load_data_sections(ROOT / words[2], words[3:-2])
        elif all("=" in word for word in words):
            load_recipe(FOLDER / f"{name}.yaml", words)
    methods = {recipe.method for recipe in trained}
    assert "grpo" in methods  # the control
    assert len({recipe.name for recipe in trained}) == len(trained)
    for override in re.findall(r"method\.\w+=[\w.]+(?<!\.)", text):
        load_recipe(FOLDER / f"{name}.yaml", [override])


@pytest.mark.parametrize("name", UNRELEASED)
def test_what_is_our_reading_is_marked(name: str):
    for path in (FOLDER / f"{name}.yaml", FOLDER / "verl" / f"{name}.yaml"):
        text = " ".join(path.read_text("utf-8").replace("#", " ").split())
        assert "NO SCRIPT OF THIS RUN WAS RELEASED" in text
        assert "OUR READING" in text


@pytest.mark.parametrize("path", sorted((FOLDER / "data").glob("*.yaml")), ids=lambda path: path.stem)
def test_data_of_the_easy_runs(path: Path):
    section = load_data_sections(path)["train"]
    assert section.system_prompt == BOX
    assert yaml.safe_load(path.read_text())["data"]["reference_columns"].keys() == {"answer"}


# --- on tiny models ---------------------------------------------------------------------------------------------------

SMALL = [
    "trainer.max_steps=2",
    "trainer.per_device_train_batch_size=10",
    "trainer.gradient_accumulation_steps=2",
    "trainer.generation_batch_size=20",
    "trainer.max_completion_length=6",
    "trainer.use_vllm=false",
    "trainer.bf16=false",
    "trainer.gradient_checkpointing=false",
    "trainer.save_steps=2",
    "trainer.disable_tqdm=true",
    "model.dtype=float32",
]


def written_data(name: str, folder: Path) -> list[str]:
    """Write rows as the run's data set has them, and return the overrides that name them."""
    from tiny_vision_model import write_geometry, write_jsonl

    hub = ["data.layout=auto", "data.subset=null", "data.split=null"]
    if name == "multi-modal":
        further = {"id": 1, "choices": ["1", "2"], "ground_truth": "A"}
        return [f"data.path={write_geometry(folder / 'train.parquet', **further)}", *hub]
    if name == "code":
        rows = [
            {"question": f"add {i}", "starter_code": "", "input_output": '{"inputs": ["1\\n"], "outputs": ["2\\n"]}'}
            for i in range(8)
        ]
        return [f"data.path={write_jsonl(folder / 'train.jsonl', rows)}", *hub]
    if name == "hard-maths":
        rows = [{"prompt": f"what is {i}", "solution": str(i), "source_prompt": "x"} for i in range(8)]
        return [f"data.path={write_jsonl(folder / 'train.jsonl', rows)}", *hub]
    from datasets import Dataset

    from rvpo.engines.verl.data import write_parquet

    for source, answer in (("gsm8k", "so #### {}"), ("math", "so \\boxed{{{}}}")):
        prompts = [[{"role": "system", "content": BOX}, {"role": "user", "content": f"{source} {i}"}] for i in range(4)]
        data = Dataset.from_dict({"prompt": prompts, "answer": [answer.format(i) for i in range(4)]})
        write_parquet(data, folder / "easy" / f"{source}.parquet", data_source=source, split="train")
    return [f"data.path={folder / 'easy'}"]


@pytest.mark.parametrize("name", RUNS)
def test_its_data_are_read(name: str, tmp_path: Path):
    pytest.importorskip("datasets")
    from rvpo.data import load_prompts

    overrides = written_data(name, tmp_path)
    options: dict[str, Any] = load_recipe(FOLDER / f"{name}.yaml", overrides).data.model_dump()
    data = load_prompts(options.pop("path"), **options)
    assert len(data) == (6 if name == "multi-modal" else 8)
    assert set(data.column_names) - {"prompt"} == {
        "code": {"input_output"},
        "multi-modal": {"answer", "images"},
    }.get(name, {"answer"})
    assert callable(find_reward("code" if name == "code" else "math"))


@pytest.mark.slow
@pytest.mark.parametrize("method", [None, "grpo"])
@pytest.mark.parametrize("name", RUNS)
def test_it_runs_on_a_tiny_model(name: str, method: str | None, tiny_model_dir: Path, tmp_path: Path):
    pytest.importorskip("trl")
    from rvpo.engines.trl.run import train_recipe
    from tiny_vision_model import save_tiny_vision_model

    model = tiny_model_dir
    if name == "multi-modal":
        save_tiny_vision_model(model := tmp_path / "model")
    overrides = [f"model.path={model}", f"output={tmp_path}", *SMALL, *written_data(name, tmp_path)]
    if method:
        overrides += [f"method={method}", f"name={name}-{method}"]
    folder = train_recipe(load_recipe(FOLDER / f"{name}.yaml", overrides))
    assert (folder / "model").is_dir()
    assert len(list((folder / "channels").glob("0*.parquet"))) == 2
