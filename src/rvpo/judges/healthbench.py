"""HealthBench's own grader: the request that openai/simple-evals sends for a rubric item, and the reader of the answer.

Source: ``healthbench_eval.py`` and ``sampler/chat_completion_sampler.py`` of openai/simple-evals (commit ee3b0318). The
template itself is read from the package inspect-evals, which contains the same text, and is checked by its digest.

This grader differs from the reference on purpose:

- The template shows conversation and completion as bare text. Nothing in it separates data from instructions, and that
  cannot be fixed without changing the template. But control tokens of chat templates are split (as in
  :mod:`rvpo.judges.asking`), and ``<<rubric_item>>`` in a completion stays unchanged; the reference would replace it.
- A thought (``<think>…</think>``) before the answer is removed, and a code fence may lack the word json. Every answer
  that the reference can read is read in the same way.
- The reference asks until it can read an answer. This grader asks ``retries`` more times, and then the verdict is
  missing.
- Whole points are written without a decimal point, ``[5]``, as in HealthBench's files.
"""

from __future__ import annotations

import functools
import hashlib
import json
import re
from dataclasses import dataclass
from typing import Any

from rvpo.errors import ConfigError
from rvpo.files import sound
from rvpo.judges.asking import MAX_DETAIL_CHARS, Inquiry
from rvpo.judges.control_tokens import harmless
from rvpo.judges.parsing import MAX_ANSWER_CHARS, MalformedError, read_met, without_reasoning
from rvpo.judges.transport import ServerReply
from rvpo.rewards.rubric.criteria import Criterion
from rvpo.rewards.rubric.texts import chat
from rvpo.rewards.rubric.verdict import Prompt, Verdict

ASK = "healthbench"
"""Value of the option ``ask`` that chooses this grader."""

SYSTEM, TEMPERATURE, MAX_OUTPUT_TOKENS = "You are a helpful assistant.", 0.5, 2048  # as in simple-evals' grader
TEMPLATE_DIGEST = "2adffd51fd259554ebcd036ad1072d4aa2b7ce3aec2bbffe36271f911632ed3c"
"""SHA-256 of the template in simple-evals. It is a part of the key under which a verdict is cached."""

_PLACE = re.compile(r"<<(conversation|rubric_item)>>")


@functools.cache
def template() -> str:
    """Return the grader's template.

    Raises:
        ConfigError: inspect-evals is not installed, or contains another text.
    """
    from rvpo.extras import install_command

    step = install_command("eval")
    try:
        from inspect_evals.healthbench.scorer import GRADER_TEMPLATE
    except ImportError as error:
        raise ConfigError(
            f"ask='healthbench' needs {error.name}, because HealthBench's grading text is read from inspect-evals: "
            f"{step}"
        ) from error
    if (digest := hashlib.sha256(GRADER_TEMPLATE.encode()).hexdigest()) != TEMPLATE_DIGEST:
        raise ConfigError(
            f"the grading text of the installed inspect-evals has the digest {digest[:12]}; expected the digest of "
            f"simple-evals, {TEMPLATE_DIGEST[:12]}: {step}"
        )
    return str(GRADER_TEMPLATE)


@dataclass(frozen=True, slots=True)
class Grading(Inquiry):
    """One call about one rubric item."""

    def read(self, answer: ServerReply) -> list[Verdict]:
        """Return the verdict.

        Raises:
            MalformedError: the whole answer is not a JSON object with true or false.
        """
        text = answer.text or ""
        if len(text) > MAX_ANSWER_CHARS:
            raise MalformedError(f"an answer of {len(text)} characters")
        value = _parsed(text)
        if value is None:  # only in this case, because a quotation in an explanation may look like the end of a thought
            value = _parsed(without_reasoning(text))
        if not isinstance(value, dict) or "criteria_met" not in value:
            raise MalformedError("an answer that is not just a JSON object with criteria_met")
        explanation = value.get("explanation")
        detail = sound(explanation)[:MAX_DETAIL_CHARS] if isinstance(explanation, str) else None
        return [Verdict(read_met(value["criteria_met"]), None, detail)]


def ask_item(prompt: Prompt, completion: str, criterion: Criterion) -> Grading:
    """Return the call that asks about one criterion as the reference does.

    Raises:
        ConfigError: see :func:`refuse_scale` and :func:`template`.
    """
    refuse_scale(criterion)
    turns = [*chat(prompt), ("assistant", completion)]
    points = int(criterion.points) if float(criterion.points).is_integer() else criterion.points
    values = {
        "conversation": "\n\n".join(f"{harmless(' '.join(role.split()))}: {harmless(text)}" for role, text in turns),
        "rubric_item": f"[{points}] {sound(criterion.text)}",
    }
    # In one pass, so that the text of a conversation is not searched for placeholders.
    question = _PLACE.sub(lambda place: values[place[1]], template())
    messages = [{"role": "system", "content": SYSTEM}, {"role": "user", "content": question}]
    return Grading(messages, (criterion,), completion, ("criteria_met",), (None,), explained=True)


def refuse_scale(criterion: Criterion) -> None:
    """Refuse a criterion with a scale, which the reference does not support.

    Raises:
        ConfigError: the criterion has a scale.
    """
    if criterion.scale is not None:
        raise ConfigError(
            f"criterion {criterion.id!r} has a scale, but ask='healthbench' knows only met and not met; expected "
            "criteria without a scale; next step: set ask to 'criterion'"
        )


def _parsed(text: str) -> Any:
    """Parse a text that is JSON, bare or in a code fence. Return None for other texts."""
    text = text.strip().removesuffix("```")
    try:
        return json.loads(text.removeprefix("```json").removeprefix("```").strip())
    except (ValueError, RecursionError):
        return None
