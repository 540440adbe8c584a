"""Judge existing completions, for ``rvpo judge``. So judges and rubrics can be tried without training.

Verdicts are written to a journal next to the output as they arrive. A second call asks only for missing ones. (An
endpoint judge keeps each paid answer in its cache even before that.)
"""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections import Counter
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

CHUNK = 8  # questions asked together, because a local judge batches them
IN_FLIGHT = 32  # chunks in flight, so that a server is not idle while it waits for the slowest answer

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
"""Columns of the output. It has one row per completion and criterion. Missing verdicts and rewards are null."""


def score(
    questions: Sequence[tuple[Question, Rubric]],
    judge: Judge,
    out: Path,
    *,
    judged_by: str,
    progress: Callable[[int, int], None] | None = None,
) -> list[Row]:
    """Judge completions, write the verdicts to a parquet file, and return its rows.

    Args:
        questions: questions and rubrics from :func:`rvpo.judges.completions.read_completions`.
        judge: judge that decides.
        out: parquet file. The file ``{out}.journal.jsonl`` next to it has every verdict, and later calls continue from
            it.
        judged_by: text that identifies this judge among others that write to the same journal.
        progress: function that is called with the numbers of new and of missing verdicts: first for the known
            verdicts, then as others arrive.

    Raises:
        ConfigError: the judge cannot decide a criterion, or a file cannot be written.
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
            assert verdict is not None  # all were asked above, so a verdict exists, even if its value is missing
            rows.append(_row(i, question, criterion, verdict))
    _write(rows, out)
    return rows


def verdict_summary(
    rows: Sequence[Row], questions: Sequence[tuple[Question, Rubric]]
) -> dict[str, dict[str, float | None]]:
    """Return mean reward, number and share of missing values for the explicit score, all criteria, and each label."""
    pools: dict[str, list[Row]] = {"all criteria": list(rows)}
    by_row: dict[int, list[float | None]] = {}
    for row in rows:
        by_row.setdefault(row["row"], []).append(row["verdict"])
        for label in row["labels"]:
            pools.setdefault(label, []).append(row)
    scores = [explicit_score(rubric, by_row[i]) for i, (_, rubric) in enumerate(questions)]
    table = {"explicit score": _line(scores)}
    return table | {name: _line([row["reward"] for row in pool]) for name, pool in sorted(pools.items())}


def criterion_summary(rows: Sequence[Row]) -> dict[str, dict[str, float | None]]:
    """Return mean, lowest and highest reward and the share of missing values per criterion, in the rubrics' order.

    Equal lowest and highest rewards over several completions mean that the criterion, or its judge, does not separate
    them. The criteria are named by their ids, or by id and text if several criteria have the same id.
    """
    pools: dict[tuple[str, str], list[float | None]] = {}
    for row in rows:
        pools.setdefault((row["criterion"], row["text"]), []).append(row["reward"])
    ids = Counter(name for name, _ in pools)
    table: dict[str, dict[str, float | None]] = {}
    for (name, text), rewards in pools.items():
        known = [reward for reward in rewards if reward is not None]
        ends = {"lowest": min(known, default=None), "highest": max(known, default=None)}
        table[name if ids[name] == 1 else f"{name}: {text}"] = {**_line(rewards), **ends}
    return table


class _Journal:
    """Verdicts by question and judge, appended to a file as they arrive. An incomplete last line is ignored."""

    def __init__(self, path: Path, judged_by: str) -> None:
        """Read the known verdicts, and open the file to append more.

        Args:
            path: file of the journal.
            judged_by: text that identifies the judge. Verdicts of other judges stay in the file, but are not used.
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
            raise ConfigError(f"{path} cannot be used ({error.strerror}); choose another --out") from error
        self._file.write("\n")  # ends an incomplete line, with which the next verdict would be lost

    def key(self, question: Question, criterion: Criterion) -> str:
        """Return the digest of a criterion, a completion and the judge."""
        asked = [criterion.text, criterion.scale, criterion.rule, criterion.judge]
        whole = [self._judged_by, question.prompt, question.completion, asked]
        return hashlib.sha256(json.dumps(whole, default=str).encode()).hexdigest()

    def add(self, question: Question, verdicts: Sequence[Verdict]) -> None:
        """Keep the verdicts on a question's criteria. Missing ones are not written to the file."""
        for criterion, verdict in zip(question.criteria, verdicts, strict=True):
            key = self.key(question, criterion)
            self._known[key] = verdict
            if verdict.value is not None:
                self._file.write(json.dumps([key, verdict.value, verdict.detail]) + "\n")
        self._file.flush()

    def get(self, question: Question, criterion: Criterion) -> Verdict | None:
        """Return the verdict on a criterion; None if unknown."""
        return self._known.get(self.key(question, criterion))

    def close(self) -> None:
        """Close the file."""
        self._file.close()


async def _ask_all(
    questions: Sequence[Question], judge: Judge, journal: _Journal, progress: Callable[[int, int], None] | None
) -> None:
    """Ask for verdicts that the journal does not have, in chunks of questions, with many chunks in flight."""
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
