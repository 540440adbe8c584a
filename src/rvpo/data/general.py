"""Rows of any layout as records: the prompt, the rubric and the answer are found by their names and forms."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from rvpo.data import prompts
from rvpo.data.criteria import read_criteria
from rvpo.data.find_rubrics import find_rubrics
from rvpo.data.paths import ABSENT, lookup
from rvpo.data.records import Place, Row, to_record
from rvpo.data.rubric_forms import DIMENSION_WEIGHTS
from rvpo.errors import ConfigError

RUBRIC = "rubric"
"""The column of the result with the rubric."""


@dataclass(frozen=True)
class General:
    """Options of reading rows of any layout; see :func:`rvpo.data.load_prompts`."""

    prompt_column: str
    references: Mapping[str, str] | None
    rubric_keys: Mapping[str, str]
    pitfalls: str | None
    missing_rubrics: str
    system_prompt: str | None

    @property
    def about_rubrics(self) -> bool:
        """Whether an option says how rubrics are read."""
        return bool(self.rubric_keys) or self.pitfalls is not None


def read_general(rows: Sequence[tuple[Place, Row]], options: General) -> tuple[list[tuple[Place, Row]], str]:
    """Return checked records and the line that says what was read as what; "" if the columns have their own names.

    Raises:
        DataError: a row is malformed, looks like a rubric and is none, or two columns may hold the same thing.
        ConfigError: an option about rubrics, and the data have none; or one that the data need is not set.
    """
    if not rows:
        return [], ""
    raw = list((options.references or {}).values())
    columns = prompts.find_prompt(rows, options.prompt_column)
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
            f"{place.source}: {given}, and no column looks like a rubric (the columns are {sorted(row)}); expected "
            "rubrics; next step: name the column in rubric_keys, as {'rubric': …}, or leave the option out"
        )
    placed = [(place, row, *prompts.read_prompt(place, row, columns)) for place, row in rows]
    system = prompts.find_system(rows, raw)
    if system is not None:
        placed = [(place, row, prompts.with_system(row, system, prompt), reply) for place, row, prompt, reply in placed]
        parts.append(f"system message = {system}")
    replies = sum(reply is not None for *_, reply in placed)
    references, from_reply = options.references, False
    if references is None:
        answer = prompts.find_answer(rows, columns, rubric=path, has_reply=replies > 0)
        from_reply = answer is None and replies == len(rows)
        if answer is None and replies and path is None:
            from_reply = True
        references = {"answer": "answer"} if from_reply else {} if answer is None else {"answer": answer}
        if from_reply:
            placed = [(place, {**row, "answer": reply}, prompt, reply) for place, row, prompt, reply in placed]
        if from_reply or answer not in (None, "answer"):
            parts.append(f"answer = {'the last turn of the assistant' if from_reply else answer}")
    if replies and not from_reply:
        parts.append(f"the last turn of the assistant, in {replies} rows, is no part of the prompt")
    if path is not None and RUBRIC in references:
        path = None  # the user reads the column under this name as it is
    name = columns.names[0] if len(columns.names) == 1 else " + ".join(columns.names)
    records = []
    for i, (place, row, prompt, _) in enumerate(placed):
        filled = _filled(row, references) | ({} if prompt is None else {name: prompt})
        record = to_record(
            place, filled, prompt_column=name, reference_columns=references, system_prompt=options.system_prompt
        )
        if path is not None:
            record = {"prompt": record.pop("prompt"), RUBRIC: rubrics[i], **record}
        records.append((place, record))
    read = [*columns.names, *references.values(), *([path] if path else []), *([system] if system else [])]
    parts += _unread(rows, read)
    return records, "; ".join(parts)


def _filled(row: Row, references: Mapping[str, str]) -> Row:
    """Return a row with its references at the top: values from within, numbers of answers as text."""
    filled = dict(row)
    for new_name, path in references.items():
        value = lookup(row, path)
        if value is not ABSENT:
            filled[path] = prompts.answer_text(value) if new_name == "answer" else value
    return filled


def _require_rubrics(
    rows: Sequence[tuple[Place, Row]], path: str, rubrics: Sequence[str | None], missing_rubrics: str
) -> None:
    without = [place for (place, _), rubric in zip(rows, rubrics, strict=True) if rubric is None]
    if without and (missing_rubrics == "error" or len(without) == len(rows)):
        have = len(rows) - len(without)
        expected = f"a rubric, as {have} of {len(rows)} rows have" if have else "a list of at least one criterion"
        next_step = "write its criteria, or keep prompts without a rubric with missing_rubrics='keep'"
        raise without[0].error(path, "no rubric", expected, next_step)


def _unread(rows: Iterable[tuple[Place, Row]], read: Sequence[str]) -> list[str]:
    tops = {name.split(".")[0] for name in read} | set(read) | set(DIMENSION_WEIGHTS)
    names = dict.fromkeys(name for _, row in rows for name, value in row.items() if value is not None)
    unread = [name for name in names if name not in tops]
    return [f"not read: {', '.join(unread[:12])}{', …' if len(unread) > 12 else ''}"] if unread else []
