"""Guesses about logs. They have their own module, so that the alarm of a training does not need parquet."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True)
class Guess:
    """Something that the logs do not say and that had to be guessed.

    Attributes:
        what: the guess, as a clause: "the rewards are the columns a and b".
        why: the reason, or the consequence of a wrong guess.
        option: how to settle it: an option of the commands, or what to log.
        trust: share of such guesses that are right, from 0 to 1; a verdict that depends on it cannot be more certain.
        open: whether the guess is too uncertain for any verdict.
    """

    what: str
    why: str
    option: str
    trust: float = 0.9
    open: bool = False

    def __str__(self) -> str:
        """Return it as a clause with the option that settles it."""
        return f"{self.what} ({self.why}; {self.option})" if self.why else f"{self.what} ({self.option})"


def unsaid(notes: Iterable[str], guesses: Iterable[Guess]) -> list[str]:
    """Return the notes without those that a guess states in the same words. The guesses are printed before them."""
    said = {guess.what for guess in guesses}
    return [note for note in notes if note not in said]


_PICTURE = re.compile(
    r"""["']type["']: *["']image|<image>|<\|image|<\|vision_start|<start_of_image>|<image_soft_token>"""
)


def guess_by_text(prompts: Iterable[object], option: str) -> Guess | None:
    """Return the guess that is made if the texts of prompts with pictures identify groups; None without pictures."""
    if not any(isinstance(prompt, str) and _PICTURE.search(prompt) for prompt in prompts):
        return None
    return Guess(
        "prompts with the same text are one prompt",
        "the prompts have pictures, but these logs do not, so prompts with different pictures may look the same",
        option,
        trust=0.7,
    )
