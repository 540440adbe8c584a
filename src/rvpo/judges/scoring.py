"""Judge completions that exist already: ``rvpo judge``. Judges and rubrics can be tried without training.

Verdicts go into a journal beside the output as they come; called again, only what is missing is asked. (An endpoint
judge keeps each paid answer in its cache even before that.)
"""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import IO, Any, cast

from rvpo.data import load_prompts
from rvpo.data.generic import read_jsonl, read_parquet
from rvpo.data.records import Place, Row, require_field
from rvpo.errors import ConfigError, DataError
from rvpo.files import whole
from rvpo.rewards.rubric import Criterion, Judge, Question, Rubric, Verdict
from rvpo.rewards.rubric.scores import explicit_score
from rvpo.rewards.rubric.texts import chat, completion_text

CHUNK = 8  # questions asked together: a local judge batches them
IN_FLIGHT = 32  # chunks on their way, so that the slowest answer does not leave a server idle

COLUMNS = (
    "row",
    "prompt",
    "completion",
    "criterion",
    "text",
    "labels",
    "points",
    "verdict",
    "reward",
    "reason",
    "detail",
)
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
    found = [_question(place, row, by_prompt if rubrics is not None else None) for place, row in _rows(path, rubrics)]
    if not found:
        raise DataError(f"{path}: saw 0 rows; allowed: at least one completion; next step: check how it was written")
    return found


def score(
    questions: Sequence[tuple[Question, Rubric]],
    judge: Judge,
    out: Path,
    *,
    judged_by: str,
    progress: Callable[[int, int], None] | None = None,
) -> list[Row]:
    """Judge, write ``out`` (parquet), and return its rows.

    Args:
        questions: from :func:`read_completions`.
        judge: who decides.
        out: the output. Beside it stands ``{out}.journal.jsonl`` with every verdict, from which later calls go on.
        judged_by: what tells this judge from others that write to the same journal.
        progress: called with the numbers of verdicts that arrived and that are missing: first for those that were
            known, then as they come.

    Raises:
        ConfigError: a criterion that the judge cannot decide, or files that cannot be written.
        JudgeError: the judge cannot work.
    """
    check = getattr(judge, "check_criteria", None)
    for i, (_, rubric) in enumerate(questions):
        try:
            if check is not None:
                check(rubric.criteria)
        except ConfigError as error:
            raise ConfigError(f"completion {i}, rubric {rubric.id or 'without id'}: {error}") from error
    journal = _Journal(out.with_name(out.name + ".journal.jsonl"), judged_by)
    try:
        asyncio.run(_ask_all([question for question, _ in questions], judge, journal, progress))
    finally:
        journal.close()
    rows = []
    for i, (question, rubric) in enumerate(questions):
        for criterion in rubric.criteria:
            verdict = journal.get(question, criterion)
            assert verdict is not None  # asked just now, and missing at worst
            rows.append(_row(i, question, criterion, verdict))
    _write(rows, out)
    return rows


def verdict_summary(
    rows: Sequence[Row], questions: Sequence[tuple[Question, Rubric]]
) -> dict[str, dict[str, float | None]]:
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
    """Verdicts by what was asked of whom, appended to a file as they come. A torn last line is passed over."""

    def __init__(self, path: Path, judged_by: str) -> None:
        """Read what is known, and open the file for more.

        Args:
            path: the file.
            judged_by: what tells judges apart: another judge's verdicts stay in the file, and are not taken.
        """
        self._judged_by = judged_by
        self._known: dict[str, Verdict] = {}
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            for line in path.read_text("utf-8").splitlines() if path.exists() else ():
                try:
                    key, value, detail = json.loads(line)
                except ValueError:  # cut off in the middle
                    continue
                self._known[key] = Verdict(value, detail=detail)
            self._file: IO[str] = path.open("a", encoding="utf-8")
        except OSError as error:
            raise ConfigError(f"{path} cannot be used ({error.strerror}): choose another --out") from error
        self._file.write("\n")  # a line that was cut off is ended, or the next verdict would be lost with it

    def key(self, question: Question, criterion: Criterion) -> str:
        """Return the digest of a criterion on a completion, and of who decides it."""
        asked = [criterion.text, criterion.scale, criterion.rule, criterion.judge]
        whole = [self._judged_by, question.prompt, question.completion, asked]
        return hashlib.sha256(json.dumps(whole, default=str).encode()).hexdigest()

    def add(self, question: Question, verdicts: Sequence[Verdict]) -> None:
        """Keep the verdicts on a question's criteria; only those that are not missing outlive the process."""
        for criterion, verdict in zip(question.criteria, verdicts, strict=True):
            key = self.key(question, criterion)
            self._known[key] = verdict
            if verdict.value is not None:
                self._file.write(json.dumps([key, verdict.value, verdict.detail]) + "\n")
        self._file.flush()

    def get(self, question: Question, criterion: Criterion) -> Verdict | None:
        """Return the verdict on a criterion, if it is known."""
        return self._known.get(self.key(question, criterion))

    def close(self) -> None:
        """Close the file."""
        self._file.close()


async def _ask_all(
    questions: Sequence[Question], judge: Judge, journal: _Journal, progress: Callable[[int, int], None] | None
) -> None:
    """Ask what the journal does not know, a chunk of questions at a time, with many chunks on their way."""
    asked = []
    for question in questions:
        if unknown := tuple(c for c in question.criteria if journal.get(question, c) is None):
            asked.append(replace(question, criteria=unknown))
    if progress:
        known = sum(len(q.criteria) for q in questions) - sum(len(q.criteria) for q in asked)
        progress(known, 0)
    if not asked:
        return
    await judge.check()
    places = asyncio.Semaphore(IN_FLIGHT)

    async def ask(chunk: Sequence[Question]) -> None:
        async with places:
            answers = await judge.judge(chunk)
        for question, verdicts in zip(chunk, answers, strict=True):
            journal.add(question, verdicts)
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
        seen = f"{repr(completion)[:80]} (the row has {sorted(row)})"
        raise place.error("completion", seen, "text or chat messages", "add the completion under this name")
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
    return json.dumps([turn for turn in chat(prompt) if turn[0] not in ("system", "developer")])


def _row(i: int, question: Question, criterion: Criterion, verdict: Verdict) -> Row:
    return {
        "row": i,
        "prompt": "\n".join(text for _, text in chat(question.prompt)),
        "completion": question.completion,
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
    with whole(out) as partial:
        pq.write_table(pa.Table.from_pylist(rows, schema=schema), partial)
