"""Programs that want out, want to stay, want to pass, or want another to fail: none may.

    python benchmarks/code/hostile.py [--sandbox bubblewrap] [--only NAME]

Each program is run against two tests while honest programs run beside it. It must not pass, must end within its limits,
must leave no process and no file, must reach no server on this machine, and the honest programs must pass. The table is
also that of tests/sandbox/test_hostile.py, which runs the quick ones.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import socket
import tempfile
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rvpo.sandbox import Limits, Outcome, Test, open_sandbox

LIMITS = Limits(seconds=1.0, wall_seconds=4.0, memory_mb=256, processes=16, file_mb=4, output_kb=64)
WRONG = "def f(x):\n    return -1\n"
ASSERTS = (
    Test("first", "call", "assert f(1) == 2"),
    Test("second", "call", "def check(g):\n    assert g(2) == 3\ncheck(f)"),
)
PRINTED = (Test("first", "stdin", stdin="1\n", expected="2"), Test("second", "stdin", stdin="2\n", expected="3"))
HONEST = ("def f(x):\n    return x + 1\n", "print(int(input()) + 1)\n")
ESCAPE = "/escape/"  # in a program: stands for a folder of this machine, which others may write to
PORT = 54321  # in a program: stands for that of a server on this machine


@dataclass(frozen=True)
class Hostile:
    """One program.

    Attributes:
        kind: what it wants: out, stay, pass, other.
        name: of the attempt.
        program: its text.
        quick: whether it ends at once.
        printed: whether it is run as a script.
    """

    kind: str
    name: str
    program: str
    quick: bool = True
    printed: bool = False


def _def(body: str, before: str = "") -> str:
    lines = "\n".join(f"    {line}" for line in body.splitlines())
    return f"{before}\ndef f(x):\n{lines}\n"


_TRY = "try:\n    {}\nexcept BaseException:\n    pass\n"

CASES = (
    # Processes and time.
    Hostile("stay", "fork bomb", _def("import os\nwhile True:\n    os.fork()")),
    Hostile(
        "stay",
        "fork bomb that swallows errors",
        _def("import os\nwhile True:\n    try:\n        os.fork()\n    except BaseException:\n        pass"),
        quick=False,
    ),
    Hostile("stay", "fork at import", "import os\nos.fork()\n" + WRONG),
    Hostile(
        "stay",
        "daemon",
        _def("import os\nif os.fork() == 0:\n    os.setsid()\n    while True:\n        pass\nreturn -1"),
    ),
    Hostile("stay", "subprocess", _def("import subprocess\nsubprocess.Popen(['/usr/bin/sleep', '1000'])\nreturn 2")),
    Hostile(
        "stay",
        "multiprocessing",
        _def("import multiprocessing as m, time\nm.Process(target=time.sleep, args=(1000,)).start()\nreturn -1"),
    ),
    Hostile(
        "stay", "exec another program", _def("import os\nos.execv('/proc/self/exe', ['python', '-c', 'while 1: pass'])")
    ),
    Hostile(
        "stay",
        "posix_spawn",
        _def("import os, sys\nos.posix_spawn(sys.executable, ['x', '-c', 'while 1: pass'], {})\nreturn -1"),
    ),
    Hostile(
        "stay",
        "clone by hand",
        _def("import ctypes\nlibc = ctypes.CDLL(None)\nwhile libc.syscall(56, 17, 0, 0, 0, 0) != 0:\n    return -1"),
    ),
    Hostile("stay", "vfork by hand", _def("import ctypes\nctypes.CDLL(None).syscall(58)\nreturn -1")),
    Hostile(
        "stay",
        "clone3 by hand",
        _def("import ctypes\nctypes.CDLL(None).syscall(435, ctypes.create_string_buffer(88), 88)\nreturn -1"),
    ),
    Hostile("stay", "busy for ever", _def("while True:\n    pass"), quick=False),
    Hostile("stay", "busy at import", "while True:\n    pass\n", quick=False),
    Hostile("stay", "busy in one big power", _def("return 9 ** 9 ** 9"), quick=False),
    Hostile("stay", "hopeless pattern", _def("import re\nre.match('(a+)+$', 'a' * 64 + 'b')"), quick=False),
    Hostile("stay", "sleeps", _def("import time\ntime.sleep(10**6)"), quick=False),
    Hostile(
        "stay",
        "sleeps, all signals ignored",
        _def(
            "import signal, time\nfor n in range(1, 65):\n    try:\n        signal.signal(n, signal.SIG_IGN)\n    except (OSError, ValueError):\n        pass\nwhile True:\n    time.sleep(100)"
        ),
        quick=False,
    ),
    Hostile(
        "stay",
        "busy, all signals blocked",
        _def("import signal\nsignal.pthread_sigmask(signal.SIG_BLOCK, range(1, 65))\nwhile True:\n    pass"),
        quick=False,
    ),
    Hostile(
        "stay",
        "waits for input",
        _def("import os\nos.read(0, 1)\nos.pause() if hasattr(os, 'pause') else __import__('signal').pause()"),
        quick=False,
    ),
    Hostile(
        "stay",
        "raises its limits",
        _def(
            "import resource\nfor n in range(16):\n    try:\n        resource.setrlimit(n, (-1, -1))\n    except BaseException:\n        pass\nwhile True:\n    pass"
        ),
        quick=False,
    ),
    Hostile(
        "stay",
        "a thread that never ends",
        "import threading, time\nthreading.Thread(target=time.sleep, args=(10**6,)).start()\n" + WRONG,
    ),
    Hostile(
        "stay",
        "thread bomb",
        _def(
            "import threading, time\nthreading.stack_size(32768)\nwhile True:\n    threading.Thread(target=time.sleep, args=(1000,), daemon=True).start()"
        ),
        quick=False,
    ),
    Hostile(
        "stay",
        "a script with a thread that never ends",
        "import threading, time\nthreading.Thread(target=time.sleep, args=(10**6,)).start()\nprint(0)\n",
        quick=False,
        printed=True,
    ),
    Hostile(
        "stay",
        "never ends at exit",
        "import atexit\n@atexit.register\ndef stay():\n    while True:\n        pass\n" + WRONG,
    ),
    Hostile(
        "stay",
        "closes its pipes and goes on",
        _def("import os\nos.closerange(0, 200)\nwhile True:\n    pass"),
        quick=False,
    ),
    # Memory, files, output.
    Hostile("other", "all memory in a list", _def("a = []\nwhile True:\n    a.append(bytearray(1 << 24))")),
    Hostile("other", "all memory at once", _def("return [0] * 10**11")),
    Hostile("other", "a text of gigabytes", _def("return 'x' * (1 << 34)")),
    Hostile("other", "a list in itself", _def("a = []\na.append(a)\nreturn a")),
    Hostile("other", "a list a million deep", _def("a = []\nfor _ in range(10**6):\n    a = [a]\nreturn a")),
    Hostile("other", "endless recursion", _def("return f(x)")),
    Hostile("other", "recursion through C", _def("import sys\nsys.setrecursionlimit(10**9)\nreturn f(x)")),
    Hostile(
        "other",
        "fills the disk",
        _def("with open('/tmp/a', 'wb') as file:\n    while True:\n        file.write(bytes(1 << 20))"),
    ),
    Hostile(
        "other",
        "many files",
        _def(
            "n = 0\nwhile True:\n    with open(f'/tmp/{n}', 'wb') as file:\n        file.write(bytes(1 << 20))\n    n += 1"
        ),
    ),
    Hostile(
        "other",
        "memory that is a file",
        _def(
            "import os\nfds = []\nwhile True:\n    fds.append(os.memfd_create('a'))\n    os.write(fds[-1], bytes(1 << 24))"
        ),
    ),
    Hostile(
        "other",
        "fills shared memory",
        _def("with open('/dev/shm/a', 'wb') as file:\n    while True:\n        file.write(bytes(1 << 20))"),
    ),
    Hostile("other", "all descriptors", _def("import os\na = []\nwhile True:\n    a.append(os.open('/dev/null', 0))")),
    Hostile("other", "endless output", "while True:\n    print('2')\n", printed=True),
    Hostile(
        "other",
        "endless output in one line",
        "import sys\nwhile True:\n    sys.stdout.write('2' * 65536)\n",
        printed=True,
    ),
    Hostile("other", "endless errors", _def("import sys\nwhile True:\n    sys.stderr.write('x' * 65536)"), quick=False),
    Hostile(
        "other", "output by the descriptor", "import os\nwhile True:\n    os.write(1, b'2' * 65536)\n", printed=True
    ),
    # Out: files, network, other processes.
    Hostile("out", "writes outside", _def(f"open('{ESCAPE}a', 'w').write('x')\nreturn 2")),
    Hostile("out", "writes to the root", _def("open('/a', 'w').write('x')\nreturn 2")),
    Hostile("out", "writes into the interpreter", _def("import os\nopen(os.__file__, 'a').write('x')\nreturn 2")),
    Hostile("out", "writes into the guest", _def("open('/guest/peer.py', 'a').write('x')\nreturn 2")),
    Hostile(
        "out",
        "a link out",
        _def(f"import os\nos.symlink('{ESCAPE}', '/tmp/out')\nopen('/tmp/out/a', 'w').write('x')\nreturn 2"),
    ),
    Hostile("out", "reads passwords", _def("open('/etc/shadow').read()\nreturn 2")),
    Hostile(
        "out",
        "reads the home",
        _def(
            "import os\nos.listdir('/root')\nassert any(os.listdir(f'/root/{n}') for n in os.listdir('/root') if n != '.pyenv')\nreturn 2"
        ),
    ),
    Hostile(
        "out",
        "reads the environment",
        _def(
            "import os\nassert any(k not in ('PATH', 'LANG', 'HOME', 'OMP_NUM_THREADS', 'PWD', 'LC_CTYPE') for k in os.environ)\nreturn 2"
        ),
    ),
    Hostile(
        "out",
        "another's processes",
        _def("import os\nassert len([n for n in os.listdir('/proc') if n.isdigit()]) > 2\nreturn 2"),
    ),
    Hostile(
        "out",
        "a server on this machine",
        _def(f"import socket\nsocket.create_connection(('127.0.0.1', {PORT}), 1).send(b'x')\nreturn 2"),
    ),
    Hostile("out", "the net", _def("import socket\nsocket.create_connection(('1.1.1.1', 53), 1)\nreturn 2")),
    Hostile("out", "names of the net", _def("import socket\nsocket.getaddrinfo('example.com', 80)\nreturn 2")),
    Hostile(
        "out",
        "packets of the net",
        _def("import socket\nsocket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto(b'x', ('1.1.1.1', 53))\nreturn 2"),
    ),
    Hostile(
        "out",
        "mounts",
        _def("import ctypes\nassert ctypes.CDLL(None).mount(b'none', b'/tmp', b'tmpfs', 0, 0) == 0\nreturn 2"),
    ),
    Hostile(
        "out",
        "a user space of its own",
        _def("import ctypes\nassert ctypes.CDLL(None).unshare(0x10000000) == 0\nreturn 2"),
    ),
    Hostile("out", "becomes root", _def("import os\nos.setuid(0)\nassert os.getuid() == 0\nreturn 2")),
    Hostile(
        "out",
        "a device",
        _def("import os\nos.mknod('/tmp/disk', 0o60666, os.makedev(8, 0))\nopen('/tmp/disk', 'rb').read(1)\nreturn 2"),
    ),
    Hostile("out", "changes the root", _def("import os\nos.chroot('/tmp')\nreturn 2")),
    Hostile("out", "the terminal", _def("import fcntl, termios\nfcntl.ioctl(0, termios.TIOCSTI, b'x')\nreturn 2")),
    # Signals to the first process, to all, to the group.
    Hostile("other", "kills the parent", _def("import os\nos.kill(os.getppid(), 9)\nreturn -1")),
    Hostile("other", "kills everybody", _def("import os\nos.kill(-1, 9)\nreturn -1")),
    Hostile("other", "kills the group", _def("import os\nos.killpg(0, 15)\nreturn -1")),
    Hostile("other", "stops the parent", _def("import os, signal\nos.kill(os.getppid(), signal.SIGSTOP)\nreturn -1")),
    Hostile("other", "kills itself", _def("import os\nos.kill(os.getpid(), 9)\nreturn -1")),
    Hostile("other", "crashes", _def("import ctypes\nctypes.string_at(0)")),
    Hostile(
        "other",
        "limits the parent",
        _def("import os, resource\nresource.prlimit(os.getppid(), resource.RLIMIT_CPU, (0, 0))\nreturn -1"),
    ),
    Hostile(
        "other",
        "slows the parent",
        _def(
            "import os\nos.setpriority(os.PRIO_PROCESS, os.getppid(), 19)\nos.sched_setaffinity(os.getppid(), [])\nreturn -1"
        ),
    ),
    Hostile(
        "other",
        "leaves a message for the next test",
        _def("import os\nif os.path.exists('/tmp/seen'):\n    return x + 1\nopen('/tmp/seen', 'w').close()\nreturn -1"),
    ),
    # Passing without being right.
    Hostile("pass", "ends well", "import os\nos._exit(0)\n"),
    Hostile("pass", "ends well, politely", "import sys\nsys.exit(0)\n"),
    Hostile("pass", "ends well in the test", _def("import os\nos._exit(0)")),
    Hostile("pass", "ends well in the test, politely", _def("raise SystemExit(0)")),
    Hostile("pass", "ends well at exit", "import atexit, os\natexit.register(os._exit, 0)\n" + WRONG),
    Hostile("pass", "says that it passed", _def("print('passed')\nprint('OK')\nimport os\nos._exit(0)")),
    Hostile(
        "pass",
        "says it on every descriptor",
        _def(
            'import os\nfor fd in range(256):\n    for said in (b\'passed\', b\'{"reason":"passed"}\', b\'\\0\\0\\0\\x13{"reason":"passed"}\'):\n        try:\n            os.write(fd, said)\n        except OSError:\n            pass\nos._exit(0)'
        ),
    ),
    Hostile(
        "pass",
        "answers in the protocol",
        _def(
            'import os\nsaid = b\'{"secret":"","value":2}\'\nos.write(101, len(said).to_bytes(4, \'big\') + said)\nos._exit(0)'
        ),
    ),
    Hostile(
        "pass",
        "asserts are off",
        "import builtins\nbuiltins.__debug__ if True else 0\nimport sys\nsys.flags\nbuiltins.AssertionError = type('A', (BaseException,), {})\n"
        + WRONG,
    ),
    Hostile(
        "pass",
        "equal to everything in builtins",
        "import builtins\nbuiltins.eq = lambda a, b: True\nimport operator\noperator.eq = lambda a, b: True\n" + WRONG,
    ),
    Hostile(
        "pass",
        "its own exec and compile",
        "import builtins\nbuiltins.exec = builtins.compile = lambda *a, **k: None\n" + WRONG,
    ),
    Hostile("pass", "its own check", "def check(g):\n    pass\n" + WRONG),
    Hostile(
        "pass",
        "rewrites int",
        "import ctypes\ntry:\n    ctypes.memmove(id(2) + 24, id(-1) + 24, 8)\nexcept BaseException:\n    pass\n"
        + WRONG,
    ),
    Hostile(
        "pass",
        "looks up the frames",
        _def(
            "import sys\nframe = sys._getframe()\nwhile frame:\n    for name, value in {**frame.f_globals, **frame.f_locals}.items():\n        if isinstance(value, str) and 'assert' in value and 'f(1)' in value:\n            return 2\n        if name == 'secret':\n            return 2\n    frame = frame.f_back\nreturn -1"
        ),
    ),
    Hostile(
        "pass",
        "looks through all objects",
        _def(
            "import gc\nfor found in gc.get_objects():\n    if isinstance(found, dict) and ('secret' in found or 'code' in found and 'prefer' in found):\n        return x + 1\nreturn -1"
        ),
    ),
    Hostile(
        "pass",
        "looks through its memory",
        _def(
            "needle = b'assert f(' + b'1) =' + b'= 2'\nwith open('/proc/self/mem', 'rb') as memory, open('/proc/self/maps') as maps:\n    for line in maps:\n        first, last = (int(n, 16) for n in line.split()[0].split('-'))\n        memory.seek(first)\n        if needle in memory.read(last - first):\n            return x + 1\nreturn -1"
        ),
    ),
    Hostile(
        "pass", "reads the parent's memory", _def("import os\nopen(f'/proc/{os.getppid()}/mem', 'rb')\nreturn x + 1")
    ),
    Hostile(
        "pass",
        "reads the parent's memory by the kernel",
        _def(
            "import ctypes, os\nlibc = ctypes.CDLL(None)\nclass V(ctypes.Structure):\n    _fields_ = [('b', ctypes.c_void_p), ('n', ctypes.c_size_t)]\nto = ctypes.create_string_buffer(16)\nours, theirs = V(ctypes.addressof(to), 16), V(id(f), 16)\nread = libc.syscall(310, os.getppid(), ctypes.byref(ours), 1, ctypes.byref(theirs), 1, 0)\nreturn x + 1 if read > 0 else -1"
        ),
    ),
    Hostile(
        "pass",
        "traces the parent",
        _def("import ctypes, os\nreturn x + 1 if ctypes.CDLL(None).ptrace(16, os.getppid(), 0, 0) == 0 else -1"),
    ),
    Hostile(
        "pass",
        "takes a descriptor of the parent",
        _def(
            "import ctypes, os\nlibc = ctypes.CDLL(None)\nfd = libc.syscall(434, os.getppid(), 0)\nreturn x + 1 if fd >= 0 and libc.syscall(438, fd, 0, 0) >= 0 else -1"
        ),
    ),
    Hostile(
        "pass",
        "reads the test on its input",
        _def("import os\nreturn x + 1 if b'assert' in os.read(0, 1 << 16) else -1"),
    ),
    Hostile(
        "pass",
        "reads the test on every descriptor",
        "import os, select\nseen = b''\nfor fd in range(256):\n    try:\n        if select.select([fd], [], [], 0)[0]:\n            seen += os.read(fd, 1 << 16)\n    except (OSError, ValueError):\n        pass\n"
        + _def("return x + 1 if b'assert' in seen else -1"),
    ),
    Hostile(
        "pass",
        "looks for files with the test",
        _def(
            "import os\nfor folder, _, names in os.walk('/tmp'):\n    for name in names:\n        if 'assert' in open(os.path.join(folder, name)).read():\n            return x + 1\nreturn -1"
        ),
    ),
    Hostile(
        "pass",
        "a hook on every call",
        "import sys\ndef hook(frame, event, arg):\n    if 'g' in frame.f_locals or 'candidate' in frame.f_locals:\n        import os\n        os._exit(0)\n    return hook\nsys.settrace(hook)\nsys.setprofile(hook)\n"
        + WRONG,
    ),
    Hostile(
        "pass",
        "a thread that waits for the end",
        "import threading, os, time\ndef end():\n    time.sleep(0.05)\n    os._exit(0)\nthreading.Thread(target=end, daemon=True).start()\n"
        + _def("import time\ntime.sleep(0.3)\nreturn -1"),
    ),
    Hostile("pass", "a script that says nothing", "import os\nos._exit(0)\n", printed=True),
    Hostile(
        "pass",
        "a script that looks for what is expected",
        "import os\nfound = [os.path.join(d, n) for d, _, names in os.walk('/tmp') for n in names]\nprint([open(n).read() for n in found])\n",
        printed=True,
    ),
    Hostile("pass", "a script that prints all numbers", "print(*range(100), sep='\\n')\n", printed=True),
)


@dataclass(frozen=True)
class Seen:
    """What happened: outcomes of the program and of the honest ones, seconds, and what was left behind."""

    outcomes: list[Outcome]
    honest: list[Outcome]
    seconds: float
    left: list[str]

    @property
    def broken(self) -> list[str]:
        """What should not have happened."""
        broken = [f"outcome {o}" for o in self.outcomes if o.passed is not False]
        broken += [f"an honest program: {o}" for o in self.honest if o.passed is not True]
        return broken + self.left


def attempt(sandbox: Any, case: Hostile, limits: Limits = LIMITS) -> Seen:
    """Run one hostile program with honest ones beside it."""
    with tempfile.TemporaryDirectory() as folder, socket.create_server(("127.0.0.1", 0)) as server:
        Path(folder).chmod(0o777)
        reached: list[str] = []
        threading.Thread(target=_listen, args=(server, reached), daemon=True).start()
        program = case.program.replace(ESCAPE, f"{folder}/").replace(str(PORT), str(server.getsockname()[1]))
        before = children()
        began = time.monotonic()
        outcomes, honest = asyncio.run(_together(sandbox, program, case.printed, limits))
        seconds = time.monotonic() - began
        left = [f"file {path.name}" for path in Path(folder).iterdir()] + reached
        left += [f"process {pid}" for pid in _settled(before)]
        own = max((outcome.seconds for outcome in outcomes), default=0.0)
        if own > limits.wall + 2.0:
            left.append(f"it took {own:.1f} s")
    return Seen(outcomes, honest, seconds, left)


async def _together(sandbox: Any, program: str, printed: bool, limits: Limits) -> tuple[list[Outcome], list[Outcome]]:
    patient = Limits(seconds=30.0, wall_seconds=60.0)  # a busy machine is not what is tested
    runs = [sandbox.run(program, PRINTED if printed else ASSERTS, limits)]
    runs += [sandbox.run(HONEST[0], ASSERTS[:1], patient), sandbox.run(HONEST[1], PRINTED[:1], patient)]
    outcomes, *honest = await asyncio.gather(*runs)
    return outcomes, [outcome for found in honest for outcome in found]


def _listen(server: socket.socket, reached: list[str]) -> None:
    try:
        server.accept()
    except OSError:
        return
    reached.append("the server was reached")


def children() -> set[int]:
    """Return the processes below this one."""
    found: set[int] = set()
    left = [os.getpid()]
    while left:
        for task in Path(f"/proc/{left.pop()}/task").glob("*/children"):
            try:
                own = {int(pid) for pid in task.read_text().split()} - found
            except OSError:
                continue
            found |= own
            left += own
    return found


def _settled(before: set[int]) -> set[int]:
    """Return the processes that are new and stay: the kernel takes a moment to end a namespace."""
    for _ in range(50):
        new = children() - before
        if not new:
            return new
        time.sleep(0.1)
    return new


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sandbox", default="auto")
    parser.add_argument("--only", default="")
    options = parser.parse_args()
    sandbox = open_sandbox(options.sandbox)
    broken = 0
    cases = [case for case in CASES if options.only in case.name]
    for case in cases:
        seen = attempt(sandbox, case)
        broken += bool(seen.broken)
        reasons = ", ".join(outcome.reason for outcome in seen.outcomes)
        print(
            f"{'BROKEN' if seen.broken else 'held':7}{case.kind:6} {case.name}: {reasons}, {seen.seconds:.1f} s",
            flush=True,
        )
        for what in seen.broken:
            print(f"        {what}")
    print(f"{len(cases)} programs, {broken} of them broke something")


if __name__ == "__main__":
    main()
