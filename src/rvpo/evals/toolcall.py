"""Tool calling on held-out data: the rewards of ToolRL as a benchmark.

The scores are those of :mod:`rvpo.rewards.toolcall`, which training optimizes, so the rows must be held out: give the
same ``shuffle_seed`` and ``max_prompt_chars`` as in training, and a range of rows that training did not use.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rvpo.data import load_prompts
from rvpo.evals.items import Generation, Item, Message, Reply, Scored
from rvpo.files import digest
from rvpo.rewards.toolcall import correctness_reward, format_reward

FULL_MARKS = 3.0
UNSCORABLE = "the reference's calls cannot be read"
_KINDS = {(True, False): "call", (False, True): "response", (True, True): "both", (False, False): "neither"}


class ToolCall:
    """Compares replies with reference replies in the layout of RLLA.

    Metrics of an item whose reference calls a tool:

    - ``correctness`` in [-3, 3]: ToolRL's correctness. It is missing if the reference's own calls cannot be read.
    - ``exact``, 0 or 1: the calls are the same as the reference's, in any order (the highest correctness).

    Metric of an item whose reference does not call a tool. (ToolRL's correctness is 0 there for any reply, and would
    only dilute the mean.)

    - ``no_call``, 0 or 1: the reply does not call a tool. This is also true of gibberish, so read it together with
      ``format``.

    Metric of every item:

    - ``format``, 0 or 1: the reply has the same parts as its reference.

    Args:
        path: file, folder or hub id, as for :func:`rvpo.data.load_prompts`; prompts with the column ``answer``.
        layout: layout of the data, such as ``rlla``, ``rlla_parquet``, ``jsonl``.
        split: split of a saved or hub dataset.
        max_prompt_chars: leave out prompts with more characters than this.
        shuffle_seed: shuffle the rows with this seed before a range of them is taken.
        offset: index of the first row taken.
        limit: largest number of rows taken; None takes all.

    Raises:
        ConfigError: an option has a value that cannot work.
        DataError: the data cannot be read or are malformed.
    """

    name = "toolcall"
    primary = "correctness"
    generation = Generation(max_tokens=512)

    def __init__(
        self,
        path: str | Path,
        *,
        layout: str = "auto",
        split: str | None = None,
        max_prompt_chars: int | None = None,
        shuffle_seed: int | None = None,
        offset: int = 0,
        limit: int | None = None,
    ) -> None:
        """Read and check the rows."""
        rows = load_prompts(
            path,
            layout=layout,
            reference_columns={"answer": "answer"},
            split=split,
            max_prompt_chars=max_prompt_chars,
            shuffle_seed=shuffle_seed,
            offset=offset,
            limit=limit,
        )
        self._rows = _with_ids(rows["prompt"], rows["answer"])

    def settings(self) -> dict[str, Any]:
        """Return the number of rows and a digest of them."""
        return {"rows": len(self._rows), "data": digest(list(self._rows))}  # the ids, which are digests of the rows

    def items(self) -> list[Item]:
        """Return one item per row, in the order of the rows. An id depends on its row alone."""
        return [
            Item(id, messages, labels={"reference": _KINDS[_calls(answer), "<response>" in answer]})
            for id, (messages, answer) in self._rows.items()
        ]

    def metrics(self, item: Item) -> list[str]:
        """Return correctness, exact and format, or no_call and format."""
        return ["correctness", "exact", "format"] if _calls(self._answer(item)) else ["no_call", "format"]

    async def score(self, replied: Sequence[tuple[Item, Reply]]) -> list[Scored]:
        """Return the scores of each reply's text."""
        return [self._score(item, reply) for item, reply in replied]

    def _score(self, item: Item, reply: Reply) -> Scored:
        text, answer = reply.text or "", self._answer(item)
        scores: dict[str, float | None] = {}
        reasons = {}
        if not _calls(answer):
            scores["no_call"] = float("<tool_call>" not in text and not reply.calls)
        elif (correctness := correctness_reward(text, answer)) is None:
            scores = {"correctness": None, "exact": None}
            reasons = dict.fromkeys(("correctness", "exact"), UNSCORABLE)
        else:
            scores = {"correctness": correctness, "exact": float(correctness == FULL_MARKS)}
        return Scored(scores | {"format": format_reward(text, answer)}, reasons)

    def summary(self, scored: Sequence[tuple[Item, Scored]]) -> dict[str, Any]:
        """Return how many references hold a call, a response, both or neither."""
        return {"references": dict(sorted(Counter(item.labels["reference"] for item, _ in scored).items()))}

    def _answer(self, item: Item) -> str:
        return self._rows[item.id][1]


def _with_ids(
    prompts: Sequence[str | list[dict[str, str]]], answers: Sequence[str]
) -> dict[str, tuple[tuple[Message, ...], str]]:
    """Return id -> (messages, answer). The id is a digest of both; the second of two equal rows gets a number."""
    rows: dict[str, tuple[tuple[Message, ...], str]] = {}
    seen: Counter[str] = Counter()
    for prompt, answer in zip(prompts, answers, strict=True):
        messages: list[dict[str, str]] = [{"role": "user", "content": prompt}] if isinstance(prompt, str) else prompt
        pairs = [(message["role"], message["content"]) for message in messages]
        row = digest([pairs, answer])[:16]
        seen[row] += 1
        id = row if seen[row] == 1 else f"{row}-{seen[row]}"
        rows[id] = tuple(_message(role, content) for role, content in pairs), answer
    return rows


def _message(role: str, content: str) -> Mapping[str, str]:
    return {"role": role, "content": content}


def _calls(answer: str) -> bool:
    return "<tool_call>" in answer
