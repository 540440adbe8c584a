"""Compare one process with several: every process must compute the advantages that a single process computes.

``compare_processes`` writes the batches to a folder and starts this module once per process, with a time limit. The
processes find each other through a file (gloo), not through a port.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import stat
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import asdict, dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch

import rvpo
from rvpo.conformance import examples
from rvpo.conformance.properties.base import TOLERANCE, Fault, Property, ask
from rvpo.conformance.target import CallError, Example, NotHereError, Spec, Target
from rvpo.errors import RVPOError
from rvpo.files import write

SIZES = (4, 4, 4)


@dataclass(frozen=True)
class ProcessOutcome:
    """Result of the comparison.

    Attributes:
        batches: number of batches that were compared.
        fault: what went wrong; None if nothing did.
        example: the batch of the fault.
        remark: how close the results were.
    """

    batches: int
    fault: Fault | None = None
    example: Example | None = None
    remark: str = ""


def compare_processes(target: Target, processes: int, timeout: float, *, local_rows: bool = False) -> ProcessOutcome:
    """Compare several processes with this one.

    Args:
        target: the function; other processes build it from its ``spec``.
        processes: number of processes.
        timeout: seconds until the processes are stopped.
        local_rows: whether each process passes only its own rows. For a target that ``gathers`` it always does.

    Raises:
        NotHereError: another process cannot build the target, or the target has no finite answer in this process.
    """
    if target.spec is None:
        raise NotHereError("another process cannot find it: check it by name, as module:function or file.py:function")
    local = local_rows or target.gathers
    channels = 1 if target.one_channel else 3
    batches = [examples.draw_example(target, SIZES, channels, seed) for seed in (0, 1)]
    try:
        single = [ask(target, example) for example in batches]
    except CallError as error:
        raise NotHereError(f"it raises in a single process: {error}") from error
    with tempfile.TemporaryDirectory(prefix="rvpo-check-") as name:
        folder = Path(name)
        job = {"spec": asdict(target.spec), "examples": [_plain(e) for e in batches], "local": local}
        (folder / "job.json").write_text(json.dumps(job | {"timeout": timeout}), "utf-8")
        results = _run(folder, processes, timeout)
    shares = torch.arange(len(batches[0].groups)).tensor_split(processes)
    worst = 0.0
    for i, (example, expected) in enumerate(zip(batches, single, strict=True)):
        for rank, result in enumerate(results):
            if isinstance(result, str):
                return ProcessOutcome(len(batches), Fault("raised", f"process {rank} of {processes} {result}"), example)
            rows = shares[rank] if local else torch.arange(len(expected))
            got = torch.tensor(result[i], dtype=torch.float64)
            if len(got) != len(rows) or not float((got - expected[rows]).abs().max()) <= TOLERANCE:
                whole = torch.full_like(expected, torch.nan)
                whole[rows[: len(got)]] = got[: len(rows)]
                what = f"process {rank} of {processes}, with " + ("its own rows" if local else "all rows")
                return ProcessOutcome(
                    len(batches), Fault("wrong", f"{what}, against one process", whole, expected), example
                )
            worst = max(worst, float((got - expected[rows]).abs().max()))
    close = "to the last bit" if worst == 0 else f"largest difference {worst:.1g}"
    return ProcessOutcome(len(batches), remark=f"{processes} processes, {close}")


def _run(folder: Path, processes: int, timeout: float) -> list[list[list[float]] | str]:
    """Run the job once per process. A text in place of a result says why it is absent."""
    environment = os.environ | {
        "PYTHONPATH": os.pathsep.join([str(Path(rvpo.__file__).parents[1]), os.environ.get("PYTHONPATH", "")]),
        "OMP_NUM_THREADS": "1",
        "CUDA_VISIBLE_DEVICES": "",
        "WORLD_SIZE": str(processes),
        "LOCAL_WORLD_SIZE": str(processes),
    }
    running: list[subprocess.Popen[bytes]] = []
    logs = [folder / f"log_{rank}.txt" for rank in range(processes)]
    late: set[int] = set()
    try:  # whatever ends the check, including Ctrl-C, ends the processes
        for rank, log in enumerate(logs):
            with log.open("wb") as out:
                running.append(
                    subprocess.Popen(  # noqa: S603 (this interpreter, this module, a folder of ours)
                        [sys.executable, "-m", "rvpo.conformance.processes", str(folder)],
                        env=environment | {"RANK": str(rank), "LOCAL_RANK": str(rank)},
                        stdout=out,
                        stderr=subprocess.STDOUT,
                        stdin=subprocess.PIPE,  # the child ends with this process, however that ends
                        start_new_session=True,
                    )
                )
        deadline = time.monotonic() + timeout
        for rank, process in enumerate(running):
            try:
                process.wait(max(deadline - time.monotonic(), 0.01))
            except subprocess.TimeoutExpired:
                late.add(rank)
    finally:
        for process in running:
            _end(process)
    return [_result(folder, rank, rank in late, timeout, log) for rank, log in enumerate(logs)]


def _end(process: subprocess.Popen[bytes]) -> None:
    """End a process and all processes that it started."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
    process.kill()
    process.wait()
    if process.stdin is not None:
        process.stdin.close()


def _result(folder: Path, rank: int, late: bool, timeout: float, log: Path) -> list[list[float]] | str:
    path = folder / f"result_{rank}.json"
    if path.exists():
        result: dict[str, Any] = json.loads(path.read_text("utf-8"))
        if "error" in result:
            return f"raised {result['error']}"
        return [list(row) for row in result["advantages"]]
    if late:
        return (
            f"had not answered after {timeout:g} s: a collective operation that not all processes reach waits forever"
        )
    lines = log.read_text("utf-8", "replace").strip().splitlines()
    return f"ended without an answer: {lines[-1] if lines else 'it printed nothing'}"


def _plain(example: Example) -> dict[str, Any]:
    return {
        "rewards": example.rewards.tolist(),
        "groups": example.groups.tolist(),
        "lengths": example.lengths.tolist(),
    }


def _end_with_parent() -> None:
    """End this process and those that it started when the check has ended: that closes the other end of the pipe."""
    if not stat.S_ISFIFO(os.fstat(0).st_mode) or os.getpgrp() != os.getpid():  # started by hand
        return
    with contextlib.suppress(OSError):
        while os.read(0, 1):
            pass
    os.killpg(os.getpgrp(), signal.SIGKILL)


def _worker(folder: Path) -> None:
    """Answer in one of the processes."""
    threading.Thread(target=_end_with_parent, daemon=True).start()
    import torch.distributed as dist

    from rvpo.conformance.targets import resolve

    rank, world = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    torch.set_num_threads(1)
    job = json.loads((folder / "job.json").read_text("utf-8"))
    dist.init_process_group(
        "gloo",
        init_method=(folder / "store").as_uri(),
        rank=rank,
        world_size=world,
        timeout=timedelta(seconds=job["timeout"]),
    )
    result: dict[str, Any]
    try:
        target = resolve(Spec(**job["spec"]))
        answers = []
        for entry in job["examples"]:
            rewards, groups, lengths = (torch.tensor(entry[key]) for key in ("rewards", "groups", "lengths"))
            example = Example(rewards, groups, lengths)
            if job["local"]:
                example = example.rows(torch.arange(len(example.groups)).tensor_split(world)[rank])
            answers.append(target.answer(example).advantages.tolist())
        result = {"advantages": answers}
    except (CallError, RVPOError) as error:
        result = {"error": str(error)}
    write(folder / f"result_{rank}.json", json.dumps(result))
    os._exit(0)  # do not wait for other processes, which may never end


def _nothing(target: Target, example: Example) -> Fault | None:
    raise NotHereError("it is checked in separate processes")


PROCESSES = Property(
    "processes",
    "several processes get what one gets",
    "the same run gives other advantages on another number of devices",
    lambda target, seed: [],
    _nothing,
)

__all__ = ["PROCESSES", "ProcessOutcome", "compare_processes"]

if __name__ == "__main__":
    _worker(Path(sys.argv[1]))
