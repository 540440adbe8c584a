"""Judge completions that exist already: ``rvpo judge``. Judges and rubrics can be tried without training.

Verdicts go into a journal beside the output as they come; called again, only what is missing is asked. (An endpoint
judge keeps each paid answer in its cache even before that.)
"""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import IO

from rvpo.data.records import Row
from rvpo.errors import ConfigError
from rvpo.files import whole
from rvpo.rewards.rubric import Criterion, Judge, Question, Rubric, Verdict
from rvpo.rewards.rubric.scores import explicit_score
from rvpo.rewards.rubric.texts import chat

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
        questions: from :func:`rvpo.judges.completions.read_completions`.
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
                    self._known[key] = Verdict(value, detail=detail)
                except (ValueError, TypeError, RecursionError):  # cut off in the middle, or damaged
                    continue
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
