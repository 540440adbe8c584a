"""Find the rows of verl's batch that count, and their channels.

A row is one output of an agent loop. A session (one rollout of a prompt) may have several outputs, for example if its
context was cut. They share one reward, so the session counts once. verl appends padding rows if the batch cannot be
divided by its workers. They do not have a reward and must not count.
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
    """The sessions of a batch, in the order of their first row.

    Attributes:
        names: N names, ``{uid}_{session}``.
        keys: N keys of their last outputs, ``{uid}_{session}_{output}``, which verl's dump calls ``uid``.
        groups: (N,) int64, number of the prompt of each session.
        final: N rows: the last output of each session, which has the reward.
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
            EngineError: no row is a rollout, or a key has another form.
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
                    "version of verl differ from those of the tested versions: see `rvpo doctor`"
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
        """Put prompts in the order of ``index`` (N,), and the sessions of each prompt in the order of their numbers.

        In verl's own order, sessions that finished first come first, which are the shortest. RiskPO compares the i-th
        rollouts of several prompts. In verl's order, it would compare short rollouts with short ones.
        """
        groups = self.groups.tolist()

        def place(i: int) -> tuple[int, int, int]:
            # Also by group, so that two requests for the same prompt stay separate.
            return index[i], groups[i], int(self.names[i].rpartition("_")[2])

        order = sorted(range(len(groups)), key=place)
        new = torch.empty(len(order) + 1, dtype=torch.int64)
        new[order] = torch.arange(len(order))
        new[-1] = -1  # padding
        names, keys = ([values[i] for i in order] for values in (self.names, self.keys))
        number: dict[int, int] = {}  # old number of a prompt -> its number in the new order
        renumbered = torch.tensor([number.setdefault(groups[i], len(number)) for i in order])
        return Sessions(names, keys, renumbered, [self.final[i] for i in order], new[self.of_row])

    def broadcast(self, values: Tensor) -> Tensor:
        """Give every row its session's value, (N,) -> (B,); 0 for padding."""
        padded = torch.cat([values, values.new_zeros(1)])
        return padded[self.of_row]  # padding has index -1, which is the last entry

    def total(self, values: Tensor) -> Tensor:
        """Sum the rows of every session, (B,) -> (N,); padding is left out."""
        last = len(self.names)
        sums = values.new_zeros(last + 1).index_add(0, self.of_row.remainder(last + 1), values)
        return sums[:last]


@dataclass
class Seen:
    """The kinds of rewards that a run has seen so far, so that every batch is read in the same way.

    Attributes:
        patience: number of batches in which a reward may be absent everywhere before that is an error. A rubric may
            be absent, because it is possible that no prompt of the batch has one.
        numbers: names of rewards that were numbers.
        rubrics: names of rewards that were rubrics, with channels of their own.
        absent: name of a reward that never appeared -> number of batches so far.
    """

    patience: int = 0
    numbers: set[str] = field(default_factory=set)
    rubrics: set[str] = field(default_factory=set)
    absent: Counter[str] = field(default_factory=Counter)


def read_texts(infos: Sequence[Mapping[str, Any]]) -> list[wire.Message]:
    """Read the text of :mod:`rvpo.engines.verl.wire` of each session; a session without a text gets an empty message.

    Raises:
        RewardError: a text does not have that format, or a reward function raised.
    """
    return [wire.parse(info[wire.KEY]) if wire.KEY in info else wire.Message() for info in infos]


def read_again(texts: Sequence[wire.Message], names: Sequence[str], families: Sequence[Family]) -> Again | None:
    """Return the second rewards of the sessions that were scored a second time; None without such sessions.

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
    """Put second scores in the order of the first ones. A criterion without a second score is missing."""
    by_channel = {score.channel: score for score in second}
    return [by_channel.get(score.channel, replace(score, value=None, reason="absent")) for score in first]


def read_channels(
    infos: Sequence[Mapping[str, Any]],
    names: Sequence[str],
    *,
    groups: Sequence[int] | None = None,
    seen: Seen | None = None,
    texts: Sequence[wire.Message] | None = None,
) -> tuple[Tensor, list[Family]]:
    """Read the rewards that a reward function returned for each session.

    A reward is either a number for every completion, or a rubric: channels that differ between prompts. If a rubric
    returns nothing for a prompt, that prompt does not have its channels. If a rubric returns nothing for only some
    completions of a prompt, all criteria are missing for these completions.

    Args:
        infos: N mappings, the results of the function: numbers under the names of rewards, and the text of
            :mod:`rvpo.engines.verl.wire` under ``rvpo`` if rewards are rubrics.
        names: F names of the rewards.
        groups: N numbers of the prompts; None if every completion has its own prompt.
        seen: state of the run, which is updated; None for a single batch.
        texts: result of :func:`read_texts` for the batch, if it was read already.

    Returns:
        ``rewards`` (N, F) in float64, NaN for missing values (None or NaN) and for rubrics, and the families of the
        rubrics.

    Raises:
        RewardError: a name is neither a key nor in the text, a reward is a number for one completion and a rubric for
            another, the text has a reward that ``names`` does not have, or a reward is not a number.
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
    infos: Sequence[Mapping[str, Any]], texts: Sequence[wire.Message], names: Sequence[str], seen: Seen
) -> None:
    """Note which rewards are numbers and which are rubrics.

    Raises:
        RewardError: a reward is both a number and a rubric; it is not known which one counts.
    """
    for info, text in zip(infos, texts, strict=True):
        for name in names:
            a_number = name in info and not math.isnan(_number(info, name))
            if name in text.channels and a_number:
                raise RewardError(
                    f"the reward function returned {name!r} as a number and with channels of its own (key "
                    f"{wire.KEY!r}); expected only one of the two"
                )
            if name in text.channels:
                seen.rubrics.add(name)
            if a_number:
                seen.numbers.add(name)
            if name in seen.rubrics and name in seen.numbers:
                shown, other = (f"the number {info[name]!r}", "a rubric") if a_number else ("a rubric", "a number")
                raise RewardError(
                    f"the reward function returned {shown} for {name!r}, but {other} for another completion (key "
                    f"{wire.KEY!r}); expected the same kind for all prompts. Return the number under a name of its "
                    "own, and add that to algorithm.rvpo.reward_keys"
                )


def _may_be_absent(infos: Sequence[Mapping[str, Any]], name: str, seen: Seen) -> bool:
    """Return whether a reward that neither this batch nor an earlier one has may still be a rubric."""
    if name in seen.numbers or any(name in info for info in infos):
        return False
    seen.absent[name] += 1
    has_text = all(wire.KEY in info for info in infos)  # then the function lists the rubrics of each prompt
    if seen.absent[name] > max(seen.patience, 1 if has_text else 0):
        return False
    if seen.absent[name] == 1 and not has_text:
        logger.warning(
            "The reward function returned nothing for %r in the first batch. If it is a rubric that these prompts do "
            "not have, this is correct. If the name is mistyped, correct algorithm.rvpo.reward_keys. After %d such "
            "batches, it is an error. The function returned %s.",
            name,
            seen.patience,
            ", ".join(map(str, infos[0])) or "nothing",
        )
    return True


def _filled(rows: Sequence[list[Score]], groups: Sequence[int] | None) -> list[list[Score]]:
    """Give completions without any score the criteria of the other completions of their prompt, all missing."""
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
