"""``EndpointJudge``: verdicts from any OpenAI-compatible server, such as vLLM, llama.cpp, a gateway or OpenAI.

What a verdict survives on its way: a busy or broken server (retries, one pause for all on 429), a malformed answer
(asked again, warmer), a killed process (each verdict is on disk before it is used). What remains without an answer is
missing, with its reason; :meth:`EndpointJudge.judge` never raises for trouble of the server.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import logging
import os
import secrets
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import aclosing
from dataclasses import asdict, dataclass, field, replace
from functools import cache as once
from functools import partial
from typing import Any, TypeVar

from rvpo.errors import JudgeError
from rvpo.judges import healthbench, pairs
from rvpo.judges.asking import DIGEST, Inquiry, ask_one, ask_rubric, material
from rvpo.judges.cache import VerdictStore
from rvpo.judges.dialect import LIMITS, Dialect
from rvpo.judges.failures import perhaps_about_response_format
from rvpo.judges.mixed import refuse_routed
from rvpo.judges.options import AUTO, CHOICES, check_options
from rvpo.judges.parsing import MalformedError
from rvpo.judges.transport import Chat, ServerReply, TransportError, about_response_format
from rvpo.judges.usage import Usage
from rvpo.net import limits
from rvpo.net.loops import PerLoop
from rvpo.rewards.pairs import Pair
from rvpo.rewards.rubric.criteria import Criterion
from rvpo.rewards.rubric.texts import chat
from rvpo.rewards.rubric.verdict import Question, Verdict
from rvpo.text.quoting import quoted

logger = logging.getLogger(__name__)

T = TypeVar("T")  # what is asked about: a criterion, or a pair of replies

_KEY_VERSION = 1  # of what is hashed into a key
_WARMER = 0.5  # least temperature after a malformed answer: at 0 the same one would come again
SHOWN_CHARS = 200  # of a malformed answer
_CHECK_SECONDS = 10.0  # patience of check() with a server that does not even list its models


@dataclass(slots=True, eq=False)
class _Lane:
    """What belongs to one event loop: its client, its slots, and the verdicts that are on their way."""

    chat: Chat
    owner: AsyncGenerator[Chat]
    slots: asyncio.Semaphore
    pending: dict[bytes, asyncio.Future[Verdict | None]] = field(default_factory=dict)


class EndpointJudge:
    """Asks a server about each criterion, or about all criteria of a completion at once."""

    def __init__(
        self,
        *,
        model: str,
        base_url: str | None = None,
        api_key_env: str = "OPENAI_API_KEY",
        verdict: str = "boolean",
        ask: str = "criterion",
        structured: str = AUTO,
        system_role: bool = True,
        explain: bool = False,
        concurrency: int = 64,
        requests_per_minute: float | None = None,
        tokens_per_minute: float | None = None,
        timeout: float = 60.0,
        retries: int = 5,
        max_calls: int | None = None,
        max_tokens: int | None = None,
        prompt_price: float | None = None,
        completion_price: float | None = None,
        cache: str | None = None,
        temperature: float | str | None = AUTO,
        max_output_tokens: int | None = None,
        extra_body: Mapping[str, Any] | None = None,
        processes: int | None = None,
    ) -> None:
        """Open the cache; the server is not asked before :meth:`check` or :meth:`judge`.

        Args:
            model: the name under which the server knows the model.
            base_url: such as ``http://localhost:8000/v1``; None is OpenAI, or what ``OPENAI_BASE_URL`` says.
            api_key_env: NAME of the environment variable with the key, which is sent to ``base_url``. A server of your
                own needs none: where ``base_url`` is given and the variable is unset, a placeholder is sent.
            verdict: ``boolean`` (met or not), ``probability`` (of "yes" against "no" in the first token's logprobs; not
                for models that reason first), ``scale`` (a whole number from 1 to 10). A criterion with a ``scale`` of
                its own is always graded on that one. Grades are normalised to [0, 1].
            ask: ``criterion`` makes one call a criterion, whose common beginning the server's prefix cache serves;
                ``rubric`` makes one call for all criteria of a completion, whose answer must hold all of them;
                ``healthbench`` makes one call a criterion, the very request of HealthBench's own grader (see
                :mod:`rvpo.judges.healthbench`): the judge then sees the points, and less is done against completions
                that attack it.
            structured: how the form of the answer is enforced. ``auto`` begins with ``json_schema`` and steps down,
                once and for all, where the server rejects it; with ``ask=healthbench`` it is ``none``, as there.
            system_role: whether the model's chat template has one. A server that refuses it is understood; one that
                passes over a system turn without a word needs False: the text then stands before the user's.
            explain: ask for a short explanation before the verdict, with ``ask=criterion``; it becomes the verdict's
                ``detail``.
            concurrency: calls in flight, 1 to 1000. This and the two rates hold for the whole run: each of its
                ``processes`` takes an equal share (at least one call in flight).
            requests_per_minute: None is no limit.
            tokens_per_minute: prompt and completion, estimated before a call and corrected after it; None is no limit.
            timeout: seconds for one attempt.
            retries: further attempts for timeouts, lost connections, 408, 409, 429, 5xx and malformed answers (these
                at a temperature of at least 0.5). The wait is random up to 0.5 s, doubled each time up to 30 s, and no
                less than the server's Retry-After, up to 120 s.
            max_calls: budget over everything that was ever paid for through the cache file, by any process, or through
                this object where ``cache`` is None. Further questions are missing with the reason ``budget``. A call
                that may have been paid for (a lost connection, a killed process) counts.
            max_tokens: the same in prompt + completion tokens. No call starts once they are spent; those in flight end.
            prompt_price: of a million tokens, in any currency; ``cost`` is NaN where a price is None.
            completion_price: of a million tokens.
            cache: path of an SQLite file; verdicts in it are never asked again, and processes may share it.
            temperature: ``auto`` is 0, and 0.5 with ``ask=healthbench``; None leaves it to the server, for models that
                allow no other.
            max_output_tokens: of one answer; None is 512, and 16 more for each further criterion in it, or 2048 with
                ``ask=healthbench``. Models that reason need more. A probability always takes one.
            extra_body: further fields of a request, such as ``{"chat_template_kwargs": {"enable_thinking": false}}``.
            processes: how many processes of the run build such a judge; None is ``WORLD_SIZE``, else 1.

        Raises:
            ConfigError: an option or combination cannot work.
            JudgeError: the cache file cannot be used.
        """
        check_options(locals())
        prompts = DIGEST
        if ask == healthbench.ASK:
            healthbench.template()  # now, not at the first question
            prompts, structured = healthbench.TEMPLATE_DIGEST, "none" if structured == AUTO else structured
            temperature = healthbench.TEMPERATURE if temperature == AUTO else temperature
            max_output_tokens = max_output_tokens or healthbench.MAX_OUTPUT_TOKENS
        world = processes or max(1, int(os.environ.get("WORLD_SIZE") or 1))
        rates = (rate and rate / world for rate in (requests_per_minute, tokens_per_minute))
        self._model, self._base_url, self._api_key_env = model, base_url, api_key_env
        self._verdict, self._ask, self._explain = verdict, ask, explain
        self._forms = CHOICES["structured"][1:] if structured == AUTO else (structured,)
        self._form = 0  # which of them is in use
        self._form_answers = False  # whether an answer has come in it: then no failure is about it
        # OpenAI's newer models reject the old name of the limit, and many servers do not know the new one.
        self._dialect = Dialect(LIMITS[1] if base_url is None else LIMITS[0], system_role)
        self.refusal: str | None = None
        self._concurrency = max(1, concurrency // world)
        self._pace = limits.Pace(*rates)
        self._timeout, self._retries = timeout, retries
        budget = (max_calls, max_tokens)  # without a file, processes do not know what the others spend
        self._budget = budget if cache else tuple(most and most // world for most in budget)
        self._store, self._has_file = VerdictStore(cache), cache is not None
        self._usage = Usage(prompt_price, completion_price)
        self._temperature = 0.0 if isinstance(temperature, str) else temperature
        self._max_output_tokens, self._prompts = max_output_tokens, prompts
        self._extra = dict(extra_body or {})
        # Not the base_url: a model keeps its name and its verdicts when its server moves to another port or host.
        # Not the form of the answer either: it is found out on the way, and does not change the question.
        decides = [model, verdict, ask, explain, self._temperature, max_output_tokens, self._extra]
        self._settings = _digest(b"", [_KEY_VERSION, prompts, *decides])
        self._lanes = PerLoop(self._open_lane)
        self._warned: set[str] = set()

    async def judge(self, questions: Sequence[Question]) -> list[list[Verdict]]:
        """Return one verdict for each criterion of each question, in order; see :class:`Judge`.

        Raises:
            JudgeError: there is no key, or the cache file cannot be written (what is spent could not be counted).
        """
        lane = await self._lanes.get()
        try:
            async with asyncio.TaskGroup() as group:
                tasks = [group.create_task(self._question(lane, question)) for question in questions]
        except ExceptionGroup as errors:
            raise _first(errors) from None
        verdicts = [task.result() for task in tasks]
        for given in verdicts:
            self._usage.note(given)
        return verdicts

    async def compare(self, asked: Sequence[Pair]) -> list[Verdict]:
        """Return one verdict for each pair, in order; see :class:`rvpo.rewards.pairs.PairJudge`.

        Raises:
            ConfigError: see :meth:`check_pairs`.
            JudgeError: as of :meth:`judge`.
        """
        self.check_pairs()
        lane = await self._lanes.get()
        wanted = {self._pair_key(pair): pair for pair in asked}
        try:
            async with asyncio.TaskGroup() as group:
                tasks = [group.create_task(self._settle(lane, self._comparison, {k: p})) for k, p in wanted.items()]
        except ExceptionGroup as errors:
            raise _first(errors) from None
        found = {key: verdict for task in tasks for key, verdict in task.result().items()}
        verdicts = [found[self._pair_key(pair)] for pair in asked]
        self._usage.note(verdicts)
        return verdicts

    def check_pairs(self) -> None:
        """Raise ConfigError where ``verdict`` or ``ask`` do not fit a comparison of replies."""
        pairs.refuse_options(self._verdict, self._ask)

    def check_criteria(self, criteria: Sequence[Criterion]) -> None:
        """Refuse criteria that are for somebody else; :class:`rvpo.judges.MixedJudge` sends each to its judge.

        Raises:
            ConfigError: one has a rule, or names a judge; or a scale, with ``ask=healthbench``.
        """
        refuse_routed(criteria)
        if self._ask == healthbench.ASK:
            for criterion in criteria:
                healthbench.refuse_scale(criterion)

    def identity(self) -> dict[str, Any]:
        """Return what decides a verdict, as plain JSON for records: no server, key, limit or cache.

        ``extra_body``, which could hold anything, is there by its digest alone.
        """
        told = {
            "kind": "endpoint",
            "model": self._model,
            "ask": self._ask,
            "verdict": self._verdict,
            "explain": self._explain,
            "structured": self._forms[0] if len(self._forms) == 1 else AUTO,
            "temperature": self._temperature,
            "max_output_tokens": self._max_output_tokens,
            "prompts": self._prompts,
        }
        return told | ({"extra_body": _digest(b"", [self._extra]).hex()} if self._extra else {})

    async def check(self) -> None:
        """List the server's models and ask one small question, which is answered from the cache the next time.

        Takes no more than 10 s, or ``timeout`` if that is less, to find that a server is down.

        Raises:
            JudgeError: no key, no server, a key or model that it does not know, or no logprobs where they are needed.
        """
        names: list[str] = []
        patience = min(self._timeout, _CHECK_SECONDS)
        async with aclosing(Chat.open(self._base_url, self._api_key_env, patience)) as owner:
            chat = await anext(owner)
            try:
                names = await chat.models()
            except TransportError as failure:
                if failure.status in (401, 403):
                    raise JudgeError(f"{chat.url}: {failure.detail}: export the right one") from None
                if failure.ends:
                    raise JudgeError(f"{chat.url}: {failure.detail}: pay, or name another server") from None
                if failure.reason in ("connection", "timeout"):
                    step = "start the server, or correct base_url"
                    raise JudgeError(f"no judge at {chat.url}: {failure.detail}; {step}") from None
                # Anything else may be a server without such a list, or a busy one: the question will tell.
        # Some gateways serve more than they list; whether this one does is asked anew each time.
        completion = "Paris." if self._model in names else f"Paris. {secrets.token_hex(4)}"
        criterion = Criterion("check", "The reply names Paris.")
        calls = self._usage.totals()["calls"]
        [[verdict]] = await self.judge([Question("What is the capital of France?", completion, (criterion,))])
        if verdict.reason is not None:
            self._explain_check(verdict, chat.url, names, self._usage.totals()["calls"] > calls)

    def usage(self) -> dict[str, float]:
        """Return totals since construction, and under ``all/…`` of everything paid for through the cache file.

        The keys are those of :data:`rvpo.judges.usage.COUNTS`, ``missing/{reason}`` for each reason, ``cost``, and
        where there is a file ``all/calls``, ``all/prompt_tokens``, ``all/completion_tokens`` and ``all/cost``.
        """
        if not self._has_file:
            return self._usage.totals()
        spent = self._store.spent()
        total = {f"all/{key}": float(value) for key, value in asdict(spent).items()}
        total["all/cost"] = self._usage.cost(spent.prompt_tokens, spent.completion_tokens)
        return self._usage.totals() | total

    async def _open_lane(self) -> _Lane:
        owner = Chat.open(self._base_url, self._api_key_env, self._timeout)
        return _Lane(await anext(owner), owner, asyncio.Semaphore(self._concurrency))

    async def _question(self, lane: _Lane, question: Question) -> list[Verdict]:
        prompt = [list(turn) for turn in chat(question.prompt)]
        base = _digest(self._settings, [prompt, question.completion, *[question.repeat] * (question.repeat > 0)])
        points = self._ask == healthbench.ASK  # whether the judge is shown them
        keys = [_digest(base, [c.text, c.scale, *[c.points] * points]) for c in question.criteria]
        wanted = dict(zip(keys, question.criteria, strict=True))  # a criterion that stands twice is asked once
        shown = once(partial(material, question.prompt, question.completion))  # the same for all criteria
        inquiry = partial(self._inquiry, question, shown=shown)
        if self._ask == "rubric":
            found = await self._settle(lane, inquiry, wanted)
        else:
            async with asyncio.TaskGroup() as group:
                tasks = [group.create_task(self._settle(lane, inquiry, {key: wanted[key]})) for key in wanted]
            found = {key: verdict for task in tasks for key, verdict in task.result().items()}
        return [found[key] for key in keys]

    def _pair_key(self, pair: Pair) -> bytes:
        prompt = [list(turn) for turn in chat(pair.prompt)]
        asked = [prompt, pair.first, pair.second, pair.question, *[pair.repeat] * (pair.repeat > 0)]
        return _digest(self._settings, ["pair", pairs.DIGEST, *asked])

    def _comparison(self, asked: tuple[Pair, ...]) -> Inquiry:
        return pairs.ask_pair(asked[0], verdict=self._verdict, explain=self._explain)

    async def _settle(
        self, lane: _Lane, inquiry: Callable[[tuple[T, ...]], Inquiry], wanted: Mapping[bytes, T]
    ) -> dict[bytes, Verdict]:
        """Return the verdict under each key: stored, on its way for somebody else, or by a call of our own."""
        found: dict[bytes, Verdict] = {}
        while open_keys := [key for key in wanted if key not in found]:
            theirs: dict[bytes, asyncio.Future[Verdict | None]] = {}
            mine: dict[bytes, T] = {}
            known = {key: verdict for key in open_keys if (verdict := self._store.get(key))}
            found |= known
            self._usage.add(cache_hits=len(known))
            for key in (key for key in open_keys if key not in known):
                if key in lane.pending:
                    theirs[key] = lane.pending[key]
                else:
                    lane.pending[key] = asyncio.get_running_loop().create_future()
                    mine[key] = wanted[key]
            if mine:
                found |= await self._own(lane, inquiry, mine)
            for key, future in theirs.items():
                if verdict := await asyncio.shield(future):  # None where their task was cancelled: ask ourselves
                    found[key] = verdict
                    self._usage.add(cache_hits=verdict.value is not None)
        return found

    async def _own(
        self, lane: _Lane, inquiry: Callable[[tuple[T, ...]], Inquiry], mine: Mapping[bytes, T]
    ) -> dict[bytes, Verdict]:
        verdicts: dict[bytes, Verdict] = {}
        try:
            verdicts = await self._ask_until(lane, inquiry(tuple(mine.values())), tuple(mine))
        finally:
            for key in mine:
                lane.pending.pop(key).set_result(verdicts.get(key))
        return verdicts

    def _inquiry(
        self, question: Question, criteria: tuple[Criterion, ...], shown: Callable[[], str] | None = None
    ) -> Inquiry:
        """Return what is asked about criteria; ``shown`` gives the beginning of the prompt, if it is made already."""
        if self._ask == healthbench.ASK:
            return healthbench.ask_item(question.prompt, question.completion, criteria[0])
        begin = material(question.prompt, question.completion) if shown is None else shown()
        if self._ask == "rubric":
            return ask_rubric(begin, question.completion, criteria, verdict=self._verdict)
        return ask_one(begin, question.completion, criteria[0], verdict=self._verdict, explain=self._explain)

    async def _ask_until(self, lane: _Lane, inquiry: Inquiry, keys: tuple[bytes, ...]) -> dict[bytes, Verdict]:
        """Ask until there is an answer, or nothing is left to try: then all are missing, for the last reason."""
        temperature, form = self._temperature, 0
        for attempt in range(self._retries + 1):
            try:
                return await self._call(lane, inquiry, keys, temperature, form)
            except TransportError as error:
                failure = error
            except MalformedError as error:  # the same again unless asked warmer; logprobs stay the same even then
                failure = TransportError("malformed", str(error), again=not inquiry.by_logprobs)
                temperature = None if temperature is None else max(temperature, _WARMER)
            wait = limits.backoff(attempt)
            if failure.wait is not None or failure.reason == "rate_limit":
                self._pace.pause(wait if failure.wait is None else failure.wait)
            if not failure.again or attempt == self._retries:
                break
            if attempt > 0 and self._may_be_the_form(failure, inquiry, form):  # twice: a 500 may have any cause
                form += 1
            await limits.sleep(wait)
            self._usage.add(retries=1)
        if failure.reason not in self._warned:
            self._warned.add(failure.reason)
            logger.warning("judge %s: first verdict missing (%s): %s", self._model, failure.reason, failure.detail)
        return dict.fromkeys(keys, Verdict.missing(failure.reason, failure.detail))

    async def _call(
        self, lane: _Lane, inquiry: Inquiry, keys: tuple[bytes, ...], temperature: float | None, form: int
    ) -> dict[bytes, Verdict]:
        """Ask once, in the best form of answer that the server knows, and store the verdicts.

        Args:
            lane: of the running loop.
            inquiry: what is asked.
            keys: of the verdicts.
            temperature: None leaves it to the server.
            form: the first form of answer to try. An answer shows that it was the earlier form that failed.
        """
        estimate = sum(len(message["content"]) for message in inquiry.messages) // 4  # characters a token
        while True:
            sent: dict[str, Any] = {}
            try:
                async with lane.slots:
                    await self._pace.start(estimate)
                    form = max(form, self._form)  # as late as possible: others may have found out meanwhile
                    sent = self._dialect.spelled(self._body(inquiry, self._forms[form], temperature))
                    answer = await self._paid(lane.chat, sent)
            except TransportError as failure:
                if sent and self._dialect.learns(failure, sent):
                    continue
                has_next = form + 1 < len(self._forms) and not inquiry.by_logprobs
                if has_next and about_response_format(failure):
                    form = self._form = max(self._form, form + 1)  # many may find this out at once: one step for all
                    continue
                if not failure.again and self._may_be_the_form(failure, inquiry, form):
                    form += 1
                    continue
                raise
            verdicts = self._read(lane.chat, inquiry, keys, answer, estimate, form)
            if verdicts is None:
                form += 1
                continue
            if form == self._form:
                self._form_answers = True
            elif not self._form_answers:
                self._form = form
            return verdicts

    def _may_be_the_form(self, failure: TransportError, inquiry: Inquiry, form: int) -> bool:
        """Tell whether a question is worth asking in the next form, because no answer has ever come in this one."""
        has_next = form + 1 < len(self._forms) and not inquiry.by_logprobs
        return has_next and not self._form_answers and perhaps_about_response_format(failure)

    def _read(
        self, chat: Chat, inquiry: Inquiry, keys: tuple[bytes, ...], answer: ServerReply, estimate: int, form: int
    ) -> dict[bytes, Verdict] | None:
        """Count an answer and store its verdicts; None where the form may have emptied it and another one is left.

        Raises:
            TransportError: the model declined.
            MalformedError: the answer holds no verdict.
        """
        self._pace.settle(estimate, answer.prompt_tokens + answer.completion_tokens)
        self._usage.add(
            prompt_tokens=answer.prompt_tokens,
            cached_prompt_tokens=answer.cached_tokens,
            completion_tokens=answer.completion_tokens,
        )
        verdicts: dict[bytes, Verdict] = {}
        try:
            if answer.refused:
                raise TransportError("refused", "the model, or a filter before it, declined to answer")
            if not inquiry.by_logprobs and not (answer.text or "").strip():
                if answer.finish == "length" or answer.thought:
                    raise MalformedError("no answer after the model's thoughts: raise max_output_tokens")
                if form + 1 < len(self._forms) and not self._form_answers:
                    return None
            found = [_without_key(verdict, chat) for verdict in inquiry.read(answer)]
            verdicts = dict(zip(keys, found, strict=True))
        except MalformedError as error:
            shown = quoted(chat.scrubbed(answer.text or ""), SHOWN_CHARS)
            raise MalformedError(f"{chat.scrubbed(str(error))}, in {shown}") from None
        finally:
            self._store.end_call(verdicts, answer.prompt_tokens, answer.completion_tokens)
        return verdicts

    async def _paid(self, chat: Chat, body: dict[str, Any]) -> ServerReply:
        """Make one call within the budget; it is counted before it is made, so that a kill forgets none."""
        if not self._store.begin_call(*self._budget):
            spent = self._store.spent()
            tokens = spent.prompt_tokens + spent.completion_tokens
            raise TransportError(
                "budget", f"{spent.calls} calls and {tokens} tokens are spent: raise max_calls or max_tokens"
            )
        self._usage.add(calls=1)
        try:
            return await chat.complete(body)
        except TransportError as failure:
            if failure.ends:
                self.refusal = failure.detail
            if failure.free:
                self._store.undo_call()
                self._usage.add(calls=-1)
            raise

    def _body(self, inquiry: Inquiry, form: str, temperature: float | None) -> dict[str, Any]:
        tokens = self._max_output_tokens or 512 + 16 * (len(inquiry.keys) - 1)
        body: dict[str, Any] = {"model": self._model, "messages": inquiry.messages, **inquiry.fields(form)}
        body[LIMITS[0]] = 1 if inquiry.by_logprobs else tokens
        if temperature is not None:
            body["temperature"] = temperature
        return body | self._extra

    def _explain_check(self, verdict: Verdict, url: str, names: list[str], answered: bool) -> None:
        """Raise what a failed question means, or warn where it may be chance, because a model has answered."""
        seen = f"judge {self._model!r} at {url}: {verdict.reason}: {verdict.detail}"
        if verdict.reason == "rejected" and names and self._model not in names:
            raise JudgeError(f"{seen}; expected the models that the server has: {', '.join(names[:20])}")
        if self._verdict == "probability" and verdict.reason in ("rejected", "malformed"):
            raise JudgeError(
                f"{seen}; a probability needs yes or no as first token, with logprobs: use verdict='boolean'"
            )
        if verdict.reason not in ("malformed", "refused", "budget") or not (answered or verdict.reason == "budget"):
            raise JudgeError(f"{seen}; try the same request by hand, or name another model or server")
        logger.warning("%s; if this happens often, name another model or another structured", seen)


def _without_key(verdict: Verdict, chat: Chat) -> Verdict:
    """Return a verdict whose explanation, which is kept, does not repeat the key."""
    return verdict if verdict.detail is None else replace(verdict, detail=chat.scrubbed(verdict.detail))


def _digest(base: bytes, values: list[Any]) -> bytes:
    return hashlib.sha256(base + json.dumps(values, sort_keys=True).encode()).digest()


def _first(error: Exception) -> Exception:
    """Return the first exception that is no group; tasks within tasks wrap theirs several times."""
    while isinstance(error, ExceptionGroup):
        error = error.exceptions[0]
    return error
