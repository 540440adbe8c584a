"""What reward functions that ask a judge have in common, and what an engine may rely on."""

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
"""Share of one judge's verdicts on a batch that may be missing, where nothing else is said."""


class _Checked(Protocol):
    """What every judge can do, whatever it is asked."""

    async def check(self) -> None: ...

    def usage(self) -> dict[str, float]: ...


class JudgedReward:
    """An async reward function whose verdicts a judge gives.

    Attributes:
        judge: who decides.
        max_missing: the share in [0, 1] of one judge's verdicts on a batch that may be missing.
        needed_columns: of the data.
        repeat: 1 while the same completions are judged a second time; see :attr:`rvpo.rewards.rubric.Question.repeat`.
        latest: the scores of the latest call, a list for each completion.
    """

    reward_range = (0.0, 1.0)
    """Of every verdict: what a judge returns beyond it is missing, see :func:`checked`."""
    judge: _Checked
    dropout: float = 0.0
    """Share of a prompt's criteria that are not asked in a step; rubrics alone have any."""
    dropped: int = 0

    def __init__(self, judge: _Checked, max_missing: float, name: str) -> None:
        """Keep the options; nothing is asked yet.

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
        """Raise JudgeError where the judge cannot work. Asked once: a second look would cost another question."""
        if not self._checked:
            logger.info("asking the judge of %r a first question", self.__name__)
            await self.judge.check()
            self._checked = True

    def refuse_pictures(self, prompts: Sequence[Prompt]) -> None:
        """Refuse prompts that the judge would see a part of.

        Judges of rvpo read text. One of yours that looks at the pictures says so with ``reads_pictures = True``.

        Raises:
            ConfigError: a prompt has a part that is not text.
        """
        if getattr(self.judge, "reads_pictures", False) or not any(map(has_pictures, prompts)):
            return
        raise ConfigError(
            f"reward {self.__name__!r} asks {type(self.judge).__name__}, which reads text alone, and the prompts have "
            "pictures: it would judge replies to questions that it does not see. Expected rewards that need no judge, "
            "rules alone, or a judge of your own with reads_pictures = True"
        )

    def at(self, step: int | None) -> None:
        """Take the training step whose completions come next; None: an evaluation. Rubrics with dropout need it."""

    @property
    def only_monitored(self) -> bool:
        """Whether the scores are for the metrics only, because the function's own value is the one channel."""
        return True

    def check_column(self, values: Sequence[Any]) -> None:
        """Look at the values of the one column that this reward needs, before training."""

    async def score_row(
        self, prompt: Prompt, completion: Any, columns: Mapping[str, Any]
    ) -> tuple[float | None, list[Score]]:
        """Judge one completion and remember nothing, so that calls may overlap."""
        raise NotImplementedError


def checked(verdict: object) -> Verdict:
    """Make what is no verdict with a number in [0, 1] a missing one: a judge's mistake must not enter a reward."""
    if not isinstance(verdict, Verdict):
        return Verdict.missing("malformed", f"the judge returned a {type(verdict).__name__}; expected a Verdict")
    if verdict.reason is not None or verdict.value is None:
        return Verdict.missing(verdict.reason or "judge", verdict.detail)
    value = verdict.value
    if isinstance(value, int | float) and 0 <= value <= 1:
        return verdict
    return Verdict.missing("malformed", f"the judge returned {value!r}; expected a number in [0, 1]"[:200])
