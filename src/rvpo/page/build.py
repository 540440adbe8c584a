"""Build a page from plain data.

Data from logs are hostile: a completion may contain ``</script>`` or other markup. They enter the file in one place, as
JSON without any character that has a meaning in HTML, and the scripts write them as text only. A
Content-Security-Policy supports this: the page may run only the scripts that it was built with, by their hashes, and
must not reach the network. A page that watches a run (``live``) may fetch itself.
"""

from __future__ import annotations

import base64
import hashlib
import html
import json
import math
import re
from collections.abc import Mapping
from functools import cache
from importlib.resources import files
from typing import Any, Final

from rvpo.errors import ConfigError, DataError
from rvpo.extras import install_command

SCHEMA: Final = "rvpo.report/1"
SCRIPTS: Final = (
    "rules.js",
    "dom.js",
    "charts.js",
    "samples.js",
    "cards.js",
    "diagnosis.js",
    "curves.js",
    "exploration.js",
    "comparison.js",
    "maps.js",
    "replay.js",
    "explorer.js",
    "page.js",
)
"""The scripts of the page, in the order in which they depend on each other."""

# Characters that are escaped inside JSON. HTML gives a meaning to < > &. Older JavaScript reads U+2028 and U+2029 as
# line ends. Lone surrogates, which a tokenizer can produce, are valid in JSON but not in UTF-8.
_UNSAFE: Final = re.compile("[<>&\u2028\u2029\ud800-\udfff]")
_SLOT: Final = re.compile(r"\{\{(\w+)\}\}")


def render(data: Mapping[str, Any]) -> str:
    """Return the text of the page, to be written as UTF-8.

    Args:
        data: plain JSON values of the schema ``rvpo.report/1``. A number that is not finite becomes null.

    Raises:
        ConfigError: plotly is not installed.
        DataError: the data have another schema, or contain a value that JSON cannot represent.
    """
    if data.get("schema") != SCHEMA:
        raise DataError(
            f"the schema of the report is {data.get('schema')!r}; expected {SCHEMA!r}. Make the data with the "
            "version of rvpo that renders it"
        )
    scripts = [_plotly(), *(_text(name) for name in SCRIPTS)]
    slots = {
        "policy": _policy(scripts, live=bool(data.get("live"))),
        "version": html.escape(_words(data.get("version"))),
        "title": html.escape(_words(data.get("title")) or "rvpo report"),
        "style": _text("page.css"),
        "data": embed(data),
        "scripts": "\n".join(f"<script>{script}</script>" for script in scripts),
    }
    # One pass, so that inserted text is not searched for slots.
    return _SLOT.sub(lambda slot: slots[slot[1]], _text("template.html"))


def embed(value: object) -> str:
    """Return a value as JSON that is safe inside a script element and can be encoded as UTF-8, for any texts in it.

    Raises:
        DataError: JSON cannot represent a value.

    Example:
        >>> embed({"text": "</script>", "score": float("nan")})
        '{"text":"\\\\u003c/script\\\\u003e","score":null}'
    """
    try:
        text = json.dumps(_finite(value), ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    except (TypeError, ValueError) as error:
        raise DataError(
            f"the data of the report is not plain JSON ({error}); expected numbers, texts, lists and mappings"
        ) from None
    return _UNSAFE.sub(lambda found: f"\\u{ord(found[0]):04x}", text)


def _finite(value: object) -> object:
    """Replace numbers that JSON cannot represent (NaN, infinity) with None."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {key: _finite(entry) for key, entry in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(entry) for entry in value]
    return value


def _words(value: object) -> str:
    """Return a value as a text that UTF-8 can encode."""
    return "" if value is None else str(value).encode("utf-8", "replace").decode("utf-8")


def _policy(scripts: list[str], *, live: bool) -> str:
    """Return the Content-Security-Policy: only these scripts, and no network.

    Plotly styles its drawings with attributes and its own style element. This needs 'unsafe-inline', for styles only.
    """
    hashes = " ".join(
        f"'sha256-{base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()}'" for script in scripts
    )
    return "; ".join(
        (
            "default-src 'none'",
            f"script-src {hashes}",
            "style-src 'unsafe-inline'",
            "img-src data: blob:",
            "connect-src 'self'" if live else "connect-src 'none'",
            "base-uri 'none'",
            "form-action 'none'",
        )
    )


@cache
def _text(name: str) -> str:
    return files(__package__).joinpath("assets", name).read_text(encoding="utf-8")


@cache
def _plotly() -> str:
    try:
        from plotly.offline import get_plotlyjs
    except ImportError:
        raise ConfigError(f"a report needs plotly, which is not installed: {install_command('report')}") from None
    script: str = get_plotlyjs()
    if re.search(r"</script|<!--", script, re.IGNORECASE):
        raise ConfigError("this version of plotly cannot be embedded in a page; install another version")
    return script
