"""What the guides and the workflows name exists, and the code in CONTRIBUTING.md runs."""

from __future__ import annotations

import asyncio
import re
from pathlib import Path

import pytest
import torch
import yaml

import rvpo
from rvpo.judges import Question
from rvpo.judges.build import load_judge
from rvpo.rewards.registry import load_reward
from rvpo.rewards.rubric import Criterion

ROOT = Path(__file__).parents[1]
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
GUIDES = ("CONTRIBUTING.md", "tests/README.md", "benchmarks/README.md", "examples/README.md")
CODE = re.findall(r"```python\n# (\w+\.py)\n(.*?)```", (ROOT / "CONTRIBUTING.md").read_text("utf-8"), re.DOTALL)


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)
def test_a_workflow_calls_targets_that_exist(path: Path):
    jobs = yaml.safe_load(path.read_text("utf-8"))["jobs"]
    targets = set(re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text("utf-8"), re.MULTILINE))
    for job in jobs.values():
        assert job["timeout-minutes"] > 0
        for step in job["steps"]:
            assert set(re.findall(r"\bmake ([\w-]+)", step.get("run", ""))) <= targets


@pytest.mark.parametrize("guide", GUIDES)
def test_a_guide_names_files_that_exist(guide: str):
    text = (ROOT / guide).read_text("utf-8")
    folder = (ROOT / guide).parent
    for link in re.findall(r"\]\(([^)#:]+)\)", text):
        assert (folder / link).exists(), link
    for name in re.findall(r"`((?:[\w.-]+/)+(?:[\w-]+\.py)?|[\w-]+\.(?:py|md))`", text):
        if name in dict(CODE) or name.startswith("my_"):
            continue
        places = (ROOT, folder, ROOT / "src" / "rvpo", ROOT / "src" / "rvpo" / "core")
        found = any((place / name).exists() for place in places) or any((ROOT / "src").rglob(Path(name).name))
        assert found, f"{guide} names {name}"


def test_the_code_of_the_guide_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    for name, code in CODE:
        (tmp_path / name).write_text(code)
    assert [name for name, _ in CODE] == ["my_rewards.py", "my_judges.py", "my_engine.py"]
    monkeypatch.chdir(tmp_path)
    assert load_reward("my_rewards.py:thanks")(completions=["Thank you!", "No.", ""]) == [1.0, 0.0, None]

    judge = load_judge({"kind": "my_judges.py:LengthJudge", "words": 2})
    questions = [Question("p", text, (Criterion("brief", "Is brief."),)) for text in ("So long a text", "Short.", " ")]
    assert [row[0].value for row in asyncio.run(judge.judge(questions))] == [0.0, 1.0, None]

    names: dict = {}
    exec(dict(CODE)["my_engine.py"], names)
    rewards, groups = torch.tensor([[0.0, 1.0], [1.0, 0.5], [0.2, 0.1]]), torch.zeros(3, dtype=torch.int64)
    torch.testing.assert_close(
        names["advantages"](rewards, groups), rvpo.advantages(rewards, num_generations=3).advantages
    )


@pytest.mark.xdist_group("processes")
def test_groups_of_tests_reach_the_workers(request: pytest.FixtureRequest):
    """Else ``--dist loadgroup`` starts every shared process and browser once per worker, without a word."""
    if request.config.getoption("loadgroup", False):
        assert request.node.nodeid.endswith("@processes")
