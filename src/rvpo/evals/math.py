r"""Mathematical problems with an answer: MATH-500, GSM8K, AIME, AMC, OlympiadBench, or any rows that look like them.

Each problem is asked several times. Metrics of a sample, averaged over the samples of a problem and then over problems:

- ``avg@n``, 0 or 1: Math-Verify finds the reply's answer equal to the reference. It runs in the worker process of the
  reward ``math`` (:mod:`rvpo.rewards.math`), with the same limits. ``level:…`` and ``subject:…`` are the same metric
  for a part of the problems.
- ``answered``, 0 or 1: the reply states an answer (:func:`rvpo.rewards.math_answers.reply_answer`). A reply without an
  answer is wrong, and so is an answer that takes longer to compare than the worker's limit: both depend on the model
  alone.

Metrics of a problem: ``pass@k``, unbiased, for several k (:func:`rvpo.statistics.pass_at_k`), and ``majority@n``:
whether the answer that most samples give is right. A sample without a reply, or whose comparison failed, is missing. A
problem with fewer than k scored samples has no ``pass@k``, and a problem with a missing sample has no ``majority@n``.
"""

from __future__ import annotations

import importlib.util
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rvpo.data.records import with_system_prompt
from rvpo.errors import ConfigError
from rvpo.evals.items import Generation, Item, Key, Message, Reply, Scored
from rvpo.evals.math_data import read_questions, require_readable
from rvpo.evals.samples import Rows, Sampling, add, by_item, notes_on_answers, notes_on_samples, with_pass_at
from rvpo.evals.votes import majority
from rvpo.extras import install_command, installed
from rvpo.files import digest
from rvpo.rewards.math import answers_equal
from rvpo.rewards.math_answers import reply_answer

INSTRUCTION = r"Please reason step by step, and put your final answer within \boxed{}."
_WITH_WORD = re.compile(r"([-+\\$\d.,/ ]*\d)\s*[A-Za-z]{2,}")  # 5 eggs; not 2x
UNREADABLE = "Math-Verify cannot read the reference"
UNDECIDED = "the process that compares answers was ended from outside"


class Math:
    """Problems whose answers Math-Verify compares.

    Args:
        path: file (JSONL, JSON, CSV, parquet), folder or hub id.
        samples: number of replies to each problem.
        k: the values of k of Pass@k, each at most ``samples``; None means 1, 2, 4, … and ``samples``.
        prompt_column: as for :func:`rvpo.data.load_prompts`.
        answer_column: column or path with the answer; None searches for it.
        subset: configuration of a hub dataset.
        split: split of a saved or hub dataset.
        instruction: added to each problem that does not mention ``\\boxed`` itself; "" adds nothing.
        system_prompt: replaces the system message, or adds one.
        limit: number of problems, from the first; None asks all.

    Raises:
        ConfigError: an option has a value that cannot work, or Math-Verify is not installed.
        DataError: the data cannot be read or are malformed; see :func:`rvpo.evals.math_data.read_questions`.
    """

    name = "math"
    generation = Generation(max_tokens=4096, temperature=0.6, top_p=0.95)  # as DeepSeek-R1 and Qwen are evaluated

    def __init__(
        self,
        path: str | Path,
        *,
        samples: int = 4,
        k: Sequence[int] | int | None = None,
        prompt_column: str = "prompt",
        answer_column: str | None = None,
        subset: str | None = None,
        split: str | None = None,
        instruction: str = INSTRUCTION,
        system_prompt: str | None = None,
        limit: int | None = None,
    ) -> None:
        """Read and check all problems."""
        if limit is not None and (type(limit) is not int or limit < 1):
            raise ConfigError(f"limit is {limit!r}; expected a whole number of at least 1. Correct it")
        if importlib.util.find_spec("math_verify") is None:
            raise ConfigError(
                "math-verify, which compares the answers, is not installed; expected the extra math. Install it: "
                f"{install_command('eval', 'math')}"
            )
        self._sampling = Sampling.of(samples, k)
        read = read_questions(
            path, prompt_column=prompt_column, answer_column=answer_column, subset=subset, split=split
        )
        self._source, self._reading = str(path), read.notes
        self._questions = {question.id: question for question in read.questions[:limit]}
        self._chats = {
            id: _asked(question.messages, instruction, system_prompt) for id, question in self._questions.items()
        }
        self._unreadable: frozenset[str] | None = None

    @property
    def primary(self) -> str:
        """The mean over all samples."""
        return f"avg@{self._sampling.samples}"

    def settings(self) -> dict[str, Any]:
        """Return number and digest of the problems, number of samples, and the version of Math-Verify."""
        content = [[id, self._chats[id], question.answer] for id, question in self._questions.items()]
        return {
            "questions": len(self._questions),
            "data": digest(content),
            "samples": self._sampling.samples,
            "evaluator": f"math-verify {installed('math-verify')}",
        }

    def report_options(self) -> dict[str, Any]:
        """Return the options that decide which metrics are computed from the scores."""
        return {"k": list(self._sampling.ks)}

    def items(self) -> list[Item]:
        """Return each problem once per sample; the first sample of all problems comes before the second."""
        return [
            Item(id, self._chats[id], epoch, labels=question.labels)
            for epoch in range(self._sampling.samples)
            for id, question in self._questions.items()
        ]

    async def check(self) -> None:
        """Compare each reference with itself.

        Raises:
            DataError: Math-Verify cannot read most of them.
        """
        require_readable(self._source, sorted(self._answer(id) for id in self._unread()), len(self._questions))

    def metrics(self, item: Item) -> list[str]:
        """Return the metrics of a sample."""
        return [self.primary, "answered", *(f"{label}:{value}" for label, value in item.labels.items())]

    async def score(self, replied: Sequence[tuple[Item, Reply]]) -> list[Scored]:
        """Return 0 or 1 for each metric of a sample; details hold the answer that was read, and the reference."""
        return [self._score(item, reply.text or "") for item, reply in replied]

    def _score(self, item: Item, text: str) -> Scored:
        wanted, given = self._answer(item.id), reply_answer(text)
        details = {"answer": given, "reference": wanted}
        right, answered, *parts = self.metrics(item)
        had = {answered: float(given is not None)}
        if item.id in self._unread():
            return Scored(
                {**dict.fromkeys((right, *parts)), **had}, dict.fromkeys((right, *parts), UNREADABLE), {}, details
            )
        equal = False if given is None else answers_equal(wanted, given)
        if equal is None:
            return Scored(
                {**dict.fromkeys((right, *parts)), **had}, dict.fromkeys((right, *parts), UNDECIDED), {}, details
            )
        return Scored({**dict.fromkeys((right, *parts), float(equal)), **had}, details=details)

    def of_items(self, scored: Rows) -> dict[Key, Scored]:
        """Return the first row of each problem with its Pass@k and the vote of its samples."""
        rows = with_pass_at(scored, self.primary, self._sampling.ks)
        if self._sampling.samples == 1:
            return rows
        for samples in by_item(scored).values():
            key = samples[0][0].key
            rows[key] = self._voted(rows[key], [one for _, one in samples])
        return rows

    @property
    def _majority(self) -> str:
        return f"majority@{self._sampling.samples}"

    def _voted(self, first: Scored, samples: Sequence[Scored]) -> Scored:
        right = [one.scores[self.primary] for one in samples]
        had = [value == 1.0 for value in right if value is not None]
        if len(had) < len(right):
            return add(
                first, {self._majority: None}, {self._majority: f"{len(had)} of {len(right)} samples are scored"}
            )
        vote = majority([one.details["answer"] for one in samples], had, answers_equal)
        if vote is None:
            return add(first, {self._majority: None}, {self._majority: UNDECIDED})
        counts = {"votes": vote.votes, "tied": vote.tied}
        voted = add(first, {self._majority: vote.value}, {})
        return Scored(voted.scores, voted.reasons, voted.weights, {**voted.details, "majority": counts})

    def summary(self, scored: Rows) -> dict[str, Any]:
        """Return how the data were read, what is missing, and how many votes are ties or have no answer at all."""
        votes = [one.details["majority"] for _, one in scored if "majority" in one.details]
        ties, empty = sum(vote["tied"] > 1 for vote in votes), sum(vote["votes"] == 0 for vote in votes)
        notes = [*self._reading, f"{self.primary} is the mean of {self._sampling.samples} samples of each problem"]
        if unread := self._unread():
            notes.append(f"Math-Verify cannot read {len(unread)} references: their problems have no score")
        if worded := self._worded():
            notes.append(
                f"{len(worded)} references, such as {worded[0]!r}, are a number with a word that Math-Verify does not "
                "read as a unit: a reply with the number alone is wrong. Remove the words, or write them as \\text{…}"
            )
        notes += notes_on_answers(scored, "answered", "state no answer in \\boxed{} or after ####")
        notes += notes_on_samples(scored, self.primary, self._sampling.ks)
        if ties:
            notes.append(
                f"{self._majority}: {ties} of {len(votes)} votes are ties, in which each of the t answers with the "
                "most votes counts 1/t"
            )
        if empty:
            notes.append(
                f"{self._majority}: in {empty} of {len(votes)} votes no sample states an answer; they count as wrong"
            )
        return {"majority": {"votes": len(votes), "ties": ties, "no_answer": empty}, "notes": notes}

    def _answer(self, id: str) -> str:
        return self._questions[id].answer

    def _worded(self) -> list[str]:
        """Return references that are a number with a word, and not equal to the number."""
        answers = [question.answer for question in self._questions.values()]
        found = [(answer, match[1]) for answer in answers if (match := _WITH_WORD.fullmatch(answer))]
        return [answer for answer, number in found if answers_equal(answer, number) is False]

    def _unread(self) -> frozenset[str]:
        """Return the ids of problems whose reference is not equal to itself."""
        if self._unreadable is None:
            compared = {id: answers_equal(question.answer, question.answer) for id, question in self._questions.items()}
            self._unreadable = frozenset(id for id, equal in compared.items() if equal is False)
        return self._unreadable


def _asked(chat: Sequence[Message], instruction: str, system_prompt: str | None) -> tuple[Message, ...]:
    """Return a problem as the model sees it: with the instruction in the user's last turn, and the system message."""
    messages = [dict(message) for message in chat]
    if instruction and not any("\\boxed" in message["content"] for message in messages):
        last = max((i for i, message in enumerate(messages) if message["role"] == "user"), default=len(messages) - 1)
        messages[last]["content"] = f"{messages[last]['content']}\n\n{instruction}"
    return tuple(messages if system_prompt is None else with_system_prompt(messages, system_prompt))
