"""GPQA (arXiv 2311.12022): science questions with four options, answered with a chain of thought.

inspect-ai writes the prompt, reads the answer and scores it (``MultipleChoiceTemplate.SINGLE_ANSWER_COT``,
``multiple_choice(cot=True)``, ``choice()``), as in ``inspect_evals/gpqa_diamond``; it gets the stored reply instead of
a model. None of its code is copied. Two things differ, and neither changes the score of an answer:

- *Order of the options.* inspect-evals keeps one order in all epochs; simple-evals draws one for each epoch. Here an
  order is drawn for each question and rotated by one place in each epoch. So in four epochs the right answer stands at
  A, B, C and D once each, and a model that always says the same letter scores exactly 1/4.
- *Long blanks.* The time of inspect's patterns grows with the cube of the length of a run of blanks: hours for 20,000
  of them. Runs of :data:`BLANKS` or more are reduced to one blank of each kind, which the patterns match in the same
  way.
"""

from __future__ import annotations

import csv
import random
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from rvpo.data.generic import read_hub
from rvpo.data.records import Place, Row, Rows, require_text, source_error
from rvpo.errors import ConfigError, DataError
from rvpo.evals.items import Generation, Item, Reply, Scored
from rvpo.extras import install_command
from rvpo.files import digest, sound

HUB_ID = "Idavidrein/gpqa"
SUBSET, SPLIT = "gpqa_diamond", "train"
OPTIONS = ("Correct Answer", "Incorrect Answer 1", "Incorrect Answer 2", "Incorrect Answer 3")
COLUMNS = ("Record ID", "Question", *OPTIONS, "High-level domain", "Subdomain")
"""The columns of GPQA's files that are read."""

LETTERS = "ABCD"
BLANKS = 16
_LONG_BLANK = re.compile(rf"[^\S\n]{{{BLANKS},}}")


class GPQA:
    """GPQA-Diamond, or any questions in its layout.

    Metrics: ``accuracy``, 0 or 1; ``answered``, 1 if inspect reads one letter in the reply, else 0; ``domain:<name>``,
    the accuracy within a domain. A reply without a letter is wrong, not missing, as in both evaluators.

    Args:
        path: a CSV file in the layout of ``gpqa_diamond.csv`` (:data:`COLUMNS`; others are ignored), or a hub id.
        epochs: number of times that each question is asked, each time with the options in another order (4 in
            inspect-evals).
        seed: seed of the orders.
        limit: number of questions, from the first; None asks all.
        subset: configuration of the hub dataset.
        split: split of the hub dataset.

    Raises:
        ConfigError: an option has a value that cannot work, or inspect-ai is not installed.
        DataError: the data cannot be read or are malformed; the message names file, row and field.
    """

    name = "gpqa"
    primary = "accuracy"
    generation = Generation(max_tokens=2048, temperature=0.5)  # simple-evals' sampler; inspect leaves both to the model

    def __init__(
        self,
        path: str | Path = HUB_ID,
        *,
        epochs: int = 4,
        seed: int = 0,
        limit: int | None = None,
        subset: str = SUBSET,
        split: str = SPLIT,
    ) -> None:
        """Read and check all questions."""
        for option, value, lowest in (("epochs", epochs, 1), ("seed", seed, 0), ("limit", limit, 1)):
            if value is not None and value < lowest:
                raise ConfigError(f"{option}={value}; expected at least {lowest}; next step: correct it")
        self._evaluator = _Evaluator()
        file = Path(path)
        if file.exists() or file.suffix.lower() == ".csv":
            rows = _read_csv(file)
        else:
            rows = _read_gated(str(path), subset, split)
        self._questions = _check(str(path), rows)
        self._asked = list(self._questions)[:limit]
        self.epochs, self.seed = epochs, seed

    def settings(self) -> dict[str, Any]:
        """Return the digest of the questions asked, epochs, seed, and the version of inspect-ai, which scores them."""
        return {
            "questions": len(self._asked),  # before the digest: it explains better why two runs differ
            "data": digest([self._questions[id] for id in self._asked]),
            "epochs": self.epochs,
            "seed": self.seed,
            "evaluator": f"inspect-ai {self._evaluator.version}: multiple_choice(cot=True), choice()",
        }

    def items(self) -> list[Item]:
        """Return each question once per epoch; one epoch is complete before the next begins."""
        return [self._item(id, epoch) for epoch in range(self.epochs) for id in self._asked]

    def _item(self, id: str, epoch: int) -> Item:
        row = self._questions[id]
        prompt = self._evaluator.prompt(row["Question"], self._options(id, epoch))
        labels = {"domain": row["High-level domain"], "subdomain": row["Subdomain"]}
        return Item(id, ({"role": "user", "content": prompt},), epoch, labels=labels)

    def _options(self, id: str, epoch: int) -> list[str]:
        return [self._questions[id][OPTIONS[option]] for option in option_order(self.seed, id, epoch)]

    def metrics(self, item: Item) -> list[str]:
        """Return accuracy, answered, and the accuracy of the item's domain."""
        return ["accuracy", "answered", f"domain:{item.labels['domain']}"]

    async def score(self, replied: Sequence[tuple[Item, Reply]]) -> list[Scored]:
        """Return 0 or 1 for each metric; details hold the letter read, the correct letter and the order."""
        return [await self._score(item, reply.text or "") for item, reply in replied]

    async def _score(self, item: Item, text: str) -> Scored:
        order = option_order(self.seed, item.id, item.epoch)
        correct = LETTERS[order.index(0)]
        right, letter = await self._evaluator.read(text, self._options(item.id, item.epoch), correct)
        accuracy, answered, domain = self.metrics(item)
        return Scored(
            {accuracy: float(right), answered: float(letter is not None), domain: float(right)},
            details={"letter": letter, "correct": correct, "order": list(order)},
        )

    def summary(self, scored: Sequence[tuple[Item, Scored]]) -> dict[str, Any]:
        """Return accuracy by epoch, and the share of each letter among the chosen and among the right ones.

        A model whose ``chosen`` is far from ``correct`` prefers a position. The key ``"None"`` counts replies without
        a letter.
        """
        had = [(item, one) for item, one in scored if one.scores["accuracy"] is not None]
        by_epoch: dict[str, list[float]] = {}
        for item, one in sorted(had, key=lambda pair: pair[0].epoch):
            by_epoch.setdefault(str(item.epoch), []).append(one.scores["accuracy"] or 0.0)
        chosen = _shares([one.details["letter"] for _, one in had])
        return {
            "accuracy_by_epoch": {epoch: sum(values) / len(values) for epoch, values in by_epoch.items()},
            "chosen": chosen,
            "correct": _shares([one.details["correct"] for _, one in had]),
            "notes": [f"letters chosen: {', '.join(f'{k} {v:.0%}' for k, v in chosen.items())}"] if chosen else [],
        }


def option_order(seed: int, id: str, epoch: int) -> tuple[int, ...]:
    """Return which of :data:`OPTIONS` stands at A, B, C, D: drawn by seed and id, rotated by one place per epoch.

    After four epochs a new order is drawn.
    """
    drawn = random.Random(f"{seed} {epoch // 4} {id}").sample(range(4), 4)
    turn = epoch % 4
    return tuple(drawn[turn:] + drawn[:turn])


def shorten_blanks(text: str) -> str:
    """Reduce each run of BLANKS or more blanks to one blank of each kind, in the order in which they first occur.

    A run lies within a line. inspect's patterns do not count blanks: they only ask whether a run has spaces, and
    whether it has others.
    """
    return _LONG_BLANK.sub(lambda run: "".join(dict.fromkeys(run[0])), text)


class _Evaluator:
    """inspect-ai's multiple choice, with a stored reply in place of its model."""

    def __init__(self) -> None:
        try:
            from inspect_ai import __version__, model, scorer, solver
        except ImportError as error:
            raise ConfigError(
                f"GPQA needs inspect-ai, which cannot be imported ({error}); expected the extra eval; next step: "
                f"{install_command('eval')}"
            ) from error
        self.version = __version__
        self._model, self._scorer, self._solver = model, scorer, solver
        self._solve, self._score = solver.multiple_choice(cot=True), scorer.choice()

    def prompt(self, question: str, options: list[str]) -> str:
        template = self._solver.MultipleChoiceTemplate.SINGLE_ANSWER_COT.value
        return str(self._solver.Choices(options).prompt(question, template))

    async def read(self, reply: str, options: list[str], correct: str) -> tuple[bool, str | None]:
        """Return whether the reply is right, and its letter; None if no letter can be read."""
        # ``sound`` replaces lone surrogates, which a server's JSON may hold: inspect would refuse them.
        text = sound(shorten_blanks(reply))

        async def generate(state: Any, *_: object, **__: object) -> Any:
            state.output = self._model.ModelOutput.from_content("stored", text)
            return state

        state = self._solver.TaskState(
            model=self._model.ModelName("none/stored"),
            sample_id="",
            epoch=1,
            input="",
            messages=[self._model.ChatMessageUser(content="")],
            choices=options,
        )
        state = await self._solve(state, generate)
        score = await self._score(state, self._scorer.Target(correct))
        if score is None:
            return False, None
        return score.value == self._scorer.CORRECT, score.answer or None


def _check(source: str, rows: Rows) -> dict[str, dict[str, str]]:
    """Return the questions by id, each with the text of all :data:`COLUMNS`."""
    questions: dict[str, dict[str, str]] = {}
    for place, row in rows:
        question = {column: require_text(place, row, column) for column in COLUMNS}
        id = question["Record ID"]
        if id in questions:
            raise place.error("Record ID", f"{id!r} a second time", "an id for each question", "remove or rename one")
        questions[id] = question
    if not questions:
        raise source_error(source, "0 rows", "at least one question", "check how the file was written")
    return questions


def _read_csv(path: Path) -> Rows:
    expected = "CSV in UTF-8 with the columns of gpqa_diamond.csv"
    if not path.is_file():
        seen = "a folder" if path.is_dir() else "no such file"
        raise source_error(str(path), seen, f"a file, {expected}", f"check the path, or use {HUB_ID} from the hub")
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            yield from _csv_rows(path, csv.reader(file, strict=True))
    except (csv.Error, UnicodeDecodeError) as error:
        raise source_error(str(path), str(error), expected, "repair the file, or download it again") from error


def _csv_rows(path: Path, reader: Any) -> Iterator[tuple[Place, Row]]:
    header: list[str] = next(reader, [])
    if absent := [name for name in COLUMNS if name not in header]:
        seen = f"no column {', '.join(map(repr, absent))} among {header}" if header else "an empty file"
        raise source_error(str(path), seen, f"the columns {', '.join(COLUMNS)}", "name gpqa_diamond.csv")
    line = reader.line_num + 1
    for index, cells in enumerate(cells for cells in reader if cells):  # the csv module gives [] for a blank line
        place = Place(str(path), index, line)
        if len(cells) != len(header):
            next_step = "quote cells that hold commas or line ends"
            raise place.error(None, f"{len(cells)} cells", f"{len(header)}, as in the header", next_step)
        yield place, dict(zip(header, cells, strict=True))
        line = reader.line_num + 1


def _read_gated(repo_id: str, subset: str, split: str) -> Rows:
    try:
        yield from read_hub(repo_id, subset=subset, split=split, columns=set(COLUMNS))
    except DataError as error:
        hint = f"{HUB_ID} is gated: accept its terms on its page and run `hf auth login`, or name gpqa_diamond.csv"
        raise DataError(f"{error}; {hint}") from error


def _shares(values: Sequence[str | None]) -> dict[str, float]:
    counts = Counter(str(value) for value in values)
    return {value: count / len(values) for value, count in sorted(counts.items())}
