"""Kill commands at many points, and damage checkpoints: whether the same command then ends as if nothing had been.

::

    python benchmarks/attack/machine.py kills   [--points 45] [--out FOLDER]
    python benchmarks/attack/machine.py damages [--out FOLDER]
    python benchmarks/attack/machine.py disks   [--out FOLDER]      # as root: it mounts small file systems

A kill is SIGKILL, sent by the process to itself at its n-th change of a file (a file opened for writing, renamed or
removed; a folder made) in the folder of the command. A judge and an evaluation are also killed when the server has
answered for the n-th time. The points are spread evenly over each command. Afterwards the same
command runs to its end, with ``--resume`` where it is ``train``, and what it leaves is compared with what an
uninterrupted one left: weights, records, verdicts and items to the last bit.

Results go to ``FOLDER/kills.json`` or ``damages.json`` after each point. A machine with two cores takes about a quarter
of an hour for each.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve()
sys.path[:0] = [str(HERE.parents[2] / "tests" / name) for name in (".", "engines/trl")]

HOOK = """
import os, signal, sys
at, folder, told = int(os.environ["KILL_AT"]), os.environ["KILL_FOLDER"], os.environ["KILL_COUNT"]
seen = 0

def note(event, arguments):
    global seen
    if event not in ("open", "os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.truncate"):
        return
    path = os.fspath(arguments[0]) if isinstance(arguments[0], (str, os.PathLike)) else ""
    if not os.path.abspath(path).startswith(folder + os.sep):
        return
    if event == "open" and not arguments[2] & (os.O_WRONLY | os.O_RDWR | os.O_CREAT):
        return
    seen += 1
    if seen == at:
        os.kill(os.getpid(), signal.SIGKILL)

sys.addaudithook(note)
from rvpo.cli.app import main
try:
    main()
finally:
    open(told, "w").write(str(seen))
"""
# What measures the machine, or one process's share of a run.
MACHINE = (
    "runtime", "per_second", "step_time", "train_loss", "total_flos", "num_tokens", "profiling", "seconds", "elapsed",
    "created", "date", "host", "pid",
)  # fmt: skip
ENVIRONMENT = {
    "OMP_NUM_THREADS": "1",
    "CUDA_VISIBLE_DEVICES": "",
    "HF_HUB_OFFLINE": "1",
    "PYTHONPATH": str(HERE.parents[2] / "src"),
    "OPENAI_API_KEY": "",
}


@dataclass
class Scene:
    """A command that is killed.

    Attributes:
        name: of it.
        words: of the command, given the name of the run or output.
        again: what is added when it is started anew.
        left: what it leaves, as comparable JSON, from its folder and that name.
        share: of the points.
    """

    name: str
    words: Callable[[str], list[str]]
    again: list[str]
    left: Callable[[Path, str], Any]
    share: float


def run(
    folder: Path, words: list[str], kill_at: int = 0, is_time: Callable[[], bool] | None = None
) -> tuple[subprocess.CompletedProcess[str], int]:
    """Run a command in a folder, and return it with the number of changes of files.

    It kills itself at the change ``kill_at`` (0: never), or is killed when ``is_time`` says so.
    """
    with tempfile.NamedTemporaryFile() as count, tempfile.TemporaryFile("w+") as said:
        environment = ENVIRONMENT | {"KILL_AT": str(kill_at), "KILL_FOLDER": str(folder), "KILL_COUNT": count.name}
        process = subprocess.Popen(
            [sys.executable, "-c", HOOK, *words],
            cwd=folder, env=os.environ | environment, stdout=subprocess.DEVNULL, stderr=said,
        )  # fmt: skip
        while is_time is not None and process.poll() is None:
            if is_time():
                process.kill()
                break
            time.sleep(0.005)
        process.wait(timeout=1800)
        said.seek(0)
        done = subprocess.CompletedProcess(words, process.returncode, "", said.read())
        return done, int(count.read() or 0)


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def rows_of(path: Path) -> Any:
    import pandas as pd

    table = pd.read_parquet(path)
    kept = [name for name in table.columns if not any(word in name for word in MACHINE)]
    return json.loads(table[kept].astype(str).to_json(orient="records"))


def trained(folder: Path, name: str) -> Any:
    place = folder / "runs" / name
    lines = [json.loads(line) for line in (place / "metrics.jsonl").read_text().splitlines()]
    found = {
        "metrics": [
            {key: value for key, value in line.items() if not any(word in key for word in MACHINE)} for line in lines
        ],
        "weights": digest(place / "model" / "model.safetensors"),
    }
    for kind in ("channels", "completions"):
        for path in sorted((place / kind).glob("*.parquet")):
            found[f"{kind}/{path.name}"] = rows_of(path)
    warm = place / "warm_start" / "model.safetensors"
    return found | ({"warm start": digest(warm)} if warm.exists() else {})


def judged(folder: Path, name: str) -> Any:
    return rows_of(folder / f"{name}.parquet")


def evaluated(folder: Path, name: str) -> Any:
    results = json.loads((folder / name / "results.json").read_text())
    kept = {key: value for key, value in results.items() if not any(word in key for word in MACHINE)}
    return {"results": kept, "items": rows_of(folder / name / "items.parquet")}


def reported(folder: Path, name: str) -> Any:
    page = (folder / f"{name}.html").read_text("utf-8")
    return hashlib.sha256(re.sub(r'"generated":"[^"]*"', "", page).encode()).hexdigest()


def scenes(folder: Path, url: str, model: str) -> list[Scene]:
    """Write what the commands need, and return them."""
    from test_run import WARM, write_inputs

    from tiny_model import save_tiny_model

    save_tiny_model(folder / "tiny")
    recipe = str(write_inputs(folder, folder / "tiny"))
    longer = ["trainer.max_steps=6", "trainer.save_steps=2", "trainer.save_total_limit=9", "method=lift"]
    ranges = [f"rewards.0={{function: {folder / 'rewards.py'}:even, range: [0, 1]}}", "rewards.1.range=[0, 1]"]
    warm = [*WARM, f"warm_start.data.path={folder / 'prompts.jsonl'}", "warm_start.trainer.save_steps=1"]
    rubric = {"criteria": [{"id": name, "text": f"Is it {name}?", "points": 1} for name in ("good", "short")]}
    done = [{"prompt": f"q {i}", "completion": f"a {i}", "rubric": rubric} for i in range(40)]
    (folder / "done.jsonl").write_text("".join(json.dumps(row) + "\n" for row in done))
    answer = "<think> so </think>\n<response> yes </response>"
    held = [{"prompt": f"call tool {i}", "answer": answer} for i in range(40)]
    (folder / "held.jsonl").write_text("".join(json.dumps(row) + "\n" for row in held))
    judge = ["judge", "done.jsonl", "--judge", f"{url}#{model}", "--out"]
    policy = ["eval", "toolcall", f"{url}#{model}", "--data", "held.jsonl", "--concurrency", "2", "--out"]
    return [
        Scene("train", lambda name: ["train", recipe, *longer, *ranges, f"name={name}"], ["--resume"], trained, 0.35),
        Scene("warm start", lambda name: ["train", recipe, *warm, f"name={name}"], ["--resume"], trained, 0.2),
        Scene("judge", lambda name: [*judge, f"{name}.parquet"], [], judged, 0.15),
        Scene("eval", lambda name: [*policy, name], [], evaluated, 0.15),
        Scene("report", lambda name: ["report", "runs/train-whole", "--out", f"{name}.html"], [], reported, 0.15),
    ]


def spread(count: int, points: int) -> list[int]:
    """Return that many different numbers from 1 to count, evenly, the first and the last among them."""
    if not count:
        return []
    points = min(points, count)
    return sorted({1 + round(i * (count - 1) / max(1, points - 1)) for i in range(points)})


def kill_all(out: Path, points: int, only: str) -> Iterable[dict[str, Any]]:
    from fault_server import FaultServer

    with FaultServer(latency=0.02) as server:
        for scene in scenes(out, server.url, server.model):
            if only and scene.name not in only.split(","):
                continue
            title = scene.name.replace(" ", "_")
            before = server.answered.total()
            whole, changes = run(out, scene.words(f"{title}-whole"))
            assert whole.returncode == 0, whole.stderr
            answers = server.answered.total() - before
            wanted = scene.left(out, f"{title}-whole")
            share = max(1, round(points * scene.share / (2 if answers else 1)))
            ways = [("changes of files", changes, at) for at in spread(changes, share)]
            ways += [("answers", answers, at) for at in spread(answers, share)]
            for what, count, at in ways:
                name = f"{title}-{what[0]}{at}"
                if what == "answers":
                    end = server.answered.total() + at
                    killed, _ = run(out, scene.words(name), 0, lambda end=end: server.answered.total() >= end)
                else:
                    killed, _ = run(out, scene.words(name), at)
                yield {
                    "command": scene.name, "at": f"{at} of {count} {what}",
                    "killed": killed.returncode == -signal.SIGKILL, **ended(out, scene, name, wanted),
                }  # fmt: skip


def ended(out: Path, scene: Scene, name: str, wanted: Any) -> dict[str, Any]:
    """Run a command again, and tell how that ended."""
    again, _ = run(out, [*scene.words(name), *scene.again])
    told: dict[str, Any] = {"code": again.returncode, "traceback": "Traceback" in again.stderr}
    if again.returncode != 0:
        return told | {"equal": False, "said": again.stderr[-500:]}
    left = scene.left(out, name)
    # A run's own name is no difference.
    texts = [json.dumps(value).replace(name, "NAME") for value in (left, wanted)]
    texts[1] = texts[1].replace(f"{scene.name.replace(' ', '_')}-whole", "NAME")
    told["equal"] = texts[0] == texts[1]
    if not told["equal"] and isinstance(left, dict):
        told["said"] = f"differs in {[key for key in wanted if left.get(key) != wanted[key]]}"
    return told


DAMAGED = ("model.safetensors", "optimizer.pt", "scheduler.pt", "rng_state.pth", "trainer_state.json",
           "rvpo_state.json", "rvpo_manifest.json")  # fmt: skip


def damage_all(out: Path, _: int, __: str) -> Iterable[dict[str, Any]]:
    from damages import cut, empty, flip, folder_instead, older, zeros

    scene = scenes(out, "http://127.0.0.1:9/v1", "none")[0]
    whole, _ = run(out, scene.words("train-whole"))
    assert whole.returncode == 0, whole.stderr
    wanted = trained(out, "train-whole")
    place = out / "runs" / "train-damaged"
    for name in DAMAGED:
        for damage in (Path.unlink, cut, flip, zeros, empty, older, folder_instead):
            shutil.rmtree(place, ignore_errors=True)
            shutil.copytree(out / "runs" / "train-whole", place)
            # As it was after its fourth step: the newest checkpoint is checkpoint-4.
            for later in ("checkpoint-6", "model"):
                shutil.rmtree(place / later, ignore_errors=True)
            for file in (*place.rglob("*.yaml"), *place.rglob("*.json"), *place.rglob("*.jsonl")):
                if "checkpoint-" not in str(file.relative_to(place)):
                    file.write_text(file.read_text().replace("train-whole", "train-damaged"))
            damage(place / "checkpoint-4" / name)
            told = ended(out, scene, "train-damaged", wanted)
            yield {"file": name, "damage": damage.__name__, **told}


def disk_all(out: Path, points: int, _: str) -> Iterable[dict[str, Any]]:
    """Train into file systems that are too small, make room, and go on."""
    small = out / "small"
    small.mkdir(exist_ok=True)
    scene = scenes(out, "http://127.0.0.1:9/v1", "none")[0]
    whole, _count = run(out, scene.words("train-whole"))
    assert whole.returncode == 0, whole.stderr
    wanted = trained(out, "train-whole")
    needed = sum(-(-file.stat().st_size // 4096) * 4 for file in (out / "runs" / "train-whole").rglob("*"))
    for number, at in enumerate(spread(needed * 9 // 10, min(points, 12))):
        subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={max(at, 16)}k", "tmpfs", small], check=True)
        try:
            name = f"disk-{number}"
            full, _count = run(out, [*scene.words(name), f"output={small}"])
            lines = [line for line in full.stderr.splitlines() if line.startswith("error:")]
            told = {"size": f"{at} of {needed} kB", "stopped": full.returncode, "line": lines[-1:]}
            told["raised"] = "Traceback" in full.stderr
            subprocess.run(["mount", "-o", "remount,size=64m", small], check=True)
            again, _count = run(out, [*scene.words(name), f"output={small}", "--resume"])
            if (small / name / "model").exists():
                shutil.copytree(small / name, out / "runs" / name)
                left = json.dumps(trained(out, name)).replace(name, "NAME")
                told["equal"] = left == json.dumps(wanted).replace("train-whole", "NAME")
            yield {"equal": False} | told | {"traceback": told["raised"] or "Traceback" in again.stderr}
        finally:
            subprocess.run(["umount", small], check=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("what", choices=list(ATTACKS))
    parser.add_argument("--points", type=int, default=45)
    parser.add_argument("--only", default="", help="commands to kill, such as judge,eval; default: all")
    parser.add_argument("--out", type=Path, default=None)
    options = parser.parse_args()
    out = (options.out or Path(tempfile.mkdtemp(prefix="attack-"))).resolve()
    out.mkdir(parents=True, exist_ok=True)
    results: list[dict[str, Any]] = []
    for result in ATTACKS[options.what](out, options.points, options.only):
        results.append(result)
        (out / f"{options.what}.json").write_text(json.dumps(results, indent=1))
        print(json.dumps(result), flush=True)
    equal = sum(result["equal"] for result in results)
    tracebacks = sum(result["traceback"] for result in results)
    print(f"{len(results)} {options.what}: {equal} ended equal, {tracebacks} tracebacks")


ATTACKS = {"kills": kill_all, "damages": damage_all, "disks": disk_all}

if __name__ == "__main__":
    main()
