"""A server that speaks Sandbox Fusion's ``POST /run_code`` and really runs what it is sent; it can be told to fail."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from typing import Any

from raw_server import RawServer, ok


class FusionServer(RawServer):
    """Runs programs in bare processes.

    Args:
        faults: answers to give before any other, by number of the request: bytes, or None for hanging up.
    """

    def __init__(self, faults: dict[int, bytes | None] | None = None) -> None:
        self.faults = faults or {}
        super().__init__(self._answer)

    def _answer(self, request: dict[str, Any], number: int) -> bytes | None:
        if number in self.faults:
            return self.faults[number]
        began = time.monotonic()
        try:
            done = subprocess.run(
                [sys.executable, "-I", "-c", request["code"]],
                input=request["stdin"], capture_output=True, text=True, timeout=request["run_timeout"], check=False,
            )  # fmt: skip
        except subprocess.TimeoutExpired:
            return ok(response("TimeLimitExceeded", None, "", "", time.monotonic() - began))
        return ok(response("Finished", done.returncode, done.stdout, done.stderr, time.monotonic() - began))


def response(status: str, code: int | None, stdout: str, stderr: str, seconds: float) -> dict[str, Any]:
    """Return an answer as the real server gives it."""
    return {
        "status": "Success" if code == 0 else "Failed",
        "message": "",
        "compile_result": None,
        "run_result": {
            "status": status, "execution_time": seconds, "return_code": code, "stdout": stdout, "stderr": stderr,
        },
        "executor_pod_name": None,
        "files": {},
    }  # fmt: skip


def failed(message: str = "no pod") -> bytes:
    """Return the answer of a server whose sandbox failed."""
    return ok({"status": "SandboxError", "message": message, "run_result": None, "files": {}})


def text(body: str) -> bytes:
    """Return a response with status 200 and some body."""
    data = body.encode()
    return b"HTTP/1.1 200 OK\r\ncontent-length: " + str(len(data)).encode() + b"\r\n\r\n" + data


def status(code: int) -> bytes:
    """Return a response with another status."""
    data = json.dumps({"detail": "x"}).encode()
    return f"HTTP/1.1 {code} X\r\ncontent-length: {len(data)}\r\n\r\n".encode() + data
