"""The base class of reward functions that ask a judge, and what an engine may rely on."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from rvpo.core.ragged import Score
from rvpo.errors import ConfigError
from rvpo.rewards.rubric.texts import has_pictures
from rvpo.rewards.rubric.verdict import Prompt, Verdict

logger = logging.getLogger(__name__)

MAX_MISSING = 0.25
"""Default of the share of one judge's verdicts on a batch that may be missing."""


class _Checked(Protocol):
    """The methods that all kinds of judges have."""

    async def check(self) -> None: ...

    def usage(self) -> dict[str, float]: ...


class JudgedReward:
    """An async reward function whose verdicts come from a judge.

    Attributes:
        judge: judge that decides.
        max_missing: share in [0, 1] of one judge's verdicts on a batch that may be missing.
        needed_columns: columns of the data that the function needs.
        repeat: 1 while the same completions are judged a second time; see :attr:`rvpo.rewards.rubric.Question.repeat`.
        latest: scores of the latest call, one list per completion.
    """

    reward_range = (0.0, 1.0)
    """Range of every verdict. A verdict outside of it is missing, see :func:`checked`."""
    judge: _Checked
    dropout: float = 0.0
    """Share of a prompt's criteria that are not judged in a step. Only rubrics can have a dropout."""
    dropped: int = 0

    def __init__(self, judge: _Checked, max_missing: float, name: str) -> None:
        """Keep the options, without asking the judge.

        Raises:
            ConfigError: ``max_missing`` is not a share.
        """
        if isinstance(max_missing, bool) or not isinstance(max_missing, int | float) or not 0 <= max_missing <= 1:
            raise ConfigError(f"max_missing is {max_missing!r}; expected a share in [0, 1]")
        self.judge = judge
        self.max_missing = max_missing
        self.__name__ = name
        self.needed_columns: list[str] = []
        self.repeat = 0
        self.latest: list[list[Score]] = []
        self._checked = False

    async def check(self) -> None:
        """Check the judge once. A second check would cost another question.

        Raises:
            JudgeError: the judge cannot work.
        """
        if not self._checked:
            logger.info("asking the judge of %r a first question", self.__name__)
            await self.judge.check()
            self._checked = True

    def refuse_pictures(self, prompts: Sequence[Prompt]) -> None:
        """Refuse prompts with pictures if the judge would see only their text.

        Judges of rvpo read text. If your judge looks at pictures, set ``reads_pictures = True`` in its class.

        Raises:
            ConfigError: a prompt has a part that is not text.
        """
        if getattr(self.judge, "reads_pictures", False) or not any(map(has_pictures, prompts)):
            return
        raise ConfigError(
            f"reward {self.__name__!r} asks {type(self.judge).__name__}, which reads only text, but the prompts have "
            "pictures: it would judge replies to questions that it does not see; expected a reward without a judge, "
            "only rules, or your own judge with reads_pictures = True"
        )

    def at(self, step: int | None) -> None:
        """Set the training step of the next completions; None for an evaluation. Rubrics with dropout need it."""

    @property
    def only_monitored(self) -> bool:
        """Whether scores are only for metrics, because the function's own value is the only channel."""
        return True

    def check_column(self, values: Sequence[Any]) -> None:
        """Check the values of the column that this reward needs, before training."""

    async def score_row(
        self, prompt: Prompt, completion: Any, columns: Mapping[str, Any]
    ) -> tuple[float | None, list[Score]]:
        """Judge one completion without changing :attr:`latest`, so that calls may overlap."""
        raise NotImplementedError


def checked(verdict: object) -> Verdict:
    """Return a verdict if its value is in [0, 1], else a missing verdict: a judge's mistake must not enter a reward."""
    if not isinstance(verdict, Verdict):
        return Verdict.missing("malformed", f"the judge returned a {type(verdict).__name__}; expected a Verdict")
    if verdict.reason is not None or verdict.value is None:
        return Verdict.missing(verdict.reason or "judge", verdict.detail)
    value = verdict.value
    if isinstance(value, int | float) and 0 <= value <= 1:
        return verdict
    return Verdict.missing("malformed", f"the judge returned {value!r}; expected a number in [0, 1]"[:200])
