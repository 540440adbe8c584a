"""Which letter is read in a reply: ours, inspect-ai's and simple-evals' beside each other, on hard cases and random ones.

    python benchmarks/evals/gpqa_extraction.py [--simple-evals FOLDER] [--random 1000] [--seed 0]

inspect's side is a whole ``inspect_ai.eval`` of ``multiple_choice(cot=True)`` and ``choice()`` with the model
``mockllm``, which recites the replies by prompt: a prompt of ours that differed in a character would find none. Equal
means the same letter and the same score for each reply; any difference is exit code 1.

With ``--simple-evals`` (a checkout of openai/simple-evals, MIT) there is a third column: the first match of its
``ANSWER_PATTERN_MULTICHOICE``. It is only shown. Its prompt is another one, which asks for ``Answer: $LETTER``.
"""

from __future__ import annotations

import argparse
import ast
import asyncio
import csv
import random
import re
import sys
import tempfile
from pathlib import Path
from typing import Any

from rvpo.evals.gpqa import COLUMNS, GPQA, LETTERS, option_order
from rvpo.evals.items import Item, Reply

CASES: dict[str, str] = {
    "as asked": "Light has no mass.\n\nANSWER: C",
    "sentence case": "Answer: C",
    "lower-case word and letter": "answer: c",
    "full stop": "ANSWER: C.",
    "no space": "ANSWER:C",
    "space before the colon": "ANSWER : C",
    "bold line": "**ANSWER: C**",
    "bold letter": "ANSWER: **C**",
    "bold word": "**Answer:** C",
    "bold word, bold letter": "**Answer:** **C**",
    "italic": "*Answer: C*",
    "nested markup": "> ### ***Answer: `C`***",
    "heading": "## ANSWER: C",
    "LaTeX": "Answer: $C$",
    "LaTeX with blanks": "ANSWER: $ C $",
    "LaTeX text": r"ANSWER: $\text{C}$",
    "boxed": r"The final answer is $\boxed{C}$.",
    "answer and boxed": r"ANSWER: \boxed{C}",
    "dollar as in the template": "ANSWER: $C",
    "parentheses": "ANSWER: (C)",
    "half a parenthesis": "ANSWER: C) carbon",
    "square brackets": "ANSWER: [C]",
    "quotes": "ANSWER: 'C'",
    "letter and text": "ANSWER: C) 3.2 eV",
    "letter and words": "ANSWER: C because the others violate causality",
    "twice, the same": "Answer: C\nANSWER: C",
    "twice, corrected": "Answer: A\nNo, I forgot the sign.\nAnswer: C",
    "twice on a line": "Answer: A ... Answer: C",
    "answer first, then reasons": "ANSWER: C\nBecause momentum is conserved, A and B are out.",
    "answer in the middle": "I would say that the answer: C is the best of the four.",
    "strict before lenient": "ANSWER: A\nSo my answer: C, I think",
    "several letters": "ANSWER: A, C",
    "several letters, and": "ANSWER: A and C",
    "letters without comma": "ANSWER: AC",
    "trailing comma": "ANSWER: C,",
    "all of them": "ANSWER: A,B,C,D",
    "beyond the options": "ANSWER: E",
    "a number": "ANSWER: 3",
    "none": "I cannot decide between B and C.",
    "empty": "",
    "only blanks": " \n\t ",
    "an option quoted from the question": "The question offers 'A) 10^-4 eV'. It must be the third option.",
    "the template quoted": "The last line should be 'ANSWER: $LETTER'. I choose\nC",
    "template, then answer": "Format: 'ANSWER: $LETTER' where LETTER is one of A,B,C,D.\nANSWER: C",
    "letter on the next line": "ANSWER:\nC",
    "letter two lines on": "ANSWER:\n\n**C**\n",
    "full-width letter": "ANSWER: Ｃ",
    "Cyrillic letter": "ANSWER: С",
    "Chinese word": "答案：C",
    "full-width colon": "ANSWER： C",
    "zero-width space": "ANSWER: \u200bC",
    "no-break space": "ANSWER:\u00a0C",
    "long s": "AN\u017fWER: C",
    "carriage returns": "Reasons.\r\nANSWER: C\r\n",
    "think tags": "<think>ANSWER: A</think>\nANSWER: C",
    "HTML": "<b>ANSWER: C</b>",
    "table": "| ANSWER: C |",
    "JSON": '{"ANSWER": "C"}',
    "code block": "```\nANSWER: C\n```",
    "is instead of colon": "The answer is C",
    "final answer": "Final Answer: C",
    "option word": "ANSWER: Option C",
    "cut off": "ANSWER:",
    "NUL": "ANSWER: C\x00",
    "many answers, 200,000 characters": "Answer: A\n" * 20_000 + "Answer: C",
    "200,000 dollars": "$" * 200_000 + "\nANSWER: C",
    "200,000 asterisks": "*" * 200_000 + "\nANSWER: C",
    "200,000 letters": "ANSWER: " + "C" * 200_000,
}
"""What inspect's patterns take hours for, a long run of blanks after ``ANSWER:``, is left out."""

FRAGMENTS = (
    "ANSWER", "Answer", "answer", ":", ":", " : ", " ", "  ", "\n", "\t", "A", "B", "C", "D", "c", "E", "7", "$", "**", "*", "(", ")", ",",
    ".", " and ", "_", "\\boxed{", "}", "ANSWER: ", "Answer: **", "ANSWER: $", "\nANSWER: (", "\nAnswer: C", "ANSWER: D.", " " * 17, "\t" * 9, "é",
)  # fmt: skip


def random_reply(draw: random.Random) -> str:
    return "".join(draw.choices(FRAGMENTS, k=draw.randint(1, 14)))


def write_questions(path: Path, number: int) -> None:
    """Write one question a reply in GPQA's layout."""
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(COLUMNS)
        for i in range(number):
            options = [f"10^-{10 * i + option} eV" for option in range(4)]
            writer.writerow([f"q{i}", f"Which is {options[0]}?", *options, "Physics", "Optics"])


def inspect_answers(items: list[Item], benchmark: GPQA, replies: dict[str, str]) -> dict[str, tuple[bool, str | None]]:
    """Return, by id, whether inspect-ai calls the reply right and the letter that it reads."""
    import inspect_ai
    from inspect_ai.dataset import MemoryDataset, Sample
    from inspect_ai.model import ModelOutput, ModelUsage, get_model
    from inspect_ai.scorer import choice
    from inspect_ai.solver import multiple_choice

    by_prompt = {item.messages[0]["content"]: replies[item.id] for item in items}

    def recite(messages: list[Any], *_: object) -> ModelOutput:
        output = ModelOutput.from_content("mockllm/model", by_prompt[messages[-1].text])
        output.usage = ModelUsage()  # without one, mockllm counts tokens with a tokenizer that it downloads
        return output

    samples = []
    for item in items:
        order = option_order(benchmark.seed, item.id, item.epoch)
        number = int(item.id.removeprefix("q"))
        options = [f"10^-{10 * number + option} eV" for option in order]
        samples.append(
            Sample(input=f"Which is 10^-{10 * number} eV?", choices=options, target=LETTERS[order.index(0)], id=item.id)
        )
    task = inspect_ai.Task(dataset=MemoryDataset(samples), solver=multiple_choice(cot=True), scorer=choice())
    with tempfile.TemporaryDirectory() as folder:
        model = get_model("mockllm/model", custom_outputs=recite)
        # the samples are read from the folder when they are first asked for
        [log] = inspect_ai.eval(task, model=model, log_dir=folder, display="none", log_level="error")
        if log.status != "success":
            raise SystemExit(f"inspect_ai.eval ended with {log.status}: {log.error and log.error.message}")
        scores = {str(sample.id): sample.scores["choice"] for sample in log.samples}
    return {id: (score.value == "C", score.answer or None) for id, score in scores.items()}


def simple_evals_pattern(folder: Path) -> re.Pattern[str]:
    """Return the constant from the checkout's ``common.py``, which is parsed and not run."""
    for node in ast.parse((folder / "common.py").read_text(encoding="utf-8")).body:
        if isinstance(node, ast.Assign) and getattr(node.targets[0], "id", "") == "ANSWER_PATTERN_MULTICHOICE":
            return re.compile(ast.literal_eval(node.value))
    raise SystemExit(f"{folder}/common.py has no ANSWER_PATTERN_MULTICHOICE: name a checkout of openai/simple-evals")


def compare(replies: list[str]) -> list[tuple[tuple[bool, str | None], tuple[bool, str | None]]]:
    """Return what we and what inspect-ai make of each reply: right or not, and the letter."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "questions.csv"
        write_questions(path, len(replies))
        benchmark = GPQA(path, epochs=1)
    items = benchmark.items()
    scored = asyncio.run(benchmark.score([(item, Reply(text)) for item, text in zip(items, replies, strict=True)]))
    ours = [(one.scores["accuracy"] == 1.0, one.details["letter"]) for one in scored]
    theirs = inspect_answers(items, benchmark, {item.id: text for item, text in zip(items, replies, strict=True)})
    return [(mine, theirs[item.id]) for mine, item in zip(ours, items, strict=True)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--simple-evals", type=Path)
    parser.add_argument("--random", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    pattern = options.simple_evals and simple_evals_pattern(options.simple_evals)
    draw = random.Random(options.seed)
    replies = [*CASES.values(), *(random_reply(draw) for _ in range(options.random))]
    pairs = compare(replies)

    third = [match[1] if (match := pattern.search(reply)) else None for reply in replies] if pattern else []
    print("| reply | rvpo | inspect-ai |" + (" simple-evals |" if pattern else ""))
    print("|---|---|---|" + ("---|" if pattern else ""))
    for i, name in enumerate(CASES):
        letters = [pairs[i][0][1], pairs[i][1][1], *third[i : i + 1]]
        print(f"| {name} | " + " | ".join(letter or "–" for letter in letters) + " |")
    differ = [reply for reply, (mine, theirs) in zip(replies, pairs, strict=True) if mine != theirs]
    read = sum(theirs[1] is not None for _, theirs in pairs)
    total = f"{len(CASES)} hard cases and {options.random} random ones, {read} with a letter"
    print(f"\n{total}: {len(differ)} differ from inspect-ai")
    if pattern:
        others = sum(pairs[i][0][1] != third[i] for i in range(len(CASES)))
        print(f"simple-evals differs in {others} of the hard cases")
    for reply in differ[:10]:
        print(repr(reply[:200]))
    sys.exit(bool(differ))


if __name__ == "__main__":
    main()
