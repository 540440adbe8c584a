"""Several judges in one rubric: each criterion goes to the judge that should decide it."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace

from rvpo.errors import ConfigError, DataError, RVPOError
from rvpo.rewards.pairs import Pair, PairJudge
from rvpo.rewards.rubric.criteria import Criterion
from rvpo.rewards.rubric.verdict import Judge, Question, Verdict

RULE = "rule"
"""Name of the judge for criteria with a rule."""

logger = logging.getLogger(__name__)


def refuse_routed(criteria: Sequence[Criterion]) -> None:
    """Refuse criteria that a rule or a named judge should decide, for a judge that ignores these fields.

    Raises:
        ConfigError: a criterion has a rule, or names a judge.
    """
    for criterion in criteria:
        if criterion.rule is not None or criterion.judge is not None:
            field = "rule" if criterion.rule is not None else "judge"
            raise ConfigError(
                f"criterion {criterion.id!r} has a {field}, which a single judge ignores; expected a MixedJudge. Build "
                "the judge with rvpo.judges.load_judge, or put it into a MixedJudge with the others"
            )


class MixedJudge:
    """Send each criterion to one of several judges.

    A criterion goes to the judge that it names, or to ``"rule"`` if it has a rule, or else to the default. All judges
    work at the same time. If a judge raises an exception, only its own verdicts are missing (reason ``"judge"``).
    """

    def __init__(self, judges: Mapping[str, Judge], default: str | None = None) -> None:
        """Keep judges by name.

        Args:
            judges: name -> judge, at least one.
            default: name of the judge for criteria with neither ``judge`` nor ``rule``; None refuses such criteria.

        Raises:
            ConfigError: ``judges`` is empty, or does not contain the default.
        """
        if not judges:
            raise ConfigError("judges is empty; expected at least one judge, such as {'rule': RuleJudge()}")
        if default is not None and default not in judges:
            raise ConfigError(f"default is {default!r}; expected one of the judges {', '.join(judges)}")
        self._judges = dict(judges)
        self._default = default
        self._logged: set[tuple[str, type[BaseException]]] = set()

    async def judge(self, questions: Sequence[Question]) -> list[list[Verdict]]:
        """Return one verdict per criterion of each question, in order.

        Raises:
            ConfigError: a criterion goes to a judge that does not exist, or that cannot decide it.
        """
        places: dict[str, list[tuple[int, list[int]]]] = {}  # judge -> (question, its criteria)
        for i, question in enumerate(questions):
            shares: dict[str, list[int]] = {}
            for j, criterion in enumerate(question.criteria):
                shares.setdefault(self._route(criterion), []).append(j)
            for name, columns in shares.items():
                places.setdefault(name, []).append((i, columns))
        shares_of = {
            name: [
                replace(questions[i], criteria=tuple(questions[i].criteria[j] for j in columns)) for i, columns in rows
            ]
            for name, rows in places.items()
        }
        answers = await asyncio.gather(*(self._ask(name, share) for name, share in shares_of.items()))
        verdicts = [[Verdict.missing("judge")] * len(question.criteria) for question in questions]
        for rows, answer in zip(places.values(), answers, strict=True):
            for (i, columns), row in zip(rows, answer, strict=True):
                for j, verdict in zip(columns, row, strict=True):
                    verdicts[i][j] = verdict
        return verdicts

    def check_criteria(self, criteria: Sequence[Criterion]) -> None:
        """Check a prompt's criteria before training.

        Raises:
            ConfigError: a criterion goes to a judge that does not exist, or that cannot decide it, for example because
                its rule is broken.
        """
        for criterion in criteria:
            name = self._route(criterion)
            check = getattr(self._judges[name], "check_criteria", None)
            if check is not None:  # without the fields that only choose the judge
                check([criterion if name == RULE else replace(criterion, judge=None, rule=None)])

    async def compare(self, pairs: Sequence[Pair]) -> list[Verdict]:
        """Return the default judge's verdict on each pair, because a comparison has no criterion that names a judge."""
        return await self._comparing().compare(pairs)

    def check_pairs(self) -> None:
        """Check that the default judge can compare replies.

        Raises:
            ConfigError: it cannot.
        """
        self._comparing().check_pairs()

    def _comparing(self) -> PairJudge:
        judge = None if self._default is None else self._judges[self._default]
        if isinstance(judge, PairJudge):
            return judge
        seen = (
            "default is not set, so no judge can compare replies"
            if judge is None
            else f"the default judge is a {type(judge).__name__}, which cannot compare replies"
        )
        raise ConfigError(
            f"{seen}; expected a judge with the methods of rvpo.rewards.pairs.PairJudge. Use a judge of kind endpoint "
            "or local as the default"
        )

    async def check(self) -> None:
        """Check all judges at the same time. Raises the exception of the first one that fails."""
        await asyncio.gather(*(judge.check() for judge in self._judges.values()))

    def usage(self) -> dict[str, float]:
        """Return the totals of all judges.

        Keys of the rule judge start with ``rule/``. Keys of several other judges start with their names. If there is
        only one other judge, its keys have no prefix, so that the common case looks like that judge alone.
        """
        others = [name for name in self._judges if name != RULE]
        return {
            key if [name] == others else f"{name}/{key}": total
            for name, judge in self._judges.items()
            for key, total in judge.usage().items()
        }

    def _route(self, criterion: Criterion) -> str:
        name = criterion.judge or (RULE if criterion.rule is not None else self._default)
        if name is None:
            raise ConfigError(
                f"criterion {criterion.id!r} has neither judge nor rule, and default is not set; expected one of "
                f"{', '.join(self._judges)}. Set default"
            )
        if name not in self._judges:
            raise ConfigError(
                f"criterion {criterion.id!r} goes to the judge {name!r}; expected one of {', '.join(self._judges)}. "
                "Rename it, or add that judge"
            )
        return name

    async def _ask(self, name: str, questions: list[Question]) -> list[list[Verdict]]:
        """Return one judge's verdicts. All are missing if it raises an exception or leaves some out."""
        try:
            verdicts = await self._judges[name].judge(questions)
            if [len(row) for row in verdicts] != [len(question.criteria) for question in questions]:
                raise ValueError(f"judge {name!r} did not return one verdict per criterion")
            return verdicts
        except (ConfigError, DataError):  # a mistake in the rubric, which would make every such verdict missing
            raise
        except Exception as error:
            if (name, type(error)) not in self._logged:
                self._logged.add((name, type(error)))
                logger.exception(
                    "judge %r failed; its verdicts are missing. Further errors of class %s are not logged",
                    name,
                    type(error).__name__,
                )
            detail = f"{name}: {error if isinstance(error, RVPOError) else type(error).__name__}"
            return [[Verdict.missing("judge", detail)] * len(question.criteria) for question in questions]
