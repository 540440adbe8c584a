"""Call reward functions so that the error of one function names it, and ends all processes together.

TRL calls reward functions in the middle of a step, and then gathers the rewards of all processes. If a function raised
in one process, the others would wait in that gather. So while a batch is scored, ``reward_funcs`` contains wrappers
(:func:`guarded_calls`): each wrapper calls the real function, reads its result, and notes a failure instead of raising
it. After the batch, :func:`first_failure` exchanges the notes, and all processes raise the same error.

Outside of a batch there are no wrappers: names, attributes and identities of the functions do not change.
"""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import math
import traceback
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Set
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from accelerate.utils import gather_object
from torch import nn

from rvpo import errors
from rvpo.engines.trl.callables import is_async
from rvpo.engines.trl.peers import Calls
from rvpo.engines.trl.reward_timeout import awaited_within, watched
from rvpo.errors import RewardError, RVPOError
from rvpo.rewards.rubric.texts import chat, completion_text
from rvpo.text.quoting import escaped, quoted

ALONE = Calls(None, 0, 1, None)
_PACKAGE = Path(errors.__file__).parent
_HERE = Path(__file__).parent
FLOAT32_MAX = torch.finfo(torch.float32).max
_EXPECTED = "expected one number per completion, or None where a completion could not be scored"


@dataclass(frozen=True)
class Failure:
    """A failure of a reward function.

    Attributes:
        text: message with the function, what it did, and the completion if it is known.
        kind: class of the error to raise.
        error: error that the function raised, only in the process in which it was raised; None elsewhere.
    """

    text: str
    kind: type[RVPOError] = RewardError
    error: BaseException | None = None


class _BadRewardsError(Exception):
    """The result of a function cannot be read as rewards. ``row`` is the number of the completion, if it is known."""

    def __init__(self, what: str, row: int | None = None) -> None:
        super().__init__(what)
        self.row = row


@contextmanager
def guarded_calls(trainer: Any, timeout: float | None = None, calls: Calls | None = None) -> Iterator[list[Failure]]:
    """Replace the reward functions of a trainer by wrappers, and yield the list in which they note failures.

    ``timeout`` is the limit of each call in seconds (:mod:`rvpo.engines.trl.reward_timeout`); None sets no limit.
    ``calls`` reports to the other processes which function is running in this one.

    If a function fails, its wrapper returns 0 for each completion, so that TRL finishes the batch. So callers must
    call :func:`first_failure` before anything is learned from the batch.

    Example:
        with guarded_calls(trainer) as failures:
            output = trainer.score_a_batch()
        if (failure := first_failure(trainer.accelerator, failures)) is not None:
            raise failure.kind(failure.text) from failure.error
    """
    given, failures = trainer.reward_funcs, []  # type: ignore[var-annotated]
    names = trainer.reward_func_names
    trainer.reward_funcs = [
        _guarded(function, name, failures, timeout, calls or ALONE) for function, name in zip(given, names, strict=True)
    ]
    try:
        yield failures
    finally:
        trainer.reward_funcs = given


def first_failure(accelerator: Any, failures: Sequence[Failure]) -> Failure | None:
    """Return the first failure of all processes, with the same text in each of them; None without one. Collective."""
    if accelerator.num_processes == 1:
        return failures[0] if failures else None
    # Gather a number first: gathering objects costs more, and there is nearly always nothing to gather.
    number = torch.tensor([len(failures)], device=accelerator.device)
    if not int(accelerator.gather(number).sum()):
        return None
    mine = [(accelerator.process_index, failure.text, failure.kind.__name__) for failure in failures[:1]]
    process, text, kind = gather_object(mine)[0]
    own = failures[0].error if failures and accelerator.process_index == process else None
    return Failure(f"process {process}: {text}", getattr(errors, kind, RewardError), own)


def _guarded(function: Any, name: str, failures: list[Failure], timeout: float | None, calls: Calls) -> Any:
    """Return a wrapper of the same kind: a module for a module, an async function for an async one."""
    if isinstance(function, nn.Module):
        return _GuardedModule(function, name, failures, timeout, calls)
    if is_async(function):

        async def call_async(**given: Any) -> list[float | None]:
            with _noted(name, failures, given) as zeros, calls.within(name):
                return as_rewards(await awaited_within(function(**given), name, timeout), len(given["completions"]))
            return zeros

        return call_async

    def call(**given: Any) -> list[float | None]:
        with _noted(name, failures, given) as zeros, watched(name, timeout), calls.within(name):
            return as_rewards(function(**given), len(given["completions"]))
        return zeros

    return call


@contextmanager
def _noted(name: str, failures: list[Failure], given: Mapping[str, Any]) -> Iterator[list[float | None]]:
    """Note an error that is raised inside. Yields the result to return if the function fails."""
    try:
        yield [0.0] * len(given["completions"])
    except _BadRewardsError as error:
        where = "" if error.row is None else " " + about(error.row, given["prompts"], given["completions"])
        failures.append(Failure(f"reward function {name!r} returned {error}{where}; {_EXPECTED}"))
    # SystemExit would end only one of several processes. A cancelled task would cancel the scoring of other functions.
    except (Exception, SystemExit, asyncio.CancelledError) as error:
        failures.append(_raised(name, error, given))


def _raised(name: str, error: BaseException, given: Mapping[str, Any] | None = None) -> Failure:
    """Return the failure for an error that a function raised. An error of rvpo keeps its class."""
    if given is not None and isinstance(error, TypeError) and not _ran(error):
        columns = ", ".join(sorted(given))
        return Failure(
            f"reward function {name!r} cannot be called: {escaped(str(error))}; expected a function that takes these "
            f"arguments by name, or **kwargs for those that it does not use: {columns}. All except prompts, "
            "completions and what TRL adds are columns of the dataset",
            RewardError,
            error,
        )
    if isinstance(error, RVPOError):
        return Failure(f"reward function {name!r}: {escaped(str(error), 2000)}", public_class(error), error)
    message = escaped(str(error))
    shown = f"{type(error).__name__}: {message}" if message else type(error).__name__
    return Failure(f"reward function {name!r} raised {shown}{place_of_error(error)}", RewardError, error)


def _ran(error: BaseException) -> bool:
    """Whether a function started before the error: an error of the call itself has no frame of other code."""
    files = {Path(frame.filename) for frame in traceback.extract_tb(error.__traceback__)}
    return any(file.parent != _HERE and file != Path(contextlib.__file__) for file in files)


def public_class(error: RVPOError) -> type[RVPOError]:
    """Return the class of ``rvpo.errors`` that all processes can raise for an error."""
    found = (cls for cls in type(error).__mro__ if getattr(errors, cls.__name__, None) is cls)
    return next(found, RewardError)


def place_of_error(error: BaseException) -> str:
    """Return the line of the user's code in which an error arose, such as `` (rewards.py, line 12)``; empty if unknown.

    This is the deepest line in the first file of the traceback that belongs neither to this package nor to an installed
    one. Libraries that the file calls may add many more frames.
    """
    frames = traceback.extract_tb(error.__traceback__)
    if not frames:
        return ""
    own = [frame for frame in frames if not _is_library(frame.filename)] or frames[-1:]
    deepest = [frame for frame in own if frame.filename == own[0].filename][-1]
    return f" ({Path(deepest.filename).name}, line {deepest.lineno})"


def _is_library(file: str) -> bool:
    return Path(file).is_relative_to(_PACKAGE) or "site-packages" in Path(file).parts


class _GuardedModule(nn.Module):
    """A reward model whose failure is noted. It is a module, because TRL treats modules as reward models."""

    def __init__(
        self, model: nn.Module, name: str, failures: list[Failure], timeout: float | None, calls: Calls
    ) -> None:
        super().__init__()
        self._timeout, self._calls = timeout, calls
        # A lambda, so that the model does not become a submodule: the wrapper must not own its parameters.
        self._call: Callable[..., Any] = lambda **inputs: model(**inputs)
        self._name, self._failures = name, failures

    def forward(self, **inputs: Any) -> Any:
        try:
            with watched(self._name, self._timeout), self._calls.within(self._name):
                output = self._call(**inputs)
            return _with_one_label(output)
        except _BadRewardsError as error:
            self._failures.append(Failure(f"reward model {self._name!r} returned {error}"))
            return SimpleNamespace(logits=torch.zeros(len(next(iter(inputs.values()))), 1))
        except (Exception, SystemExit) as error:
            self._failures.append(_raised(self._name, error))
            return SimpleNamespace(logits=torch.zeros(len(next(iter(inputs.values()))), 1))


def _with_one_label(output: Any) -> Any:
    """Return the output of a reward model unchanged. TRL reads the first label only, whatever it means.

    Raises:
        _BadRewardsError: the model has another number of labels than one.
    """
    shape = tuple(output.logits.shape)
    if len(shape) != 2 or shape[1] != 1:
        raise _BadRewardsError(
            f"logits of shape {shape}, of which TRL would use the first column as the reward; expected one label per "
            "completion. Load the model with num_labels=1, or write a reward function that returns the right label"
        )
    return output


def as_rewards(returned: Any, count: int) -> list[float | None]:
    """Read the result of a reward function.

    Args:
        returned: a list, tuple, generator, array or tensor (on any device) of ``count`` numbers. None = missing.
        count: number of completions N.

    Returns:
        N numbers or None.

    Raises:
        _BadRewardsError: the result is anything else.
    """
    values = _items(returned)
    if len(values) != count:
        raise _BadRewardsError(f"{len(values)} rewards, but {count} were expected")
    return [_number(value, row) for row, value in enumerate(values)]


def _items(returned: Any) -> list[Any]:
    if returned is None:
        raise _BadRewardsError("None (a `return` may be missing)")
    if inspect.isawaitable(returned) or hasattr(returned, "__anext__"):
        if inspect.iscoroutine(returned):
            returned.close()  # otherwise, Python warns that it was never awaited
        raise _BadRewardsError(f"a {type(returned).__name__} (declare the function with `async def` and await inside)")
    shape = getattr(returned, "shape", None)
    if isinstance(shape, tuple) and len(shape) != 1:
        raise _BadRewardsError(f"{_kind(returned)} of shape {tuple(shape)} (expected one dimension)")
    if isinstance(returned, torch.Tensor):
        return list(returned.detach().cpu().tolist())
    if isinstance(returned, str | bytes | Mapping | Set) or not isinstance(returned, Iterable):
        hint = " (make each part a reward function of its own)" if isinstance(returned, Mapping) else ""
        raise _BadRewardsError(f"{_kind(returned)} {escaped(repr(returned), 80)}{hint}")
    return list(returned.tolist() if hasattr(returned, "tolist") else returned)


def _number(value: Any, row: int) -> float | None:
    if value is None:
        return None
    shown = f"{escaped(repr(value), 80)} ({_kind(value)})"
    # float("0.7") would work, but a text is more often a judge's reply that has not been parsed.
    if isinstance(value, str | bytes | Mapping | Sequence):
        raise _BadRewardsError(shown, row)
    try:
        number = float(value)
    except Exception as error:  # a user's object may raise any error
        raise _BadRewardsError(shown, row) from error
    if abs(number) > FLOAT32_MAX and not math.isinf(number):
        raise _BadRewardsError(f"{number:g}, which does not fit into float32,", row)
    if math.isinf(number):
        raise _BadRewardsError(f"{number}", row)
    return number


def _kind(value: object) -> str:
    name = "tensor" if isinstance(value, torch.Tensor) else type(value).__name__
    return f"{'an' if name[:1].lower() in 'aeiou' else 'a'} {name}"


def about(row: int, prompts: Sequence[Any], completions: Sequence[Any]) -> str:
    """Return a text that identifies a completion: its row, and the beginning of its text and prompt, escaped."""
    if not 0 <= row < min(len(prompts), len(completions)):
        return f"for completion {row}"
    prompt = "\n".join(text for _, text in chat(prompts[row])[-1:])
    return f"for completion {row}, {quoted(completion_text(completions[row]))} (prompt {quoted(prompt)})"
