"""Errors of requests to servers."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(eq=False)
class TransportError(Exception):
    """A request that got no usable answer.

    Attributes:
        reason: one of ``rvpo.rewards.rubric.verdict.REASONS``.
        detail: what happened. It contains no key and no terminal control characters.
        again: whether another attempt may help.
        wait: seconds that the server asks to wait before the next request; None if it did not say.
        free: whether the server certainly charged nothing.
        status: status of the HTTP response, or of the error in its body; None without a response.
    """

    reason: str
    detail: str
    again: bool = False
    wait: float | None = None
    free: bool = False
    status: int | None = None

    @property
    def ends(self) -> bool:
        """Whether every further request would fail in the same way: the key is refused, or the credit is used up.

        Status 403 does not count: some gateways send it for a single text that they reject.
        """
        return self.status in (401, 402) or (self.status == 429 and not self.again)


class TooLongError(TransportError):
    """A response that is longer than the limit."""
