"""Write the prompts of the two SmolLM2 tasks: things to describe, and to say why they are good.

    python benchmarks/smollm2_regimes/prompts.py data/smollm2-regimes

Makes ``train.jsonl`` (72 prompts on 36 things) and ``heldout.jsonl`` (48 on 24 others), with the one column ``prompt``,
a chat of about 25 tokens.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

SYSTEM = "You answer in one sentence."
ASKS = ("Describe {}.", "Why is {} good?")
THINGS = {
    "train": """a bicycle, bread, a library, rain, a dog, coffee, a garden, the moon, a river, chess, a bridge, honey,
        a clock, snow, a school, music, a train, tea, a forest, soup, a phone, the sun, a cat, cheese, a boat, winter,
        a kitchen, a letter, football, a farm, an umbrella, a lamp, swimming, a map, an apple, a piano""",
    "heldout": """a market, chocolate, a mountain, a horse, rice, a window, the sea, a camera, summer, a chair, running,
        a doctor, a candle, a bird, pizza, a museum, a pen, a tent, a bus, a painting, an egg, a park, wind, a bed""",
}


def chats(things: str) -> list[list[dict[str, str]]]:
    """Return a chat for each thing of a comma-separated list and each way to ask."""
    return [
        [{"role": "system", "content": SYSTEM}, {"role": "user", "content": ask.format(thing.strip())}]
        for thing in things.split(",")
        for ask in ASKS
    ]


def main() -> None:
    """Write both files into the folder that is named."""
    parser = argparse.ArgumentParser(description="Write train.jsonl and heldout.jsonl.")
    parser.add_argument("folder", type=Path, help="where to")
    folder = parser.parse_args().folder
    folder.mkdir(parents=True, exist_ok=True)
    for name, things in THINGS.items():
        lines = [json.dumps({"prompt": chat}) + "\n" for chat in chats(things)]
        (folder / f"{name}.jsonl").write_text("".join(lines), "utf-8")


if __name__ == "__main__":
    main()
