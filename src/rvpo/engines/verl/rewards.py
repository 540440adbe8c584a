"""Our reward functions as verl's ``custom_reward_function``: one channel per function, one per criterion of a rubric.

::

    reward:
      num_workers: 8
      custom_reward_function:
        path: pkg://rvpo.engines.verl.rewards
        name: compute_score
        reward_kwargs:
          num_workers: ${reward.num_workers}    # so that the workers share a judge's limits
          rewards: [format, {function: correctness, weight: 2.0}]   # entries as in `rewards` of our recipes

What a reward function needs besides the completion comes from the row's ``extra_info`` (``rvpo verl-data`` writes it):

- ``prompt``: the JSON text of the chat (or plain text), because verl hands no prompt to a reward function.
- ``columns``: the JSON text of a mapping from names to values, the columns of the data.
- Any other key is a column, too, as are ``data_source`` and ``ground_truth``; the latter is also the column ``answer``
  where there is no other.

Each worker is a process with an event loop. It builds each reward function once; async ones are awaited there, others
run in threads, several at a time, so they must not share what a thread may not. Judges on a server keep their limits
over all workers, and share verdicts through an SQLite ``cache``: all processes that use one file must run on one
machine, so name a path on each machine's own disk. Without one, :mod:`rvpo.engines.verl.node_cache` chooses the file;
``cache: null`` shares nothing. A local judge works, but every worker loads its own copy of the model: set
``reward.num_workers`` accordingly.
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
"""Names that verl, or we, give another meaning: a missing ``acc``, for one, is a 0 in verl's validation."""

VALIDATION = "rvpo_validation"
"""In the ``extra_info`` of a rollout of a validation: :class:`rvpo.engines.verl.losses.AgentLoopWorker` adds it."""

_KEYWORDS = ("rewards", "num_workers", "wanted", "judge_twice", "run")
_FROM_VERL = ("reward_router_address", "reward_model_tokenizer")  # passed where verl serves a reward model itself
_building = ForkedLock()
_logged: set[type[Exception]] = set()
_calls = itertools.count(1)  # completions that this worker has scored


async def compute_score(
    data_source: str,
    solution_str: str,
    ground_truth: Any,
    extra_info: Mapping[str, Any] | None = None,
    **reward_kwargs: Any,
) -> dict[str, float | str | None]:
    """Score one completion; see the module's text.

    A reward function that raises is a mistake of the run. verl would drop the completion, so the error is handed to
    our trainer instead, which stops with it.

    Args:
        data_source: of the row.
        solution_str: the completion's text without special tokens; it includes what tools said.
        ground_truth: of the row.
        extra_info: of the row.
        reward_kwargs: ``rewards``, ``num_workers`` and ``wanted``, see :func:`read_rewards`; ``judge_twice``, the share
            of the completions that is scored a second time, and ``run``, the folder of the run's checkpoints, which
            the task runner sets.

    Returns:
        - ``score``: the weighted sum of the rewards, scaled up to all weights where some are missing; NaN where all
          are. A weight that follows the training counts by its mean, because a worker does not know the step. For
          verl's own metrics only: the trainer uses the others, and refuses verl's own estimators.
        - under its name, the reward of each function that is one channel; None where missing, which verl's validation
          leaves out of its means.
        - ``rvpo_signal``, where ``reward_kwargs.wanted`` names rewards: see :mod:`rvpo.engines.verl.filtering`.
        - ``rvpo``, where there are rubrics: the text of :mod:`rvpo.engines.verl.wire`.
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
        if type(error) not in _logged:  # one traceback, not one a completion
            _logged.add(type(error))
            logger.exception("a reward function failed")
        failed: dict[str, float | str | None] = {"score": math.nan, wire.KEY: wire.write_error(error)}
        # A number of its own, so that verl's filter keeps the group and the error comes to the trainer.
        return failed | ({METRIC: float(secrets.randbits(40))} if reward_kwargs.get("wanted") is not None else {})


_Result = tuple[float | None, list[Score] | None]  # the reward, and the channels of a function that has its own


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
    if rows or second is not None:  # the same keys for all completions, whichever are scored a second time
        usage = {}
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
    """Return the function as it scores a completion for the second time: its judge decides anew, past any cache."""
    if not isinstance(function, JudgedReward):
        return function
    twin = copy.copy(function)  # with the same judge, and its limits
    twin.repeat = 1
    return twin


def _is_drawn(share: float, text: str, info: Mapping[str, Any]) -> bool:
    """Return whether a completion is among those that are scored a second time; the same whichever worker scores it."""
    drawn = hashlib.blake2b(f"{info.get('index')}\0{text}".encode("utf-8", "replace"), digest_size=8)
    return int.from_bytes(drawn.digest(), "big") < share * 2**64


@functools.cache
def _worker(pid: int) -> str:
    """Return the name of this process; a fork has another one."""
    return new_name()


def read_wanted(reward_kwargs: Mapping[str, Any], entries: Sequence[RewardSection]) -> list[str] | None:
    """Return the rewards that are to rank a group if verl's filter is to keep it; None if nothing is wanted of them.

    Raises:
        ConfigError: it is not a list of names of the rewards.
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
    """Return the number by which verl's filter tells groups; of a rubric, every criterion counts."""
    rewards = {
        str(entry.name): value if scores is None else {score.channel: score.value for score in scores}
        for entry, (value, scores) in zip(entries, results, strict=True)
    }
    return group_signal(rewards, wanted)


def read_rewards(reward_kwargs: Mapping[str, Any]) -> list[RewardSection]:
    """Check ``reward_kwargs`` and return its rewards, each with its name, and its range where it has one.

    Nothing is built, so that the trainer can read it, too.

    Args:
        reward_kwargs: ``rewards``, entries as in a recipe, and ``num_workers``, how many processes build them.

    Raises:
        ConfigError: an unknown key, an entry that cannot work, or a name that is taken.
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
                f"reward_kwargs.rewards.{i}.options.dropout is {entry.options['dropout']!r}, but verl tells a reward "
                "function no training step, on which the choice of criteria depends; expected 0. Drop it, or train "
                "with TRL"
            )
    names = [entry.name for entry in entries]
    for i, name in enumerate(names):
        if name in names[:i] or name in TAKEN:
            owner = "verl" if name in TAKEN else "another reward"
            raise ConfigError(
                f"reward_kwargs.rewards.{i} is called {name!r}, as {owner} is; expected a name of its own. Set `name`"
            )
    return entries


def plain_values(value: Any) -> Any:
    """Return a part of a config as plain lists and mappings."""
    return OmegaConf.to_container(value, resolve=True) if OmegaConf.is_config(value) else value


def check_rewards(entries: Sequence[RewardSection], workers: int, run: str | None = None) -> None:
    """Build every reward as the workers will, and ask judges on a server a first question: mistakes are found now.

    Args:
        entries: of the rewards.
        workers: how many processes build them.
        run: folder of the run's checkpoints.

    Raises:
        ConfigError: options of a reward cannot work.
        JudgeError: a judge cannot work.
    """
    for entry in entries:
        if entry.function == "code":  # the sandbox is wanted where the workers are
            continue
        # A local judge belongs on the workers' machines; what a class of the user's own needs, nobody knows here.
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
    with _building:  # of several threads, one builds
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
            f"reward {entry.name!r} has against='greedy', but a reward worker of verl has no policy to ask; expected "
            "'column' or a function: write replies into a column of the data, or train with TRL"
        )
    return reward


class _Row:
    """A completion with the columns of its prompt, as TRL hands them to a reward function."""

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
        """Return the reward, None where missing, and the channels of a function that has its own."""
        needed = [name for name in needed_arguments(function) if name not in entry.options]
        if lacking := [name for name in needed if name not in self._columns]:
            # verl hands over the answer and extra_info alone: criteria in reward_model.rubrics never come here.
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
        # An async function only makes its coroutine there.
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
    """Return an array as a list: a list in a parquet file comes as one, which a reward function of TRL never sees."""
    return value.tolist() if type(value).__module__ == "numpy" else value


def _prompt(value: Any) -> Any:
    """Return the chat, or plain text if it is not the JSON text of a chat; None if there is no prompt."""
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
