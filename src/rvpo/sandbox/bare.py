"""``UnsafeSubprocess``: a bare process. Its name is what it is.

Limits on processor time, memory and output hold, and on Linux the filter of system calls (no new processes, no other
programs). Files, network and environment of whoever runs this are open to the program. For machines that are thrown
away afterwards, and for programs that one would run by hand.
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
    """Runs programs in processes that nothing isolates."""

    name = "unsafe-subprocess"

    def __init__(self, workers: int | None = None) -> None:
        """Find the interpreter; nothing is run yet."""
        super().__init__(workers)
        compile_guest()
        self._filtered = sys.platform == "linux" and os.uname().machine in ("x86_64", "aarch64")

    def identity(self) -> dict[str, Any]:
        """Return what decides an outcome."""
        return {"kind": self.name, "python": sys.version.split()[0], "guest": guest_digest()}

    def run_one(self, program: str, test: Test, limits: Limits) -> Outcome:
        """Run one test."""
        command = [sys.executable, "-I", "-S", "-X", "utf8", "-X", "int_max_str_digits=0", str(GUEST / "main.py")]
        return run_test(command, program, test, limits, filtered=self._filtered)
