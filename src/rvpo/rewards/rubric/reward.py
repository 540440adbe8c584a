"""``RubricReward``: judged criteria as channels, in one reward function.

Each prompt's rubric stands in a dataset column as JSON. Three ways to use the verdicts:

- ``"channels"``: every criterion is a channel of its own, as in RVPO: 5 for one prompt, 17 for the next.
- ``"explicit"``: one reward, the weighted mean of the verdicts (Rubrics as Rewards, arXiv 2507.17746).
- ``"implicit"``: one reward, a single judgement of the whole rubric on a scale from 1 to 10 (same source).

``RVPOTrainer`` takes the channels from :attr:`RubricReward.latest`. The plain value that the call returns, which any
trainer understands, is the explicit score (or the implicit one).
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
        judge: who decides; see :mod:`rvpo.judges`.
        column: the dataset column with each prompt's :class:`Rubric` as JSON; null where a prompt has none.
        aggregation: ``"channels"``, ``"explicit"`` or ``"implicit"``, see the module's text.
        weighting: of the criteria: ``"uniform"``, ``"points"``, or a mapping category -> weight. None is ``"uniform"``
            for channels, as in the paper, and ``"points"`` for the single reward.
        max_missing: the share in [0, 1] of one judge's verdicts on a batch that may be missing. Above it
            ``RVPOTrainer`` saves a checkpoint and stops; an evaluation goes on.
        name: of the reward function in metrics and tables.
        dropout: share in [0, 1) of each prompt's positive criteria that is not asked in a training step, another choice
            each step; see :mod:`rvpo.rewards.rubric.dropout`. 0.5 is the paper's. Evaluations ask all.

    Raises:
        ConfigError: an option has no such value.
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
        """Keep the options; nothing is asked yet."""
        if aggregation not in AGGREGATIONS:
            raise ConfigError(f"aggregation is {aggregation!r}; expected one of {', '.join(AGGREGATIONS)}")
        if isinstance(weighting, str) and weighting not in ("uniform", "points"):
            raise ConfigError(
                f"weighting is {weighting!r}; expected 'uniform', 'points' and a mapping of categories to weights"
            )
        if aggregation == "implicit" and weighting is not None:
            raise ConfigError("weighting has no effect on the implicit score, which is the judge's own: drop it")
        if aggregation == "implicit" and dropout:
            raise ConfigError(
                "dropout has no effect on the implicit score, which is one judgement: expected 0. Drop it"
            )
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
        """Verdicts that were not asked for since the start, by ``dropout``."""
        self._step: int | None = None
        self._knows_step = False

    @property
    def only_monitored(self) -> bool:
        """Whether the scores are for the metrics only, because the function's own value is the one channel."""
        return self.aggregation != "channels"

    def at(self, step: int | None) -> None:
        """Take the training step whose completions come next, on which dropout depends; None: an evaluation."""
        self._step, self._knows_step = step, True

    def check_column(self, values: Sequence[Any]) -> None:
        """Look at a column of rubrics; see :meth:`check_rubrics`."""
        self.check_rubrics(values)

    def check_rubrics(self, rubrics: Iterable[str | None]) -> None:
        """Look at a whole dataset column before training.

        Raises:
            DataError: a rubric is malformed.
            ConfigError: the weighting lacks one of its categories, or the judge cannot decide one of its criteria.
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
        """Judge completions; see :attr:`latest` for the single verdicts.

        Returns:
            One score in [0, 1] a completion; None where no criterion could be judged or there is no rubric.
        """
        if self.column not in columns:
            raise DataError(
                f"reward {self.__name__!r} needs the column {self.column!r}; the data has {sorted(columns)}: read it "
                "with layout rubrics, rar or healthbench, or set `column`"
            )
        totals, self.latest = await self.score(prompts, completions, columns[self.column])
        return totals

    async def score(
        self, prompts: Sequence[Prompt], completions: Sequence[Any], rubrics: Sequence[str | None]
    ) -> tuple[list[float | None], list[list[Score]]]:
        """Judge completions and remember nothing, so that calls may overlap.

        Args:
            prompts: N prompts.
            completions: N completions, text or chat.
            rubrics: N rubrics as JSON; None where a prompt has none.

        Returns:
            What the call returns, and what :attr:`latest` holds after it.
        """
        self.refuse_pictures([prompt for prompt, rubric in zip(prompts, rubrics, strict=True) if rubric is not None])
        # In passes over the whole batch: what is asked, the answers, and what they are worth.
        plans = self._plans(rubrics_of(rubrics))
        texts = completion_texts(completions)
        asked = self._asked(plans, prompts, rubrics)
        judged = [i for i, rubric in enumerate(rubrics) if rubric is not None]
        questions = [
            Question(prompts[i], texts[i], plan.criteria, self.repeat) for i, plan in zip(judged, asked, strict=True)
        ]
        answers = await self._ask(questions)
        rewards = [plan.rewards(verdicts) for plan, verdicts in zip(asked, answers, strict=True)]
        # The function's own value: for channels it is only logged, by TRL itself.
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
                f"dropout of {self.__name__!r} is {self.dropout}, but nobody says which training step this is; "
                "expected a trainer that does, rvpo.trl.RVPOTrainer, or a call of RubricReward.at(step) before each "
                "batch. Set dropout=0 otherwise"
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
        """Judge one completion and remember nothing."""
        [total], [scores] = await self.score([prompt], [completion], [columns[self.column]])
        return total, scores

    def _criteria(self, rubric: Rubric) -> tuple[Criterion, ...]:
        return (overall(rubric),) if self.aggregation == "implicit" else rubric.criteria

    def _plans(self, rubrics: Mapping[str, Rubric]) -> dict[str, _Plan]:
        """Return what all completions of a prompt share, by the prompt's rubric."""
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
                raise JudgeError(f"{seen[:8]}… verdicts; expected one for each criterion: {wanted[:8]}…")
        except (ConfigError, DataError):  # a mistake in the rubrics, which would make every such verdict missing
            raise
        # Whatever else: it may have happened in one process of several, and must neither become a reward nor end the
        # run without a checkpoint. Too many missing verdicts stop all processes together.
        except Exception as error:
            logger.exception("the judge of %r failed; its verdicts are missing", self.__name__)
            told = str(error) if isinstance(error, RVPOError) else type(error).__name__
            return [[Verdict.missing("judge", told)] * len(q.criteria) for q in questions]
        return [[checked(verdict) for verdict in verdicts] for verdicts in answers]


@dataclass(frozen=True, slots=True)
class _Plan:
    """What the completions of one prompt share: M criteria, and for each its weights, its polarity and its labels."""

    criteria: tuple[Criterion, ...]
    weights: Sequence[float]
    weights_of_total: Sequence[float]
    met_is_good: Sequence[bool]
    labels: Sequence[tuple[str, ...]]

    def only(self, kept: Sequence[int]) -> _Plan:
        """Return the plan with some of the criteria, whose weights have mean 1 again."""
        return _Plan(
            tuple(self.criteria[i] for i in kept),
            _with_mean_1([self.weights[i] for i in kept]),
            _with_mean_1([self.weights_of_total[i] for i in kept]),
            [self.met_is_good[i] for i in kept],
            [self.labels[i] for i in kept],
        )

    def rewards(self, verdicts: Sequence[Verdict]) -> list[float | None]:
        """Return the channels' rewards in [0, 1], as :meth:`Criterion.reward`; None where missing."""
        return [
            verdict.value if good or verdict.value is None else 1.0 - verdict.value
            for verdict, good in zip(verdicts, self.met_is_good, strict=True)
        ]

    def scores(
        self, rewards: Sequence[float | None], verdicts: Sequence[Verdict], details: Iterator[str]
    ) -> list[Score]:
        """Return the scores of one completion; ``details`` yields what the judge said of each criterion."""
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
    """Scale weights so that their mean is 1; weights that are all 0 stay."""
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
    """Return what is wrong where more than ``allowed`` of one judge's scores are missing, else None.

    By judge, because rules never fail: beside many of them a dead server would not be noticed.
    """
    by_judge: dict[str | None, list[Score]] = {}
    for row in rows:
        for score in row:
            by_judge.setdefault(score.judge, []).append(score)
    return next((told for scores in by_judge.values() if (told := _too_many_missing(scores, allowed))), None)


def _too_many_missing(scores: Sequence[Score], allowed: float) -> str | None:
    reasons = Counter(score.reason or "unknown" for score in scores if score.value is None)
    if reasons.total() <= allowed * len(scores):
        return None
    told = ", ".join(f"{reason} {count}" for reason, count in reasons.most_common())
    detail = next((score.detail for score in scores if score.value is None and score.detail), None)
    return (
        f"{reasons.total()} of {len(scores)} verdicts are missing ({told}); expected {allowed:.0%} (max_missing)"
        + (f"; one said: {detail[:200]}" if detail else "")
    )
