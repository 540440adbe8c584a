"""Turn rows of any layout into records. The prompt, the rubric and the answer are found by their names and forms."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rvpo.data import prompts
from rvpo.data.columns import PromptColumns, find_answer, find_prompt, find_system
from rvpo.data.criteria import read_criteria
from rvpo.data.find_rubrics import find_rubrics
from rvpo.data.paths import ABSENT, lookup
from rvpo.data.picture_columns import (
    AUTO,
    IMAGES,
    NONE,
    check_absent,
    find_pictures,
    read_pictures,
    with_placeholders,
)
from rvpo.data.picture_columns import placed as with_count
from rvpo.data.records import Place, Row, shorten, to_record
from rvpo.data.repeated_prompts import check_answers
from rvpo.data.rubric_forms import DIMENSION_WEIGHTS
from rvpo.data.unread_pictures import check_numbered, check_unread
from rvpo.data.whole_prompt import check_whole
from rvpo.errors import ConfigError
from rvpo.pictures import PLACEHOLDER
from rvpo.text.numbers import answer_text

RUBRIC = "rubric"
"""Name of the column with the rubric in the result."""


_NEEDED = ("instruction_id_list", "kwargs", "tests", "test", "test_cases", "verification_info", "function", "tools")
"""Columns that often score completions without an answer: IFEval's checks, tests of programs, tools."""


@dataclass(frozen=True)
class General:
    """Options for rows of any layout. Their meaning is documented in :func:`rvpo.data.load_prompts`."""

    prompt_column: str
    references: Mapping[str, str] | None
    rubric_keys: Mapping[str, str]
    pitfalls: str | None
    missing_rubrics: str
    system_prompt: str | None
    image_column: str = AUTO
    trusted_paths: bool = False

    @property
    def about_rubrics(self) -> bool:
        """Whether an option about rubrics is set."""
        return bool(self.rubric_keys) or self.pitfalls is not None


def read_general(rows: Sequence[tuple[Place, Row]], options: General) -> tuple[list[tuple[Place, Row]], str]:
    """Return checked records, and the log line that says which columns were read as what.

    The line is "" if all columns have the names of a record.

    Raises:
        DataError: a row is malformed, a value looks like a rubric but is not one, or two columns may be the same part.
        ConfigError: an option about rubrics is set but the data have no rubrics, or an option is missing.
    """
    if not rows:
        return [], ""
    raw = list((options.references or {}).values())
    columns = find_prompt(rows, options.prompt_column)
    path = find_rubrics(rows, options.rubric_keys.get("rubric"), raw)
    parts = [] if columns.names == ("prompt",) else [columns.line()]
    rubrics: list[str | None] = []
    if path is not None:
        rubrics, reading = read_criteria(rows, path, options.rubric_keys, options.pitfalls)
        parts.append(reading.line(path))
        _require_rubrics(rows, path, rubrics, options.missing_rubrics)
    elif options.rubric_keys or options.pitfalls:
        place, row = rows[0]
        given = "rubric_keys" if options.rubric_keys else f"pitfalls={options.pitfalls!r}"
        raise ConfigError(
            f"{place.source}: {given}, but no column looks like a rubric (the columns are {sorted(row)}); expected "
            "rubrics; next step: set rubric_keys={'rubric': COLUMN}, or leave the option out"
        )
    _require_prompt(rows, columns)
    placed = [(place, row, *prompts.read_prompt(place, row, columns)) for place, row in rows]
    images, pictures = find_pictures(rows, options.image_column), None
    parts_of: list[list[Any]] = [[] for _ in placed]
    if options.image_column != NONE:
        placed = [
            (place, row, with_placeholders(place, prompt, found), reply)
            for (place, row, prompt, reply), found in zip(placed, parts_of, strict=True)
        ]
    if images is not None or any(parts_of):
        pictures = [
            read_pictures(place, row, images, inline, options.trusted_paths)
            for (place, row), inline in zip(rows, parts_of, strict=True)
        ]
        parts.append(f"pictures = {images or 'parts of the prompt'}")
    else:
        check_absent(rows, [prompt for _, _, prompt, _ in placed], columns.label, options.image_column)
    system = find_system(rows, raw)
    if system is not None:
        placed = [(place, row, prompts.with_system(row, system, prompt), reply) for place, row, prompt, reply in placed]
        parts.append(f"system message = {system}")
    other_columns = [*raw, *filter(None, (path, system, images))]
    check_whole(rows, columns, [prompt for _, _, prompt, _ in placed], [name.split(".")[0] for name in other_columns])
    replies = sum(reply is not None for *_, reply in placed)
    references, from_reply = options.references, False
    if references is None:
        answer = find_answer(rows, columns, rubric=path, has_reply=replies > 0)
        from_reply = answer is None and replies == len(rows)
        if answer is None and replies and path is None:
            from_reply = True
        if answer == "answer" and not from_reply:
            _require_answer(rows, columns)
        references = {"answer": "answer"} if from_reply else {} if answer is None else {"answer": answer}
        if from_reply:
            placed = [(place, {**row, "answer": reply}, prompt, reply) for place, row, prompt, reply in placed]
        if from_reply or answer not in (None, "answer"):
            parts.append(f"answer = {'the last turn of the assistant' if from_reply else answer}")
    if replies and not from_reply:
        parts.append(f"the last turn of the assistant, in {replies} rows, is not a part of the prompt")
    if path is not None and RUBRIC in references:
        path = None  # the user reads a column unchanged under this name
    name = columns.label
    if pictures is not None and PLACEHOLDER in (options.system_prompt or ""):
        raise ConfigError(
            f"system_prompt contains {PLACEHOLDER}, which stands for a picture, and the prompts have pictures; "
            "expected text without it; next step: remove it"
        )
    records = []
    for i, (place, row, prompt, _) in enumerate(placed):
        if pictures is not None:
            prompt = with_count(place, name, prompt, len(pictures[i]))
        filled = _filled(row, references) | ({} if prompt is None else {name: prompt})
        record = to_record(
            place, filled, prompt_column=name, reference_columns=references, system_prompt=options.system_prompt
        )
        if path is not None:
            record = {"prompt": record.pop("prompt"), RUBRIC: rubrics[i], **record}
        if pictures is not None:
            record[IMAGES] = pictures[i]
        records.append((place, record))
    read = [*columns.names, *references.values(), *filter(None, (path, system, images))]
    if images is not None:
        check_numbered(rows, images)
    if pictures is None:
        check_unread(rows, [name.split(".")[0] for name in read], options.image_column)
    if repeats := check_answers(rows, columns, [record for _, record in records], read):
        parts.append(repeats)
    parts += _unread(rows, read)
    return records, "; ".join(parts)


def _filled(row: Row, references: Mapping[str, str]) -> Row:
    """Return a row with its references at the top level. Answers that are numbers become text."""
    filled = dict(row)
    for new_name, path in references.items():
        value = lookup(row, path)
        if value is not ABSENT:
            filled[path] = answer_text(value) if new_name == "answer" else value
    return filled


def _require_prompt(rows: Sequence[tuple[Place, Row]], columns: PromptColumns) -> None:
    if any(lookup(row, name) is not ABSENT for _, row in rows for name in columns.names):
        return
    place, row = rows[0]
    seen = f"no such field (the row has {shorten(sorted(row))})"
    next_step = "add the field to this row, or set prompt_column to the column with the prompt"
    raise place.error(columns.label, seen, "text or chat messages", next_step)


def _require_answer(rows: Sequence[tuple[Place, Row]], columns: PromptColumns) -> None:
    """Refuse rows without an answer but with other columns, because a reward function may need one of these."""
    names = list(dict.fromkeys(name for _, row in rows for name, value in row.items() if value is not None))
    others = [name for name in names if name not in columns.names]
    if "answer" in names or not others:
        return
    place, row = rows[0]
    kept = ", ".join(f"{name!r}: {name!r}" for name in _NEEDED if name in others) or f"{others[0]!r}: {others[0]!r}, …"
    next_step = (
        "name the column with the answer, reference_columns={'answer': COLUMN}, or the columns that a reward function "
        f"needs, reference_columns={{{kept}}}; other columns are not read"
    )
    raise place.error("answer", f"no such field (the row has {shorten(sorted(row))})", "text", next_step)


def _require_rubrics(
    rows: Sequence[tuple[Place, Row]], path: str, rubrics: Sequence[str | None], missing_rubrics: str
) -> None:
    without = [place for (place, _), rubric in zip(rows, rubrics, strict=True) if rubric is None]
    if without and (missing_rubrics == "error" or len(without) == len(rows)):
        have = len(rows) - len(without)
        expected = f"a rubric, as {have} of {len(rows)} rows have" if have else "a list of at least one criterion"
        next_step = "add its criteria, or set missing_rubrics='keep' to keep prompts without a rubric"
        raise without[0].error(path, "no rubric", expected, next_step)


def _unread(rows: Iterable[tuple[Place, Row]], read: Sequence[str]) -> list[str]:
    tops = {name.split(".")[0] for name in read} | set(read) | set(DIMENSION_WEIGHTS)
    names = dict.fromkeys(name for _, row in rows for name, value in row.items() if value is not None)
    unread = [name for name in names if name not in tops]
    return [f"not read: {', '.join(unread[:12])}{', …' if len(unread) > 12 else ''}"] if unread else []
