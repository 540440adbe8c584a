"""Find the columns of a file with the prompt, the system message and the answer."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from rvpo.data.paths import ABSENT, lookup
from rvpo.data.records import Place, Row

CONTEXTS = ("context", "body", "passage", "story", "paragraph", "background")
"""Columns that are put before a question, if a file has one of them and the question does not repeat it."""

QUESTIONS = ("question", "problem", "query", "instruction", "user_query")
"""Columns with a question, which one of :data:`CONTEXTS` is joined with."""

TOGETHER = ("instruction", "input")
"""Columns that form one prompt together, in this order."""

JOINT = " + "
"""Separator between several columns of a prompt, for example in the option ``prompt_column``."""

PROMPT_COLUMNS = (
    "question",
    "problem",
    "query",
    "instruction",
    "messages",
    "conversations",
    "conversation",
    "user_query",
    "user_prompt",
    "turns",
)
"""Names of the column with the prompt, if no column is called ``prompt``. Two of them in a file are ambiguous."""

LESS_USUAL = ("input", "task")
"""Further names of the prompt, used only if a file has none of the others, because they often mean other things."""

ANSWER_COLUMNS = (
    "solution",
    "reference_answer",
    "ground_truth",
    "expected_answer",
    "final_answer",
    "correct_answer",
    "gold_answer",
    "gold",
    "target",
    "label",
    "reference",
    "output",
    "response",
    "completion",
)
"""Names of the column with the answer, if no column is called ``answer``. Two of them in a file are ambiguous."""

SYSTEM_COLUMNS = ("system", "system_prompt", "system_message")
CONVERSATIONS = ("messages", "conversations", "conversation")
TRUTH = "reward_model.ground_truth"
"""Path of the answer in verl's rows."""


@dataclass(frozen=True)
class PromptColumns:
    """The columns of the prompt: one, or several that are joined by blank lines. Absent columns add nothing.

    Attributes:
        names: names of the columns, in order.
        chosen: whether the user named them. Then no other column is a part of the prompt.
    """

    names: tuple[str, ...]
    chosen: bool = False

    @property
    def is_conversation(self) -> bool:
        """Whether a last turn of the assistant is the answer, not part of the prompt."""
        return self.names[0].lower() in CONVERSATIONS

    @property
    def label(self) -> str:
        """The columns in the form of the option ``prompt_column``."""
        return JOINT.join(self.names)

    @property
    def asked(self) -> str:
        """The column that every row needs: the one with the question, or else the last one."""
        return next((name for name in self.names if spelled(name) in ("prompt", *PROMPT_COLUMNS)), self.names[-1])

    def line(self) -> str:
        """Return the part of the log line that names the columns."""
        return f"prompt = {self.label}"


def find_prompt(rows: Sequence[tuple[Place, Row]], chosen: str) -> PromptColumns:
    """Return the columns with the prompt.

    Args:
        rows: rows with their places.
        chosen: option ``prompt_column``: one column, or several joined by " + ". If it is ``"prompt"``, the default,
            and that column is absent, other usual names are tried.

    Raises:
        DataError: two columns may be the prompt, or one of several chosen columns is absent.
    """
    columns = list(dict.fromkeys(name for _, row in rows for name, value in row.items() if value is not None))
    if chosen != "prompt":
        return _chosen(rows, chosen, columns)
    known = {spelled(name): name for name in reversed(columns)}
    if "prompt" in known:
        return PromptColumns((known["prompt"],))
    if "prompt_0" in known:
        turns = [known[f"{kind}_{i}"] for i in range(100) for kind in ("prompt", "response") if f"{kind}_{i}" in known]
        return PromptColumns(tuple(turns))
    found = [known[name] for name in PROMPT_COLUMNS if name in known]
    pair = [known[name] for name in TOGETHER if name in known]
    if len(pair) == 2 and set(found) <= set(pair):
        return PromptColumns(tuple(pair))
    found = found or [known[name] for name in LESS_USUAL if name in known]
    if len(found) > 1:
        place = rows[0][0]
        seen = f"no column 'prompt', and {found} may each be the prompt"
        next_step = f"choose one, such as prompt_column={found[0]!r}"
        raise place.error("prompt", seen, "one column with the prompt", next_step)
    if found and spelled(found[0]) in QUESTIONS:
        contexts = [known[name] for name in CONTEXTS if name in known and not is_within(rows, known[name], found[0])]
        return PromptColumns((*contexts, *found) if len(contexts) == 1 else tuple(found))
    return PromptColumns(tuple(found) or (chosen,))


def _chosen(rows: Sequence[tuple[Place, Row]], chosen: str, columns: Sequence[str]) -> PromptColumns:
    names = (chosen,) if chosen in columns else tuple(chosen.split(JOINT))
    absent = [name for name in names if name not in columns]
    if len(names) > 1 and absent:
        place = rows[0][0]
        seen = f"no column {absent[0]!r} (the file has {columns})"
        raise place.error(chosen, seen, "columns of the file, joined by ' + '", "correct prompt_column")
    return PromptColumns(names, chosen=True)


def is_within(rows: Sequence[tuple[Place, Row]], part: str, whole: str) -> bool:
    """Return whether the texts of one column contain those of another, in nearly every row that has both."""
    texts = [(_squeezed(row.get(part)), _squeezed(row.get(whole))) for _, row in rows]
    both = [(inner, outer) for inner, outer in texts if inner and outer]
    return bool(both) and sum(inner in outer for inner, outer in both) >= NEARLY * len(both)


NEARLY = 0.9
"""Share of the rows that counts as nearly all. Single rows may differ in blanks or a letter."""


def _squeezed(value: object) -> str:
    return "".join(value.split()).lower() if isinstance(value, str) else ""


def find_system(rows: Sequence[tuple[Place, Row]], raw: Sequence[str]) -> str | None:
    """Return the column with the text of the system message, which is a part of the prompt; None if absent."""
    texts = (name for _, row in rows for name, value in row.items() if isinstance(value, str) and value.strip())
    names = dict.fromkeys(texts)
    return next((name for name in names if spelled(name) in SYSTEM_COLUMNS and name not in raw), None)


def find_answer(
    rows: Sequence[tuple[Place, Row]], columns: PromptColumns, *, rubric: str | None, has_reply: bool
) -> str | None:
    """Return the column with the answer; None if conversations end with it, or if rubrics replace it.

    Args:
        rows: rows with their places.
        columns: columns with the prompt.
        rubric: path of the rubrics; None without rubrics.
        has_reply: whether conversations end with a reply.

    Raises:
        DataError: two columns may be the answer, and the file has no rubrics.
    """

    has_rubric = rubric is not None

    def filled(path: str) -> int:
        return sum(lookup(row, path) not in (ABSENT, None, "") for _, row in rows)

    if filled("answer") and rubric != "answer":
        return "answer" if not has_rubric or filled("answer") == len(rows) else None
    if filled(TRUTH):
        return TRUTH if not has_rubric or filled(TRUTH) == len(rows) else None
    if has_rubric or has_reply:
        return None
    names = dict.fromkeys(name for _, row in rows for name in row)
    known = {spelled(name): name for name in names if name not in columns.names}
    found = [known[name] for name in ("answer", *ANSWER_COLUMNS) if name in known and filled(known[name])]
    if len(found) > 1 and found[0].lower() != "answer":
        place = rows[0][0]
        seen = f"no column 'answer', and {found} may each be the answer"
        next_step = f"choose one, such as reference_columns={{'answer': {found[0]!r}}}"
        raise place.error("answer", seen, "one column with the answer", next_step)
    return found[0] if found else "answer"


def spelled(name: str) -> str:
    """Return the name of a column in a normal form.

    Example:
        >>> spelled("Correct Answer")
        'correct_answer'
    """
    return re.sub(r"[\s-]+", "_", name.strip()).lower()
