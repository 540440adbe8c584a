r"""Verifiable maths: 1 if the last ``\boxed{…}`` of a reply equals the reference answer, else 0.

Replies and references are read by :mod:`rvpo.rewards.math_answers`, as in ``rvpo eval math``.

Equality is decided by Hugging Face's Math-Verify (``math-verify``, extra ``math``), which turns LaTeX into sympy: 1/2,
0.5 and \frac{1}{2} are equal, and so are (x+1)^2 and x^2+2x+1. Its parser of plain expressions is not used, because it
ends in ``eval``. The LaTeX parser is a grammar.

A reply is written by the policy that is rewarded for it, so it is hostile input. ``10^{10^{10}}`` would keep Python's
integers busy without end, and a signal handler, which is Math-Verify's own limit, does not interrupt them. So answers
are compared in a worker process (:mod:`rvpo.rewards.math_worker`), one per calling process, also after a fork. The
operating system limits it to ``CPU_SECONDS`` per comparison and to a fixed memory, and ends it beyond these limits. The
next comparison starts a new worker. The limit is CPU time, not wall-clock time, so a busy machine does not change
rewards. An answer that cannot be compared within these limits is wrong, and so is an answer longer than
``MAX_ANSWER_CHARS``, because the policy caused it. N replies cost at most N times ``CPU_SECONDS`` and one start (1 s).
If the worker is ended from outside, it is replaced and asked again. If that fails repeatedly, the reward is missing.

The limits need a POSIX system. The worker ends with the process that started it.
"""

from __future__ import annotations

import contextlib
import importlib.util
import json
import logging
import os
import select
import signal
import subprocess
import sys
import threading
from collections.abc import Sequence
from functools import lru_cache
from typing import Any, overload

from rvpo.errors import ConfigError, DataError, RewardError
from rvpo.forks import Forkable, disconnect
from rvpo.rewards.math_answers import boxed_answer, is_sentence, stated_answer
from rvpo.rewards.rubric.texts import completion_text

logger = logging.getLogger(__name__)

CPU_SECONDS = 2.0  # CPU time limit per comparison; most take milliseconds, the first ones of a worker up to 0.5 s
WALL_SECONDS = 120.0  # wall-clock limit, for a worker that is paused from outside
CHECKED = 200  # maximum number of references that are checked before training
TRIES = 3  # attempts at a comparison whose worker was ended from outside
END_SECONDS = 1.0  # time in which a worker should end after it closed its output
_CRASHES = {-signal.SIGSEGV, -signal.SIGABRT, -signal.SIGBUS, -signal.SIGILL, -signal.SIGFPE}

Completions = list[str] | list[list[dict[str, Any]]]
"""N replies: strings, or chats ``[{"role": "assistant", "content": ...}]``."""


@overload
def math_reward(completions: str, answer: str, **_: object) -> float | None: ...
@overload
def math_reward(completions: Completions, answer: list[str], **_: object) -> list[float | None]: ...
def math_reward(completions: Any, answer: Any, **_: object) -> Any:
    r"""Return 1 if the last ``\boxed{…}`` of the reply equals the reference, else 0. A reply without a box scores 0.

    Args:
        completions: one reply, or N (:data:`Completions`).
        answer: reference, or N: LaTeX without dollar signs (answers of MATH), or a solution that ends in ``\boxed{…}``
            (MATH) or in ``#### …`` (GSM8K), or a JSON list of several answers, which a reply must all give. Other
            keyword arguments, which TRL passes, are ignored.

    Returns:
        0.0 or 1.0, or a list of N; None (missing) if the reference cannot be read or compared with itself, or if the
        worker process is repeatedly ended from outside.

    Raises:
        ConfigError: Math-Verify is not installed.
        RewardError: completions and answer are not two strings, or two lists of the same length, or the worker does
            not start.
    """
    if isinstance(completions, str) and isinstance(answer, str):
        return _score(completions, answer)
    if not isinstance(completions, list) or not isinstance(answer, list):
        seen = f"completions is {type(completions).__name__} and answer {type(answer).__name__}"
        raise RewardError(f"{seen}; pass two strings, or two lists of the same length")
    if len(completions) != len(answer):
        raise RewardError(f"{len(completions)} completions but {len(answer)} answers; pass one answer per completion")
    for name, values, kinds in (("completions", completions, (str, list)), ("answer", answer, str)):
        for index, value in enumerate(values):
            if not isinstance(value, kinds):
                expected = "a reference as a string" if name == "answer" else "a string or a chat, a list of messages"
                raise RewardError(f"{name}[{index}] is {type(value).__name__}; pass {expected}")
    return [_score(completion_text(reply), reference) for reply, reference in zip(completions, answer, strict=True)]


def check_references(references: Sequence[str]) -> None:
    """Check the references of the data before training: a sample of at most ``CHECKED``.

    Raises:
        DataError: more than half of the sample cannot be read. Their rewards would be missing.
    """
    sample = list(references)[:: max(1, len(references) // CHECKED)][:CHECKED]
    answers = {reference: stated_answer(reference) for reference in sample}
    unread = [one for one in sample if (stated := answers[one]) is None or not answers_equal(stated, stated)]
    sentences = [one for one in sample if one not in unread and is_sentence(answers[one] or "")]
    if 2 * len(unread) > len(sample):
        raise DataError(
            f"answer: saw {len(unread)} of {len(sample)} references that cannot be read, such as {unread[0][:90]!r}; "
            "expected LaTeX, or solutions that end in \\boxed{…} or #### …; next step: name the column with the "
            "answers in reference_columns"
        )
    for found, means in (
        (unread, "cannot be read: the rewards of their prompts are missing. Repair or remove these rows"),
        (sentences, "look like sentences, and few replies will be equal to them. Keep only the answers"),
    ):
        if found:
            logger.warning("answer: %d of %d references %s. One is %.90r", len(found), len(sample), means, found[0])


math_reward.reward_range = (0.0, 1.0)  # type: ignore[attr-defined]
math_reward.check_column = check_references  # type: ignore[attr-defined]


def _score(reply: str, reference: str) -> float | None:
    wanted = stated_answer(reference)
    if wanted is None or not answers_equal(wanted, wanted):
        return None
    given = boxed_answer(reply)
    if given is None:
        return 0.0
    equal = answers_equal(wanted, given)
    return None if equal is None else float(equal)


def answers_equal(wanted: str, given: str) -> bool | None:
    """Return whether two answers are equal.

    Args:
        wanted: reference answer: LaTeX without dollar signs, at most ``MAX_ANSWER_CHARS`` long.
        given: answer of the policy, in the same form.

    Returns:
        True or False. It is also False if an answer cannot be read, or if the comparison takes more than
        ``CPU_SECONDS``; ``answers_equal(answer, answer)`` shows whether an answer can be read and compared. None if the
        worker process is repeatedly ended from outside.

    Raises:
        ConfigError: Math-Verify is not installed.
        RewardError: the worker does not start.
    """
    try:
        return _equal(wanted, given)
    except _UndecidedError:
        return None


@lru_cache(maxsize=8192)  # each reference is compared G times per step, and again in every epoch
def _equal(wanted: str, given: str) -> bool:
    return _WORKER.equal(wanted, given)


class _UndecidedError(Exception):
    """The worker was ended from outside every time. Nothing is known about the answer, and nothing is cached."""


class _Worker(Forkable):
    """The process that compares answers. It is started on first use, and again if it has ended. One per process."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[str] | None = None
        self._lock = threading.Lock()
        self._know_forks()

    def equal(self, wanted: str, given: str) -> bool:
        """Return whether both answers can be read and are equal. It is also False beyond the limits.

        Raises:
            _UndecidedError: the worker was ended or paused from outside ``TRIES`` times.
        """
        with self._lock:
            ends = []
            for _ in range(TRIES):
                verdict, end = self._ask(json.dumps([wanted, given]) + "\n")
                if verdict is not None:
                    return verdict
                ends.append(end)
        # If every attempt crashes, the answer causes the crash.
        if all(end in _CRASHES for end in ends):
            return False
        logger.warning(
            "the process that compares answers was ended %d times from outside (%s), so one reward is missing. Check "
            "that it has enough memory and that nothing kills it",
            TRIES,
            ", ".join(map(str, ends)),
        )
        raise _UndecidedError

    def _ask(self, question: str) -> tuple[bool | None, int | None]:
        """Return the verdict and None, or None and the exit code of the worker."""
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
            # After any interruption, also Ctrl-C: an answer that was not read would be mistaken for the next one.
            if not verdict.endswith("\n"):
                self._process = None
                _end(process)
        if verdict.endswith("\n"):
            return verdict == "true\n", None
        return (False if process.returncode == -signal.SIGPROF else None), process.returncode

    def _in_child(self) -> None:
        self._lock = threading.Lock()
        process, self._process = self._process, None
        if process is not None:  # the worker belongs to the parent
            process.returncode = 0  # so that this process does not wait for it
            for pipe in (process.stdin, process.stdout):
                assert pipe is not None
                disconnect(pipe.fileno())


_WORKER = _Worker()


def _start() -> subprocess.Popen[str]:
    if importlib.util.find_spec("math_verify") is None:
        raise ConfigError("math_reward needs math-verify, which is not installed: pip install 'rvpo[math]'")
    process = subprocess.Popen(  # noqa: S603 - our own module, no shell
        # -P: a file in the working directory, such as sympy.py, is not imported instead of a library.
        [sys.executable, "-P", "-m", "rvpo.rewards.math_worker", str(CPU_SECONDS)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,  # the LaTeX grammar reports every syntax error there
        text=True,
        encoding="utf-8",
        env={**os.environ, "PYTHONHASHSEED": "0"},  # sympy's order of terms, and so its steps, depend on hashes
    )
    assert process.stdout is not None
    if process.stdout.readline() != "ready\n":
        _end(process)
        raise RewardError(
            "the process that compares answers did not start. Run `python -m rvpo.rewards.math_worker 1 < /dev/null` "
            "to see why"
        )
    return process


def _end(process: subprocess.Popen[str]) -> None:
    # If its output has ended, it is ending by itself, and its exit code shows why. Otherwise it hangs or is paused.
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(END_SECONDS)
    process.kill()
    process.wait()
    for pipe in (process.stdin, process.stdout):
        assert pipe is not None
        with contextlib.suppress(BrokenPipeError):  # closing flushes data that nothing reads
            pipe.close()
