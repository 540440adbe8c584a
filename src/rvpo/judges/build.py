"""Build a judge from the values of a recipe. This module does not need torch, so `rvpo judge` works without it.

::

    judge: {kind: endpoint, base_url: "http://localhost:8000/v1", model: Qwen/Qwen2.5-7B-Instruct, cache: judge.sqlite}
    judge: {kind: endpoint, model: gpt-4.1-2025-04-14, ask: healthbench}     # HealthBench's own grader
    judge: {kind: local, model: models/my-judge}
    judge: {kind: rule}
    judge: {kind: "my_judges.py:MyJudge", strictness: 2}            # any class that follows rvpo.judges.Judge
    judge: {kind: mixed, default: small, judges: {small: {kind: local, …}, large: {kind: endpoint, …}}}

Criteria with a ``rule`` always go to the rule judge. On the command line, the short forms are ``rule``,
``local:FOLDER``, ``http://host:port/v1#model``, or a YAML file with such a mapping.
"""

from __future__ import annotations

import hashlib
import importlib
import inspect
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, cast

from rvpo.errors import ConfigError
from rvpo.extras import install_command
from rvpo.files import model_digest
from rvpo.importing import is_object_spec, load_callable
from rvpo.judges.mixed import RULE, MixedJudge
from rvpo.rewards.rubric import Judge
from rvpo.text import strict_yaml

OURS = {
    "endpoint": ("rvpo.judges.endpoint", "EndpointJudge", "judge"),
    "local": ("rvpo.judges.local", "LocalJudge", "trl"),
    RULE: ("rvpo.judges.rule", "RuleJudge", "judge"),
}
KINDS = (*OURS, "mixed")


def load_judge(spec: str | Mapping[str, Any]) -> Judge:
    """Build a judge from a mapping or from a short form of the command line.

    Args:
        spec: mapping with ``kind`` and the options of that judge, such as ``{"kind": "local", "model": "FOLDER"}``; or
            ``rule``, ``local:FOLDER``, ``http://host:port/v1#model`` or the path of a YAML file.

    Raises:
        ConfigError: the kind or an option is unknown, or an option cannot work.

    Example:
        >>> type(load_judge("rule")).__name__
        'RuleJudge'
    """
    values = short_form(spec) if isinstance(spec, str) else spec
    if not isinstance(values, Mapping) or not isinstance(values.get("kind"), str):
        raise ConfigError(f"judge is {values!r}; expected a mapping with `kind`: {', '.join(KINDS)}, or file.py:Class")
    if values["kind"] == "mixed":
        return _mixed(values)
    judge = _single(values)
    return judge if values["kind"] == RULE else MixedJudge({RULE: _class(RULE)(), "model": judge}, default="model")


def with_cache(spec: Any, path: Path) -> Any:
    """Return the spec as a mapping, with ``path`` as the cache of endpoint judges that do not name one.

    ``cache: null`` in the spec still means no cache.
    """
    return _each_endpoint(spec, lambda judge: {"cache": str(path), **judge})


def with_processes(spec: Any, processes: int) -> Any:
    """Return the spec for a run in which several processes build the judge and share its limits and cache.

    Raises:
        ConfigError: the path of a cache is relative. The processes would search for it in different folders.
    """
    return _each_endpoint(spec, lambda judge: _shared(judge, processes))


def kinds(spec: Any) -> set[str]:
    """Return the kinds of judges that a spec names, including those in a mixed judge."""
    values = short_form(spec) if isinstance(spec, str) else spec
    if not isinstance(values, Mapping):
        return {str(spec)}
    if values.get("kind") == "mixed" and isinstance(values.get("judges"), Mapping):
        return {kind for inner in values["judges"].values() for kind in kinds(inner)}
    return {str(values.get("kind"))}


def identity(spec: Any) -> dict[str, Any]:
    """Return everything that decides the verdicts of a judge, as plain JSON for records.

    For an endpoint judge, this is :meth:`~rvpo.judges.EndpointJudge.identity`, without server, key, cache and limits.
    Options of your own class, which could contain anything, are replaced by their digest. For a local judge in a
    folder, the digest of its weights is added.

    Raises:
        ConfigError: see :func:`load_judge`.
    """
    values = short_form(spec) if isinstance(spec, str) else spec
    kind = values["kind"]
    if kind == "mixed":
        named = {name: identity(inner) for name, inner in values["judges"].items()}
        return {"kind": kind, "judges": named, "default": values.get("default")}
    options = {key: value for key, value in values.items() if key != "kind"}
    if kind == "endpoint":
        judge = _make(_class(kind), {**options, "cache": None}, f"judge of kind {kind!r}")
        return cast("dict[str, Any]", judge.identity())
    if kind == "local":
        kept = {key: value for key, value in options.items() if key not in ("device", "batch_tokens")}
        folder = Path(str(options.get("model"))).expanduser()
        return {"kind": kind, **kept, **({"sha256": model_digest(folder)} if folder.is_dir() else {})}
    if kind in OURS:
        return {"kind": kind, **options}
    digest = hashlib.sha256(json.dumps(options, sort_keys=True, default=str).encode()).hexdigest()
    return {"kind": kind, "options": digest}


def _shared(judge: Mapping[str, Any], processes: int) -> dict[str, Any]:
    cache = judge.get("cache")
    if isinstance(cache, str) and cache:
        path = Path(cache).expanduser()
        if not path.is_absolute():
            raise ConfigError(
                f"judge.cache is {cache!r}; expected an absolute path (or ~/…), because the processes of the run work "
                "in different folders. Name a file on a disk of the machine"
            )
        cache = str(path)
    return {"processes": processes, **judge, "cache": cache}


def _each_endpoint(spec: Any, change: Callable[[Mapping[str, Any]], dict[str, Any]]) -> Any:
    """Return the spec as a mapping, with a change applied to each endpoint judge in it."""
    values = short_form(spec) if isinstance(spec, str) else spec
    if not isinstance(values, Mapping):
        return spec
    if values.get("kind") == "endpoint":
        return change(values)
    if values.get("kind") == "mixed" and isinstance(values.get("judges"), Mapping):
        return {**values, "judges": {name: _each_endpoint(inner, change) for name, inner in values["judges"].items()}}
    return values


def _single(values: Mapping[str, Any]) -> Judge:
    kind = values["kind"]
    options = {key: value for key, value in values.items() if key != "kind"}
    judge = _make(_class(kind), options, f"judge of kind {kind!r}")
    methods = {name: getattr(judge, name, None) for name in ("judge", "check", "usage")}
    lacking = [name for name, method in methods.items() if not callable(method)]
    lacking += [f"async {name}" for name in ("judge", "check") if not inspect.iscoroutinefunction(methods[name])]
    if lacking:
        raise ConfigError(
            f"judge {kind!r} is a {type(judge).__name__} without {', '.join(lacking)}; expected a class with the "
            "three methods of rvpo.judges.Judge"
        )
    return cast("Judge", judge)


def _mixed(values: Mapping[str, Any]) -> Judge:
    if unknown := [key for key in values if key not in ("kind", "judges", "default")]:
        raise ConfigError(f"judge of kind 'mixed' has no option {unknown[0]!r}; it takes judges, default")
    named = values.get("judges")
    if not isinstance(named, Mapping) or not named:
        raise ConfigError(f"judge.judges is {named!r}; expected a mapping from names to judges")
    judges: dict[str, Judge] = {RULE: _class(RULE)()}
    for name, spec in named.items():
        if not isinstance(spec, Mapping) or spec.get("kind") in (None, "mixed"):
            raise ConfigError(f"judge.judges.{name} is {spec!r}; expected a mapping with a `kind` that is not mixed")
        judges[name] = _single(spec)
    return MixedJudge(judges, default=values.get("default"))


def _class(kind: str) -> Callable[..., Any]:
    """Import a judge's class only when needed: aiohttp and transformers are heavy, and extras may be absent."""
    if kind in OURS:
        module, name, extra = OURS[kind]
        try:
            return cast("Callable[..., Any]", getattr(importlib.import_module(module), name))
        except ImportError as error:
            step = install_command(*extra.split(","))
            raise ConfigError(f"judge of kind {kind!r} needs the package {error.name}: {step}") from error
    if not is_object_spec(kind):
        raise ConfigError(f"judge.kind is {kind!r}; expected one of {', '.join(KINDS)}, module:Class, file.py:Class")
    return load_callable(kind, "judge")


def _make(cls: Callable[..., Any], options: Mapping[str, Any], where: str) -> Any:
    if "api_key" in options:
        raise ConfigError(
            f"{where}: api_key must not be in a file. Put the key into an environment variable, and set api_key_env to "
            "the name of that variable"
        )
    parameters = inspect.signature(cls).parameters
    if unknown := [key for key in options if key not in parameters]:
        takes = ", ".join(parameters) or "none"
        raise ConfigError(f"{where} has no option {unknown[0]!r}; it takes {takes}")
    lacking = [
        name
        for name, parameter in parameters.items()
        if name not in options
        and parameter.default is parameter.empty
        and parameter.kind not in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD)
    ]
    if lacking:
        raise ConfigError(f"{where} needs the option {lacking[0]!r}. Add it")
    return cls(**options)


def short_form(spec: str) -> Any:
    """Return the mapping for a short form of the command line. For a YAML file, return its content.

    Raises:
        ConfigError: the text is not a short form, or the file cannot be read.

    Example:
        >>> short_form("http://localhost:8000/v1#my-model")
        {'kind': 'endpoint', 'base_url': 'http://localhost:8000/v1', 'model': 'my-model'}
    """
    if spec == "rule":
        return {"kind": "rule"}
    if spec.startswith(("http://", "https://")):
        base_url, _, model = spec.partition("#")
        if not model:
            raise ConfigError(f"judge {spec!r} does not name a model; expected {base_url}#MODEL")
        return {"kind": "endpoint", "base_url": base_url, "model": model}
    if spec.startswith("local:"):
        return {"kind": "local", "model": spec.removeprefix("local:")}
    path = Path(spec).expanduser()
    if path.suffix not in (".yaml", ".yml"):
        raise ConfigError(f"judge {spec!r}; expected rule, local:FOLDER, http://host:port/v1#MODEL, or a YAML file")
    try:
        values = strict_yaml.load_yaml(path.read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise ConfigError(
            f"judge {spec!r} cannot be read ({error}); expected a YAML file with `kind: …`. Check the path"
        ) from error
    # The section of a recipe may be pasted with its heading.
    return values["judge"] if isinstance(values, dict) and isinstance(values.get("judge"), dict) else values
