"""``algorithm.adv_estimator``: reads any spelling of a method, and writes it so that every process reads the same.

::

    algorithm:
      adv_estimator: lift                                   # a method of rvpo
      adv_estimator: "rvpo:k=linear(0.5,2)"                 # with options
      adv_estimator: {name: rvpo, k: "linear(0.5,2)"}       # the same as a mapping
      adv_estimator: my_rules.py:cvar:alpha=0.25            # your own method
      adv_estimator: grpo-multi                             # our GRPO, on the weighted sum of the rewards
      adv_estimator: grpo                                   # verl's own, like every other name of verl

On a command line, Hydra expects quotes around a value with ``=``, ``,``, ``(`` or ``{``. :func:`quoted` adds them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from rvpo.core.methods.base import Method
from rvpo.core.methods.registry import METHODS, build_method, is_known, known_methods, read_text, spell
from rvpo.engines.verl.placeholder import Placeholder
from rvpo.engines.verl.rewards import plain_values
from rvpo.errors import ConfigError
from rvpo.text.suggest import did_you_mean

OPTION = "algorithm.adv_estimator"

GRPO_NAMES = ("grpo-multi", "grpo_multi")
"""Names of GRPO on the weighted sum of the channels. Plain ``grpo`` is verl's own estimator."""

ESTIMATORS = tuple(GRPO_NAMES[0] if name == "grpo" else name for name in METHODS)
"""Names of rvpo's methods in verl. Options follow a name, as in any text of a method."""

REGISTERED = "rvpo:advantages"
"""The only name that we register among verl's estimators. The trainer sets it, and writes the method to
``algorithm.rvpo.method``, so that verl's loggers show both.
"""


def read_method(config: DictConfig) -> Method | None:
    """Return the method that ``algorithm.adv_estimator`` chooses; None for verl's own estimators.

    Raises:
        ConfigError: the value is not a method or estimator, or an option of the method cannot work.
    """
    given = _given(config)
    if given is None:
        return None
    name, options = given
    return build_method({"name": name, **options})


def spell_out(config: DictConfig) -> None:
    """Write the method back to the config as one text, because verl's config expects text.

    The file of a user's method is named by its absolute path, because the trainer may run in another folder.
    """
    given = _given(config)
    if given is not None:
        name, options = given
        config.algorithm.adv_estimator = _text(name, build_method({"name": name, **options}))


def register(config: DictConfig, method: Method) -> None:
    """Choose our estimator in verl, and write the method to where verl's loggers show it."""
    given = _given(config)
    assert given is not None, "the trainer only runs for our methods"
    OmegaConf.update(config, "algorithm.rvpo.method", _text(given[0], method), force_add=True)
    config.algorithm.adv_estimator = REGISTERED


def quoted(arguments: Sequence[str]) -> list[str]:
    """Quote the values of ``algorithm.adv_estimator`` in command-line arguments, as Hydra requires.

    >>> quoted(["algorithm.adv_estimator=lift:kappa=3", "trainer.nnodes=2"])
    ['algorithm.adv_estimator="lift:kappa=3"', 'trainer.nnodes=2']
    """
    return [_quoted(argument) for argument in arguments]


def belongs_to_methods(key: str) -> bool:
    """Whether a key under ``algorithm.rvpo`` is an option of methods, now or in older versions."""
    return key in _of_methods() or key in _BEFORE


def written_now(method: Method, given: Mapping[str, Any]) -> str:
    """Return the current spelling of such options under ``algorithm.rvpo``: a text of the method, or an example."""
    known = _of_methods()
    options = {key: value for key, value in given.items() if key in known}
    if (kind := given.get("k_schedule")) in ("linear", "cosine"):
        options["k"] = f"{kind}({given.get('k', 0.5)},{given.get('k_final', 2)})"
    elif kind == "adaptive" or "k_adaptive" in given:
        adaptive = given.get("k_adaptive")
        options["k"] = {"kind": "adaptive", **adaptive} if isinstance(adaptive, Mapping) else "adaptive"
    if "variance_beta" in given:
        options["beta"] = given["variance_beta"]
    own = given.get("method_options")
    options |= own if isinstance(own, Mapping) else {}
    for name, chosen in ((method.name, method.options()), *((name, {}) for name in METHODS)):
        try:
            return _with_our_grpo(spell(build_method({"name": name, **chosen, **options})))
        except ConfigError:  # the option belongs to another method, or has a value that cannot work
            continue
    return "rvpo:k=linear(0.5,2)" if any(key.startswith("k_") for key in given) else "lift:kappa=3,margin=0.1"


def _of_methods() -> set[str]:
    return {name for method in METHODS.values() for name in method.__dataclass_fields__}


_BEFORE = ("k_schedule", "k_final", "k_adaptive", "variance_beta", "method_options")


def _given(config: DictConfig) -> tuple[str, dict[str, Any]] | None:
    """Return name and options of the method, or None for verl's own estimators."""
    from verl.trainer.ppo.core_algos import ADV_ESTIMATOR_REGISTRY

    given = plain_values(config.algorithm.adv_estimator)
    if given == REGISTERED:
        given = (plain_values(config.algorithm.get("rvpo")) or {}).get("method")
        if given is None:
            raise ConfigError(
                f"{OPTION} is {REGISTERED!r}, the name under which verl calls rvpo; expected the method itself, such "
                f"as {OPTION}=lift"
            )
    theirs = [
        key
        for key, function in ADV_ESTIMATOR_REGISTRY.items()
        if key != REGISTERED and not isinstance(function, Placeholder) and (key not in METHODS or key == "grpo")
    ]
    if isinstance(given, str):
        if given in theirs:
            return None
        name, options = read_text(given)
    elif isinstance(given, dict) and isinstance(given.get("name"), str):
        options = dict(given)
        name = options.pop("name")
    else:
        raise ConfigError(
            f"{OPTION} is {given!r}; expected a text such as 'lift:kappa=3' or a mapping such as {{name: lift, kappa: "
            "3}"
        )
    if name in GRPO_NAMES:
        return "grpo", options
    if name in theirs:
        hint = f". rvpo's GRPO is {GRPO_NAMES[0]}" if name == "grpo" else ""
        raise ConfigError(
            f"{OPTION} is {given!r}, but {name!r} is verl's own estimator, which takes no options here; expected "
            f"{OPTION}={name}{hint}"
        )
    if not is_known(name) and ":" not in name:
        ours = [*ESTIMATORS, *(own for own in known_methods() if own not in METHODS)]
        raise ConfigError(
            f"{OPTION} is {given!r}{did_you_mean(name, [*ours, *theirs])}; expected a method of rvpo "
            f"({', '.join(ours)}), your own method such as my_rules.py:cvar, or an estimator of verl "
            f"({', '.join(theirs)})"
        )
    return name, options


def _text(name: str, method: Method) -> str:
    """Return the text of the method that was built from ``name``."""
    if ":" in name and method.name != name:
        return _absolute(name)  # an object in a file, which sets its options in that file
    return _with_our_grpo(spell(_found_everywhere(method)))


def _with_our_grpo(text: str) -> str:
    name, colon, options = text.partition(":")
    return f"{GRPO_NAMES[0]}{colon}{options}" if name == "grpo" else text


def _found_everywhere(method: Method) -> Method:
    """Return the method with absolute paths of its files, also in its options."""
    options = method.options()
    found = {key: _found_everywhere(value) for key, value in options.items() if isinstance(value, Method)}
    name = _absolute(method.name)
    if name == method.name and all(found[key] is options[key] for key in found):
        return method
    return build_method({"name": name, **options, **found})


def _absolute(name: str) -> str:
    where, _, own = name.rpartition(":")
    path = Path(where).expanduser().absolute()
    # In a text, "=" would end the name.
    return f"{path}:{own}" if where.endswith(".py") and path.is_file() and "=" not in str(path) else name


def _quoted(argument: str) -> str:
    key, _, value = argument.partition("=")
    if key.lstrip("+") != OPTION or value[:1] in ("", '"', "'", "{") or "\\" in value or "=" not in value:
        return argument
    return f'{key}="{value.replace(chr(34), chr(92) + chr(34))}"'
