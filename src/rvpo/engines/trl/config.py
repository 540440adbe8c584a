"""``RVPOConfig``: TRL's ``GRPOConfig`` plus the options of the aggregation."""

from __future__ import annotations

import dataclasses
import pickle
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any, Self

from transformers import Trainer
from trl import GRPOConfig

from rvpo.core.methods.gdpo import GDPO
from rvpo.core.methods.registry import build_method, spell
from rvpo.core.schedules import Schedule
from rvpo.core.weights import Alternate, Weight, check_weights, plain_weight, read_weight, weights_at
from rvpo.engines.trl.reward_timeout import DEFAULT_SECONDS, check_reward_timeout
from rvpo.errors import ConfigError
from rvpo.step.options import MAPPINGS, AggregationOptions

SUM, NORMALISED = "sum_then_normalize", "normalize_then_sum"
"""Values of TRL's ``multi_objective_aggregation``."""


_taken: ContextVar[bool] = ContextVar("rvpo_config_taken", default=False)
"""Whether the trainer that is being built is ours."""


@contextmanager
def taken() -> Iterator[None]:
    """Within the context, a config may be read by a trainer, because it is RVPOMixin that builds it."""
    token = _taken.set(True)
    try:
        yield
    finally:
        _taken.reset(token)


@dataclass
class RVPOConfig(AggregationOptions, GRPOConfig):  # type: ignore[misc]
    """Arguments of :class:`RVPOTrainer`: everything of ``trl.GRPOConfig``, and how rewards become advantages.

    ``method`` is a text (``"lift:kappa=3"``), a mapping or an object (``rvpo.LIFT(kappa=3)``). ``reward_weights``
    enters every method: a list, or a mapping by name of the reward function. A weight is a number, or follows the
    training as k can, such as ``"linear(0.2,1)"`` or ``"alternate(1,0)"``; see :mod:`rvpo.core.weights`. ``beta`` stays
    TRL's KL coefficient. See
    :class:`rvpo.step.options.AggregationOptions` for the rest.

    Two options of TRL are the method's business here, and mean the same as there:

    - ``scale_rewards="none"`` and ``"batch"`` are the method's ``whiten``: ``grpo:whiten=none`` (Dr. GRPO) and
      ``grpo:whiten=batch`` give TRL's advantages. ``"group"``, TRL's default, leaves the method its own way.
    - ``multi_objective_aggregation="normalize_then_sum"`` is method ``gdpo``.

    ``reward_timeout`` limits the seconds that an async reward function (rubrics included) may take for one batch. One
    that does not return in time is cancelled; the run saves a checkpoint and ends with a RewardError that names it. A
    sync function cannot be stopped safely: a warning names it, and the run waits on.

    Raises:
        ConfigError: for a value or combination that cannot work.
    """

    reward_timeout: float | None = field(
        default=DEFAULT_SECONDS,
        metadata={
            "help": "Seconds that an async reward function may take for one batch, after which the run saves a "
            "checkpoint and ends; keep it below ddp_timeout. A sync one is only warned of. None is no limit."
        },
    )

    skip_dead_groups: bool = field(
        default=False,
        metadata={
            "help": "Leave completions whose advantage is 0, as those of groups without signal, out of the forward and "
            "backward pass. The gradient stays the same; TRL's entropy and clip_ratio are then of the others alone. "
            "Not with beta, an entropy bonus, an auxiliary loss or images."
        },
    )

    _VALID_DICT_FIELDS = [*GRPOConfig._VALID_DICT_FIELDS, *MAPPINGS]  # noqa: RUF012 (transformers' own declaration)

    def __post_init__(self) -> None:
        """Check the options of both sides before anything is loaded."""
        self.reward_weights: list[float | str] | dict[str, float | str] | None = _as_plain(self.reward_weights)
        super().__post_init__()
        self._check_own()

    def _check_own(self) -> None:
        """Check what is not TRL's, after TRL's own checks."""
        check_reward_timeout(self.reward_timeout)
        if self.multi_objective_aggregation != SUM:
            _check_gdpo(self.method, self.multi_objective_aggregation)
        if self.scale_rewards != "group":
            self.method = _scaled(self.method, self.scale_rewards)
        _check_weights(self.reward_weights)
        self.check_aggregation()
        if self.advantage_config().whiten == "token":
            raise ConfigError(
                "whiten is 'token', which only verl's engine knows; expected batch, group or none. Drop it from "
                "`method`"
            )

    @classmethod
    def made_of(cls, args: GRPOConfig, options: Mapping[str, Any]) -> Self:
        """Return the arguments that an engine has built with a class of its own, with options of this class.

        TRL's part is taken as it is: its own checks fill in values that they refuse when they see them again.

        Args:
            args: of a base of this class.
            options: names and values of fields of this class.

        Raises:
            ConfigError: for a value or combination that cannot work.
        """
        made = object.__new__(cls)
        for field_ in dataclasses.fields(cls):
            if field_.name in vars(args):
                continue
            factory: Any = field_.default_factory
            made.__dict__[field_.name] = field_.default if factory is dataclasses.MISSING else factory()
        made.__dict__.update(vars(args))
        made.__dict__.update(options)
        made.reward_weights = _as_plain(made.reward_weights)
        made._check_own()
        return made

    @property
    def place_model_on_device(self) -> bool | None:
        """As of transformers. Only trainers read it, and each does when it is built: what is not ours is told so here.

        Raises:
            ConfigError: the trainer is not RVPOTrainer, so it would train as if ``method`` were not there.
        """
        _refuse_other_trainers(self, sys._getframe(1).f_locals.get("self"), always=True)
        placed: bool | None = super().place_model_on_device
        return placed

    def __getattr__(self, name: str) -> Any:
        """Tell a trainer that looks for an option of another algorithm what it has been given.

        Raises:
            ConfigError: the trainer is not RVPOTrainer.
            AttributeError: somebody else looks for it.
        """
        _refuse_other_trainers(self, sys._getframe(1).f_locals.get("self"), always=False)
        raise AttributeError(f"{type(self).__name__} has no option {name!r}")

    def __getstate__(self) -> dict[str, Any]:
        """Checkpoints hold the arguments: a method that cannot be pickled, such as a lambda, is kept as its text."""
        state = dict(self.__dict__)
        if not isinstance(self.method, str | dict):
            try:
                pickle.dumps(self.method)
            except Exception:  # whatever somebody's object raises
                state["method"] = spell(build_method(self.method))
        return state

    def to_dict(self) -> dict[str, Any]:
        """Return plain values; a method that is an object as its text."""
        values: dict[str, Any] = super().to_dict()
        if not isinstance(self.method, str | dict):
            values["method"] = spell(build_method(self.method))
        return values


@contextmanager
def numbers_of_weights(config: RVPOConfig, names: Sequence[str]) -> Iterator[list[Weight]]:
    """Within the context, ``reward_weights`` of a config are those of the first step, as a list for TRL.

    Args:
        config: of the trainer that is being built.
        names: of the reward functions, in order.

    Yields:
        The weights as they are meant, one per name; empty if none are given.
    """
    given = config.reward_weights
    if given is None:
        yield []
        return
    whole = [given.get(name, 1.0) for name in names] if isinstance(given, dict) else given
    if len(whole) != len(names):  # for TRL to refuse
        yield []
        return
    weights = [read_weight(weight, name) for weight, name in zip(whole, names, strict=True)]
    config.reward_weights = weights_at(weights, 0.0, names)  # type: ignore[assignment]  # a list of numbers, too
    try:
        yield weights
    finally:
        config.reward_weights = given


def _refuse_other_trainers(config: RVPOConfig, reader: object, *, always: bool) -> None:
    """Refuse a trainer that is being built and would train as if the config's method were not there.

    Args:
        config: that is read.
        reader: whose method reads it, as far as known.
        always: whether nobody but a trainer reads this.

    Raises:
        ConfigError: it is not ours.
    """
    if _taken.get() or not (always or isinstance(reader, Trainer)):
        return
    # A trainer of ours, once it is built, may look for any option. (Its class cannot be imported from here.)
    if not always and any(cls.__name__ == "RVPOMixin" for cls in type(reader).__mro__):
        return
    name = type(reader).__name__ if isinstance(reader, Trainer) else "a trainer that is not RVPOTrainer"
    method = vars(config).get("method")
    raise ConfigError(
        f"an RVPOConfig is given to {name}, which does not know its method ({method!r}) and would train without it; "
        f"expected rvpo.trl.RVPOTrainer, or class Mine(RVPOMixin, {name}) if {name} is a GRPOTrainer. To train without "
        "rvpo, use the trainer's own config, such as trl.GRPOConfig"
    )


def _check_gdpo(method: Any, aggregation: str) -> None:
    """Refuse TRL's other aggregation beside a method that it is not."""
    if aggregation == NORMALISED and build_method(method).name == GDPO.name:
        return
    raise ConfigError(
        f"multi_objective_aggregation is {aggregation!r}, but method is {spell(build_method(method))!r}; expected it "
        f"unset, because the method decides how rewards are aggregated. TRL's {NORMALISED} is method='gdpo', its {SUM} "
        "is method='grpo'"
    )


def _scaled(method: Any, scale: str) -> Any:
    """Return a method, in the kind in which it came, that is whitened as TRL's ``scale_rewards`` says.

    Raises:
        ConfigError: no such scale, or the method has another ``whiten``.
    """
    if scale not in ("batch", "none"):
        raise ConfigError(
            f"scale_rewards is {scale!r}; expected 'group', 'batch' or 'none', which is the method's option whiten"
        )
    built = build_method(method)
    if built.whiten not in (None, scale):
        raise ConfigError(
            f"scale_rewards is {scale!r}, but method {spell(built)!r} has whiten={built.whiten!r}; expected one of "
            "them: drop scale_rewards"
        )
    scaled = dataclasses.replace(built, whiten=scale)
    return spell(scaled) if isinstance(method, str | Mapping) else scaled


def _check_weights(weights: Any) -> None:
    """Refuse weights that cannot work, as far as that shows without the names of the rewards.

    Raises:
        ConfigError: they are neither None, nor a list or a mapping of weights.
    """
    if weights is None:
        return
    expected = (
        f"reward_weights is {weights!r}; expected a list of finite numbers >= 0, at least one above 0, or texts such "
        "as linear(0.2,1), or a mapping of names to these (a tensor or an array of one dimension will do)"
    )
    if not isinstance(weights, list | dict) or not weights:
        raise ConfigError(expected)
    names = list(weights) if isinstance(weights, dict) else [str(i) for i in range(len(weights))]
    try:
        read = [read_weight(weight, name) for name, weight in zip(names, _values(weights), strict=True)]
        if isinstance(weights, list):  # rewards that a mapping does not name have weight 1
            check_weights(read, names, "they")
    except ConfigError as error:
        raise ConfigError(f"{expected}: {error}. Negate a reward inside its reward function instead") from error


def _values(weights: list[Any] | dict[str, Any]) -> list[Any]:
    return list(weights.values()) if isinstance(weights, dict) else weights


def _as_plain(weights: Any) -> Any:
    """Return weights as plain numbers and texts: :func:`_as_list`, also of a mapping's values and of schedules."""
    if isinstance(weights, Mapping):
        return {str(name): _plain_of(weight) for name, weight in weights.items()}
    listed = _as_list(weights)
    return [_plain_of(weight) for weight in listed] if isinstance(listed, list) else listed


def _plain_of(weight: Any) -> Any:
    return plain_weight(weight) if isinstance(weight, Schedule | Alternate) else _plain(weight)


def _as_list(weights: Any) -> Any:
    """Return weights that are a tensor, an array or a list with their numbers as plain ones; all else as it is.

    Checkpoints and trackers keep the config as JSON, and transformers asks whether values are true.
    """
    listed = weights.tolist() if hasattr(weights, "tolist") else weights
    if not isinstance(listed, list | tuple):
        return listed
    return [_plain(weight) for weight in listed]


def _plain(weight: Any) -> Any:
    """Return a number of torch or numpy as one of Python; all else as it is."""
    try:
        return weight.item()
    except (AttributeError, ValueError, RuntimeError):  # a plain number, or an array of several
        return weight
