"""From a recipe's words to a judge. Needs no torch: `rvpo judge` works without it.

::

    judge: {kind: endpoint, base_url: "http://localhost:8000/v1", model: Qwen/Qwen2.5-7B-Instruct, cache: judge.sqlite}
    judge: {kind: endpoint, model: gpt-4.1-2025-04-14, ask: healthbench}     # HealthBench's own grader
    judge: {kind: local, model: models/my-judge}
    judge: {kind: rule}
    judge: {kind: "my_judges.py:MyJudge", strictness: 2}            # any class that follows rvpo.judges.Judge
    judge: {kind: mixed, default: small, judges: {small: {kind: local, …}, large: {kind: endpoint, …}}}

Criteria with a ``rule`` always go to the rule judge. On the command line, ``rule``, ``local:FOLDER``,
``http://host:port/v1#model`` or a YAML file with such a mapping says the same.
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
    """Build a judge from a mapping, or from the short form of the command line; see the module's text.

    Raises:
        ConfigError: unknown kind or option, or an option that cannot work.
    """
    values = short_form(spec) if isinstance(spec, str) else spec
    if not isinstance(values, Mapping) or not isinstance(values.get("kind"), str):
        raise ConfigError(f"judge is {values!r}; expected a mapping with `kind`: {', '.join(KINDS)}, or file.py:Class")
    if values["kind"] == "mixed":
        return _mixed(values)
    judge = _single(values)
    return judge if values["kind"] == RULE else MixedJudge({RULE: _class(RULE)(), "model": judge}, default="model")


def with_cache(spec: Any, path: Path) -> Any:
    """Return the spec, a short form as a mapping, with ``path`` as the cache of endpoint judges that name none.

    ``cache: null`` in the spec stays no cache.
    """
    return _each_endpoint(spec, lambda judge: {"cache": str(path), **judge})


def with_processes(spec: Any, processes: int) -> Any:
    """Return the spec for a run in which so many processes build it and share its limits and cache.

    Raises:
        ConfigError: the path of a cache is relative, which the processes would look for in different folders.
    """
    return _each_endpoint(spec, lambda judge: _shared(judge, processes))


def kinds(spec: Any) -> set[str]:
    """Return the kinds of judges that a spec names, those in a mixed one included."""
    values = short_form(spec) if isinstance(spec, str) else spec
    if not isinstance(values, Mapping):
        return {str(spec)}
    if values.get("kind") == "mixed" and isinstance(values.get("judges"), Mapping):
        return {kind for inner in values["judges"].values() for kind in kinds(inner)}
    return {str(values.get("kind"))}


def identity(spec: Any) -> dict[str, Any]:
    """Return what decides the verdicts of the judge of a spec, as plain JSON for records.

    That of an endpoint judge is its :meth:`~rvpo.judges.EndpointJudge.identity`, without server, key, cache and limits.
    The options of a class of yours, which could hold anything, are there by their digest alone, as are the
    weights of a local judge that lie in a folder.

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
                f"judge.cache is {cache!r}; expected an absolute path (or ~/…), as the processes of the run work in "
                "different folders: name a file on a disk of the machine"
            )
        cache = str(path)
    return {"processes": processes, **judge, "cache": cache}


def _each_endpoint(spec: Any, change: Callable[[Mapping[str, Any]], dict[str, Any]]) -> Any:
    """Return the spec, a short form as a mapping, with each endpoint judge in it changed."""
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
        raise ConfigError(f"judge.judges is {named!r}; expected a mapping of names to judges")
    judges: dict[str, Judge] = {RULE: _class(RULE)()}
    for name, spec in named.items():
        if not isinstance(spec, Mapping) or spec.get("kind") in (None, "mixed"):
            raise ConfigError(f"judge.judges.{name} is {spec!r}; expected a mapping with a `kind` that is not mixed")
        judges[name] = _single(spec)
    return MixedJudge(judges, default=values.get("default"))


def _class(kind: str) -> Callable[..., Any]:
    """Import a judge's class when it is wanted: aiohttp and transformers are heavy, and extras may be absent."""
    if kind in OURS:
        module, name, extra = OURS[kind]
        try:
            return cast("Callable[..., Any]", getattr(importlib.import_module(module), name))
        except ImportError as error:
            step = install_command(*extra.split(","))
            raise ConfigError(f"judge of kind {kind!r} needs the package {error.name}: {step}") from error
    if not is_object_spec(kind):
        allowed = f"{', '.join(KINDS)}, module:Class and file.py:Class"
        raise ConfigError(f"judge.kind is {kind!r}; expected {allowed}")
    return load_callable(kind, "judge")


def _make(cls: Callable[..., Any], options: Mapping[str, Any], where: str) -> Any:
    if "api_key" in options:
        raise ConfigError(
            f"{where}: api_key does not belong into a file: put the key into an environment variable, and that "
            "variable's name into api_key_env"
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
        raise ConfigError(f"{where} needs the option {lacking[0]!r}: add it")
    return cls(**options)


def short_form(spec: str) -> Any:
    """Return what a short form of the command line means: a mapping, or whatever the YAML file holds.

    Raises:
        ConfigError: it is no short form, or the file cannot be read.
    """
    if spec == "rule":
        return {"kind": "rule"}
    if spec.startswith(("http://", "https://")):
        base_url, _, model = spec.partition("#")
        if not model:
            raise ConfigError(f"judge {spec!r} names no model: write {base_url}#MODEL, as the server calls it")
        return {"kind": "endpoint", "base_url": base_url, "model": model}
    if spec.startswith("local:"):
        return {"kind": "local", "model": spec.removeprefix("local:")}
    path = Path(spec).expanduser()
    if path.suffix not in (".yaml", ".yml"):
        raise ConfigError(f"judge {spec!r}; expected rule, local:FOLDER, http://host:port/v1#MODEL, and a YAML file")
    try:
        values = strict_yaml.load_yaml(path.read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise ConfigError(
            f"judge {spec!r} cannot be read ({error}); expected a YAML file with `kind: …`: check the path"
        ) from error
    # A recipe's section may be pasted with its heading.
    return values["judge"] if isinstance(values, dict) and isinstance(values.get("judge"), dict) else values
