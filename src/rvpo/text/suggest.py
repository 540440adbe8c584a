"""Suggest the existing name that is closest to what the user wrote."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


def did_you_mean(seen: object, allowed: Iterable[object]) -> str:
    """Return `` (did you mean 'name'?)`` if one of the allowed names is close to what was seen, or an empty text.

    Args:
        seen: the value that is not allowed.
        allowed: the allowed values. Only texts are suggested.
    """
    close = difflib.get_close_matches(str(seen), [name for name in allowed if isinstance(name, str)], n=1)
    return f" (did you mean {close[0]!r}?)" if close else ""
