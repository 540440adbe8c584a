r"""Verifiable maths: 1 if the last ``\boxed{…}`` of a reply equals the reference answer, else 0.

Equality is that of Hugging Face's Math-Verify (``math-verify``, extra ``math``), which turns LaTeX into sympy: 1/2, 0.5
and \frac{1}{2} are equal, and so are (x+1)^2 and x^2+2x+1. Its reader of plain expressions is not used, as it ends in
``eval``; the LaTeX reader is a grammar.

A reply is written by the policy that is rewarded for it, so it is hostile input: ``10^{10^{10}}`` keeps Python's
integers busy for ever, where a signal handler, Math-Verify's own limit, does not get through. So comparison happens in
a worker process (:mod:`rvpo.rewards.math_worker`), one for each process that calls this, forked ones included. The
operating system grants it ``CPU_SECONDS`` a comparison and a bound of memory in all, and ends it beyond; the next
comparison starts another. Processor time, not wall-clock: a busy machine changes no reward. An answer that cannot be
compared within these limits is wrong, like one that is longer than ``MAX_ANSWER_CHARS``: it is the policy's doing. N
replies cost at most N times ``CPU_SECONDS`` and a start (1 s). A worker that somebody else ends is replaced and asked
again; where that does not help, the reward is missing.

The limits need a POSIX system. The worker ends with the process that started it.
"""

from __future__ import annotations

import contextlib
import importlib.util
import json
import logging
import os
import re
import select
import signal
import subprocess
import sys
import threading
from functools import lru_cache
from typing import Any, overload

from rvpo.errors import ConfigError, RewardError
from rvpo.forks import Forkable, disconnect
from rvpo.rewards.rubric.texts import completion_text

logger = logging.getLogger(__name__)

MAX_ANSWER_CHARS = 1000  # of an answer between the braces; in MATH the longest have about 150
CPU_SECONDS = 2.0  # of one comparison; most take milliseconds, the first ones of a worker up to 0.5 s
WALL_SECONDS = 120.0  # for a worker that is stopped from outside; processor time is what limits a comparison
BOX = "\\boxed{"
_EMPTY_BOX = re.compile(r"\\boxed\{\s*\}")
TRIES = 3  # of a comparison whose worker was ended from outside
END_SECONDS = 1.0  # how long a worker whose output has ended may take to end
_CRASHES = {-signal.SIGSEGV, -signal.SIGABRT, -signal.SIGBUS, -signal.SIGILL, -signal.SIGFPE}

Completions = list[str] | list[list[dict[str, Any]]]
"""N replies: strings, or chats ``[{"role": "assistant", "content": ...}]``."""


@overload
def math_reward(completions: str, answer: str, **_: object) -> float | None: ...
@overload
def math_reward(completions: Completions, answer: list[str], **_: object) -> list[float | None]: ...
def math_reward(completions: Any, answer: Any, **_: object) -> Any:
    r"""Score 1 if the last ``\boxed{…}`` of the reply equals the reference, else 0; without one it is 0.

    Args:
        completions: one reply, or N (:data:`Completions`).
        answer: the reference, or N: LaTeX without dollar signs (MATH's answers), or a solution that ends in
            ``\boxed{…}`` (MATH's) or in ``#### …`` (GSM8K's). Other keyword arguments, which TRL passes, are ignored.

    Returns:
        0.0 or 1.0, or a list of N; None (missing) where the reference cannot be read, or not be compared with itself,
        or where the process that compares is ended from outside again and again.

    Raises:
        ConfigError: Math-Verify is not installed.
        RewardError: completions and answer are not one string each or two lists of N, or the worker does not start.
    """
    if isinstance(completions, str) and isinstance(answer, str):
        return _score(completions, answer)
    if not isinstance(completions, list) or not isinstance(answer, list):
        seen = f"completions is {type(completions).__name__} and answer {type(answer).__name__}"
        raise RewardError(f"{seen}; pass two strings, or two lists of the same length")
    if len(completions) != len(answer):
        raise RewardError(f"{len(completions)} completions but {len(answer)} answers; pass one answer for each")
    for name, values, kinds in (("completions", completions, (str, list)), ("answer", answer, str)):
        for index, value in enumerate(values):
            if not isinstance(value, kinds):
                allowed = "a reference as a string" if name == "answer" else "a string or a chat, a list of messages"
                raise RewardError(f"{name}[{index}] is {type(value).__name__}; pass {allowed}")
    return [_score(completion_text(reply), reference) for reply, reference in zip(completions, answer, strict=True)]


math_reward.reward_range = (0.0, 1.0)  # type: ignore[attr-defined]


def _score(reply: str, reference: str) -> float | None:
    wanted = stated_answer(reference)
    if wanted is None or not answers_equal(wanted, wanted):
        return None
    given = _boxed(reply)
    if given is None:
        return 0.0
    equal = answers_equal(wanted, given)
    return None if equal is None else float(equal)


def answers_equal(wanted: str, given: str) -> bool | None:
    """Return whether two answers are equal, each LaTeX of at most ``MAX_ANSWER_CHARS`` without dollar signs.

    False, too, where one of them cannot be read, or comparing them takes more than ``CPU_SECONDS``: of an answer that
    can be read and compared, ``answers_equal(answer, answer)`` is True. None where the process that compares is ended
    from outside again and again.

    Raises:
        ConfigError: Math-Verify is not installed.
        RewardError: the worker does not start.
    """
    try:
        return _equal(wanted, given)
    except _UndecidedError:
        return None


def stated_answer(reference: str) -> str | None:
    r"""Return the answer that a reference states; None where it is empty, too long, or in a box without braces."""
    if "\\boxed" in reference:
        return _boxed(reference)
    answer = reference.rpartition("####")[2].strip().strip("$").strip()
    return answer if 0 < len(answer) <= MAX_ANSWER_CHARS else None


def _boxed(text: str) -> str | None:
    r"""Return what stands in the last ``\boxed{…}``; None where there is none, it is not closed, or too long."""
    start = last_box(text)
    found = None if start < 0 else read_box(text, start)
    return found and found[0]


def last_box(text: str) -> int:
    r"""Return where the last box begins, or -1; ``\boxed{}`` only speaks of boxes, and is passed over."""
    start = text.rfind(BOX)
    while start >= 0 and _EMPTY_BOX.match(text, start):
        start = text.rfind(BOX, 0, start)
    return start


def read_box(text: str, start: int) -> tuple[str, int] | None:
    r"""Return what stands in the ``\boxed{…}`` that begins at ``start``, and where the text goes on after it.

    None where it is empty, not closed, or holds more than ``MAX_ANSWER_CHARS``.
    """
    start += len(BOX)
    depth, escaped = 1, False
    for end, char in enumerate(text[start : start + MAX_ANSWER_CHARS + 1], start):
        if not escaped:  # \{ and \} are braces to be printed, which need not match: \left\{ … \right.
            depth += (char == "{") - (char == "}")
            if depth == 0:
                answer = text[start:end].strip()
                return (answer, end + 1) if answer else None
        escaped = char == "\\" and not escaped
    return None


@lru_cache(maxsize=8192)  # each reference is asked for G times a step, and again every epoch
def _equal(wanted: str, given: str) -> bool:
    return _WORKER.equal(wanted, given)


class _UndecidedError(Exception):
    """The worker ended without its own doing, each time: nothing is known of the answer, and nothing is cached."""


class _Worker(Forkable):
    """The process that compares answers, started on first use and again when it has ended. Each process has its own."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[str] | None = None
        self._lock = threading.Lock()
        self._know_forks()

    def equal(self, wanted: str, given: str) -> bool:
        """Return whether both can be read and are equal; False, too, where that takes more than the limits.

        Raises:
            _UndecidedError: somebody else has ended or stopped the worker, ``TRIES`` times.
        """
        with self._lock:
            ends = []
            for _ in range(TRIES):
                verdict, end = self._ask(json.dumps([wanted, given]) + "\n")
                if verdict is not None:
                    return verdict
                ends.append(end)
        # A crash that comes back with the same answer is the answer's doing.
        if all(end in _CRASHES for end in ends):
            return False
        logger.warning(
            "the process that compares answers was ended %d times from outside (%s), so one reward is missing; "
            "expected memory for it and nobody who ends it",
            TRIES,
            ", ".join(map(str, ends)),
        )
        raise _UndecidedError

    def _ask(self, question: str) -> tuple[bool | None, int | None]:
        """Return the verdict; or None, and the exit code with which the worker ended."""
        process = self._process = self._process or _start()
        assert process.stdin is not None
        assert process.stdout is not None
        verdict = ""
        try:
            with contextlib.suppress(BrokenPipeError):
                process.stdin.write(question)
                process.stdin.flush()
            if select.select([process.stdout], [], [], WALL_SECONDS)[0]:
                verdict = process.stdout.readline()
        finally:
            # Whatever interrupts this, Ctrl-C included: an answer that nobody has read would be taken for the next.
            if not verdict.endswith("\n"):
                self._process = None
                _end(process)
        if verdict.endswith("\n"):
            return verdict == "true\n", None
        return (False if process.returncode == -signal.SIGPROF else None), process.returncode

    def _in_child(self) -> None:
        self._lock = threading.Lock()
        process, self._process = self._process, None
        if process is not None:  # the parent's
            process.returncode = 0  # nobody here waits for it
            for pipe in (process.stdin, process.stdout):
                assert pipe is not None
                disconnect(pipe.fileno())


_WORKER = _Worker()


def _start() -> subprocess.Popen[str]:
    if importlib.util.find_spec("math_verify") is None:
        raise ConfigError("math_reward needs math-verify, which is not installed: pip install 'rvpo[math]'")
    process = subprocess.Popen(  # noqa: S603 - our own module, no shell
        # -P: no file in the working directory, such as a sympy.py, is imported instead of a library.
        [sys.executable, "-P", "-m", "rvpo.rewards.math_worker", str(CPU_SECONDS)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,  # the LaTeX grammar complains there of every syntax error
        text=True,
        encoding="utf-8",
        env={**os.environ, "PYTHONHASHSEED": "0"},  # sympy's order of terms, and so its path, follows hashes
    )
    assert process.stdout is not None
    if process.stdout.readline() != "ready\n":
        _end(process)
        raise RewardError(
            "the process that compares answers did not start; `python -m rvpo.rewards.math_worker 1 < /dev/null` shows "
            "why"
        )
    return process


def _end(process: subprocess.Popen[str]) -> None:
    # At the end of its output it is ending by itself, with the exit code that says why; else it hangs or is stopped.
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(END_SECONDS)
    process.kill()
    process.wait()
    for pipe in (process.stdin, process.stdout):
        assert pipe is not None
        with contextlib.suppress(BrokenPipeError):  # closing flushes what nobody reads
            pipe.close()
