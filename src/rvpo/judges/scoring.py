"""Judge completions that exist already: ``rvpo judge``. Judges and rubrics can be tried without training.

Every verdict goes into a journal beside the output as soon as it is there; called again, only what is missing is asked.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import IO, Any, cast

from rvpo.data import load_prompts
from rvpo.data.generic import read_jsonl, read_parquet
from rvpo.data.records import Place, Row, require_field
from rvpo.errors import ConfigError, DataError
from rvpo.rewards.rubric import Judge, Question, Rubric, Verdict
from rvpo.rewards.rubric.reward import completion_text
from rvpo.rewards.rubric.scores import explicit_score

CHUNK = 8  # questions asked together: a local judge batches them
IN_FLIGHT = 32  # chunks on their way, so that the slowest answer does not leave a server idle

COLUMNS = ("row", "criterion", "text", "labels", "points", "verdict", "reward", "reason", "detail")
"""Of the output: one row a completion and criterion; ``verdict`` and ``reward`` are null where missing."""


def read_completions(path: Path, rubrics: Path | None = None, **options: Any) -> list[tuple[Question, Rubric]]:
    """Read completions with their prompts and rubrics.

    Args:
        path: JSONL or parquet with ``prompt``, ``completion`` and ``rubric`` (JSON text, or an object), or a folder of
            such parquet files, for example the ``completions`` of a training run.
        rubrics: prompts with rubrics in any layout of :func:`rvpo.data.load_prompts`, joined by the prompt; then
            ``path`` needs no ``rubric``.
        **options: of ``load_prompts``, for ``rubrics``.

    Raises:
        DataError: a row is malformed, or has a prompt without a rubric.
    """
    by_prompt: dict[str, str] = {}
    if rubrics is not None:
        for entry in load_prompts(rubrics, **options):
            by_prompt[_key(entry["prompt"])] = entry["rubric"]
    return [_question(place, row, by_prompt if rubrics is not None else None) for place, row in _rows(path, rubrics)]


def score(
    questions: Sequence[tuple[Question, Rubric]],
    judge: Judge,
    out: Path,
    *,
    progress: Callable[[int, int], None] | None = None,
) -> list[Row]:
    """Judge, write ``out`` (parquet), and return its rows.

    Args:
        questions: from :func:`read_completions`.
        judge: who decides.
        out: the output. Beside it stands ``{out}.journal.jsonl`` with every verdict, from which a second call goes on;
            it is for this very input only.
        progress: called with the numbers of verdicts that arrived and that are missing: first for those that were
            known, then as they come.

    Raises:
        ConfigError: the journal belongs to another input.
        JudgeError: the judge cannot work.
    """
    journal = _Journal(out.with_name(out.name + ".journal.jsonl"), questions)
    try:
        asyncio.run(_ask_all(questions, judge, journal, progress))
    finally:
        journal.close()
    rows = [
        _row(i, rubric, j, verdict)
        for i, (question, rubric) in enumerate(questions)
        for j, verdict in enumerate(journal.verdicts_of(i, len(question.criteria)))
    ]
    _write(rows, out)
    return rows


def summary(rows: Sequence[Row], questions: Sequence[tuple[Question, Rubric]]) -> dict[str, dict[str, float | None]]:
    """Return, for the explicit score, all criteria and each label: mean reward, number, and share that is missing."""
    pools: dict[str, list[Row]] = {"all criteria": list(rows)}
    by_row: dict[int, list[float | None]] = {}
    for row in rows:
        by_row.setdefault(row["row"], []).append(row["verdict"])
        for label in row["labels"]:
            pools.setdefault(label, []).append(row)
    scores = [explicit_score(rubric, by_row[i]) for i, (_, rubric) in enumerate(questions)]
    table = {"explicit score": _line(scores)}
    return table | {name: _line([row["reward"] for row in pool]) for name, pool in sorted(pools.items())}


class _Journal:
    """Verdicts by (question, criterion), appended to a file as they come. A torn last line is passed over."""

    def __init__(self, path: Path, questions: Sequence[tuple[Question, Rubric]]) -> None:
        """Read what is known of these questions, and open the file for more."""
        identity = hashlib.sha256()
        for question, rubric in questions:
            identity.update(json.dumps([question.prompt, question.completion, rubric.to_json()]).encode())
        header = {"input": identity.hexdigest()}
        self.path = path
        self._known: dict[tuple[int, int], Verdict] = {}
        whole = path.exists() and self._read(header)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._file: IO[str] = path.open("a" if whole else "w", encoding="utf-8")
        except OSError as error:
            raise ConfigError(f"{path} cannot be written ({error.strerror}): choose another --out") from error
        # A line that was cut off is ended, or the next verdict would be lost with it.
        self._file.write("\n" if whole else json.dumps(header) + "\n")

    def _read(self, header: dict[str, str]) -> bool:
        lines = self.path.read_text("utf-8").splitlines()
        if not lines:
            return False
        if lines[0] != json.dumps(header):
            raise ConfigError(
                f"{self.path} belongs to other completions or rubrics: remove it to begin anew, or choose another --out"
            )
        for line in lines[1:]:
            try:
                i, j, value, detail = json.loads(line)
            except ValueError:  # cut off in the middle
                continue
            self._known[i, j] = Verdict(value, detail=detail)
        return True

    def add(self, i: int, verdicts: Sequence[tuple[int, Verdict]]) -> None:
        for j, verdict in verdicts:
            self._known[i, j] = verdict
            if verdict.value is not None:
                self._file.write(json.dumps([i, j, verdict.value, verdict.detail]) + "\n")
        self._file.flush()

    def close(self) -> None:
        self._file.close()

    def verdicts_of(self, i: int, criteria: int) -> list[Verdict]:
        return [self._known[i, j] for j in range(criteria)]

    def unknown(self, i: int, criteria: int) -> list[int]:
        return [j for j in range(criteria) if (i, j) not in self._known]


async def _ask_all(
    questions: Sequence[tuple[Question, Rubric]],
    judge: Judge,
    journal: _Journal,
    progress: Callable[[int, int], None] | None,
) -> None:
    unknown = ((i, journal.unknown(i, len(question.criteria))) for i, (question, _) in enumerate(questions))
    asked = [(i, columns) for i, columns in unknown if columns]
    if progress:
        total = sum(len(question.criteria) for question, _ in questions)
        progress(total - sum(len(columns) for _, columns in asked), 0)
    if not asked:
        return
    await judge.check()
    places = asyncio.Semaphore(IN_FLIGHT)

    async def ask(chunk: Sequence[tuple[int, list[int]]]) -> None:
        async with places:
            parts = [
                Question(question.prompt, question.completion, tuple(question.criteria[j] for j in columns))
                for i, columns in chunk
                for question in [questions[i][0]]
            ]
            answers = await judge.judge(parts)
        for (i, columns), verdicts in zip(chunk, answers, strict=True):
            journal.add(i, list(zip(columns, verdicts, strict=True)))
            if progress:
                progress(len(verdicts), sum(verdict.value is None for verdict in verdicts))

    await asyncio.gather(*(ask(asked[start : start + CHUNK]) for start in range(0, len(asked), CHUNK)))


def _rows(path: Path, rubrics: Path | None) -> Iterator[tuple[Place, Row]]:
    columns = {"prompt", "completion"} | ({"rubric"} if rubrics is None else set())
    if path.is_dir():
        files = sorted(path.glob("*.parquet"))
        if not files:
            raise DataError(f"{path}: saw a folder without parquet files; allowed: completions; next step: name a file")
        for file in files:
            yield from read_parquet(file, columns)
    elif not path.exists():
        raise DataError(f"{path}: saw no such file; allowed: JSONL or parquet; next step: check the path")
    elif path.suffix == ".parquet":
        yield from read_parquet(path, columns)
    else:
        yield from read_jsonl(path)


def _question(place: Place, row: Row, by_prompt: dict[str, str] | None) -> tuple[Question, Rubric]:
    prompt = require_field(place, row, "prompt", "text or chat messages")
    completion = row.get("completion")
    if not isinstance(completion, str | list):
        raise place.error("completion", repr(completion)[:80], "text or chat messages", "add the completion")
    if by_prompt is None:
        stored = require_field(place, row, "rubric", "a rubric", next_step="add it, or pass --rubrics")
    elif (key := _key(prompt)) in by_prompt:
        stored = by_prompt[key]
    else:
        raise place.error("prompt", repr(prompt)[:80], "a prompt of the rubric file", "check that both belong together")
    try:
        rubric = Rubric.from_json(stored) if isinstance(stored, str) else Rubric.from_mapping(stored)
    except DataError as error:
        raise place.error("rubric", str(error), "a rubric", "see rvpo.rewards.rubric.criteria") from error
    return Question(cast("Any", prompt), completion_text(completion), rubric.criteria), rubric


def _key(prompt: Any) -> str:
    """Return what a prompt is known by: text is a user's message, and a system message makes no other prompt."""
    messages = [{"role": "user", "content": prompt}] if isinstance(prompt, str) else prompt
    return json.dumps([[m["role"], m["content"]] for m in messages if m["role"] not in ("system", "developer")])


def _row(i: int, rubric: Rubric, j: int, verdict: Verdict) -> Row:
    criterion = rubric.criteria[j]
    return {
        "row": i,
        "criterion": criterion.id,
        "text": criterion.text,
        "labels": list(criterion.labels),
        "points": criterion.points,
        "verdict": verdict.value,
        "reward": None if verdict.value is None else criterion.reward(verdict.value),
        "reason": verdict.reason,
        "detail": verdict.detail,
    }


def _line(values: Sequence[float | None]) -> dict[str, float | None]:
    scored = [value for value in values if value is not None]
    return {
        "mean": sum(scored) / len(scored) if scored else None,
        "number": len(values),
        "missing": 1 - len(scored) / len(values) if values else None,
    }


def _write(rows: list[Row], out: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    kinds = {"row": pa.int64(), "labels": pa.list_(pa.string())}
    kinds |= dict.fromkeys(("points", "verdict", "reward"), pa.float64())
    schema = pa.schema({name: kinds.get(name, pa.string()) for name in COLUMNS})
    partial = out.with_name(out.name + ".partial")
    pq.write_table(pa.Table.from_pylist(rows, schema=schema), partial)
    partial.replace(out)
