"""Records whose method is not available here: one's own, a newer one, an option of a newer version, a hostile name.

They are diagnosed, compared and shown like any other; only the replay of the method itself says that it is not
available. Nothing that a record or a recipe next to it names is imported.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import torch
import yaml
from typer.testing import CliRunner

import rvpo
from rvpo.cli.app import app
from rvpo.core import AdvantageConfig
from rvpo.core.methods.recorded import Recorded
from rvpo.diagnose.diagnose import diagnose
from rvpo.diagnose.replay import replay
from rvpo.errors import DataError
from rvpo.logs.open import open_run
from rvpo.logs.schema import METADATA
from rvpo.logs.writer import ChannelTable

EVIL = "</script><img src=x onerror=alert(1)>"


def write(folder: Path, method: Any, *, seed: int = 0, steps: int = 3) -> Path:
    generator = torch.Generator().manual_seed(seed)
    aggregator = rvpo.Aggregator(method, ["a", "b", "c"])
    table = ChannelTable(folder / "channels")
    for step in range(1, steps + 1):
        rewards = torch.rand(16, 3, generator=generator, dtype=torch.float64)
        rewards[3, 1] = torch.nan
        table.add(step, aggregator(rewards, num_generations=4))
    return folder


def relabel(folder: Path, **values: Any) -> Path:
    """Put other values into the config of a record."""
    for path in (folder / "channels").glob("*.parquet"):
        table = pq.read_table(path)
        about = json.loads(table.schema.metadata[METADATA])
        about["config"] |= values
        pq.write_table(table.replace_schema_metadata({METADATA: json.dumps(about)}), path)
    return folder


def marking(folder: Path) -> tuple[Path, Path]:
    """Write a file that leaves a marker if it is ever imported; return both."""
    folder.mkdir(exist_ok=True)
    marker, code = folder / "imported", folder / "evil.py"
    code.write_text(f"open({str(marker)!r}, 'w').close()\ndef rule(z, p): return (z * p).sum(1)\n")
    return code, marker


def command(*arguments: object) -> str:
    done = CliRunner().invoke(app, [str(argument) for argument in arguments], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return " ".join(done.output.split())


UNAVAILABLE: tuple[Mapping[str, Any], ...] = (
    {"name": "CODE:rule"},
    {"name": "CODE:rule", "x": 1},
    {"name": "some_package.rules:Rule", "x": 1},
    {"name": "of_the_future", "x": [1, {"y": None}]},
    {"name": "lift", "kappa": 3, "of_the_future": 1},
    {"name": "lift", "kappa": "much"},
    {"name": "lift", "kappa": [[]]},
    {"name": "lift", "horizon": 5},  # of the rule that is lift_z now, in a record of this version
    {"name": "rvpo", "k": {"kind": "quadratic"}},
    {"name": "riskpo", "score": "CODE:rule"},
    {"name": "riskpo", "score": {"name": "CODE:rule", "x": 1}},
    {"name": "lagrangian", "thresholds": 3},
    {"name": EVIL, EVIL: EVIL},
)


@pytest.mark.parametrize("method", UNAVAILABLE, ids=str)
def test_a_record_is_read_like_any_other(tmp_path: Path, method: Mapping[str, Any]):
    code, marker = marking(tmp_path / "code")
    method = json.loads(json.dumps(method).replace("CODE", str(code)))
    known = diagnose(open_run(write(tmp_path / "known", "gdpo")))
    run = open_run(relabel(write(tmp_path / "run", "gdpo"), method=method))
    assert isinstance(run.config.method, Recorded)
    found = diagnose(run)
    assert found.channels == known.channels
    assert found.method == str(run.config)
    assert found.method.startswith(method["name"])

    again = replay(run, [AdvantageConfig("gdpo"), AdvantageConfig("grpo")])
    assert (again.own, again.own_difference) == (str(run.config), None)
    assert again.rules[0].largest_difference < 1e-6  # the others are replayed, against what was logged
    assert again.rules[0].problem is None
    (note,) = again.notes
    assert note.startswith(f"the run's own method {run.config} cannot be replayed: it is not available here; expected ")
    assert "name it: --method " in note

    told = command("diagnose", tmp_path / "run")
    assert "48 completions in 12 groups (4 each) over 3 steps" in told
    assert "cannot be replayed: it is not available here" in command("replay", tmp_path / "run", "--methods", "gdpo")
    assert "worst channel: mean over runs" in command("compare", tmp_path / "known", tmp_path / "run")
    command("report", tmp_path / "known", tmp_path / "run", "--out", tmp_path / "page.html")
    page = (tmp_path / "page.html").read_text()
    assert EVIL not in page
    (data,) = re.findall(r'<script[^>]*type="application/json"[^>]*>(.*?)</script>', page, flags=re.S)
    of_run = json.loads(data)["runs"][1]
    assert of_run["diagnosis"]["method"] == str(run.config)
    assert of_run["replay"]["own"]["method"] == str(run.config)
    assert not marker.exists()


@pytest.mark.parametrize(
    "method",
    ["CODE:rule", {"name": "CODE:rule", "x": 1}, "riskpo:score=CODE:rule", {"name": "riskpo", "score": "CODE:rule"}],
    ids=str,
)
def test_nothing_that_a_recipe_next_to_logs_names_is_imported(tmp_path: Path, method: Any):
    code, marker = marking(tmp_path / "code")
    method = json.loads(json.dumps(method).replace("CODE", str(code)))
    for name in ("one-0", "one-1", "two-0"):
        write(tmp_path / name, "gdpo")
        recipe = {"method": method if name.startswith("one") else "gdpo", "seed": int(name[-1]), "output": name}
        (tmp_path / name / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    told = command("compare", *(tmp_path / name for name in ("one-0", "one-1", "two-0")))
    assert "evil.py:rule" in told.replace(" ", "")  # a table may wrap it
    command("report", *(tmp_path / name for name in ("one-0", "two-0")), "--out", tmp_path / "page.html")
    assert not marker.exists()


def own_rules(folder: Path) -> Path:
    path = folder / "my_rules.py"
    path.write_text(
        "from dataclasses import dataclass\n"
        "import rvpo\n"
        "def mean(z, p, *, scale=1.0):\n"
        "    return scale * (z * p).sum(1)\n"
        "@dataclass(frozen=True)\n"
        "class Mean(rvpo.Method):\n"
        "    scale: float = 1.0\n"
        "    def __call__(self, batch, state):\n"
        "        p = batch.p\n"
        "        return rvpo.Outcome(self.scale * (batch.z * p).sum(1), p)\n"
    )
    return path


@pytest.mark.parametrize("name", ["mean", "Mean"])
@pytest.mark.parametrize("options", ["", ":scale=0.5", ":whiten=none,scale=0.5"])
def test_a_method_of_ones_own_is_replayed_once_it_is_named(tmp_path: Path, name: str, options: str):
    spelling = f"{own_rules(tmp_path)}:{name}{options}"
    write(tmp_path / "run", spelling)
    run = open_run(tmp_path / "run")
    assert isinstance(run.config.method, Recorded)
    others = [AdvantageConfig("grpo")]
    assert "cannot be replayed: it is not available here" in replay(run, others).notes[-1]
    for again in (
        replay(run, others, assumed=AdvantageConfig(spelling)),
        replay(run, [*others, AdvantageConfig(spelling)]),  # one of --methods has the recorded text: it counts as named
    ):
        assert again.notes == ()
        assert again.own == str(AdvantageConfig(spelling))
        assert again.own_difference < 1e-6
        assert again.rules[0].largest_difference > 0.01
    other = replay(run, [AdvantageConfig(f"{tmp_path}/my_rules.py:{name}:scale=3,whiten=none")])
    assert other.own_difference is None  # other options are another method
    assert other.rules[0].problem is None
    assert f"--method {run.config}" in other.notes[-1]
    told = command("replay", tmp_path / "run", "--methods", "gdpo", "--method", spelling)
    assert "replayed to within" in told
    assert "replayed to within" in command("replay", tmp_path / "run", "--methods", f"gdpo {spelling}")


def test_the_wrong_method_is_not_taken_for_the_recorded_one(tmp_path: Path):
    path = own_rules(tmp_path)
    run = open_run(write(tmp_path / "run", f"{path}:mean:whiten=none"))
    again = replay(run, [], assumed=AdvantageConfig(f"{path}:mean:whiten=none,scale=2"))
    assert "does not give the logged advantages: they differ by up to" in again.notes[-1]


def test_values_that_this_version_does_not_understand_are_no_damage(tmp_path: Path):
    for i, (values, message) in enumerate(
        (
            ({"missing": "impute"}, "missing is 'impute'; expected one of 'drop', 'error'"),
            ({"ddof": 2}, "ddof is 2; expected one of 0, 1"),
            ({"method": {"kappa": 3}}, "expected a mapping with a name"),
        )
    ):
        with pytest.raises(DataError, match=re.escape(message)) as caught:
            open_run(relabel(write(tmp_path / f"run-{i}", "gdpo"), **values))
        told = str(caught.value)
        assert f"is a record of version 4 with a value that rvpo {rvpo.__version__} does not understand" in told
        assert "The file is intact. Read it with the version of rvpo that wrote it, or a newer one" in told
        assert "damaged" not in told
        assert "emove" not in told


def test_metadata_that_cannot_be_parsed_is_damage(tmp_path: Path):
    run = write(tmp_path / "run", "gdpo", steps=1)
    (path,) = (run / "channels").glob("*.parquet")
    for about in ("{", "[" * 100_000, '{"version": 3}', '{"version": null}'):
        table = pq.read_table(path).replace_schema_metadata({METADATA: about})
        pq.write_table(table, path)
        with pytest.raises(DataError, match=r"000001.parquet is damaged \(.*Remove the file, or run the step again"):
            open_run(run)
