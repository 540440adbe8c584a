"""A judge on this machine: any Hugging Face causal language model, read at the first token of its answer.

All criteria of a completion share one prompt up to the criterion. This prefix is computed once. The criteria are short
suffixes over its key-value cache, computed in batches::

    [instructions, conversation, reply]  [criterion 1, question]  -> p(yes), p(no)
                                         [criterion 2, question]  -> p(yes), p(no)

Completions are hostile. :mod:`rvpo.judges.local_prompt` documents how their text is kept from acting as instructions.
"""

from __future__ import annotations

import asyncio
import copy
import functools
import logging
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor
from transformers import AutoModelForCausalLM, AutoTokenizer
from transformers.utils import logging as transformers_logging

from rvpo.errors import ConfigError, JudgeError
from rvpo.forks import ForkedLock
from rvpo.judges.local_prompt import Answer, Ids, Options, PromptEncoder
from rvpo.judges.mixed import refuse_routed
from rvpo.judges.parsing import MIN_MASS
from rvpo.rewards.pairs import Pair
from rvpo.rewards.rubric.criteria import Criterion
from rvpo.rewards.rubric.verdict import Question, Verdict

VERDICTS = ("probability", "boolean")
DTYPES = ("float32", "bfloat16", "float16")

T = TypeVar("T")

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class _Row:
    """One suffix over the cache of a prefix, given by its index, and the groups of token ids that may follow."""

    prefix: int
    suffix: Ids
    groups: tuple[Ids, ...]


class LocalJudge:
    """Decides criteria by the probabilities that a model gives to "yes" and "no", or to the numbers of a scale.

    The model must accept ``position_ids`` and a key-value cache, as nearly all decoders of transformers do. Global
    state (threads, random numbers, default dtype) is not changed, because a policy may be training in the same process.
    """

    def __init__(
        self,
        model: Any,
        *,
        tokenizer: Any = None,
        device: str | None = None,
        dtype: str | None = None,
        verdict: str = "probability",
        max_length: int | None = None,
        batch_tokens: int = 8_192,
    ) -> None:
        """Load a model, or use a loaded one.

        Args:
            model: folder, hub id, or model object. An object is not moved or changed.
            tokenizer: tokenizer of a model object. Folders and hub ids have their own.
            device: device to load to; None is CUDA if available, else the CPU.
            dtype: one of ``DTYPES``. None is the checkpoint's dtype on CUDA, and float32 on the CPU, because many CPUs
                are slower in half precision.
            verdict: ``"probability"`` is p(yes) / (p(yes) + p(no)), or the expected position on the scale;
                ``"boolean"`` is the likeliest answer.
            max_length: maximum length of a prompt in tokens; None is the limit of the model's config. The verdict on a
                longer prompt is missing (``"too_long"``). Prompts are never truncated.
            batch_tokens: tokens of one forward pass, including those in the cache. Memory grows with it.

        Raises:
            ConfigError: an option cannot work, or the tokenizer cannot write the answers.
            JudgeError: the model cannot be loaded.
        """
        if verdict not in VERDICTS:
            raise ConfigError(f"verdict is {verdict!r}; expected one of {', '.join(VERDICTS)}")
        for name, value in (("batch_tokens", batch_tokens), ("max_length", max_length)):
            if value is not None and (type(value) is not int or value < 1):
                raise ConfigError(f"{name} is {value!r}; expected a whole number of at least 1")
        if isinstance(model, str | Path):
            if tokenizer is not None:
                raise ConfigError(f"tokenizer is given, but model={str(model)!r} has its own; leave tokenizer out")
            model, tokenizer = _load(str(model), device, dtype)
        elif tokenizer is None or device is not None or dtype is not None:
            raise ConfigError(
                f"model is a {type(model).__name__} with tokenizer={type(tokenizer).__name__}, {device=}, {dtype=}; "
                "expected its tokenizer, and neither device nor dtype. Move the model object yourself"
            )
        self._model = model
        self._boolean = verdict == "boolean"
        self._max_length = max_length or getattr(model.config.get_text_config(), "max_position_embeddings", None)
        self._batch_tokens = batch_tokens
        self._encoder, self._tokenizer = PromptEncoder(tokenizer), tokenizer
        self._lock = ForkedLock()
        self._logged = False
        keys = ("calls", "prompt_tokens", "cache_hits", "verdicts", "missing")
        self._totals = Counter(dict.fromkeys((*keys, "missing/too_long", "missing/malformed", "missing/judge"), 0))

    async def judge(self, questions: Sequence[Question]) -> list[list[Verdict]]:
        """Return one verdict per criterion of each question, in order. Identical questions are judged once.

        A verdict is missing if the prompt is longer than ``max_length`` (``"too_long"``), if the probability of all
        possible answers is below :data:`MIN_MASS` (``"malformed"``), or if the model fails even on this question alone
        (``"judge"``).

        Raises:
            ConfigError: the tokenizer cannot write the numbers of a scale.
        """
        return await asyncio.to_thread(self._judge, questions)

    async def compare(self, pairs: Sequence[Pair]) -> list[Verdict]:
        """Return one verdict per pair, in order; see :meth:`judge` and :class:`rvpo.rewards.pairs.PairJudge`."""
        return [verdict for (verdict,) in await asyncio.to_thread(self._judge, pairs)]

    def check_pairs(self) -> None:
        """Check that the tokenizer can write the answers A, B and C.

        Raises:
            ConfigError: it cannot.
        """
        _ = self._pair_encoder

    def check_criteria(self, criteria: Sequence[Criterion]) -> None:
        """Refuse criteria that another judge should decide. :class:`rvpo.judges.MixedJudge` sends each to its judge.

        Raises:
            ConfigError: a criterion has a rule, or names a judge.
        """
        refuse_routed(criteria)

    async def check(self) -> None:
        """Judge a short greeting.

        Raises:
            JudgeError: the model gives no verdict.
        """
        question = Question("Say hello.", "Hello!", (Criterion("greets", "The reply greets the user."),))
        verdict = (await self.judge([question]))[0][0]
        if verdict.value is None:
            raise JudgeError(
                f"the local judge gives no verdict on a greeting ({verdict.reason}: {verdict.detail}). Use a model "
                "that follows instructions, or see the log"
            )

    def usage(self) -> dict[str, float]:
        """Return totals since construction.

        The keys are ``calls`` (forward passes), ``prompt_tokens`` (computed by the model), ``verdicts``, ``missing``,
        ``missing/{reason}``, and ``cache_hits`` (repeated questions).
        """
        return {key: float(total) for key, total in self._totals.items()}

    @functools.cached_property
    def _pair_encoder(self) -> PromptEncoder:
        return PromptEncoder(self._tokenizer, pairs=True)

    def _judge(self, questions: Sequence[Question | Pair]) -> list[list[Verdict]]:
        with self._lock, torch.inference_mode(), _evaluating(self._model):
            prefixes: dict[Ids, int] = {}
            asked: list[list[tuple[Options, dict[Answer, _Row]]]] = []
            for question in questions:
                if isinstance(question, Pair):
                    encoder = self._pair_encoder
                    ids = encoder.prefix(question.prompt, question.first, question.second)
                    wanted: list[tuple[str, tuple[int, int] | None]] = [(question.question, None)]
                else:
                    encoder = self._encoder
                    ids = encoder.prefix(question.prompt, question.completion)
                    wanted = [(criterion.text, criterion.scale) for criterion in question.criteria]
                prefix = prefixes.setdefault(ids, len(prefixes))
                asked.append([_rows(encoder, prefix, text, scale) for text, scale in wanted])
            lengths = [len(ids) for ids in prefixes]
            rows = dict.fromkeys(row for line in asked for _, nodes in line for row in nodes.values())
            short = [row for row in rows if self._fits(lengths[row.prefix] + len(row.suffix))]
            read = self._read(list(prefixes), short)
            decided: dict[tuple[_Row, ...], Verdict] = {}
            result: list[list[Verdict]] = []
            for line in asked:
                result.append([])
                for options, nodes in line:
                    key = tuple(nodes.values())
                    if key in decided:
                        self._totals["cache_hits"] += 1
                    else:
                        longest = max(lengths[row.prefix] + len(row.suffix) for row in key)
                        decided[key] = self._verdict(options, nodes, read, longest)
                    result[-1].append(self._note(decided[key]))
            return result

    def _fits(self, length: int) -> bool:
        return self._max_length is None or length <= self._max_length

    def _verdict(
        self, options: Options, nodes: dict[Answer, _Row], read: dict[_Row, list[float]], length: int
    ) -> Verdict:
        if not self._fits(length):
            return Verdict.missing("too_long", f"{length} tokens; max_length is {self._max_length}")
        if not all(row in read for row in nodes.values()):
            return Verdict.missing("judge", "the model failed; see the log")
        symbols = {node: dict(zip(options.nodes[node], read[row], strict=True)) for node, row in nodes.items()}
        weights = options.probabilities(symbols)
        mass = sum(weights)
        if not mass >= MIN_MASS:  # NaN too
            return Verdict.missing("malformed", f"probability {mass:.2g} of all possible answers together")
        if self._boolean:
            place = float(max(range(len(weights)), key=weights.__getitem__))
        else:
            place = sum(i * weight for i, weight in enumerate(weights)) / mass
        return Verdict(min(1.0, place / (len(weights) - 1)))

    def _note(self, verdict: Verdict) -> Verdict:
        if verdict.reason is None:
            self._totals["verdicts"] += 1
        else:
            self._totals.update({"missing": 1, f"missing/{verdict.reason}": 1})
        return verdict

    def _read(self, prefixes: list[Ids], rows: list[_Row]) -> dict[_Row, list[float]]:
        """Return the probabilities of each row's groups. Rows on which the model fails are left out."""
        read: dict[_Row, list[float]] = {}
        rows_of: dict[int, list[_Row]] = {}
        for row in rows:
            rows_of.setdefault(row.prefix, []).append(row)

        def prefill(batch: list[int]) -> None:
            ids, mask = self._pad([prefixes[i] for i in batch], left=True)
            cache = self._forward(ids, mask, (mask.cumsum(1) - 1).clamp(min=0), None, 1).past_key_values
            waiting = [row for i in batch for row in rows_of[i]]
            for chunk in self._batches(waiting, lambda row: mask.shape[1] + len(row.suffix)):
                self._halving(chunk, lambda chunk: read.update(self._suffixes(chunk, batch, mask, cache)))

        for batch in self._batches(rows_of, lambda i: len(prefixes[i])):
            self._halving(batch, prefill)
        return read

    def _suffixes(self, rows: list[_Row], batch: list[int], mask: Tensor, cache: Any) -> dict[_Row, list[float]]:
        """Compute the suffixes (R, S) over the cache of the prefixes, which are padded on the left."""
        of = torch.tensor([batch.index(row.prefix) for row in rows], device=mask.device)
        ids, suffix_mask = self._pad([row.suffix for row in rows], left=False)
        last = suffix_mask.sum(1) - 1
        steps = torch.minimum(torch.arange(ids.shape[1], device=mask.device), last[:, None])
        positions = mask.sum(1)[of, None] + steps  # padding repeats the last position, so that none is out of range
        ends = torch.unique(last)
        selected = copy.copy(cache)
        selected.layers = [copy.copy(layer) for layer in cache.layers]
        selected.batch_select_indices(of)
        # Logits only at the ends of rows, because all (R, S, vocabulary) would be by far the largest tensor.
        logits = self._forward(ids, torch.cat([mask[of], suffix_mask], 1), positions, selected, ends).logits
        logits = logits[torch.arange(len(rows), device=mask.device), torch.searchsorted(ends, last)]
        tokens = sorted({token for row in rows for group in row.groups for token in group})
        column = {token: i for i, token in enumerate(tokens)}
        shares = logits.float().softmax(-1)[:, tokens].tolist()
        return {
            row: [sum(share[column[token]] for token in group) for group in row.groups]
            for row, share in zip(rows, shares, strict=True)
        }

    def _forward(self, ids: Tensor, mask: Tensor, positions: Tensor, cache: Any, keep: int | Tensor) -> Any:
        self._totals["calls"] += 1
        self._totals["prompt_tokens"] += int(mask[:, mask.shape[1] - ids.shape[1] :].sum())
        return self._model(
            input_ids=ids,
            attention_mask=mask,
            position_ids=positions,
            past_key_values=cache,
            use_cache=True,
            logits_to_keep=keep,
        )

    def _pad(self, sequences: list[Ids], *, left: bool) -> tuple[Tensor, Tensor]:
        """Return ids and mask (1 for a token), both (N, longest). The mask hides padding, so its ids do not matter."""
        longest = max(map(len, sequences))
        ids, mask = [], []
        for sequence in sequences:
            gap = [0] * (longest - len(sequence))
            ones = [1] * len(sequence)
            ids.append([*gap, *sequence] if left else [*sequence, *gap])
            mask.append(gap + ones if left else ones + gap)
        device = self._model.device
        return torch.tensor(ids, device=device), torch.tensor(mask, device=device)

    def _batches(self, items: Iterable[T], length: Callable[[T], int]) -> Iterator[list[T]]:
        """Yield batches of items of similar length, as large as ``batch_tokens`` permits with padding, at least one."""
        batch: list[T] = []
        for item in sorted(items, key=length):
            if batch and (len(batch) + 1) * length(item) > self._batch_tokens:
                yield batch
                batch = []
            batch.append(item)
        if batch:
            yield batch

    def _halving(self, items: list[T], work: Callable[[list[T]], None]) -> None:
        """Do the work. If it fails, for example without enough memory, halve it. Items that fail alone are left out."""
        try:
            work(items)
            return
        except Exception:
            if not self._logged:
                self._logged = True
                logger.exception(
                    "the local judge failed on a batch of %d; trying smaller batches. Further failures are not logged",
                    len(items),
                )
        if len(items) > 1:
            middle = len(items) // 2
            self._halving(items[:middle], work)
            self._halving(items[middle:], work)


def _rows(
    encoder: PromptEncoder, prefix: int, text: str, scale: tuple[int, int] | None
) -> tuple[Options, dict[Answer, _Row]]:
    """Return the possible answers to a question, and the rows that the model has to compute for them."""
    options, suffix = encoder.options(scale), encoder.suffix(text, scale)
    return options, {
        node: _Row(prefix, suffix + options.written[node], tuple(symbols.values()))
        for node, symbols in options.nodes.items()
    }


def _load(name: str, device: str | None, dtype: str | None) -> tuple[Any, Any]:
    device = device or ("cuda" if torch.cuda.is_available() else "cpu")
    if dtype is not None and dtype not in DTYPES:
        raise ConfigError(f"dtype is {dtype!r}; expected one of {', '.join(DTYPES)}")
    if not Path(name).expanduser().exists() and not re.fullmatch(r"[\w.-]+/[\w.-]+", name):
        raise JudgeError(
            f"the local judge's model is {name!r}; expected a folder that exists, or a hub id org/name. Check the path"
        )
    dtype = dtype or ("auto" if device.startswith("cuda") else "float32")
    transformers_logging.disable_progress_bar()  # the bar of loading weights; judging has its own
    try:
        tokenizer = AutoTokenizer.from_pretrained(name)
        model = AutoModelForCausalLM.from_pretrained(name, dtype=dtype).to(device).eval()
    except (OSError, ValueError, RuntimeError) as error:
        raise JudgeError(
            f"the local judge's model {name!r} cannot be loaded on {device}: {error}\nExpected a folder with a causal "
            "language model of transformers and its tokenizer, or a hub id"
        ) from error
    return model, tokenizer


@contextmanager
def _evaluating(model: Any) -> Iterator[None]:
    """Turn off dropout of a model that is being trained, and turn it on again afterwards."""
    training = [module for module in model.modules() if module.training]
    for module in training:
        module.training = False
    try:
        yield
    finally:
        for module in training:
            module.training = True
