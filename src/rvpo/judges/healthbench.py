"""HealthBench's own grader: the request that openai/simple-evals sends for a rubric item, and how it reads the answer.

Source: ``healthbench_eval.py`` and ``sampler/chat_completion_sampler.py`` of openai/simple-evals (commit ee3b0318). The
template itself is read from the package inspect-evals, which carries the same text, and is checked by its digest.

Where ours differs from the reference, on purpose:

- The template shows conversation and completion as bare text: nothing in it tells data from instructions, and that
  cannot be mended without changing it. What can be: control tokens of chat templates are split (as in
  :mod:`rvpo.judges.asking`), and ``<<rubric_item>>`` in a completion stays as it is; the reference would fill it in.
- A thought (``<think>…</think>``) before the answer is left out, and a code fence may lack the word json. What the
  reference can read, ours reads alike.
- The reference asks until it can read an answer; ours asks ``retries`` times more, and then the verdict is missing.
- Points that are whole are written without a decimal point, ``[5]``, as HealthBench's files have them.
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
"""The value of ``ask`` that means this grader."""

SYSTEM, TEMPERATURE, MAX_OUTPUT_TOKENS = "You are a helpful assistant.", 0.5, 2048  # of simple-evals' grading sampler
TEMPLATE_DIGEST = "2adffd51fd259554ebcd036ad1072d4aa2b7ce3aec2bbffe36271f911632ed3c"
"""SHA-256 of the template in simple-evals: part of the key under which a verdict is kept."""

_PLACE = re.compile(r"<<(conversation|rubric_item)>>")


@functools.cache
def template() -> str:
    """Return the grader's template.

    Raises:
        ConfigError: inspect-evals is not installed, or carries another text.
    """
    from rvpo.extras import install_command

    step = install_command("eval")
    try:
        from inspect_evals.healthbench.scorer import GRADER_TEMPLATE
    except ImportError as error:
        raise ConfigError(
            f"ask='healthbench' needs {error.name}, as HealthBench's grading text is read from inspect-evals: {step}"
        ) from error
    if (digest := hashlib.sha256(GRADER_TEMPLATE.encode()).hexdigest()) != TEMPLATE_DIGEST:
        raise ConfigError(
            f"the grading text of the installed inspect-evals has the digest {digest[:12]}; expected that of "
            f"simple-evals, {TEMPLATE_DIGEST[:12]}: {step}"
        )
    return str(GRADER_TEMPLATE)


@dataclass(frozen=True, slots=True)
class Grading(Inquiry):
    """One call about one rubric item."""

    def read(self, answer: ServerReply) -> list[Verdict]:
        """Return the verdict; MalformedError unless the answer as a whole is a JSON object with a true or false."""
        text = answer.text or ""
        if len(text) > MAX_ANSWER_CHARS:
            raise MalformedError(f"an answer of {len(text)} characters")
        value = _parsed(text)
        if value is None:  # only then: what an explanation quotes may look like the end of a thought
            value = _parsed(without_reasoning(text))
        if not isinstance(value, dict) or "criteria_met" not in value:
            raise MalformedError("an answer that is not just a JSON object with criteria_met")
        told = value.get("explanation")
        detail = sound(told)[:MAX_DETAIL_CHARS] if isinstance(told, str) else None
        return [Verdict(read_met(value["criteria_met"]), None, detail)]


def ask_item(prompt: Prompt, completion: str, criterion: Criterion) -> Grading:
    """Ask about one criterion as the reference does.

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
    # In one pass: what a conversation says is never taken for a place to fill.
    question = _PLACE.sub(lambda place: values[place[1]], template())
    messages = [{"role": "system", "content": SYSTEM}, {"role": "user", "content": question}]
    return Grading(messages, (criterion,), completion, ("criteria_met",), (None,), explained=True)


def refuse_scale(criterion: Criterion) -> None:
    """Raise ConfigError for a criterion with a scale, which the reference does not know."""
    if criterion.scale is not None:
        raise ConfigError(
            f"criterion {criterion.id!r} has a scale and ask='healthbench' knows met and not met alone; expected "
            "criteria without a scale; next step: set ask to 'criterion'"
        )


def _parsed(text: str) -> Any:
    """Return what a JSON text holds, bare or in a fence; None where it is none."""
    text = text.strip().removesuffix("```")
    try:
        return json.loads(text.removeprefix("```json").removeprefix("```").strip())
    except (ValueError, RecursionError):
        return None
