"""``BubblewrapSandbox``: run each test in its own container, made by bubblewrap (the program ``bwrap``).

The program sees Python's standard library and the C library, read-only, and an empty folder in memory. It sees no
network, no other process, no environment, and only harmless devices. The whole container is ended at its limits, and
when the process that started it ends. System calls are filtered (:mod:`rvpo.sandbox.guest.kernel`).
"""

from __future__ import annotations

import hashlib
import os
import shutil
import sys
import sysconfig
from pathlib import Path
from typing import Any

from rvpo.errors import ConfigError
from rvpo.sandbox.guest_files import GUEST, compile_guest, guest_digest
from rvpo.sandbox.outcomes import Limits, Outcome, Test
from rvpo.sandbox.pool import PooledSandbox
from rvpo.sandbox.process import run_test

_ETC = ("/etc/ld.so.cache", "/etc/ld.so.conf", "/etc/ld.so.conf.d", "/etc/localtime")
_SYSTEM = ("/usr", "/lib", "/lib64", "/lib32", "/bin", "/sbin")
_LIBRARIES = ("/usr/lib", "/usr/lib64", "/usr/lib32", "/lib", "/lib64", "/lib32")


class BubblewrapSandbox(PooledSandbox):
    """Runs programs under bubblewrap.

    Args:
        workers: number of tests at the same time; None is the number of cores that this process may use.
        packages: whether programs and tests may import the packages of the present interpreter, such as numpy.
            Otherwise they can import only Python's standard library.

    Raises:
        ConfigError: ``bwrap`` is not installed, or the filter does not support this machine.
    """

    name = "bubblewrap"

    def __init__(self, workers: int | None = None, *, packages: bool = False) -> None:
        """Find the programs, without running anything."""
        super().__init__(workers)
        bwrap = shutil.which("bwrap")
        if bwrap is None:
            raise ConfigError("bwrap is not installed; expected it on the PATH: apt-get install bubblewrap")
        if os.uname().machine not in ("x86_64", "aarch64"):
            raise ConfigError(
                f"this machine is {os.uname().machine}; expected x86_64 or aarch64, which the filter of system calls "
                "supports. Use a Sandbox-Fusion server"
            )
        compile_guest()
        self._bwrap = bwrap
        self._paths = _package_folders() if packages else []
        self._python = Path(os.path.realpath(getattr(sys, "_base_executable", None) or sys.executable))

    def identity(self) -> dict[str, Any]:
        """Return everything that decides an outcome, as plain JSON."""
        decisive = {"kind": self.name, "python": sys.version.split()[0], "guest": guest_digest()}
        return decisive | ({"packages": _installed(self._paths)} if self._paths else {})

    def run_one(self, program: str, test: Test, limits: Limits) -> Outcome:
        """Run one test."""
        return run_test(self.command(limits), program, test, limits, filtered=True, paths=self._paths)

    def command(self, limits: Limits) -> list[str]:
        """Return the command that starts a sandbox."""
        return [
            self._bwrap,
            *("--unshare-user", "--unshare-pid", "--unshare-net", "--unshare-ipc", "--unshare-uts"),
            "--unshare-cgroup-try",
            *("--uid", "65534", "--gid", "65534", "--hostname", "sandbox"),
            *("--die-with-parent", "--new-session", "--as-pid-1", "--cap-drop", "ALL", "--clearenv"),
            *("--setenv", "PATH", "/usr/bin", "--setenv", "LANG", "C.UTF-8", "--setenv", "HOME", "/tmp"),  # noqa: S108
            *("--setenv", "OMP_NUM_THREADS", "1"),
            *self._mounts(),
            *("--dev", "/dev", "--remount-ro", "/dev"),
            *("--size", str(limits.file_mb << 20), "--tmpfs", "/tmp", "--chdir", "/tmp"),  # noqa: S108 - its own
            *("--remount-ro", "/"),
            *("--", str(self._python), "-I", "-S", "-X", "utf8", "-X", "int_max_str_digits=0", "/guest/main.py"),
        ]

    def _mounts(self) -> list[str]:
        """Return the options for the visible parts of this machine: the interpreter, its library, the C library."""
        mounts: list[str] = []
        seen: set[str] = set()

        def show(path: str) -> None:
            if path in seen or any(path.startswith(f"{other}/") for other in seen):
                return
            if Path(path).is_symlink() and path in _SYSTEM:
                mounts.extend(("--symlink", str(Path(path).readlink()), path))
            elif Path(path).exists():
                mounts.extend(("--ro-bind", path, path))
            else:
                return
            seen.add(path)

        for path in _LIBRARIES:
            show(path)
        for path in _ETC:
            show(path)
        base = Path(sys.base_prefix).resolve()
        for key in ("stdlib", "platstdlib"):
            show(os.path.realpath(sysconfig.get_path(key, vars={"base": str(base), "platbase": str(base)})))
        for library in sorted((base / "lib").glob("lib*.so*")):  # libpython, and conda's C libraries
            show(str(library))
        show(str(self._python))
        for path in self._paths:
            show(path)
        return [*mounts, "--ro-bind", str(GUEST), "/guest"]


def _installed(folders: list[str]) -> str:
    """Return a digest of the packages in some folders. It changes when a package is installed."""
    names = {path.name for folder in folders for path in Path(folder).glob("*.dist-info")}
    return hashlib.sha256("\n".join(sorted(names)).encode()).hexdigest()[:16]


def _package_folders() -> list[str]:
    """Return the folders from which this interpreter imports installed packages."""
    return [path for path in sys.path if Path(path).name in ("site-packages", "dist-packages") and Path(path).is_dir()]
