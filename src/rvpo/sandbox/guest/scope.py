"""The global names of a test: its own, then the program's, which lives in another process."""

from __future__ import annotations

import builtins
from collections.abc import Iterable

from .peer import Peer

TYPE_CHECKING = False
if TYPE_CHECKING:  # importing typing takes longer than a small program
    from typing import Any

    Names = dict[str, Any]
else:
    Names = dict


OWN = "_program_"
"""Before a name: the program's, whatever Python's own of that name is."""


class Scope(Names):
    """Names are looked for here, then in the program, then in Python's builtins.

    A name of Python's own means Python's own, even where the program defines it too: a program with an ``abs`` that
    is always 0 would pass each test of closeness. The exception are the names in ``prefer``, which the test is about.
    """

    def __init__(self, peer: Peer, prefer: Iterable[str]) -> None:
        """Start with nothing but Python's own names.

        Args:
            peer: the program's process.
            prefer: names of Python's own that mean the program's.
        """
        super().__init__(__name__="test", __builtins__=builtins)
        self._peer, self._prefer = peer, frozenset(prefer)

    def __missing__(self, name: str) -> Any:
        """Ask the program for a name; KeyError where Python's own is meant, or where nobody has it."""
        if name.startswith(OWN):
            try:
                return self._peer.ask("global", None, name[len(OWN) :])
            except KeyError:
                raise AttributeError(f"the program does not define {name[len(OWN) :]}") from None
        if hasattr(builtins, name) and name not in self._prefer:
            raise KeyError(name)
        return self._peer.ask("global", None, name)
