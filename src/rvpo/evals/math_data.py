r"""Read rows of mathematical benchmarks as questions: MATH, GSM8K, AIME, AMC, OlympiadBench, and similar files.

The column with the problem is found as for training data (:mod:`rvpo.data.columns`): ``problem``, ``question`` with
its ``context``, ``prompt`` as text or chat. The column with the answer is the first of :data:`ANSWERS` that has values.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rvpo.data.columns import TRUTH, PromptColumns, find_prompt, find_system, spelled
from rvpo.data.files import open_rows, storage_of
from rvpo.data.paths import ABSENT, lookup
from rvpo.data.prompts import read_prompt, with_system
from rvpo.data.records import Place, Row, check_prompt, check_unicode, shorten, source_error
from rvpo.data.whole_prompt import check_whole
from rvpo.errors import DataError
from rvpo.evals.items import Message
from rvpo.evals.pictures import refuse_pictures
from rvpo.evals.row_ids import id_column
from rvpo.files import digest
from rvpo.rewards.math_answers import BOX, HASHES, is_sentence, joined, reference_answers

ANSWERS = (
    "answer", "final_answer", TRUTH, "expected_answer", "reference_answer", "ground_truth", "correct_answer",
    "gold_answer", "short_answer", "gold", "target", "label", "solution",
)  # fmt: skip
"""Columns that may hold the answer; the first with values is used. A ``solution`` must state the answer in a box."""

IDS = ("unique_id", "id", "problem_id", "question_id", "problem_idx", "url")
LABELS = {"level": ("level", "difficulty"), "subject": ("subject", "type", "subfield", "category")}
"""Label -> columns that may hold it. In MATH, ``type`` is the subject."""

MOST_LABELS = 20  # a label with more different values gets no metrics


@dataclass(frozen=True, slots=True)
class Question:
    """One problem.

    Attributes:
        id: unique in its data; the file's own id if it has one, else a digest of problem and answer.
        messages: the problem as a chat, without any instruction.
        answer: the answer in LaTeX without dollar signs.
        labels: level and subject, if the file has them.
    """

    id: str
    messages: tuple[Message, ...]
    answer: str
    labels: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Questions:
    """The problems of a file, and notes for the reader of the scores about how the file was read."""

    questions: tuple[Question, ...]
    notes: tuple[str, ...]


def read_questions(
    path: str | Path,
    *,
    prompt_column: str = "prompt",
    answer_column: str | None = None,
    subset: str | None = None,
    split: str | None = None,
) -> Questions:
    """Read and check all rows; no row is left out silently.

    Args:
        path: file (JSONL, JSON, CSV, parquet), folder or hub id, as for :func:`rvpo.data.load_prompts`.
        prompt_column: as for :func:`rvpo.data.load_prompts`.
        answer_column: column or path with the answer; None searches for one of :data:`ANSWERS`.
        subset: configuration of a hub dataset.
        split: split of a saved or hub dataset.

    Raises:
        DataError: the data cannot be read or are malformed, a problem occurs twice with different answers, or the model
            would not see a part of the problem, such as a picture.
    """
    source = str(path)
    storage = storage_of(path)
    rows = list(open_rows(path, storage, subset=subset, split=split))
    if not rows:
        raise source_error(source, "0 rows", "at least one problem", "check how the file was written")
    columns = find_prompt(rows, prompt_column)
    answers = _find_answers(rows, columns, answer_column)
    system = find_system(rows, [answers])
    prompts = [_prompt(place, row, columns, system) for place, row in rows]
    refuse_pictures(path, storage, rows, prompts)
    read = [answers.split(".")[0], *_label_columns(rows).values(), *([system] if system else [])]
    check_whole(rows, columns, prompts, read)
    notes = _Notes(
        f"problem = {columns.label}, answer = {answers}" + (f", system message = {system}" if system else "")
    )
    notes.tolerances = sum(row.get("error") not in (None, "") for _, row in rows)
    questions = _distinct(rows, prompts, [_answer(place, row, answers, notes) for place, row in rows], notes)
    return Questions(tuple(questions), tuple(notes.lines(len(rows))))


@dataclass(slots=True)
class _Notes:
    columns: str
    lists: int = 0
    sentences: int = 0
    repeated: int = 0
    tolerances: int = 0

    def lines(self, rows: int) -> list[str]:
        lines = [self.columns]
        if self.lists:
            lines.append(
                f"{self.lists} of {rows} references are lists of several answers: a reply must state all of them"
            )
        if self.sentences:
            lines.append(
                f"{self.sentences} of {rows} references look like sentences, and few replies will be equal to them: "
                "use --answer-column to name a column that holds only the answers"
            )
        if self.repeated:
            lines.append(f"{self.repeated} of {rows} rows repeat a problem with its answer: each problem is asked once")
        if self.tolerances:
            lines.append(f"{self.tolerances} of {rows} rows have a tolerance (error), which is not used")
        return lines


def _find_answers(rows: Sequence[tuple[Place, Row]], columns: PromptColumns, chosen: str | None) -> str:
    """Return the column or path of the answers."""

    def holds(path: str) -> bool:
        return any(lookup(row, path) not in (ABSENT, None, "", []) for _, row in rows)

    place = rows[0][0]
    names = list(dict.fromkeys(name for _, row in rows for name in row))
    if chosen is not None:
        if holds(chosen):
            return chosen
        seen = f"no answers there (the columns are {shorten(names)})"
        raise place.error(chosen, seen, "a column with answers", "correct the name")
    by_spelling = {spelled(name): name for name in reversed(names) if name not in columns.names}
    for name in ANSWERS:
        path = by_spelling.get(name, name)
        if path not in columns.names and holds(path):
            return path
    seen = f"no answers (the columns are {shorten(names)})"
    raise place.error("answer", seen, "a column with answers", "name it with --answer-column (answer_column)")


def _prompt(place: Place, row: Row, columns: PromptColumns, system: str | None) -> str | list[dict[str, str]]:
    prompt, _ = read_prompt(place, row, columns)
    if prompt is None:
        raise place.error(columns.label, "no problem", "text or a chat", "fill it in, or remove the row")
    return check_prompt(place, columns.label, prompt if system is None else with_system(row, system, prompt))


def _answer(place: Place, row: Row, path: str, notes: _Notes) -> str:
    value = lookup(row, path)
    stated = isinstance(value, str) and (BOX in value or HASHES in value)
    if spelled(path) == "solution" and isinstance(value, str) and not stated:
        found = []
    else:
        found = reference_answers(None if value is ABSENT else value)
    answer = joined(found)
    if answer is None:
        expected = r"a number, LaTeX, a list of them, or a solution that ends in \boxed{…} or #### …"
        seen = "no answer" if value in (ABSENT, None, "") else f"{type(value).__name__} {shorten(value)}"
        raise place.error(path, seen, expected, "repair or remove the row, or name another column with --answer-column")
    check_unicode(place, path, answer)
    notes.lists += len(set(found)) > 1
    notes.sentences += not stated and is_sentence(answer)
    return answer


def _distinct(
    rows: Sequence[tuple[Place, Row]], prompts: Sequence[Any], answers: Sequence[str], notes: _Notes
) -> list[Question]:
    """Return each problem once."""
    labels = _label_columns(rows)
    ids = id_column(rows, [name for column in IDS for name in rows[0][1] if spelled(name) == column])
    known: dict[str, tuple[Place, str]] = {}
    questions = []
    for (place, row), prompt, answer in zip(rows, prompts, answers, strict=True):
        chat = [{"role": "user", "content": prompt}] if isinstance(prompt, str) else prompt
        key = digest([(turn["role"], " ".join(turn["content"].split())) for turn in chat])
        if key in known:
            first, other = known[key]
            if other.replace(" ", "") != answer.replace(" ", ""):
                seen = f"the problem of row {first.row} again, with the answer {shorten(answer)}, not {shorten(other)}"
                raise place.error(None, seen, "one answer for each problem", "remove the wrong row")
            notes.repeated += 1
            continue
        known[key] = (place, answer)
        id_ = digest([key, answer])[:16] if ids is None else str(row[ids])
        labelled = {label: _label(row[name]) for label, name in labels.items() if row.get(name) is not None}
        questions.append(Question(id_, tuple(chat), answer, labelled))
    return questions


def _label_columns(rows: Sequence[tuple[Place, Row]]) -> dict[str, str]:
    """Return label -> column, for columns with a few different words or numbers."""
    names = {spelled(name): name for _, row in reversed(rows) for name in row}
    found = {}
    for label, columns in LABELS.items():
        for name in (names[column] for column in columns if column in names):
            values = Counter(_label(row[name]) for _, row in rows if _is_label(row.get(name)))
            if 1 < len(values) <= MOST_LABELS and sum(values.values()) == len(rows):
                found[label] = name
                break
    return found


def _is_label(value: Any) -> bool:
    return isinstance(value, str | int | float) and not isinstance(value, bool) and value != ""


def _label(value: Any) -> str:
    """Return a label as one short line; MATH's ``Level 5`` becomes 5."""
    text = " ".join(str(value).split())
    return re.sub(r"^level\s+", "", text, flags=re.IGNORECASE)[:60]


def require_readable(source: str, unread: Sequence[str], total: int) -> None:
    """Refuse references if Math-Verify cannot read most of them.

    Raises:
        DataError: more than half of them cannot be read.
    """
    if 2 * len(unread) > total:
        raise DataError(
            f"{source}: saw {len(unread)} of {total} references that Math-Verify cannot read, such as "
            f"{shorten(unread[0])}; expected answers in LaTeX; next step: name their column with --answer-column"
        )
