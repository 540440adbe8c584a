"""``RewardDicts``: turns one dict of rewards per completion into advantages, and saves memory in checkpoints."""

from __future__ import annotations

import json
import logging
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from rvpo.core.weights import moments
from rvpo.engines.dicts.options import DictOptions
from rvpo.errors import ConfigError, RewardError
from rvpo.extras import needs_extra
from rvpo.files import write
from rvpo.step.aggregator import Aggregated
from rvpo.step.memory import FILE, save_memory
from rvpo.text.suggest import did_you_mean

if TYPE_CHECKING:
    from rvpo.logs.writer import ChannelTable

logger = logging.getLogger(__name__)

RECORDED = "rvpo_recorded.json"
"""File next to the method's memory, with the number of recorded batches."""


@dataclass(frozen=True)
class Scored:
    """The result of a batch.

    Attributes:
        advantages: N numbers, in the order of the samples; parts of one rollout have the same advantage.
        metrics: metrics by name, ``rvpo/…``.
        result: full result of the step; each rollout is one row, in the order of its first sample.
    """

    advantages: list[float]
    metrics: Mapping[str, float]
    result: Aggregated


class RewardDicts:
    """One run of one engine: its options, the names that it has seen, and its method's memory.

    Attributes:
        aggregator: computes the advantages of a batch.
        names: names of the rewards.
    """

    def __init__(self, options: DictOptions, *, with_progress: bool = False, one_group: bool = False) -> None:
        """Start a run.

        Args:
            options: the user's options.
            with_progress: whether the engine knows the progress of the training, which schedules need.
            one_group: whether the engine scores one group of completions at a time.

        Raises:
            ConfigError: an option cannot work in this engine.
        """
        self.aggregator = options.build()
        self.names = self.aggregator.names
        whiten = self.aggregator.config.whiten
        if one_group and whiten not in ("none", "group"):
            name = self.aggregator.config.method.name
            raise ConfigError(
                f"method {str(self.aggregator.config)!r} has whiten={whiten}, but this engine scores one group at a "
                f"time and never sees a batch; expected whiten=none or whiten=group: set method: {name}:whiten=none"
            )
        if one_group and options.records is not None:
            raise ConfigError(
                f"records is {options.records!r}, but this engine scores one group at a time, which would write one "
                "file per group; expected no records. Drop it: the engine's own rollouts have the rewards"
            )
        self._records = None if options.records is None else _records_in(options.records)
        self._recorded = 0  # number of batches, including those before a resume
        self._one_group = one_group
        self._known: set[str] = set()  # our names that some dict has had so far
        self._others: set[str] = set()  # other keys of the dicts
        self._warned: set[str] = set()  # keys of the warnings that were given; each is given once
        rehearsal = torch.zeros(2, len(self.names), dtype=torch.float64)
        # A method that needs the progress or the trained tokens raises here, before anything is generated.
        self.aggregator(rehearsal, num_generations=2, progress=0.0 if with_progress else None, learn=False)

    def __call__(
        self,
        rewards: Sequence[Mapping[str, Any] | None],
        groups: Sequence[Hashable],
        *,
        rollouts: Sequence[Hashable] | None = None,
        progress: float | None = None,
        learn: bool = True,
        other_keys: Sequence[str] = (),
    ) -> Scored:
        """Turn the reward dicts of N samples into one advantage each.

        Args:
            rewards: N dicts by name; None, NaN or an absent name = missing, None instead of a dict = all missing. A
                value may be a rubric, ``{criterion: verdict}``.
            groups: N ids, equal for samples of one prompt.
            rollouts: N ids, equal for samples of one group that are parts of one rollout. A rollout counts once.
            progress: share of the training that is done, in [0, 1].
            learn: whether the batch is trained on. If so, the method remembers it.
            other_keys: keys of the dicts that are not rewards; there is no warning about them.

        Raises:
            RewardError: a value is not a reward, no dict has a reward, or parts of one rollout differ.
        """
        rows = [self._row(reward, i, other_keys) for i, reward in enumerate(rewards)]
        if not rows:
            raise RewardError("rewards is empty; expected the dicts of at least one sample")
        self._check_names(rows)
        places = list(range(len(rows))) if rollouts is None else _votes(rows, groups, rollouts)
        voting = sorted(set(places))
        ids = [groups[i] for i in voting]
        out = self.aggregator([rows[i] for i in voting], groups=ids, progress=progress, learn=learn)
        self._warn_of_groups(ids)
        if self._records is not None and learn:
            self._recorded += 1
            self._records.add(self._recorded, out)
        advantages = dict(zip(voting, map(float, out.advantages), strict=True))
        return Scored([advantages[place] for place in places], out.metrics, out)

    def ranks(self, rewards: Sequence[Mapping[str, Any] | None]) -> bool:
        """Return whether any channel ranks the samples of one group. Filters drop groups without a signal.

        A filter does not know the progress of the training. So a channel counts if its weight is ever above 0.
        """
        rows = [{name: row[name] for name in self.names if name in row} for row in rewards if row is not None]
        if len(rows) < 2:
            return False
        return any(
            bool(self.aggregator(rows, num_generations=len(rows), progress=when, learn=False).result.signal.any())
            for when in moments(self.aggregator.weights)
        )

    def save(self, folder: Path) -> None:
        """Write the method's memory into a folder, in one step. Write nothing if the method has no memory."""
        save_memory(self.aggregator, folder)
        if self._records is not None:
            folder.mkdir(parents=True, exist_ok=True)
            write(folder / RECORDED, json.dumps(self._recorded))

    def load(self, folder: Path) -> None:
        """Load what :meth:`save` wrote. Without a file, a method with a memory begins anew, with a warning.

        Raises:
            ConfigError: the file is damaged, or belongs to another method or other ranges.
        """
        self._load_recorded(folder / RECORDED)
        path = folder / FILE
        if not path.exists():
            if self.aggregator.config.method.remembers:
                logger.warning("There is no %s: method %r begins anew.", path, self.aggregator.config.method.name)
            return
        try:
            state = json.loads(path.read_text("utf-8"))
        except (OSError, ValueError, RecursionError) as error:
            raise ConfigError(f"{path} cannot be read ({error}); remove it to begin anew") from error
        try:
            self.aggregator.load_state_dict(state)
        except ConfigError as error:
            raise ConfigError(f"{path}: {error}") from error

    def _load_recorded(self, path: Path) -> None:
        """Load the number of recorded batches; without a file, records are numbered from 1."""
        if self._records is None or not path.exists():
            return
        try:
            recorded = json.loads(path.read_text("utf-8"))
        except (OSError, ValueError, RecursionError) as error:
            raise ConfigError(f"{path} cannot be read ({error}); remove it to number the records anew") from error
        if type(recorded) is not int or recorded < 0:
            raise ConfigError(f"{path} holds {recorded!r:.80}; expected a number of batches. Remove it to number anew")
        self._recorded = recorded

    def _row(self, reward: object, i: int, other_keys: Sequence[str]) -> dict[str, Any]:
        """Return those rewards of a sample that have one of our names."""
        if reward is None:
            return {}
        if not isinstance(reward, Mapping):
            raise RewardError(
                f"rewards[{i}] is {reward!r:.80}; expected a dict with a number for each of {', '.join(self.names)}, "
                "None where it could not be scored"
            )
        ignored = [str(key) for key in reward if key not in self.names and key not in other_keys]
        self._others.update(ignored)
        if ignored:
            self._say_once(
                f"ignored {sorted(ignored)}",
                f"The reward dicts also have {', '.join(sorted(ignored))}, which reward_keys does not name, so "
                "they are ignored. To log one without training on it, name it under reward_keys and monitor.",
            )
        return {name: reward[name] for name in self.names if name in reward}

    def _check_names(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """Refuse a name that no dict has ever had. Warn once if this batch lacks a name that earlier ones had."""
        here = {name for row in rows for name in row}
        if not here and not self._known and not self._others:
            self._say_once("nothing", "No sample of the first batch has any reward: all of them count as missing.")
            return
        self._known |= here
        for name in self.names:
            if name not in self._known:
                keys = sorted(here | self._others)
                raise RewardError(
                    f"no sample has the reward {name!r}{did_you_mean(name, keys)}; the dicts have {', '.join(keys)}. "
                    "Correct reward_keys, or return None under that name where it could not be scored"
                )
            if name not in here:
                self._say_once(f"absent {name}", f"No sample of this batch has the reward {name!r}: it is missing.")

    def _warn_of_groups(self, ids: Sequence[Hashable]) -> None:
        """Warn once if no completions are compared, or if the batch is too small to whiten over."""
        if len(set(ids)) == len(ids):
            self._say_once(
                "single",
                f"Every one of the {len(ids)} groups of this batch has one completion, so nothing ranks it. Sample "
                "several completions per prompt, and give them one group id.",
            )
        elif len(set(ids)) == 1 and not self._one_group and self.aggregator.config.whiten in ("batch", "token"):
            self._say_once(
                "one group",
                "This call has a single group, so whitening over it makes all groups equally large. If the engine "
                f"scores one group at a time, set method: {self.aggregator.config.method.name}:whiten=none.",
            )

    def _say_once(self, key: str, text: str) -> None:
        if key not in self._warned:
            self._warned.add(key)
            logger.warning(text)


def _records_in(folder: str) -> ChannelTable:
    with needs_extra("report", "records"):
        from rvpo.logs.schema import FOLDER
        from rvpo.logs.writer import ChannelTable

        return ChannelTable(Path(folder).expanduser() / FOLDER)


def _votes(rows: Sequence[Mapping[str, Any]], groups: Sequence[Hashable], rollouts: Sequence[Hashable]) -> list[int]:
    """Return for each sample the index of the first sample of its rollout, which counts for the whole rollout.

    Raises:
        RewardError: two parts of a rollout have different rewards.
    """
    first: dict[tuple[Hashable, Hashable], int] = {}
    places = []
    for i, key in enumerate(zip(groups, rollouts, strict=True)):
        place = first.setdefault(key, i)
        if not _same(rows[place], rows[i]):
            raise RewardError(
                f"rewards[{place}] and rewards[{i}] are parts of one rollout ({key[1]!r}) and differ: {rows[place]!r} "
                f"and {rows[i]!r}; expected the rollout's rewards on each part. Give parts with different rewards "
                "different rollout ids"
            )
        places.append(place)
    return places


def _same(a: Mapping[str, Any], b: Mapping[str, Any]) -> bool:
    """Return whether two rows have the same rewards. A missing value is equal to an absent one."""
    return _comparable(a) == _comparable(b)


def _comparable(row: Mapping[str, Any]) -> dict[str, str]:
    texts = {}
    for name, value in row.items():
        single = value.item() if getattr(value, "ndim", None) == 0 else value  # a scalar of torch or NumPy
        if single is not None and single == single:
            texts[name] = repr(float(single)) if isinstance(single, int | float) else repr(single)
    return texts
