"""Every code block of README, start pages, tutorials and how-tos is run, or says why it is not."""

from __future__ import annotations

import os
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from docs_blocks import Block, Runner, blocks, is_slow, parse
from fault_server import FaultServer
from rvpo.logs.tables.trainers import TRAINERS

ROOT = Path(__file__).parents[1]
PAGES = {
    path.relative_to(ROOT).as_posix(): path.read_text("utf-8")
    for path in (
        ROOT / "README.md",
        ROOT / "docs" / "index.md",
        ROOT / "docs" / "install.md",
        *sorted((ROOT / "docs" / "tutorials").glob("*.md")),
        *sorted((ROOT / "docs" / "howto").glob("*.md")),
    )
}
QUICK = [name for name, text in PAGES.items() if not is_slow(text)]
SLOW = [name for name, text in PAGES.items() if is_slow(text) or any(block.mark == "slow" for block in blocks(text))]

# How many blocks of a page are not run. Each has its reason next to it in the page.
NOT_RUN = {
    "README.md": 2,
    "docs/index.md": 1,
    "docs/install.md": 3,
    "docs/tutorials/verl.md": 5,
    "docs/howto/benchmark.md": 1,
    "docs/howto/resume.md": 1,
    "docs/howto/several-gpus.md": 2,
}


@pytest.fixture
def runner(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Runner]:
    """Runs pages in an empty folder, with a server on this machine and a tiny model in the place of real ones."""
    folder = tmp_path / "page"
    folder.mkdir()
    monkeypatch.chdir(folder)
    monkeypatch.syspath_prepend(folder)
    with FaultServer(model="MODEL") as server:
        yield Runner(folder, {"http://localhost:8000/v1": server.url, "HuggingFaceTB/SmolLM2-135M-Instruct": "tiny"})


def run(name: str, runner: Runner, *, slow: bool) -> None:
    if "HuggingFaceTB/SmolLM2-135M-Instruct" in PAGES[name]:
        from tiny_model import save_tiny_model

        save_tiny_model(runner.folder / "tiny")
    runner.run(PAGES[name], slow=slow)


@pytest.mark.parametrize("name", QUICK)
def test_a_page_runs(name: str, runner: Runner):
    run(name, runner, slow=False)


@pytest.mark.slow
@pytest.mark.parametrize("name", SLOW)
def test_a_slow_page_runs(name: str, runner: Runner):
    pytest.importorskip("trl")
    run(name, runner, slow=True)


@pytest.mark.parametrize("name", PAGES)
def test_every_block_runs_or_says_why_not(name: str):
    found = blocks(PAGES[name])
    assert PAGES[name].count("\n```") == 2 * len(found), "a fence is not closed, or is indented"
    fates = Counter(block.fate for block in found)
    assert fates["not run"] == NOT_RUN.get(name, 0)
    for block in found:
        if block.fate == "parsed" or block.mark == "not run":
            parse(block)


def test_blocks_of_all_other_pages_can_be_read():
    """Guides show parts of scripts, which nothing can run alone; what runs of them is in the tutorials and how-tos."""
    others = [path for path in (ROOT / "docs").rglob("*.md") if path.relative_to(ROOT).as_posix() not in PAGES]
    found = [block for path in others for block in blocks(path.read_text("utf-8"))]
    read = [block for block in found if block.language in ("python", "yaml", "bash")]
    for block in read:
        parse(block)
    assert len(read) > 20


def test_the_counts_name_pages_that_exist():
    assert set(NOT_RUN) <= set(PAGES)


def test_a_block_that_fails_fails_its_page(runner: Runner):
    for page in (
        "```bash\nfalse\n```\n",
        "```python\n1 / 0\n```\n",
        "```python\nprint('one')\n```\n\n```text\ntwo\n```\n",
        "<!-- not run: no reason -->\n```python\n1 +\n```\n",
        "```yaml\n[1\n```\n",
    ):
        with pytest.raises(Exception):  # noqa: B017, PT011 (whatever the block raises)
            runner.run(page, slow=False)


def test_marks_titles_and_fates():
    page = '<!-- slow: long -->\n```bash\nsleep 9\n```\n\n```python title="a.py"\nx = 1\n```\n\n```diff\n+x\n```\n'
    assert blocks(page) == [
        Block("bash", "sleep 9\n", "slow", "long"),
        Block("python", "x = 1\n", title="a.py"),
        Block("diff", "+x\n"),
    ]
    assert [block.fate for block in blocks(page)] == ["run", "run", "parsed"]
    assert not is_slow(page)
    assert is_slow("<!-- slow: long -->\n\n```bash\n```\n")


def test_the_readme_shows_what_the_demo_prints():
    shown = [line for line in PAGES["README.md"].splitlines() if line.startswith("    ") and "%" in line]
    assert len(shown) == 6
    command, narrow = [sys.executable, "-m", "rvpo", "demo"], os.environ | {"COLUMNS": "80"}
    done = subprocess.run(command, env=narrow, capture_output=True, text=True, check=True)
    printed = [" ".join(line.split()) for line in done.stdout.splitlines()]
    for line in shown:
        assert " ".join(line.split()) in printed


def test_the_page_of_logs_has_the_setting_of_every_trainer():
    page = PAGES["docs/howto/logs.md"]
    for trainer in TRAINERS:
        assert trainer.name in page
        setting = trainer.setting.split()[0].rstrip(",")
        assert setting in page or trainer.name in ("NeMo-RL", "prime-rl", "OpenRLHF"), trainer.name
