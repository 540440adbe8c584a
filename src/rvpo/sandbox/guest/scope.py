"""The global names of a test: its own, then the program's, which lives in another process."""

import builtins


class Scope(dict):
    """Names are looked for here, then in the program, then in Python's builtins.

    A name of Python's own means Python's own, even where the program defines it too: a program with an ``abs`` that
    is always 0 would pass each test of closeness. The exception are the names in ``prefer``, which the test is about.
    """

    def __init__(self, peer, names, prefer):
        super().__init__(__name__="test", __builtins__=builtins)
        self._peer, self._names, self._prefer = peer, set(names), frozenset(prefer)

    def __missing__(self, name):
        if hasattr(builtins, name) and name not in self._prefer:
            raise KeyError(name)
        value = self._peer.ask("global", None, name)
        return value
