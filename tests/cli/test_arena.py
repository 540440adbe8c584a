"""`rvpo arena`: real trainings in two small worlds, and its table against loops."""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Iterator
from itertools import combinations, product
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import rvpo
import rvpo.cli.arena as command
from rvpo.arena import fields, known
from rvpo.arena.fields import FIELDS, Run
from rvpo.arena.table import Scores, not_first, rows, standing
from rvpo.core.methods.registry import METHODS, read_texts
from rvpo.errors import ConfigError
from warm_python import WarmPython

pytestmark = pytest.mark.xdist_group("arena")
"""On one worker, because several tests look at the same arena."""

OWN = "def low(z, p):\n    return (p * z).sum(-1) - 0.1 * z.square().sum(-1)\n"


def arena(out: Path, methods: str, **options: object) -> None:
    given = {"fields": ["worlds"], "cells": ["plain"], "seeds": 2, "baseline": "gdpo", "about": "lift", "parallel": 1}
    command._arena(methods, **(given | options), out=out)  # type: ignore[arg-type]


@pytest.fixture(scope="module", autouse=True)
def warm_scripts() -> Iterator[None]:
    """Run the scripts of a field in processes that have imported torch already: an arena starts four of them."""
    warm = WarmPython(["torch", "rvpo.core"], [Path(rvpo.__file__).parents[1]], {"OMP_NUM_THREADS": "1"})

    def run(command: list[str], **given: Any) -> subprocess.CompletedProcess[str]:
        done = warm.start(command[1:], given.get("env"))
        code = done.wait()
        if given.get("stdout") != subprocess.PIPE and not given.get("capture_output"):
            print(done.stdout)
        return subprocess.CompletedProcess(command, code, done.stdout, done.stderr)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(fields.subprocess, "run", run)
        yield
    warm.end()


def test_rules_and_ones_own_train_in_a_world_and_later_ones_join(tmp_path: Path, capfd: pytest.CaptureFixture[str]):
    own = tmp_path / "my_rules.py"
    own.write_text(OWN)
    methods = f"gdpo dara {own}:low"
    arena(tmp_path / "arena", methods)
    told = capfd.readouterr().out
    assert "1 cell, 2 seeds" in told
    assert "worlds: training 3 rules in 1 cell, 2 seeds each" in told
    assert f"| `{own}:low` |" in told
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "arena" / "worlds" / "records").iterdir()}
    arena(tmp_path / "arena", f"{methods} saw")
    assert "is not first" not in capfd.readouterr().out  # lift does not take part
    numbers = json.loads((tmp_path / "arena" / "arena.json").read_text())["worlds"]
    assert {row["method"] for row in numbers["rules"]} == {"gdpo", "dara", "saw", f"{own}:low"}
    assert all(0 < row["auc"] < 1 and row["cost"] > 0 for row in numbers["rules"])
    assert {path: path.stat().st_mtime_ns for path in before} == before, "what was done is not done again"


def test_starting_policies_are_counted_while_a_script_makes_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.setattr(fields, "START_SECONDS", 0.01)
    printed = ""
    with fields._counting_starts(tmp_path / "warm_starts"):
        (tmp_path / "warm_starts").mkdir()
        (tmp_path / "warm_starts" / "p0.25-100.safetensors").write_bytes(b"")
        while "\n" not in printed:
            time.sleep(0.01)
            printed += capsys.readouterr().out
    assert printed == "starting policies trained: 1\n"


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"fields": ["moons"]}, "fields contains 'moons'; expected one or more of regimes, worlds, quickstart"),
        ({"baseline": "rvpo:k=2"}, "baseline is 'rvpo:k=2'; expected one of the compared rules: gdpo, lift"),
        ({"fields": ["regimes", "worlds"]}, "cells is 'plain' for regimes worlds; expected one field"),
        ({"cells": ["mars"]}, "the field 'worlds' ended with code 2"),
    ],
)
def test_mistakes_are_told(tmp_path: Path, options: dict[str, object], told: str):
    with pytest.raises(ConfigError, match=told):
        arena(tmp_path, "gdpo lift", **options)


def test_every_method_that_needs_no_options_takes_part():
    assert {method.name for method in read_texts(command.METHODS)} >= set(METHODS) - {
        "lift_z", "lagrangian", "riskpo", "tchebycheff", "rvpo_explicit",
    }  # fmt: skip
    assert set(command.FIELDS) == set(FIELDS)


def made(values: dict[str, list[list[float]]]) -> list[Run]:
    """Return runs at two learning rates, whose AUC are the values by cell and seed."""
    return [
        Run(f"cell{c}", method, rate, seed, auc + (0.01 if rate == 1.0 else -0.01), auc)
        for method, cells in values.items()
        for (c, cell), rate in product(enumerate(cells), (1.0, 2.0))
        for seed, auc in enumerate(cell)
    ]


def test_the_table_says_who_is_better_and_who_is_first():
    random = np.random.default_rng(0)
    base = random.uniform(0.3, 0.4, size=(3, 8))
    values = {"gdpo": base.tolist(), "lift": (base + 0.1).tolist(), "saw": (base - 0.1).tolist()}
    values["lift"][2] = (base[2] - 0.05).tolist()
    runs = made(values)
    scores = Scores.of(runs, list(values), range(8))
    assert scores.auc.shape == (3, 3, 8)
    np.testing.assert_allclose(scores.auc[0], base, atol=1e-12)
    first, second, third = rows(scores, "gdpo", {"lift": 1.0})
    assert [first["method"], second["method"], third["method"]] == ["lift", "gdpo", "saw"]
    assert (first["better"], first["worse"]) == (2, 1)
    assert (third["better"], third["worse"]) == (0, 3)
    assert (first["first"], second["first"], third["first"]) == (2, 1, 0)
    assert first["neglect"] == float((np.array(values["lift"]) < 0.5).mean())
    [(cell, winner, gap)] = not_first(scores, "lift")
    assert (cell, winner) == ("cell2", "gdpo")
    assert gap == pytest.approx(0.05)


def test_a_cell_that_is_not_finished_is_left_out():
    runs = made({"gdpo": [[0.1, 0.2], [0.3, 0.4]], "lift": [[0.1, 0.2], [0.3, 0.4]]})
    scores = Scores.of(runs[:-1], ["gdpo", "lift"], range(2))
    assert scores.cells == ("cell0",)
    assert scores.left_out == ("cell1",)


@pytest.fixture(scope="module")
def first(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An arena of two rules in one world."""
    out = tmp_path_factory.mktemp("first")
    arena(out, "gdpo dara")
    return out


def test_a_tie_for_the_first_place_is_said():
    assert standing("lift", [], 1) == "`lift` is first in the only cell, or within 0.005 of the first."
    assert standing("lift", [], 3).startswith("`lift` is first in all 3 cells, or within")


def test_the_page_says_what_its_columns_mean(first: Path):
    page = (first / "arena.md").read_text()
    assert "Here: 1 cell, " in page
    assert "differs from that of gdpo (p < 0.05 after adjustment), however little" in page


def test_known_scores_are_not_trained_again(first: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]):
    own = tmp_path / "my_rules.py"
    own.write_text(OWN)
    arena(tmp_path / "second", f"gdpo dara {own}:low", known=str(first / "scores.json"))
    assert "worlds: 2 of 3 cells x rules are known" in capfd.readouterr().out
    trained = {path.name.split("--")[1] for path in (tmp_path / "second" / "worlds" / "records").iterdir()}
    assert len(trained) == 2
    assert "oracles.jsonl" in trained
    assert not {"gdpo.jsonl", "dara.jsonl"} & trained
    alone, together = (
        {row["method"]: row for row in json.loads((folder / "arena.json").read_text())["worlds"]["rules"]}
        for folder in (first, tmp_path / "second")
    )
    for method, row in alone.items():
        assert together[method]["auc"] == pytest.approx(row["auc"], abs=1e-5)
        assert together[method]["neglect"] == row["neglect"]
    assert "low" not in (tmp_path / "second" / "scores.json").read_text(), "a path means nothing to others"


def test_known_scores_of_another_rule_task_or_seed_are_not_used(
    first: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
):
    stored = known.Known.read(first / "scores.json")
    task = known.task_of(FIELDS["worlds"].folder)
    asked = ("worlds", task, ["gdpo", "dara"], ["plain"], range(2))
    assert {(run.method, run.seed) for run in stored.of(*asked)} == set(product(["gdpo", "dara"], range(2)))
    assert stored.of("worlds", "another task", *asked[2:]) == []
    assert not stored.is_of("worlds", "another task")
    assert stored.of("regimes", *asked[1:]) == []
    assert {run.method for run in stored.without("dara").of(*asked)} == {"gdpo"}
    content = json.loads((first / "scores.json").read_text())
    changed = tmp_path / "changed.json"
    changed.write_text(json.dumps(content | {"answers": content["answers"] | {"dara": content["answers"]["gdpo"]}}))
    kept = command._read_known(str(changed), ["gdpo", "dara"])
    assert "the known scores of dara are of another form of this rule" in capfd.readouterr().out
    assert {run.method for run in kept.of(*asked)} == {"gdpo"}
    changed.write_text("{}")
    with pytest.raises(ConfigError, match=r"cannot read known scores in .*changed.json.*set --known none"):
        command._read_known(str(changed), ["gdpo"])


def test_all_that_is_known_makes_the_same_table(first: Path, tmp_path: Path):
    arena(tmp_path / "new" / "folder", "gdpo dara", known=str(first / "scores.json"))
    again, before = (
        json.loads((folder / "arena.json").read_text())["worlds"] for folder in (tmp_path / "new" / "folder", first)
    )
    assert (again["cells"], again["left_out"]) == (before["cells"], before["left_out"])
    assert [row["method"] for row in again["rules"]] == [row["method"] for row in before["rules"]]


def test_a_cell_with_some_of_the_seeds_is_trained(first: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]):
    arena(tmp_path / "arena", "gdpo dara", seeds=3, known=str(first / "scores.json"))
    assert "are known" not in capfd.readouterr().out
    assert json.loads((tmp_path / "arena" / "arena.json").read_text())["worlds"]["cells"] == ["plain"]


def test_every_rule_answers_differently():
    texts = command.METHODS.split()
    answers = {text: known.answers_of(text) for text in texts}
    assert answers == {text: known.answers_of(text) for text in texts}, "no chance is in it"
    for one, other in combinations(texts, 2):
        gap = max(abs(a - b) for a, b in zip(answers[one], answers[other], strict=True))
        assert gap > 10 * known.TOLERANCE, (one, other)


def test_a_task_is_its_program_and_not_its_comments(tmp_path: Path):
    script = tmp_path / "run.py"
    script.write_text('"""Old words."""\n\n\ndef f(x):\n    """Old."""\n    return x + 1\n')
    before = known.task_of(tmp_path)
    script.write_text('"""New words."""\n# A comment.\ndef f(x):\n    """New."""\n    return (x + 1)\n')
    (tmp_path / "table.py").write_text("print(1)")
    assert known.task_of(tmp_path) == before
    script.write_text("def f(x):\n    return x + 2\n")
    assert known.task_of(tmp_path) != before


def test_published_scores_are_of_the_rules_and_tasks_of_today():
    published = known.Known.read(known.PUBLISHED)
    assert published.changed(published.answers) == []
    for name in published.tasks:
        assert published.is_of(name, known.task_of(FIELDS[name].folder)), name
