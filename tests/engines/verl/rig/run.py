"""Train the rig's tiny model with verl on the CPU: ``python tests/engines/verl/rig/run.py --help``."""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import secrets
import socket
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

HERE = Path(__file__).resolve().parent
TAIL = 6000  # characters of the log in an error
PROMPTS, GENERATIONS = 4, 8  # of a batch


@dataclass(frozen=True)
class Run:
    """What a training left behind.

    Attributes:
        folder: of the run: ``log-*.txt``, ``metrics-*.jsonl``, ``rollouts/``, ``events/``, ``checkpoints/``.
        metrics: verl's metrics by step; of a step that was trained twice (killed, then resumed) the later.
        rollouts: by step, one dict a completion as verl dumps it; empty without ``trainer.rollout_data_dir``.
        events: what the rollout servers noted (new weights, aborts), of all starts in this folder.
        seconds: from start to end of this process.
        log: of this process.
    """

    folder: Path
    metrics: dict[int, dict[str, Any]]
    rollouts: dict[int, list[dict[str, Any]]]
    events: list[dict[str, Any]]
    seconds: float
    log: str

    def channels(self, step: int) -> list[dict[str, Any]]:
        """Return every channel of every completion of a step, as our trainer wrote it."""
        import pyarrow.parquet

        return pyarrow.parquet.read_table(self.folder / f"rollouts/channels/{step:06d}.parquet").to_pylist()


def tensor(values: list[float | None]) -> Any:
    """Return values in float64, NaN where missing."""
    import torch

    return torch.tensor([float("nan") if value is None else value for value in values], dtype=torch.float64)


class TrainingFailedError(RuntimeError):
    """The training ended with an error, or not at all; the message ends with the tail of its log."""


def overrides(folder: Path, workers: int, mode: str, steps: int, nodes: int = 1) -> list[str]:
    """Return verl's whole command line: everything that the rig sets, and why."""
    # A worker asks Ray for one GPU and three CPUs, both of which are only numbers to it. Nodes that run already have
    # been told theirs.
    cpus, gpus = (8 + 3 * workers, workers) if nodes == 1 else ("null", "null")
    model, task = folder / "task/model", folder / "task/plain.parquet"
    # Asynchronous, the server is slower than what is asked of it: else nothing would be left to abort and resume.
    buffer, together, seconds_per_token = {
        "sync": ("Sync", 64, 0.0),
        "colocate_async": ("ColocateAsync", 16 // workers, 0.05),
    }[mode]
    return [
        # The task; one update a step, on all completions of a batch together.
        f"data.train_files={task}",
        f"data.val_files={task}",
        f"data.train_batch_size={PROMPTS}",
        "data.val_max_samples=4",
        "data.max_prompt_length=16",
        "data.max_response_length=12",
        "data.seed=0",
        "data.dataloader_num_workers=0",
        f"reward.custom_reward_function.path={HERE / 'rewards.py'}",
        "reward.custom_reward_function.name=two_channels",
        "algorithm.adv_estimator=grpo",
        # The actor: FSDP2 in float32 on gloo; what needs a GPU (flash attention, compilation) is off.
        f"actor_rollout_ref.model.path={model}",
        "actor_rollout_ref.model.external_lib=rig.worker",
        "actor_rollout_ref.model.use_remove_padding=False",
        "actor_rollout_ref.model.enable_gradient_checkpointing=False",
        "+actor_rollout_ref.model.override_config.attn_implementation=eager",
        "actor_rollout_ref.actor.strategy=fsdp2",
        "actor_rollout_ref.actor.fsdp_config.strategy=fsdp2",
        "+actor_rollout_ref.actor.fsdp_config.mixed_precision={param_dtype:fp32,reduce_dtype:fp32,buffer_dtype:fp32}",
        "actor_rollout_ref.actor.fsdp_config.model_dtype=fp32",
        "actor_rollout_ref.actor.fsdp_config.use_torch_compile=False",
        "actor_rollout_ref.actor.use_torch_compile=False",
        "actor_rollout_ref.actor.ppo_mini_batch_size=${data.train_batch_size}",
        "actor_rollout_ref.actor.use_dynamic_bsz=True",
        "actor_rollout_ref.actor.optim.lr=0.005",  # at twice that, asynchronous runs may collapse
        "actor_rollout_ref.actor.optim.weight_decay=0",
        # The rollout: ours, a replica for each worker, sampling without filters.
        "actor_rollout_ref.rollout.name=rig",
        f"actor_rollout_ref.rollout.n={GENERATIONS}",
        "actor_rollout_ref.rollout.tensor_model_parallel_size=1",
        "actor_rollout_ref.rollout.free_cache_engine=False",
        f"actor_rollout_ref.rollout.max_num_seqs={together}",
        f"+actor_rollout_ref.rollout.engine_kwargs.rig.seconds_per_token={seconds_per_token}",
        "actor_rollout_ref.rollout.agent.num_workers=1",
        "actor_rollout_ref.rollout.agent.default_agent_loop=seeded",
        f"actor_rollout_ref.rollout.agent.agent_loop_config_path={HERE / 'agent.yaml'}",
        # The trainer.
        f"trainer.v1.trainer_mode={mode}",
        f"trainer.v1.sampler.custom_sampler.path={HERE / 'replay.py'}",
        f"trainer.v1.sampler.custom_sampler.name={buffer}",
        "trainer.device=cpu",
        f"trainer.nnodes={nodes}",
        f"trainer.n_gpus_per_node={workers // nodes}",
        f"trainer.total_training_steps={steps}",
        "trainer.total_epochs=1000",
        "trainer.logger=[file]",
        "trainer.val_before_train=False",
        f"trainer.default_local_dir={folder / 'checkpoints'}",
        f"trainer.rollout_data_dir={folder / 'rollouts'}",
        # Few processes.
        "reward.num_workers=1",
        "transfer_queue.backend.SimpleStorage.num_data_storage_units=1",
        f"ray_kwargs.ray_init.num_cpus={cpus}",
        f"+ray_kwargs.ray_init.num_gpus={gpus}",
        *(["+ray_kwargs.ray_init.include_dashboard=False"] if nodes == 1 else []),
        "hydra.run.dir=.",
        "hydra.output_subdir=null",
        "hydra/job_logging=disabled",
    ]


def rubrics(folder: Path) -> list[str]:
    """Return the overrides for prompts with two to five criteria of their own."""
    task = folder.resolve() / "task/rubrics.parquet"
    return [f"data.train_files={task}", f"data.val_files={task}", "reward.custom_reward_function.name=ragged"]


def pictures(folder: Path) -> list[str]:
    """Write a vision-language model with questions on pictures, and return the overrides that name them."""
    from rig.pictures import is_whole, write_task

    task = folder.resolve() / "task"
    if not (task / "pictures.parquet").exists():
        write_task(task)
    own = [] if is_whole() else ["data.custom_cls.path=pkg://rig.pictures", "data.custom_cls.name=Pictures"]
    return [
        *own,
        f"data.train_files={task / 'pictures.parquet'}",
        f"data.val_files={task / 'pictures.parquet'}",
        "data.image_key=images",
        "data.max_prompt_length=32",
        "data.max_response_length=4",
        f"actor_rollout_ref.model.path={task / 'model'}",
        "reward.custom_reward_function.path=pkg://rvpo.engines.verl.rewards",
        "reward.custom_reward_function.name=compute_score",
        "++reward.custom_reward_function.reward_kwargs={rewards:[math]}",
    ]


def environment(folder: Path, workers: int) -> dict[str, str]:
    """Return the variables by which every process of the run finds the rig and stays off the network."""
    path = os.pathsep.join(filter(None, [str(HERE.parent), os.environ.get("PYTHONPATH")]))
    return {
        "PYTHONPATH": path,
        "VERL_PLATFORM": "cpu",
        "VERL_USE_EXTERNAL_MODULES": "rig.cpu",
        "VERL_FILE_LOGGER_PATH": str(folder / f"metrics-{_start(folder)}.jsonl"),
        "RIG_EVENTS": str(folder / "events"),
        "CUDA_VISIBLE_DEVICES": ",".join(map(str, range(workers))),  # Ray wants as many as it is told of
        "OMP_NUM_THREADS": "1",
        "TQ_NUM_THREADS": "1",
        "HF_HUB_OFFLINE": "1",
        "HYDRA_FULL_ERROR": "1",
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_DEDUP_LOGS": "0",
        "RAY_prestart_worker_first_driver": "0",
    }


def train(
    folder: Path,
    *extra: str,
    entry: str = "verl.trainer.main_ppo",
    workers: int = 1,
    mode: str = "sync",
    steps: int = 30,
    kill_after: int | None = None,
    env: dict[str, str] | None = None,
    timeout: float = 900.0,
    nodes: int = 1,
) -> Run:
    """Train in ``folder``, which is made if need be; a second call there resumes from its last checkpoint.

    Args:
        folder: of the run; the task's model and data are written into it once.
        extra: overrides of verl after those of :func:`overrides`, so that they win.
        entry: module that is run.
        workers: processes of the actor, each with a rollout replica.
        mode: ``"sync"`` or ``"colocate_async"``.
        steps: in all, with those before a resumption.
        kill_after: kill every process with SIGKILL as soon as this step is logged.
        env: variables in addition to those of :func:`environment`.
        timeout: seconds after which the training counts as failed.
        nodes: Ray node processes on this machine, each with an equal share of the workers.

    Raises:
        TrainingFailedError: it ended with an error, or did not end in time.
    """
    folder = folder.resolve()
    if not (folder / "task").exists():
        from rig.task import write_task

        write_task(folder / "task")
    cwd = folder / "cwd"  # of every process of the run, and of no other
    for path in (cwd, folder / "events"):
        path.mkdir(exist_ok=True)
    settings = environment(folder, workers)
    log = folder / f"log-{_start(folder)}.txt"
    metrics = Path(settings["VERL_FILE_LOGGER_PATH"])
    command = [sys.executable, "-m", entry, *overrides(folder, workers, mode, steps, nodes), *extra]
    began = time.monotonic()
    variables = {**os.environ, **settings, **(env or {})}
    if nodes > 1:
        # Newer versions of Ray let a node in by a token, which all processes of the cluster have to have.
        variables |= {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32)}
        variables["RAY_ADDRESS"] = _start_nodes(nodes, workers // nodes, cwd, variables)
    with log.open("w") as out:
        process = subprocess.Popen(command, cwd=cwd, env=variables, stdout=out, stderr=subprocess.STDOUT)
    try:
        failure = _wait(process, metrics, kill_after, began + timeout)
    finally:
        _end_all(cwd)
        process.wait()
    if failure:
        raise TrainingFailedError(f"{failure}; the last of {log}:\n{log.read_text()[-TAIL:]}")
    return read(folder, time.monotonic() - began, log.read_text())


def _start_nodes(nodes: int, workers: int, cwd: Path, env: dict[str, str]) -> str:
    """Start Ray's node processes, the head first, and return its address; they end with the training, see _end_all."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    ray = [sys.executable, "-m", "ray.scripts.scripts", "start", "--disable-usage-stats"]
    has = [f"--num-cpus={8 + 3 * workers}", f"--num-gpus={workers}"]
    head = ["--head", "--node-ip-address=127.0.0.1", f"--port={address.partition(':')[2]}", "--include-dashboard=false"]
    for which in [head, *[[f"--address={address}"]] * (nodes - 1)]:
        started = subprocess.run(
            [*ray, *which, *has],
            cwd=cwd,
            env=env,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=300,
        )
        if started.returncode:
            _end_all(cwd)
            raise TrainingFailedError(f"a node of Ray did not start:\n{started.stdout[-TAIL:]}")
    return address


def read(folder: Path, seconds: float = 0.0, log: str = "") -> Run:
    """Read back what the trainings in ``folder`` left."""
    metrics = {line["step"]: line["data"] for path in sorted(folder.glob("metrics-*.jsonl")) for line in _lines(path)}
    rollouts = {int(path.stem): _lines(path) for path in folder.glob("rollouts/*.jsonl")}
    events = [line for path in sorted(folder.glob("events/*.jsonl")) for line in _lines(path)]
    return Run(folder, metrics, dict(sorted(rollouts.items())), events, seconds, log)


def _start(folder: Path) -> int:
    """Count the trainings begun in this folder: each has its own metrics, as verl's logger empties the file."""
    return len(list(folder.glob("log-*.txt")))


def _lines(path: Path) -> list[dict[str, Any]]:
    """Read the complete lines; the last one of a killed process may not be."""
    return [json.loads(line) for line in path.read_text().splitlines(keepends=True) if line.endswith("\n")]


def _wait(process: subprocess.Popen[bytes], metrics: Path, kill_after: int | None, deadline: float) -> str | None:
    """Wait for the end, or for the step to be killed after; say what went wrong, if anything did."""
    while process.poll() is None:
        if kill_after is not None and metrics.exists() and any(line["step"] >= kill_after for line in _lines(metrics)):
            return None
        if time.monotonic() > deadline:
            return "the training did not end in time"
        time.sleep(0.1)
    if kill_after is not None:
        return f"the training ended with code {process.returncode} before it could be killed after step {kill_after}"
    return f"the training ended with code {process.returncode}" if process.returncode else None


def _end_all(cwd: Path) -> None:
    """Kill what works in this folder: verl's processes and Ray's, also those that have outlived their parents."""
    while left := [each for each in psutil.process_iter(["cwd"]) if each.info["cwd"] == str(cwd)]:
        for process in left:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        psutil.wait_procs(left, timeout=5)


def main() -> None:
    parser = argparse.ArgumentParser(description="Train a tiny model with verl on the CPU.")
    parser.add_argument("--folder", type=Path, help="of the run, resumed where one is (default: a new temporary one)")
    parser.add_argument("--entry", default="verl.trainer.main_ppo", help="module to run (default: %(default)s)")
    parser.add_argument("--rewards", type=Path, metavar="FILE", help="your reward function: compute_score in this file")
    parser.add_argument("--workers", type=int, default=1, help="processes of the actor (default: %(default)s)")
    parser.add_argument("--mode", choices=("sync", "colocate_async"), default="sync", help="default: %(default)s")
    parser.add_argument("--steps", type=int, default=30, help="in all (default: %(default)s)")
    parser.add_argument("--kill-after", type=int, metavar="STEP", help="kill every process once this step is logged")
    parser.add_argument("--rubrics", action="store_true", help="prompts with two to five criteria of their own")
    parser.add_argument("--timeout", type=float, default=600, help="seconds (default: %(default)s)")
    parser.add_argument("overrides", nargs="*", help="of verl, such as algorithm.adv_estimator=grpo")
    given = parser.parse_intermixed_args()
    folder = given.folder or Path(tempfile.mkdtemp(prefix="rig-"))
    folder.mkdir(parents=True, exist_ok=True)
    extra = rubrics(folder) if given.rubrics else []
    if given.rewards:
        # The run has a working folder of its own, so a relative path would be looked for there.
        if not given.rewards.is_file():
            parser.error(f"--rewards is {given.rewards}; expected a Python file with a function compute_score")
        file = given.rewards.resolve()
        extra += [f"reward.custom_reward_function.path={file}", "reward.custom_reward_function.name=compute_score"]
    extra += given.overrides
    try:
        run = train(
            folder,
            *extra,
            entry=given.entry,
            workers=given.workers,
            mode=given.mode,
            steps=given.steps,
            kill_after=given.kill_after,
            timeout=given.timeout,
        )
    except TrainingFailedError as error:
        sys.exit(str(error))
    for step, metrics in run.metrics.items():
        if "timing_s/step" in metrics:  # not so for a validation before training, which is step 0
            seconds, score = metrics["timing_s/step"], metrics["critic/score/mean"]
            parts = [f"{key.split('/')[1]} {value:.3f}" for key, value in metrics.items() if _is_mean_of_part(key)]
            print(f"step {step:3d}  score {score:.3f}  {'  '.join([*parts, f'{seconds:.2f} s'])}")
    print(f"{run.seconds:.0f} s in all, in {folder}")
    if (folder / "rollouts/channels").exists():
        print(f"next: rvpo diagnose {folder / 'rollouts'}")


def _is_mean_of_part(key: str) -> bool:
    """Whether a metric of ours is the mean of one part of the reward: ``rvpo/NAME/mean``."""
    words = key.split("/")
    return len(words) == 3 and words[0] == "rvpo" and words[2] == "mean"


if __name__ == "__main__":
    sys.path.insert(0, str(HERE.parent))
    main()
