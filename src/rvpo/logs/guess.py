"""What had to be guessed about logs. Apart from :mod:`rvpo.logs.run`, so that a training's alarm needs no parquet."""

from __future__ import annotations

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
