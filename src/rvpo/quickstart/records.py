"""The record of one run: a JSON file that names the run and contains the rates of its channels over time."""

from __future__ import annotations

import hashlib
import inspect
import json
import re
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rvpo.files import digest, write
from rvpo.quickstart.cells import Cell, Contender, Settings
from rvpo.quickstart.task import FORMAT

if TYPE_CHECKING:
    from rvpo.core import Method


CHANNELS = "channels"  # equals rvpo.logs.schema.FOLDER, whose module needs pyarrow


@dataclass(frozen=True)
class Job:
    """One run: a start, a method and a seed."""

    cell: Cell
    contender: Contender
    seed: int
    settings: Settings

    @property
    def name(self) -> str:
        """A file name, unique among the jobs of one quickstart."""
        method = self.contender.name.lower().replace(" ", "_").replace("=", "")
        if not re.fullmatch(r"[\w.-]+", method):  # such as a path; the digest keeps different names different
            method = re.sub(r"[^\w.-]+", "-", method) + "-" + digest(self.contender.name)[:8]
        return f"{self.cell.name}-{method}-seed{self.seed}"

    def folder(self, runs: Path) -> Path:
        """Folder of the run's own logs in ``runs``, which ``rvpo diagnose`` reads."""
        return runs / self.name

    def fingerprint(self) -> dict[str, Any]:
        """Return everything that the outcome depends on. A finished run is reused only while this is the same."""
        from rvpo.core.methods.registry import build_method

        return {
            "cell": self.cell.name,
            "method": {**asdict(self.contender), "code": _code(build_method(self.contender.method))},
            "seed": self.seed,
            "settings": asdict(self.settings),
            "checkpoint": hashlib.sha256(self.cell.checkpoint.read_bytes()).hexdigest(),
            "versions": {package: _version(package) for package in ("rvpo", "torch", "trl", "transformers")},
        }


@dataclass(frozen=True)
class Record:
    """A finished run. Rates are shares of replies in [0, 1], keyed by channel.

    Attributes:
        start: rates of the warm-started model on the evaluation prompts.
        curve: per channel, the rate among the rollouts of each step.
        end: rates of the trained model on the same evaluation prompts.
        seconds: wall time of the training only, in seconds.
        warnings: warnings of ``rvpo`` during training.
    """

    cell: str
    method: str
    seed: int
    start: dict[str, float]
    curve: dict[str, list[float]]
    end: dict[str, float]
    seconds: float
    warnings: list[str]

    @property
    def format_curve(self) -> list[float]:
        """The rate of the strict format at each step."""
        return self.curve[FORMAT]

    @property
    def worst_curve(self) -> list[float]:
        """The lowest channel rate at each step."""
        return [min(step) for step in zip(*self.curve.values(), strict=True)]

    @property
    def worst_end(self) -> float:
        """The lowest channel rate of the trained model."""
        return min(self.end.values())

    @property
    def format_in_training(self) -> float:
        """Share of all rollouts of the training that met the strict format."""
        return sum(self.format_curve) / len(self.format_curve)


def save_record(job: Job, record: Record, folder: Path) -> None:
    """Write a finished run in one step, so that a killed quickstart leaves a complete file or none."""
    content = {"fingerprint": job.fingerprint(), **asdict(record)}
    write(folder / f"{job.name}.json", json.dumps(content, indent=1))


def load_record(job: Job, folder: Path) -> Record | None:
    """Return the finished run of ``job``; None if it is absent, has no logs, or has other settings."""
    if not (job.folder(folder) / CHANNELS).is_dir():
        return None
    try:
        content = json.loads((folder / f"{job.name}.json").read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError, RecursionError):
        return None
    if not isinstance(content, dict) or content.pop("fingerprint", None) != job.fingerprint():
        return None
    return Record(**content)


def _code(method: Method) -> list[str]:
    """Return digests of the files that define a user's own method, also if it is an option of another method."""
    from rvpo.core import Method

    found = getattr(method, "function", type(method))
    files = []
    if not str(getattr(found, "__module__", "")).startswith("rvpo."):
        try:
            files.append(hashlib.sha256(Path(inspect.getsourcefile(found) or "").read_bytes()).hexdigest())
        except (TypeError, OSError):  # the code has no file, as in a compiled module
            files.append("unknown")
    return files + [code for value in vars(method).values() if isinstance(value, Method) for code in _code(value)]


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:  # imported from a source tree
        return "unknown"
