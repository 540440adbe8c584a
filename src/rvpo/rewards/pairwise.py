"""``PairwiseReward``: is the completion better than another reply to the same prompt?

A judge sees the completion and the other reply in both orders, and the reward is the mean: 1 for a win, 0.5 for a tie,
0 for a loss, or a value in between if the judge gives probabilities. A judge that always prefers the reply shown first
gives 0.5, so the policy learns nothing from the order. How often the order decided is measured.

The other reply is in a column of the data (a reference), is the policy's own greedy reply (as in Rubric-ARM, arXiv
2602.01511), or is the result of your own function.
"""

from __future__ import annotations

import inspect
import logging
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from rvpo.core.ragged import Score
from rvpo.errors import ConfigError, DataError, JudgeError, RVPOError
from rvpo.files import sound
from rvpo.rewards.judged import MAX_MISSING, JudgedReward, checked
from rvpo.rewards.pairs import Pair, PairJudge
from rvpo.rewards.rubric.texts import completion_text, completion_texts
from rvpo.rewards.rubric.verdict import Prompt, Verdict

logger = logging.getLogger(__name__)

COLUMN, GREEDY = "column", "greedy"
QUESTION = "Which reply helps the user more: is correct, complete, clear, and does what the user asked for?"
SHOWN_FIRST, SHOWN_SECOND, ORDER_DECIDED = "shown_first", "shown_second", "order_decided"

Replies = Callable[..., Any]
"""Function ``f(prompts, **columns)`` that returns one reply per prompt: text, chat, or None. It may be async."""


class PairwiseReward(JudgedReward):
    """An async reward function: how often the completion is preferred to another reply.

    Args:
        judge: judge that compares: an object with the methods of :class:`rvpo.rewards.pairs.PairJudge`, such as
            ``EndpointJudge`` or ``LocalJudge``.
        against: ``"column"`` for the reply in the column ``column``; ``"greedy"`` for the policy's own greedy reply,
            which ``rvpo.trl.RVPOTrainer`` generates once per prompt of a batch; or a function, see :data:`Replies`.
        column: column of the data with the other reply, for ``against="column"``: text or chat messages. If it is null,
            the reward is missing.
        question: question that decides which reply is better.
        max_missing: share in [0, 1] of a batch's verdicts, and of its pairs, that may be missing. If more are missing,
            ``RVPOTrainer`` saves a checkpoint and stops.
        name: name of the reward function in metrics and tables.

    Besides its value, each completion has monitored scores. ``RVPOTrainer`` logs them and records them with the reasons
    of missing ones. ``shown_first`` and ``shown_second`` are the verdicts in each order, and ``order_decided`` is 1 if
    the reply in the same position won both times. Every TRL trainer logs the share of the last one as
    ``{name}/order_decided``.

    Raises:
        ConfigError: an option has an invalid value, or the judge cannot compare.
    """

    judge: PairJudge

    def __init__(
        self,
        judge: PairJudge,
        *,
        against: str | Replies = COLUMN,
        column: str = "reference",
        question: str = QUESTION,
        max_missing: float = MAX_MISSING,
        name: str = "pairwise",
    ) -> None:
        """Keep the options, without asking the judge."""
        if not callable(against) and against not in (COLUMN, GREEDY):
            raise ConfigError(
                f"against is {against!r}; expected 'column', 'greedy' or a function. For a column, set against to "
                "'column' and `column` to its name"
            )
        if not isinstance(column, str) or not column:
            raise ConfigError(f"column is {column!r}; expected the name of a column. Name the one with the references")
        if not isinstance(question, str) or not question.strip():
            raise ConfigError(f"question is {question!r}; expected a text. Write which reply counts as better")
        if not isinstance(judge, PairJudge):
            raise ConfigError(
                f"judge is a {type(judge).__name__}, which cannot compare replies; expected an object with the methods "
                "of rvpo.rewards.pairs.PairJudge. Use EndpointJudge or LocalJudge, or add a method `compare` to yours"
            )
        judge.check_pairs()
        super().__init__(judge, max_missing, name)
        self.against, self.column, self.question = against, column, question
        self.needed_columns = [column] if against == COLUMN else []
        self.greedy_replies: Sequence[str] | None = None
        """Greedy replies for the completions of the next call, in order. The trainer sets them."""

    @property
    def needs_greedy(self) -> bool:
        """Whether the trainer has to set :attr:`greedy_replies` before each call."""
        return self.against == GREEDY

    def check_column(self, values: Sequence[Any]) -> None:
        """Check a whole column of replies before training.

        Raises:
            DataError: a reply is neither text nor chat messages, or all are null.
        """
        for row, value in enumerate(values):
            _reply(value, f"row {row}, column {self.column!r}")
        if len(values) and all(value is None for value in values):
            raise DataError(f"column {self.column!r} is empty in all {len(values)} rows; expected replies. Fill it")

    async def __call__(
        self, prompts: Sequence[Prompt], completions: Sequence[Any], **columns: Any
    ) -> list[float | None]:
        """Compare completions. :attr:`latest` then has the verdict of each order.

        Returns:
            One reward in [0, 1] per completion; None if the other reply is absent, or the verdict of an order is
            missing.
        """
        others = await self._others(prompts, columns)
        if len(others) != len(completions):
            raise DataError(
                f"reward {self.__name__!r} has {len(others)} replies to compare with for {len(completions)} completions"
                "; expected one per completion. Return one per prompt, or None without a reply"
            )
        totals, self.latest = await self.score(prompts, completions, others)
        log_metric = columns.get("log_metric")
        decided = [row[2].value for row in self.latest if row and row[2].value is not None]
        if callable(log_metric) and decided:
            log_metric(f"{self.__name__}/{ORDER_DECIDED}", sum(decided) / len(decided))
        return totals

    async def score(
        self, prompts: Sequence[Prompt], completions: Sequence[Any], others: Sequence[Any]
    ) -> tuple[list[float | None], list[list[Score]]]:
        """Compare completions with other replies without changing :attr:`latest`, so that calls may overlap.

        Args:
            prompts: N prompts.
            completions: N completions, text or chat.
            others: N replies, text or chat; None without a reply.

        Returns:
            The result of a call, and the value of :attr:`latest` after it.
        """
        self.refuse_pictures(prompts)
        texts = completion_texts(completions)
        replies = [_reply(other, f"reply {row}") for row, other in enumerate(others)]
        pairs: dict[Pair, None] = {}
        asked: list[tuple[Pair, Pair] | None] = []
        for prompt, text, reply in zip(prompts, texts, replies, strict=True):
            both = None
            if reply is not None and reply != text:
                there = Pair(_frozen(prompt), text, reply, self.question, self.repeat)
                both = there, Pair(there.prompt, reply, text, self.question, self.repeat)
                pairs |= dict.fromkeys(both)
            asked.append(both)
        verdicts = dict(zip(pairs, await self._compare(list(pairs)), strict=True))
        rows = [
            self._scores(None if both is None else (verdicts[both[0]], verdicts[both[1]]), reply)
            for both, reply in zip(asked, replies, strict=True)
        ]
        return [_mean(row) for row in rows], rows

    async def score_row(
        self, prompt: Prompt, completion: Any, columns: Mapping[str, Any]
    ) -> tuple[float | None, list[Score]]:
        """Compare one completion without changing :attr:`latest`."""
        others = await self._others([prompt], {name: [value] for name, value in columns.items()})
        [total], [scores] = await self.score([prompt], [completion], others)
        return total, scores

    async def _others(self, prompts: Sequence[Prompt], columns: Mapping[str, Any]) -> Sequence[Any]:
        """Return the other reply of each completion."""
        if callable(self.against):
            found = self.against(prompts, **columns)
            return list(await found if inspect.isawaitable(found) else found)
        if self.needs_greedy:
            # Set to None, because the replies of one batch do not fit the prompts of another.
            replies, self.greedy_replies = self.greedy_replies, None
            if replies is None:
                raise ConfigError(
                    f"reward {self.__name__!r} has against='greedy', but this trainer does not generate the policy's "
                    "greedy replies; expected rvpo.trl.RVPOTrainer (RVPOMixin). Use it, or pass a function as `against`"
                )
            return replies
        if self.column not in columns:
            raise DataError(
                f"reward {self.__name__!r} needs the column {self.column!r}, but the data has {sorted(columns)}. Add "
                "the replies to compare with, or set `column`"
            )
        return list(columns[self.column])

    async def _compare(self, pairs: Sequence[Pair]) -> list[Verdict]:
        if not pairs:
            return []
        try:
            verdicts = list(await self.judge.compare(pairs))
            if len(verdicts) != len(pairs):
                raise JudgeError(f"{len(verdicts)} verdicts; expected one per pair, {len(pairs)} in all")
        except ConfigError:  # a mistake in the options, which would make every verdict missing
            raise
        # All other errors give missing verdicts, as in RubricReward. Too many of them stop all processes together.
        except Exception as error:
            logger.exception("the judge of %r failed; its verdicts are missing", self.__name__)
            detail = str(error) if isinstance(error, RVPOError) else type(error).__name__
            return [Verdict.missing("judge", detail)] * len(pairs)
        return [checked(verdict) for verdict in verdicts]

    def _scores(self, both: tuple[Verdict, Verdict] | None, reply: str | None) -> list[Score]:
        """Return the monitored scores of a completion: the verdict in each order, and whether the order decided.

        Args:
            both: verdicts with the completion shown first, and second; None if the judge was not asked.
            reply: the other reply; None if it is absent.
        """
        if both is None and reply is None and self.against == COLUMN:
            return []  # as for a prompt without a rubric: the judge was not asked, so nothing is missing
        if both is None:  # equal texts are a tie, whatever a judge might say about their order
            same = Verdict.missing("no_reply", "no reply to compare with") if reply is None else Verdict(0.5)
            both = same, same
        first, second = both
        wins = (first.value, None if second.value is None else 1.0 - second.value)
        scores = [
            Score(place, value, labels=(place,), reason=verdict.reason, text=self.question, detail=_detail(verdict))
            for place, value, verdict in zip((SHOWN_FIRST, SHOWN_SECOND), wins, both, strict=True)
        ]
        decided = _order_decided(first.value, second.value)
        reason = first.reason or second.reason
        # With its own judge name, so that missing pairs are counted separately from missing verdicts.
        return [*scores, Score(ORDER_DECIDED, decided, labels=(ORDER_DECIDED,), reason=reason, judge="pair")]


def _order_decided(first: float | None, second: float | None) -> float | None:
    """Return 1 if the reply in the same position won both times, else 0; None if a verdict is missing.

    Args:
        first: degree to which the first reply won, with the completion shown first.
        second: the same, with the completion shown second.
    """
    if first is None or second is None:
        return None
    return float(min(first, second) > 0.5 or max(first, second) < 0.5)


def _mean(row: Sequence[Score]) -> float | None:
    """Return the mean over both orders; None if either is missing, because one order alone is biased."""
    if not row:
        return None
    first, second = row[0].value, row[1].value
    return None if first is None or second is None else (first + second) / 2


def _detail(verdict: Verdict) -> str | None:
    return None if verdict.detail is None else sound(verdict.detail)


def _reply(value: Any, where: str) -> str | None:
    """Return the text of a reply; None without a reply.

    Raises:
        DataError: the reply is neither text nor chat messages.
    """
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, Sequence) and value and all(isinstance(message, Mapping) for message in value):
        return completion_text(value)
    raise DataError(
        f"{where} is a {type(value).__name__}; expected a reply as text or chat messages, or null. Correct the value"
    )


class _Chat(tuple[Any, ...]):
    """Messages of a prompt as part of a key. Mappings cannot be hashed, so the hash is that of their number."""

    __slots__ = ()

    def __hash__(self) -> int:
        return hash(len(self))


def _frozen(prompt: Prompt) -> Prompt:
    return prompt if isinstance(prompt, str) else _Chat(prompt)
