"""Runs of trackers by name: read where they hold rollouts, else refused with what to do."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from rvpo.errors import ConfigError, DataError, MissingExtraError
from rvpo.logs.open import open_run


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("wandb:entity/project", "expected wandb:ENTITY/PROJECT/RUN"),
        ("trackio:nothing", "does not exist; expected trackio:PROJECT"),
        ("trackio:../../etc/passwd", "does not exist; expected trackio:PROJECT"),
    ],
)
def test_runs_of_trackers_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, message: str) -> None:
    monkeypatch.setenv("TRACKIO_DIR", str(tmp_path))
    with pytest.raises(ConfigError, match=message):
        open_run(name)


class Imitation:
    """The calls of wandb's client that are used, on files of this machine; the real one needs a server."""

    def __init__(self, files: dict[str, str]) -> None:
        self._files = files
        self.summary = {"train/rewards/a/mean": 0.5, "train/frac_reward_zero_std": 0.0}

    def Api(self) -> Imitation:  # noqa: N802 - its name there
        return self

    def run(self, name: str) -> Imitation:
        if name != "me/project/abc":
            raise ValueError(f"no run {name}")
        return self

    def files(self) -> list[Imitation.File]:
        return [Imitation.File(name, content) for name, content in self._files.items()]

    class File:
        def __init__(self, name: str, content: str) -> None:
            self.name, self._content = name, content

        def download(self, root: str, replace: bool) -> None:
            path = Path(root) / self.name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(self._content)


def test_tables_of_a_run_of_wandb(monkeypatch: pytest.MonkeyPatch) -> None:
    names = ["prompt", "completion", "correct", "short", "advantage"]
    data = [[f"p{i // 4}", f"c{i}", i % 2, i % 3, i % 4 - 1.5] for i in range(8)]
    tables = {
        f"media/table/completions_{step}_0123456789ab.table.json": json.dumps({"columns": names, "data": data})
        for step in (10, 2)
    }
    monkeypatch.setitem(sys.modules, "wandb", Imitation({"config.yaml": "", **tables}))
    run = open_run("wandb:me/project/abc")
    assert run.steps == (2, 10)
    assert [len(batch.rewards) for batch in run.batches()] == [8, 8]
    with pytest.raises(ConfigError, match=r"cannot be read .*no run me/project/other"):
        open_run("wandb:me/project/other")
    monkeypatch.setitem(sys.modules, "wandb", Imitation({"config.yaml": ""}))
    with pytest.raises(DataError, match=r"has no tables, only metrics.*TRL: log_completions=True"):
        open_run("wandb:me/project/abc")
    monkeypatch.setitem(sys.modules, "wandb", Imitation({"../../outside.table.json": "{}"}))
    with pytest.raises(ConfigError, match="is outside of the run"):
        open_run("wandb:me/project/abc")
    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(MissingExtraError, match="pip install wandb"):
        open_run("wandb:me/project/abc")
