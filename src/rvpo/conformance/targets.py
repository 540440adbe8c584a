"""Build a target from the name that the user wrote.

::

    METHOD, METHOD:option=value      a method by name: lift, rvpo:k=2
    trl:grpo, trl:gdpo               the advantages of TRL's own trainer
    verl:NAME                        an estimator of verl's registry
    package.module:NAME              a method of your own, a function (z, p) or a class derived from rvpo.Method, with
                                     options as above; or an advantage function (rewards, groups)
    folder/file.py:NAME              likewise
"""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import rvpo
from rvpo.conformance.calling import by_completions, by_tokens
from rvpo.conformance.target import CHANNELS, STYLES, TRAITS, Spec, Target
from rvpo.core.checks import plain_value, require
from rvpo.core.methods.base import Method
from rvpo.core.methods.registry import build_method, is_known, known_methods, read_text
from rvpo.core.methods.rvpo import RVPO
from rvpo.errors import ConfigError, EngineError
from rvpo.extras import install_command
from rvpo.importing import load_object
from rvpo.text.suggest import did_you_mean

ENGINES = ("trl", "verl")
RANGE = (-8.0, 8.0)
"""The declared range of every channel, for methods that compare how far channels are met."""

NUMBERS = ("eps", "ddof", "rtol", "missing")
"""Options that all methods share, and that :func:`rvpo.advantages` takes by name."""

BY_COMPLETIONS = (
    "f(rewards, groups), an advantage function. If it is a method f(z, p), name its parameters z and p, or pass "
    "--style method"
)
"""How a function is called whose parameters have other names."""

THRESHOLD = 0.5
"""Threshold for ``lagrangian``, which needs one: the same for every channel, so that their order does not matter."""


def resolve(spec: Spec) -> Target:
    """Return the target of a name.

    Raises:
        ConfigError: the name does not exist, or cannot be called in this style.
        EngineError: the engine is not installed.
    """
    require("style", spec.style, STYLES)
    require("channels", spec.channels, CHANNELS)
    for trait in spec.traits:
        require("declared trait", trait, tuple(TRAITS))
    head, _, rest = spec.name.partition(":")
    name = read_text(spec.name)[0]
    if head == "rvpo" and is_known(rest.partition("?")[0]):
        own = rest.replace("?", ":", 1).replace("&", ",")
        raise ConfigError(f"the function to check is {spec.name!r}; expected the name of a method. Write {own}")
    if is_known(name) or is_known(head):
        return _of_method(spec)
    if head in ENGINES and rest:
        return _engine(spec, head, rest)
    if ":" not in name:
        raise ConfigError(
            f"the function to check is {spec.name!r}{did_you_mean(name, known_methods())}; expected a method (such as "
            "lift or rvpo:k=2), trl:grpo, trl:gdpo, verl:ESTIMATOR (such as verl:gdpo), package.module:function or "
            "path/to/file.py:function"
        )
    found = load_object(name, "function to check")
    if spec.style == "method" or _is_method(found):
        return _of_method(spec)
    if name != spec.name:
        raise ConfigError(
            f"the function to check is {spec.name!r}, but {name} is not a method (z, p) -> A; expected {name} with "
            "--option key=value"
        )
    return replace(from_function(found, spec), spec=spec)


def _is_method(found: Any) -> bool:
    """Return whether an object is a method: a class or object of rvpo.Method, or a function (z, p) -> A."""
    if isinstance(found, Method) or (isinstance(found, type) and issubclass(found, Method)):
        return True
    return not isinstance(found, type) and list(_signature(found) or ())[:2] == ["z", "p"]


def from_function(function: Callable[..., Any], spec: Spec) -> Target:
    """Return the target of a function object. Without a name, another process cannot build it.

    Raises:
        ConfigError: the function cannot be called in this style.
    """
    if not callable(function):
        raise ConfigError(f"{spec.name} is a {type(function).__name__}; expected something that can be called")
    parameters = _signature(function)
    style = _guess(spec, parameters) if spec.style == "auto" else spec.style
    _check_call(spec, style, parameters)
    traits = frozenset(spec.traits)
    if style == "completions":
        answer = by_completions(function, spec.options, spec.k_name)
        return Target(
            spec.name,
            answer,
            has_k=spec.k_name is not None,
            one_channel=spec.channels == "one",
            traits=traits,
            called="" if "rewards" in (parameters or ()) else BY_COMPLETIONS,
        )
    one = spec.channels == "one" or (spec.channels == "auto" and "non_tensor_batch" not in (parameters or {}))
    answer = by_tokens(function, spec.options, spec.k_name)
    return Target(spec.name, answer, by_tokens=True, has_k=spec.k_name is not None, one_channel=one, traits=traits)


def parse_options(entries: list[str], what: str) -> dict[str, Any]:
    """Read ``key=value`` entries. Values have the syntax of a method's text, such as ``2``, ``true`` or ``{a:0.5}``.

    Raises:
        ConfigError: an entry has no ``=``, or a key is given twice.
    """
    options: dict[str, Any] = {}
    for entry in entries:
        key, equals, value = entry.partition("=")
        if not equals or not key.isidentifier() or key in options:
            raise ConfigError(f"{what} is {entry!r}; expected key=value, such as k=2.0, each key once")
        options[key] = plain_value(value)
    return options


def _of_method(spec: Spec) -> Target:
    """Return the target of a method, ours or yours, which is called on a first batch with the options of the spec.

    Raises:
        ConfigError: the method does not have an option, or a value cannot work.
    """
    if spec.style == "tokens" or spec.channels == "one":
        raise ConfigError(
            f"{spec.name} is called by completions, with many channels: drop --style tokens and --channels one, or "
            "name a function"
        )
    name, written = read_text(spec.name)
    own = {key: value for key, value in spec.options.items() if key not in NUMBERS}
    if twice := [key for key in own if key in written]:
        raise ConfigError(f"{twice[0]} is in {spec.name!r} and in --option {twice[0]}={own[twice[0]]}; set one of them")
    own = {**written, **own}
    method = _built(name, own, 1)
    fixed_k = isinstance(method, RVPO) and not method.remembers and not method.needs_progress
    k_name = spec.k_name or ("k" if fixed_k else None)
    if k_name is not None:
        _built(name, {**own, k_name: 1.0}, 1)  # wrong options fail here and not at the first call
    for trait in method.traits:
        require(f"trait of {spec.name}", trait, tuple(TRAITS))
    traits = {*method.traits, *spec.traits} | ({"complete-only"} if spec.options.get("missing") == "error" else set())

    def advantages(rewards: Any, groups: Any, **given: Any) -> Any:
        numbers = {key: given.pop(key) for key in NUMBERS if key in given}
        channels = rewards.shape[1]
        return rvpo.advantages(
            rewards,
            groups,
            _built(name, given, channels),
            ranges=[RANGE] * channels,
            progress=0.5,
            state={},
            **numbers,
        )

    answer = by_completions(advantages, {**written, **spec.options}, k_name)
    return Target(spec.name, answer, has_k=k_name is not None, traits=frozenset(traits), spec=spec)


def _built(name: str, options: Mapping[str, Any], channels: int) -> Method:
    """Build a method. ``lagrangian`` without thresholds gets the same threshold for all channels."""
    if name == "lagrangian" and "thresholds" not in options:
        options = {**options, "thresholds": {str(j): THRESHOLD for j in range(channels)}}
    return build_method(name, options)


def _engine(spec: Spec, engine: str, name: str) -> Target:
    """Return an engine's own function, from the engine's adapter."""
    try:
        adapter = importlib.import_module(f"rvpo.engines.{engine}.conformance")
    except ModuleNotFoundError as error:
        raise EngineError(
            f"{spec.name} needs {engine}, and {error.name} is not installed here: {install_command(engine)}"
            + (", in an environment of its own" if engine == "verl" else "")
        ) from error
    target: Target = adapter.target(spec, name)
    return replace(target, traits=target.traits | frozenset(spec.traits), spec=spec)


def _signature(function: Callable[..., Any]) -> Mapping[str, inspect.Parameter] | None:
    try:
        return inspect.signature(function).parameters
    except (TypeError, ValueError):  # a builtin without a signature
        return None


def _guess(spec: Spec, parameters: Mapping[str, inspect.Parameter] | None) -> str:
    names = set(parameters or {})
    if names & {"token_level_rewards", "response_mask"}:
        return "tokens"
    if names & {"rewards", "groups"}:
        return "completions"
    raise ConfigError(
        f"{spec.name} has the parameters {', '.join(sorted(names)) or 'unknown'}, from which --style auto cannot find "
        "out how to call it: pass --style completions for f(rewards, groups) or --style tokens for verl's "
        "f(token_level_rewards, response_mask, index, …)"
    )


def _check_call(spec: Spec, style: str, parameters: Mapping[str, inspect.Parameter] | None) -> None:
    """Raise before the first call for a function that cannot be called this way."""
    if parameters is None:
        return
    signature = inspect.Signature(list(parameters.values()))
    options = {**spec.options, **({spec.k_name: 1.0} if spec.k_name else {})}
    swallows = any(p.kind is p.VAR_KEYWORD for p in parameters.values())
    try:
        if style == "completions":
            signature.bind(None, None, **options)
        else:
            standard = ("index", "config", "non_tensor_batch", "batch")
            given = {key: None for key in (*standard, *options) if swallows or key in parameters}
            signature.bind(**{"token_level_rewards": None, "response_mask": None, **given})
    except TypeError as error:
        called = "f(rewards, groups" if style == "completions" else "f(token_level_rewards, response_mask, index, …"
        other = "tokens" if style == "completions" else "completions"
        raise ConfigError(
            f"{spec.name} takes ({', '.join(parameters)}), and --style {style} calls "
            f"{called}{''.join(f', {key}=' for key in options)}), which does not fit ({error}): pass --style {other}, "
            "or an --option for each argument that it needs. A method has the parameters z and p"
        ) from error
