"""The files that run inside a sandbox."""

from __future__ import annotations

import hashlib
import py_compile
from contextlib import suppress
from functools import lru_cache
from pathlib import Path

GUEST = Path(__file__).resolve().parent / "guest"


@lru_cache(maxsize=1)
def guest_digest() -> str:
    """Return a digest of the files that run inside, so that outcomes of different versions are not mixed."""
    files = sorted(GUEST.glob("*.py"))
    return hashlib.sha256(b"\0".join(path.read_bytes() for path in files)).hexdigest()[:16]


@lru_cache(maxsize=1)
def compile_guest() -> None:
    """Store the compiled form of the files next to them, if the folder is writable. Each start reads it."""
    for path in GUEST.glob("*.py"):
        with suppress(OSError):
            py_compile.compile(str(path), quiet=2)
