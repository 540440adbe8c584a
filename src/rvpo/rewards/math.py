r"""Verifiable maths: 1 if the last ``\boxed{…}`` of a reply equals the reference answer, else 0.

Equality is that of Hugging Face's Math-Verify (``math-verify``, extra ``math``), which turns LaTeX into sympy: 1/2, 0.5
and \frac{1}{2} are equal, and so are (x+1)^2 and x^2+2x+1. Its reader of plain expressions is not used, as it ends in
``eval``; the LaTeX reader is a grammar.

A reply is written by the policy that is rewarded for it, so it is hostile input: ``10^{10^{10}}`` keeps Python's
integers busy for ever, where a signal handler, Math-Verify's own limit, does not get through. So comparison happens in
a worker process, one for each process that calls this. The operating system grants it ``CPU_SECONDS`` a comparison and
``MEMORY`` bytes in all, and ends it beyond; the next comparison starts another. Processor time, not wall-clock: a busy
machine changes no reward. An answer that cannot be compared within these limits is wrong, like one that is longer than
``MAX_ANSWER_CHARS``: it is the policy's doing. N replies cost at most N times ``CPU_SECONDS`` and a start (1 s).

The limits need a POSIX system. The worker ends with the process that started it.
"""

from __future__ import annotations

import contextlib
import importlib.util
import json
import os
import subprocess
import sys
import threading
from functools import lru_cache
from typing import Any, overload

from rvpo.errors import ConfigError, RewardError
from rvpo.rewards.rubric.texts import completion_text

MAX_ANSWER_CHARS = 1000  # of an answer between the braces; in MATH the longest have about 150
CPU_SECONDS = 2.0  # of one comparison; most take milliseconds, the first ones of a worker up to 0.5 s
MEMORY = 2 << 30  # bytes of address space of the worker; it needs about an eighth

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
        0.0 or 1.0, or a list of N; None (missing) where the reference cannot be read, or not be compared with itself.

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
    wanted = _wanted(reference)
    if wanted is None or not _equal(wanted, wanted):
        return None
    given = _boxed(reply)
    return 0.0 if given is None else float(_equal(wanted, given))


def _wanted(reference: str) -> str | None:
    r"""Return the answer that a reference states; None where it is empty, too long, or in a box without braces."""
    if "\\boxed" in reference:
        return _boxed(reference)
    answer = reference.rpartition("####")[2].strip().strip("$").strip()
    return answer if 0 < len(answer) <= MAX_ANSWER_CHARS else None


def _boxed(text: str) -> str | None:
    r"""Return what stands in the last ``\boxed{…}``; None where there is none, it is not closed, or too long."""
    start = text.rfind("\\boxed{")
    if start < 0:
        return None
    start += len("\\boxed{")
    depth, escaped = 1, False
    for end, char in enumerate(text[start : start + MAX_ANSWER_CHARS + 1], start):
        if not escaped:  # \{ and \} are braces to be printed, which need not match: \left\{ … \right.
            depth += (char == "{") - (char == "}")
            if depth == 0:
                return text[start:end].strip() or None
        escaped = char == "\\" and not escaped
    return None


@lru_cache(maxsize=8192)  # each reference is asked for G times a step, and again every epoch
def _equal(wanted: str, given: str) -> bool:
    return _WORKER.equal(wanted, given)


class _Worker:
    """A process that compares answers (:func:`_serve`), started on first use and again after a limit has killed it."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[str] | None = None
        self._lock = threading.Lock()

    def equal(self, wanted: str, given: str) -> bool:
        """Return whether both can be read and are equal; False, too, where that takes more than the limits."""
        with self._lock:
            process = self._process = self._process or _start()
            assert process.stdin is not None
            assert process.stdout is not None
            with contextlib.suppress(BrokenPipeError):
                process.stdin.write(json.dumps([wanted, given]) + "\n")
                process.stdin.flush()
            verdict = process.stdout.readline()
            if not verdict:  # the end of its output: a limit has killed it
                _end(process)
                self._process = None
            return verdict == "true\n"


_WORKER = _Worker()


def _start() -> subprocess.Popen[str]:
    if importlib.util.find_spec("math_verify") is None:
        raise ConfigError("math_reward needs math-verify, which is not installed: pip install 'rvpo[math]'")
    process = subprocess.Popen(  # noqa: S603 - our own module, no shell
        # -P: no file in the working directory, such as a sympy.py, is imported instead of a library.
        [sys.executable, "-P", "-m", "rvpo.rewards.math", str(CPU_SECONDS)],
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
            "the process that compares answers did not start: `python -m rvpo.rewards.math 1 < /dev/null` shows why"
        )
    return process


def _end(process: subprocess.Popen[str]) -> None:
    process.kill()
    process.wait()
    for pipe in (process.stdin, process.stdout):
        assert pipe is not None
        with contextlib.suppress(BrokenPipeError):  # closing flushes what nobody reads
            pipe.close()


def _serve(cpu_seconds: float) -> None:
    """Answer each line ``[wanted, given]`` of stdin with true or false, under the limits, until stdin ends."""
    import logging
    import resource
    import signal

    with contextlib.suppress(ValueError, OSError):  # some systems refuse; the limit on time stands
        resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the trainer, whose end closes stdin
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    sys.stdout = sys.stderr  # nothing that a library prints is taken for an answer

    from math_verify import LatexExtractionConfig, parse, verify

    logging.disable()
    latex = [LatexExtractionConfig(boxed_match_priority=0, try_extract_without_anchor=False)]

    @lru_cache(maxsize=256)
    def read(answer: str) -> Any:
        # Without fallback: a text that is no LaTeX is not compared as a string. The time limit is ours.
        return parse(f"\\boxed{{{answer}}}", latex, "no_fallback", "first_match", parsing_timeout=None)

    print("ready", file=answers, flush=True)
    for line in sys.stdin:
        wanted, given = json.loads(line)
        signal.setitimer(signal.ITIMER_PROF, cpu_seconds)  # its default action ends the process, whatever it is at
        try:
            equal = verify(read(wanted), read(given), timeout_seconds=None)
        except Exception:  # MemoryError and RecursionError, in whatever the grammar or sympy makes of it
            equal = False
        signal.setitimer(signal.ITIMER_PROF, 0)
        print("true" if equal else "false", file=answers, flush=True)


if __name__ == "__main__":
    _serve(float(sys.argv[1]))
