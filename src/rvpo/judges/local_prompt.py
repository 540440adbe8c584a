"""Encode the prompts of the local judge as tokens, and find the tokens of its answers.

The whole chat is rendered once, with marks in place of the data, and cut at the marks. So the tokens that a chat
template puts after the criterion are right, and prefix and suffix have the same tokens whether they run together or
separately. Data are tokenised separately, and the text of special tokens in them is treated as plain text.
"""

from __future__ import annotations

import copy
import functools
import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.resources import files
from typing import Any, TypeAlias

from rvpo.errors import ConfigError
from rvpo.judges.control_tokens import harmless, pattern_of
from rvpo.rewards.rubric.criteria import MAX_STEPS
from rvpo.rewards.rubric.texts import chat
from rvpo.rewards.rubric.verdict import Prompt

Ids: TypeAlias = tuple[int, ...]
Answer: TypeAlias = tuple[str, ...]
"""An answer as a tuple of symbols. Each is a token: ``("yes",)``, or ``("1", "0")`` if 10 is not a token."""


_FOLDER = files("rvpo.judges") / "prompts"
_PROMPT, _MET, _SCALE = ((_FOLDER / f"local{name}.txt").read_text(encoding="utf-8") for name in ("", "_met", "_scale"))
_SLOTS = ("tag", "conversation", "reply", "question")
_PAIR, _BETTER = ((_FOLDER / f"local_{name}.txt").read_text(encoding="utf-8") for name in ("pair", "better"))
_PAIR_SLOTS = ("tag", "conversation", "first", "second", "question")
_PAIR_ANSWERS = ("b", "c", "a")  # in order of their values, from 0 to 1; C is a tie
_MARK = "rvposlot{}mark"  # a word that chat templates do not change, split or contain


@dataclass(frozen=True, slots=True)
class Options:
    """The answers to one kind of question.

    Attributes:
        answers: answers from the lowest to the highest, equally spaced in [0, 1].
        nodes: beginning of an answer -> symbols that may follow, with their token ids. ``()`` is the empty beginning.
            Others exist only if numbers have several digits.
        written: token ids of each node.
    """

    answers: tuple[Answer, ...]
    nodes: Mapping[Answer, Mapping[str, Ids]]
    written: Mapping[Answer, Ids]

    def probabilities(self, read: Mapping[Answer, Mapping[str, float]]) -> list[float]:
        """Return the probability of each answer, given the probabilities of the symbols after each node.

        If a number is the beginning of longer ones, it ends when none of their digits follows:
        p("1") = p(1) (1 - p(0 | 1)).
        """
        result = []
        for answer in self.answers:
            probability = 1.0
            for i, symbol in enumerate(answer):
                probability *= read[answer[:i]][symbol]
            if answer in self.nodes:
                probability *= max(0.0, 1.0 - sum(read[answer].values()))
            result.append(probability)
        return result


class PromptEncoder:
    """Turns questions into token ids: one prefix per completion, one suffix per criterion."""

    def __init__(self, tokenizer: Any, pairs: bool = False) -> None:
        """Cut the prompt's text into pieces.

        Args:
            tokenizer: tokenizer of the model.
            pairs: whether two replies are compared, instead of one reply being judged.

        Raises:
            ConfigError: the chat template repeats, drops or changes the text of a message, or the tokenizer has no
                single tokens for yes and no.
        """
        self._tokenizer = copy.deepcopy(tokenizer)  # a copy, because splitting special tokens sets a flag on it
        template, slots = (_PAIR, _PAIR_SLOTS) if pairs else (_PROMPT, _SLOTS)
        marks = {slot: _MARK.format(i) for i, slot in enumerate(slots)}
        text = template.rstrip("\n").format(**marks)
        if self._tokenizer.chat_template:
            # enable_thinking=False: templates that support it then let the model answer at once
            chat = [{"role": "user", "content": text}]
            rendered = self._tokenizer.apply_chat_template(
                chat, tokenize=False, add_generation_prompt=True, enable_thinking=False
            )
            start: list[int] = []
        else:
            rendered = text + "\nAnswer:"
            bos = self._tokenizer("a").input_ids[0]
            start = [bos] if bos == self._tokenizer.bos_token_id else []
        pieces = re.split(_MARK.format(r"(\d)"), rendered)
        wanted = re.findall(_MARK.format(r"(\d)"), text)
        if pieces[1::2] != wanted:
            raise ConfigError(
                "the tokenizer's chat template changes the text of messages; expected one that keeps it. Use another "
                "model"
            )
        last = len(pieces) - 2  # the question's slot
        self._head = [(slots[int(piece)] if i % 2 else piece, i % 2 == 1) for i, piece in enumerate(pieces[:last])]
        self._tail = self._plain(pieces[-1])
        self._start = start
        added = {i for i, token in self._tokenizer.added_tokens_decoder.items() if token.special}
        ends = {self._tokenizer.bos_token_id, self._tokenizer.eos_token_id, self._tokenizer.pad_token_id}
        self._special = (added - {self._tokenizer.unk_token_id}) | ends
        self._own = pattern_of(*_own_tokens(self._tokenizer))
        self._vocabulary: dict[str, int] = self._tokenizer.get_vocab()
        self.options = functools.lru_cache(maxsize=64)(self._options)
        self.suffix = functools.lru_cache(maxsize=65_536)(self._suffix)
        self._pairs = pairs
        self.options(None)

    def prefix(self, prompt: Prompt, *replies: str) -> Ids:
        """Return the tokens before the question: instructions, conversation, and the reply (both for a pair)."""
        conversation = (
            prompt
            if isinstance(prompt, str)
            else "\n\n".join(f"{' '.join(role.split())}: {text}" for role, text in chat(prompt))
        )
        # A text that contains its own hash cannot be found, so no text can close its delimiter.
        tag = hashlib.sha256("\0".join([conversation, *replies]).encode(errors="replace")).hexdigest()[:8]
        names = ("first", "second") if self._pairs else ("reply",)
        data = {"conversation": conversation, **dict(zip(names, replies, strict=True))}
        ids = list(self._start)
        text = ""
        for piece, is_slot in self._head:
            if piece in data and is_slot:
                ids += [*self._plain(text), *self._data(data[piece])]
                text = ""
            else:
                text += tag if is_slot else piece
        return (*ids, *self._plain(text))

    def _suffix(self, text: str, scale: tuple[int, int] | None) -> Ids:
        """Return the tokens of a criterion's text with its question, and of the rest of the chat template."""
        question = _BETTER if self._pairs else _MET if scale is None else _SCALE.format(low=scale[0], high=scale[1])
        return (*self._data(f"{text}\n{question}".rstrip("\n")), *self._tail)

    def _options(self, scale: tuple[int, int] | None) -> Options:
        """Return the answers yes and no, or the numbers of a scale.

        Raises:
            ConfigError: the tokenizer has no token for one of their symbols, or the scale has too many steps.
        """
        if scale is not None and scale[1] - scale[0] > MAX_STEPS:
            steps = scale[1] - scale[0]
            raise ConfigError(f"scale={scale} has {steps} steps; expected at most {MAX_STEPS}. Use a coarser scale")
        plain = _PAIR_ANSWERS if self._pairs else ("no", "yes")
        words = plain if scale is None else tuple(str(number) for number in range(scale[0], scale[1] + 1))
        whole = scale is None or all(self._tokens(word) for word in words)
        answers: tuple[Answer, ...] = tuple((word,) if whole else tuple(word) for word in words)
        nodes: dict[Answer, dict[str, Ids]] = {}
        for answer in answers:
            for i, symbol in enumerate(answer):
                # Only the first symbol may have white space before it: "1 0" is not 10.
                ids = self._tokens(symbol) if i == 0 else tuple(self._exact(symbol))
                if not ids:
                    raise ConfigError(
                        f"the tokenizer has no single token for {symbol!r}, which the answers to {scale=} "
                        "need. Use another model or scale"
                    )
                nodes.setdefault(answer[:i], {})[symbol] = ids
        written = {node: tuple(i for symbol in node for i in self._exact(symbol)[:1]) for node in nodes}
        return Options(answers, nodes, written)

    def _tokens(self, word: str) -> Ids:
        """Return the tokens for a word, in any case and with or without white space."""
        return tuple(
            i
            for piece, i in self._vocabulary.items()
            if word in piece.lower() and self._tokenizer.decode([i]).strip().lower() == word
        )

    def _exact(self, symbol: str) -> list[int]:
        return [self._vocabulary[symbol]] if symbol in self._vocabulary else []

    def _plain(self, text: str) -> Ids:
        return tuple(self._tokenizer(text, add_special_tokens=False).input_ids)

    def _data(self, text: str) -> Ids:
        # Special tokens are split even if the tokenizer treats them as words, such as <think> in Qwen's.
        text = harmless(text, self._own)
        ids = self._tokenizer(text, add_special_tokens=False, split_special_tokens=True).input_ids
        # Some tokenizers do not split all special tokens. The remaining ones are removed.
        return tuple(i for i in ids if i not in self._special)


def _own_tokens(tokenizer: Any) -> tuple[list[str], list[str]]:
    """Return the special tokens of a tokenizer, and the others that were added to its vocabulary."""
    added = tokenizer.added_tokens_decoder.values()
    return [token.content for token in added if token.special], [token.content for token in added if not token.special]
