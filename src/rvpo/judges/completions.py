"""Read existing completions, with their prompts and rubrics, from files of any layout."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

from rvpo.data import load_prompts
from rvpo.data.columns import PromptColumns, find_prompt, spelled
from rvpo.data.criteria import read_criteria
from rvpo.data.files import open_rows, storage_of
from rvpo.data.find_rubrics import find_rubrics
from rvpo.data.prompts import read_prompt
from rvpo.data.records import Place, Row, check_prompt, shorten
from rvpo.data.whole_prompt import check_whole
from rvpo.errors import ConfigError, DataError
from rvpo.rewards.rubric import Question, Rubric
from rvpo.rewards.rubric.texts import chat, completion_text

logger = logging.getLogger(__name__)

COMPLETION_COLUMNS = ("response", "output", "generation", "model_output", "model_response", "prediction", "answer")
"""Names of the column with the completion, if no column is called ``completion``. Two of them are ambiguous."""


@dataclass(frozen=True)
class Reading:
    """Options for reading completions.

    Attributes:
        prompt_column: column with the prompt. For ``prompt``, other usual names are tried, too.
        completion_column: column with the completion. For ``completion``, other usual names are tried, too.
        step_column: column with the training step.
        steps: first and last step to read; None is no limit.
        rubric_keys: option of :func:`rvpo.data.load_prompts`.
        pitfalls: option of :func:`rvpo.data.load_prompts`.
        skip_without_rubric: leave out, and count, completions whose prompt has no rubric.
    """

    prompt_column: str = "prompt"
    completion_column: str = "completion"
    step_column: str = "step"
    steps: tuple[int | None, int | None] = (None, None)
    rubric_keys: Mapping[str, str] = field(default_factory=dict)
    pitfalls: str | None = None
    skip_without_rubric: bool = False


def read_completions(
    path: Path, rubrics: Path | None = None, *, layout: str = "auto", reading: Reading | None = None
) -> list[tuple[Question, Rubric]]:
    """Read completions with their prompts and rubrics.

    Args:
        path: file with prompt, completion and rubric, or folder of such files, for example the ``completions`` of a
            training run. The formats are those of :func:`rvpo.data.load_prompts`.
        rubrics: file of prompts with rubrics in any layout of ``load_prompts``, joined by the prompt. Then ``path``
            needs no rubrics.
        layout: layout of ``rubrics``.
        reading: names of columns, and rows to read.

    Raises:
        DataError: a row is malformed, two columns may be the same field, or a prompt has no rubric.
        ConfigError: an option cannot work.
    """
    how = reading or Reading()
    rows = _of_steps(path, list(open_rows(path, _storage(path))), how)
    columns, name = find_prompt(rows, how.prompt_column), _completion_column(rows, how)
    questions = [_asked(place, row, columns, name) for place, row in rows]
    if columns.names != ("prompt",):
        asked, other_columns = [prompt for prompt, _ in questions], [name, *_rubric_column(rows, how)]
        check_whole(rows, columns, asked, other_columns, "--prompt-column ")
    found = _rubrics_within(rows, how) if rubrics is None else _rubrics_of(rubrics, layout, how, rows, questions)
    kept = [
        (Question(prompt, completion, rubric.criteria), rubric)
        for (prompt, completion), rubric in zip(questions, found, strict=True)
        if rubric is not None
    ]
    if len(kept) < len(rows):
        if not kept:
            raise DataError(f"{path}: none of the {len(rows)} prompts has a rubric; expected one. See --rubrics")
        logger.warning(
            "%s: skipped %d of %d completions, because their prompts have no rubric",
            path,
            len(rows) - len(kept),
            len(rows),
        )
    return kept


def _storage(path: Path) -> str:
    if not path.exists():
        raise DataError(f"{path}: saw no such file; expected JSONL or parquet; next step: check the path")
    storage = storage_of(path)
    if storage == "yaml":
        raise DataError(
            f"{path}: saw YAML; expected completions in JSONL, JSON, CSV or parquet; next step: pass rubrics with "
            "--rubrics"
        )
    return storage


def _of_steps(path: Path, rows: list[tuple[Place, Row]], how: Reading) -> list[tuple[Place, Row]]:
    first, last = how.steps
    if how.steps != (None, None):
        rows = [pair for pair in rows if _within(*pair, how.step_column, first, last)]
    if not rows:
        within = "" if how.steps == (None, None) else f" with a step from {first} to {last}"
        raise DataError(
            f"{path}: saw 0 rows{within}; expected at least one completion; next step: check how it was written"
        )
    return rows


def _within(place: Place, row: Row, column: str, first: int | None, last: int | None) -> bool:
    try:
        step = int(row[column])
    except (KeyError, TypeError, ValueError, OverflowError):
        seen = f"{shorten(row.get(column))} (the row has {shorten(sorted(row))})"
        raise place.error(column, seen, "the training step", "name its column with --step") from None
    return (first is None or step >= first) and (last is None or step <= last)


def _completion_column(rows: Sequence[tuple[Place, Row]], how: Reading) -> str:
    names = dict.fromkeys(name for _, row in rows for name, value in row.items() if value is not None)
    chosen = how.completion_column
    if chosen in names or chosen != "completion":
        return chosen
    known = {spelled(name): name for name in reversed(list(names))}
    found = [known[name] for name in ("completion", *COMPLETION_COLUMNS) if name in known]
    if len(found) > 1:
        place = rows[0][0]
        seen = f"no column 'completion', and {found} may each be the completion"
        raise place.error("completion", seen, "one column with completions", "name it with --completion-column")
    return found[0] if found else chosen


def _asked(place: Place, row: Row, columns: PromptColumns, name: str) -> tuple[Any, str]:
    """Return the prompt and the completion of a row. A conversation may end with the completion."""
    prompt, reply = read_prompt(place, row, columns)
    if prompt is None:
        seen = f"no such field (the row has {shorten(sorted(row))})"
        raise place.error(columns.names[0], seen, "text or chat messages", "name the column with --prompt-column")
    checked = check_prompt(place, columns.names[0], prompt)
    completion = row.get(name, reply)
    if isinstance(completion, int | float) and not isinstance(completion, bool):
        completion = str(completion)
    if not isinstance(completion, str | list):
        seen = f"{repr(completion)[:80]} (the row has {sorted(row)})"
        next_step = "add the completion under this name, or name its column with --completion-column"
        raise place.error(name, seen, "text or chat messages", next_step)
    return cast("Any", checked), completion_text(completion)


def _rubric_column(rows: Sequence[tuple[Place, Row]], how: Reading) -> list[str]:
    path = find_rubrics(rows, how.rubric_keys.get("rubric"), ())
    return [] if path is None else [path.split(".")[0]]


def _rubrics_within(rows: Sequence[tuple[Place, Row]], how: Reading) -> list[Rubric | None]:
    path = find_rubrics(rows, how.rubric_keys.get("rubric"), ())
    if path is None:
        place, row = rows[0]
        seen = f"no such field (the row has {shorten(sorted(row))})"
        raise place.error("rubric", seen, "a rubric", "add it, or pass --rubrics")
    texts, found = read_criteria(rows, path, how.rubric_keys, how.pitfalls)
    if path != "rubric" or found.names("text") != "text":
        logger.warning("%s: %s", rows[0][0].source, found.line(path))
    without = next((place for (place, _), text in zip(rows, texts, strict=True) if text is None), None)
    if without is not None and not how.skip_without_rubric:
        next_step = "add it, or leave such completions out with --skip-without-rubric"
        raise without.error(path, "no rubric", "a rubric", next_step)
    return [None if text is None else Rubric.from_json(text) for text in texts]


def _rubrics_of(
    path: Path, layout: str, how: Reading, rows: Sequence[tuple[Place, Row]], asked: Sequence[tuple[Any, str]]
) -> list[Rubric | None]:
    missing = "keep" if how.skip_without_rubric else "error"
    entries = load_prompts(
        path, layout=layout, rubric_keys=how.rubric_keys or None, pitfalls=how.pitfalls, missing_rubrics=missing
    )
    if "rubric" not in entries.column_names:
        raise ConfigError(f"--rubrics is {str(path)!r}, which has no rubrics; expected prompts with criteria")
    by_prompt: dict[str, str | None] = {}
    for entry in entries:
        key = _key(entry["prompt"])
        if by_prompt.setdefault(key, entry["rubric"]) != entry["rubric"]:
            seen = f"the prompt {shorten(entry['prompt'])} with two rubrics"
            raise DataError(f"{path}: saw {seen}; expected one rubric per prompt; next step: join its criteria")
    found: list[Rubric | None] = []
    for (place, _), (prompt, _) in zip(rows, asked, strict=True):
        text = by_prompt.get(_key(prompt))
        if text is None and not how.skip_without_rubric:
            next_step = "check that both belong together, or leave such completions out with --skip-without-rubric"
            raise place.error("prompt", repr(prompt)[:80], "a prompt of the rubric file", next_step)
        found.append(None if text is None else Rubric.from_json(text))
    return found


def _key(prompt: Any) -> str:
    """Key for matching prompts. A text counts as a message of the user, and system messages are ignored."""
    return json.dumps([turn for turn in chat(prompt) if turn[0] not in ("system", "developer")])
