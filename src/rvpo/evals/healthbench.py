"""HealthBench: replies to health questions, judged criterion by criterion against rubrics that physicians wrote.

Source: arXiv 2505.08775 and openai/simple-evals. If every criterion has a verdict, then scores, tag scores and
aggregates equal the reference's to the last bit (``benchmarks/healthbench_vs_simple_evals.py`` compares them). The user
provides the data as JSONL files; the subsets "hard" and "consensus" are separate files.

Metrics of an example: ``score``; one metric for each tag of its criteria that has positive points (``axis:accuracy``,
``level:example``, ``cluster:…``); and the example's score again under each of its own tags (``theme:…``). Single
scores may be negative and are not clipped; :meth:`HealthBench.summary` clips means, as the reference does.
"""

from __future__ import annotations

import functools
import json
import math
import random
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rvpo.errors import ConfigError, DataError
from rvpo.evals.items import Generation, Item, Message, Reply, Scored
from rvpo.files import digest

if TYPE_CHECKING:
    from rvpo.rewards.rubric.criteria import Rubric
    from rvpo.rewards.rubric.verdict import Judge, Verdict

SUBSETS: Mapping[str, str] = {
    "full": "healthbench",
    "hard": "healthbench_hard",
    "consensus": "healthbench_consensus",
}
"""Subset -> name of the benchmark in the records, as in simple-evals. Each subset is a separate file."""

SCORE = "score"


@dataclass(frozen=True, slots=True)
class _Example:
    id: str
    messages: tuple[Message, ...]
    rubric: Rubric
    tags: tuple[str, ...]

    @property
    def metrics(self) -> dict[str, tuple[int, ...]]:
        """Metric -> positions of the criteria that it is computed from."""
        criteria = self.rubric.criteria
        everything = tuple(range(len(criteria)))
        # If a tag belongs to criteria and to the example, its metric is the score of the criteria, as in the reference.
        by_tag = {tag: tuple(i for i in everything if tag in criteria[i].tags) for c in criteria for tag in c.tags}
        positive = {tag: at for tag, at in by_tag.items() if any(criteria[i].points > 0 for i in at)}
        return {SCORE: everything, **dict.fromkeys(self.tags, everything), **positive}


class HealthBench:
    """HealthBench as a :class:`~rvpo.evals.items.Benchmark`.

    The key of a verdict in the cache of an endpoint judge contains the judge's model, prompts and settings, the
    conversation, and the completion. So another checkpoint's reply is judged anew, and so is any reply with another
    judge.
    """

    primary = SCORE
    generation = Generation(max_tokens=2048, temperature=0.5)  # of simple-evals' samplers

    def __init__(
        self,
        path: str | Path,
        judge: Judge,
        identity: Mapping[str, Any],
        *,
        subset: str = "full",
        limit: int | None = None,
    ) -> None:
        """Store the options; the file is read when it is needed.

        Args:
            path: a file in HealthBench's layout, see :func:`rvpo.data.rubrics.healthbench_row`.
            judge: the judge of the criteria; :func:`healthbench` builds one from a text or a mapping.
            identity: plain JSON for the records that identifies the judge: everything that decides its verdicts. See
                :func:`rvpo.judges.build.identity`.
            subset: the subset in the file, one of :data:`SUBSETS`.
            limit: largest number of examples, drawn as with ``num_examples`` in simple-evals; None asks all.

        Raises:
            ConfigError: an option has a value that cannot work.
        """
        if subset not in SUBSETS:
            raise ConfigError(
                f"subset={subset!r}; expected one of {', '.join(SUBSETS)}; next step: say which file it is"
            )
        if limit is not None and (type(limit) is not int or limit < 1):
            raise ConfigError(f"limit={limit!r}; expected a whole number of at least 1, or None; next step: correct it")
        self.name = SUBSETS[subset]
        self._path, self._judge, self._identity = Path(path), judge, dict(identity)
        self._subset, self._limit = subset, limit
        self._checked = False

    def settings(self) -> dict[str, Any]:
        """Return what decides items and scores; ``data`` is a digest of the examples asked, not of their file.

        Raises:
            DataError: see :meth:`items`.
        """
        content = [[e.id, e.messages, e.rubric.to_json(), e.tags] for e in self._examples.values()]
        return {
            "subset": self._subset,
            "limit": self._limit,
            "data": digest(content),
            "grader": self.grader,
            "judge": self._identity,
        }

    @property
    def grader(self) -> str:
        """The origin of the judge's prompt: ``"simple-evals"`` or ``"rvpo"``."""
        return "simple-evals" if self._identity.get("ask") == "healthbench" else "rvpo"

    def items(self) -> list[Item]:
        """Return the examples in the order of the file; with ``limit``, in the order in which they were drawn.

        Raises:
            DataError: the file is absent or malformed, an id or a tag occurs twice, or no criterion of an example has
                positive points.
        """
        return [Item(example.id, example.messages, labels=_labels(example.tags)) for example in self._examples.values()]

    async def check(self) -> None:
        """Ask the judge a small question.

        Raises:
            JudgeError: the judge cannot work.
        """
        await self._judge.check()
        self._checked = True

    async def score(self, replied: Sequence[tuple[Item, Reply]]) -> list[Scored]:
        """Return the scores of each reply; a score that needs a missing verdict is missing for the same reason.

        Raises:
            JudgeError: the judge cannot work at all: no server, no key, no such model.
        """
        from rvpo.rewards.rubric.verdict import Question

        if not self._checked:
            await self.check()
        examples = [self._examples[item.id] for item, _ in replied]
        questions = [
            Question(example.messages, reply.text or "", example.rubric.criteria)
            for example, (_, reply) in zip(examples, replied, strict=True)
        ]
        verdicts = await self._judge.judge(questions)
        return [_scored(example, row) for example, row in zip(examples, verdicts, strict=True)]

    def metrics(self, item: Item) -> Sequence[str]:
        """Return the metrics of an example."""
        return list(self._examples[item.id].metrics)

    def summary(self, scored: Sequence[tuple[Item, Scored]]) -> dict[str, Any]:
        """Return the reference's aggregates, and facts about the judge.

        ``aggregates`` holds, for each metric, the fields of :class:`~rvpo.rewards.rubric.scores.BenchmarkScore`: the
        mean clipped to [0, 1], the number of examples and the bootstrap's standard deviation, as in simple-evals, and
        the number of examples without a score. It is null for a metric without any score. (simple-evals reports
        ``score`` a second time, as ``overall_score``.)

        ``verdicts`` counts the criteria of the existing replies, and those without a verdict by reason. A ``met_share``
        near 0 or 1 means that the judge gives the same verdict to everything. ``judge`` is the judge's
        :meth:`~rvpo.judges.Judge.usage` since it was built; keys under ``all/`` include its cache.
        """
        from rvpo.rewards.rubric.scores import benchmark_score

        by_metric: dict[str, list[float | None]] = {}
        for _, scores in scored:
            for name, value in scores.scores.items():
                by_metric.setdefault(name, []).append(value)
        aggregates = {name: benchmark_score(values) for name, values in by_metric.items()}
        given = [verdict for _, scores in scored for verdict in scores.details.get("verdicts", ())]
        reasons = Counter(str(verdict["reason"]) for verdict in given if verdict["value"] is None)
        missing, met = sum(reasons.values()), [v["value"] for v in given if v["value"] is not None]
        met_share = math.fsum(met) / len(met) if met else None
        own = "HealthBench's own"
        whose = own if self.grader == "simple-evals" else f"not {own}, so do not compare with published scores"
        found = "none left" if met_share is None else f"{met_share:.0%} met"
        return {
            "notes": [f"grader: {whose}; {len(given)} verdicts, {missing} missing, {found}"],
            "grader": self.grader,
            "aggregates": {name: score and asdict(score) for name, score in aggregates.items()},
            "verdicts": {
                "criteria": len(given),
                "missing": missing,
                "missing_share": missing / len(given) if given else None,
                "met_share": met_share,
                "reasons": dict(reasons),
            },
            "judge": {key: value if math.isfinite(value) else None for key, value in self._judge.usage().items()},
        }

    @functools.cached_property
    def _examples(self) -> dict[str, _Example]:
        """The examples by id, in the order in which they are asked."""
        examples = _read(self._path)
        if self._limit is not None and self._limit < len(examples):
            examples = random.Random(0).sample(examples, self._limit)  # the reference's draw
        return {example.id: example for example in examples}


def healthbench(
    path: str | Path, judge: Any, folder: str | Path, *, subset: str = "full", limit: int | None = None
) -> HealthBench:
    """Build the benchmark from the options of the command line.

    Args:
        path: as for :class:`HealthBench`.
        judge: as for :func:`rvpo.judges.load_judge`. The short form ``http://host:port/v1#MODEL`` means HealthBench's
            own grader (``ask: healthbench``); a mapping or YAML file states itself how the judge is asked.
        folder: folder of the run; an endpoint judge without a cache of its own gets one there.
        subset: as for :class:`HealthBench`.
        limit: as for :class:`HealthBench`.

    Raises:
        ConfigError: an option, or an option of the judge, has a value that cannot work.
    """
    from rvpo.judges.build import identity, load_judge, short_form, with_cache

    if isinstance(judge, str) and judge.startswith(("http://", "https://")):
        judge = {**short_form(judge), "ask": "healthbench"}
    _read(Path(path))  # finding mistakes in the file is cheaper than loading a judge
    built = load_judge(with_cache(judge, Path(folder) / "judge.sqlite"))
    return HealthBench(path, built, identity(judge), subset=subset, limit=limit)


def _read(path: Path) -> list[_Example]:
    """Read and check all examples of a file."""
    from rvpo.data import load_prompts

    examples: dict[str, _Example] = {}
    for number, row in enumerate(load_prompts(path, layout="healthbench")):
        try:
            example = _example(row)
            if example.id in examples:
                raise DataError(f"the prompt_id {example.id!r} a second time; expected ids that differ")
        except DataError as error:
            raise DataError(f"{path}, row {number}: saw {error}; next step: repair the row") from None
        examples[example.id] = example
    return list(examples.values())


def _example(row: Mapping[str, Any]) -> _Example:
    from rvpo.rewards.rubric.criteria import Rubric
    from rvpo.rewards.rubric.texts import chat

    rubric, tags = Rubric.from_json(row["rubric"]), tuple(json.loads(row["example_tags"]))
    if not any(criterion.points > 0 for criterion in rubric.criteria):
        raise DataError(
            "no criterion with positive points; expected at least one, because the score is a share of these points"
        )
    for named in (tags, *(criterion.tags for criterion in rubric.criteria)):
        if len(set(named)) < len(named) or SCORE in named:
            raise DataError(f"the tags {list(named)}; expected each once, and none called {SCORE!r}")
    messages = tuple({"role": role, "content": text} for role, text in chat(row["prompt"]))
    return _Example(str(rubric.id), messages, rubric, tags)


def _scored(example: _Example, verdicts: Sequence[Verdict]) -> Scored:
    from rvpo.rewards.rubric.scores import example_score, tag_scores

    values = [verdict.value for verdict in verdicts]
    score = example_score(example.rubric, values)
    scores = {SCORE: score, **dict.fromkeys(example.tags, score), **tag_scores(example.rubric, values)}
    reasons = {
        name: next(str(verdicts[i].reason) for i in made_of if verdicts[i].value is None)
        for name, made_of in example.metrics.items()
        if scores[name] is None
    }
    details = [
        {"id": criterion.id, "text": criterion.text, "points": criterion.points, "value": verdict.value,
         "reason": verdict.reason, "explanation": verdict.detail}
        for criterion, verdict in zip(example.rubric.criteria, verdicts, strict=True)
    ]  # fmt: skip
    return Scored(scores, reasons, details={"verdicts": details})


def _labels(tags: Sequence[str]) -> dict[str, str]:
    """Return family -> name for the example's tags: ``theme:hedging`` becomes the theme ``hedging``."""
    labels: dict[str, str] = {}
    for family, _, name in (tag.partition(":") for tag in tags):
        labels[family] = f"{labels[family]}, {name}" if family in labels else name
    return labels
