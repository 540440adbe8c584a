"""Cut RLLA dialogues down to what two CPU cores can train on.

Keeps dialogues with a tool call whose prompt and answer are short, replaces the long instruction by the tool list and
one sentence on the format, and cuts the reasoning to one sentence. The format and the tool calls stay as they are.
Writes warm.jsonl (for the supervised start), train.jsonl (for reinforcement learning) and eval.jsonl, disjoint.
"""

from __future__ import annotations

import argparse
import json
import random
import re
from pathlib import Path

from transformers import AutoTokenizer

TOOLS = re.compile(r"\*\*Available Tools\*\*\n[^\n]*\n(.*?)\n\n\*\*Steps", re.DOTALL)
ANSWER = re.compile(r"<think>(.*?)</think>\s*(<tool_call>\n.*\n</tool_call>)\s*", re.DOTALL)
SYSTEM = (
    "Tools:\n{tools}\n\nReply with <think> one sentence of reasoning </think>, then a line <tool_call>, one JSON object "
    'a line with the keys "name" and "parameters" for each call, and a line </tool_call>.'
)


def compact(row: dict[str, str]) -> dict[str, object] | None:
    """Return a short prompt record, or None where the row is no plain tool call."""
    tools, answer = TOOLS.search(row["instruction"]), ANSWER.fullmatch(row["output"])
    if tools is None or answer is None:
        return None
    sentences = re.split(r"(?<=[.!?])\s+", answer[1].strip())
    thought = next((s for s in sentences if len(s.split()) >= 6), sentences[0])
    prompt = [
        {"role": "system", "content": SYSTEM.format(tools=tools[1])},
        {"role": "user", "content": row["input"]},
    ]
    return {"prompt": prompt, "answer": f"<think> {' '.join(thought.split()[:20])} </think>\n{answer[2]}"}


def main() -> None:
    """Write the three files and say how long the rows are."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rlla", type=Path, required=True, help="rlla_sft.json of the ToolRL project")
    parser.add_argument("--tokenizer", required=True, help="folder of the model that will be trained")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--max-prompt-tokens", type=int, default=420)
    parser.add_argument("--max-answer-tokens", type=int, default=100)
    parser.add_argument("--warm", type=int, default=40, help="rows for the supervised start")
    parser.add_argument("--eval", type=int, default=16, help="rows held out")
    parser.add_argument(
        "--not-in", type=Path, nargs="*", default=[], help="files of rows to leave out: those trained on"
    )
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()

    tokenizer = AutoTokenizer.from_pretrained(args.tokenizer)
    seen = {line for path in args.not_in for line in path.read_text("utf-8").splitlines()}
    kept = []
    for row in json.loads(args.rlla.read_text("utf-8")):
        record = compact(row)
        if record is None or json.dumps(record) in seen:
            continue
        text = tokenizer.apply_chat_template(record["prompt"], tokenize=False, add_generation_prompt=True)
        sizes = len(tokenizer(text)["input_ids"]), len(tokenizer(record["answer"])["input_ids"])
        if sizes[0] <= args.max_prompt_tokens and sizes[1] <= args.max_answer_tokens:
            kept.append((record, sizes))
    random.Random(args.seed).shuffle(kept)
    args.out.mkdir(parents=True, exist_ok=True)
    parts = {
        "warm": kept[: args.warm],
        "eval": kept[args.warm : args.warm + args.eval],
        "train": kept[args.warm + args.eval :],
    }
    for name, rows in parts.items():
        if not rows:
            continue
        lines = [json.dumps(record) for record, _ in rows]
        (args.out / f"{name}.jsonl").write_text("\n".join(lines) + "\n", "utf-8")
        prompt, answer = (sum(s[i] for _, s in rows) / len(rows) for i in (0, 1))
        print(f"{name}: {len(rows)} rows, mean prompt {prompt:.0f} tokens, mean answer {answer:.0f} tokens")


if __name__ == "__main__":
    main()
