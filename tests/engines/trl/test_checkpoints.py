"""A checkpoint is judged before a run goes on from it, and a run's folder belongs to one process at a time."""

from __future__ import annotations

import json
import logging
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

pytest.importorskip("trl")

import torch
from tiny_run import ON_CPU, make_trainer, parameters

from damages import cut, empty, flip, folder_instead, longer, older, zeros
from rvpo.engines.trl import checkpoints
from rvpo.engines.trl.owner import owned
from rvpo.errors import ConfigError

STATES = (
    "model.safetensors", "optimizer.pt", "scheduler.pt", "rng_state.pth", "trainer_state.json", "rvpo_state.json",
    "config.json",
)  # fmt: skip
Damage = Callable[[Path], object]


@pytest.fixture(scope="module")
def trained(tiny_model_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run of four steps with a checkpoint after each two, whose method remembers something."""
    folder = tmp_path_factory.mktemp("trained") / "run"
    options = {"save_strategy": "steps", "save_steps": 2, "max_steps": 4, "method": "lift"}
    make_trainer(tiny_model_dir, folder, reward_ranges={"even": [0, 1], "high": [0, 1]}, **options).train()
    return folder


@pytest.fixture
def run(trained: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(trained, tmp_path / "run"))


DAMAGES: tuple[Damage, ...] = (Path.unlink, cut, flip, zeros, empty, folder_instead, longer)
OF_OTHER_STEPS = ("model.safetensors", "optimizer.pt", "scheduler.pt", "rng_state.pth", "trainer_state.json")


@pytest.mark.parametrize("name", STATES)
def test_every_damage_of_every_file_is_seen(run: Path, caplog: pytest.LogCaptureFixture, name: str):
    newest = run / "checkpoint-4"
    whole = run.with_name("whole")
    newest.rename(whole)
    damages = (*DAMAGES, older) if name in OF_OTHER_STEPS else DAMAGES
    for damage in damages:
        shutil.copytree(whole, newest)
        damage(newest / name)
        caplog.clear()
        assert checkpoints.newest_whole(run) == run / "checkpoint-2", damage.__name__
        assert f"{newest} is passed over: " in caplog.text
        assert name in caplog.text
        shutil.rmtree(newest)


@pytest.mark.parametrize("damage", [cut, flip, zeros, empty, folder_instead])
def test_a_damaged_manifest_is_no_licence(run: Path, damage: Damage):
    damage(run / "checkpoint-4" / checkpoints.MANIFEST)
    assert checkpoints.newest_whole(run) == run / "checkpoint-2"


@pytest.mark.parametrize("name", ["model.safetensors", "optimizer.pt", "scheduler.pt", "rng_state.pth"])
@pytest.mark.parametrize("damage", [Path.unlink, cut, zeros, empty])
def test_a_checkpoint_of_an_older_version_is_judged_by_its_files(run: Path, name: str, damage: Damage):
    for folder in run.glob("checkpoint-*"):
        (folder / checkpoints.MANIFEST).unlink()
    assert checkpoints.newest_whole(run) == run / "checkpoint-4"
    damage(run / "checkpoint-4" / name)
    assert checkpoints.newest_whole(run) == run / "checkpoint-2"


@pytest.mark.parametrize("name", ["optimizer.pt", "scheduler.pt", "rng_state.pth"])
def test_a_flipped_bit_of_an_older_version_s_state_is_seen(run: Path, name: str):
    (run / "checkpoint-4" / checkpoints.MANIFEST).unlink()
    path = run / "checkpoint-4" / name
    content = bytearray(path.read_bytes())
    content[content.index(b"\x80\x02") + 10] ^= 1  # in the pickle itself
    path.write_bytes(content)
    assert checkpoints.problem(run / "checkpoint-4") == f"{name} is damaged"


def test_a_checkpoint_is_unfinished_until_all_of_it_is_written(run: Path):
    newest = run / "checkpoint-4"
    (newest / "optimizer.pt").unlink()
    (newest / "optimizer.pt").mkdir()
    checkpoints.begin(newest)  # as a run that writes the step once more
    assert [path.name for path in newest.iterdir()] == [checkpoints.MANIFEST]
    assert checkpoints.problem(newest) == "it is incomplete, cut off while it was written"
    shutil.copy(run / "checkpoint-2" / "rng_state.pth", newest)
    shutil.copy(run / "checkpoint-2" / "trainer_state.json", newest)
    assert checkpoints.newest_whole(run) == run / "checkpoint-2"


def test_a_model_alone_is_nothing_to_resume_from(tiny_model_dir: Path, tmp_path: Path):
    make_trainer(
        tiny_model_dir, tmp_path, save_strategy="steps", save_steps=1, max_steps=1, save_only_model=True
    ).train()
    assert "it has no optimizer state" in str(checkpoints.problem(tmp_path / "checkpoint-1"))


def test_older_checkpoints_go_when_the_new_one_is_whole(tiny_model_dir: Path, tmp_path: Path):
    make_trainer(tiny_model_dir, tmp_path, save_strategy="steps", save_steps=1, save_total_limit=1).train()
    assert [path.name for path in tmp_path.glob("checkpoint-*")] == ["checkpoint-3"]
    assert checkpoints.problem(tmp_path / "checkpoint-3") is None


def test_a_script_is_told_of_a_damaged_checkpoint(tiny_model_dir: Path, run: Path, caplog: pytest.LogCaptureFixture):
    options = {"max_steps": 4, "method": "lift", "reward_ranges": {"even": [0, 1], "high": [0, 1]}}
    whole = make_trainer(tiny_model_dir, run, **options)
    whole.train(resume_from_checkpoint=str(run / "checkpoint-2"))
    (run / "checkpoint-4" / "optimizer.pt").unlink()
    trainer = make_trainer(tiny_model_dir, run, **options)
    with pytest.raises(ConfigError, match=r"optimizer\.pt is missing; .*: resume from .*checkpoint-2"):
        trainer.train(resume_from_checkpoint=str(run / "checkpoint-4"))
    with caplog.at_level(logging.INFO):
        trainer.train(resume_from_checkpoint=True)
    assert "checkpoint-4 is passed over: optimizer.pt is missing" in caplog.text
    assert torch.equal(parameters(trainer), parameters(whole))
    shutil.rmtree(run / "checkpoint-2")
    with pytest.raises(ConfigError, match=r"no checkpoint in .* is whole"):
        make_trainer(tiny_model_dir, run, **options).train(resume_from_checkpoint=True)


# --- one owner --------------------------------------------------------------------------------------------------------

OWNER = """
import sys
from pathlib import Path
from rvpo.engines.trl.owner import owned
with owned(Path(sys.argv[1])):
    print("mine", flush=True)
    sys.stdin.read()
"""


def test_a_folder_has_one_owner_until_its_process_ends(tiny_model_dir: Path, tmp_path: Path):
    environment = os.environ | ON_CPU
    command = [sys.executable, "-c", OWNER, str(tmp_path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment, text=True) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "mine\n"
        trainer = make_trainer(tiny_model_dir, tmp_path, save_strategy="steps")
        with pytest.raises(ConfigError, match=r"another process trains into .*; expected one at a time"):
            trainer.train()
        assert not trainer.state.log_history
        other.send_signal(signal.SIGKILL)
    with owned(tmp_path), owned(tmp_path / "." / ""):  # at once, and more than once in one process
        pass


def test_the_manifest_is_plain(run: Path):
    manifest = json.loads((run / "checkpoint-4" / checkpoints.MANIFEST).read_text("utf-8"))
    assert manifest["complete"] is True
    assert "rvpo_alarm.npz" in manifest["files"], "also what a callback added"
