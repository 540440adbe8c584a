"""What a server of the OpenAI API does not know, found out from its refusals: one step each, for all later requests.

Servers differ in four things that change no question: the name of the limit of an answer's length, whether there is a
system role, how many log probabilities they tell, and which form of answer they enforce (see
:mod:`rvpo.judges.endpoint`). What would change an answer, such as the temperature, is never stepped over.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rvpo.net.failures import TransportError

LIMITS = ("max_tokens", "max_completion_tokens")
FEWER_LOGPROBS = 5  # what servers tell that do not tell 20
_REFUSALS = (400, 404, 405, 422, 500, 501)  # llama.cpp answers 500 where a chat template raises


class Dialect:
    """How requests to one server are spelled."""

    def __init__(self, limit: str = LIMITS[0], system_role: bool = True) -> None:
        """Begin with what most servers know.

        Args:
            limit: one of :data:`LIMITS`.
            system_role: False where the server is known to have none, or to pass over what stands there.
        """
        self._limit, self._limit_is_sure = limit, False
        self._has_system = system_role
        self._logprobs_are_few = False

    def spelled(self, body: Mapping[str, Any]) -> dict[str, Any]:
        """Return a request as this server wants it."""
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
        """Return whether the same request, spelled anew, is worth another try.

        Args:
            failure: that the server answered with.
            sent: the request that it refused, as it was spelled.
        """
        if failure.status not in _REFUSALS:
            return False
        said = failure.detail.lower()
        other = LIMITS[1 - LIMITS.index(self._limit)]
        if not self._limit_is_sure and self._limit in sent and self._about_the_limit(said, other):
            self._limit, self._limit_is_sure = other, True
            return True
        if self._limit not in sent and other in sent and self._limit_is_sure:
            return True  # somebody else found out while this request was on its way
        roles = [message.get("role") for message in sent["messages"]]
        if "system" in roles and "system" in said and any(word in said for word in ("role", "support", "template")):
            self._has_system = False
            return True
        if sent.get("top_logprobs", 0) > FEWER_LOGPROBS and "logprobs" in said:
            self._logprobs_are_few = True
            return True
        return False

    def _about_the_limit(self, said: str, other: str) -> bool:
        """Tell whether a refusal is about the name of the limit, not about its value."""
        if self._limit not in said.replace(other, ""):
            return False
        unknown = ("unsupported", "not supported", "unrecognized", "unknown", "unexpected", "extra", "not permitted")
        return other in said or any(word in said for word in unknown)


def without_system(messages: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return a chat whose system turns stand at the beginning of the user turn that follows."""
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
