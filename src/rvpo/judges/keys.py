"""Remove a key from texts of a server, in plain form and in the forms in which servers and proxies repeat it."""

from __future__ import annotations

import base64
import json
import re
from urllib.parse import quote, quote_plus

MASK = "***"
_LEAST = 4  # minimum length of a form to search for, because shorter ones occur in any text


class Scrubber:
    """Replaces one key by three stars.

    Example:
        >>> Scrubber("secret/key")("got secret/key and secret%2Fkey")
        'got *** and ***'
    """

    def __init__(self, key: str) -> None:
        """Prepare the forms of a key. For an empty key, texts stay unchanged."""
        forms = {form for form in _forms(key) if len(form) >= min(_LEAST, len(key) or _LEAST)} if key else set()
        longest_first = sorted(forms, key=len, reverse=True)
        self._pattern = re.compile("|".join(map(re.escape, longest_first)), re.IGNORECASE) if forms else None

    def __call__(self, text: str) -> str:
        """Return the text without the key."""
        return text if self._pattern is None else self._pattern.sub(MASK, text)


def _forms(key: str) -> set[str]:
    """Return the forms of a key in plain text, in URLs, in JSON, in base64 and in hexadecimal."""
    bare = key.encode()
    escaped = json.dumps(key)[1:-1]
    forms = {key, quote(key, safe=""), quote(key), quote_plus(key), escaped, escaped.replace("/", "\\/")}
    forms |= {repr(key)[1:-1], bare.hex(), "".join(f"\\u{ord(sign):04x}" for sign in key)}
    for offset in range(3):
        # In a longer text, base64 depends on the offset of the key. Only letters that the key alone decides are kept.
        whole = base64.b64encode(b"\0" * offset + bare).decode().rstrip("=")
        first = -(-offset * 8 // 6)
        last = (offset + len(bare)) * 8 // 6
        inner = whole[first:last]
        forms |= {inner, inner.translate(str.maketrans("+/", "-_"))}
    return forms
