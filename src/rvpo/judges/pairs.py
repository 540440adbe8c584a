"""Ask a judge which of two replies is better, and read its answer. For criteria, see :mod:`rvpo.judges.asking`.

Both replies may be hostile, and each may know the other, because a policy learns its references. So both are enclosed
by one mark, which depends on both texts and occurs in neither. Control tokens are split. If a reply contains the key of
a verdict, an answer with text around its JSON does not count.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.resources import files
from string import Template
from typing import Any

from rvpo.errors import ConfigError
from rvpo.files import sound
from rvpo.judges.asking import MAX_DETAIL_CHARS, Inquiry, conversation_of, mark_of
from rvpo.judges.control_tokens import harmless
from rvpo.judges.parsing import MIN_MASS, MalformedError, read_object
from rvpo.judges.transport import ServerReply
from rvpo.rewards.pairs import Pair
from rvpo.rewards.rubric.verdict import Verdict

WINNER = "winner"
_VALUES = {"a": 1.0, "tie": 0.5, "b": 0.0}
_LETTERS = {"a": 1.0, "c": 0.5, "b": 0.0}  # single tokens, because a word for a tie may be several tokens

_FOLDER = files("rvpo.judges") / "prompts"
_NAMES = ("pair_system", "pair_material", "pair_boolean", "pair_boolean_explained", "pair_probability")
_TEXTS = {name: (_FOLDER / f"{name}.txt").read_text(encoding="utf-8") for name in _NAMES}
_LAYOUT = 1  # version of the way in which this module uses these texts
DIGEST = hashlib.sha256(json.dumps([_LAYOUT, _TEXTS], sort_keys=True).encode()).hexdigest()
"""Version of these prompts. It is a part of the key under which a comparison is cached."""


@dataclass(frozen=True, slots=True)
class Comparison(Inquiry):
    """One call about one pair in one order."""

    def read(self, answer: ServerReply) -> list[Verdict]:
        """Return the verdict: 1 if the first reply is better.

        Raises:
            MalformedError: the answer contains no verdict.
        """
        if self.by_logprobs:
            if answer.first_token is None:
                raise MalformedError("the server does not return logprobs; set verdict to 'boolean'")
            return [Verdict(read_preference(answer.first_token))]
        values = read_object(answer.text or "", self.keys, self.completion)
        explanation = values.get("explanation") if self.explained else None
        detail = sound(explanation)[:MAX_DETAIL_CHARS] if isinstance(explanation, str) else None
        return [Verdict(read_winner(values[WINNER]), None, detail)]

    def _schema(self) -> dict[str, Any]:
        properties: dict[str, Any] = {"explanation": {"type": "string"}} if self.explained else {}
        properties[WINNER] = {"type": "string", "enum": ["A", "B", "tie"]}
        return {
            "type": "object",
            "properties": properties,
            "required": list(properties),
            "additionalProperties": False,
        }


def ask_pair(pair: Pair, *, verdict: str, explain: bool) -> Comparison:
    """Return the call that asks which reply of a pair is better."""
    said, conversation = conversation_of(pair.prompt)
    first, second = harmless(pair.first), harmless(pair.second)
    mark = mark_of(json.dumps([said, first, second]) + first + second)
    texts = {"conversation_mark": said, "conversation": conversation, "reply_mark": mark}
    shown = Template(_TEXTS["pair_material"]).substitute(texts, first=first, second=second)
    kind = "probability" if verdict == "probability" else "boolean_explained" if explain else "boolean"
    question = Template(_TEXTS[f"pair_{kind}"]).substitute(question=harmless(pair.question))
    messages = [
        {"role": "system", "content": _TEXTS["pair_system"].strip()},
        {"role": "user", "content": (shown + question).strip()},
    ]
    keys = () if kind == "probability" else (WINNER,)
    return Comparison(messages, (), f"{pair.first}\n{pair.second}", keys, (None,), kind == "boolean_explained")


def refuse_options(verdict: str, ask: str) -> None:
    """Refuse options of an endpoint judge that have no meaning in a comparison.

    Raises:
        ConfigError: ``ask`` is not ``criterion``, or ``verdict`` is ``scale``.
    """
    if ask != "criterion":
        raise ConfigError(
            f"ask={ask!r} in a comparison of replies, which has no criteria; expected 'criterion'; next step: leave "
            "ask out of the judge of this reward"
        )
    if verdict == "scale":
        raise ConfigError(
            "verdict='scale' in a comparison of replies, which has a winner but no grade; expected 'boolean' or "
            "'probability'; next step: choose 'probability' for graded rewards"
        )


def read_winner(value: object) -> float:
    """Return 1.0 for A, 0.5 for a tie and 0.0 for B.

    Raises:
        MalformedError: the value is anything else.
    """
    found = _VALUES.get(value.strip().casefold()) if isinstance(value, str) else None
    if found is None:
        raise MalformedError(f"{str(value)[:40]!r} instead of A, B or tie")
    return found


def read_preference(tokens: Sequence[tuple[str, float]]) -> float:
    """Return the preference for A: (P(A) + P(C) / 2) / (P(A) + P(B) + P(C)), where C is a tie.

    Args:
        tokens: token and log probability, for the likeliest tokens at one position.

    Raises:
        MalformedError: the three letters together have a probability below :data:`MIN_MASS`.
    """
    mass = dict.fromkeys(_LETTERS, 0.0)
    for token, logprob in tokens:
        letter = token.strip(" \t\r\n▁Ġ\"'.").casefold()
        if letter in mass and math.isfinite(logprob):
            mass[letter] += math.exp(min(logprob, 0.0))
    if (total := sum(mass.values())) < MIN_MASS:
        raise MalformedError(f"the first token is A, B or C with a probability of only {total:.2g}")
    return sum(_LETTERS[letter] * share for letter, share in mass.items()) / total
