"""The same completions, in the layouts of many trainers and trackers: one truth, thirty shapes.

::

    rows = truth()                              # what happened
    path = LAYOUTS["verl"].write(folder, rows)  # as verl writes it

The rewards: ``correct`` and ``helpful`` (of weight 2) agree with a hidden quality, ``safety`` opposes it, and
``format`` has no part in the total, so that no advantage contains it. Layouts follow what the trainers' sources write.
"""

from __future__ import annotations

import csv
import gzip
import io
import json
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.feather
import pyarrow.parquet as pq

REWARDS = ("correct", "helpful", "safety", "format")
WEIGHTS = {"correct": 1.0, "helpful": 2.0, "safety": 1.0, "format": 0.0}
Row = dict[str, Any]


def truth(steps: int = 6, prompts: int = 3, generations: int = 8, seed: int = 0) -> list[Row]:
    """Return the completions of a run: step, prompt, completion, the four rewards, their total and the advantage."""
    rng = np.random.default_rng(seed)
    rows = []
    for step in range(1, steps + 1):
        for number in range(prompts):
            quality = rng.normal(size=generations)
            scores = {
                "correct": (quality + rng.normal(size=generations) * 0.5 > 0).astype(float),
                "helpful": np.clip(0.5 + 0.2 * quality + rng.normal(size=generations) * 0.1, 0, 1).round(4),
                "safety": (-quality + rng.normal(size=generations) * 0.7 > 0).astype(float),
                "format": (rng.random(generations) < 0.6).astype(float),
            }
            total = sum(WEIGHTS[name] * values for name, values in scores.items())
            advantage = (total - total.mean()) / (total.std(ddof=1) + 1e-4)
            for i in range(generations):
                rows.append(
                    {
                        "step": step,
                        "group": f"{step}-{number}",
                        "prompt": f"Question {number} of step {step}?",
                        "completion": f"Answer {i} to {number} of {step}.",
                        **{name: float(values[i]) for name, values in scores.items()},
                        "total": float(total[i]),
                        "advantage": float(advantage[i]),
                        "index": i,
                    }
                )
    return rows


@dataclass(frozen=True)
class Layout:
    """One way to write the truth.

    Attributes:
        write: writes rows into a folder and returns the path to name.
        columns: column that a reward is read as, with ``{}`` for its name; empty: only the total is logged.
        step: column of the step; None: not logged.
        group: column that tells groups apart within a step; None: only their order does.
        total: column of the total; None: not logged.
        advantage: column of the advantage; None: not logged.
        trainer: that is recognised.
        numbered: ``{}`` stands for the number of the reward, as it is an item of a list.
    """

    write: Callable[[Path, Sequence[Row]], Path]
    columns: str
    step: str | None = "step"
    group: str | None = "prompt"
    total: str | None = None
    advantage: str | None = None
    trainer: str = ""
    numbered: bool = False

    def column(self, reward: str) -> str:
        """Return the column that a reward is read as."""
        return self.columns.format(REWARDS.index(reward) if self.numbered else reward)


def scores(row: Row, pattern: str = "{}") -> Row:
    return {pattern.format(name): row[name] for name in REWARDS}


def chat(text: str, role: str = "user") -> list[Row]:
    return [{"role": role, "content": text}]


def jsonl(path: Path, rows: Sequence[Row] | Iterator[Row]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def parquet(path: Path, rows: Sequence[Row]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.Table.from_pylist(list(rows)), path)
    return path


def delimited(path: Path, rows: Sequence[Row], delimiter: str = ",") -> Path:
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]), delimiter=delimiter)
    writer.writeheader()
    writer.writerows(rows)
    path.write_text(text.getvalue())
    return path


def groups(rows: Sequence[Row], key: str = "group") -> list[list[Row]]:
    return [list(part) for _, part in groupby(rows, key=lambda row: row[key])]


def listed(rows: Sequence[Row]) -> Row:
    return {name: [row[name] for row in rows] for name in REWARDS}


def flat_jsonl(folder: Path, rows: Sequence[Row]) -> Path:
    return jsonl(
        folder / "run.jsonl",
        [
            {
                "step": r["step"],
                "prompt": r["prompt"],
                "completion": r["completion"],
                **scores(r, "reward_{}"),
                "advantage": r["advantage"],
            }
            for r in rows
        ],
    )


def packed_jsonl(folder: Path, rows: Sequence[Row]) -> Path:
    path = flat_jsonl(folder, rows)
    packed = folder / "run.jsonl.gz"
    packed.write_bytes(gzip.compress(b"\xef\xbb\xbf" + path.read_bytes() + b"\n\n"))
    path.unlink()
    return packed


def zstd_json(folder: Path, rows: Sequence[Row]) -> Path:
    path = folder / "run.json.zst"
    data = json.dumps([{"prompt_id": r["group"], **scores(r), "reward": r["total"], "step": r["step"]} for r in rows])
    with pa.output_stream(str(path), compression="zstd") as stream:
        stream.write(data.encode())
    return path


def wandb_table_csv(folder: Path, rows: Sequence[Row]) -> Path:
    return delimited(
        folder / "wandb_export.csv",
        [
            {
                "_step": r["step"],
                "prompt": r["prompt"],
                "completion": r["completion"],
                **scores(r, "rewards/{}"),
                "reward": r["total"],
                "advantage": r["advantage"],
                "_timestamp": 1.7e9 + i,
                "_runtime": float(i),
            }
            for i, r in enumerate(rows)
        ],
    )


def wandb_table_json(folder: Path, rows: Sequence[Row]) -> Path:
    """A folder of media/table/*.table.json, as wandb's client downloads it: one table per step."""
    names = ["step", "prompt", "completion", *REWARDS, "advantage"]
    for part in groups(rows, "step"):
        path = (
            folder
            / "media"
            / "table"
            / f"completions_{part[0]['step']}_{'0a1b2c3d4e5f' + str(part[0]['step'])}.table.json"
        )
        path.parent.mkdir(parents=True, exist_ok=True)
        data = [[str(row["step"]), *[row[name] for name in names[1:]]] for row in part]
        path.write_text(json.dumps({"columns": names, "data": data, "ncols": len(names), "nrows": len(data)}))
    return folder


def semicolons(folder: Path, rows: Sequence[Row]) -> Path:
    """A spreadsheet with decimal commas."""
    written = [
        {
            "step": r["step"],
            "prompt": r["prompt"],
            **{k: str(v).replace(".", ",") for k, v in scores(r).items()},
            "reward": str(r["total"]).replace(".", ","),
        }
        for r in rows
    ]
    return delimited(folder / "run.csv", written, ";")


def tabs(folder: Path, rows: Sequence[Row]) -> Path:
    return delimited(
        folder / "run.tsv",
        [{"step": r["step"], "uid": r["group"], **scores(r, "score_{}"), "score": r["total"]} for r in rows],
        "\t",
    )


def verifiers(folder: Path, rows: Sequence[Row]) -> Path:
    """results.jsonl of an evaluation, next to its metadata.json: metrics beside the total, and timings."""
    (folder / "metadata.json").write_text(json.dumps({"env_id": "made-up", "avg_reward": 0.5}))
    number = {group: i for i, group in enumerate(dict.fromkeys(r["group"] for r in rows))}
    jsonl(
        folder / "results.jsonl",
        [
            {
                "example_id": number[r["group"]],
                "prompt": chat(r["prompt"]),
                "completion": chat(r["completion"], "assistant"),
                "task": "default",
                "reward": r["total"],
                "generation_ms": 900.0 + 7 * i,
                "total_ms": 950.0 + 7 * i,
                **scores(r),
                "info": {},
            }
            for i, r in enumerate(rows)
        ],
    )
    return folder


def prime_rl(folder: Path, rows: Sequence[Row]) -> Path:
    """Rollouts with a metrics object."""
    return jsonl(
        folder / "rollouts.jsonl",
        [
            {
                "example_id": r["group"],
                "prompt": chat(r["prompt"]),
                "completion": chat(r["completion"], "assistant"),
                "reward": r["total"],
                "metrics": {**scores(r), "num_turns": 1.0},
                "timing": {"total": 1.5 + i},
                "step": r["step"],
            }
            for i, r in enumerate(rows)
        ],
    )


def prime_rl_traces(folder: Path, rows: Sequence[Row]) -> Path:
    """Episodes in rollouts/step_N/train/{all,effective}/traces.jsonl: weights lie beside scores."""
    for part in groups(rows, "step"):
        episodes = [
            {
                "id": f"e{i}",
                "traces": [
                    {
                        "version": 1,
                        "id": f"t{i}",
                        "task": {"data": {"idx": int(r["group"][-1]), "prompt": r["prompt"]}, "hash": f"h{r['group']}"},
                        "agent": {"model": "m"},
                        "nodes": [{"message": {"role": "assistant", "content": r["completion"]}}],
                        "rewards": {name: {"score": r[name], "weight": WEIGHTS[name]} for name in REWARDS},
                        "metrics": {"num_turns": 1.0},
                        "is_completed": True,
                    }
                ],
            }
            for i, r in enumerate(part)
        ]
        base = folder / "rollouts" / f"step_{part[0]['step']}"
        jsonl(base / "train" / "effective" / "traces.jsonl", episodes)
        jsonl(base / "train" / "all" / "traces.jsonl", [*episodes, *episodes[:3]])
        jsonl(base / "eval" / "all" / "traces.jsonl", episodes[:2])
    return folder / "rollouts"


def nemo_gym(folder: Path, rows: Sequence[Row]) -> Path:
    number = {group: i for i, group in enumerate(dict.fromkeys(r["group"] for r in rows))}
    return jsonl(
        folder / "rollouts.jsonl",
        [
            {
                "responses_create_params": {"input": chat(r["prompt"]), "temperature": 1.0},
                "response": {"id": "r", "output": []},
                "reward": r["total"],
                "reward_components": scores(r),
                "_ng_task_index": number[r["group"]],
                "_ng_rollout_index": r["index"],
            }
            for r in rows
        ],
    )


def nemo_rl(folder: Path, rows: Sequence[Row]) -> Path:
    """train_data_step*.jsonl: lists of one, a value per token, the step only in the name; one reward, the total."""
    for part in groups(rows, "step"):
        jsonl(
            folder / f"train_data_step{part[0]['step']}.jsonl",
            [
                {
                    "content": [f"{r['prompt']} {r['completion']}"],
                    "rewards": [r["total"]],
                    "input_lengths": [40 + i],
                    "token_ids": [[5, 6, 7, 1000 + i]],
                    "token_loss_mask": [[0, 0, 1, 1]],
                    "sample_loss_mask": [1.0],
                    "advantages": [[0.0, 0.0, r["advantage"], r["advantage"]]],
                    "generation_logprobs": [[0.0, 0.0, -0.5, -0.25 * i]],
                    "prev_logprobs": [[0.0, 0.0, -0.5, -0.2]],
                    "idx": i,
                }
                for i, r in enumerate(part)
            ],
        )
    jsonl(folder / "val_data_step2.jsonl", [{"content": ["x"], "rewards": [0.5], "idx": 0}])
    return folder


def swift(folder: Path, rows: Sequence[Row]) -> Path:
    """completions.jsonl in the folder of a run: one line per step, next to a log of metrics."""
    jsonl(
        folder / "logging.jsonl", [{"loss": 0.1, "reward": 0.5, "global_step/max_steps": f"{i}/6"} for i in range(1, 7)]
    )
    (folder / "args.json").write_text("{}")
    (folder / "checkpoint-6").mkdir()
    (folder / "checkpoint-6" / "trainer_state.json").write_text(json.dumps({"log_history": [{"step": 1, "loss": 0.5}]}))
    jsonl(
        folder / "completions.jsonl",
        [
            {
                "step": [str(r["step"]) for r in part],
                "prompt": [r["prompt"] for r in part],
                "completion": [r["completion"] for r in part],
                **listed(part),
                "advantages": [r["advantage"] for r in part],
            }
            for part in groups(rows, "step")
        ],
    )
    return folder


def group_lines(folder: Path, rows: Sequence[Row]) -> Path:
    return jsonl(
        folder / "groups.jsonl",
        [
            {
                "step": part[0]["step"],
                "prompt": part[0]["prompt"],
                "completions": [r["completion"] for r in part],
                "rewards": listed(part),
                "mean_reward": float(np.mean([r["total"] for r in part])),
            }
            for part in groups(rows)
        ],
    )


def group_lines_of_objects(folder: Path, rows: Sequence[Row]) -> Path:
    """Completions are objects, whose own reward has the name of the group's mean."""
    return jsonl(
        folder / "groups.jsonl",
        [
            {
                "step": part[0]["step"],
                "question": part[0]["prompt"],
                "reward": float(np.mean([r["total"] for r in part])),
                "responses": [{"text": r["completion"], "reward": r["total"], "scores": scores(r)} for r in part],
            }
            for part in groups(rows)
        ],
    )


def group_lists_only(folder: Path, rows: Sequence[Row]) -> Path:
    """No texts: an object of lists."""
    return jsonl(
        folder / "groups.jsonl",
        [
            {
                "iteration": part[0]["step"],
                "prompt_id": part[0]["group"],
                "rewards": listed(part),
                "advantages": [r["advantage"] for r in part],
            }
            for part in groups(rows)
        ],
    )


def matrix_lines(folder: Path, rows: Sequence[Row]) -> Path:
    """A list per completion of a list per reward."""
    return jsonl(
        folder / "groups.jsonl",
        [
            {
                "step": part[0]["step"],
                "prompt": part[0]["prompt"],
                "responses": [r["completion"] for r in part],
                "rewards": [[r[name] for name in REWARDS] for r in part],
            }
            for part in groups(rows)
        ],
    )


def step_object(folder: Path, rows: Sequence[Row]) -> Path:
    """One JSON file per step, with groups in a list, and completions in a list of each."""
    for part in groups(rows, "step"):
        (folder / f"step_{part[0]['step']:04d}.json").write_text(
            json.dumps(
                {
                    "config": {"lr": 1e-6},
                    "groups": [
                        {"prompt": of[0]["prompt"], "samples": [{"output": r["completion"], **scores(r)} for r in of]}
                        for of in groups(part)
                    ],
                }
            )
        )
    return folder


def list_column(folder: Path, rows: Sequence[Row]) -> Path:
    return parquet(
        folder / "lists.parquet",
        [{"step": r["step"], "prompt": r["prompt"], "rewards": [r[name] for name in REWARDS]} for r in rows],
    )


def struct_parquet(folder: Path, rows: Sequence[Row]) -> Path:
    return parquet(
        folder / "run.parquet",
        [
            {
                "global_step": r["step"],
                "prompt": chat(r["prompt"]),
                "response": r["completion"],
                "rewards": scores(r),
                "advantage": r["advantage"],
            }
            for r in rows
        ],
    )


def decimals(folder: Path, rows: Sequence[Row]) -> Path:
    """Parquet with decimals, lists of one, texts and integers."""
    decimal = pa.array([r["helpful"] for r in rows], pa.float64()).cast(pa.decimal128(12, 4))
    table = pa.table(
        {
            "step": pa.array([r["step"] for r in rows], pa.int32()),
            "group_id": [r["group"] for r in rows],
            "correct": pa.array([int(r["correct"]) for r in rows], pa.int8()),
            "helpful": decimal,
            "safety": pa.array([[r["safety"]] for r in rows], pa.list_(pa.float32())),
            "format": [f"np.float64({r['format']})" for r in rows],
            "reward": pa.array([r["total"] for r in rows], pa.float64()),
        }
    )
    pq.write_table(table, folder / "run.parquet")
    return folder / "run.parquet"


def shards(folder: Path, rows: Sequence[Row]) -> Path:
    """Parts of a folder: one has integers, one has texts, one was written as JSONL."""
    parts = groups(rows, "step")
    for number, part in enumerate(parts):
        written = [
            {"step": r["step"], "prompt": r["prompt"], **scores(r, "rewards/{}"), "total": r["total"]} for r in part
        ]
        name = f"part-{number}-of-{len(parts)}"
        if number == 1:
            written = [{**row, "rewards/correct": int(row["rewards/correct"])} for row in written]
        if number == 2:
            written = [{**row, "rewards/safety": str(row["rewards/safety"])} for row in written]
        _ = jsonl(folder / f"{name}.jsonl", written) if number == 3 else parquet(folder / f"{name}.parquet", written)
    return folder


def feather(folder: Path, rows: Sequence[Row]) -> Path:
    table = pa.Table.from_pylist(
        [{"step": r["step"], "uid": r["group"], **scores(r), "advantages": r["advantage"]} for r in rows]
    )
    pyarrow.feather.write_feather(table, str(folder / "run.feather"))
    return folder / "run.feather"


def verl(folder: Path, rows: Sequence[Row]) -> Path:
    """rollout_data_dir: one file per step, named by it; 10 comes after 2."""
    for part in groups(rows, "step"):
        jsonl(
            folder / f"{part[0]['step']}.jsonl",
            [
                {
                    "input": f"user\n{r['prompt']}\nassistant\n",
                    "output": r["completion"],
                    "gts": "4",
                    "score": r["total"],
                    "step": r["step"],
                    **scores(r),
                }
                for r in part
            ],
        )
    return folder


def areal(folder: Path, rows: Sequence[Row]) -> Path:
    """A folder per version, a file per task; one reward."""
    for number, part in enumerate(groups(rows)):
        version = part[0]["step"]
        jsonl(
            folder / str(version) / f"{number}.jsonl",
            [
                {
                    "task_id": number,
                    "sample_idx": r["index"],
                    "seqlen": 90 + r["index"],
                    "prompt_len": 40,
                    "head_version": version,
                    "tail_version": version,
                    "reward": r["total"],
                    "prompt": r["prompt"],
                    "completion": r["completion"],
                }
                for r in part
            ],
        )
    return folder


def open_instruct(folder: Path, rows: Sequence[Row]) -> Path:
    """Shards of rollouts, next to a file of metadata; tokens instead of texts; one reward."""
    jsonl(folder / "run_metadata.jsonl", [{"run_name": "run", "git_commit": "0", "model_name": "m", "timestamp": "t"}])
    written = []
    for part in groups(rows, "step"):
        for number, r in enumerate(part):
            written.append(
                {
                    "step": r["step"],
                    "sample_idx": number,
                    "prompt_idx": number // 8,
                    "prompt_tokens": [7, 9, 1000 + int(r["group"][-1]) + 10 * r["step"]],
                    "response_tokens": [3, 4000 + number],
                    "reward": r["total"],
                    "advantage": r["advantage"],
                    "finish_reason": "stop",
                    "dataset": "d",
                    "ground_truth": [3, 1500],
                    "request_info": {"num_calls": 0, "timeouts": 0, "tool_runtimes": 0.0},
                    "logprobs": [-0.1, -0.2 * number],
                }
            )
    jsonl(folder / "run_rollouts_000000.jsonl", written[: len(written) // 2])
    jsonl(folder / "run_rollouts_000001.jsonl", written[len(written) // 2 :])
    return folder


def openrlhf(folder: Path, rows: Sequence[Row]) -> Path:
    """Flat parquet in order, without a prompt or an id."""
    return parquet(
        folder / "flat.parquet",
        [
            {"global_step": r["step"], "completion": r["completion"], **scores(r, "score_{}"), "total": r["total"]}
            for r in rows
        ],
    )


def json_text(folder: Path, rows: Sequence[Row]) -> Path:
    """CSV whose cells hold JSON, as pandas writes objects."""
    return delimited(
        folder / "run.csv",
        [
            {
                "step": r["step"],
                "problem_id": r["group"],
                "metrics": json.dumps(scores(r)) if r["index"] % 2 else str(scores(r)),
                "reward": r["total"],
            }
            for r in rows
        ],
    )


def named_list(folder: Path, rows: Sequence[Row]) -> Path:
    """Rewards as a list of objects with a name and a score."""
    return jsonl(
        folder / "run.jsonl",
        [
            {
                "step": r["step"],
                "prompt": r["prompt"],
                "rewards": [{"name": name, "score": r[name]} for name in REWARDS],
                "advantage": r["advantage"],
            }
            for r in rows
        ],
    )


def pandas_split(folder: Path, rows: Sequence[Row]) -> Path:
    names = ["step", "prompt", *REWARDS]
    data = [[r[name] for name in names] for r in rows]
    (folder / "run.json").write_text(json.dumps({"columns": names, "index": list(range(len(data))), "data": data}))
    return folder / "run.json"


def pandas_columns(folder: Path, rows: Sequence[Row]) -> Path:
    names = ["step", "prompt", *REWARDS, "total"]
    (folder / "run.json").write_text(
        json.dumps({name: {str(i): r[name] for i, r in enumerate(rows)} for name in names})
    )
    return folder / "run.json"


def lists_in_an_object(folder: Path, rows: Sequence[Row]) -> Path:
    names = ["step", "prompt", "completion", *REWARDS]
    (folder / "run.json").write_text(json.dumps({name: [r[name] for r in rows] for name in names}))
    return folder / "run.json"


def trackio(folder: Path, rows: Sequence[Row]) -> Path:
    """The database of a project with one run: metrics of each step, and a table of completions among them."""
    database = sqlite3.connect(folder / "project.db")
    database.execute(
        "CREATE TABLE metrics (id INTEGER PRIMARY KEY, run_id TEXT, timestamp TEXT, run_name TEXT, "
        "step INTEGER, metrics TEXT)"
    )
    for part in groups(rows, "step"):
        table = {
            "_type": "trackio.table",
            "_value": [
                {"prompt": r["prompt"], "completion": r["completion"], **scores(r), "advantage": r["advantage"]}
                for r in part
            ],
        }
        for metrics in ({"loss": 0.5}, {"completions": table}):
            database.execute(
                "INSERT INTO metrics (run_id, timestamp, run_name, step, metrics) VALUES ('r', 't', 'a', ?, ?)",
                (part[0]["step"], json.dumps(metrics)),
            )
    database.commit()
    database.close()
    return folder / "project.db"


LAYOUTS = {
    "flat_jsonl": Layout(flat_jsonl, "reward_{}", advantage="advantage", trainer="TRL"),
    "packed_jsonl": Layout(packed_jsonl, "reward_{}", advantage="advantage", trainer="TRL"),
    "zstd_json": Layout(zstd_json, "{}", group="prompt_id", total="reward"),
    "wandb_table_csv": Layout(wandb_table_csv, "rewards/{}", step="_step", total="reward", advantage="advantage"),
    "wandb_table_json": Layout(wandb_table_json, "{}", advantage="advantage", trainer="TRL"),
    "semicolons": Layout(semicolons, "{}", total="reward"),
    "tabs": Layout(tabs, "score_{}", group="uid", total="score"),
    "verifiers": Layout(verifiers, "{}", step=None, group="example_id", total="reward"),
    "prime_rl": Layout(prime_rl, "metrics.{}", group="example_id", total="reward"),
    "prime_rl_traces": Layout(prime_rl_traces, "rewards.{}", group="task.hash", trainer="prime-rl"),
    "nemo_gym": Layout(
        nemo_gym, "reward_components.{}", step=None, group="_ng_task_index", total="reward", trainer="NeMo-Gym"
    ),
    "nemo_rl": Layout(nemo_rl, "", group=None, total="rewards", advantage="advantages", trainer="NeMo-RL"),
    "swift": Layout(swift, "{}", advantage="advantages", trainer="ms-swift"),
    "group_lines": Layout(group_lines, "rewards.{}", group="line"),
    "group_lines_of_objects": Layout(group_lines_of_objects, "scores.{}", group="line", total="reward"),
    "group_lists_only": Layout(group_lists_only, "rewards.{}", step="iteration", group="line", advantage="advantages"),
    "matrix_lines": Layout(matrix_lines, "rewards.{}", group="line", numbered=True),
    "step_object": Layout(step_object, "{}", group="line"),
    "list_column": Layout(list_column, "rewards.{}", numbered=True),
    "struct_parquet": Layout(struct_parquet, "rewards.{}", step="global_step", advantage="advantage"),
    "decimals": Layout(decimals, "{}", group="group_id", total="reward"),
    "shards": Layout(shards, "rewards/{}", total="total"),
    "feather": Layout(feather, "{}", group="uid", advantage="advantages"),
    "verl": Layout(verl, "{}", group="input", total="score", trainer="verl"),
    "areal": Layout(areal, "", group="task_id", total="reward", trainer="AReaL"),
    "open_instruct": Layout(
        open_instruct, "", group="prompt_tokens", total="reward", advantage="advantage", trainer="open-instruct"
    ),
    "openrlhf": Layout(openrlhf, "score_{}", step="global_step", group=None, total="total"),
    "json_text": Layout(json_text, "metrics.{}", group="problem_id", total="reward"),
    "named_list": Layout(named_list, "rewards.{}", advantage="advantage"),
    "pandas_split": Layout(pandas_split, "{}"),
    "pandas_columns": Layout(pandas_columns, "{}", total="total"),
    "lists_in_an_object": Layout(lists_in_an_object, "{}"),
    "trackio": Layout(trackio, "{}", advantage="advantage", trainer="TRL"),
}
