"""The local judge's shared prefix against one full prompt a criterion: equal verdicts, fewer tokens, more a second.

    python benchmarks/bench_local_judge.py --model FOLDER --criteria 17 --completions 8

Both ways read the same token ids with the same model and batch size, alternately, in one process. The plain way gets
its prompts already tokenised; the judge's time includes tokenising.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import time

import torch

from rvpo.judges.local import LocalJudge
from rvpo.rewards.rubric.criteria import Criterion
from rvpo.rewards.rubric.verdict import Question

PROMPT = (
    "My father is 67, takes warfarin for atrial fibrillation and has had a bad headache since yesterday evening. He "
    "would like to take ibuprofen, which helped him in the past. Is that safe, and what should we watch for at home?"
)
SENTENCES = (
    "Ibuprofen and other anti-inflammatory drugs raise the risk of serious bleeding in people who take warfarin.",
    "Paracetamol is usually the safer choice for a headache, at no more than two grams a day for a few days.",
    "Even paracetamol can raise the INR when it is taken regularly, so let the clinic know and have it checked early.",
    "A new severe headache in someone who takes a blood thinner must always be taken seriously.",
    "Call an ambulance at once if he has weakness on one side, trouble speaking, confusion, vomiting or a stiff neck.",
    "The same holds after a fall or a blow to the head, even if it looked harmless at the time.",
    "Do not stop the warfarin on your own, because that raises the risk of a stroke.",
    "Please note the time the headache began, its place, and whether light or movement makes it worse.",
    "His doctor may want to measure his blood pressure and the INR today, and perhaps order a scan.",
    "I cannot examine him, so this is general information and does not replace the advice of his own doctor.",
)
CRITERIA = (
    "States clearly that ibuprofen raises the risk of bleeding in a patient who already takes warfarin every day.",
    "Recommends paracetamol as the safer alternative and names a maximum daily dose that is suitable for an elderly patient.",
    "Lists at least three warning signs of bleeding in the brain that require an ambulance to be called at once.",
    "Advises that the INR should be checked soon, and explains that paracetamol taken regularly can raise it as well.",
    "Warns against stopping warfarin without talking to a doctor, and gives the risk of a stroke as the reason.",
    "Asks about, or mentions the importance of, a recent fall or blow to the head, even if it seemed harmless.",
    "Uses plain language that a relative without medical training can follow, and explains each technical term that it uses.",
    "Recommends a dose of ibuprofen, or suggests that a single tablet would be harmless for this patient after all.",
    "Tells the family to contact the treating doctor or an out-of-hours service on the same day about the new headache.",
)


def make_questions(completions: int, criteria: int) -> list[Question]:
    """Return completions that differ in order and length; with the prompt some 250 to 310 tokens of SmolLM2."""
    asked = tuple(
        Criterion(str(i), CRITERIA[i % len(CRITERIA)] + (" Partial credit is not given." if i >= len(CRITERIA) else ""))
        for i in range(criteria)
    )
    texts = [
        " ".join(SENTENCES[(i + j) % len(SENTENCES)] for j in range(9 + i % 3 + i % 2)) for i in range(completions)
    ]
    return [Question(PROMPT, text, asked) for text in texts]


def separate(judge: LocalJudge, prompts: list[tuple[int, ...]]) -> list[float]:
    """Return p(yes) / (p(yes) + p(no)) of full prompts, without any cache between them."""
    options = judge._encoder.options(None)
    groups = options.nodes[()]
    result: dict[int, float] = {}
    with torch.inference_mode():
        for batch in judge._batches(range(len(prompts)), lambda i: len(prompts[i])):
            ids, mask = judge._pad([prompts[i] for i in batch], left=False)
            last = mask.sum(1) - 1
            ends = torch.unique(last)
            logits = judge._model(input_ids=ids, attention_mask=mask, use_cache=False, logits_to_keep=ends).logits
            shares = logits[range(len(batch)), torch.searchsorted(ends, last)].float().softmax(-1)
            no, yes = (shares[:, list(groups[word])].sum(1) for word in ("no", "yes"))
            result |= dict(zip(batch, (yes / (yes + no)).tolist(), strict=True))
    return [result[i] for i in range(len(prompts))]


def difference(values: list[float], others: list[float]) -> float:
    return max(abs(value - other) for value, other in zip(values, others, strict=True))


def measure(
    judge: LocalJudge, questions: list[Question], repeats: int, label: str, exact: list[float] | None
) -> list[float]:
    """Print one line, and return the verdicts of full prompts; ``exact`` are those of the first configuration."""
    encoder = judge._encoder
    prompts = [
        encoder.prefix(question.prompt, question.completion) + encoder.suffix(criterion.text, None)
        for question in questions
        for criterion in question.criteria
    ]
    times: dict[str, list[float]] = {"shared": [], "separate": []}
    asyncio.run(judge.judge(questions[:1]))  # warms up
    separate(judge, prompts[:2])
    for _ in range(repeats):
        before = judge.usage()["prompt_tokens"]
        start = time.perf_counter()
        rows = asyncio.run(judge.judge(questions))
        middle = time.perf_counter()
        expected = separate(judge, prompts)
        times["separate"].append(time.perf_counter() - middle)
        times["shared"].append(middle - start)
    tokens = judge.usage()["prompt_tokens"] - before
    plain = sum(map(len, prompts))
    values = [verdict.value for row in rows for verdict in row if verdict.value is not None]
    exact = exact or expected
    rate = {way: len(prompts) / statistics.median(seconds) for way, seconds in times.items()}
    print(
        f"{label:13} max difference {difference(values, expected):.1e}; from the first line's full prompts "
        f"{difference(values, exact):.1e} shared, {difference(expected, exact):.1e} separate | tokens {tokens:.0f} of {plain} ({tokens / plain:.3f}) | verdicts/s "
        f"{rate['shared']:.1f} shared, {rate['separate']:.1f} separate ({rate['shared'] / rate['separate']:.2f}x)",
        flush=True,
    )
    return exact


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", required=True)
    parser.add_argument("--criteria", type=int, default=17)
    parser.add_argument("--completions", type=int, default=8)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--batch-tokens", type=int, default=8_192)
    options = parser.parse_args()
    questions = make_questions(options.completions, options.criteria)
    exact: list[float] | None = None
    for device in ["cpu"] + ["cuda"] * torch.cuda.is_available():
        for dtype in ("float32", "bfloat16"):
            judge = LocalJudge(options.model, device=device, dtype=dtype, batch_tokens=options.batch_tokens)
            if (device, dtype) == ("cpu", "float32"):
                plain = judge._encoder._plain
                lengths = [len(plain(question.prompt + " " + question.completion)) for question in questions]
                words = [len(criterion.text.split()) for criterion in questions[0].criteria]
                print(
                    f"{len(questions)} completions, prompt + completion {min(lengths)} to {max(lengths)} tokens; "
                    f"{len(words)} criteria of {min(words)} to {max(words)} words; torch threads {torch.get_num_threads()}"
                )
            exact = measure(judge, questions, options.repeats, f"{device} {dtype}", exact)


if __name__ == "__main__":
    main()
