"""``rvpo diagnose``, ``rvpo replay`` and ``rvpo report`` as a user meets them, and the page that is watched."""

from __future__ import annotations

import json
import re
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from typer.testing import CliRunner

import rvpo
from rvpo.cli.app import app
from rvpo.errors import ConfigError
from rvpo.logs.open import open_run
from rvpo.page.live import LivePage, server
from rvpo.page.report import build_report, samples

HOSTILE = "</script><img src=x onerror=alert(1)>"


def write(
    path: Path, *, method: str = "gdpo", steps: int = 8, seed: int = 0, channels: int = 3, g: int = 4, lift: float = 0.0
) -> Path:
    """Write TRL's completions of a run."""
    generator = torch.Generator().manual_seed(seed)
    (path / "completions").mkdir(parents=True, exist_ok=True)
    for step in range(1, steps + 1):
        level = torch.linspace(0.3, 0.6, channels) + lift * step / steps
        rewards = (torch.rand(4 * g, channels, generator=generator, dtype=torch.float64) < level).double()
        advantages = rvpo.advantages(rewards, num_generations=g, method=method).advantages
        table = {
            "step": [step] * 4 * g,
            "prompt": [f"prompt {i // g}" for i in range(4 * g)],
            "completion": [f"{HOSTILE} {i}" for i in range(4 * g)],
            **{f"r{j}": rewards[:, j].tolist() for j in range(channels)},
            "advantage": advantages.tolist(),
        }
        pq.write_table(pa.table(table), path / "completions" / f"completions_{step:05d}.parquet")
    return path


def run(*arguments: object) -> str:
    done = CliRunner().invoke(app, [str(argument) for argument in arguments], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return done.output


def data_of(html: str) -> dict:
    """Read the page's data out of it, as its own scripts do."""
    (found,) = re.findall(r'<script[^>]*type="application/json"[^>]*>(.*?)</script>', html, flags=re.S)
    return json.loads(found)


def test_diagnose(tmp_path: Path):
    write(tmp_path / "mine")
    output = run(
        "diagnose", tmp_path / "mine", "--json", tmp_path / "d.json", "--markdown", tmp_path / "d.md", "--steps", "3:"
    )
    assert "mine: 96 completions in 24 groups (4 each) over 6 steps, advantages: as logged" in output
    told = json.loads((tmp_path / "d.json").read_text())
    assert [channel["name"] for channel in told["channels"]] == ["r0", "r1", "r2"]
    assert "| r0 |" in (tmp_path / "d.md").read_text()


def test_replay(tmp_path: Path):
    write(tmp_path / "mine")
    output = run("replay", tmp_path / "mine", "--methods", "gdpo rvpo:k=2", "--json", tmp_path / "r.json")
    assert "mine (gdpo, replayed to within" in output
    assert [rule["method"] for rule in json.loads((tmp_path / "r.json").read_text())["rules"]] == ["gdpo", "rvpo:k=2"]


def test_weights_tell_a_method_that_has_them(tmp_path: Path):
    write(tmp_path / "mine")
    assert "method unknown" in run("replay", tmp_path / "mine", "--methods", "gdpo", "--weights", "1,1,0.2")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--steps", "three"], "--steps is 'three'; expected FIRST:LAST"),
        (["--rewards", "r0,r0"], "--rewards is 'r0,r0'; expected each column once"),
        (["--weights", "a,b"], "--weights is 'a,b'; expected numbers"),
        (["--method", "best"], "method is 'best'; expected one of rvpo"),
        (["--rewards", "r9"], "has no column 'r9'"),
        (["--json", "/proc/none/x.json"], "cannot be written"),
        (["--json", "-"], "'-' is not the name of a file"),
        (["--html", "-"], "'-' is not the name of a file"),
    ],
)
def test_mistakes_are_told(tmp_path: Path, arguments: list[str], message: str):
    write(tmp_path / "mine", steps=2)
    done = CliRunner().invoke(app, ["diagnose", str(tmp_path / "mine"), *arguments])
    assert isinstance(done.exception, (ConfigError, ValueError))
    assert message in str(done.exception)


def test_an_unclear_verdict_shows_the_command_that_settles_it(tmp_path: Path):
    """The wide reward rules the sum, but not the mean of z-scores."""
    generator, rows = torch.Generator().manual_seed(0), []
    for step in range(40):
        for i in range(32):
            right, wide = torch.rand(2, generator=generator).tolist()
            right, wide = float(right < 0.3), 40 * wide
            row = {"step": step, "prompt": f"{i // 8}", "reward_right": right, "reward_wide": wide}
            rows.append(row | {"reward": right + wide})
    path = tmp_path / "run.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    next_command = f"rvpo diagnose {path} --method grpo"
    assert next_command in run("diagnose", path)
    assert "Next, if the run used GRPO" not in run("diagnose", path, "--method", "grpo")


def test_a_page_of_one_run(tmp_path: Path):
    write(tmp_path / "mine")
    run("report", tmp_path / "mine", "--out", tmp_path / "page.html", "--title", "A title")
    html = (tmp_path / "page.html").read_text()
    data = data_of(html)
    assert data["title"] == "A title"
    assert HOSTILE not in html
    (told,) = data["runs"]
    assert told["diagnosis"]["completions"] == 128
    assert told["replay"]["own"]["method"] == "gdpo"
    assert {rule["method"] for rule in told["replay"]["rules"]} >= {"grpo", "rvpo:k=2", "hard_min", "lift"}
    assert {sample["worst"] for sample in told["samples"]} >= {"r0", "r1", "r2"}
    sample = told["samples"][0]
    assert sample["completion"].startswith(HOSTILE)
    assert sample["prompt"].startswith("prompt ")
    assert [cell["channel"] for cell in sample["cells"] if cell["z"] == min(c["z"] for c in sample["cells"])]
    assert data["comparison"] is None
    assert data["presets"][0]["name"].startswith("Constraint neglect")


def test_a_page_of_two_methods_compares_them(tmp_path: Path):
    for seed in range(3):
        write(tmp_path / f"low-{seed}", seed=seed)
        write(tmp_path / f"high-{seed}", seed=seed, lift=0.3)
    names = ",".join(str(tmp_path / f"low-{seed}") for seed in range(3))
    others = ",".join(str(tmp_path / f"high-{seed}") for seed in range(3))
    run("report", f"low={names}", f"high={others}", "--out", tmp_path / "page.html")
    data = data_of((tmp_path / "page.html").read_text())
    assert len(data["runs"]) == 6
    compared = data["comparison"]
    assert compared["baseline"] == "low"
    assert [run["seed"] for run in compared["groups"]["high"]["runs"]] == [0, 1, 2]
    curve = compared["groups"]["high"]["curves"]["r0"]
    assert len(curve["steps"]) == len(curve["mean"]) == 8
    assert len(compared["table"]["head"]) == len(compared["table"]["rows"][0])


def test_html_of_a_diagnosis(tmp_path: Path):
    write(tmp_path / "mine", steps=2)
    run("diagnose", tmp_path / "mine", "--html", tmp_path / "page.html")
    assert data_of((tmp_path / "page.html").read_text())["runs"][0]["name"] == "mine"


def test_a_large_page_leaves_samples_and_points_out(tmp_path: Path):
    opened = open_run(write(tmp_path / "mine", steps=30))
    whole = build_report([opened])
    small = build_report([opened], limit=len(whole.encode()) - 10_000)
    assert len(small.encode()) <= len(whole.encode()) - 10_000
    assert len(data_of(small)["runs"][0]["samples"]) < len(data_of(whole)["runs"][0]["samples"])
    least = data_of(build_report([opened], limit=1))["runs"][0]
    assert least["samples"] == []
    assert len(least["diagnosis"]["curves"]["steps"]) <= 20
    assert least["diagnosis"]["curves"]["steps"][-1] == 30


def test_samples_are_of_each_worst_channel(tmp_path: Path):
    opened = open_run(write(tmp_path / "mine", steps=20))
    found = samples(opened, 12, 1.0)
    assert len(found) <= 12
    assert {sample["worst"] for sample in found} >= {"r0", "r1", "r2"}
    assert found == samples(opened, 12, 1.0)  # the same at every call
    for sample in found:
        lowest = min((cell["z"] for cell in sample["cells"] if cell["z"] != 0), default=None)  # 0 is dead
        tied = [cell["channel"] for cell in sample["cells"] if lowest is not None and cell["z"] <= lowest + 1e-6]
        assert (sample["worst"] in tied) if tied else sample["worst"] is None


@contextmanager
def serving(page: LivePage) -> Iterator[str]:
    with server(page, "127.0.0.1", 0) as served:
        thread = threading.Thread(target=served.serve_forever, daemon=True)
        thread.start()
        try:
            yield f"http://127.0.0.1:{served.server_address[1]}"
        finally:
            served.shutdown()
            thread.join()


def get(url: str, **headers: str) -> tuple[int, str]:
    try:
        with urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=600) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


def test_a_run_is_watched_while_it_grows(tmp_path: Path):
    made = []

    def make() -> str:
        made.append(None)
        return build_report([open_run(tmp_path / "mine")], live=True)

    with serving(LivePage([tmp_path / "mine"], make)) as url:
        status, text = get(url)
        assert status == 200
        assert "Nothing to show yet" in text
        write(tmp_path / "mine", steps=2)
        first = data_of(get(url)[1])
        assert (first["live"], first["runs"][0]["diagnosis"]["steps"]) == (True, 2)
        count = len(made)
        assert data_of(get(url)[1]) == first
        assert len(made) == count  # nothing new, nothing read
        (tmp_path / "mine" / "completions" / "completions_00003.parquet").write_bytes(b"half a file")
        assert data_of(get(url)[1]) == first  # the last good one
        write(tmp_path / "mine", steps=3)
        assert data_of(get(url)[1])["runs"][0]["diagnosis"]["steps"] == 3


def test_only_this_machine_is_answered(tmp_path: Path):
    with serving(LivePage([tmp_path], lambda: "<p>run</p>")) as url:
        assert get(url)[0] == 200
        assert get(url, Host="localhost:1")[0] == 200
        assert get(url, Host="evil.example")[0] == 403
        assert get(f"{url}/../etc/passwd")[0] == 404


def test_a_port_that_is_taken(tmp_path: Path):
    page = LivePage([tmp_path], lambda: "")
    with server(page, "127.0.0.1", 0) as served, pytest.raises(ConfigError, match="choose another --port"):
        server(page, "127.0.0.1", served.server_address[1])


@pytest.mark.parametrize(
    ("logged", "shown"),
    [
        ('[{"role": "assistant", "content": "Hi."}]', "Hi."),
        (
            '[{"role": "user", "content": "Hi."}, {"role": "assistant", "content": "Yes?"}]',
            "user: Hi.\n\nassistant: Yes?",
        ),
        ('[{"role": "user", "content": [1]}]', '[{"role": "user", "content": [1]}]'),
        ('[{"role": "user"', '[{"role": "user"'),
        ("[{" * 5_000, "[{" * 2_000 + " … (6,000 more characters)"),
        ("plain", "plain"),
    ],
)
def test_chats_are_shown_as_their_messages(tmp_path: Path, logged: str, shown: str):
    table = {"group": [0, 0], "reward_a": [0.0, 1.0], "completion": [logged, logged], "step": [1, 1]}
    pq.write_table(pa.table(table), tmp_path / "run.parquet")
    assert {sample["completion"] for sample in samples(open_run(tmp_path / "run.parquet"), 4, 1.0)} == {shown}


@pytest.fixture(scope="module")
def small_scale(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write a log without advantages, in which one reward has a scale 20 times smaller than the others."""
    generator = torch.Generator().manual_seed(0)
    path = tmp_path_factory.mktemp("logs") / "mine.csv"
    lines = ["step,gid,correct_reward,tone_reward,cite_reward"]
    for step in range(20):
        for row in range(32):
            correct, cite = (torch.rand(2, generator=generator) < 0.5).tolist()
            tone = float(torch.rand(1, generator=generator))
            lines.append(f"{step},{step}-{row // 8},{float(correct)},{tone},{0.05 * cite}")
    path.write_text("\n".join(lines))
    return path


def test_the_first_line_says_what_settles_an_unclear_verdict(small_scale: Path):
    text = " ".join(run("diagnose", small_scale).split())
    assert (
        "1 of 3 channels is unclear: cite_reward. It depends on the method: neglected with grpo; healthy with gdpo."
        in text
    )
    assert "rows with the same 'gid' within a step" in text


def test_the_next_command_repeats_the_options(small_scale: Path):
    given = ["--method", "grpo", "--range", "tone_reward=0:1", "--rewards", "correct_reward,tone_reward,cite_reward"]
    text = run("diagnose", small_scale, *given, "--seed", 1)
    (command,) = [line.strip() for line in text.splitlines() if line.strip().startswith("rvpo report")]
    said = command.split()
    assert said[:2] == ["rvpo", "report"]
    assert sorted(said[3:]) == sorted(given)
    out = small_scale.with_name("page.html")
    run(*said[1:2], small_scale, *said[3:], "--out", out)
    assert data_of(out.read_text())


def test_every_channels_exploration_is_shown_on_demand(small_scale: Path):
    short, long = run("diagnose", small_scale), run("diagnose", small_scale, "--exploration")
    assert "correct_reward: pass@8" not in short
    assert "--exploration" in short
    assert "correct_reward: pass@8" in long
