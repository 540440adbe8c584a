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
"""Whether the trainer that is being built is an RVPOTrainer."""


@contextmanager
def taken() -> Iterator[None]:
    """Within the context, a trainer may read a config, because RVPOMixin is building that trainer."""
    token = _taken.set(True)
    try:
        yield
    finally:
        _taken.reset(token)


@dataclass
class RVPOConfig(AggregationOptions, GRPOConfig):  # type: ignore[misc]
    """Arguments of :class:`RVPOTrainer`: all options of ``trl.GRPOConfig``, and the options of the aggregation.

    ``method`` is a text (``"lift:kappa=3"``), a mapping or an object (``rvpo.LIFT(kappa=3)``). ``reward_weights``
    applies to every method: a list, or a mapping by name of the reward function. A weight is a number, or a schedule
    over the training, such as ``"linear(0.2,1)"`` or ``"alternate(1,0)"``; see :mod:`rvpo.core.weights`. ``beta`` is
    TRL's KL coefficient, as in ``GRPOConfig``. See :class:`rvpo.step.options.AggregationOptions` for the other options.

    The method sets two options of TRL. They have the same meaning as in TRL:

    - ``scale_rewards="none"`` and ``"batch"`` set the method's ``whiten``: ``grpo:whiten=none`` (Dr. GRPO) and
      ``grpo:whiten=batch`` give TRL's advantages. ``"group"``, TRL's default, keeps the method's own default.
    - ``multi_objective_aggregation="normalize_then_sum"`` is method ``gdpo``.

    ``reward_timeout`` limits the seconds that an async reward function (rubrics included) may take for one batch. A
    function that does not return in time is cancelled. The run then saves a checkpoint and ends with a RewardError that
    names the function. A sync function cannot be stopped safely: a warning names it, and the run keeps waiting.

    Raises:
        ConfigError: a value or combination cannot work.
    """

    reward_timeout: float | None = field(
        default=DEFAULT_SECONDS,
        metadata={
            "help": "Seconds that an async reward function may take for one batch. After that, the run saves a "
            "checkpoint and ends. Keep it below ddp_timeout. For a sync function there is only a warning. None sets no "
            "limit."
        },
    )

    skip_dead_groups: bool = field(
        default=False,
        metadata={
            "help": "Leave completions whose advantage is 0, such as those of groups without signal, out of the "
            "forward and backward pass. The gradient stays the same; TRL's entropy and clip_ratio are then means over "
            "the other completions only. Cannot be used with beta, an entropy bonus, an auxiliary loss or images."
        },
    )

    _VALID_DICT_FIELDS = [*GRPOConfig._VALID_DICT_FIELDS, *MAPPINGS]  # noqa: RUF012 (transformers' own declaration)

    def __post_init__(self) -> None:
        """Check TRL's options and ours before anything is loaded."""
        self.reward_weights: list[float | str] | dict[str, float | str] | None = _as_plain(self.reward_weights)
        super().__post_init__()
        self._check_own()

    def _check_own(self) -> None:
        """Check our options, after TRL's own checks."""
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
        """Return this class with the arguments that an engine has built with its own class, and with our options.

        TRL's arguments are not checked again: its checks fill in values that they would refuse the second time.

        Args:
            args: arguments, of a base class of this class.
            options: names and values of fields of this class.

        Raises:
            ConfigError: a value or combination cannot work.
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
        """The property of transformers. Every trainer reads it when it is built, so other trainers are refused here.

        Raises:
            ConfigError: the trainer is not RVPOTrainer, so it would train as if ``method`` were not there.
        """
        _refuse_other_trainers(self, sys._getframe(1).f_locals.get("self"), always=True)
        placed: bool | None = super().place_model_on_device
        return placed

    def __getattr__(self, name: str) -> Any:
        """Refuse a trainer that looks for an option of another algorithm.

        Raises:
            ConfigError: the trainer is not RVPOTrainer.
            AttributeError: other code looks for an attribute that does not exist.
        """
        _refuse_other_trainers(self, sys._getframe(1).f_locals.get("self"), always=False)
        raise AttributeError(f"{type(self).__name__} has no option {name!r}")

    def __getstate__(self) -> dict[str, Any]:
        """Return the state for checkpoints. A method that cannot be pickled, such as a lambda, is saved as text."""
        state = dict(self.__dict__)
        if not isinstance(self.method, str | dict):
            try:
                pickle.dumps(self.method)
            except Exception:  # whatever somebody's object raises
                state["method"] = spell(build_method(self.method))
        return state

    def to_dict(self) -> dict[str, Any]:
        """Return plain values. A method that is an object is returned as text."""
        values: dict[str, Any] = super().to_dict()
        if not isinstance(self.method, str | dict):
            values["method"] = spell(build_method(self.method))
        return values


@contextmanager
def numbers_of_weights(config: RVPOConfig, names: Sequence[str]) -> Iterator[list[Weight]]:
    """Within the context, ``reward_weights`` of a config are the weights of the first step, as a list for TRL.

    Args:
        config: config of the trainer that is being built.
        names: names of the reward functions, in order.

    Yields:
        The weights with their schedules, one per name; empty if the config has no weights.
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
    """Refuse a trainer that is being built and would ignore the config's method.

    Args:
        config: the config that is read.
        reader: the object whose method reads it, or None if it is not known.
        always: whether only trainers read this.

    Raises:
        ConfigError: the trainer is not RVPOTrainer.
    """
    if _taken.get() or not (always or isinstance(reader, Trainer)):
        return
    # A trainer of ours may look for any option after it is built. (Its class cannot be imported here.)
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
    """Refuse TRL's other aggregation, unless the method is the same one."""
    if aggregation == NORMALISED and build_method(method).name == GDPO.name:
        return
    raise ConfigError(
        f"multi_objective_aggregation is {aggregation!r}, but method is {spell(build_method(method))!r}; expected it "
        f"unset, because the method decides how rewards are aggregated. TRL's {NORMALISED} is method='gdpo', its {SUM} "
        "is method='grpo'"
    )


def _scaled(method: Any, scale: str) -> Any:
    """Return a method that is whitened as TRL's ``scale_rewards`` says: a text or an object, like ``method``.

    Raises:
        ConfigError: the scale does not exist, or the method has another ``whiten``.
    """
    if scale not in ("batch", "none"):
        raise ConfigError(
            f"scale_rewards is {scale!r}; expected 'group', 'batch' or 'none', which is the method's option whiten"
        )
    built = build_method(method)
    if built.whiten not in (None, scale):
        raise ConfigError(
            f"scale_rewards is {scale!r}, but method {spell(built)!r} has whiten={built.whiten!r}; expected only "
            "one of them: drop scale_rewards"
        )
    scaled = dataclasses.replace(built, whiten=scale)
    return spell(scaled) if isinstance(method, str | Mapping) else scaled


def _check_weights(weights: Any) -> None:
    """Refuse weights that cannot work, as far as this can be checked without the names of the rewards.

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
    """Return weights as plain numbers and texts, for a list, a mapping and schedules; see :func:`_as_list`."""
    if isinstance(weights, Mapping):
        return {str(name): _plain_of(weight) for name, weight in weights.items()}
    listed = _as_list(weights)
    return [_plain_of(weight) for weight in listed] if isinstance(listed, list) else listed


def _plain_of(weight: Any) -> Any:
    return plain_weight(weight) if isinstance(weight, Schedule | Alternate) else _plain(weight)


def _as_list(weights: Any) -> Any:
    """Return a tensor, an array or a list as a list of plain numbers; return anything else unchanged.

    Checkpoints and trackers save the config as JSON, and transformers tests the truth of its values.
    """
    listed = weights.tolist() if hasattr(weights, "tolist") else weights
    if not isinstance(listed, list | tuple):
        return listed
    return [_plain(weight) for weight in listed]


def _plain(weight: Any) -> Any:
    """Return a number of torch or NumPy as a Python number; return anything else unchanged."""
    try:
        return weight.item()
    except (AttributeError, ValueError, RuntimeError):  # a plain number, or an array of several
        return weight
