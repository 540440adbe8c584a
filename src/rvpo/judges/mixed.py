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
"""The name of the judge that gets criteria with a rule."""

logger = logging.getLogger(__name__)


def refuse_routed(criteria: Sequence[Criterion]) -> None:
    """Raise ConfigError for a criterion that a rule or another judge should decide, and a single judge would."""
    for criterion in criteria:
        if criterion.rule is not None or criterion.judge is not None:
            field = "rule" if criterion.rule is not None else "judge"
            raise ConfigError(
                f"criterion {criterion.id!r} has a {field}, which a single judge does not look at: build the judge "
                "with rvpo.judges.load_judge, or put it into a MixedJudge beside the others"
            )


class MixedJudge:
    """Send each criterion to the judge that it names, else, if it has a rule, to ``"rule"``, else to the default.

    All judges work at the same time. One that raises loses its own verdicts (reason ``"judge"``), never the others'.
    """

    def __init__(self, judges: Mapping[str, Judge], default: str | None = None) -> None:
        """Hold judges by name.

        Args:
            judges: at least one.
            default: name of the judge for criteria with neither ``judge`` nor ``rule``; None: there must be none such.

        Raises:
            ConfigError: no judges, or a default that is none of them.
        """
        if not judges:
            raise ConfigError("judges is empty; expected at least one judge, such as {'rule': RuleJudge()}")
        if default is not None and default not in judges:
            raise ConfigError(f"default is {default!r}; expected one of the judges {', '.join(judges)}")
        self._judges = dict(judges)
        self._default = default
        self._logged: set[tuple[str, type[BaseException]]] = set()

    async def judge(self, questions: Sequence[Question]) -> list[list[Verdict]]:
        """Return one verdict for each criterion of each question, in order.

        Raises:
            ConfigError: a criterion goes to a judge that does not exist, or one that its judge cannot take.
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
        """Look at a prompt's criteria before training.

        Raises:
            ConfigError: one goes to a judge that does not exist, or its judge cannot take it, such as a broken rule.
        """
        for criterion in criteria:
            name = self._route(criterion)
            check = getattr(self._judges[name], "check_criteria", None)
            if check is not None:  # of its own route: neither the name nor a rule that it overrides means more there
                check([criterion if name == RULE else replace(criterion, judge=None, rule=None)])

    async def compare(self, pairs: Sequence[Pair]) -> list[Verdict]:
        """Return the default judge's verdict on each pair: a comparison has no criterion that names a judge."""
        return await self._comparing().compare(pairs)

    def check_pairs(self) -> None:
        """Raise ConfigError where the default judge cannot compare replies."""
        self._comparing().check_pairs()

    def _comparing(self) -> PairJudge:
        judge = None if self._default is None else self._judges[self._default]
        if isinstance(judge, PairJudge):
            return judge
        seen = "there is no default" if judge is None else f"the default judge is a {type(judge).__name__}"
        raise ConfigError(
            f"{seen}, which compares no replies; expected a judge with the methods of rvpo.rewards.pairs.PairJudge: "
            "use a judge of kind endpoint or local, as default"
        )

    async def check(self) -> None:
        """Check all judges at the same time; raises what the first failing one raises."""
        await asyncio.gather(*(judge.check() for judge in self._judges.values()))

    def usage(self) -> dict[str, float]:
        """Return the totals of all judges.

        Those of the rule judge are prefixed ``rule/``, those of the others with their name where there are several;
        a single judge beside the rules keeps its plain keys, so that the common case reads like that judge alone.
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
                f"criterion {criterion.id!r} has neither judge nor rule, and there is no default: set default to one "
                f"of {', '.join(self._judges)}"
            )
        if name not in self._judges:
            raise ConfigError(
                f"criterion {criterion.id!r} goes to the judge {name!r}; expected one of {', '.join(self._judges)}: rename "
                "it, or add that judge"
            )
        return name

    async def _ask(self, name: str, questions: list[Question]) -> list[list[Verdict]]:
        """Return one judge's verdicts, all missing if it raises or leaves some out."""
        try:
            verdicts = await self._judges[name].judge(questions)
            if [len(row) for row in verdicts] != [len(question.criteria) for question in questions]:
                raise ValueError(f"judge {name!r} did not return one verdict for each criterion")
            return verdicts
        except (ConfigError, DataError):  # a mistake in the rubric, which would make every such verdict missing
            raise
        except Exception as error:
            if (name, type(error)) not in self._logged:
                self._logged.add((name, type(error)))
                logger.exception(
                    "judge %r raised; its verdicts are missing. Later %s are not logged", name, type(error).__name__
                )
            detail = f"{name}: {error if isinstance(error, RVPOError) else type(error).__name__}"
            return [[Verdict.missing("judge", detail)] * len(question.criteria) for question in questions]
