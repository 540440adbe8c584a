"""Check prompts that occur with several answers. If an unread text distinguishes them, the prompt is incomplete."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from rvpo.data.columns import ANSWER_COLUMNS, PromptColumns, spelled
from rvpo.data.picture_columns import key_of
from rvpo.data.records import Place, Row, shorten
from rvpo.data.whole_prompt import is_wordy, next_step

_REASONS = {"rationale", "explanation", "reasoning", "cot", "chain_of_thought", "thought", "thoughts", "analysis"}
_FEW = 0.01  # share of the rows that may repeat a prompt with another answer; large collections have a few of these


def check_answers(
    rows: Sequence[tuple[Place, Row]],
    columns: PromptColumns,
    records: Sequence[Row],
    read: Sequence[str],
) -> str:
    """Return a note on prompts that occur with several answers; "" without such prompts.

    Args:
        rows: rows with their places.
        columns: columns with the prompt.
        records: record that was read from each row.
        read: columns that were read.

    Raises:
        DataError: more than a few rows repeat a prompt with another answer, and the texts of unread columns differ
            between them.
    """
    answers = [_answer_of(record) for record in records]
    by_prompt: dict[str, list[int]] = {}
    for i, record in enumerate(records):
        by_prompt.setdefault(json.dumps(key_of(record)), []).append(i)
    repeats = [group for group in by_prompt.values() if len({answers[i] for i in group}) > 1]
    if not repeats:
        return ""
    count = sum(map(len, repeats))
    differ = [name for name in _texts(rows, read) if _differs(rows, name, repeats, answers)]
    if not differ or columns.chosen or count <= _FEW * len(rows):
        return f"{count} of {len(rows)} rows repeat a prompt with another answer"
    first, again = repeats[0][0], next(i for i in repeats[0] if answers[i] != answers[repeats[0][0]])
    seen = (
        f"the prompt of row {first} again, with another answer ({shorten(answers[again], 40)}, there "
        f"{shorten(answers[first], 40)}), as in {count} of {len(rows)} rows; the texts of {differ} are not read"
    )
    is_text = isinstance(records[0]["prompt"], str)
    raise rows[again][0].error(columns.label, seen, "the whole prompt", next_step(columns, differ[0], joins=is_text))


def _answer_of(record: Row) -> Any:
    answer = record.get("answer", record.get("rubric"))
    if not isinstance(answer, str):
        return repr(answer)
    try:
        return float(answer)
    except ValueError:
        return " ".join(answer.split())


def _texts(rows: Sequence[tuple[Place, Row]], read: Sequence[str]) -> list[str]:
    """Return the columns with texts that are not read and are not answers."""
    names = dict.fromkeys(name for _, row in rows for name in row)
    others = [name for name in names if name not in read and spelled(name) not in {*ANSWER_COLUMNS, *_REASONS}]
    return [name for name in others if any(is_wordy(row.get(name)) for _, row in rows)]


def _differs(
    rows: Sequence[tuple[Place, Row]], name: str, groups: Sequence[Sequence[int]], answers: Sequence[Any]
) -> bool:
    """Return whether a column distinguishes the rows with different answers, in most groups of equal prompts."""
    distinguished = 0
    for group in groups:
        texts = {repr(rows[i][1].get(name)) for i in group}
        distinguished += len(texts) >= len({answers[i] for i in group})
    return 2 * distinguished > len(groups)
