"""Logs of other people: what is found by itself, what must be named, and what is refused with a word that helps."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from rvpo.errors import ConfigError, DataError
from rvpo.logs.open import open_run
from rvpo.logs.run import Columns, LoggedBatch, Run, with_weights
from rvpo.logs.schema import METADATA, SCHEMA


def write(path: Path, **columns: list) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table(columns), path)
    return path


def only(run: Run) -> LoggedBatch:
    (batch,) = run.batches()
    return batch


def test_a_table_by_its_usual_names(tmp_path: Path):
    path = write(
        tmp_path / "run.parquet",
        global_step=[2, 1, 2, 1],
        prompt=["a", "b", "a", "b"],
        response=["x", "y", "z", "w"],
        reward_safe=[1.0, None, 0.0, 1.0],
        reward_fun=[1, 2, 3, 4],
        reward=[2.0, 2.0, 3.0, 5.0],
        advantages=[1.0, 0.5, -1.0, -0.5],
    )
    run = open_run(path)
    assert (run.kind, run.channels, run.steps, run.name) == ("table", ("safe", "fun"), (1, 2), "run.parquet")
    first, second = run.batches(texts=True)
    assert first.rewards[:, 1].tolist() == [2.0, 4.0]
    assert np.isnan(first.rewards[:, 0]).tolist() == [True, False]
    assert first.advantages.tolist() == [0.5, -0.5]
    assert (second.texts.completions, second.texts.prompts) == (["x", "z"], ["a", "a"])
    assert (first.groups.tolist(), second.groups.tolist()) == ([0, 0], [0, 0])


def test_names_can_be_given(tmp_path: Path):
    path = write(tmp_path / "run.parquet", a=[1.0, 0.0], b=[True, False], which=[7, 7], other=[0.0, 9.0], it=[3, 3])
    run = open_run(path, Columns(rewards=("b", "a"), group="which", step="it", advantage="other"))
    assert run.channels == ("b", "a")
    assert run.steps == (3,)
    assert only(run).rewards.tolist() == [[1.0, 1.0], [0.0, 0.0]]
    assert only(run).advantages.tolist() == [0.0, 9.0]


def test_blocks_instead_of_a_group(tmp_path: Path):
    path = write(tmp_path / "run.parquet", reward_a=[1.0, 0.0, 0.5, 0.5])
    assert only(open_run(path, Columns(group_size=2))).groups.tolist() == [0, 0, 1, 1]
    with pytest.raises(ConfigError, match=r"--group-size is 3, but .* has 4 rows"):
        open_run(path, Columns(group_size=3))


def test_jsonl_with_an_object_of_rewards(tmp_path: Path):
    path = tmp_path / "run.jsonl"
    rows = [
        {"prompt_id": "p", "rewards": {"a": 1, "b": None}, "advantage": 0.25},
        {"prompt_id": "p", "rewards": {"a": 0.5, "c": 2}, "advantage": -0.25},
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    run = open_run(path)
    assert run.channels == ("a", "b", "c")
    batch = only(run)
    assert batch.rewards[:, 0].tolist() == [1.0, 0.5]
    assert np.isnan(batch.rewards).tolist() == [[False, True, True], [False, True, False]]


def test_a_chat_is_a_prompt(tmp_path: Path):
    path = tmp_path / "run.jsonl"
    chats = [[{"role": "user", "content": text}] for text in ("hi", "hi", "ho", "ho")]
    path.write_text("".join(json.dumps({"prompt": chat, "reward_a": i}) + "\n" for i, chat in enumerate(chats)))
    assert only(open_run(path)).groups.tolist() == [0, 0, 1, 1]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{}\n[1]\n", r"line 2: a list; expected one JSON object per line, in UTF-8. Wrap it"),
        ('{"a": 1}\n{"a"\n', r"line 2: .*expected one JSON object per line, in UTF-8. Fix the line"),
        ('{"group": 1, "note": "x"}\n', "none is clearly a reward; expected .* Name them with --rewards"),
        (
            '{"reward_a": 1}\n',
            "none shows which rows belong to the same prompt .*Name the column of the prompt with --group",
        ),
        ('{"reward_a": 1, "group": null}\n{"reward_a": 2, "group": 1}\n', "row 0: the group .*is null"),
        ('{"reward_a": 1, "group": 1, "step": 1.5}\n', "row 0: the step is 1.5; expected a whole number"),
        ("", "has no rows"),
    ],
)
def test_what_cannot_be_read_is_told(tmp_path: Path, text: str, message: str):
    path = tmp_path / "run.jsonl"
    path.write_text(text)
    with pytest.raises((ConfigError, DataError), match=message):
        list(open_run(path).batches())


def test_an_infinite_reward_is_named(tmp_path: Path):
    path = write(tmp_path / "run.parquet", group=[0, 0], reward_a=[1.0, float("inf")], reward_b=[0.0, 1.0], step=[4, 4])
    with pytest.raises(DataError, match="step 4, completion 1: channel 'a' has the reward inf; expected finite"):
        list(open_run(path).batches())


def test_words_are_no_rewards(tmp_path: Path):
    path = write(tmp_path / "run.parquet", group=[0, 0], reward_a=["good", "bad"], reward_b=[1.0, 2.0])
    with pytest.raises(DataError, match="column 'reward_a' contains text; expected numbers"):
        open_run(path, Columns(rewards=("reward_a",)))


def test_nothing_there(tmp_path: Path):
    with pytest.raises(ConfigError, match="does not exist; expected the folder of a run"):
        open_run(tmp_path / "none")
    (tmp_path / "notes.txt").write_text("x")
    with pytest.raises(ConfigError, match=r"contains notes.txt; expected channels/ \(rvpo\), completions/ \(TRL"):
        open_run(tmp_path)


def test_trl_s_groups_are_blocks_of_equal_prompts(tmp_path: Path):
    """The prompt "a" stands in two groups side by side."""
    prompts = ["a"] * 8 + ["b"] * 4
    for step in (1, 2):
        rewards = [float((i * step) % 3) for i in range(12)]
        write(
            tmp_path / "completions" / f"completions_{step:05d}.parquet",
            step=[step] * 12,
            prompt=prompts,
            completion=["x"] * 12,
            good=rewards,
            words=list(range(12)),
            advantage=rewards,
        )
    run = open_run(tmp_path)
    assert (run.kind, run.channels, run.steps) == ("completions", ("good",), (1, 2))
    assert [batch.groups.tolist() for batch in run.batches()] == [[i // 4 for i in range(12)]] * 2
    assert "groups of 4 completions" in run.notes[1]
    bigger = open_run(tmp_path, Columns(group_size=6))
    assert next(iter(bigger.batches())).groups.tolist() == [i // 6 for i in range(12)]
    with pytest.raises(DataError, match="12 completions; expected a multiple of 5"):
        list(open_run(tmp_path, Columns(group_size=5)).batches())
    with pytest.raises(DataError, match="has no column 'bad'; expected one of step, prompt"):
        list(open_run(tmp_path, Columns(rewards=("bad",))).batches())


def test_trl_s_groups_of_different_size(tmp_path: Path):
    write(
        tmp_path / "completions_00003.parquet",
        prompt=["a", "a", "a", "b", "b"],
        completion=["x"] * 5,
        good=[0.0, 1.0, 2.0, 3.0, 4.0],
        advantage=[0.0] * 5,
    )
    assert only(open_run(tmp_path)).groups.tolist() == [0, 0, 0, 1, 1]


def test_a_record_of_the_future_is_refused(tmp_path: Path):
    about = json.dumps({"version": 5, "config": {}, "ranges": {}, "by_token": False})
    table = SCHEMA.empty_table().replace_schema_metadata({METADATA: about})
    (tmp_path / "channels").mkdir()
    pq.write_table(table, tmp_path / "channels" / "000001.parquet")
    with pytest.raises(
        DataError, match=r"is a record of version 5; expected version 4 or lower\. Read it with the version of rvpo"
    ):
        open_run(tmp_path)


def test_a_part_of_the_steps(tmp_path: Path):
    path = write(tmp_path / "run.parquet", group=[0] * 6, reward_a=[0.0, 1.0] * 3, step=[1, 1, 2, 2, 5, 5])
    run = open_run(path)
    assert run.between(None, None) is run
    assert [batch.step for batch in run.between(2, None).batches()] == [2, 5]
    assert run.between(None, 2).steps == (1, 2)
    with pytest.raises(ConfigError, match=r"steps 3 to 4 of .* do not exist; expected steps from 1 to 5"):
        run.between(3, 4)


def test_weights_that_the_logs_do_not_tell(tmp_path: Path):
    path = write(tmp_path / "run.parquet", group=[0, 0], reward_a=[0.0, 1.0], reward_b=[1.0, 0.0])
    assert only(with_weights(open_run(path), [1, 0.5])).weights.tolist() == [1.0, 0.5]
    with pytest.raises(ConfigError, match="--weights is 1; expected a finite number >= 0 for each of a, b"):
        with_weights(open_run(path), [1])


def test_rows_of_a_batch():
    batch = LoggedBatch(
        1,
        torch.arange(6.0).reshape(3, 2),
        torch.tensor([0, 0, 1]),
        torch.arange(2),
        advantages=torch.tensor([1.0, 2.0, 3.0]),
        weights=torch.tensor([1.0, 2.0]),
    )
    part = batch.rows(torch.tensor([2, 0]))
    assert part.rewards.tolist() == [[4.0, 5.0], [0.0, 1.0]]
    assert part.advantages.tolist() == [3.0, 1.0]
    assert part.weights.tolist() == [1.0, 2.0]
    assert part.channel.tolist() == [0, 1]


def completions(path: Path, step: int, prompts: list[str], rewards: list[float], **more: list) -> None:
    write(
        path / "completions" / f"completions_{step:05d}.parquet",
        **{
            "step": [step] * len(prompts),
            "prompt": prompts,
            "completion": [f"{step} {i}" for i in range(len(prompts))],
        },
        good=rewards,
        advantage=more.pop("advantage", rewards),
        **more,
    )


def test_batches_that_are_all_the_same_are_not_one_generation(tmp_path: Path):
    """Dead ones are equal in every number; what they say differs. What is logged again is equal in that, too."""
    for step in (1, 2):
        completions(tmp_path, step, ["a"] * 4, [1.0] * 4)
    assert len(list(open_run(tmp_path).batches())) == 2
    again = tmp_path / "completions" / "completions_00003.parquet"
    again.write_bytes((tmp_path / "completions" / "completions_00002.parquet").read_bytes())
    assert len(list(open_run(tmp_path).batches())) == 2


def test_a_file_of_another_group_size_does_not_split_the_others(tmp_path: Path):
    """As an evaluation with num_generations_eval leaves it."""
    for step in (1, 2, 3):
        completions(tmp_path, step, ["a"] * 8 + ["b"] * 8, [float(i + step) for i in range(16)])
    completions(tmp_path, 4, ["c"] * 4 + ["d"] * 4, [float(i) for i in range(8)])
    completions(tmp_path, 5, ["e"] * 3 + ["f"] * 4, [float(i) for i in range(7)])  # cut
    sizes = [np.bincount(batch.groups).tolist() for batch in open_run(tmp_path).batches()]
    assert sizes == [[8, 8]] * 3 + [[4, 4], [3, 4]]


def test_several_groups_of_a_single_prompt_are_told_by_their_advantages(tmp_path: Path):
    advantages = [1.0, -1.0, 0.5, -0.5, 1.0, 1.0, -1.0, -1.0]  # of two groups of four, or four of two: not the latter
    advantages = [1.5, -1.0, -0.5, 0.0, 1.0, 1.0, -1.0, -1.0]
    completions(tmp_path, 1, ["a"] * 8, [float(i) for i in range(8)], advantage=advantages)
    assert only(open_run(tmp_path)).groups.tolist() == [0] * 4 + [1] * 4


def test_empty_files_are_passed_over(tmp_path: Path):
    completions(tmp_path, 1, ["a"] * 4, [1.0, 0.0, 1.0, 0.0])
    empty = pq.read_table(tmp_path / "completions" / "completions_00001.parquet").slice(0, 0)
    pq.write_table(empty, tmp_path / "completions" / "completions_00002.parquet")
    assert len(list(open_run(tmp_path).batches())) == 1


def test_totals_and_other_numbers_are_no_channels(tmp_path: Path):
    columns = {"group": [0, 0, 1, 1], "prompt_id": [5, 5, 6, 6], "global_step": [1] * 4, "response_length": [3] * 4}
    path = write(tmp_path / "run.parquet", **columns, a=[0.0, 1.0, 1.0, 0.0], b=[1.0] * 4, total=[1.0, 2.0, 2.0, 1.0])
    assert open_run(path).channels == ("a",)  # b never differs, and nothing calls it a reward
    path = write(tmp_path / "run.parquet", **columns, reward_a=[0.0, 1.0, 1.0, 0.0], reward_total=[1.0, 2.0, 2.0, 1.0])
    assert open_run(path).channels == ("a",)
    assert open_run(path, Columns(rewards=("reward_total",))).channels == ("total",)
    run = open_run(write(tmp_path / "run.parquet", group=[0, 0], note=[None, None], reward=[1.0, 2.0]))
    assert run.channels == ("reward",)
    with pytest.raises(ConfigError, match="none is clearly a reward"):
        open_run(write(tmp_path / "run.parquet", group=[0, 0], note=[None, None], seconds=[1.0, 2.0]))


def test_a_column_that_is_a_sum_of_others_is_pointed_out(tmp_path: Path):
    generator = torch.Generator().manual_seed(0)
    a, b, c = torch.rand(3, 40, generator=generator).tolist()
    made = [x + 2 * y for x, y in zip(a, b, strict=True)]
    path = write(
        tmp_path / "run.parquet", group=[i // 4 for i in range(40)], reward_a=a, reward_b=b, reward_c=c, reward_all=made
    )
    run = open_run(path)
    assert run.channels == ("a", "b", "c")
    assert [str(guess) for guess in run.guesses] == [
        "'reward_all' is the total (it is a weighted sum of reward_a, reward_b; --rewards)"
    ]
    assert next(run.batches()).weights.tolist() == pytest.approx([1, 2, 0])


def test_columns_that_nobody_needs_may_differ_between_files(tmp_path: Path):
    for i, truth in enumerate(("four", 4)):
        rows = [{"group": i, "reward_a": float(j), "gts": truth, "response": f"{j}"} for j in range(2)]
        (tmp_path / f"{i}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    batch = next(iter(open_run(tmp_path).batches(texts=True)))
    assert batch.rewards[:, 0].tolist() == [0.0, 1.0, 0.0, 1.0]
    assert batch.texts.completions == ["0", "1", "0", "1"]


def test_ids_that_start_anew_are_pointed_out(tmp_path: Path):
    path = write(tmp_path / "run.parquet", group=[0, 0, 1, 1, 0, 0], reward_a=[0.0, 1.0] * 3)
    run = open_run(path)
    assert only(run).groups.tolist() == [0, 0, 1, 1, 2, 2]
    assert "a prompt that occurs again after others is a new group" in str(run.guesses[0])


def test_an_infinite_advantage_is_named(tmp_path: Path):
    path = write(tmp_path / "run.parquet", group=[0, 0], reward_a=[1.0, 0.0], advantage=[1.0, float("-inf")])
    with pytest.raises(DataError, match="step 0, completion 1: the advantage is -inf; expected finite numbers"):
        list(open_run(path).batches())


@pytest.mark.parametrize("about", ['{"version": 1}', '{"version": "one"}', "[]", '{"version": 1, "ranges": null}'])
def test_damaged_metadata_is_told(tmp_path: Path, about: str):
    (tmp_path / "channels").mkdir()
    pq.write_table(
        SCHEMA.empty_table().replace_schema_metadata({METADATA: about}), tmp_path / "channels/000001.parquet"
    )
    with pytest.raises(DataError, match="is damaged"):
        open_run(tmp_path)


def test_options_of_tables_do_not_pass_silently_over_trl_s_completions(tmp_path: Path):
    completions(tmp_path, 1, ["a"] * 4, [1.0, 0.0, 1.0, 0.0])
    for option in ("group", "advantage", "step"):
        with pytest.raises(ConfigError, match=f"--{option} is 'x', but .* contains TRL's completions"):
            open_run(tmp_path, Columns(**{option: "x"}))


def test_blocks_that_mix_prompts_are_pointed_out(tmp_path: Path):
    completions(tmp_path, 1, ["a"] * 4 + ["b"] * 4, [float(i) for i in range(8)])
    assert (
        "1 of the first file's blocks of 8 contain several prompts"
        in open_run(tmp_path, Columns(group_size=8)).notes[-1]
    )


def test_a_column_like_an_advantage_is_pointed_out(tmp_path: Path):
    columns = {"problem": ["p"] * 4 + ["q"] * 4, "acc": [1.0, 0.0] * 4, "centred": [0.5, -0.5, 1.0, -1.0] * 2}
    run = open_run(write(tmp_path / "run.parquet", **columns))
    assert run.channels == ("acc",)
    assert only(run).advantages.tolist() == columns["centred"]
    assert "the advantages are the column 'centred'" in str(run.guesses[0])
    still = open_run(write(tmp_path / "run.parquet", **columns, A_hat=[0.0] * 8))
    assert "the column 'A_hat' is not used (it is 0 everywhere" in str(still.guesses[0])


def test_a_line_that_is_still_written_is_left_out(tmp_path: Path):
    path = tmp_path / "run.jsonl"
    path.write_text('{"group": 0, "reward_a": 1}\n{"group": 0, "reward_a": 0}\n{"group": 1, "rewa')
    assert len(only(open_run(path)).rewards) == 2


def test_rewards_of_an_object_have_short_names(tmp_path: Path):
    path = tmp_path / "run.jsonl"
    path.write_text('{"group": 0, "rewards": {"a": 1, "b": 0}}\n' * 2)
    assert open_run(path, Columns(rewards=("b",))).channels == ("b",)


def test_a_folder_of_runs_is_none(tmp_path: Path):
    completions(tmp_path / "one", 1, ["a"] * 4, [1.0, 0.0, 1.0, 0.0])
    with pytest.raises(ConfigError, match=r"contains the folders of several runs; expected one run\. Pass one of them"):
        open_run(tmp_path)
