"""Adapt requests to servers that support only a part of the OpenAI API, by learning from their refusals.

Servers differ in four things that do not change a question: the name of the limit on an answer's length, the system
role, the number of log probabilities, and the form of answer that they enforce (see :mod:`rvpo.judges.endpoint`). Each
is learned once, for all later requests. Options that would change an answer, such as the temperature, are never
dropped.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rvpo.net.failures import TransportError

LIMITS = ("max_tokens", "max_completion_tokens")
FEWER_LOGPROBS = 5  # number of log probabilities of servers that do not give 20
_REFUSALS = (400, 404, 405, 422, 500, 501)  # llama.cpp answers 500 if a chat template raises an error


class Dialect:
    """The form of requests to one server."""

    def __init__(self, limit: str = LIMITS[0], system_role: bool = True) -> None:
        """Begin with the form that most servers support.

        Args:
            limit: name of the limit on an answer's length, one of :data:`LIMITS`.
            system_role: False if the server has no system role, or silently ignores system messages.
        """
        self._limit, self._limit_is_sure = limit, False
        self._has_system = system_role
        self._logprobs_are_few = False

    def spelled(self, body: Mapping[str, Any]) -> dict[str, Any]:
        """Return a request in the form that this server supports."""
        spelled = dict(body)
        for name in LIMITS:
            if name in spelled and name != self._limit:
                spelled[self._limit] = spelled.pop(name)
        if not self._has_system:
            spelled["messages"] = without_system(spelled["messages"])
        if self._logprobs_are_few and spelled.get("top_logprobs", 0) > FEWER_LOGPROBS:
            spelled["top_logprobs"] = FEWER_LOGPROBS
        return spelled

    def learns(self, failure: TransportError, sent: Mapping[str, Any]) -> bool:
        """Learn from a refusal. Return whether the request is worth another attempt in the new form.

        Args:
            failure: error that the server answered with.
            sent: request that it refused, in the form in which it was sent.
        """
        if failure.status not in _REFUSALS:
            return False
        said = failure.detail.lower()
        other = LIMITS[1 - LIMITS.index(self._limit)]
        if not self._limit_is_sure and self._limit in sent and self._about_the_limit(said, other):
            self._limit, self._limit_is_sure = other, True
            return True
        if self._limit not in sent and other in sent and self._limit_is_sure:
            return True  # another request learned this while this one was in flight
        roles = [message.get("role") for message in sent["messages"]]
        if "system" in roles and "system" in said and any(word in said for word in ("role", "support", "template")):
            self._has_system = False
            return True
        if sent.get("top_logprobs", 0) > FEWER_LOGPROBS and "logprobs" in said:
            self._logprobs_are_few = True
            return True
        return False

    def _about_the_limit(self, said: str, other: str) -> bool:
        """Return whether a refusal is about the name of the limit, rather than its value."""
        if self._limit not in said.replace(other, ""):
            return False
        unknown = ("unsupported", "not supported", "unrecognized", "unknown", "unexpected", "extra", "not permitted")
        return other in said or any(word in said for word in unknown)


def without_system(messages: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return a chat in which the text of each system message begins the next message of the user."""
    merged: list[dict[str, Any]] = []
    waiting: list[str] = []
    for message in messages:
        if message["role"] == "system":
            waiting.append(message["content"])
        elif waiting and message["role"] == "user":
            merged.append({**message, "content": "\n\n".join([*waiting, message["content"]])})
            waiting = []
        else:
            merged.append(dict(message))
    if waiting:
        merged.insert(0, {"role": "user", "content": "\n\n".join(waiting)})
    return merged
