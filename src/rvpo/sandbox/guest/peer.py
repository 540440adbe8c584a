"""The test's process and the program's process as one: calls, operators and attributes reach over to the other side.

The test runs in a process that the program cannot read or write. Of the program it sees values, which are copies, and
:class:`Remote` objects, whose every use is asked of the program. So a program decides what its functions return, but
not whether an assertion about that holds.

The program may call back functions that it was given, and use objects of classes that the test defines. It cannot reach
further: no attribute with an underscore, nothing of a module, of a function's globals or of a frame.
"""

from __future__ import annotations

import builtins
import operator
from collections.abc import Callable, Mapping, Sequence

from . import wire
from .codec import MalformedError, decode, dump, encode, load

TYPE_CHECKING = False
if TYPE_CHECKING:  # importing typing takes longer than a small program
    from typing import Any

MAX_TEXT = 300
_BINARY: dict[str, Callable[..., Any]] = {
    name: getattr(operator, name)
    for name in (
        "eq", "ne", "lt", "le", "gt", "ge", "add", "sub", "mul", "truediv", "floordiv", "mod", "pow", "matmul",
        "and_", "or_", "xor", "lshift", "rshift", "getitem", "contains", "delitem",
    )
}  # fmt: skip
_UNARY: dict[str, Callable[..., Any]] = {
    "len": len, "iter": iter, "next": next, "reversed": reversed, "abs": abs, "neg": operator.neg,
    "pos": operator.pos, "invert": operator.invert, "bool": bool, "int": int, "float": float, "str": str, "repr": repr,
    "hash": hash, "index": operator.index, "round": round, "dir": dir,
}  # fmt: skip
_OTHERS: dict[str, Callable[..., Any]] = {
    "setitem": operator.setitem,
    "format": format,
    "round2": round,
    "isinstance": isinstance,
}
OPERATIONS = {**_BINARY, **_UNARY, **_OTHERS}
_FOR_PROGRAM = {"next", "iter", "len", "getitem", "eq", "ne", "lt", "le", "gt", "ge", "bool", "str", "repr", "hash"}


class RemoteError(Exception):
    """An exception of a class that the program defines."""


class Peer:
    """One side of the two pipes.

    Args:
        reads: descriptor with the other side's messages.
        writes: descriptor for ours.
        scope: global names that the other side may ask for; None where it may use nothing but what it was given.
    """

    def __init__(self, reads: int, writes: int, scope: dict[str, Any] | None = None) -> None:
        """Keep the pipes; nothing is said yet."""
        self.reads, self.writes, self.scope = reads, writes, scope
        self.ended = ""  # why nothing can be asked any more
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
        """Have the other side do something, serve what it asks meanwhile, and return or raise its answer."""
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
        raise _exception(*raised)

    def ping(self) -> None:
        """See whether the other side is still there: who has ended has not passed."""
        try:
            self.ask("global", None, "__builtins__")
        except BaseException:
            return

    def tell(self, message: dict[str, Any]) -> None:
        """Send a message that has no answer."""
        wire.write(self.writes, dump(message))

    def hear(self) -> dict[str, Any]:
        """Return a message that answers nothing."""
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
        """Do what the other side asks. Whatever that raises is told, not raised."""
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
        except (wire.ClosedError, EndedError):
            raise
        except BaseException as error:
            return {"raised": _names(error), "text": _text(error)}

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
        number = self._numbers.get(id(value))
        if number is None:
            number = self._numbers[id(value)] = len(self._ours)
            self._ours[number] = value  # kept, so that its id stays its own
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


class EndedError(BaseException):
    """The program can no longer be asked. No ``except Exception`` of a test catches it."""


class Remote:
    """An object of the other side. Whatever is done with it is asked there."""

    def __init__(self, peer: Peer, number: int, kind: str) -> None:
        """Name the object."""
        for name, value in (("_remote_peer", peer), ("_remote_number", number), ("_remote_kind", kind)):
            object.__setattr__(self, name, value)

    def __getattr__(self, name: str) -> Any:
        """Ask for an attribute."""
        if name.startswith("__") and name.endswith("__") and name not in ("__name__", "__doc__", "__dict__"):
            raise AttributeError(name)  # protocols that are looked for in passing, such as that of copy
        return _ask(self, "get", name)

    def __setattr__(self, name: str, value: Any) -> None:
        """Set an attribute there."""
        _ask(self, "set", name, value)

    def __instancecheck__(self, one: Any) -> bool:
        """Ask whether an object is of this class."""
        return isinstance(one, Remote) and bool(_ask(one, "op", "isinstance", self))

    def __format__(self, text: str) -> str:
        """Format it there."""
        return str(_ask(self, "op", "format", text))

    def __setitem__(self, key: Any, value: Any) -> None:
        """Set an item there."""
        _ask(self, "op", "setitem", key, value)

    def __round__(self, digits: int | None = None) -> Any:
        """Round it there."""
        return _ask(self, "op", "round") if digits is None else _ask(self, "op", "round2", digits)

    def __iter__(self) -> Any:
        """Go through it there, item by item."""
        found = _ask(self, "op", "iter")
        return found if isinstance(found, Remote) else iter(found)


class CallableRemote(Remote):
    """One that can be called."""

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Call it there."""
        peer, number = object.__getattribute__(self, "_remote_peer"), object.__getattribute__(self, "_remote_number")
        return peer.ask("call", number, None, args, kwargs)


def _ask(remote: Remote, do: str, name: str, *args: Any, **kwargs: Any) -> Any:
    peer = object.__getattribute__(remote, "_remote_peer")
    return peer.ask(do, object.__getattribute__(remote, "_remote_number"), name, args, kwargs)


def _operator(name: str, flipped: bool = False) -> Callable[..., Any]:
    def method(self: Remote, *args: Any) -> Any:
        return _ask(self, "op", name, *args, **({"flipped": True} if flipped else {}))

    return method


for _name in _UNARY:
    if _name not in ("iter", "round"):
        setattr(Remote, f"__{_name}__", _operator(_name))
for _name in _BINARY:
    setattr(Remote, f"__{_name.strip('_')}__", _operator(_name))
for _name in ("add", "sub", "mul", "truediv", "floordiv", "mod", "pow", "matmul", "and_", "or_", "xor"):
    setattr(Remote, f"__r{_name.strip('_')}__", _operator(_name, flipped=True))


def _can_change(value: Any) -> bool:
    return isinstance(value, list | dict | set | bytearray)


def _replace(ours: Any, now: Any) -> None:
    """Put the content of a value that the other side has changed into ours."""
    if (isinstance(ours, list) and isinstance(now, list)) or (
        isinstance(ours, bytearray) and isinstance(now, bytearray)
    ):
        ours[:] = now
    elif isinstance(ours, dict | set) and isinstance(now, dict | set):
        ours.clear()
        ours.update(now)


def _may_use(target: Any) -> bool:
    """Whether the program may use an object of the test as an operand: one of a class of the test, or an iterator."""
    return type(target).__module__ == "test" or hasattr(type(target), "__next__")


def _may_call(target: Any) -> bool:
    return type(target).__name__ in ("function", "method", "builtin_function_or_method", "partial") or (
        isinstance(target, type) and target.__module__ in ("test", "builtins") and target is not type
    )


def _may_look(target: Any, name: Any) -> bool:
    return isinstance(name, str) and not name.startswith("_") and type(target).__module__ == "test"


def _names(error: BaseException) -> list[str]:
    return [kind.__name__ for kind in type(error).__mro__ if kind not in (object,)][:20]


def _text(error: BaseException) -> str:
    try:
        return str(error)[:MAX_TEXT]
    except BaseException:
        return ""


_BUILTIN_ERRORS = {
    name: value
    for name, value in vars(builtins).items()
    if isinstance(value, type) and issubclass(value, BaseException)
}


def _exception(names: Any, text: Any) -> BaseException:
    """Return an exception of the first class that is Python's own, under the name of the program's."""
    text = text if isinstance(text, str) else ""
    listed = [name for name in names if isinstance(name, str)] if isinstance(names, list) else []
    base: Any = next((_BUILTIN_ERRORS[name] for name in listed if name in _BUILTIN_ERRORS), RemoteError)
    if issubclass(base, BaseExceptionGroup):
        base = Exception
    own = {"__init__": lambda self, *args: None, "__str__": lambda self: text}
    kind: Any = type((listed or ["Exception"])[0][:80], (base,), own)
    error: BaseException = kind.__new__(kind)
    error.args = (text,)
    return error
