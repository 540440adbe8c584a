"""``rvpo doctor``: what is installed and what works."""

from __future__ import annotations

import typer


def doctor() -> None:
    """Report what is installed, what works here, and what to install for what."""
    from rvpo import extras

    for name in extras.PACKAGES:
        typer.echo(f"{name:<14}{extras.installed(name) or '-'}")
    typer.echo(f"{'GPU':<14}{_gpu()}")
    engines = [name for name in ("trl", "verl") if extras.installed(name)]
    typer.echo(f"{'engine':<14}{' and '.join(engines) or 'none'}\n")
    for capability in extras.CAPABILITIES:
        missing = capability.missing
        state = "works"
        if missing:
            remedy = "in an environment of its own, " if capability.excluded else ""
            state = f"missing {', '.join(missing)}: {remedy}{capability.command}"
        typer.echo(f"{capability.what:<43}{state}")
    for note in extras.conflicts() + extras.untested():
        typer.echo(f"note: {note}")


def _gpu() -> str:
    try:
        import torch
    except ImportError:
        return "not known without torch"
    return torch.cuda.get_device_name() if torch.cuda.is_available() else "none"
