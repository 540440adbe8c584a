"""``RubricReward``: judged criteria as channels, in one reward function.

A dataset column has each prompt's rubric as JSON. The verdicts can be used in three ways:

- ``"channels"``: every criterion is its own channel, as in RVPO: 5 for one prompt, 17 for the next.
- ``"explicit"``: one reward, the weighted mean of the verdicts (Rubrics as Rewards, arXiv 2507.17746).
- ``"implicit"``: one reward, a single judgement of the whole rubric on a scale from 1 to 10 (same source).

``RVPOTrainer`` reads the channels from :attr:`RubricReward.latest`. The call itself returns the explicit score (or the
implicit one), which every trainer understands.
"""

from __future__ import annotations

import logging
import math
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rvpo.core.checks import require_number
from rvpo.core.ragged import Score
from rvpo.errors import ConfigError, DataError, JudgeError, RVPOError
from rvpo.files import sound
from rvpo.rewards.judged import MAX_MISSING, JudgedReward, checked
from rvpo.rewards.rubric.criteria import Criterion, Rubric, rubrics_of
from rvpo.rewards.rubric.dropout import kept_criteria
from rvpo.rewards.rubric.scores import channel_weights, weighted_mean
from rvpo.rewards.rubric.texts import completion_texts
from rvpo.rewards.rubric.verdict import Judge, Prompt, Question, Verdict

logger = logging.getLogger(__name__)

AGGREGATIONS = ("channels", "explicit", "implicit")
IMPLICIT_SCALE = (1, 10)


class RubricReward(JudgedReward):
    """An async reward function that judges completions by their prompt's rubric.

    Args:
        judge: judge that decides; see :mod:`rvpo.judges`.
        column: dataset column with each prompt's :class:`Rubric` as JSON; null for a prompt without a rubric.
        aggregation: ``"channels"`` (one channel per criterion), ``"explicit"`` (weighted mean of the verdicts) or
            ``"implicit"`` (one judgement of the whole rubric).
        weighting: weights of the criteria: ``"uniform"``, ``"points"``, or a mapping category -> weight. None is
            ``"uniform"`` for channels, as in the paper, and ``"points"`` for the single reward.
        max_missing: share in [0, 1] of one judge's verdicts on a batch that may be missing. If more are missing,
            ``RVPOTrainer`` saves a checkpoint and stops. Evaluations continue.
        name: name of the reward function in metrics and tables.
        dropout: share in [0, 1) of each prompt's positive criteria that are not judged in a training step. The choice
            differs in each step; see :mod:`rvpo.rewards.rubric.dropout`. The paper uses 0.5. Evaluations judge all.

    Raises:
        ConfigError: an option has an invalid value.
    """

    judge: Judge

    def __init__(
        self,
        judge: Judge,
        *,
        column: str = "rubric",
        aggregation: str = "channels",
        weighting: str | Mapping[str, float] | None = None,
        max_missing: float = MAX_MISSING,
        name: str = "rubric",
        dropout: float = 0.0,
    ) -> None:
        """Keep the options, without asking the judge."""
        if aggregation not in AGGREGATIONS:
            raise ConfigError(f"aggregation is {aggregation!r}; expected one of {', '.join(AGGREGATIONS)}")
        if isinstance(weighting, str) and weighting not in ("uniform", "points"):
            raise ConfigError(
                f"weighting is {weighting!r}; expected 'uniform', 'points' or a mapping of categories to weights"
            )
        if aggregation == "implicit" and weighting is not None:
            raise ConfigError("weighting has no effect on the implicit score, which the judge gives; leave it out")
        if aggregation == "implicit" and dropout:
            raise ConfigError("dropout has no effect on the implicit score, which is one judgement; leave it out")
        require_number("dropout", dropout, 1)
        if not isinstance(judge, Judge):
            raise ConfigError(
                f"judge is a {type(judge).__name__}; expected an object with the methods of rvpo.judges.Judge"
            )
        super().__init__(judge, max_missing, name)
        self.column = column
        self.aggregation = aggregation
        self.weighting = weighting or ("points" if aggregation == "explicit" else "uniform")
        self.needed_columns = [column]
        self.dropout = dropout
        self.dropped = 0
        """Number of verdicts since the start that were not asked for because of ``dropout``."""
        self._step: int | None = None
        self._knows_step = False

    @property
    def only_monitored(self) -> bool:
        """Whether scores are only for metrics, because the function's own value is the only channel."""
        return self.aggregation != "channels"

    def at(self, step: int | None) -> None:
        """Set the training step of the next completions, which dropout depends on; None for an evaluation."""
        self._step, self._knows_step = step, True

    def check_column(self, values: Sequence[Any]) -> None:
        """Check a column of rubrics; see :meth:`check_rubrics`."""
        self.check_rubrics(values)

    def check_rubrics(self, rubrics: Iterable[str | None]) -> None:
        """Check a whole dataset column of rubrics before training.

        Raises:
            DataError: a rubric is malformed.
            ConfigError: the weighting lacks a category of a rubric, or the judge cannot decide one of its criteria.
        """
        check = getattr(self.judge, "check_criteria", None)
        for row, text in enumerate(rubrics):
            if text is None:
                continue
            try:
                rubric = Rubric.from_json(text)
                if self.aggregation != "implicit":
                    channel_weights(rubric, self.weighting)
                if check is not None:
                    check(self._criteria(rubric))
            except RVPOError as error:
                raise type(error)(f"row {row}, column {self.column!r}: {error}") from error

    async def __call__(
        self, prompts: Sequence[Prompt], completions: Sequence[Any], **columns: Any
    ) -> list[float | None]:
        """Judge completions. :attr:`latest` then has the single verdicts.

        Returns:
            One score in [0, 1] per completion; None without a rubric, or if no criterion could be judged.
        """
        if self.column not in columns:
            raise DataError(
                f"reward {self.__name__!r} needs the column {self.column!r}, but the data has {sorted(columns)}. Read "
                "the data with layout rubrics, rar or healthbench, or set `column`"
            )
        totals, self.latest = await self.score(prompts, completions, columns[self.column])
        return totals

    async def score(
        self, prompts: Sequence[Prompt], completions: Sequence[Any], rubrics: Sequence[str | None]
    ) -> tuple[list[float | None], list[list[Score]]]:
        """Judge completions without changing :attr:`latest`, so that calls may overlap.

        Args:
            prompts: N prompts.
            completions: N completions, text or chat.
            rubrics: N rubrics as JSON; None for a prompt without a rubric.

        Returns:
            The result of a call, and the value of :attr:`latest` after it.
        """
        self.refuse_pictures([prompt for prompt, rubric in zip(prompts, rubrics, strict=True) if rubric is not None])
        # Several passes over the whole batch: questions, answers, rewards.
        plans = self._plans(rubrics_of(rubrics))
        texts = completion_texts(completions)
        asked = self._asked(plans, prompts, rubrics)
        judged = [i for i, rubric in enumerate(rubrics) if rubric is not None]
        questions = [
            Question(prompts[i], texts[i], plan.criteria, self.repeat) for i, plan in zip(judged, asked, strict=True)
        ]
        answers = await self._ask(questions)
        rewards = [plan.rewards(verdicts) for plan, verdicts in zip(asked, answers, strict=True)]
        # The function's own value. For channels, it is only logged, by TRL itself.
        values = iter(list(map(weighted_mean, rewards, [plan.weights_of_total for plan in asked])))
        details = iter(list(map(sound, [verdict.detail or "" for verdicts in answers for verdict in verdicts])))
        scores = (
            plan.scores(row, verdicts, details) for row, verdicts, plan in zip(rewards, answers, asked, strict=True)
        )
        totals = [None if text is None else next(values) for text in rubrics]
        return totals, [[] if text is None else next(scores) for text in rubrics]

    def _asked(
        self, plans: Mapping[str, _Plan], prompts: Sequence[Prompt], rubrics: Sequence[str | None]
    ) -> list[_Plan]:
        """Return the plan of each completion that has a rubric, without the criteria that are dropped in this step."""
        rows = [(prompt, text) for prompt, text in zip(prompts, rubrics, strict=True) if text is not None]
        if not self.dropout:
            return [plans[text] for _, text in rows]
        if not self._knows_step:
            raise ConfigError(
                f"dropout of {self.__name__!r} is {self.dropout}, but the training step is unknown; expected a trainer "
                "that sets it, such as rvpo.trl.RVPOTrainer, or a call of RubricReward.at(step) before each batch. "
                "Otherwise set dropout=0"
            )
        if self._step is None:
            return [plans[text] for _, text in rows]
        step, chosen = self._step, []
        for prompt, text in rows:
            whole = plans[text]
            kept = kept_criteria(whole.criteria, self.dropout, prompt, text, step)
            self.dropped += len(whole.criteria) - len(kept)
            chosen.append(whole.only(kept))
        return chosen

    async def score_row(
        self, prompt: Prompt, completion: Any, columns: Mapping[str, Any]
    ) -> tuple[float | None, list[Score]]:
        """Judge one completion without changing :attr:`latest`."""
        [total], [scores] = await self.score([prompt], [completion], [columns[self.column]])
        return total, scores

    def _criteria(self, rubric: Rubric) -> tuple[Criterion, ...]:
        return (overall(rubric),) if self.aggregation == "implicit" else rubric.criteria

    def _plans(self, rubrics: Mapping[str, Rubric]) -> dict[str, _Plan]:
        """Return one plan per rubric: what all completions of a prompt share."""
        if self.aggregation == "implicit":
            return {text: _Plan((overall(rubric),), [1.0], [1.0], [True], [()]) for text, rubric in rubrics.items()}
        weights = [channel_weights(rubric, self.weighting) for rubric in rubrics.values()]
        of_total = weights
        if self.aggregation == "channels":
            of_total = [channel_weights(rubric, "points") for rubric in rubrics.values()]
        facts = [rubric.facts() for rubric in rubrics.values()]
        return {
            text: _Plan(rubric.criteria, own, total, good, labels)
            for (text, rubric), own, total, (good, labels) in zip(
                rubrics.items(), weights, of_total, facts, strict=True
            )
        }

    async def _ask(self, questions: Sequence[Question]) -> list[list[Verdict]]:
        if not questions:
            return []
        try:
            answers = [list(verdicts) for verdicts in await self.judge.judge(questions)]
            wanted = [len(question.criteria) for question in questions]
            if (seen := [len(verdicts) for verdicts in answers]) != wanted:
                raise JudgeError(f"{seen[:8]}… verdicts; expected one per criterion: {wanted[:8]}…")
        except (ConfigError, DataError):  # a mistake in the rubrics, which would make every such verdict missing
            raise
        # Any other error may have happened in one of several processes. It must not become a reward, and must not end
        # the run without a checkpoint. Too many missing verdicts stop all processes together.
        except Exception as error:
            logger.exception("the judge of %r failed; its verdicts are missing", self.__name__)
            detail = str(error) if isinstance(error, RVPOError) else type(error).__name__
            return [[Verdict.missing("judge", detail)] * len(q.criteria) for q in questions]
        return [[checked(verdict) for verdict in verdicts] for verdicts in answers]


@dataclass(frozen=True, slots=True)
class _Plan:
    """What the completions of one prompt share: M criteria, with the weights, polarity and labels of each."""

    criteria: tuple[Criterion, ...]
    weights: Sequence[float]
    weights_of_total: Sequence[float]
    met_is_good: Sequence[bool]
    labels: Sequence[tuple[str, ...]]

    def only(self, kept: Sequence[int]) -> _Plan:
        """Return the plan with some of its criteria. Their weights are scaled to mean 1 again."""
        return _Plan(
            tuple(self.criteria[i] for i in kept),
            _with_mean_1([self.weights[i] for i in kept]),
            _with_mean_1([self.weights_of_total[i] for i in kept]),
            [self.met_is_good[i] for i in kept],
            [self.labels[i] for i in kept],
        )

    def rewards(self, verdicts: Sequence[Verdict]) -> list[float | None]:
        """Return one reward in [0, 1] per channel, as :meth:`Criterion.reward`; None if missing."""
        return [
            verdict.value if good or verdict.value is None else 1.0 - verdict.value
            for verdict, good in zip(verdicts, self.met_is_good, strict=True)
        ]

    def scores(
        self, rewards: Sequence[float | None], verdicts: Sequence[Verdict], details: Iterator[str]
    ) -> list[Score]:
        """Return the scores of one completion. ``details`` yields the judge's explanation of each criterion."""
        rows = zip(self.criteria, verdicts, rewards, self.weights, self.labels, strict=True)
        return [
            Score(
                channel=criterion.id,
                value=reward,
                weight=weight,
                labels=labels,
                reason=verdict.reason,
                judge=criterion.judge or ("rule" if criterion.rule else None),
                text=criterion.text,
                detail=next(details) or verdict.detail,
            )
            for criterion, verdict, reward, weight, labels in rows
        ]


def _with_mean_1(weights: Sequence[float]) -> list[float]:
    """Scale weights so that their mean is 1. Weights that are all 0 stay unchanged."""
    total = math.fsum(weights)
    return [weight * len(weights) / total for weight in weights] if total else list(weights)


def overall(rubric: Rubric) -> Criterion:
    """Return the whole rubric as one graded criterion, for the implicit score."""
    lines = [
        f"- ({criterion.points:+g} points if true) {criterion.text}"
        if criterion.met_is_good == (criterion.points > 0)
        else f"- ({abs(criterion.points):g} points if {'true' if criterion.met_is_good else 'not true'}) "
        f"{criterion.text}"
        for criterion in rubric.criteria
    ]
    text = "Taken together, how well does the reply satisfy all of these criteria?\n" + "\n".join(lines)
    return Criterion("overall", text, scale=IMPLICIT_SCALE)


def too_many_missing(rows: Iterable[Iterable[Score]], allowed: float) -> str | None:
    """Return a message if more than the share ``allowed`` of one judge's scores are missing, else None.

    Each judge is counted by itself. Rules never fail, so many rules would hide a server that does not answer.
    """
    by_judge: dict[str | None, list[Score]] = {}
    for row in rows:
        for score in row:
            by_judge.setdefault(score.judge, []).append(score)
    messages = (_too_many_missing(scores, allowed) for scores in by_judge.values())
    return next((message for message in messages if message), None)


def _too_many_missing(scores: Sequence[Score], allowed: float) -> str | None:
    reasons = Counter(score.reason or "unknown" for score in scores if score.value is None)
    if reasons.total() <= allowed * len(scores):
        return None
    counts = ", ".join(f"{reason} {count}" for reason, count in reasons.most_common())
    detail = next((score.detail for score in scores if score.value is None and score.detail), None)
    return (
        f"{reasons.total()} of {len(scores)} verdicts are missing ({counts}); expected at most {allowed:.0%} "
        f"(max_missing){f'. One of them says: {detail[:200]}' if detail else ''}"
    )
