"""Check the options of an :class:`~rvpo.judges.endpoint.EndpointJudge`, before anything is paid for."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from contextlib import suppress
from typing import Any
from urllib.parse import urlsplit

from rvpo.errors import ConfigError
from rvpo.text.numbers import is_finite
from rvpo.text.quoting import quoted

CHOICES = {
    "verdict": ("boolean", "probability", "scale"),
    "ask": ("criterion", "rubric", "healthbench"),
    "structured": ("auto", "json_schema", "json_object", "none"),
}
AUTO = "auto"  # value of structured and temperature that depends on the option ask
MAX_CONCURRENCY = 1000  # maximum number of connections that the client opens

# Option -> lowest value, whether it must be whole, and whether it may be None.
_NUMBERS = {
    "concurrency": (1, True, False),
    "requests_per_minute": (1e-3, False, True),
    "tokens_per_minute": (1e-3, False, True),
    "timeout": (1e-3, False, False),
    "retries": (0, True, False),
    "max_calls": (0, True, True),
    "max_tokens": (0, True, True),
    "prompt_price": (0, False, True),
    "completion_price": (0, False, True),
    "temperature": (0, False, True),
    "max_output_tokens": (1, True, True),
    "processes": (1, True, True),
}


def check_options(options: Mapping[str, Any]) -> None:
    """Check all options of a judge, given by their names.

    Raises:
        ConfigError: an option cannot work. The message says what would.
    """
    for name, choices in CHOICES.items():
        if options[name] not in choices:
            raise ConfigError(f"{name}={options[name]!r}; expected one of {', '.join(choices)}; next step: choose one")
    for name, (lowest, whole, optional) in _NUMBERS.items():
        if (name, options[name]) != ("temperature", AUTO):
            _check_number(name, options[name], lowest, whole=whole, optional=optional)
    if options["concurrency"] > MAX_CONCURRENCY:
        raise ConfigError(f"concurrency={options['concurrency']}; expected 1 to {MAX_CONCURRENCY}; next step: lower it")
    _check_texts(options["model"], options["base_url"], options["api_key_env"], options["cache"])
    _check_combination(options)
    extra = options["extra_body"]
    if extra is not None and not isinstance(extra, Mapping):
        raise ConfigError(f"extra_body is {type(extra).__name__}; expected a mapping of JSON values; next step: fix it")
    try:
        json.dumps(dict(extra or {}))
    except (TypeError, ValueError) as error:
        raise ConfigError(
            f"extra_body contains a value that JSON cannot represent ({error}); expected JSON values; next step: fix it"
        ) from None


def _check_number(name: str, value: object, lowest: float, *, whole: bool, optional: bool) -> None:
    if value is None and optional:
        return
    kinds = (int,) if whole else (int, float)
    if isinstance(value, bool) or not isinstance(value, kinds) or not is_finite(value) or value < lowest:
        expected = f"a {'whole' if whole else 'finite'} number of at least {lowest:g}{' or None' if optional else ''}"
        raise ConfigError(f"{name}={value!r}; expected {expected}; next step: correct it")


def _check_texts(model: object, base_url: object, api_key_env: object, cache: object) -> None:
    if not isinstance(model, str) or not model.strip():
        raise ConfigError(f"model={model!r}; expected the name of the model on the server; next step: name it")
    if not isinstance(cache, str | None) or cache == "":
        raise ConfigError(f"cache={cache!r}; expected the path of a file, or None; next step: name a file")
    # The value may be the key itself, by mistake, so it is not repeated.
    if not isinstance(api_key_env, str) or not re.fullmatch(r"[A-Z_][A-Z0-9_]*", api_key_env):
        raise ConfigError(
            "api_key_env is not the name of an environment variable; expected a name in capitals such as "
            "OPENAI_API_KEY, never the key itself; next step: export the key under that name"
        )
    if base_url is not None:
        check_url(base_url)


def check_url(base_url: object) -> None:
    """Check the URL of a server.

    Raises:
        ConfigError: it is not a URL of HTTP, or contains a secret.
    """
    parts = None
    if isinstance(base_url, str) and base_url.isascii() and base_url.isprintable():
        with suppress(ValueError):  # a broken port or address
            found = urlsplit(base_url)
            _ = found.port
            parts = found
    if parts is None or parts.scheme not in ("http", "https") or not parts.hostname:
        raise ConfigError(
            f"base_url={_shown(base_url)}; expected a URL such as 'http://localhost:8000/v1'; next step: correct it"
        )
    if parts.username or parts.password or parts.query:
        raise ConfigError(
            "base_url contains a user, password or query; expected a URL without these, because it is logged and "
            "stored; next step: put the secret into the environment variable that api_key_env names"
        )


def _shown(base_url: object) -> str:
    """Return an invalid URL for a message. It may be a key in the wrong place, or contain a password."""
    if not isinstance(base_url, str):
        return repr(base_url)[:80]
    scheme, found, rest = base_url.partition("://")
    if not found:
        return quoted(base_url) if len(base_url) < 12 else f"a text of {len(base_url)} characters without '://'"
    return quoted(f"{scheme}://{rest.rpartition('@')[2]}")


def _check_combination(options: Mapping[str, Any]) -> None:
    if options["verdict"] == "probability" and options["ask"] == "rubric":
        raise ConfigError(
            "verdict='probability' with ask='rubric'; expected ask='criterion', because a probability is read from the "
            "single word of an answer; next step: change one of them"
        )
    if options["ask"] == "healthbench" and (options["verdict"], options["explain"]) != ("boolean", False):
        raise ConfigError(
            f"ask='healthbench' with verdict={options['verdict']!r} and explain={options['explain']!r}; expected "
            "'boolean' and false, because its text already asks for an explanation and for true or false; next step: "
            "leave both out"
        )
    if options["explain"] is True and (options["ask"] == "rubric" or options["verdict"] == "probability"):
        raise ConfigError(
            f"explain=True with ask={options['ask']!r} and verdict={options['verdict']!r}; expected ask='criterion' "
            "with 'boolean' or 'scale'; next step: leave explain out"
        )
    for name in ("explain", "system_role"):
        if not isinstance(options[name], bool):
            raise ConfigError(f"{name}={options[name]!r}; expected true or false; next step: choose one")
