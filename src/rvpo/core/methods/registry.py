"""All methods by name, and how methods are written as text.

A method is an object, a text or a mapping. The three are equivalent wherever a method is accepted::

    rvpo.LIFT(kappa=3, margin=0.3)      "lift:kappa=3,margin=0.3"      {"name": "lift", "kappa": 3, "margin": 0.3}

A method of your own is named by its place: ``my_rules.py:cvar`` or ``package.module:CVaR``, with options after another
colon as above. It is a class that is derived from :class:`rvpo.Method`, or a function ``(z, p) -> A``. A package can
also register a name in the entry-point group ``rvpo.methods``.
"""

from __future__ import annotations

import importlib.metadata
import json
import math
import re
from collections.abc import Mapping
from dataclasses import fields
from functools import partial
from typing import Any

from rvpo.core.checks import outside_brackets, plain_value
from rvpo.core.methods.adaptive_k import AdaptiveK
from rvpo.core.methods.base import Method, place_of
from rvpo.core.methods.corr_grpo import CorrGRPO
from rvpo.core.methods.ctwa import CTWA
from rvpo.core.methods.dara import DARA
from rvpo.core.methods.dvao import DVAO
from rvpo.core.methods.function import FunctionMethod
from rvpo.core.methods.gd2po import GD2PO
from rvpo.core.methods.gdpo import GDPO
from rvpo.core.methods.grpo import GRPO
from rvpo.core.methods.lagrangian import Lagrangian
from rvpo.core.methods.lift import LIFT
from rvpo.core.methods.lift_z import LIFTZ
from rvpo.core.methods.mgda import MGDA
from rvpo.core.methods.riskpo import RiskPO
from rvpo.core.methods.rvpo import RVPO, HardMin, RVPOExplicit
from rvpo.core.methods.sa_mrpo import SAMRPO
from rvpo.core.methods.saw import SAW
from rvpo.core.methods.tchebycheff import SmoothTchebycheff, Tchebycheff
from rvpo.core.methods.verpo import VeRPO
from rvpo.core.schedules import Schedule
from rvpo.errors import ConfigError
from rvpo.importing import load_object
from rvpo.text.suggest import did_you_mean

METHODS: Mapping[str, type[Method]] = {
    method.name: method
    for method in (
        RVPO,
        RVPOExplicit,
        HardMin,
        GDPO,
        GRPO,
        LIFT,
        LIFTZ,
        Tchebycheff,
        SmoothTchebycheff,
        Lagrangian,
        CTWA,
        RiskPO,
        DARA,
        SAMRPO,
        SAW,
        DVAO,
        CorrGRPO,
        GD2PO,
        VeRPO,
        MGDA,
    )
}
"""The methods of this package, by name."""

ENTRY_POINTS = "rvpo.methods"
"""Group of entry points in which other packages register methods by name."""


def build_method(spelling: Any, options: Mapping[str, Any] | None = None, *, known_only: bool = False) -> Method:
    """Return the method of an object, a text or a mapping.

    Args:
        spelling: an object, its class, a text, or a mapping with ``name``; see the docstring of the module.
        options: further options, by name.
        known_only: whether to refuse methods that are named by their place (also inside options) instead of importing
            them. Use it for text from a record, which did not come from the user.

    Raises:
        ConfigError: a method or option is unknown, an option is given twice, or a value cannot work.

    Example:
        >>> build_method("lift:kappa=3") == build_method({"name": "lift", "kappa": 3}) == LIFT(kappa=3)
        True
    """
    more = dict(options or {})
    if isinstance(spelling, Method):
        if more:
            raise _unusable(more, f"method is the object {spelling!r}; set its options where it is built")
        if spelling.name in METHODS and type(spelling) is not METHODS[spelling.name] and spelling.available:
            raise ConfigError(
                f"{type(spelling).__qualname__} has the name {spelling.name!r}, which is a method of rvpo; expected a "
                "different name. Leave `name` out to name it by its place"
            )
        return spelling
    if isinstance(spelling, str):
        name, own = read_text(spelling)
    elif isinstance(spelling, Mapping):
        own = {str(key): value for key, value in spelling.items()}
        name = own.pop("name", None)
        if not isinstance(name, str):
            raise ConfigError(f"method is {spelling!r}; expected a mapping with a name, such as {{'name': 'lift'}}")
        if ":" in name and "=" in name:
            raise ConfigError(f"method name is {name!r}; expected options as keys of the mapping, not in the name")
    elif callable(spelling):
        return _from_object(spelling, more, place_of(spelling))
    else:
        raise ConfigError(
            f"method is {spelling!r}; expected a text such as 'lift:kappa=3', a mapping such as {{'name': 'lift'}} or "
            "an object such as rvpo.LIFT()"
        )
    if twice := [key for key in more if key in own and own[key] != more[key]]:
        raise ConfigError(
            f"{twice[0]} is {more[twice[0]]!r}, but method {spelling!r} has {own[twice[0]]!r}; set one of them"
        )
    return _named(name, {**own, **more}, known_only)


def read_text(text: str) -> tuple[str, dict[str, Any]]:
    """Split ``NAME:option=value,option=value`` into name and options.

    >>> read_text("rvpo:k=linear(0.5,2)")
    ('rvpo', {'k': 'linear(0.5,2)'})
    >>> read_text("my_rules.py:cvar:alpha=0.5")
    ('my_rules.py:cvar', {'alpha': 0.5})

    Raises:
        ConfigError: an option has no value, or is given twice.
    """
    head, equals, _ = text.partition("=")
    if not equals:
        return text.strip(), {}
    name, _, first = head.rpartition(":")
    if not name:
        raise ConfigError(f"method is {text!r}; expected NAME:option=value, such as lift:kappa=3")
    options: dict[str, Any] = {}
    for part in outside_brackets(first + text[len(head) :], ","):
        key, equals, value = part.partition("=")
        key = key.strip()
        if not equals or not value.strip() or key in options:
            raise ConfigError(
                f"method is {text!r}, and its part {part.strip()!r} is not option=value, each option once; expected "
                "NAME:option=value,option=value, such as lift:kappa=3,margin=0.3"
            )
        options[key] = plain_value(value)
    return name.strip(), options


def read_texts(text: str) -> list[Method]:
    """Build the methods of a text that separates them by spaces, such as ``gdpo rvpo:k=2 lift:kappa=4``."""
    return [build_method(part.strip().rstrip(",")) for part in outside_brackets(text.replace("\n", " "), " ")]


def spell(method: Method) -> str:
    """Return a method as text: its name, and the options that differ from their defaults.

    >>> spell(RVPO(2.0)), spell(LIFT(kappa=3)), spell(GDPO())
    ('rvpo:k=2', 'lift:kappa=3', 'gdpo')
    """
    default = method.defaults()
    shown = {
        name: value
        for name, value in method.options().items()
        if name in method.always_spelled or name not in default or value != default[name]
    }
    options = ",".join(f"{name}={_spelled(value)}" for name, value in shown.items())
    return f"{method.name}:{options}" if options else method.name


def as_mapping(method: Method) -> dict[str, Any]:
    """Return a method as a mapping of plain values with all its options, for records."""
    return {"name": method.name, **{name: _plain(value) for name, value in method.options().items()}}


def known_methods() -> tuple[str, ...]:
    """Return the names of all methods of this package and of those that other packages register."""
    return (*METHODS, *(name for name in _entry_points() if name not in METHODS))


def is_known(name: str) -> bool:
    """Return whether a name is a method of this package, or registered by another one. Nothing is imported."""
    return name in METHODS or name in _entry_points()


def help_text() -> str:
    """Return the help text of an option that takes a method: all names, and how options are written."""
    listed = "; ".join(f"{name}: {method.summary}" for name, method in METHODS.items())
    return (
        f"How rewards become advantages. {listed}. Options follow the name: lift:kappa=3,margin=0.3 or "
        "rvpo:k=linear(0.5,2). Your own: my_rules.py:cvar or package.module:CVaR."
    )


def _named(name: str, options: Mapping[str, Any], known_only: bool) -> Method:
    if name in METHODS:
        return _from_object(METHODS[name], options, name, known_only)
    if name in (registered := _entry_points()):
        return _from_object(registered[name].load(), options, name, known_only)
    if (head := name.partition(":")[0]) in METHODS:
        raise ConfigError(f"method is {name!r}; expected {head}:option=value, such as lift:kappa=3, or {head} alone")
    if ":" in name and not known_only:
        return _from_object(load_object(name, "method"), options, name)
    raise ConfigError(
        f"method is {name!r}{did_you_mean(name, known_methods())}; expected one of {', '.join(known_methods())}, or a "
        "method of your own as file.py:name or package.module:Name"
    )


def _from_object(found: Any, options: Mapping[str, Any], name: str, known_only: bool = False) -> Method:
    """Build a method from the class, object or function that its name refers to."""
    if isinstance(found, Method):
        if options:
            raise _unusable(options, f"{name} is an object: set its options where it is built")
        place, cls = name.rpartition(":")[0], type(found)
        if place.endswith(".py") and "." not in cls.__qualname__ and METHODS.get(found.name) is not cls:
            cls.name = f"{place}:{cls.__qualname__}"  # so that its text, with its options, can be read back
        return found
    if not isinstance(found, type):
        return FunctionMethod.of(found, name, options)
    if not issubclass(found, Method) or found is Method:
        raise ConfigError(
            f"{name} is the class {found.__name__}; expected a class that is derived from rvpo.Method, or a function "
            "(z, p) -> A"
        )
    if vars(found).get("__annotations__") and "__dataclass_fields__" not in vars(found):
        raise ConfigError(f"{name} is not a dataclass; expected @dataclass(frozen=True) above class {found.__name__}")
    if ":" in name and METHODS.get(found.name) is not found:
        found.name = name  # named by its place, so that its text can be read back
    _check_options(found, options, name)
    return found.from_options(options, partial(build_method, known_only=known_only))


def _check_options(found: type[Method], options: Mapping[str, Any], name: str) -> None:
    allowed = [option.name for option in fields(found)]
    for option, value in options.items():
        if option in allowed:
            continue
        own = [key for key in allowed if key not in ("whiten", "dead_channels")]
        owners = [method for method, cls in METHODS.items() if option in (f.name for f in fields(cls))]
        owners = [method for method in owners if method != LIFTZ.name] or owners  # do not suggest lift_z for new runs
        if option in found.former_options:
            hint = f". {found.former_options[option]}"
        elif owners:
            hint = f". Use method {' or '.join(owners)} for it"
        else:
            hint = did_you_mean(option, allowed)
        raise ConfigError(
            f"{option} is {value!r}, but method {name!r} has no option {option!r}{hint}; expected "
            f"{'one of ' + ', '.join(own) if own else 'no option'}, besides whiten and dead_channels"
        )


def _unusable(options: Mapping[str, Any], why: str) -> ConfigError:
    name, value = next(iter(options.items()))
    return ConfigError(f"{name} is {value!r}, but {why}")


def _entry_points() -> dict[str, importlib.metadata.EntryPoint]:
    return {entry.name: entry for entry in importlib.metadata.entry_points(group=ENTRY_POINTS)}


def _spelled(value: Any) -> str:
    """Return a value in the form of a text."""
    if isinstance(value, Method):
        return _spelled({"name": value.name, **value.options()})
    if isinstance(value, Mapping):
        return "{" + ",".join(f"{_quoted(str(name))}:{_spelled(item)}" for name, item in value.items()) + "}"
    if isinstance(value, list | tuple):
        return "[" + ",".join(map(_spelled, value)) + "]"
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float):
        return str(int(value)) if value.is_integer() and abs(value) < 1e15 else repr(value)
    return _quoted(value) if isinstance(value, str) and plain_value(_quoted(value)) != value else str(value)


def _quoted(text: str) -> str:
    """Return a text in the form of an option, in double quotes if it contains special characters."""
    return text if re.fullmatch(r"[\w./-]+", text) and plain_value(text) == text else json.dumps(text)


def _plain(value: Any) -> Any:
    """Return a value in the form of JSON."""
    if isinstance(value, Method):
        return as_mapping(value)
    if isinstance(value, Schedule | AdaptiveK):
        return str(value)
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    return value
