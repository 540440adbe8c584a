"""What an install of each extra weighs: fresh environments, the wheel of this checkout, no constraints file.

    python benchmarks/installs.py --pythons python3.11 python3.13 --torch 2.13.0

Per extra and Python: an empty environment, ``pip install WHEEL[EXTRA]``, then a command that needs what the extra brings.
Megabytes are those of the environment without pip itself. ``--torch`` is installed first where an extra needs it, as
docs/install.md says for machines without a GPU, and has a column of its own. Seconds depend on the network and on pip's
cache.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from rvpo.text.tables import markdown

ROOT = Path(__file__).resolve().parents[1]
SHOWN = {
    "": "rvpo --help",
    "report": "rvpo demo --out RUN && rvpo diagnose RUN && python -c 'import torch' 2>&1 | grep -q ModuleNotFound",
    "torch": 'python -c \'import rvpo; rvpo.Aggregator("lift", ["a", "b"])\'',
    "report,torch": 'rvpo demo --out RUN && rvpo replay RUN --methods "gdpo lift"',
    "judge": "rvpo judge --help && python -c 'import rvpo.judges.endpoint'",
    "math": "python -c 'import math_verify, rvpo.rewards.math'",
    "code": "python -c 'import rvpo.rewards.code'",
    "pictures": "python -c 'import PIL'",
    "eval": "rvpo eval --help && python -c 'import inspect_evals'",
    "trl": "python -c 'from rvpo.trl import RVPOConfig, RVPOTrainer'",
}
"""A command per extra that fails if the extra is incomplete."""
WITH_TORCH = ("torch", "report,torch", "eval", "trl")


def shell(command: str, folder: Path) -> None:
    """Run a command with the programs of the environment ``folder``/env first.

    Raises:
        RuntimeError: it failed; with the end of what it printed.
    """
    found = f"export PATH={folder}/env/bin:$PATH HF_HUB_OFFLINE=1; cd {folder}; {command}"
    done = subprocess.run(["bash", "-c", found], check=False, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"{command}: {(done.stdout + done.stderr)[-1500:]}")


def megabytes(folder: Path) -> float:
    """Return the size of the files of an environment that pip installed."""
    return sum(path.lstat().st_size for path in folder.rglob("*") if not path.is_dir()) / 1e6


def measured(python: str, extra: str, wheel: Path, torch: str) -> list[str]:
    """Return a row of the table."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        subprocess.run([python, "-m", "venv", folder / "env"], check=True)
        empty = megabytes(folder / "env")
        with_torch = 0.0
        if extra in WITH_TORCH and torch:
            shell(f"pip install -q torch=={torch}", folder)
            with_torch = megabytes(folder / "env") - empty
        start = time.perf_counter()
        shell(f"pip install -q '{wheel}{f'[{extra}]' if extra else ''}'", folder)
        seconds = time.perf_counter() - start
        size = megabytes(folder / "env") - empty - with_torch
        shell(SHOWN[extra], folder)
    return [
        extra or "(none)",
        Path(python).name,
        f"{size:.0f}",
        f"{with_torch:.0f}" if with_torch else "",
        f"{seconds:.0f}",
        f"`{SHOWN[extra]}`",
    ]


def main() -> None:
    """Print a table in Markdown."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pythons", nargs="+", default=[sys.executable])
    parser.add_argument("--extras", nargs="+", default=list(SHOWN), choices=list(SHOWN), metavar="EXTRA")
    parser.add_argument("--torch", default="", help="version of torch to install first; default: what pip chooses")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        command = [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "-w", name, str(ROOT)]
        subprocess.run(command, check=True)
        wheel = next(Path(name).glob("*.whl"))
        print(f"the wheel: {wheel.name.partition('-')[0]}, {wheel.stat().st_size / 1e6:.1f} MB", flush=True)
        rows = []
        for python in args.pythons:
            for extra in args.extras:
                try:
                    rows.append(measured(python, extra, wheel, args.torch))
                except (RuntimeError, subprocess.CalledProcessError) as error:
                    rows.append([extra or "(none)", Path(python).name, "failed", "", "", ""])
                    print(error, file=sys.stderr)
                print(*rows[-1], sep=" | ", flush=True)
    head = ["extra", "Python", "MB", "torch, MB", "seconds", "then runs"]
    print("\n".join(markdown([head, *rows])))


if __name__ == "__main__":
    main()
