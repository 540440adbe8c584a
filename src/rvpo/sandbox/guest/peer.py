"""Connect the process of the test and the process of the program: calls, operators and attributes work across.

The test runs in a process that the program cannot read or write. It receives values of the program as copies, and other
objects as :class:`Remote`, whose operations are done by the program. So a program decides what its functions return,
but not whether an assertion about the result holds.

The program may call functions that it was given, and use objects of classes that the test defines. It cannot access
more: no attribute with an underscore, and nothing of a module, of a function's globals or of a frame.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from . import wire
from .codec import MalformedError, decode, dump, encode, load
from .raised import exception_of, names_of, text_of
from .remote import OPERATIONS, CallableRemote, Remote

TYPE_CHECKING = False
if TYPE_CHECKING:  # importing typing takes longer than a small program
    from typing import Any

_FOR_PROGRAM = {"next", "iter", "len", "getitem", "eq", "ne", "lt", "le", "gt", "ge", "bool", "str", "repr", "hash"}


class Peer:
    """One side of the two pipes.

    Args:
        reads: descriptor for messages of the other side.
        writes: descriptor for messages to the other side.
        scope: global names that the other side may ask for; None if it may use only objects that it was given.
    """

    def __init__(self, reads: int, writes: int, scope: dict[str, Any] | None = None) -> None:
        """Keep the pipes, without sending anything."""
        self.reads, self.writes, self.scope = reads, writes, scope
        self.ended = ""  # why the other side cannot be asked any more
        self.unshareable = ""  # class of an object that the program needs but cannot be given
        self._ours: dict[Any, Any] = {}
        self._numbers: dict[int, int] = {}
        self._theirs: dict[int, Remote] = {}

    def ask(
        self,
        do: str,
        target: int | None = None,
        name: str | None = None,
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        """Let the other side do something, answer its own requests meanwhile, and return or raise its answer."""
        message = {
            "do": do, "to": target, "name": name,
            "args": [encode(one, self._export) for one in args],
            "kwargs": {key: encode(one, self._export) for key, one in (kwargs or {}).items()},
        }  # fmt: skip
        answer = self._exchange(message)
        try:
            for place, value in (answer.get("changed") or {}).items():
                _replace(args[int(place)], decode(value, self._resolve))
            if "same" in answer:
                return args[int(answer["same"])]
            if "raised" not in answer:
                return decode(answer["value"], self._resolve)
            raised = answer["raised"], answer.get("text")
        except (MalformedError, LookupError, TypeError, ValueError, AttributeError) as error:
            raise self._end(f"malformed answer ({type(error).__name__})") from None
        raise exception_of(*raised)

    def ping(self) -> None:
        """Check whether the other side still runs, because a program that has ended has not passed."""
        try:
            self.ask("global", None, "__builtins__")
        except BaseException:
            return

    def tell(self, message: dict[str, Any]) -> None:
        """Send a message that needs no answer."""
        wire.write(self.writes, dump(message))

    def hear(self) -> dict[str, Any]:
        """Return the next message."""
        return load(wire.read(self.reads))

    def serve(self) -> None:
        """Answer until the other side has ended."""
        while True:
            message = self.hear()
            self.tell(self._answer(message))

    def _exchange(self, message: dict[str, Any]) -> dict[str, Any]:
        if self.ended:
            raise self._end(self.ended)
        try:
            self.tell(message)
            while True:
                answer = self.hear()
                if "do" not in answer:
                    return answer
                self.tell(self._answer(answer))
        except (wire.ClosedError, MalformedError) as error:
            closed = isinstance(error, wire.ClosedError)
            raise self._end("the program ended" if closed else f"malformed: {error}") from None

    def _end(self, why: str) -> EndedError:
        self.ended = why
        return EndedError(why)

    def _answer(self, message: dict[str, Any]) -> dict[str, Any]:
        """Do what the other side asks. An exception becomes a part of the answer."""
        try:
            args = [decode(one, self._resolve) for one in message.get("args") or ()]
            kwargs = {str(key): decode(one, self._resolve) for key, one in (message.get("kwargs") or {}).items()}
            before = [dump([encode(one, self._export)]) if _can_change(one) else None for one in args]
            value = self._do(message.get("do"), message.get("to"), message.get("name"), args, kwargs)
            answer = next(({"same": i} for i, one in enumerate(args) if one is value and _can_change(one)), None)
            if answer is None:
                answer = {"value": encode(value, self._export)}
            changed: dict[int, Any] = {}
            for i, one in enumerate(args):
                if before[i] is not None:
                    now = encode(one, self._export)
                    if dump([now]) != before[i]:
                        changed[i] = now
            return {**answer, "changed": changed} if changed else answer
        except (wire.ClosedError, EndedError, UnshareableError):
            raise
        except BaseException as error:
            return {"raised": names_of(error), "text": text_of(error)}

    def _do(self, do: Any, number: Any, name: Any, args: list[Any], kwargs: dict[str, Any]) -> Any:
        if do == "global" and self.scope is not None:
            return self.scope[name]
        target = self._ours[number]
        if do == "call" and (self.scope is not None or _may_call(target)):
            return target(*args, **kwargs)
        if do in ("get", "set") and (self.scope is not None or _may_look(target, name)):
            return getattr(target, name) if do == "get" else setattr(target, name, *args)
        if do == "op" and (self.scope is not None or (name in _FOR_PROGRAM and _may_use(target))):
            flipped = kwargs.pop("flipped", False)
            given = (*args, target) if flipped else (target, *args)
            return OPERATIONS[name](*given)
        raise PermissionError(f"{do} {name} of this object of the test is refused")

    def _export(self, value: Any) -> Any:
        if isinstance(value, Remote):
            return {"r": object.__getattribute__(value, "_remote_number")}
        if self.scope is None and not (_may_call(value) or _may_use(value)):
            self.unshareable = type(value).__name__
            raise UnshareableError(self.unshareable)
        number = self._numbers.get(id(value))
        if number is None:
            number = self._numbers[id(value)] = len(self._ours)
            self._ours[number] = value  # kept alive, so that no other object gets the same id
        return {"o": [number, isinstance(value, type), type(value).__name__[:80], callable(value)]}

    def _resolve(self, tag: str, inside: Any) -> Any:
        if tag == "r":
            return self._ours[inside]
        if tag != "o" or not isinstance(inside, list) or len(inside) != 4 or not isinstance(inside[0], int):
            raise MalformedError("unknown tag")
        number = inside[0]
        if number not in self._theirs:
            self._theirs[number] = (CallableRemote if inside[3] else Remote)(self, number, str(inside[2]))
        return self._theirs[number]


class UnshareableError(BaseException):
    """An object of the test can be neither copied nor used remotely, so test and program need one process."""


class EndedError(BaseException):
    """The program can no longer be asked. No ``except Exception`` of a test catches it."""


def _can_change(value: Any) -> bool:
    return isinstance(value, list | dict | set | bytearray)


def _replace(ours: Any, now: Any) -> None:
    """Copy the content of a value that the other side has changed into the original."""
    if (isinstance(ours, list) and isinstance(now, list)) or (
        isinstance(ours, bytearray) and isinstance(now, bytearray)
    ):
        ours[:] = now
    elif isinstance(ours, dict | set) and isinstance(now, dict | set):
        ours.clear()
        ours.update(now)


def _may_use(target: Any) -> bool:
    """Return whether the program may use an object as an operand: of a class of the test, or an iterator."""
    return type(target).__module__ == "test" or hasattr(type(target), "__next__")


def _may_call(target: Any) -> bool:
    return type(target).__name__ in ("function", "method", "builtin_function_or_method", "partial") or (
        isinstance(target, type) and target.__module__ in ("test", "builtins") and target is not type
    )


def _may_look(target: Any, name: Any) -> bool:
    return isinstance(name, str) and not name.startswith("_") and type(target).__module__ == "test"
