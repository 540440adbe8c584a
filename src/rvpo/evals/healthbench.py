"""HealthBench: replies to health questions, judged criterion by criterion against rubrics that physicians wrote.

Source: arXiv 2505.08775 and openai/simple-evals. Where there is a verdict on every criterion, scores, tag scores and
aggregates equal the reference's to the last bit (``benchmarks/healthbench_vs_simple_evals.py`` compares them). The data
are JSONL files that the user has; the subsets "hard" and "consensus" are files of their own.

Metrics of an example: ``score``, one for each tag of its criteria that has positive points (``axis:accuracy``,
``level:example``, ``cluster:…``), and the example's score once more under each of its own tags (``theme:…``). Single
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
"""Subset -> name of the benchmark, as in simple-evals. A subset is a file of its own; the name is for the records."""

SCORE = "score"


@dataclass(frozen=True, slots=True)
class _Example:
    id: str
    messages: tuple[Message, ...]
    rubric: Rubric
    tags: tuple[str, ...]

    @property
    def metrics(self) -> dict[str, tuple[int, ...]]:
        """Metric -> the criteria that it is made of, by their positions."""
        criteria = self.rubric.criteria
        everything = tuple(range(len(criteria)))
        # As in the reference, a tag of criteria that is one of the example, too, tells the score of the criteria.
        by_tag = {tag: tuple(i for i in everything if tag in criteria[i].tags) for c in criteria for tag in c.tags}
        positive = {tag: at for tag, at in by_tag.items() if any(criteria[i].points > 0 for i in at)}
        return {SCORE: everything, **dict.fromkeys(self.tags, everything), **positive}


class HealthBench:
    """HealthBench as a :class:`~rvpo.evals.items.Benchmark`.

    The cache of an endpoint judge keeps a verdict under the judge's model, its prompts and settings, the conversation
    and the completion itself. So the reply of another checkpoint is judged anew, as is any reply by another judge.
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
        """Hold the options; the file is read when it is needed.

        Args:
            path: a file in HealthBench's layout, see :func:`rvpo.data.rubrics.healthbench_row`.
            judge: who decides the criteria; see :func:`healthbench` for one made from words.
            identity: what decides its verdicts, as plain JSON for the records; see :func:`rvpo.judges.build.identity`.
            subset: which of :data:`SUBSETS` the file is.
            limit: at most this many examples, drawn as simple-evals does with ``num_examples``; None is all.

        Raises:
            ConfigError: an option has no such value.
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
        """Return what decides items and scores; ``data`` is a digest of the examples asked, whatever their file's name.

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
        """Whose words the criteria are judged with."""
        return "simple-evals" if self._identity.get("ask") == "healthbench" else "rvpo"

    def items(self) -> list[Item]:
        """Return the examples, in the file's order or that of the draw.

        Raises:
            DataError: the file is absent or malformed, an id or a tag stands twice, or no criterion of an example has
                positive points.
        """
        return [Item(example.id, example.messages, labels=_labels(example.tags)) for example in self._examples.values()]

    async def check(self) -> None:
        """Ask the judge something small. Raises JudgeError where it cannot work."""
        await self._judge.check()
        self._checked = True

    async def score(self, replied: Sequence[tuple[Item, Reply]]) -> list[Scored]:
        """Return the scores of each reply; those that would need a missing verdict are missing for its reason.

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
        """Return the reference's aggregates, and what is to be known about the judge.

        ``aggregates`` holds, for each metric, the fields of :class:`~rvpo.rewards.rubric.scores.BenchmarkScore`: the
        mean clipped to [0, 1], the number of examples and the bootstrap's standard deviation, as in simple-evals (which
        calls ``score`` ``overall_score`` a second time), and how many examples have no score; null where all have none.
        ``verdicts`` counts criteria of the replies there are, and those without a verdict by reason; a ``met_share``
        near 0 or 1 is that of a judge who says the same to everything. ``judge`` is its
        :meth:`~rvpo.judges.Judge.usage` since it was built, and under ``all/`` with its cache.
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
        whose = "HealthBench's own" if self.grader == "simple-evals" else "not HealthBench's own: compare with no other"
        found = "none" if met_share is None else f"{met_share:.0%} met"
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
    """Build the benchmark from the words of the command line.

    Args:
        path: as for :class:`HealthBench`.
        judge: as in :func:`rvpo.judges.load_judge`. The short form ``http://host:port/v1#MODEL`` means HealthBench's
            own grader (``ask: healthbench``); a mapping or YAML file says itself how the judge is asked.
        folder: of the run; an endpoint judge that names no cache has its own there.
        subset: as for :class:`HealthBench`.
        limit: as for :class:`HealthBench`.

    Raises:
        ConfigError: an option, the judge's included, cannot work.
    """
    from rvpo.judges.build import identity, load_judge, short_form, with_cache

    if isinstance(judge, str) and judge.startswith(("http://", "https://")):
        judge = {**short_form(judge), "ask": "healthbench"}
    _read(Path(path))  # its mistakes are cheaper than loading a judge
    built = load_judge(with_cache(judge, Path(folder) / "judge.sqlite"))
    return HealthBench(path, built, identity(judge), subset=subset, limit=limit)


def _read(path: Path) -> list[_Example]:
    """Return all examples of a file, checked."""
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
        raise DataError("no criterion with positive points; expected at least one, as the score is a share of them")
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
    """Return the example's tags by family: ``theme:hedging`` is the theme ``hedging``."""
    labels: dict[str, str] = {}
    for family, _, name in (tag.partition(":") for tag in tags):
        labels[family] = f"{labels[family]}, {name}" if family in labels else name
    return labels
