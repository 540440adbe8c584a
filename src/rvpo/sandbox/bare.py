"""``UnsafeSubprocess``: run programs in a bare process, without isolation.

The limits on CPU time, memory and output hold, and on Linux also the filter of system calls (no new processes, no other
programs). But the program can use the files, the network and the environment of the user. Use it only on machines that
are thrown away afterwards, or for programs that you would run by hand.
"""

from __future__ import annotations

import os
import sys
from typing import Any

from rvpo.sandbox.guest_files import GUEST, compile_guest, guest_digest
from rvpo.sandbox.outcomes import Limits, Outcome, Test
from rvpo.sandbox.pool import PooledSandbox
from rvpo.sandbox.process import run_test


class UnsafeSubprocess(PooledSandbox):
    """Runs programs in processes without isolation."""

    name = "unsafe-subprocess"

    def __init__(self, workers: int | None = None) -> None:
        """Prepare the sandbox, without running anything."""
        super().__init__(workers)
        compile_guest()
        self._filtered = sys.platform == "linux" and os.uname().machine in ("x86_64", "aarch64")

    def identity(self) -> dict[str, Any]:
        """Return everything that decides an outcome, as plain JSON."""
        return {"kind": self.name, "python": sys.version.split()[0], "guest": guest_digest()}

    def run_one(self, program: str, test: Test, limits: Limits) -> Outcome:
        """Run one test."""
        command = [sys.executable, "-I", "-S", "-X", "utf8", "-X", "int_max_str_digits=0", str(GUEST / "main.py")]
        return run_test(command, program, test, limits, filtered=self._filtered)
