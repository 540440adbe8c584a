"""Programs under bubblewrap: verdicts, limits, loops, forks; and a dozen hostile ones of the benchmark's table."""

from __future__ import annotations

import asyncio
import importlib.util
import multiprocessing
import os
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

from rvpo.errors import ConfigError, DataError
from rvpo.sandbox import Limits, Outcome, Sandbox, Test, open_sandbox
from rvpo.sandbox.bubblewrap import BubblewrapSandbox
from rvpo.sandbox.layouts import tests_of

LIMITS = Limits(seconds=10.0, wall_seconds=60.0)


def _works() -> bool:
    """Whether bubblewrap itself works here, whatever our sandbox makes of it."""
    command = ["bwrap", "--unshare-user", "--unshare-pid", "--unshare-net", "--ro-bind", "/", "/", "/bin/true"]
    try:
        return subprocess.run(command, capture_output=True, check=False).returncode == 0
    except OSError:
        return False


pytestmark = pytest.mark.skipif(not _works(), reason="bubblewrap does not work here")


def _table() -> Any:
    path = Path(__file__).parents[2] / "benchmarks" / "code" / "hostile.py"
    spec = importlib.util.spec_from_file_location("hostile_programs", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


HOSTILE = _table()
QUICK = (
    "fork bomb", "subprocess", "clone by hand", "thread bomb", "all memory at once", "fills the disk", "endless output",
    "writes outside", "a server on this machine", "kills everybody", "ends well", "ends well in the test",
    "says it on every descriptor", "answers in the protocol", "looks through all objects",
    "reads the test on every descriptor", "its own exec and compile", "leaves a message for the next test",
)  # fmt: skip


@pytest.fixture(scope="module")
def sandbox() -> BubblewrapSandbox:
    return BubblewrapSandbox()


def call(code: str) -> Test:
    return Test("t", "call", code)


def run(sandbox: Sandbox, program: str, *tests: Test, limits: Limits = LIMITS) -> list[Outcome]:
    return asyncio.run(sandbox.run(program, tests, limits))


@pytest.mark.parametrize("name", QUICK)
def test_hostile_programs_are_held(sandbox: BubblewrapSandbox, name: str):
    [case] = [case for case in HOSTILE.CASES if case.name == name]
    assert HOSTILE.attempt(sandbox, case).broken == []


@pytest.mark.parametrize(
    ("name", "program", "passed"),
    [
        ("sum", "def sum(a):\n    return 5", True),
        ("any", "any = isinstance = lambda a: 5", True),  # and the comparison itself does not use them
        ("int", "class Solution:\n    def int(self, a):\n        return 5", True),
        ("divmod", "from math import gcd\ndivmod = lambda a: gcd(5, 10)", True),
        ("sum", "def total(a):\n    return sum(a)", False),
    ],
)
@pytest.mark.parametrize("layout", ["input_output", "livecodebench"])
def test_a_function_with_the_name_of_one_of_pythons_own_is_the_programs(
    sandbox: BubblewrapSandbox, layout: str, name: str, program: str, passed: bool
):
    case = {"input": "[2, 3]", "output": "5", "testtype": "functional"}
    row: dict[str, Any] = {
        "input_output": {"inputs": ["[2, 3]"], "outputs": ["5"], "fn_name": name},
        "public_test_cases": [case],
        "metadata": {"func_name": name},
    }
    [outcome] = run(sandbox, program, *tests_of(row, layout))
    assert outcome.passed is passed, outcome


@pytest.mark.parametrize(
    ("setup", "program", "passed"),
    [
        ("import absent_package\n", "def f(x):\n    return x", None),  # whatever the program is
        ("from absent.package import a\n", "def f(x):\n    return 1 / 0", None),
        ("def f(x: List[int]):\n    ...\n", "from typing import List\ndef f(x: List[int]):\n    return x", True),
        ("from math import inf\ndef f(x: List[int]):\n    ...\n", "def f(x):\n    return min(x, inf)", True),
        ("import math\n", "import absent_package\ndef f(x):\n    return x", False),
    ],
)
def test_a_setup_that_cannot_run_is_not_the_programs_doing(
    sandbox: BubblewrapSandbox, setup: str, program: str, passed: bool | None
):
    [outcome] = run(sandbox, program, Test("t", "call", "assert f(1) == 1", setup=setup))
    assert outcome.passed is passed, outcome


def test_a_program_cannot_say_that_its_setup_failed(sandbox: BubblewrapSandbox):
    said = 'b\'{"reason": "unusable", "raised": "x"}\''
    program = (
        f"import os\nfor fd in range(128):\n    try:\n        os.write(fd, len({said}).to_bytes(4, 'big') + {said})"
    )
    program += "\n    except OSError:\n        pass\nraise ValueError"
    [outcome] = run(sandbox, program, call("assert f(1) == 1"))
    assert outcome.passed is False, outcome


@pytest.mark.parametrize(("lines", "reason"), [(200_000, "passed"), (200_001, "wrong_answer"), (900_000, "output")])
def test_a_program_may_print_what_is_expected_beyond_the_limit(sandbox: BubblewrapSandbox, lines: int, reason: str):
    test = Test("t", "stdin", expected="é23456789\n" * 200_000)  # 2.2 MB, where the limit is 1 MiB
    [outcome] = run(sandbox, f"for _ in range({lines}): print('é23456789')", test)
    assert outcome.reason == reason, outcome


def test_outcomes_depend_on_the_packages_that_programs_may_import(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    folder = tmp_path / "site-packages"
    folder.mkdir()
    monkeypatch.setattr(sys, "path", [*sys.path, str(folder)])
    before = BubblewrapSandbox(packages=True).identity()
    assert BubblewrapSandbox(packages=True).identity() == before
    (folder / "sympy-1.0.dist-info").mkdir()
    after = BubblewrapSandbox(packages=True).identity()
    assert after != before
    (folder / "sympy-1.0.dist-info").rename(folder / "sympy-2.0.dist-info")
    assert BubblewrapSandbox(packages=True).identity() not in (before, after)


def test_the_table_has_many_kinds():
    assert len({case.name for case in HOSTILE.CASES}) == len(HOSTILE.CASES) >= 60


@pytest.mark.parametrize(
    ("program", "code", "reason"),
    [
        ("def f(x):\n    return x + 1", "assert f(1) == 2", "passed"),
        ("def f(x):\n    return x", "assert f(1) == 2, 'not two'", "assert"),
        ("def f(x):\n    return x +", "assert f(1) == 2", "syntax"),
        ("def f(x):\n    return 1 / 0", "assert f(1) == 2", "exception"),
        ("raise ValueError", "assert True", "exception"),
        ("def g(x):\n    return 2", "assert f(1) == 2", "exception"),
        ("def f(x):\n    raise SystemExit(0)", "try:\n    f(1)\nexcept ValueError:\n    pass", "exception"),
        ("import os\ndef f(x):\n    os._exit(0)", "try:\n    f(1)\nexcept:\n    pass", "killed"),
        # What tests use of a program besides its functions' plain values.
        ("class A:\n    def __init__(self, v):\n        self.v = v\n"
         "    def __eq__(self, o):\n        return self.v == o.v",
         "a = A(1)\na.v = 2\nassert a == A(2) and isinstance(a, A) and a.v == 2 and A(1) != A(2)", "passed"),
        ("def f(n):\n    yield from range(n)", "g = f(3)\nassert next(g) == 0 and list(g) == [1, 2]", "passed"),
        ("def f(a):\n    a.append(4)\n    a[0] = 9", "a = [1]\nf(a)\nassert a == [9, 4]", "passed"),
        ("def f(a):\n    return a", "a = [1]\nassert f(a) is a", "passed"),
        ("def f(g, x):\n    return g(g(x))", "assert f(lambda x: x * 2, 3) == 12", "passed"),
        ("from collections import Counter\ndef f(x):\n    return Counter(x)",
         "assert f('aab') == {'a': 2, 'b': 1} and f('a')['z'] == 0 and len(f('ab')) == 2", "passed"),
        ("from collections import namedtuple\nP = namedtuple('P', 'x y')\ndef f():\n    return P(1, 2)",
         "assert f() == (1, 2) and f().y == 2 and f() == P(1, 2)", "passed"),
        ("def f():\n    return {1: (2.5, None), 'a': {3}, b'x': 1j}",
         "r = f()\nassert r == {1: (2.5, None), 'a': {3}, b'x': 1j} and type(r[1]) is tuple", "passed"),
        ("def f():\n    return 10 ** 5000, float('inf'), float('nan')",
         "a, b, c = f()\nassert a == 10 ** 5000 and b > 1e308 and c != c", "passed"),
        ("def f(x):\n    raise KeyError(x)",
         "try:\n    f('a')\nexcept LookupError as e:\n    assert 'a' in str(e)\nelse:\n    assert 0", "passed"),
        ("class Bad(ValueError):\n    pass\ndef f():\n    raise Bad('x')",
         "try:\n    f()\nexcept ValueError:\n    pass", "passed"),
        ("class Bad(Exception):\n    pass\ndef f():\n    raise Bad('x')",
         "try:\n    f()\nexcept Bad:\n    pass", "passed"),
        ("def f():\n    print('hello')",
         "import io, contextlib\no = io.StringIO()\nwith contextlib.redirect_stdout(o):\n    f()\n"
         "assert o.getvalue() == 'hello\\n'", "passed"),
        ("def f(a, kind):\n    return isinstance(a, kind)", "assert f(1, int) and not f(1, str)", "passed"),
        ("def f(a):\n    return sum(a)", "assert f(range(4)) == 6 and f(iter([1, 2])) == 3", "passed"),
        ("import datetime\ndef f(d):\n    return d + datetime.timedelta(1)",
         "from datetime import date\nassert f(date(2020, 1, 1)) == date(2020, 1, 2)", "passed"),
        ("def f(d):\n    return d * 2", "from decimal import Decimal\nassert f(Decimal('1.5')) == 3", "passed"),
        ("def f(d):\n    return d", "from collections import deque\nassert f(deque([1])) == deque([2])", "assert"),
        ("from fractions import Fraction\ndef f():\n    return Fraction(1, 2)",
         "from fractions import Fraction\nassert f() == Fraction(1, 2) and f() == 0.5", "passed"),
        ("def f(node):\n    return node.value + (f(node.next) if node.next else 0)",
         "class Node:\n    def __init__(self, value, next=None):\n        self.value, self.next = value, next\n"
         "assert f(Node(1, Node(2))) == 3", "passed"),
        ("def sum(a, b):\n    return a + b", "assert sum(10, 15) == 25", "passed"),
        ("def abs(x):\n    return 0\ndef f(x):\n    return 7", "assert abs(f(1) - 2) < 1e-6", "assert"),
        ("def f(x):\n    return f", "assert f(1) == 2", "assert"),
        ("import random\nrandom.seed(1)\ndef f(x):\n    return x", "assert f('\\ud800') == '\\ud800'", "passed"),
    ],
)  # fmt: skip
def test_verdicts_on_calls(sandbox: BubblewrapSandbox, program: str, code: str, reason: str):
    [outcome] = run(sandbox, program, call(code))
    assert outcome.reason == reason, outcome
    assert outcome.passed is (reason == "passed")


@pytest.mark.parametrize(
    ("program", "reason"),
    [
        ("print(int(input()) + 1)", "passed"),
        ("import sys\nprint(sum(map(int, sys.stdin.read().split())) + 1)", "passed"),
        ("import sys\nsys.stdout.write(str(int(sys.stdin.readline()) + 1))", "passed"),
        ("import threading\ndef main():\n    print(int(input()) + 1)\nthreading.stack_size(1 << 26)\n"
         "threading.Thread(target=main).start()", "passed"),
        ("if __name__ == '__main__':\n    print(2)\n    exit()", "passed"),
        ("print(3)", "wrong_answer"),
        ("print(2)\n1 / 0", "exception"),
        ("print(2", "syntax"),
        ("a = [0] * 10 ** 12", "memory"),
    ],
)  # fmt: skip
def test_verdicts_on_scripts(sandbox: BubblewrapSandbox, program: str, reason: str):
    [outcome] = run(sandbox, program, Test("t", "stdin", stdin="1\n", expected="2\n"))
    assert outcome.reason == reason, outcome


def test_tests_are_processes_of_their_own(sandbox: BubblewrapSandbox):
    program = "seen = []\ndef f(x):\n    seen.append(x)\n    if x == 2:\n        raise SystemExit\n    return len(seen)"
    outcomes = run(sandbox, program, *(call(f"assert f({x}) == 1") for x in (1, 2, 3)))
    assert [outcome.passed for outcome in outcomes] == [True, False, True]


def test_a_test_that_needs_an_absent_package_is_missing(sandbox: BubblewrapSandbox):
    [outcome] = run(sandbox, "def f(x):\n    return x", call("import no_such_package\nassert f(1) == 1"))
    assert (outcome.passed, outcome.reason) == (None, "sandbox")
    assert "no_such_package" in outcome.detail


def test_a_test_that_is_not_python_is_refused(sandbox: BubblewrapSandbox):
    for code in ("assert f(1) ==", "(" * 10_000, "assert '\0'"):
        with pytest.raises(DataError, match="expected code"):
            run(sandbox, "def f(x):\n    return x", call(code))


def test_several_loops_and_threads_share_a_sandbox(sandbox: BubblewrapSandbox):
    found: list[bool | None] = []

    def ask() -> None:
        found.extend(o.passed for o in run(sandbox, "def f(x):\n    return x + 1", call("assert f(1) == 2")))

    threads = [threading.Thread(target=ask) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    ask()
    assert found == [True] * 4


def _in_child(sandbox: BubblewrapSandbox, queue: Any) -> None:
    queue.put([o.passed for o in run(sandbox, "def f(x):\n    return x + 1", call("assert f(1) == 2"))])


def test_a_forked_process_has_a_pool_of_its_own(sandbox: BubblewrapSandbox):
    run(sandbox, "x = 1", call("assert x == 1"))  # the parent's pool has started
    context = multiprocessing.get_context("fork")
    queue = context.Queue()
    child = context.Process(target=_in_child, args=(sandbox, queue))
    child.start()
    assert queue.get(timeout=120) == [True]
    child.join(60)
    assert child.exitcode == 0


def test_without_bubblewrap_there_is_a_next_step(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("PATH", "/nowhere")
    for spec in ("auto", "bubblewrap"):
        with pytest.raises(ConfigError, match=r"bwrap is not installed.*Sandbox-Fusion.*unsafe-subprocess"):
            open_sandbox(spec)


@pytest.mark.parametrize("spec", ["", "docker", "ftp://x", "http://", None, 3])
def test_another_sandbox_is_refused(spec: Any):
    with pytest.raises(ConfigError, match="sandbox is"):
        open_sandbox(spec)


@pytest.mark.parametrize(
    ("name", "value"), [("seconds", 0), ("seconds", True), ("memory_mb", 1.5), ("processes", 0), ("output_kb", "1")]
)
def test_limits_that_cannot_work(name: str, value: Any):
    with pytest.raises(ConfigError, match=f"limit {name} is"):
        Limits(**{name: value})


def test_a_sandbox_that_cannot_start_is_missing_not_failed(sandbox: BubblewrapSandbox, monkeypatch: pytest.MonkeyPatch):
    for command in (["/bin/false"], ["/no/such/file"], ["/bin/echo", "hello"]):
        monkeypatch.setattr(sandbox, "command", lambda limits, command=command: command)
        [outcome] = run(sandbox, "def f(x):\n    return x", call("assert f(1) == 2"))
        assert (outcome.passed, outcome.reason) == (None, "sandbox"), command


@pytest.mark.skipif(os.name != "posix", reason="POSIX")
def test_the_bare_process_gives_the_same_verdicts():
    bare = open_sandbox("unsafe-subprocess")
    tests = [call("assert f(1) == 2"), call("assert f(2) == 2")]
    assert [o.passed for o in run(bare, "def f(x):\n    return x + 1", *tests)] == [True, False]
