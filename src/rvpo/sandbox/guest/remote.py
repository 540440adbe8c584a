"""Objects of the other process, and the operations on them."""

from __future__ import annotations

import operator
from collections.abc import Callable

TYPE_CHECKING = False
if TYPE_CHECKING:  # importing typing takes longer than a small program
    from collections.abc import Mapping, Sequence
    from typing import Any, Protocol

    class Asks(Protocol):
        """One side of the two pipes."""

        def ask(
            self, do: str, target: int | None, name: str | None, args: Sequence[Any], kwargs: Mapping[str, Any]
        ) -> Any:
            """Let the other side do something, and return its answer."""


BINARY: dict[str, Callable[..., Any]] = {
    name: getattr(operator, name)
    for name in (
        "eq", "ne", "lt", "le", "gt", "ge", "add", "sub", "mul", "truediv", "floordiv", "mod", "pow", "matmul",
        "and_", "or_", "xor", "lshift", "rshift", "getitem", "contains", "delitem",
    )
}  # fmt: skip
UNARY: dict[str, Callable[..., Any]] = {
    "len": len, "iter": iter, "next": next, "reversed": reversed, "abs": abs, "neg": operator.neg,
    "pos": operator.pos, "invert": operator.invert, "bool": bool, "int": int, "float": float, "str": str, "repr": repr,
    "hash": hash, "index": operator.index, "round": round, "dir": dir,
}  # fmt: skip
OTHERS: dict[str, Callable[..., Any]] = {
    "setitem": operator.setitem,
    "format": format,
    "round2": round,
    "isinstance": isinstance,
}
OPERATIONS = {**BINARY, **UNARY, **OTHERS}


class Remote:
    """An object of the other side. Every operation on it is done there."""

    def __init__(self, peer: Asks, number: int, kind: str) -> None:
        """Keep the number of the object and the name of its class."""
        for name, value in (("_remote_peer", peer), ("_remote_number", number), ("_remote_kind", kind)):
            object.__setattr__(self, name, value)

    def __getattr__(self, name: str) -> Any:
        """Ask for an attribute."""
        if name.startswith("__") and name.endswith("__") and name not in ("__name__", "__doc__", "__dict__"):
            raise AttributeError(name)  # protocols that Python only probes for, such as that of copy
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
        """Iterate over it there, item by item."""
        found = _ask(self, "op", "iter")
        return found if isinstance(found, Remote) else iter(found)


class CallableRemote(Remote):
    """An object of the other side that can be called."""

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


for _name in UNARY:
    if _name not in ("iter", "round"):
        setattr(Remote, f"__{_name}__", _operator(_name))
for _name in BINARY:
    setattr(Remote, f"__{_name.strip('_')}__", _operator(_name))
for _name in ("add", "sub", "mul", "truediv", "floordiv", "mod", "pow", "matmul", "and_", "or_", "xor"):
    setattr(Remote, f"__r{_name.strip('_')}__", _operator(_name, flipped=True))
