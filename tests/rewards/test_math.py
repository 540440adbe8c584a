r"""The maths reward through the real Math-Verify: worked pairs, every form of reply and reference, hostile answers."""

from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from rvpo.errors import ConfigError, DataError, RewardError
from rvpo.rewards import math as module
from rvpo.rewards.math import math_reward
from rvpo.rewards.math_answers import boxed_answer
from rvpo.rewards.math_worker import as_meant


def boxed(answer: str) -> str:
    return f"We find \\boxed{{{answer}}}."


def worker() -> int:
    """The process id of the worker."""
    assert module._WORKER._process is not None
    return module._WORKER._process.pid


@pytest.fixture
def fresh(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A worker of this test's own, with a tighter limit; no remembered verdicts."""
    monkeypatch.setattr(module, "_WORKER", module._Worker())
    monkeypatch.setattr(module, "CPU_SECONDS", 0.8)
    module._equal.cache_clear()
    yield
    if module._WORKER._process is not None:
        module._end(module._WORKER._process)
    module._equal.cache_clear()


EQUAL = [
    ("\\frac{1}{2}", "0.5"),
    ("\\frac{1}{2}", "\\dfrac12"),
    ("x^2+2x+1", "(x+1)^2"),
    ("2\\sqrt{3}", "\\sqrt{12}"),
    ("1,080", "1080"),
    ("50\\%", "0.5"),
    ("5\\text{ cm}", "5"),
    ("x=5", "5"),
    ("(1,2]", "(1, 2]"),
    ("\\{1,2\\}", "\\left\\{2, 1\\right\\}"),
    ("\\text{Monday}", "Monday"),
    ("42", "42."),
    ("\\frac{1}{2}", "\\frac{1}{2}."),
    ("(1,2)", "(1., 2.)"),
    ("e^2", "\\mathrm{e}^2"),
    ("e^2", "{\\rm e}^{2}"),
    ("2i", "2\\mathrm{i}"),
    ("e^{i\\pi}", "\\operatorname{e}^{\\mathrm{i}\\pi}"),
    ("2\\pi r", "2\\mathrm{\\pi}r"),
    ("1234567", "1\\,234\\,567"),
    ("1234567", "1{,}234{,}567"),
    ("1234567.891", "1 234 567.891"),
    ("3.14159265", "3.141\\,592\\,65"),
    ("\\frac{1}{70}", "0.014286"),  # rounded to five digits
    ("\\frac{1}{700}", "0.001429"),  # to six decimals
    ("3 \\times 10^{-8}", "0.00000003"),
    ("9", "9\\%"),
    ("\\sqrt{2}\\cdot\\sqrt{2}-2", "0"),
    # Characters that LaTeX writes with a command, in the reply and in the reference.
    ("90", "90°"),
    ("90°", "90^\\circ"),
    ("30 ^ { \\circ }", "30"),
    ("\\frac{1}{2}", "½"),
    ("2½", "2.5"),
    ("2√3", "2\\sqrt{3}"),
    ("\\frac{\\sqrt{3}}{2}", "(√3)/2"),
    ("∛8", "2"),
    ("x^2", "x²"),
    ("10⁻³", "0.001"),
    ("x_1", "x₁"),
    ("-5", "–5"),
    ("5", "５"),
    ("3.5", "٣٫٥"),
    ("12", "१२"),
    ("(1,2)", "（1，2）"),
    ("5％", "5\\%"),
    ("5", "€5"),
    ("15", "3·5"),
    ("x \\ge -\\infty", "x≥-∞"),
    ("[1,2]", "x∈[1,2]"),
    ("\\emptyset", "\\varnothing"),
    ("\\{1,2\\}", "\\lbrace 1,2 \\rbrace"),
    ("\\mathbb{R}", "\\mathbb R"),
    # Numbers as people and programs write them.
    ("2 1/2", "2.5"),
    ("2.5", "2\\ 1/2"),
    ("-2 1/2", "-2.5"),
    ("100000", "1e5"),
    ("1.5e-3", "0.0015"),
    ("0.0000001", "1e-7"),
    ("0.00001", "1E-5"),
    ("2e-3", "2e - 3"),  # twice Euler's number less three
    ("1000000", "1_000_000"),
    ("0.5\\%", "0.5\\,\\%"),
    ("1010_2", "1010_{2}"),
    ("1010_2", "1010"),
]
SMALL = [
    ("0.0000001", "0.0000002"),
    ("6.6 \\times 10^{-34}", "1.6 \\times 10^{-19}"),
    ("\\frac{1}{2^{99}}", "\\frac{1}{2^{98}}"),
    ("e^{-50}", "e^{-49}"),
    ("0.0000123", "0.0000124"),
    ("\\frac{1}{10!}", "\\frac{1}{11!}"),
    ("0.00000004", "0"),
    ("0.0000001\\%", "0.0000002\\%"),
    ("\\{0.0000001\\}", "\\{0.0000002\\}"),
    ("[0.0000001,1]", "[0.0000002,1]"),
    ("\\begin{pmatrix}0.0000001&1\\end{pmatrix}", "\\begin{pmatrix}0.0000002&1\\end{pmatrix}"),
    ("0.0000001", "-0.0000001"),
]
DIFFERENT = [("\\frac{1}{2}", "0.51"), ("(1,2]", "[1,2]"), ("A", "B"), ("\\pi", "3.14159"), ("x^2", "x^3"), ("2", "-2")]
DIFFERENT += [
    ("1010_2", "1010_3"),
    ("12_{8}", "12_{9}"),
    ("1", "1_000"),
    ("3/2", "2 1/2"),
    ("x_1", "x_2"),
    ("21/2", "2½"),
]


@pytest.mark.parametrize(("wanted", "given", "reward"), [(*p, 1.0) for p in EQUAL] + [(*p, 0.0) for p in DIFFERENT])
def test_answers_are_compared_as_mathematics(wanted: str, given: str, reward: float) -> None:
    assert math_reward(boxed(given), wanted) == reward


@pytest.mark.parametrize(("one", "other"), SMALL)
def test_different_small_numbers_are_different(one: str, other: str) -> None:
    assert math_reward([boxed(other), boxed(one)] * 2, [one, other, other, one]) == [0.0, 0.0, 1.0, 1.0]


@pytest.mark.parametrize(
    "answer",
    ["\\left. x \\right.", "1, 2, ...", "0.5", "(1,234)", "\\mathrm{ei}", "1.234", "12\\,34", "5\\,m"],
)
def test_what_is_no_matter_of_looks_stays(answer: str) -> None:
    assert as_meant(answer) == answer


@pytest.mark.parametrize(
    ("reply", "reward"),
    [
        ("\\boxed{4}, no: \\boxed{5}", 1.0),
        ("\\boxed{5}, no: \\boxed{4}", 0.0),
        ("so \\boxed{ 5 } it is", 1.0),
        ("\\boxed{\\boxed{5}}", 1.0),
        ("The answer is 5.", 0.0),
        ("", 0.0),
        ("\\boxed{}", 0.0),
        ("\\boxed{5}. As asked, it stands in \\boxed{}.", 1.0),
        ("\\boxed{5} and \\boxed{ } and \\boxed{\n}", 1.0),
        ("\\boxed{5", 0.0),
        ("\\boxed{5}, no: \\boxed{", 0.0),  # cut off while it corrected itself
    ],
)
def test_the_last_box_of_a_reply_counts(reply: str, reward: float) -> None:
    assert math_reward(reply, "5") == reward


@pytest.mark.parametrize(
    ("reply", "reward"),
    [
        ("$\\boxed{2}$ or $\\boxed{3}$", 1.0),
        ("\\boxed{3}, \\boxed{2}", 1.0),
        ("\\boxed{2, 3}", 1.0),
        ("\\boxed{3}", 0.0),
        ("\\boxed{2}, \\boxed{3}, \\boxed{4}", 0.0),
        ("first \\boxed{7}, then \\boxed{2} and \\boxed{3}", 1.0),
    ],
)
def test_boxes_next_to_each_other_are_one_answer(reply: str, reward: float) -> None:
    """As in `rvpo eval math`: what is trained is what is measured."""
    assert math_reward(reply, "2, 3") == reward


def test_a_printed_brace_does_not_close_the_box() -> None:
    r"""\{ needs no partner: the box below ends after \right. only, and a \\ before a brace escapes nothing."""
    assert boxed_answer(r"\boxed{\left\{ x \right.} and }") == r"\left\{ x \right."
    assert boxed_answer(r"\boxed{a \\} and }") == r"a \\"


@pytest.mark.parametrize(
    "reference",
    [
        "18",
        "$18$",
        "\\[18\\]",
        " 18\n",
        "1.8e+1",
        '["18"]',
        "9 + 9\n#### 18\nThe answer is: 18",
        "Add. The answer is 18.",
        "9 + 9 = 18, not 17\n#### 18",
        "17 is wrong. Thus $\\boxed{18}$, as 2 \\cdot 9 = 18.",
    ],
)
def test_every_form_of_a_reference(reference: str) -> None:
    assert math_reward([boxed("18"), boxed("17")], [reference] * 2) == [1.0, 0.0]


@pytest.mark.parametrize(
    "reference",
    ["", "???", "\\frac{", "####", "\\boxed{}", "\\boxed{5", "so \\boxed 5", "9" * 1001, "nan", "N/A", "null"],
)
def test_a_reference_that_cannot_be_read_is_missing(reference: str) -> None:
    """None, not 0, for this row alone, whatever the reply."""
    replies = [boxed("5"), boxed(reference), "nothing"]
    assert math_reward([*replies, boxed("5")], [reference] * 3 + ["5"]) == [None, None, None, 1.0]


def test_chats_and_batches() -> None:
    chat = [{"role": "assistant", "content": boxed("5")}]
    parts = [{"role": "assistant", "content": [{"type": "text", "text": boxed("5")}]}]
    silent: list[dict[str, Any]] = [{"role": "assistant", "content": None}]
    assert math_reward([chat, parts, silent, []], ["5"] * 4, prompts=["?"] * 4, trainer_state=None) == [
        1.0,
        1.0,
        0.0,
        0.0,
    ]
    assert math_reward([], []) == []


@pytest.mark.parametrize(
    ("completions", "answer", "message"),
    [
        (["5"], ["5", "5"], "1 completions but 2 answers"),
        ("5", ["5"], "completions is str and answer list"),
        ([boxed("5")], [5], r"answer\[0\] is int; pass a reference as a string"),
        ([None], ["5"], r"completions\[0\] is NoneType; pass a string or a chat"),
    ],
)
def test_wrong_arguments_are_named(completions: Any, answer: Any, message: str) -> None:
    with pytest.raises(RewardError, match=message):
        math_reward(completions, answer)


# --- hostile replies -----------------------------------------------------------------------------------------------

ENDLESS = [
    "5^{5^{5^{5^5}}}",  # Math-Verify's own limit does not end this (its issue 65)
    "9999999!",
    "(x+y+z+w)^{999}",
    "\\frac{1}{" * 60 + "2" + "}" * 60,
    "(" * 490 + "5" + ")" * 490,
]
BOUNDED = {
    "Python": "10**10**10",
    "call": "__import__('os').system('exit 1')",
    "braces": "{" * 100_000,
    "digits": "9" * 1000,
    "huge answer": "1+" * 100_000 + "1",
    "matrix": "\\begin{pmatrix}" + "\\\\".join("&".join("1" * 20) for _ in range(20)) + "\\end{pmatrix}",
    "boxes": "\\boxed{" * 50_000,
    "NUL": "5\x00",
    "lone surrogate": "\ud800",
    "line of the protocol": '5"]\ntrue\n["5", "5',
}


def rewards_in_time(answers: list[str]) -> list[float | None]:
    """Score answers against 5 in a thread, so that a limit that does not hold fails a test, not hangs the suite."""
    rewards: list[float | None] = []
    batch = [boxed(answer) for answer in answers]
    thread = threading.Thread(target=lambda: rewards.extend(math_reward(batch, ["5"] * len(batch))), daemon=True)
    thread.start()
    thread.join(timeout=600)
    return rewards


@pytest.mark.usefixtures("fresh")
def test_endless_answers_are_wrong_and_cost_nobody_else() -> None:
    assert rewards_in_time(["5", *ENDLESS, "\\frac{10}{2}"]) == [1.0, *[0.0] * len(ENDLESS), 1.0]


@pytest.mark.parametrize("answer", BOUNDED.values(), ids=BOUNDED)
def test_a_hostile_answer_is_wrong_and_costs_nobody_else(answer: str) -> None:
    assert rewards_in_time(["5", answer, "\\frac{10}{2}"]) == [1.0, 0.0, 1.0]


@pytest.mark.usefixtures("fresh")
def test_the_limits_end_the_worker_and_the_next_comparison_starts_another() -> None:
    assert math_reward(boxed("5"), "5") == 1.0
    first = worker()
    assert math_reward(boxed("6"), "5") == 0.0
    assert worker() == first
    assert math_reward(boxed("5^{5^{5^{5^5}}}"), "5") == 0.0
    assert math_reward(boxed("7"), "7") == 1.0
    assert worker() != first


@pytest.mark.usefixtures("fresh")
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_a_worker_that_was_killed_from_outside_is_asked_again(number: int) -> None:
    assert math_reward(boxed("5"), "5") == 1.0
    os.kill(worker(), number)
    assert math_reward([boxed("6"), boxed("7")], ["6", "8"]) == [1.0, 0.0]


@pytest.mark.usefixtures("fresh")
def test_a_worker_that_does_not_answer_is_replaced(monkeypatch: pytest.MonkeyPatch) -> None:
    assert math_reward(boxed("5"), "5") == 1.0
    monkeypatch.setattr(module, "WALL_SECONDS", 0.1)
    monkeypatch.setattr(module, "END_SECONDS", 0.1)
    stopped = worker()
    os.kill(stopped, signal.SIGSTOP)
    assert math_reward(boxed("6"), "6") in (None, 1.0)  # None where the new one is slower than the limit of this test
    assert module._WORKER._process is None or worker() != stopped
    monkeypatch.setattr(module, "WALL_SECONDS", 120.0)
    assert math_reward(boxed("6"), "6") == 1.0  # nothing was cached


@pytest.mark.usefixtures("fresh")
@pytest.mark.parametrize(("number", "reward"), [(signal.SIGKILL, None), (signal.SIGSEGV, 0.0)])
def test_a_worker_that_ends_again_and_again(
    monkeypatch: pytest.MonkeyPatch, number: signal.Signals, reward: float | None
) -> None:
    """By somebody's hand, nothing is known and nothing kept; by crashes, the answer does it."""
    ended = f"import os; print('ready', flush=True); input(); os.kill(os.getpid(), {int(number)})"
    assert math_reward(boxed("5"), "5") == 1.0
    module._end(module._WORKER._process)  # type: ignore[arg-type]
    module._WORKER._process = None
    with monkeypatch.context() as patch:
        started = subprocess.Popen
        patch.setattr(module.subprocess, "Popen", lambda _, **given: started([sys.executable, "-c", ended], **given))
        assert math_reward(boxed("6"), "5") == reward
    if reward is None:
        assert math_reward(boxed("6"), "6") == 1.0


@pytest.mark.usefixtures("fresh")
def test_an_interrupted_comparison_leaves_no_answer_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    """The verdict of the first must not be taken for that of the second."""
    assert math_reward(boxed("5"), "5") == 1.0

    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(module.select, "select", interrupted)
        with pytest.raises(KeyboardInterrupt):
            math_reward(boxed("10/2"), "5")
    assert math_reward([boxed("6"), boxed("5"), boxed("7")], ["5"] * 3) == [0.0, 1.0, 0.0]


@pytest.mark.usefixtures("fresh")
def test_forked_processes_have_workers_of_their_own() -> None:
    """Also where another thread is in the middle of a comparison when the process forks."""
    assert math_reward(boxed("5"), "5") == 1.0
    before = worker()
    with module._WORKER._lock, ProcessPoolExecutor(2, multiprocessing.get_context("fork")) as pool:
        found = list(pool.map(_score_numbers, range(4)))
    assert found == [[1.0, 0.0] * 5] * 4
    assert worker() == before
    assert math_reward(boxed("6"), "5") == 0.0


def _score_numbers(start: int) -> list[float | None]:
    numbers = range(start * 100, start * 100 + 5)
    return [reward for n in numbers for reward in math_reward([boxed(f"{n}"), boxed(f"{n + 1}")], [f"{n}"] * 2)]


@pytest.mark.usefixtures("fresh")
def test_rewards_of_a_mapped_dataset() -> None:
    """What a stranger does: one call in the parent, then ``datasets.map(num_proc=2)``."""
    datasets = pytest.importorskip("datasets")
    assert math_reward(boxed("5"), "5") == 1.0
    rows = datasets.Dataset.from_dict({"reply": [boxed(str(n % 7)) for n in range(60)], "answer": ["3"] * 60})
    scored = rows.map(lambda row: {"reward": math_reward(row["reply"], row["answer"])}, num_proc=2)
    assert list(scored["reward"]) == [float(n % 7 == 3) for n in range(60)]


def gone(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    return False


def eventually(condition: Callable[[], bool]) -> bool:
    return any(condition() or time.sleep(0.1) for _ in range(300))


def test_the_worker_ends_with_its_parent() -> None:
    code = (
        "from rvpo.rewards import math as m; m.math_reward(r'\\boxed{5}', '5'); "
        "print(m._WORKER._process.pid, flush=True); import os; os._exit(0)"
    )
    pid = int(subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout)
    assert eventually(lambda: gone(pid))


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.text(st.sampled_from(list("0123456789xy+-*/^_{}()[]\\$%&!,.=<>| ")) | st.characters(), max_size=40))
def test_any_answer_gets_a_reward(answer: str) -> None:
    assert math_reward(boxed(answer), "5") in (0.0, 1.0)
    assert math_reward(boxed("5"), answer) in (0.0, 1.0, None)


# --- dependencies --------------------------------------------------------------------------------------------------


def test_importing_the_reward_imports_neither_math_verify_nor_torch() -> None:
    code = "import sys, rvpo.rewards.math; print([m for m in ('math_verify', 'sympy', 'torch') if m in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"


@pytest.mark.usefixtures("fresh")
def test_without_math_verify_the_error_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"pip install 'rvpo\[math\]'"):
        math_reward(boxed("5"), "5")


@pytest.mark.usefixtures("fresh")
def test_a_worker_that_does_not_start_is_an_error_not_a_zero(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module.sys, "executable", "/bin/false")
    with pytest.raises(RewardError, match="did not start"):
        math_reward(boxed("5"), "5")


@pytest.mark.parametrize(
    ("references", "line"),
    [
        (["5", "nan", "6"], "1 of 3 references cannot be read"),
        (["5", "\\frac{", "6", "7"], "1 of 4 references cannot be read"),
        (["5", "He walks to the shop first", "6"], "1 of 3 references look like sentences"),
        (["5", "\\boxed{6}", "x #### 7"], ""),
    ],
)
def test_references_are_checked_before_training(
    references: list[str], line: str, caplog: pytest.LogCaptureFixture
) -> None:
    math_reward.check_column(references)  # type: ignore[attr-defined]
    assert line in caplog.text
    assert bool(line) == bool(caplog.text)


@pytest.mark.parametrize("references", [["nan", "N/A", "5"], ["", "x \\boxed{", "5"], ["\\frac{"] * 500])
def test_references_that_are_mostly_unreadable_are_refused_before_training(references: list[str]) -> None:
    with pytest.raises(DataError, match=r"references that cannot be read, such as .*; expected .*; next step: "):
        math_reward.check_column(references)  # type: ignore[attr-defined]
