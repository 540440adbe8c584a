"""Our reward functions as verl's ``custom_reward_function``: one channel per function, or per criterion of a rubric.

::

    reward:
      num_workers: 8
      custom_reward_function:
        path: pkg://rvpo.engines.verl.rewards
        name: compute_score
        reward_kwargs:
          num_workers: ${reward.num_workers}    # so that the workers share a judge's limits
          rewards: [format, {function: correctness, weight: 2.0}]   # entries as in `rewards` of our recipes

A reward function gets the completion, and other values from the row's ``extra_info`` (``rvpo verl-data`` writes it):

- ``prompt``: the JSON text of the chat (or plain text), because verl does not pass the prompt to a reward function.
- ``columns``: the JSON text of a mapping from names to values, the columns of the data.
- Any other key is a column, too. So are ``data_source`` and ``ground_truth``; ``ground_truth`` is also the column
  ``answer`` if the data does not have this column.

Each worker is a process with an event loop. It builds each reward function once. Async functions are awaited in the
event loop. Others run in threads, several at a time, so they must be thread-safe. The limits of a judge on a server
apply to all workers together. Workers share verdicts through an SQLite ``cache``. All processes that use one file must
run on one machine, so name a path on each machine's own disk. Without a path, :mod:`rvpo.engines.verl.node_cache`
chooses the file; with ``cache: null``, verdicts are not shared. A local judge works, but every worker loads its own
copy of the model, so set ``reward.num_workers`` accordingly.
"""

from __future__ import annotations

import asyncio
import copy
import functools
import hashlib
import inspect
import itertools
import logging
import math
import os
import reprlib
import secrets
from collections.abc import Mapping, Sequence
from typing import Any

from omegaconf import OmegaConf
from pydantic import ValidationError

from rvpo.core.ragged import Score
from rvpo.core.weights import mean_weight, read_weight
from rvpo.data.generic import strict_json
from rvpo.engines.verl import wire
from rvpo.engines.verl.filtering import METRIC, group_signal
from rvpo.engines.verl.node_cache import verdicts_of
from rvpo.errors import ConfigError, DataError, RewardError, RVPOError
from rvpo.forks import ForkedLock
from rvpo.judges.askers import new_name
from rvpo.judges.build import kinds, with_cache, with_processes
from rvpo.recipe import RewardSection
from rvpo.rewards.judged import JudgedReward
from rvpo.rewards.pairwise import PairwiseReward
from rvpo.rewards.registry import (
    FACTORIES,
    PASSED,
    RewardFunction,
    find_reward,
    gives_channels,
    load_reward,
    needed_arguments,
)
from rvpo.text.suggest import did_you_mean

logger = logging.getLogger(__name__)

TAKEN = (
    "score",
    "reward",
    "acc",
    "pred",
    "uid",
    "input",
    "output",
    "gts",
    "step",
    wire.MONITORED,
    wire.TOTALS,
    wire.SECOND,
    "error",
    wire.KEY,
    METRIC,
)
"""Names to which verl or rvpo gives another meaning. For example, a missing ``acc`` is a 0 in verl's validation."""

VALIDATION = "rvpo_validation"
"""Key that :class:`rvpo.engines.verl.losses.AgentLoopWorker` adds to the ``extra_info`` of a validation's rollouts."""

_KEYWORDS = ("rewards", "num_workers", "wanted", "judge_twice", "run")
_FROM_VERL = ("reward_router_address", "reward_model_tokenizer")  # verl passes these if it serves a reward model
_building = ForkedLock()
_logged: set[type[Exception]] = set()
_calls = itertools.count(1)  # numbers of the completions that this worker scores


async def compute_score(
    data_source: str,
    solution_str: str,
    ground_truth: Any,
    extra_info: Mapping[str, Any] | None = None,
    **reward_kwargs: Any,
) -> dict[str, float | str | None]:
    """Score one completion; see the text of this module.

    If a reward function raises, verl would drop the completion. So the error is passed to our trainer instead, which
    stops the run with it.

    Args:
        data_source: the row's ``data_source``.
        solution_str: the completion's text without special tokens, including the output of tools.
        ground_truth: the row's ``ground_truth``.
        extra_info: the row's ``extra_info``.
        reward_kwargs: ``rewards``, ``num_workers`` and ``wanted``, see :func:`read_rewards`. The task runner sets
            ``judge_twice``, the share of the completions that is scored a second time, and ``run``, the folder of the
            run's checkpoints.

    Returns:
        - ``score``: the weighted sum of the rewards. If some are missing, it is scaled up to the sum of all weights; if
          all are missing, it is NaN. A weight with a schedule counts with its mean, because a worker does not know the
          step. The score is only for verl's own metrics: our trainer uses the other values, and rvpo refuses verl's own
          estimators.
        - name of a function with one channel: its reward; None if it is missing, which verl's validation leaves out of
          its means.
        - ``rvpo_signal``, if ``reward_kwargs.wanted`` names rewards: see :mod:`rvpo.engines.verl.filtering`.
        - ``rvpo``, if there are rubrics: the text of :mod:`rvpo.engines.verl.wire`.
    """
    kwargs = {key: value for key, value in reward_kwargs.items() if key not in _FROM_VERL}
    try:
        entries = read_rewards(kwargs)
        workers, run = kwargs.get("num_workers", 1), kwargs.get("run")
        functions = [_function(entry.model_dump_json(), workers, run) for entry in entries]
        fields = {"data_source": data_source, "ground_truth": _as_list(ground_truth)}
        given = {name: _as_list(value) for name, value in (extra_info or {}).items()}
        share = 0.0 if given.pop(VALIDATION, False) else kwargs.get("judge_twice", 0.0)
        row = _Row(solution_str, fields, given)
        first = list(zip(entries, functions, strict=True))
        again = (
            [(entry, _again(function)) for entry, function in first] if _is_drawn(share, solution_str, given) else []
        )
        scored = await asyncio.gather(*(row.score(*pair) for pair in [*first, *again]))
        results, second = scored[: len(first)], scored[len(first) :]
        found = _returned(entries, functions, results, second if share else None)
        if (wanted := read_wanted(kwargs, entries)) is not None:
            found[METRIC] = _signal(entries, results, wanted)
        return found
    except Exception as error:
        if type(error) not in _logged:  # log one traceback, not one per completion
            _logged.add(type(error))
            logger.exception("a reward function failed")
        failed: dict[str, float | str | None] = {"score": math.nan, wire.KEY: wire.write_error(error)}
        # A random number, so that verl's filter keeps the group and the error reaches the trainer.
        return failed | ({METRIC: float(secrets.randbits(40))} if reward_kwargs.get("wanted") is not None else {})


_Result = tuple[float | None, list[Score] | None]  # the reward, and the channels if the function has several


def _returned(
    entries: Sequence[RewardSection],
    functions: Sequence[RewardFunction],
    results: Sequence[_Result],
    second: Sequence[_Result] | None,
) -> dict[str, float | str | None]:
    weights = [mean_weight(read_weight(entry.weight, str(entry.name))) for entry in entries]
    scored = [(weight, value) for weight, (value, _) in zip(weights, results, strict=True) if value is not None]
    part, whole = math.fsum(weight for weight, _ in scored), math.fsum(weights)
    score = math.fsum(weight * value for weight, value in scored) * whole / part if part else math.nan
    names = [str(entry.name) for entry in entries]
    named = dict(zip(names, results, strict=True))
    rows = {name: scores for name, (_, scores) in named.items() if scores is not None}
    monitored = {str(entry.name) for entry in entries if not gives_channels(entry.function, entry.options)}
    families = {name: scores for name, scores in rows.items() if name not in monitored}
    single = {name: value for name, (value, _) in named.items() if name not in families}
    found: dict[str, float | str | None] = {"score": score, **single}
    if rows or second is not None:  # all completions must have the same keys, also those that are scored once
        usage: dict[str, dict[str, Any]] = {}
        for name, function in zip(names, functions, strict=True):
            if isinstance(function, JudgedReward):
                usage[name] = function.judge.usage()
        found[wire.KEY] = wire.write(
            families,
            {name: scores for name, scores in rows.items() if name in monitored},
            wire.Totals(_worker(os.getpid()), next(_calls), usage) if usage else None,
            _second(dict(zip(names, second, strict=True)), single) if second else None,
        )
    return found


def _second(results: Mapping[str, _Result], single: Mapping[str, object]) -> wire.Second:
    return wire.Second(
        {name: value for name, (value, _) in results.items() if name in single},
        {name: scores for name, (_, scores) in results.items() if scores is not None},
    )


def _again(function: RewardFunction) -> RewardFunction:
    """Return the function for the second scoring: its judge gives a new verdict and does not read a cache."""
    if not isinstance(function, JudgedReward):
        return function
    twin = copy.copy(function)  # shares the judge and its limits
    twin.repeat = 1
    return twin


def _is_drawn(share: float, text: str, info: Mapping[str, Any]) -> bool:
    """Return whether a completion is scored a second time. The result does not depend on the worker."""
    drawn = hashlib.blake2b(f"{info.get('index')}\0{text}".encode("utf-8", "replace"), digest_size=8)
    return int.from_bytes(drawn.digest(), "big") < share * 2**64


@functools.cache
def _worker(pid: int) -> str:
    """Return the name of this process. A forked process gets another name."""
    return new_name()


def read_wanted(reward_kwargs: Mapping[str, Any], entries: Sequence[RewardSection]) -> list[str] | None:
    """Return the rewards of which one must rank a group, so that verl's filter keeps it; None if ``wanted`` is not set.

    Raises:
        ConfigError: ``wanted`` is not a list of names of the rewards.
    """
    wanted = plain_values(reward_kwargs.get("wanted"))
    if wanted is None:
        return None
    names = [str(entry.name) for entry in entries]
    if not isinstance(wanted, list) or not wanted or any(name not in names for name in wanted):
        raise ConfigError(
            f"reward_kwargs.wanted is {wanted!r}; expected a list of names of rewards, of {', '.join(names)}"
        )
    return wanted


def _signal(
    entries: Sequence[RewardSection],
    results: Sequence[tuple[float | None, list[Score] | None]],
    wanted: Sequence[str],
) -> float:
    """Return the number by which verl's filter compares completions. Every criterion of a rubric counts."""
    rewards = {
        str(entry.name): value if scores is None else {score.channel: score.value for score in scores}
        for entry, (value, scores) in zip(entries, results, strict=True)
    }
    return group_signal(rewards, wanted)


def read_rewards(reward_kwargs: Mapping[str, Any]) -> list[RewardSection]:
    """Check ``reward_kwargs`` and return its rewards, each with its name, and its range if it has one.

    The reward functions are not built, so the trainer can read the rewards, too.

    Args:
        reward_kwargs: ``rewards``, entries as in a recipe, and ``num_workers``, the number of workers that build them.

    Raises:
        ConfigError: a key is unknown, an entry cannot work, or a name is used already.
    """
    if unknown := [key for key in reward_kwargs if key not in _KEYWORDS]:
        hint = did_you_mean(unknown[0], _KEYWORDS)
        raise ConfigError(f"reward_kwargs.{unknown[0]} is not an option{hint}; expected {', '.join(_KEYWORDS)}")
    workers = reward_kwargs.get("num_workers", 1)
    if type(workers) is not int or workers < 1:
        raise ConfigError(
            f"reward_kwargs.num_workers is {workers!r}; expected a whole number of at least 1. Write "
            "${reward.num_workers}"
        )
    rewards = plain_values(reward_kwargs.get("rewards"))
    if not isinstance(rewards, Sequence) or isinstance(rewards, str) or not rewards:
        raise ConfigError(f"reward_kwargs.rewards is {rewards!r}; expected a list of at least one reward")
    entries = [_entry(i, value) for i, value in enumerate(rewards)]
    for i, entry in enumerate(entries):
        if entry.function == "rubric" and entry.options.get("dropout"):
            raise ConfigError(
                f"reward_kwargs.rewards.{i}.options.dropout is {entry.options['dropout']!r}, but verl passes "
                "no training step to a reward function, on which the choice of criteria depends; expected 0. Drop it, "
                "or train with TRL"
            )
    names = [entry.name for entry in entries]
    for i, name in enumerate(names):
        if name in names[:i] or name in TAKEN:
            owner = "verl" if name in TAKEN else "another reward"
            raise ConfigError(
                f"reward_kwargs.rewards.{i} is called {name!r}, as {owner} is; expected another name. Set `name`"
            )
    return entries


def plain_values(value: Any) -> Any:
    """Return a part of a config as plain lists and mappings."""
    return OmegaConf.to_container(value, resolve=True) if OmegaConf.is_config(value) else value


def check_rewards(entries: Sequence[RewardSection], workers: int, run: str | None = None) -> None:
    """Build every reward as the workers will, and ask judges on a server a first question, to find mistakes early.

    Args:
        entries: entries of the rewards.
        workers: number of processes that build them.
        run: folder of the run's checkpoints.

    Raises:
        ConfigError: options of a reward cannot work.
        JudgeError: a judge cannot work.
    """
    for entry in entries:
        if entry.function == "code":  # the sandbox is needed on the workers' machines, not here
            continue
        # A local judge runs on the workers' machines, and a user's own class may need resources of these machines.
        if "judge" in entry.options and not kinds(entry.options["judge"]) <= {"endpoint", "rule"}:
            continue
        reward = _load(entry, workers, run)
        if isinstance(reward, JudgedReward):
            asyncio.run(reward.check())


def _entry(i: int, value: object) -> RewardSection:
    try:
        entry = RewardSection.model_validate({"function": value} if isinstance(value, str) else value)
    except ValidationError as error:
        problem = error.errors()[0]
        field = ".".join(map(str, ("reward_kwargs", "rewards", i, *problem["loc"])))
        allowed = ", ".join(RewardSection.model_fields)
        raise ConfigError(
            f"{field}: {problem['msg']}, got {reprlib.repr(problem['input'])}; the keys of a reward are {allowed}"
        ) from error
    function = find_reward(entry.function)
    name = entry.name or (entry.function if entry.function in FACTORIES else getattr(function, "__name__", None))
    if entry.name is None and isinstance(function, type) and entry.function not in FACTORIES:
        raise ConfigError(
            f"reward_kwargs.rewards.{i} is the class {entry.function!r}; expected a `name` for its channel"
        )
    return entry.model_copy(update={"name": name, "range": entry.range or getattr(function, "reward_range", None)})


def _function(entry: str, workers: int, run: str | None) -> RewardFunction:
    with _building:  # only one of several threads builds
        return _build(entry, workers, run)


@functools.cache
def _build(text: str, workers: int, run: str | None) -> RewardFunction:
    return _load(RewardSection.model_validate_json(text), workers, run)


def _load(entry: RewardSection, workers: int, run: str | None) -> RewardFunction:
    options = dict(entry.options)
    if entry.function in FACTORIES and "judge" in options:
        if run is not None and "endpoint" in kinds(options["judge"]):
            options["judge"] = with_cache(options["judge"], verdicts_of(run))
        options["judge"] = with_processes(options["judge"], workers)
    if entry.function == "code":
        options.setdefault("processes", workers)
    reward = load_reward(entry.function, options, entry.name)
    if isinstance(reward, PairwiseReward) and reward.needs_greedy:
        raise ConfigError(
            f"reward {entry.name!r} has against='greedy', but a reward worker of verl cannot ask the policy; expected "
            "'column' or a function: write replies into a column of the data, or train with TRL"
        )
    return reward


class _Row:
    """A completion with the columns of its prompt, in the form in which TRL passes them to a reward function."""

    def __init__(self, text: str, fields: Mapping[str, Any], extra_info: dict[str, Any]) -> None:
        self._completion = [{"role": "assistant", "content": text}]
        self._prompt = _prompt(extra_info.pop("prompt", None))
        own = _columns(extra_info.pop("columns", "{}"))
        columns = {**fields, **extra_info, **own}
        truth = fields["ground_truth"]
        if "answer" not in columns and truth is not None and not (isinstance(truth, str) and not truth):
            columns["answer"] = truth
        self._columns = {name: value for name, value in columns.items() if name not in PASSED}

    async def score(self, entry: RewardSection, function: RewardFunction) -> tuple[float | None, list[Score] | None]:
        """Return the reward, None if missing, and the channels if the function has several."""
        needed = [name for name in needed_arguments(function) if name not in entry.options]
        if lacking := [name for name in needed if name not in self._columns]:
            # verl passes only the answer and extra_info: criteria in reward_model.rubrics do not arrive here.
            raise DataError(
                f"reward {entry.name!r} needs the column {lacking[0]!r}; the row has {sorted(self._columns)}, and verl "
                "passes no other part of it, such as reward_model.rubrics. Write the data with `rvpo verl-data "
                "recipe.yaml data.path=FILE --out FOLDER`, where FILE is what data.train_files names now, and set "
                "data.train_files to the file in that folder; or add the column to extra_info"
            )
        if self._prompt is None and "prompts" in inspect.signature(function).parameters:
            raise DataError(
                f"reward {entry.name!r} needs the prompt, and extra_info has none. Write the data with `rvpo "
                "verl-data`, or add the JSON text of the chat as extra_info.prompt"
            )
        if isinstance(function, JudgedReward):
            return await function.score_row(self._prompt, self._completion, self._columns)
        columns = {name: [value] for name, value in self._columns.items() if name not in entry.options}
        # For an async function, the thread only creates the coroutine.
        try:
            result = await asyncio.to_thread(
                function, prompts=[self._prompt], completions=[self._completion], **columns
            )
            result = await result if inspect.isawaitable(result) else result
        except RVPOError:
            raise
        except Exception as error:
            raise RewardError(f"reward {entry.name!r} failed: {type(error).__name__}: {error}") from error
        return _reward(str(entry.name), result), None


def _reward(name: str, result: Any) -> float | None:
    try:
        [value] = result
        number = math.nan if value is None else float(value)
    except (TypeError, ValueError) as error:
        raise RewardError(
            f"reward {name!r} returned {reprlib.repr(result)} for one completion; expected a list of one number, or "
            "None if it is missing"
        ) from error
    if math.isinf(number):
        raise RewardError(f"reward {name!r} is {number}; expected a finite number, or None if it is missing")
    return None if math.isnan(number) else number


def _as_list(value: Any) -> Any:
    """Return an array as a list. A list in a parquet file arrives as an array, but reward functions expect a list."""
    return value.tolist() if type(value).__module__ == "numpy" else value


def _prompt(value: Any) -> Any:
    """Return the chat, or the plain text if it is not the JSON text of a chat; None without a prompt."""
    return _list_or_dict(value, list) or value if isinstance(value, str) else value


def _columns(value: Any) -> dict[str, Any]:
    columns = _list_or_dict(value, dict)
    if columns is None:
        raise DataError(
            f"extra_info.columns is {reprlib.repr(value)}; expected the JSON text of a mapping from names to values. "
            "Write the data with `rvpo verl-data`"
        )
    return columns  # type: ignore[no-any-return]


def _list_or_dict(text: Any, kind: type) -> Any:
    try:
        value = strict_json(text)
    except (TypeError, ValueError, RecursionError):
        return None
    return value if isinstance(value, kind) else None
