"""Rows with pictures, as verl's own data set reads them."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from omegaconf import OmegaConf

pytest.importorskip("PIL")
from verl.utils.dataset.rl_dataset import RLHFDataset

from rvpo.data import load_prompts
from rvpo.engines.verl.data import write_parquet
from rvpo.engines.verl.rewards import compute_score
from rvpo.errors import DataError
from tiny_vision_model import drawing, write_geometry


@pytest.fixture
def written(tmp_path: Path) -> Path:
    data = load_prompts(write_geometry(tmp_path / "geo.parquet", rows=3), system_prompt="Reason.")
    write_parquet(data, tmp_path / "train.parquet", data_source="geometry", split="train")
    return tmp_path / "train.parquet"


def test_verl_reads_the_pictures_where_they_stand(written: Path, tmp_path: Path):
    settings = {"filter_overlong_prompts": False, "cache_dir": str(tmp_path / "cache")}
    data = RLHFDataset(str(written), tokenizer=None, config=OmegaConf.create(settings), processor=object())
    for i in range(3):
        system, user = data[i]["raw_prompt"]
        assert system["content"] == [{"type": "text", "text": "Reason."}]
        picture, text = user["content"]
        assert text == {"type": "text", "text": "what is it"}
        assert picture["type"] == "image"
        assert picture["image"].getpixel((0, 0)) == (40 * i, 90, 10 * i)


def test_reward_functions_see_the_parts_and_no_bytes(written: Path):
    row = pq.read_table(written).to_pylist()[0]
    info = row["extra_info"]
    assert json.loads(info["prompt"])[1]["content"][0]["type"] == "image"
    assert "images" not in json.loads(info["columns"])
    kwargs: dict[str, Any] = {"data_source": "d", "ground_truth": "0", "extra_info": info}
    scored = asyncio.run(compute_score(solution_str="\\boxed{0}", rewards=["math"], **kwargs))
    assert scored["math_reward"] == 1.0


def test_a_judge_of_text_does_not_judge_pictures(written: Path):
    info = pq.read_table(written).to_pylist()[0]["extra_info"]
    pairwise = {"function": "pairwise", "options": {"judge": {"kind": "endpoint", "base_url": "http://localhost:1/v1",
                "model": "m"}, "against": "column", "column": "other"}}  # fmt: skip
    info = info | {"columns": json.dumps({"other": "x"})}
    found = asyncio.run(
        compute_score(data_source="d", solution_str="y", ground_truth="", extra_info=info, rewards=[pairwise])
    )
    assert "reads only text, but the prompts have pictures" in str(found)  # which stops the training


def test_text_without_pictures_is_written_as_before(tmp_path: Path):
    (tmp_path / "x.jsonl").write_text('{"prompt": "p", "answer": "a"}\n')
    write_parquet(load_prompts(tmp_path / "x.jsonl"), tmp_path / "y.parquet", data_source="d", split="train")
    assert pq.read_schema(tmp_path / "y.parquet").names == ["data_source", "prompt", "reward_model", "extra_info"]


def test_a_text_that_verl_takes_for_a_video_is_refused(tmp_path: Path):
    import pyarrow as pa

    row = {"images": [{"bytes": drawing("red"), "path": None}], "problem": "<image> in <video>?", "answer": "a"}
    pq.write_table(pa.Table.from_pylist([row]), tmp_path / "x.parquet")
    with pytest.raises(DataError, match="the text <video>, where verl expects a video"):
        write_parquet(load_prompts(tmp_path / "x.parquet"), tmp_path / "y.parquet", data_source="d", split="train")
