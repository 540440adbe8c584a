"""Which training runs belong together, from folders as engines leave them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from compare.training_runs import completions, record, rows_of
from rvpo.compare.run_groups import RunGroups, find_runs, group_runs
from rvpo.compare.run_origins import split_seed
from rvpo.compare.trainings import compare_trainings
from rvpo.errors import ConfigError, DataError
from rvpo.logs.run import Columns


def opened(*arguments: str | Path, columns: Columns | None = None) -> RunGroups:
    return group_runs(find_runs(arguments), columns)


def named(groups: RunGroups) -> dict[str, list[tuple[str, int | None]]]:
    return {name: [(run.name, run.seed) for run in runs] for name, runs in groups.runs.items()}


@pytest.mark.parametrize(
    ("name", "method", "seed"),
    [
        ("grpo-0", "grpo", 0),
        ("rvpo_k1-12", "rvpo_k1", 12),
        ("gdpo_seed3", "gdpo", 3),
        ("gdpo-seed-3", "gdpo", 3),
        ("gdpo-s4", "gdpo", 4),
        ("2", "parent", 2),
        ("seed-2", "parent", 2),
        ("rvpo-k1", "rvpo-k1", None),
        ("gdpo-lr1e-3", "gdpo-lr1e-3", None),
        ("qwen2.5", "qwen2.5", None),
        ("lift", "lift", None),
    ],
)
def test_seeds_stand_at_the_end_of_a_folders_name(name: str, method: str, seed: int | None):
    assert split_seed(name, "parent") == (method, seed)


def test_a_sweep_in_trls_layout_is_grouped_by_the_names_of_its_folders(tmp_path: Path):
    for method, end in (("grpo", 0.3), ("lift", 0.8)):
        for seed in (0, 10, 2):
            completions(tmp_path / f"{method}-{seed}", {"right": [0.2, end], "form": [0.5, None]})
    (tmp_path / "lift-2.log").write_text("…")
    groups = opened(tmp_path)
    assert named(groups) == {m: [(f"{m}-{seed}", seed) for seed in (0, 2, 10)] for m in ("grpo", "lift")}
    found = compare_trainings(groups.runs)
    # Rewards are the means -+ 0.1: seen are 0.1 to 0.9, so 0.8 is (0.8 - 0.1) / 0.8
    assert found.scales["right"] == pytest.approx((0.1, 0.9))
    assert rows_of(found, "last")["right"].b == pytest.approx((0.875,) * 3)
    assert found.groups[0].runs[0].measures["form"]["last"] is None  # not scored at the end
    assert rows_of(found, "last")["form"].verdict == "missing: no run of grpo and lift has it"


def test_plain_tables_are_runs_too(tmp_path: Path):
    for i, end in enumerate((0.3, 0.4, 0.8, 0.9)):
        folder = tmp_path / f"{'ab'[i // 2]}_seed{i % 2}"
        folder.mkdir()
        table = {"global_step": [1, 1, 2, 2], "uid": ["p", "p", "q", "q"], "score_right": [0.0, 1.0, end, end]}
        pq.write_table(pa.table(table), folder / "rollouts.parquet")
    groups = opened(tmp_path, columns=Columns(rewards=("score_right",)))
    assert named(groups) == {"a": [("a_seed0", 0), ("a_seed1", 1)], "b": [("b_seed0", 0), ("b_seed1", 1)]}
    assert rows_of(compare_trainings(groups.runs), "last")["right"].a == pytest.approx((0.3, 0.4))
    files = [tmp_path / f"{name}_seed0.parquet" for name in "ab"]
    for file in files:
        pq.write_table(pa.table({"step": [1, 2], "prompt": ["p", "q"], "reward/right": [0.0, 1.0]}), file)
    assert named(opened(*files)) == {"a": [("a_seed0", 0)], "b": [("b_seed0", 0)]}


def recipe(name: str, seed: int, method: Any, schedule: Any = None, **more: Any) -> dict[str, Any]:
    rewards = [{"function": "right", "name": "right", "options": more.pop("options", {})}]
    own = {"name": name, "output": f"runs/{name}", "seed": seed, "method": method, "schedule": schedule}
    return (
        own
        | {"data": {"path": "x.jsonl", "shuffle_seed": seed}, "rewards": rewards, "trainer": {"max_steps": 2}}
        | more
    )


def test_recipes_tell_method_and_seed_whatever_the_folders_are_called(tmp_path: Path):
    told = {
        "one": recipe("one", 7, {"name": "gdpo"}),
        "two": recipe("two", 8, {"name": "gdpo"}),
        "k-5": recipe("k-5", 7, {"name": "rvpo"}, 1.0),
        "paper": recipe("paper", 7, {"name": "rvpo"}, {"kind": "linear", "start": 0.5, "end": 2.0}),
        "self": recipe("self", 7, {"name": "rvpo"}, {"kind": "adaptive", "target": 0.4}),
        "up": recipe("up", 8, {"name": "lift", "kappa": 3.0}),
        "unknown": recipe("unknown", 8, {"name": "of-the-future", "x": 1}),
    }
    for folder, values in told.items():
        completions(tmp_path / folder, {"right": [0.2, 0.4]}, recipe=values)
    groups = named(opened(tmp_path))
    assert groups == {
        "gdpo": [("one", 7), ("two", 8)],
        "rvpo:k=1": [("k-5", 7)],
        "rvpo:k=linear(0.5,2)": [("paper", 7)],
        "rvpo:k=adaptive(target=0.4)": [("self", 7)],
        "lift:kappa=3": [("up", 8)],
        "of-the-future:x=1": [("unknown", 8)],
    }


def test_runs_of_one_method_with_other_settings_are_other_groups(tmp_path: Path):
    for method in ("explicit", "implicit"):
        for seed in (0, 1):
            values = recipe(f"{method}-{seed}", seed, {"name": "grpo"}, options={"aggregation": method})
            completions(tmp_path / f"{method}-{seed}", {"right": [0.2, 0.4]}, recipe=values)
    assert named(opened(tmp_path)) == {
        f"grpo (rewards.0.options.aggregation={m})": [(f"{m}-{seed}", seed) for seed in (0, 1)]
        for m in ("explicit", "implicit")
    }


def test_as_few_settings_as_tell_recipes_apart_are_named(tmp_path: Path):
    for i, (rate, batch) in enumerate(((0.1, 8), (0.1, 16), (0.2, 8), (0.2, 16))):
        settings = {"learning_rate": rate, "same": 1, "batch": batch, "also": batch}
        completions(tmp_path / f"x{i}", {"right": [0.2]}, recipe=recipe(f"x{i}", 0, {"name": "gdpo"}, trainer=settings))
    assert list(opened(tmp_path).runs) == [
        f"gdpo (trainer.learning_rate={rate}, trainer.batch={batch})" for rate in (0.1, 0.2) for batch in (8, 16)
    ]


def test_a_record_without_a_recipe_tells_its_method_and_how_k_moved(tmp_path: Path):
    cells = [(step, i, "right", float(i)) for step in (1, 2) for i in (0, 1)]
    for seed in (0, 1):
        record(tmp_path / f"a-{seed}", cells, [1.0, 1.0])
        record(tmp_path / f"b-{seed}", cells, [0.5, 2.0])
        record(tmp_path / f"other-{seed}", cells, [1.0, 1.0])
    groups = named(opened(tmp_path))
    assert groups == {
        "rvpo:k=1 (a)": [("a-0", 0), ("a-1", 1)],
        "rvpo:k=0.5..2": [("b-0", 0), ("b-1", 1)],
        "rvpo:k=1 (other)": [("other-0", 0), ("other-1", 1)],
    }
    inner = opened(tmp_path / "a-0" / "channels", f"x={tmp_path / 'b-1'}")
    assert named(inner) == {"rvpo:k=1": [("a-0", 0)], "x": [("b-1", 1)]}


def test_given_names_come_first_and_say_where_their_runs_differ(tmp_path: Path):
    for seed, rate in enumerate((0.1, 0.2)):
        values = recipe(f"m-{seed}", seed, {"name": "gdpo"}, trainer={"learning_rate": rate})
        completions(tmp_path / f"m-{seed}", {"right": [0.2, 0.4]}, recipe=values)
        completions(tmp_path / "nested" / "up" / str(seed), {"right": [0.2, 0.4]})
    groups = opened(f"mean={tmp_path / 'm-0'},{tmp_path / 'm-1'}", tmp_path / "nested")
    assert named(groups) == {"mean": [("m-0", 0), ("m-1", 1)], "up": [("up/0", 0), ("up/1", 1)]}
    told = "mean: runs differ in more than their seeds; trainer.learning_rate is 0.1 in m-0 and 0.2 in m-1."
    assert groups.notes == (told,)
    apart = opened(tmp_path / "m-0", tmp_path / "m-1")
    assert list(apart.runs) == ["gdpo (trainer.learning_rate=0.1)", "gdpo (trainer.learning_rate=0.2)"]


def test_a_run_that_left_no_logs_is_passed_over_with_a_note(tmp_path: Path):
    completions(tmp_path / "a-0", {"right": [0.2, 0.4]})
    (tmp_path / "a-1").mkdir()
    (tmp_path / "a-1" / "recipe.yaml").write_text("seed: 1\n")
    groups = opened(tmp_path)
    assert named(groups) == {"a": [("a-0", 0)]}
    assert groups.notes == ("left out, because they have no logs: a-1",)


def test_what_cannot_be_read_or_grouped_is_refused(tmp_path: Path):
    run = completions(tmp_path / "a-0", {"right": [0.2, 0.4]})
    with pytest.raises(ConfigError, match="a-0 is given twice; expected each run once"):
        find_runs([tmp_path, run])
    with pytest.raises(ConfigError, match=r"has no name before =; expected NAME=FOLDER"):
        find_runs([f"={run}"])
    with pytest.raises(ConfigError, match="has an empty folder; expected NAME=FOLDER,FOLDER"):
        find_runs([f"a={run},"])
    with pytest.raises(ConfigError, match="nowhere does not exist"):
        opened(tmp_path / "nowhere")
    other = completions(tmp_path / "b" / "a-1", {"right": [0.2, 0.4]})
    assert list(opened(run, f"a={other}").runs) == ["a (a)", "a"]
    with pytest.raises(ConfigError, match=r"two groups of runs are both called 'a \(a\)', one of them .*a-0"):
        opened(run, f"a={other}", f"a (a)={completions(tmp_path / 'c', {'right': [0.2]})}")
    (run / "recipe.yaml").write_text("- 1\n")
    with pytest.raises(DataError, match=r"recipe.yaml contains list; expected a mapping"):
        opened(run)
    (run / "recipe.yaml").write_text("a: [\n")
    with pytest.raises(DataError, match=r"recipe.yaml cannot be read .* Repair or remove the file"):
        opened(run)
