"""Which rows of a batch of verl's vote, and the channels of those that do.

A row is one output of an agent loop. A session (one rollout of a prompt) may have several outputs, for example where a
context was cut; they share one reward, and so the session counts once. Padding, which verl appends where the batch
cannot be divided by its workers, has no reward and must not vote.
"""

from __future__ import annotations

import logging
import math
import reprlib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from rvpo.core.ragged import Family, Score
from rvpo.engines.verl import wire
from rvpo.errors import EngineError, RewardError
from rvpo.step.trust import Again

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Sessions:
    """The sessions of a batch, in order of their first row.

    Attributes:
        names: N names, ``{uid}_{session}``.
        keys: N keys of their last outputs, ``{uid}_{session}_{output}``, which verl's dump calls ``uid``.
        groups: (N,) int64, which prompt each answers.
        final: the row of each session's last output, which has its reward.
        of_row: (B,) int64, the session of each row; -1 for padding.
    """

    names: list[str]
    keys: list[str]
    groups: Tensor
    final: list[int]
    of_row: Tensor

    @classmethod
    def read(cls, keys: Sequence[str], tags: Sequence[Mapping[str, Any]]) -> Sessions:
        """Read the sessions from the batch's keys, ``{uid}_{session}_{output}``, and tags.

        Raises:
            EngineError: no row is a rollout, or a key is not of that form.
        """
        names: dict[str, int] = {}
        final: list[tuple[int, int]] = []
        uids: dict[str, int] = {}
        groups: list[int] = []
        of_row: list[int] = []
        for row, (key, tag) in enumerate(zip(keys, tags, strict=True)):
            if tag.get("is_padding", False):
                of_row.append(-1)
                continue
            name, _, output = key.rpartition("_")
            uid, _, session = name.rpartition("_")
            if not uid or not session.isdecimal() or not output.isdecimal():
                raise EngineError(
                    f"a row of verl's batch has the key {key!r}; expected uid_session_output. The batches of this "
                    "version of verl are not those that rvpo relies on: see `rvpo doctor`"
                )
            if name not in names:
                names[name] = len(names)
                final.append((-1, -1))
                groups.append(uids.setdefault(uid, len(uids)))
            i = names[name]
            final[i] = max(final[i], (int(output), row))
            of_row.append(i)
        if not names:
            raise EngineError(f"none of the {len(keys)} rows of verl's batch is a rollout: all of them are padding")
        rows = [row for _, row in final]
        return cls(list(names), [keys[row] for row in rows], torch.tensor(groups), rows, torch.tensor(of_row))

    def in_order_of(self, index: Sequence[int]) -> Sessions:
        """Put prompts in order of ``index`` (N,), and the sessions of each prompt in order of their numbers.

        verl's own order is that in which they finished, the shortest first. A rule that lays the i-th rollouts of
        several prompts side by side (RiskPO) would then compare the short with the short.
        """
        groups = self.groups.tolist()

        def place(i: int) -> tuple[int, int, int]:
            # By group as well, so that two dispatches of one prompt stay apart.
            return index[i], groups[i], int(self.names[i].rpartition("_")[2])

        order = sorted(range(len(groups)), key=place)
        new = torch.empty(len(order) + 1, dtype=torch.int64)
        new[order] = torch.arange(len(order))
        new[-1] = -1  # padding
        names, keys = ([values[i] for i in order] for values in (self.names, self.keys))
        number: dict[int, int] = {}  # of a prompt, in the new order
        renumbered = torch.tensor([number.setdefault(groups[i], len(number)) for i in order])
        return Sessions(names, keys, renumbered, [self.final[i] for i in order], new[self.of_row])

    def broadcast(self, values: Tensor) -> Tensor:
        """Give every row its session's value, (N,) -> (B,); 0 for padding."""
        padded = torch.cat([values, values.new_zeros(1)])
        return padded[self.of_row]  # -1 is the last entry

    def total(self, values: Tensor) -> Tensor:
        """Sum the rows of every session, (B,) -> (N,); padding counts nowhere."""
        last = len(self.names)
        sums = values.new_zeros(last + 1).index_add(0, self.of_row.remainder(last + 1), values)
        return sums[:last]


@dataclass
class Seen:
    """What a run has seen of its rewards, so that how a batch is read does not depend on what lies next to it.

    Attributes:
        patience: batches for which a reward may be absent everywhere before that is an error. A rubric may be: no
            prompt of the batch needs to have one.
        numbers: names that came as a number.
        rubrics: names that came as channels of their own.
        absent: name that never came -> batches so far.
    """

    patience: int = 0
    numbers: set[str] = field(default_factory=set)
    rubrics: set[str] = field(default_factory=set)
    absent: Counter[str] = field(default_factory=Counter)


def read_texts(infos: Sequence[Mapping[str, Any]]) -> list[wire.Told]:
    """Read the text of :mod:`rvpo.engines.verl.wire` of each session, empty where it has none.

    Raises:
        RewardError: a text is not as written there, or a reward function raised.
    """
    return [wire.parse(info[wire.KEY]) if wire.KEY in info else wire.Told() for info in infos]


def read_again(texts: Sequence[wire.Told], names: Sequence[str], families: Sequence[Family]) -> Again | None:
    """Return the second rewards of the sessions that were scored a second time, None if none was.

    Args:
        texts: N texts.
        names: F names of the rewards.
        families: the first scores, as :func:`read_channels` returns them.
    """
    rows = [i for i, text in enumerate(texts) if text.second is not None]
    if not rows:
        return None
    second = [text.second for text in texts if text.second is not None]
    values = [[math.nan if (value := one.numbers.get(name)) is None else value for name in names] for one in second]
    again = [
        replace(
            family,
            rows=[
                _as_first(family.rows[row], one.scores.get(family.name, []))
                for row, one in zip(rows, second, strict=True)
            ],
        )
        for family in families
    ]
    return Again(rows, torch.tensor(values, dtype=torch.float64), again)


def _as_first(first: Sequence[Score], second: Sequence[Score]) -> list[Score]:
    """Put second scores in the order of the first ones; what was not scored again is missing."""
    by_channel = {score.channel: score for score in second}
    return [by_channel.get(score.channel, replace(score, value=None, reason="absent")) for score in first]


def read_channels(
    infos: Sequence[Mapping[str, Any]],
    names: Sequence[str],
    *,
    groups: Sequence[int] | None = None,
    seen: Seen | None = None,
    texts: Sequence[wire.Told] | None = None,
) -> tuple[Tensor, list[Family]]:
    """Read the rewards that a reward function returned for each session.

    A reward is either a number for every completion, or a rubric: channels that differ between prompts. A prompt for
    which a rubric returns nothing has no channel of it. If only some completions of a prompt return nothing, all
    criteria of the others are missing there.

    Args:
        infos: N mappings, each what the function returned: numbers under the names of rewards, and the text of
            :mod:`rvpo.engines.verl.wire` under ``rvpo`` where rewards have channels of their own.
        names: F names of the rewards.
        groups: N numbers of the prompts; None if every completion has a prompt of its own.
        seen: of the run, and brought up to date; None for a single batch.
        texts: what :func:`read_texts` returns for the batch, if it was read already.

    Returns:
        ``rewards`` (N, F) in float64, NaN where missing (None or NaN) and where the reward is a family, and the
        families.

    Raises:
        RewardError: a name is in neither of the two places, a reward is a number here and a rubric there, the text
            names a reward that ``names`` does not, or a reward is not a number.
    """
    seen = seen or Seen()
    texts = read_texts(infos) if texts is None else texts
    for text in texts:
        if unknown := [name for name in (*text.channels, *text.monitored) if name not in names]:
            raise RewardError(
                f"the reward function returned channels of {unknown[0]!r}, which is not one of the rewards "
                f"{', '.join(names)}. Name it in algorithm.rvpo.reward_keys, too"
            )
    _note_kinds(infos, texts, names, seen)
    without = {name for name in names if name in seen.rubrics or _may_be_absent(infos, name, seen)}
    values = [[math.nan if name in without else _number(info, name) for name in names] for info in infos]
    families = [
        Family(name, _filled([text.channels.get(name, []) for text in texts], groups))
        for name in names
        if name in without
    ]
    families += [
        Family(name, _filled([text.monitored.get(name, []) for text in texts], groups), only_monitored=True)
        for name in names
        if any(name in text.monitored for text in texts)
    ]
    return torch.tensor(values, dtype=torch.float64), families


def _note_kinds(
    infos: Sequence[Mapping[str, Any]], texts: Sequence[wire.Told], names: Sequence[str], seen: Seen
) -> None:
    """Note which rewards are numbers and which are rubrics.

    Raises:
        RewardError: one of them is both. Neither may be dropped for the other.
    """
    for info, text in zip(infos, texts, strict=True):
        for name in names:
            a_number = name in info and not math.isnan(_number(info, name))
            if name in text.channels and a_number:
                raise RewardError(
                    f"the reward function returned {name!r} as a number and with channels of its own (key "
                    f"{wire.KEY!r}); expected one of the two"
                )
            if name in text.channels:
                seen.rubrics.add(name)
            if a_number:
                seen.numbers.add(name)
            if name in seen.rubrics and name in seen.numbers:
                told, other = (f"the number {info[name]!r}", "a rubric") if a_number else ("a rubric", "a number")
                raise RewardError(
                    f"the reward function returned {told} for {name!r}, but {other} for another completion (key "
                    f"{wire.KEY!r}); expected the same kind for all prompts. Return the number under a name of its "
                    "own, and add that to algorithm.rvpo.reward_keys"
                )


def _may_be_absent(infos: Sequence[Mapping[str, Any]], name: str, seen: Seen) -> bool:
    """Return whether a reward that this batch has nowhere, and no batch before it had, may be a rubric."""
    if name in seen.numbers or any(name in info for info in infos):
        return False
    seen.absent[name] += 1
    speaks = all(wire.KEY in info for info in infos)  # a function that says of each prompt which rubrics it has
    if seen.absent[name] > max(seen.patience, 1 if speaks else 0):
        return False
    if seen.absent[name] == 1 and not speaks:
        logger.warning(
            "The reward function returned nothing for %r in the first batch. If that is a rubric, which these prompts "
            "do not have, all is well; if it is mistyped, correct algorithm.rvpo.reward_keys: after %d such batches it "
            "is an error. The function returned %s.",
            name,
            seen.patience,
            ", ".join(map(str, infos[0])) or "nothing",
        )
    return True


def _filled(rows: Sequence[list[Score]], groups: Sequence[int] | None) -> list[list[Score]]:
    """Give completions without any score the criteria of the others of their prompt, all of them missing."""
    if groups is None:
        return list(rows)
    criteria: dict[int, list[Score]] = {}
    for group, row in zip(groups, rows, strict=True):
        if row:
            criteria.setdefault(group, [replace(score, value=None, reason="absent", detail=None) for score in row])
    return [row or criteria.get(group, []) for group, row in zip(groups, rows, strict=True)]


def _number(info: Mapping[str, Any], name: str) -> float:
    if name not in info:
        seen = ", ".join(str(key) for key in info) or "nothing"
        raise RewardError(
            f"the reward function returned {seen}, but not the reward {name!r}; expected a dict with a number for "
            "each name in algorithm.rvpo.reward_keys, None or NaN if it could not be scored"
        )
    value = info[name]
    if value is None:
        return math.nan
    try:
        if not isinstance(value, str | bytes):
            return float(value)
    except (TypeError, ValueError, OverflowError):
        pass
    raise RewardError(
        f"the reward {name!r} is {reprlib.repr(value)}, a {type(value).__name__}; expected a number, or None if "
        "it could not be scored"
    )
