"""Open the sandbox that a text describes."""

from __future__ import annotations

import os

from rvpo.errors import ConfigError
from rvpo.sandbox.outcomes import Limits, Sandbox, Test

AUTO, BUBBLEWRAP, PACKAGES, UNSAFE = "auto", "bubblewrap", "bubblewrap:packages", "unsafe-subprocess"
_WAYS = (
    "install bubblewrap on a Linux with user namespaces (apt-get install bubblewrap), use a Sandbox-Fusion server "
    "(http://HOST:8080), or, if programs may do everything that you may do, use 'unsafe-subprocess'"
)


def open_sandbox(spec: str = AUTO, *, workers: int | None = None) -> Sandbox:
    """Return a sandbox that works on this machine.

    Args:
        spec: ``auto`` is bubblewrap if it works; ``bubblewrap``; ``bubblewrap:packages`` is bubblewrap with the
            packages that are installed here, such as numpy; the URL of a server with Sandbox Fusion's ``/run_code``;
            ``unsafe-subprocess`` is a bare process, in which programs can do everything that you can do.
        workers: number of tests at the same time; None is the number of cores that this process may use.

    Raises:
        ConfigError: the sandbox is unknown, or does not work on this machine.
    """
    if not isinstance(spec, str):
        raise ConfigError(f"sandbox is {spec!r}; expected a text: 'auto', 'bubblewrap', a URL or 'unsafe-subprocess'")
    if spec in (AUTO, BUBBLEWRAP, PACKAGES):
        from rvpo.sandbox.bubblewrap import BubblewrapSandbox

        try:
            made = BubblewrapSandbox(workers, packages=spec == PACKAGES)
            _try(made)
        except ConfigError as error:
            raise ConfigError(f"sandbox {spec!r} does not work here: {error}. Next step: {_WAYS}") from None
        return made
    if spec == UNSAFE:
        from rvpo.sandbox.bare import UnsafeSubprocess

        return UnsafeSubprocess(workers)
    if spec.startswith(("http://", "https://")):
        try:
            from rvpo.sandbox.server import ServerSandbox
        except ImportError as error:
            raise ConfigError(
                f"sandbox {spec!r} needs the package {error.name}; expected the extra code: pip install 'rvpo[code]'"
            ) from error
        return ServerSandbox(spec, workers)
    raise ConfigError(
        f"sandbox is {spec!r}; expected 'auto', 'bubblewrap', a URL or 'unsafe-subprocess'. Next step: {_WAYS}"
    )


def _try(sandbox: object) -> None:
    """Run two small tests. The first must pass, and the second must fail.

    Raises:
        ConfigError: one of them ends differently.
    """
    from rvpo.sandbox.pool import PooledSandbox

    assert isinstance(sandbox, PooledSandbox)
    limits = Limits(seconds=10.0, wall_seconds=60.0)
    for program, wanted in ((_GOOD, True), ("def f(x):\n    return x", False)):
        outcome = sandbox.run_one(program, Test("check", "call", "assert f(1) == 2"), limits)
        if outcome.passed is not wanted:
            raise ConfigError(f"a small test ended with {outcome.reason!r} ({outcome.detail}), as user {os.getuid()}")


_GOOD = """
import threading

def f(x):
    found = []
    thread = threading.Thread(target=lambda: found.append(x + 1))
    thread.start()
    thread.join()
    return found[0]
"""
