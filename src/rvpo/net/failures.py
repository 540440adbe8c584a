"""A request that has no answer."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(eq=False)
class TransportError(Exception):
    """A request without an answer.

    Attributes:
        reason: a word for it: of ``rvpo.rewards.rubric.verdict.REASONS``.
        detail: what happened; holds no key, and nothing that could steer a terminal.
        again: whether another attempt may help.
        wait: seconds in which the server wants no further request; None where it did not say.
        free: whether the server surely charged nothing.
        status: of the HTTP response, or of the error that it holds; None where there was none.
    """

    reason: str
    detail: str
    again: bool = False
    wait: float | None = None
    free: bool = False
    status: int | None = None

    @property
    def ends(self) -> bool:
        """Whether every further request would fail in the same way: the key is refused, or nothing is left to pay.

        Not after 403, which some gateways send for a single text that they do not like.
        """
        return self.status in (401, 402) or (self.status == 429 and not self.again)


class TooLongError(TransportError):
    """A response that is longer than what is read."""
