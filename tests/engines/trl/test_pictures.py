"""RVPOTrainer with models of pictures and text: training, resuming, the record, and what reads text alone."""

from __future__ import annotations

import json
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import torch

pytest.importorskip("trl")
pytest.importorskip("PIL")
import features
import pandas as pd
import tiny_run
from PIL import Image

import tiny_vision_model
from rvpo.data import load_prompts
from rvpo.engines.trl.loading import has_pictures, load_model, load_processor
from rvpo.engines.trl.pictures import pictures_of
from rvpo.engines.trl.run import train_recipe
from rvpo.engines.trl.weights import load_missing
from rvpo.errors import ConfigError, EngineError
from rvpo.evals.items import Generation, Item
from rvpo.evals.local import LocalPolicy
from rvpo.evals.policy import wait_for
from rvpo.logs.open import open_run
from rvpo.page.report import build_report
from rvpo.pictures import FOLDER, recorded_path
from rvpo.recipe import ModelSection, build_recipe
from rvpo.rewards.rubric import Criterion, Rubric, RubricReward, Verdict
from rvpo.trl import RVPOConfig, RVPOTrainer
from tiny_vision_model import write_geometry

G, PROMPTS = 4, 2
REWARDS = [tiny_run.even, tiny_run.high]


@pytest.fixture(scope="module")
def geometry(tmp_path_factory: pytest.TempPathFactory) -> Any:
    return load_prompts(write_geometry(tmp_path_factory.mktemp("geometry") / "train.parquet"))


@pytest.fixture(scope="module")
def vision_model_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("vision-model")
    tiny_vision_model.save_tiny_vision_model(folder)
    return folder


def make(output: Path, dataset: Any, kind: str = "llava", rewards: Any = None, **options: Any) -> RVPOTrainer:
    args = {
        "output_dir": str(output),
        "max_steps": 3,
        "per_device_train_batch_size": PROMPTS * G,
        "num_generations": G,
        "max_completion_length": 5,
        "learning_rate": 1e-2,
        "logging_steps": 1,
        "save_strategy": "no",
        "report_to": "none",
        "disable_tqdm": True,
        "use_cpu": True,
        "bf16": False,
        "log_completions": True,
        "num_completions_to_print": 0,
        "seed": 3,
    } | options
    return RVPOTrainer(
        model=tiny_vision_model.model(kind),
        reward_funcs=rewards or REWARDS,
        args=RVPOConfig(**args),
        train_dataset=dataset,
        processing_class=tiny_vision_model.processor(kind),
    )


METHODS = ("riskpo:bundle_size=2", "lift")


@pytest.mark.parametrize(("kind", "method"), zip(tiny_vision_model.MODELS, METHODS, strict=True))
def test_three_steps_and_a_resume_that_equals_them(kind: str, method: str, geometry: Any, tmp_path: Path):
    """The checkpoint lies within a generation, whose pictures are in its buffer.

    Its weights have other names than the parameters of these models, and transformers' trainer would resume with
    weights of the start.
    """
    options = {"method": method, "save_strategy": "steps", "save_steps": 1, "num_iterations": 2}
    whole = make(tmp_path, geometry, kind, **options)
    start = tiny_run.parameters(whole)
    whole.train()
    resumed = make(tmp_path, geometry, kind, **options | {"save_strategy": "no"})
    resumed.train(resume_from_checkpoint=str(tmp_path / "checkpoint-1"))
    assert (tmp_path / "checkpoint-1" / "rvpo_buffer_0.safetensors").exists()
    assert sorted(tiny_run.steps(whole)) == [1, 2, 3]
    assert tiny_run.steps(resumed) == tiny_run.steps(whole)
    assert torch.equal(tiny_run.parameters(resumed), tiny_run.parameters(whole))
    assert not torch.equal(tiny_run.parameters(whole), start)


def test_the_policy_samples_no_picture_tokens(geometry: Any, tmp_path: Path):
    """No picture would belong to them."""
    trainer = make(tmp_path, geometry)
    assert trainer.generation_config.suppress_tokens == [trainer.model.config.image_token_id]
    own = make(tmp_path, geometry, generation_kwargs={"suppress_tokens": [3]})
    assert own.generation_config.suppress_tokens == [3]


def test_a_checkpoint_without_all_weights_is_refused(tmp_path: Path):
    from safetensors.torch import load_file, save_file

    model = tiny_vision_model.model()
    model.save_pretrained(tmp_path)
    assert not load_missing(model, ["lm_head.weight"], str(tmp_path))  # tied to the embedding
    file = tmp_path / "model.safetensors"
    weights = load_file(file)
    lost = next(name for name in weights if name.startswith("multi_modal_projector"))
    save_file({name: value for name, value in weights.items() if name != lost}, file, {"format": "pt"})
    with pytest.raises(EngineError, match=r"lacks the weights of .*multi_modal_projector.*resume from another"):
        load_missing(model, list(model.state_dict()), str(tmp_path))


# --- the record -------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def recorded(geometry: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of a run: two steps of two questions with the same text."""
    folder = tmp_path_factory.mktemp("recorded")
    make(folder, geometry, max_steps=2).train()
    return folder


def test_a_picture_is_stored_once_and_never_in_the_tables(recorded: Path):
    table = pd.read_parquet(recorded / "channels" / "000001.parquet")
    of_group = table.groupby("group").pictures.agg(lambda cells: {tuple(cell) for cell in cells})
    assert [len(found) for found in of_group] == [1, 1]
    names = {name for found in of_group for [name] in found}
    assert len(names) == PROMPTS
    assert all(recorded_path(recorded / FOLDER, name) for name in names)
    assert len(list((recorded / FOLDER).iterdir())) <= 2 * PROMPTS
    files = [path for path in recorded.rglob("*") if path.is_file() and path.parent.name != FOLDER]
    assert not [path for path in files if b"\x89PNG" in path.read_bytes()]


def test_questions_with_the_same_text_are_groups_of_their_own(recorded: Path):
    batch = next(open_run(recorded).batches(texts=True))
    assert batch.groups.tolist() == [0] * G + [1] * G
    assert batch.texts is not None
    assert len(set(batch.texts.prompts)) == 1
    assert len({tuple(names) for names in batch.texts.pictures}) == PROMPTS


@pytest.mark.skipif(not features.MARKS_PICTURES, reason="this TRL's own record does not show that there were pictures")
def test_logs_without_pictures_say_that_groups_are_guessed(recorded: Path):
    """TRL's own completions keep no pictures: their prompts are one text."""
    guesses = open_run(recorded / "completions").guesses
    assert any("different pictures may look the same" in str(guess) for guess in guesses)


def data_of(page: str) -> dict[str, Any]:
    text = page.split('<script type="application/json"', 1)[1].split(">", 1)[1].split("</script>", 1)[0]
    return json.loads(text)


def test_the_page_shows_the_pictures_of_its_samples(recorded: Path):
    [run] = data_of(build_report([open_run(recorded)]))["runs"]
    assert run["samples"]
    for sample in run["samples"]:
        [name] = sample["pictures"]
        assert run["pictures"][name].startswith("data:image/png;base64,")
        assert ("[image]" in sample["prompt"]) == features.MARKS_PICTURES


@pytest.mark.parametrize("content", [b"<svg onload='alert(1)'/>", b"", b"\x89PNG\r\n\x1a\ncut off"])
def test_the_page_shows_no_file_that_is_not_a_picture(content: bytes, recorded: Path, tmp_path: Path):
    import shutil

    shutil.copytree(recorded, tmp_path / "run")
    for path in (tmp_path / "run" / FOLDER).iterdir():
        path.write_bytes(content)
    [run] = data_of(build_report([open_run(tmp_path / "run")]))["runs"]
    assert run["pictures"] == {}
    assert all(sample["pictures"] for sample in run["samples"])


def test_pictures_are_found_where_trl_takes_them():
    one, two = Image.new("RGB", (2, 2)), Image.new("RGB", (3, 3))
    chat = [{"role": "user", "content": [{"type": "image", "image": one}, {"type": "text", "text": "x"}]}]
    assert pictures_of({"prompt": chat}) == [one]
    assert pictures_of({"prompt": "x", "image": two}) == [two]
    assert pictures_of({"prompt": "x", "images": [one, two]}) == [one, two]
    assert pictures_of({"prompt": "x", "images": None}) == []
    assert pictures_of({"prompt": [{"role": "user", "content": "x"}]}) == []


# --- recipes ----------------------------------------------------------------------------------------------------------


def recipe(folder: Path, model: Path, **changes: Any) -> Any:
    own = "def length(completions, **_):\n    return [float(len(reply[0]['content'])) for reply in completions]\n"
    (folder / "rewards.py").write_text(own)
    values = {
        "name": "run",
        "output": str(folder),
        "model": {"path": str(model)},
        "data": {"path": str(write_geometry(folder / "geo.parquet")), "system_prompt": "answer"},
        "rewards": ["math", {"function": f"{folder}/rewards.py:length", "range": [0, 100]}],
        "method": "riskpo:bundle_size=2",
        "trainer": {"max_steps": 1, "per_device_train_batch_size": 8, "num_generations": 4, "max_completion_length": 4,
                    "disable_tqdm": True},
    }  # fmt: skip
    return build_recipe(values | changes)


def test_a_recipe_trains_a_model_that_reads_pictures(vision_model_dir: Path, tmp_path: Path):
    folder = train_recipe(recipe(tmp_path, vision_model_dir))
    assert (folder / "model" / "processor_config.json").exists()
    rewards = pd.read_parquet(folder / "channels" / "000001.parquet").query("reward_function == 'math_reward'").reward
    assert rewards.tolist() == [0.0] * 8


def test_what_cannot_work_with_pictures_is_refused(vision_model_dir: Path, tiny_model_dir: Path, tmp_path: Path):
    with pytest.raises(ConfigError, match=r"reads text alone.*expected a vision-language model.*image_column: none"):
        train_recipe(recipe(tmp_path, tiny_model_dir))
    warm = {"data": {"path": str(tmp_path / "geo.parquet")}}
    with pytest.raises(ConfigError, match="warm_start is set, and the prompts have pictures"):
        train_recipe(recipe(tmp_path, vision_model_dir, warm_start=warm))
    text_only = {"path": str(tmp_path / "geo.parquet"), "image_column": "none"}
    with pytest.raises(ConfigError, match=r"data have pictures, those of eval_data do not"):
        train_recipe(recipe(tmp_path, vision_model_dir, eval_data=text_only))
    with pytest.raises(ConfigError, match=r"no processor at model\.path"):
        load_processor(ModelSection(path=str(tmp_path)))
    with pytest.raises(ConfigError, match="does not load as a model of pictures and text"):
        load_model(ModelSection(path=str(tiny_model_dir)), None, pictures=True)


@pytest.mark.skipif(find_spec("torchvision") is not None, reason="with torchvision, the processor can be loaded")
def test_a_processor_that_needs_torchvision_says_so(tmp_path: Path):
    tiny_vision_model.model("qwen2_vl").config.save_pretrained(tmp_path)
    tiny_vision_model.tokenizer().save_pretrained(tmp_path)
    (tmp_path / "preprocessor_config.json").write_text('{"image_processor_type": "Qwen2VLImageProcessor"}')
    with pytest.raises(ConfigError, match=r"reads them with torchvision; expected .* pip install .*\[vision\]'"):
        load_processor(ModelSection(path=str(tmp_path)))


def test_only_prompts_with_pictures_need_a_processor(geometry: Any):
    assert has_pictures([geometry], ["data"])
    assert not has_pictures([geometry.remove_columns("images")], ["data"])


class Blind:
    """A judge that would answer anything."""

    async def judge(self, questions: list[Any]) -> list[list[Verdict]]:
        return [[Verdict(1.0) for _ in question.criteria] for question in questions]

    async def check(self) -> None:
        pass

    def usage(self) -> dict[str, float]:
        return {}


class Seeing(Blind):
    reads_pictures = True


def test_a_judge_of_text_does_not_judge_what_it_cannot_see(geometry: Any, tmp_path: Path):
    rubric = Rubric((Criterion("c", "names the colour"),)).to_json()
    dataset = geometry.add_column("rubric", [rubric] * len(geometry))
    with pytest.raises(ConfigError, match=r"asks Blind, which reads only text.*reads_pictures = True"):
        make(tmp_path / "blind", dataset, rewards=[tiny_run.even, RubricReward(Blind())], max_steps=1).train()
    make(tmp_path / "seeing", dataset, rewards=[tiny_run.even, RubricReward(Seeing())], max_steps=1).train()


def test_benchmarks_of_text_run_on_a_model_that_reads_pictures():
    policy = LocalPolicy(tiny_vision_model.model(), tiny_vision_model.processor(), name="tiny")
    item = Item("a", ({"role": "user", "content": "what is it"},))

    async def replies() -> list[Any]:
        found = policy.replies([item], {item.key}, Generation(max_tokens=3))
        return [reply async for batch in found for _, reply in batch]

    [reply] = wait_for(replies())
    assert reply.prompt_tokens > 3
