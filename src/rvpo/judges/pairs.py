"""What a judge is asked about two replies, and how its answers are read; as :mod:`rvpo.judges.asking` for criteria.

Both replies may be hostile, and each may know the other: a policy learns its references. So one mark fences both, made
of both texts and found in neither; control tokens are split; and an answer with text around its JSON does not count
where a reply holds the key of a verdict.
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
_LETTERS = {"a": 1.0, "c": 0.5, "b": 0.0}  # of one token: a word for a tie may be several

_FOLDER = files("rvpo.judges") / "prompts"
_NAMES = ("pair_system", "pair_material", "pair_boolean", "pair_boolean_explained", "pair_probability")
_TEXTS = {name: (_FOLDER / f"{name}.txt").read_text(encoding="utf-8") for name in _NAMES}
_LAYOUT = 1  # version of what this module does with these texts
DIGEST = hashlib.sha256(json.dumps([_LAYOUT, _TEXTS], sort_keys=True).encode()).hexdigest()
"""Version of these prompts: part of the key under which a comparison is kept."""


@dataclass(frozen=True, slots=True)
class Comparison(Inquiry):
    """One call about one pair in one order."""

    def read(self, answer: ServerReply) -> list[Verdict]:
        """Return the verdict: 1 where the first reply is better; MalformedError where the answer holds none."""
        if self.by_logprobs:
            if answer.first_token is None:
                raise MalformedError("no logprobs: the server does not give them; set verdict to 'boolean'")
            return [Verdict(read_preference(answer.first_token))]
        values = read_object(answer.text or "", self.keys, self.completion)
        told = values.get("explanation") if self.explained else None
        detail = sound(told)[:MAX_DETAIL_CHARS] if isinstance(told, str) else None
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
    """Ask which reply of a pair is better."""
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
    """Raise ConfigError for options of an endpoint judge that mean nothing in a comparison."""
    if ask != "criterion":
        raise ConfigError(
            f"ask={ask!r} in a comparison of replies, which has no criteria; expected 'criterion'; next step: leave "
            "ask out of the judge of this reward"
        )
    if verdict == "scale":
        raise ConfigError(
            "verdict='scale' in a comparison of replies, which has a winner and no grade; expected 'boolean' and "
            "'probability'; next step: choose 'probability' for graded rewards"
        )


def read_winner(value: object) -> float:
    """Return 1.0 for A, 0.5 for a tie and 0.0 for B; anything else is MalformedError."""
    found = _VALUES.get(value.strip().casefold()) if isinstance(value, str) else None
    if found is None:
        raise MalformedError(f"{str(value)[:40]!r} instead of A, B or tie")
    return found


def read_preference(tokens: Sequence[tuple[str, float]]) -> float:
    """Return P(A) + P(C) / 2, of A, B and C (a tie) together, over the (token, log probability) pairs of one position.

    Raises:
        MalformedError: the three letters together have less than :data:`MIN_MASS`.
    """
    mass = dict.fromkeys(_LETTERS, 0.0)
    for token, logprob in tokens:
        letter = token.strip(" \t\r\n▁Ġ\"'.").casefold()
        if letter in mass and math.isfinite(logprob):
            mass[letter] += math.exp(min(logprob, 0.0))
    if (total := sum(mass.values())) < MIN_MASS:
        raise MalformedError(f"A, B and C have {total:.2g} of the probability of the first token: it is no answer")
    return sum(_LETTERS[letter] * share for letter, share in mass.items()) / total
