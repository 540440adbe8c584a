"""``rvpo doctor``: show what is installed and what works."""

from __future__ import annotations

import shutil

import typer


def doctor() -> None:
    """Show what is installed, what works on this machine, and what to install for the rest."""
    from rvpo import extras

    for name in extras.PACKAGES:
        typer.echo(f"{name:<14}{extras.installed(name) or '-'}")
    typer.echo(f"{'GPU':<14}{_gpu()}")
    typer.echo(f"{'code sandbox':<14}{_sandbox()}\n")
    states = [state for engine in extras.ENGINES if (state := engine.state())]
    known = ", ".join(engine.package for engine in extras.ENGINES)
    for state in states or [f"no training engine is installed; expected one of {known}"]:
        typer.echo(f"engine: {state}")
    typer.echo("")
    for capability in extras.CAPABILITIES:
        missing = capability.missing
        state = "works"
        if missing:
            remedy = "in an environment of its own, " if capability.excluded else ""
            state = f"missing {', '.join(missing)}: {remedy}{capability.command}"
        typer.echo(f"{capability.what:<43}{state}")
    for note in extras.conflicts() + extras.no_rollouts() + extras.untested():
        typer.echo(f"note: {note}")


def _gpu() -> str:
    try:
        import torch
    except ImportError:
        return "not known without torch"
    return torch.cuda.get_device_name() if torch.cuda.is_available() else "none"


def _sandbox() -> str:
    """Return whether this machine can run programs that models write: the reward ``code`` and ``rvpo eval code``."""
    from rvpo.errors import ConfigError
    from rvpo.sandbox.open import BUBBLEWRAP, open_sandbox

    if shutil.which("bwrap") is None:
        return "no bubblewrap: apt-get install bubblewrap, or name a Sandbox-Fusion server (http://HOST:8080)"
    try:
        open_sandbox(BUBBLEWRAP)
    except ConfigError as error:
        return str(error)
    return "bubblewrap works"
