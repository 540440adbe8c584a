"""Recipes: one YAML file that defines a run completely. An unknown key or a wrong type is an error.

::

    name: my-run                    # the run's folder is {output}/{name}
    model: {path: org/model-or-folder}
    data: {path: prompts.jsonl}     # options of rvpo.data.load_prompts
    rewards: [format, {function: my_rewards.py:politeness, weight: 0.5}]   # or weight: linear(0.2,1)
    method: lift:kappa=3            # or rvpo:k=linear(0.5,2), or {name: lift, kappa: 3}, or my_rules.py:cvar
    trainer: {max_steps: 100, num_generations: 8}    # any option of trl.GRPOConfig

``rvpo train recipe.yaml trainer.max_steps=20`` overrides single values.
"""

from __future__ import annotations

import reprlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainSerializer,
    ValidationError,
    ValidationInfo,
    WrapValidator,
    model_validator,
)
from pydantic_core import PydanticCustomError

from rvpo.core.methods.registry import METHODS, build_method, is_known, read_text, spell
from rvpo.core.weights import plain_weight, read_weight
from rvpo.errors import ConfigError
from rvpo.step.structure.spelling import build_structures
from rvpo.text import strict_yaml
from rvpo.text.suggest import did_you_mean

MOVED = {"missing": "missing_rewards", "eps": "advantage_eps", "ddof": "advantage_ddof"}
"""Former options of the section ``method``, and their names among the options of the trainer."""

GONE = {
    "reliability": "the reliability of a channel is set in Python, with RVPOTrainer(…, "
    "reliability=Reliability({'name': 0.6})) of rvpo.step.trust. Drop it"
}
"""Former keys of a recipe, and what to use instead."""

RECORDED = "recorded"
"""Context of the validation if the recipe comes from the folder of a run."""


class _Strict(BaseModel):
    """A section that is frozen, refuses unknown keys, and does not convert types: ``seed: true`` is not 1."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class ModelSection(_Strict):
    """The policy that is trained."""

    path: str = Field(description="Folder or hub id of a causal language model.")
    gguf_file: str | None = Field(None, description="Name of a GGUF file in that folder.")
    dtype: str = Field("float32", pattern="^(float32|bfloat16|float16)$", description="Dtype of the weights.")
    peft: dict[str, Any] | None = Field(None, description="Options of peft.LoraConfig; None trains all weights.")


class DataSection(_Strict):
    """Prompts and references: the options of :func:`rvpo.data.load_prompts`."""

    path: str
    layout: str = "auto"
    prompt_column: str = "prompt"
    reference_columns: dict[str, str] | None = None
    rubric_keys: dict[str, str] | None = None
    pitfalls: str | None = None
    missing_rubrics: str = "error"
    subset: str | None = None
    split: str | None = None
    system_prompt: str | None = None
    image_column: str = "auto"
    max_prompt_chars: int | None = None
    shuffle_seed: int | None = None
    offset: int = 0
    limit: int | None = None


def _number_or_schedule(value: Any, as_number: Callable[[Any], Any]) -> Any:
    """Return a weight as a number, or a schedule as its text, so that equal weights give equal recipes."""
    if not isinstance(value, str | Mapping):
        return as_number(value)
    try:
        return plain_weight(read_weight(value, "this reward"))
    except ConfigError as error:
        raise PydanticCustomError("weight", "{why}", {"why": str(error)}) from error


if TYPE_CHECKING:
    _Weight = float | str
else:
    _Weight = Annotated[
        float,
        Field(ge=0, allow_inf_nan=False),
        WrapValidator(_number_or_schedule),
        PlainSerializer(lambda weight: weight, return_type=float | str),
    ]


class RewardSection(_Strict):
    """One channel."""

    function: str = Field(description="Built-in name, module:function or file.py:function.")
    name: str | None = Field(
        None, pattern=r"^\w[\w.-]*$", description="Name of the channel; default: the function's own."
    )
    weight: _Weight = Field(1.0, description="Importance: a number, or a text such as linear(0.2,1) or alternate(1,0).")
    range: tuple[float, float] | None = Field(
        None,
        strict=False,
        description="Lowest and highest reward; default: the function's own, otherwise [0, 1] or learned.",
    )
    options: dict[str, Any] = {}


class WarmStartSection(_Strict):
    """Supervised training before reinforcement learning, with ``trl.SFTTrainer``."""

    data: DataSection
    output: str | None = Field(
        None, description="Folder of the warm-started model; runs with the same folder share it."
    )
    trainer: dict[str, Any] = Field({}, description="Options of trl.SFTConfig.")


class BenchmarkSection(_Strict):
    """One benchmark that is evaluated during training."""

    benchmark: Literal["bfcl", "gpqa", "healthbench", "toolcall", "code", "math"]
    name: str | None = Field(None, pattern=r"^\w[\w.-]*$", description="Name in logs; default: the benchmark's own.")
    options: dict[str, Any] = Field({}, description="Options of the benchmark: path, limit, …; see docs/evals.md")
    generation: dict[str, Any] = Field({}, description="max_tokens, temperature, top_p, seed.")


class EvalsSection(_Strict):
    """Benchmarks during training on small fixed sets. They show the best checkpoint, and how much the last one lost."""

    every: int = Field(ge=1, description="Steps between two evaluations.")
    batch_size: int = Field(16, ge=1, description="Items generated together in each process.")
    benchmarks: list[BenchmarkSection] = Field(min_length=1)


def _reward_entry(value: object) -> object:
    return {"function": value} if isinstance(value, str) else value


def _method_text(value: Any, info: ValidationInfo) -> str:
    """Return a method as text, so that equal methods give equal recipes."""
    name, options = _taken_apart(value)
    if info.context == RECORDED and isinstance(value, str) and not is_known(name):
        return value  # a record is data: names in it are never imported
    if name in METHODS and (moved := [option for option in options if option in MOVED]):
        written = ", ".join(f"{MOVED[option]}: {options[option]}" for option in moved)
        raise ConfigError(
            f"method has the option {moved[0]} ({options[moved[0]]!r}), but that is an option of the trainer; expected "
            f"it there. Write `trainer: {{{written}}}`"
        )
    return spell(build_method(value))


def _taken_apart(method: Any) -> tuple[str, dict[str, Any]]:
    """Return name and options of a text or mapping; both are empty for other values."""
    if isinstance(method, str):
        return read_text(method)
    if isinstance(method, Mapping):
        return str(method.get("name", "")), {str(key): value for key, value in method.items() if key != "name"}
    return "", {}


def _structure_texts(value: Any) -> list[str]:
    """Return structures as texts, so that equal structures give equal recipes."""
    return [str(one) for one in build_structures(value)]


def _name_list(value: Any) -> Any:
    return [value] if isinstance(value, str) else value


class Recipe(_Strict):
    """Definition of a run. See the docstring of the module for an example."""

    name: str = Field(pattern=r"^\w[\w.-]*$")
    output: str = "runs"
    seed: int = 0
    model: ModelSection
    data: DataSection
    eval_data: DataSection | None = None
    rewards: list[Annotated[RewardSection, BeforeValidator(_reward_entry)]] = Field(min_length=1)
    method: Annotated[str, BeforeValidator(_method_text)] = Field(
        "rvpo",
        validate_default=True,
        description="How rewards become advantages: text such as lift:kappa=3, a mapping with name and options, or "
        "my_rules.py:cvar for a method of your own. Stored as text.",
    )
    structure: Annotated[list[str], BeforeValidator(_structure_texts)] = Field(
        [],
        description="Dependencies between rewards, applied before the method: all_of(a,b), gate(safe), "
        "only_where(style,correct); see docs/structure.md. Stored as texts.",
    )
    monitor: Annotated[list[str], BeforeValidator(_name_list)] = Field(
        [], description="Names of rewards that are scored and logged, but never decide an advantage."
    )
    warm_start: WarmStartSection | None = None
    evals: EvalsSection | None = None
    trainer: dict[str, Any] = {}

    @model_validator(mode="after")
    def _combinations(self) -> Recipe:
        channels = [entry.name or entry.function for entry in self.rewards]
        for i, channel in enumerate(channels):
            if channel in channels[:i]:
                raise ConfigError(f"rewards.{i}: another channel is also {channel!r}; expected another `name`. Set it")
        sets = [entry.name or entry.benchmark for entry in self.evals.benchmarks] if self.evals else []
        for i, name in enumerate(sets):
            if name in sets[:i]:
                raise ConfigError(f"evals.benchmarks.{i}: another is also {name!r}; expected another `name`. Set it")
        return self

    @property
    def folder(self) -> Path:
        """The run's folder."""
        return Path(self.output).expanduser() / self.name


_SECTIONS: Mapping[str, type[_Strict]] = {
    "model": ModelSection,
    "data": DataSection,
    "eval_data": DataSection,
    "rewards": RewardSection,
    "warm_start": WarmStartSection,
    "evals": EvalsSection,
    "benchmarks": BenchmarkSection,
}


def load_recorded_recipe(path: str | Path) -> Recipe:
    """Read the recipe in a run's folder, also of an older version; see :func:`load_recipe`."""
    return _build(migrated(_read(path, ())), str(path), RECORDED)


def load_recipe(path: str | Path, overrides: Sequence[str] = ()) -> Recipe:
    """Read a recipe and apply ``key=value`` overrides.

    Raises:
        ConfigError: the file cannot be read, an override is malformed, or the recipe cannot work. The message names
            every offending field with the value seen.
    """
    return build_recipe(_read(path, overrides), str(path))


def load_data_sections(path: str | Path, overrides: Sequence[str] = ()) -> dict[str, DataSection]:
    """Read only ``data`` (as ``"train"``) and ``eval_data`` (as ``"eval"``, if present) of a recipe.

    Raises:
        ConfigError: see :func:`load_recipe`.
    """
    values = _read(path, overrides)
    try:
        return {
            split: DataSection.model_validate(values.get(section))
            for split, section in (("train", "data"), ("eval", "eval_data"))
            if section == "data" or values.get(section) is not None
        }
    except ValidationError as error:
        problems = [
            f"{'.'.join(map(str, e['loc'])) or 'data'}: {e['msg']}, seen {reprlib.repr(e['input'])}"
            for e in error.errors()[:_SHOWN]
        ]
        allowed = ", ".join(DataSection.model_fields)
        raise ConfigError(f"{path}, section data: {'; '.join(problems)}; its keys are {allowed}") from error


def _read(path: str | Path, overrides: Sequence[str]) -> dict[str, Any]:
    path = Path(path)
    try:
        values = strict_yaml.load_yaml(path.read_text("utf-8"))
    except OSError as error:
        raise ConfigError(f"recipe {path}: cannot be read ({error.strerror}); check the path") from error
    except ValueError as error:  # also if the text is not UTF-8
        raise ConfigError(f"recipe {path} is not YAML: {error}") from error
    if not isinstance(values, dict):
        raise ConfigError(f"recipe {path} contains {type(values).__name__}; expected a mapping of sections")
    for override in overrides:
        _override(values, override)
    return values


def build_recipe(values: Mapping[str, Any], where: str = "recipe") -> Recipe:
    """Build a recipe from plain values; see :func:`load_recipe` for the errors."""
    if "schedule" in values:
        raise ConfigError(f"{where}: {_without_schedule(values)}")
    return _build(values, where)


_SHOWN = 20  # largest number of problems in a message


def _build(values: Mapping[str, Any], where: str, context: str | None = None) -> Recipe:
    try:
        return Recipe.model_validate(dict(values), context=context)
    except ValidationError as error:
        problems = error.errors()
        lines = [f"  {_problem(e)}" for e in problems[:_SHOWN]]
        if len(problems) > _SHOWN:
            lines.append(f"  and {len(problems) - _SHOWN} more")
        raise ConfigError(f"{where} cannot work:\n" + "\n".join(lines)) from error


def _without_schedule(values: Mapping[str, Any]) -> str:
    """Return the message for a recipe with a section ``schedule``, which is now an option of the method."""
    schedule = values["schedule"]
    seen = f"schedule is {'null' if schedule is None else repr(schedule)}, but k is an option of the method now"
    if schedule is None:
        return f"{seen}; expected no `schedule`. Drop it, and name a method as text, such as method=gdpo"
    name, options = _taken_apart(values.get("method"))
    if name not in ("", "rvpo"):
        return f"{seen}, and method {name!r} has no k; expected no `schedule`. Drop it, or write method=rvpo:k=2"
    written = "method: rvpo:k=linear(0.5,2)"
    try:
        options.pop("k", None)
        now = migrated({"method": options, "schedule": schedule})
        written = f"method: {spell(build_method(now['method']))}"
        if now["trainer"]:
            written += "` and `trainer: {" + ", ".join(f"{key}: {value}" for key, value in now["trainer"].items()) + "}"
    except ConfigError:  # the recipe did not work before, either
        pass
    return f"{seen}; expected no `schedule`. Drop it and write `{written}`"


def migrated(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return the recipe of an older run in today's form, with the method as one text."""
    values = dict(values)
    schedule = values.pop("schedule", None)
    method = values.get("method", {} if schedule is not None else None)
    if isinstance(method, Mapping):
        method = {"name": "rvpo", **method}
        if schedule is not None and method["name"] == "rvpo":
            method["k"] = _k_of_schedule(schedule)
        trainer = {new: method.pop(old) for old, new in MOVED.items() if old in method}
        if isinstance(score := method.get("score"), Mapping) and "method" in score:
            method["score"] = {("name" if key == "method" else key): value for key, value in score.items()}
        values |= {"method": method, "trainer": {**(values.get("trainer") or {}), **trainer}}
    if isinstance(values.get("rewards"), list):
        values["rewards"] = [_without_reliability(entry) for entry in values["rewards"]]
    return values


def _k_of_schedule(schedule: Any) -> Any:
    """Return k as an option of the method. A schedule without a kind was constant; without a start it began at 1."""
    if not isinstance(schedule, Mapping) or schedule.get("kind") == "adaptive":
        return schedule
    whole = {"kind": "constant", "start": 1.0, **schedule}
    return whole["start"] if whole["kind"] == "constant" else whole


def _without_reliability(entry: Any) -> Any:
    if isinstance(entry, Mapping) and entry.get("reliability", 0) is None:
        return {key: value for key, value in entry.items() if key != "reliability"}
    return entry


def _problem(error: Any) -> str:
    if error["type"] == "value_error":  # a ConfigError: its message names the field
        return str(error["ctx"]["error"])
    field = ".".join(map(str, error["loc"]))
    if error["type"] == "extra_forbidden":
        *above, key = [part for part in error["loc"] if isinstance(part, str)]
        if key in GONE:
            return f"{field} is {error['input']!r}; expected no such key: {GONE[key]}"
        allowed = (_SECTIONS[above[-1]] if above else Recipe).model_fields
        return f"{field}: unknown key{did_you_mean(key, allowed)}; expected one of {', '.join(allowed)}"
    seen = "" if error["type"] == "missing" else f", seen {reprlib.repr(error['input'])}"
    return f"{field}: {error['msg']}{seen}"


def _override(values: dict[str, Any], text: str) -> None:
    """Set ``a.b.c=value`` in nested mappings. The value is YAML. A number is an index into a list."""
    dotted, equals, raw = text.partition("=")
    if not equals or not dotted:
        raise ConfigError(f"override {text!r} is not key=value, for example trainer.max_steps=20")
    node: Any = values
    *parents, last = dotted.split(".")
    if parents == ["method"]:
        _take_method_apart(values, last, raw, text)
    for i, key in enumerate(parents):
        if isinstance(node, dict) and node.get(key) is None:
            node[key] = {}
        node = _item(node, key, ".".join(parents[: i + 1]), text)
    try:
        value = strict_yaml.load_yaml(raw)
    except ValueError as error:
        raise ConfigError(f"override {text!r}: the value is not YAML: {error}") from error
    if isinstance(node, list):
        _item(node, last, dotted, text)
        node[int(last)] = value
    elif isinstance(node, dict):
        node[last] = value
    else:
        above = ".".join(parents)
        raise ConfigError(
            f"override {text!r}: {above} is {node!r}, which has no keys: set it whole, {above}='{{{last}: {raw}, …}}'"
        )


def _take_method_apart(values: dict[str, Any], key: str, raw: str, text: str) -> None:
    """Turn a method that is a text into a mapping, so that an override can set one key."""
    if isinstance(method := values.get("method", "rvpo"), str):
        name, options = read_text(method)
        if key == "name" and options:
            raise ConfigError(
                f"override {text!r}: method is {method!r}, whose options belong to {name}; expected another method as "
                f"a whole, method={raw}"
            )
        values["method"] = {"name": name, **options}


def _item(node: Any, key: str, where: str, text: str) -> Any:
    if isinstance(node, dict):
        return node[key]
    if isinstance(node, list) and key.isdecimal() and int(key) < len(node):
        return node[int(key)]
    raise ConfigError(f"override {text!r}: there is no {where} to set; lists are indexed from 0")
