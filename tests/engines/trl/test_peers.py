"""One process of several that ends, or never does: the others end too, and say why."""

from __future__ import annotations

import json
import os
import queue
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

pytest.importorskip("trl")

from tiny_run import ON_CPU, G, even, make_trainer
from transformers import TrainerCallback

from rvpo.engines.trl import peers
from rvpo.engines.trl.peers import Calls


@pytest.mark.slow
@pytest.mark.parametrize(
    ("ends", "told"),
    [
        ("hangs", "process 1 has been in reward function 'odd' for"),
        ("killed", "Signal 9 (SIGKILL) received by PID"),
        ("memory", "process 1 had no memory left in step 1: lower per_device_train_batch_size"),
    ],
)
def test_one_process_ends_and_the_other_one_with_the_cause(tiny_model_dir: Path, tmp_path: Path, ends: str, told: str):
    """The launcher's patience is a minute; a process that waited for the other one would take half an hour."""
    job = {
        "model": str(tiny_model_dir),
        "output": str(tmp_path),
        "fails": {"how": ends, "rank": 1, "step": 2},
        "options": {
            "max_steps": 4, "num_generations": G, "per_device_train_batch_size": G, "reward_timeout": 2.0,
            "gradient_accumulation_steps": 1,
        },
    }  # fmt: skip
    (tmp_path / "job.json").write_text(json.dumps(job))
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    done = subprocess.run(
        [*launch, str(Path(__file__).with_name("tiny_run.py")), str(tmp_path / "job.json")],
        capture_output=True, text=True, timeout=900, check=False, env=os.environ | ON_CPU,
    )  # fmt: skip
    assert done.returncode == 1
    assert told in done.stderr


class Store(dict[str, str]):
    """A store in one process."""

    def set(self, key: str, value: str) -> None:
        self[key] = value

    def get(self, key: str) -> bytes:
        return self[key].encode()

    def check(self, keys: list[str]) -> bool:
        return all(key in self for key in keys)


def test_a_process_that_hangs_is_found_by_the_one_that_waits(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(peers, "_GRACE_SECONDS", 0.0)
    ended: queue.Queue[tuple[int, str]] = queue.Queue()

    def end(other: int, names: str, *_: float) -> None:
        ended.put((other, names))
        raise SystemExit

    monkeypatch.setattr(peers, "_end", end)
    store = Store()
    others = [Calls(store, process, 3, 0.01) for process in (1, 2)]
    with others[0].within("quick"), others[1].within("slow"), others[1].within("deep"):
        first = Calls(store, 0, 3, 0.01)
        with others[0].within("quick too"):
            pass
        assert ended.get(timeout=60)[0] in (1, 2)
    assert first is not None
    # Nobody hangs who is in no function, and nobody waits who is in one.
    calm = Store()
    one, other = Calls(calm, 0, 2, 0.01), Calls(calm, 1, 2, 0.01)
    with one.within("mine"), other.within("theirs"), pytest.raises(queue.Empty):
        ended.get(timeout=0.3)


AT_ITS_END = """
import threading
import time
from rvpo.engines.trl import peers

class Slow:  # a store whose answer is under way when the process ends
    asked = threading.Event()

    def check(self, keys):
        self.asked.set()
        time.sleep(1)
        print("answered", flush=True)
        return False

store = Slow()
peers._newest = peers.Calls(store, 1, 2, 0.01)
store.asked.wait(60)
"""


def test_a_process_does_not_end_while_its_watch_is_in_the_store():
    """Python would end the thread inside of torch's own code, which aborts the process."""
    done = subprocess.run([sys.executable, "-c", AT_ITS_END], capture_output=True, text=True, check=False, timeout=120)
    assert (done.returncode, done.stdout) == (0, "answered\n"), done.stderr


def test_the_watch_of_an_older_trainer_ends(monkeypatch: pytest.MonkeyPatch):
    """Its limit is not that of the trainer that is in use, and it does not know what that one is in."""
    monkeypatch.setattr(peers, "_GRACE_SECONDS", 0.0)
    ended: queue.Queue[int] = queue.Queue()
    monkeypatch.setattr(peers, "_end", lambda other, *_: ended.put(other))
    store = Store()
    first, other = Calls(store, 0, 2, 0.01), Calls(store, 1, 2, None)
    other._store = store  # tells, and watches nobody
    first.end()
    with other.within("slow"), pytest.raises(queue.Empty):
        ended.get(timeout=0.3)


@pytest.mark.parametrize(
    ("said", "is_gone"),
    [
        ("[../third_party/gloo/gloo/transport/tcp/pair.cc:547] Connection closed by peer [127.0.0.1]:3121", True),
        ("Timed out waiting 1800000ms for recv operation to complete", True),
        ("NCCL error: remote process exited or there was a network error", True),
        ("Watchdog caught collective operation timeout: WorkNCCL(SeqNum=9)", True),
        ("Default process group has not been initialized", False),
        ("peer access is not supported between these two devices", False),
        ("mat1 and mat2 shapes cannot be multiplied", False),
        ("CUDA out of memory. Tried to allocate 2 GiB", False),
    ],
)
def test_a_lost_partner_is_told_from_other_errors(said: str, is_gone: bool):
    assert (peers.about_gone(RuntimeError(said), 0, 3) is not None) == is_gone


def test_memory_is_told_with_the_step(tiny_model_dir: Path, tmp_path: Path):
    class Full(TrainerCallback):
        def on_pre_optimizer_step(self, *_: Any, **__: Any) -> None:
            raise torch.OutOfMemoryError("CUDA out of memory")

    trainer = make_trainer(tiny_model_dir, tmp_path, [even], max_steps=1)
    trainer.add_callback(Full())
    with pytest.raises(torch.OutOfMemoryError) as caught:
        trainer.train()
    assert "there was no memory left in step 1: lower per_device_train_batch_size" in caught.value.__notes__[0]
