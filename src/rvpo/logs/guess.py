"""What had to be guessed about logs. Apart from :mod:`rvpo.logs.run`, so that a training's alarm needs no parquet."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True)
class Guess:
    """Something that the logs do not say and that had to be guessed.

    Attributes:
        what: was guessed, as a clause: "the rewards are the columns a and b".
        why: the reason, or what would follow from a wrong guess.
        option: what settles it: an option of the commands, or what to log.
        trust: how often such a guess is right, from 0 to 1; what follows from it is no surer.
        open: whether nothing that follows from it can be trusted: no verdict is given.
    """

    what: str
    why: str
    option: str
    trust: float = 0.9
    open: bool = False

    def __str__(self) -> str:
        """Return it as a clause with the option that settles it."""
        return f"{self.what} ({self.why}; {self.option})" if self.why else f"{self.what} ({self.option})"


_PICTURE = re.compile(
    r"""["']type["']: *["']image|<image>|<\|image|<\|vision_start|<start_of_image>|<image_soft_token>"""
)


def guess_by_text(prompts: Iterable[object], option: str) -> Guess | None:
    """Return what is guessed where groups are found by the texts of prompts with pictures; None without pictures."""
    if not any(isinstance(prompt, str) and _PICTURE.search(prompt) for prompt in prompts):
        return None
    return Guess(
        "prompts with the same text are one prompt",
        "they have pictures, which these logs leave out, so that two with different pictures may look like one",
        option,
        trust=0.7,
    )
