"""The global names of a test: its own, then those of the program, which runs in another process."""

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
"""Prefix of names that always mean the program's, even if a built-in has the same name."""


class Scope(Names):
    """Names are searched here, then in the program, then in Python's builtins.

    A built-in name means the built-in, even if the program defines it, too: a program with an ``abs`` that always
    returns 0 would pass every test of closeness. The exceptions are the names in ``prefer``, which the test is about.
    """

    def __init__(self, peer: Peer, prefer: Iterable[str]) -> None:
        """Start with only the built-in names.

        Args:
            peer: process of the program.
            prefer: built-in names that mean the program's.
        """
        super().__init__(__name__="test", __builtins__=builtins)
        self._peer, self._prefer = peer, frozenset(prefer)

    def __missing__(self, name: str) -> Any:
        """Ask the program for a name. Raises KeyError if the built-in is meant, or if the name does not exist."""
        if name.startswith(OWN):
            try:
                return self._peer.ask("global", None, name[len(OWN) :])
            except KeyError:
                raise AttributeError(f"the program does not define {name[len(OWN) :]}") from None
        if hasattr(builtins, name) and name not in self._prefer:
            raise KeyError(name)
        return self._peer.ask("global", None, name)
