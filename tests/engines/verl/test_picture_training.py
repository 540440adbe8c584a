"""Real trainings of a vision-language model on the CPU, on rows as Geometry3K has them; see rig/README.md."""

from __future__ import annotations

import io
import json
import re
from collections import Counter
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image
from rig.pictures import COLOURS
from rig.run import GENERATIONS, PROMPTS, Run, pictures, tensor, train
from rig.sampling import Request, picture_tokens
from rig.sampling import step as sample

import rvpo
from rvpo.logs.open import open_run
from rvpo.page.report import build_report
from rvpo.pictures import FOLDER as FOLDER_OF_PICTURES
from rvpo.pictures import decode, digest, recorded_path
from tiny_vision_model import drawing

FOLDER = Path(__file__).parents[3] / "recipes" / "riskpo" / "verl"
METHOD = 'algorithm.adv_estimator="riskpo:lower=0.2,upper=0.9,tail_weight=1.5,credit=std"'
STEPS = COLOURS // PROMPTS  # an epoch

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def trained(folder: Path) -> Run:
    """The recipe of RiskPO for pictures, with its method and its reward."""
    config = ["--config-dir", str(FOLDER), "--config-name", "multi-modal"]
    where = folder / "riskpo"
    # Flags last, or argparse stops at them.
    return train(where, *pictures(where), METHOD, *config, entry="rvpo.verl", steps=STEPS)


def test_every_rollout_sees_its_own_picture(trained: Run):
    """All questions are the same text, so only the pictures differ."""
    seen = Counter(name for event in trained.events if event["event"] == "pictures" for name in event["pixels"])
    assert list(seen.values()) == [GENERATIONS] * COLOURS
    dumped = [rollout for step in trained.rollouts.values() for rollout in step]
    assert {rollout["input"] for rollout in dumped} == {"user what is it assistant"}
    assert Counter(rollout["gts"] for rollout in dumped) == {str(i): GENERATIONS for i in range(COLOURS)}


def test_the_actor_sees_the_pictures_of_the_rollouts(trained: Run):
    """Else it would give the same tokens other probabilities than the rollout server."""
    assert list(trained.metrics) == list(range(1, STEPS + 1))
    for metrics in trained.metrics.values():
        assert metrics["training/rollout_probs_diff_max"] < 1e-6
        assert metrics["actor/grad_norm"] > 0


def test_with_another_picture_the_probabilities_are_others(trained: Run):
    from transformers import AutoModelForImageTextToText
    from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

    path = trained.folder / "task" / "model"
    model = AutoModelForImageTextToText.from_pretrained(path, dtype=torch.float64, attn_implementation="eager").eval()
    pixels = Qwen2VLImageProcessorPil.from_pretrained(path)
    picture = int(picture_tokens(model)[0])

    def log_prob(colour: str) -> float:
        shown: Any = pixels([Image.open(io.BytesIO(drawing(colour, (56, 28))))], return_tensors="pt")
        request = Request([picture, picture], 1, seed=0, pictures=dict(shown))
        sample(model, [request], eos=0)
        return request.log_probs[0]

    assert abs(log_prob("red") - log_prob("blue")) > 1e-3  # far above what the actor may differ by


def test_rewards_are_those_of_the_answers(trained: Run):
    found = []
    for step, dumped in trained.rollouts.items():
        rewards = {row["uid"]: row["reward"] for row in trained.channels(step)}
        for rollout in dumped:
            said = re.findall(r"\\boxed\{(\d)\}", rollout["output"])
            if len(said) > 1:
                continue  # which of several boxes count is a matter of tests/rewards/test_math_answers.py
            assert rewards[rollout["uid"]] == float(said == [rollout["gts"]]), rollout
            found.append(rewards[rollout["uid"]])
    assert set(found) == {0.0, 1.0}


def test_advantages_equal_those_of_an_aggregator_on_the_logged_rewards(trained: Run):
    aggregator = rvpo.Aggregator(METHOD.split('"')[1], ["math_reward"])
    for step in trained.metrics:
        rows = trained.channels(step)
        rewards = tensor([row["reward"] for row in rows])[:, None]
        expected = aggregator(rewards, groups=torch.tensor([row["group"] for row in rows])).advantages.double()
        logged = tensor([row["advantage"] for row in rows])
        torch.testing.assert_close(logged, expected, rtol=0, atol=1e-6)
        assert trained.metrics[step]["critic/advantages/max"] == pytest.approx(expected.max().item(), abs=1e-5)


def test_the_record_has_the_pictures_of_each_prompt_and_the_page_shows_them(trained: Run):
    run = open_run(trained.folder / "rollouts")
    assert run.pictures == trained.folder / "rollouts" / FOLDER_OF_PICTURES
    named: dict[str, set[str | None]] = {}
    for batch in run.batches(texts=True):
        assert batch.texts is not None
        for group, names in zip(batch.groups.tolist(), batch.texts.pictures, strict=True):
            assert len(names) == 1
            named.setdefault(f"{batch.step} {group}", set()).add(names[0])
    assert [len(names) for names in named.values()] == [1] * COLOURS
    found = {name for names in named.values() for name in names}
    assert len(found) == COLOURS
    of_data = pq.read_table(trained.folder / "task" / "geometry.parquet")["images"].to_pylist()
    assert found == {digest(decode(picture["bytes"])) for [picture] in of_data}
    assert all(recorded_path(run.pictures, name) for name in found)
    text = build_report([run]).split('<script type="application/json"', 1)[1].split(">", 1)[1]
    [shown] = json.loads(text.split("</script>", 1)[0])["runs"]
    assert shown["samples"]
    assert all(shown["pictures"][name] for sample in shown["samples"] for name in sample["pictures"])
    assert all(len(sample["pictures"]) == 1 for sample in shown["samples"])
