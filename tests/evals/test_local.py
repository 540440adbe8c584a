"""Replies of a real model on this machine: batches, sampling, resuming, adapters, and a training model left alone."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
import sqlite3
import time
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import torch
from peft import LoraConfig, get_peft_model
from tiny_run import warm_python
from transformers import AutoModelForCausalLM, AutoTokenizer, set_seed

from rvpo.errors import ConfigError, ModelError
from rvpo.evals.items import Generation, Item
from rvpo.evals.local import LocalPolicy
from rvpo.evals.models import load_policy
from warm_python import Program

TEXTS = ["hello", "the cat is red", "why the dog and not the cat", "one two three", "rain", "what is the answer"]
ITEMS = [Item(f"q{i}", ({"role": "user", "content": text},)) for i, text in enumerate(TEXTS)]
GREEDY, WARM = Generation(max_tokens=12), Generation(max_tokens=12, temperature=1.0, seed=3)


def replies(
    policy: Any, items: Sequence[Item], generation: Generation, wanted: set[str] | None = None
) -> dict[str, Any]:
    async def collect() -> dict[str, Any]:
        keys = frozenset(item.key for item in items if wanted is None or item.id in wanted)
        return {item.id: reply async for batch in policy.replies(items, keys, generation) for item, reply in batch}

    return asyncio.run(collect())


def by_hand(folder: Path, text: str, max_tokens: int) -> str:
    """Greedy decoding token by token, without generate()."""
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    rendered = tokenizer.apply_chat_template(
        [{"role": "user", "content": text}], tokenize=False, add_generation_prompt=True
    )
    ids = tokenizer(rendered, add_special_tokens=False)["input_ids"]
    new: list[int] = []
    for _ in range(max_tokens):
        with torch.no_grad():
            token = int(model(torch.tensor([ids + new])).logits[0, -1].argmax())
        if token == tokenizer.eos_token_id:
            break
        new.append(token)
    return str(tokenizer.decode(new, skip_special_tokens=True))


def test_padded_batches_reply_as_single_prompts_do(tiny_model_dir: Path):
    policy = load_policy(str(tiny_model_dir), batch_size=4)
    found = replies(policy, ITEMS, GREEDY)
    assert {id_: reply.text for id_, reply in found.items()} == {
        item.id: by_hand(tiny_model_dir, text, 12) for item, text in zip(ITEMS, TEXTS, strict=True)
    }
    assert all(reply.completion_tokens == 12 for reply in found.values() if reply.finish == "length")


def test_what_was_replied_before_does_not_change_a_sampled_reply(tiny_model_dir: Path):
    whole = replies(load_policy(str(tiny_model_dir), batch_size=2), ITEMS, WARM)
    rest = {"q1", "q4", "q5"}
    again = replies(load_policy(str(tiny_model_dir), batch_size=2), ITEMS, WARM, rest)
    assert again == {id_: whole[id_] for id_ in rest}
    other = replies(load_policy(str(tiny_model_dir), batch_size=2), ITEMS, Generation(12, 1.0, seed=4))
    assert other != whole


def test_the_checkpoints_own_sampling_does_not_leak_in(tiny_model_dir: Path, tmp_path: Path):
    folder = tmp_path / "model"
    shutil.copytree(tiny_model_dir, folder)
    config = json.loads((folder / "generation_config.json").read_text())
    config |= {"repetition_penalty": 5.0, "do_sample": True, "temperature": 9.0, "top_k": 2}
    (folder / "generation_config.json").write_text(json.dumps(config))
    plain = replies(load_policy(str(tiny_model_dir)), ITEMS, GREEDY)
    assert replies(load_policy(str(folder)), ITEMS, GREEDY) == plain


@pytest.mark.xdist_group("processes")
def test_a_killed_run_goes_on_and_ends_as_if_it_had_not_been_killed(tiny_model_dir: Path, tmp_path: Path):
    """Through the command line, with sampling: replies are equal to the last bit, and none is made twice."""
    data = tmp_path / "heldout.jsonl"
    answer = "<think> so </think>\n<response> yes </response>"
    rows = [{"prompt": f"{TEXTS[i % 6]} {'cat ' * (i % 17)} {'dog ' * (i % 5)}", "answer": answer} for i in range(200)]
    data.write_text("".join(json.dumps(row) + "\n" for row in rows))

    def start(out: str) -> Program:
        options = ["--data", str(data), "--out", str(tmp_path / out), "--batch-size", "2", "--temperature", "1"]
        line = ["-m", "rvpo", "eval", "toolcall", str(tiny_model_dir), *options, "--max-tokens", "24"]
        return warm_python().start(line)

    def kept() -> dict[str, str]:
        path = tmp_path / "run" / "store.sqlite"
        if not path.exists():
            return {}
        with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as db:
            try:
                return dict(db.execute("SELECT id, rowid || value FROM replies").fetchall())
            except sqlite3.OperationalError:  # not made yet
                return {}

    killed = start("run")
    deadline = time.monotonic() + 900
    while len(kept()) < 10:
        assert killed.poll() is None, killed.stderr
        assert time.monotonic() < deadline
        time.sleep(0.01)
    os.kill(killed.pid, signal.SIGKILL)
    killed.wait()
    before = kept()
    assert 10 <= len(before) < 200, "killed too late for this test"
    for out in ("run", "whole"):
        done = start(out)
        assert done.wait() == 0, done.stderr
    assert before.items() <= kept().items()  # rows that were there were not written again
    tables = [pq.read_table(tmp_path / out / "items.parquet") for out in ("run", "whole")]
    assert tables[0].equals(tables[1])
    results = [json.loads((tmp_path / out / "results.json").read_text()) for out in ("run", "whole")]
    for result in results:
        result.pop("seconds_of_last_call")
    assert results[0] == results[1]


def test_a_prompt_that_leaves_no_room_is_missing(tiny_model_dir: Path):
    long = Item("long", ({"role": "user", "content": "cat " * 250},))
    found = replies(load_policy(str(tiny_model_dir)), [*ITEMS, long], GREEDY)
    assert found["long"].text is None
    assert found["long"].reason == "too_long"
    assert "of 256" in found["long"].detail
    assert found["q0"].text is not None


def test_a_training_model_is_left_as_it_was(tiny_model_dir: Path):
    model = AutoModelForCausalLM.from_pretrained(tiny_model_dir, dtype=torch.float32).train()
    tokenizer = AutoTokenizer.from_pretrained(tiny_model_dir)
    before = model.generation_config.to_dict()
    set_seed(0)
    expected = torch.rand(3)
    set_seed(0)
    found = replies(LocalPolicy(model, tokenizer, name="step 1"), ITEMS, WARM)
    assert torch.equal(torch.rand(3), expected)
    assert model.training
    assert model.generation_config.to_dict() == before
    assert len(found) == len(ITEMS)
    model(torch.tensor([[8, 9, 10]])).logits.sum().backward()  # nothing was left in inference mode


def test_an_adapter_replies_as_its_merged_model_does(tiny_model_dir: Path, tmp_path: Path):
    base = AutoModelForCausalLM.from_pretrained(tiny_model_dir, dtype=torch.float32)
    adapted = get_peft_model(base, LoraConfig(task_type="CAUSAL_LM", target_modules=["q_proj", "v_proj"]))
    with torch.no_grad():
        for name, weight in adapted.named_parameters():
            if "lora" in name:
                weight.normal_(generator=torch.Generator().manual_seed(len(name)))
    adapted.peft_config["default"].base_model_name_or_path = str(tiny_model_dir)
    adapted.save_pretrained(tmp_path / "adapter")
    tokenizer = AutoTokenizer.from_pretrained(tiny_model_dir)
    tokenizer.save_pretrained(tmp_path / "adapter")
    merged = adapted.merge_and_unload()
    merged.save_pretrained(tmp_path / "merged")
    tokenizer.save_pretrained(tmp_path / "merged")

    policy = load_policy(str(tmp_path / "adapter"))
    found = replies(policy, ITEMS, GREEDY)
    texts = {id_: reply.text for id_, reply in found.items()}
    plain = {id_: reply.text for id_, reply in replies(load_policy(str(tiny_model_dir)), ITEMS, GREEDY).items()}
    assert texts == {
        id_: reply.text for id_, reply in replies(load_policy(str(tmp_path / "merged")), ITEMS, GREEDY).items()
    }
    assert texts != plain
    assert policy.identity()["base"]["sha256"] == load_policy(str(tiny_model_dir)).identity()["sha256"]


def test_another_checkpoint_is_another_model(tiny_model_dir: Path, tmp_path: Path):
    folder = tmp_path / "model"
    shutil.copytree(tiny_model_dir, folder)
    before = load_policy(str(folder)).identity()
    assert before["sha256"] == load_policy(str(tiny_model_dir)).identity()["sha256"]
    model = AutoModelForCausalLM.from_pretrained(folder)
    with torch.no_grad():
        next(model.parameters())[0, 0] += 1e-3
    model.save_pretrained(folder)
    assert load_policy(str(folder)).identity()["sha256"] != before["sha256"]


@pytest.mark.parametrize("name", ["vocab.json", "merges.txt", "special_tokens_map.json", "chat_template.jinja"])
def test_another_tokenizer_or_template_is_another_model(name: str, tiny_model_dir: Path, tmp_path: Path):
    folder = tmp_path / "model"
    shutil.copytree(tiny_model_dir, folder)
    (folder / name).write_text("{}")
    before = load_policy(str(folder)).identity()
    (folder / name).write_text("{ }")
    assert load_policy(str(folder)).identity() != before
    assert load_policy(str(folder), batch_size=3).identity() != load_policy(str(folder)).identity()  # other replies
    (folder / "trainer_state.json").write_text("{}")  # does not reply
    (folder / "tokenizer").mkdir()
    assert load_policy(str(folder)).identity()["sha256"] == load_policy(str(folder)).identity()["sha256"]


def test_an_adapters_base_keeps_its_generation_config(tiny_model_dir: Path):
    base = AutoModelForCausalLM.from_pretrained(tiny_model_dir, dtype=torch.float32)
    base.generation_config.repetition_penalty = 1.5
    adapted = get_peft_model(base, LoraConfig(task_type="CAUSAL_LM", target_modules=["q_proj"]))
    before = base.generation_config.to_dict()
    replies(LocalPolicy(adapted, AutoTokenizer.from_pretrained(tiny_model_dir), name="step"), ITEMS, GREEDY)
    assert adapted.get_base_model().generation_config.to_dict() == before
    assert adapted.generation_config.to_dict() == before


def test_tools_that_the_template_leaves_out_are_refused(tiny_model_dir: Path):
    tool = {"type": "function", "function": {"name": "get_weather", "description": "", "parameters": {}}}
    item = Item("q", ({"role": "user", "content": "rain"},), tools=(tool,))
    with pytest.raises(ConfigError, match="ignores tools"):
        replies(load_policy(str(tiny_model_dir)), [item], GREEDY)


def test_models_that_cannot_be_are_refused(tiny_model_dir: Path, tmp_path: Path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(ConfigError, match="no weights"):
        load_policy(str(tmp_path / "empty"))
    with pytest.raises(ConfigError, match="is not a folder"):
        load_policy(str(tmp_path / "absent"))
    with pytest.raises(ConfigError, match="batch_size is 0"):
        load_policy(str(tiny_model_dir), batch_size=0)
    with pytest.raises(ConfigError, match="dtype is 'int8'"):
        load_policy(str(tiny_model_dir), dtype="int8")
    with pytest.raises(ModelError, match="model 'org/absent' was not found"):
        load_policy("org/absent")
    with pytest.raises(ConfigError, match="device is 'tpuu'"):
        load_policy(str(tiny_model_dir), device="tpuu")
    if not torch.cuda.is_available():
        with pytest.raises(ConfigError, match="PyTorch finds no GPU"):
            load_policy(str(tiny_model_dir), device="cuda")
    shutil.copytree(tiny_model_dir, tmp_path / "adapter")
    for text in ("[]", "{}", '{"base_model_name_or_path": null}', "no JSON"):
        (tmp_path / "adapter" / "adapter_config.json").write_text(text)
        with pytest.raises(ConfigError, match=r"adapter_config\.json (does not name a|names .* as) base model"):
            load_policy(str(tmp_path / "adapter"))
    shutil.copytree(tiny_model_dir, tmp_path / "mute")
    for path in (tmp_path / "mute").glob("chat_template*"):
        path.unlink()
    values = json.loads((tmp_path / "mute" / "tokenizer_config.json").read_text())
    values.pop("chat_template", None)
    (tmp_path / "mute" / "tokenizer_config.json").write_text(json.dumps(values))
    with pytest.raises(ConfigError, match="has no chat template"):
        replies(load_policy(str(tmp_path / "mute")), ITEMS, GREEDY)
