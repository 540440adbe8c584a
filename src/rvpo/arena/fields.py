"""The fields of the arena: tasks in which rules are trained. A field trains missing runs and reads finished ones.

The regimes and the worlds are folders of scripts: ``run.py --output FOLDER --methods "A B" …`` trains, and ``scores.py
FOLDER`` prints one line of JSON per run. A checkout has them in ``benchmarks/``, an installed package next to this
file. The quickstart is the command ``rvpo quickstart``.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rvpo.errors import ConfigError

RATE = 2e-3  # learning rate of the regimes; the worlds and the quickstart have their own
START_SECONDS = 10.0  # between two looks at the starting policies
FIRST_SEED = 100  # first seed of the regimes: their task was tuned on smaller seeds


@dataclass(frozen=True)
class Run:
    """One training.

    Attributes:
        cell: name of the regime, world or start.
        method: method as text, or name of an oracle.
        rate: learning rate.
        seed: random seed. Methods with the same seed have the same start and the same random numbers.
        auc: lowest of the channels' means over training.
        final: lowest channel at the end.
    """

    cell: str
    method: str
    rate: float
    seed: int
    auc: float
    final: float


@dataclass(frozen=True)
class Scripts:
    """A field of scripts.

    Attributes:
        name: name of the scripts' folder.
        about: one-line description.
        option: option of ``run.py`` that names cells.
        arguments: further arguments of ``run.py``.
        first_seed: the first seed.
        lists_seeds: whether ``run.py`` takes a list of seeds instead of their number.
    """

    name: str
    about: str
    option: str
    arguments: tuple[str, ...] = ()
    first_seed: int = 0
    lists_seeds: bool = False

    @property
    def folder(self) -> Path:
        """Folder of the scripts.

        Raises:
            ConfigError: the scripts are not installed.
        """
        here = Path(__file__).resolve().parent
        for folder in (here / self.name, here.parents[2] / "benchmarks" / self.name):
            if (folder / "run.py").exists():
                return folder
        raise ConfigError(f"the scripts of the field {self.name!r} are not installed; expected them in {here}")

    def train(self, output: Path, methods: Sequence[str], seeds: int, cells: Sequence[str], parallel: int) -> None:
        """Train the runs that are missing in a folder, and print the progress.

        Raises:
            ConfigError: the script failed; its message has been printed.
        """
        numbers = [str(self.first_seed + seed) for seed in range(seeds)] if self.lists_seeds else [str(seeds)]
        command = [str(self.folder / "run.py"), "--output", str(output), "--methods", " ".join(methods)]
        command += ["--parallel", str(parallel), *self.arguments, "--seeds", *numbers]
        command += [self.option, *cells] if cells else []
        number = f"{len(cells)} cell{'' if len(cells) == 1 else 's'}" if cells else "all cells"
        print(f"{self.name}: training {len(methods)} rules in {number}, {seeds} seeds each", flush=True)
        with _counting_starts(output / "warm_starts"):
            _call(command, self.name)

    def cells(self, chosen: Sequence[str]) -> list[str]:
        """Return the names of the chosen cells; all if none is chosen.

        Raises:
            ConfigError: a name is unknown; the script's message has been printed.
        """
        command = [str(self.folder / "run.py"), "--list", *([self.option, *chosen] if chosen else [])]
        return _call(command, self.name, capture=True).splitlines()

    def read(self, output: Path) -> list[Run]:
        """Return the recorded runs of a folder.

        Raises:
            ConfigError: the folder does not contain such runs.
        """
        if not output.exists():
            return []
        command = [sys.executable, str(self.folder / "scores.py"), str(output)]
        done = subprocess.run(command, check=False, capture_output=True, text=True)  # noqa: S603 - our own script
        if done.returncode:
            said = done.stderr.strip().rsplit("\n", 1)[-1]
            raise ConfigError(f"the records in {output} cannot be read ({said}); expected those of `rvpo arena`")
        return [Run(**json.loads(line)) for line in done.stdout.splitlines()]


@dataclass(frozen=True)
class Quickstart:
    """The two starts of ``rvpo quickstart``: a small language model in a real TRL trainer."""

    name: str = "quickstart"
    about: str = "two starts of a small language model, trained by TRL"
    first_seed: int = 0
    folder: Path = Path(__file__).resolve().parents[1] / "quickstart"

    def train(self, output: Path, methods: Sequence[str], seeds: int, cells: Sequence[str], parallel: int) -> None:
        """Train the runs that are missing in a folder, and print the progress. The starts cannot be chosen."""
        command = ["-m", "rvpo", "quickstart", "--out", str(output), "--methods", " ".join(methods)]
        _call([*command, "--seeds", str(seeds), "--processes", str(parallel)], self.name)

    def cells(self, chosen: Sequence[str]) -> list[str]:
        """Return the names of the starts."""
        from rvpo.quickstart.cells import CELLS

        return [cell.name for cell in CELLS]

    def read(self, output: Path) -> list[Run]:
        """Return the recorded runs of a folder."""
        runs = []
        for path in sorted((output / "runs").glob("*.json")):
            content: Mapping[str, Any] = json.loads(path.read_text("utf-8"))
            told = content["fingerprint"]
            means = [sum(curve) / len(curve) for curve in content["curve"].values()]
            method, rate = told["method"]["method"], told["settings"]["learning_rate"]
            final = min(content["end"].values())
            runs.append(Run(content["cell"], method, rate, content["seed"], min(means), final))
        return runs


@contextmanager
def _counting_starts(folder: Path) -> Iterator[None]:
    """Print how many starting policies are in a folder whenever there are more. The scripts make them in silence."""
    ended = threading.Event()

    def watch(shown: int) -> None:
        while not ended.wait(START_SECONDS):
            if (number := count()) > shown:
                shown = number
                print(f"starting policies trained: {number}", flush=True)

    def count() -> int:
        return len(list(folder.glob("*"))) if folder.is_dir() else 0

    watcher = threading.Thread(target=watch, args=[count()], daemon=True)
    watcher.start()
    try:
        yield
    finally:
        ended.set()
        watcher.join()


def _call(command: Sequence[str], name: str, capture: bool = False) -> str:
    """Run a command of ours. Return what it printed if that is captured, otherwise an empty text."""
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    stdout = subprocess.PIPE if capture else None
    done = subprocess.run(  # noqa: S603 - our own script
        [sys.executable, *command], check=False, env=environment, stdout=stdout, text=True
    )
    if done.returncode:
        raise ConfigError(f"the field {name!r} ended with code {done.returncode}; see its message above")
    return done.stdout or ""


FIELDS: Mapping[str, Scripts | Quickstart] = {
    "regimes": Scripts(
        "regimes",
        "28 regimes of a language model of 12,000 weights, whose format conflicts with its content",
        "--cells",
        ("--lrs", str(RATE)),
        FIRST_SEED,
        lists_seeds=True,
    ),
    "worlds": Scripts("worlds", "74 small worlds with exact oracles", "--worlds"),
    "quickstart": Quickstart(),
}
