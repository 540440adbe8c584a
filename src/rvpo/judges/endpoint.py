"""``EndpointJudge``: verdicts from any OpenAI-compatible server, such as vLLM, llama.cpp, a gateway or OpenAI.

A verdict survives a busy or broken server (retries, and one pause for all calls on status 429), a malformed answer (the
question is repeated at a higher temperature), and a killed process (each verdict is on disk before it is used). If all
attempts fail, the verdict is missing, with its reason. :meth:`EndpointJudge.judge` never raises because of the server.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import logging
import os
import secrets
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import aclosing, suppress
from dataclasses import asdict, dataclass, field, replace
from functools import cache as once
from functools import partial
from typing import Any, TypeVar

from rvpo.errors import JudgeError
from rvpo.judges import healthbench, pairs
from rvpo.judges.askers import new_name
from rvpo.judges.asking import DIGEST, Inquiry, ask_one, ask_rubric, material
from rvpo.judges.cache import RENEWAL, VerdictStore
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

T = TypeVar("T")  # subject of a question: a criterion, or a pair of replies

_KEY_VERSION = 1  # version of the cache keys
_WARMER = 0.5  # minimum temperature after a malformed answer, because at 0 the same answer would come again
SHOWN_CHARS = 200  # characters of a malformed answer in a message
_CHECK_SECONDS = 10.0  # time limit of check() for a server to list its models
_LOOK = (0.05, 1.0)  # seconds between two checks for a verdict that another process asks for: first, and longest


@dataclass(slots=True, eq=False)
class _Lane:
    """What belongs to one event loop: its client, its slots, and the verdicts in flight."""

    chat: Chat
    owner: AsyncGenerator[Chat]
    slots: asyncio.Semaphore
    pending: dict[bytes, asyncio.Future[Verdict | None]] = field(default_factory=dict)
    name: str = field(default_factory=new_name)
    renewal: asyncio.Task[None] | None = None


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
        """Open the cache. The server is not asked before :meth:`check` or :meth:`judge`.

        Args:
            model: name of the model on the server.
            base_url: URL of the server, such as ``http://localhost:8000/v1``; None is the value of ``OPENAI_BASE_URL``,
                or else OpenAI's URL.
            api_key_env: NAME of the environment variable with the key, which is sent to ``base_url``. Your own server
                may need no key: if ``base_url`` is given and the variable is not set, a placeholder is sent.
            verdict: ``boolean`` (met or not), ``probability`` (of "yes" against "no" in the first token's logprobs; not
                for models that reason first), or ``scale`` (a whole number from 1 to 10). A criterion with its own
                ``scale`` is always graded on that scale. Grades are normalised to [0, 1].
            ask: ``criterion`` makes one call per criterion. Their prompts have the same beginning, so the server's
                prefix cache is used. ``rubric`` makes one call for all criteria of a completion, whose answer must
                contain all verdicts. ``healthbench`` makes one call per criterion, with exactly the request of
                HealthBench's own grader (see :mod:`rvpo.judges.healthbench`). The judge then sees the points, and is
                protected less against completions that attack it.
            structured: how the form of the answer is enforced. ``auto`` begins with ``json_schema``. If the server
                rejects it, the next simpler form is used from then on. With ``ask=healthbench``, it is ``none``, as in
                the reference.
            system_role: whether the model's chat template has a system role. A server that rejects it is detected. Set
                False for a server that silently ignores system messages: the text is then put before the user's.
            explain: ask for a short explanation before the verdict, with ``ask=criterion``. It becomes the verdict's
                ``detail``.
            concurrency: number of calls in flight, 1 to 1000. This and the two rates hold for the whole run: each of
                its ``processes`` gets an equal share (at least one call in flight).
            requests_per_minute: maximum number of requests per minute; None is unlimited.
            tokens_per_minute: maximum number of prompt and completion tokens per minute, estimated before a call and
                corrected after it; None is unlimited.
            timeout: time limit per attempt, in seconds.
            retries: number of further attempts after timeouts, lost connections, status 408, 409, 429, 5xx and
                malformed answers (these at a temperature of at least 0.5). The wait is random up to 0.5 s, doubled each
                time up to 30 s, and not less than the server's Retry-After, up to 120 s.
            max_calls: maximum number of calls that are ever paid for through the cache file, by any process, or through
                this object if ``cache`` is None. Further verdicts are missing, with the reason ``budget``. A call that
                may have been paid for (a lost connection, a killed process) counts.
            max_tokens: the same for prompt + completion tokens. After they are spent, no call starts, but calls in
                flight end.
            prompt_price: price per million prompt tokens, in any currency. If a price is None, ``cost`` is NaN.
            completion_price: price per million completion tokens.
            cache: path of an SQLite file. You never pay twice for verdicts in it, and processes may share it: while one
                of them asks, the others wait for its answer.
            temperature: sampling temperature. ``auto`` is 0, and 0.5 with ``ask=healthbench``. None sends none, for
                models that accept only their default.
            max_output_tokens: maximum length of an answer in tokens. None is 512, plus 16 for each further criterion in
                it, or 2048 with ``ask=healthbench``. Models that reason need more. A probability always needs one.
            extra_body: further fields of a request, such as ``{"chat_template_kwargs": {"enable_thinking": false}}``.
            processes: number of processes of the run that build such a judge; None is ``WORLD_SIZE``, or 1.

        Raises:
            ConfigError: an option or combination cannot work.
            JudgeError: the cache file cannot be used.
        """
        check_options(locals())
        prompts = DIGEST
        if ask == healthbench.ASK:
            healthbench.template()  # checked now, rather than at the first question
            prompts, structured = healthbench.TEMPLATE_DIGEST, "none" if structured == AUTO else structured
            temperature = healthbench.TEMPERATURE if temperature == AUTO else temperature
            max_output_tokens = max_output_tokens or healthbench.MAX_OUTPUT_TOKENS
        world = processes or max(1, int(os.environ.get("WORLD_SIZE") or 1))
        rates = (rate and rate / world for rate in (requests_per_minute, tokens_per_minute))
        self._model, self._base_url, self._api_key_env = model, base_url, api_key_env
        self._verdict, self._ask, self._explain = verdict, ask, explain
        self._forms = CHOICES["structured"][1:] if structured == AUTO else (structured,)
        self._form = 0  # index of the form in use
        self._form_answers = False  # whether an answer came in this form; then failures have other causes
        # OpenAI's newer models reject the old name of the limit, and many servers do not support the new one.
        self._dialect = Dialect(LIMITS[1] if base_url is None else LIMITS[0], system_role)
        self.refusal: str | None = None
        self._concurrency = max(1, concurrency // world)
        self._pace = limits.Pace(*rates)
        self._timeout, self._retries = timeout, retries
        budget = (max_calls, max_tokens)  # without a file, processes do not know the spending of the others
        self._budget = budget if cache else tuple(most and most // world for most in budget)
        self._store, self._has_file = VerdictStore(cache), cache is not None
        self._usage = Usage(prompt_price, completion_price)
        self._temperature = 0.0 if isinstance(temperature, str) else temperature
        self._max_output_tokens, self._prompts = max_output_tokens, prompts
        self._extra = dict(extra_body or {})
        # Without base_url: a model keeps its name and its verdicts if its server moves to another port or host.
        # Without the form of the answer: it is found during the run, and does not change the question.
        decides = [model, verdict, ask, explain, self._temperature, max_output_tokens, self._extra]
        self._settings = _digest(b"", [_KEY_VERSION, prompts, *decides])
        self._lanes = PerLoop(self._open_lane)
        self._warned: set[str] = set()

    async def judge(self, questions: Sequence[Question]) -> list[list[Verdict]]:
        """Return one verdict per criterion of each question, in order; see :class:`Judge`.

        Raises:
            JudgeError: the key is absent, or the cache file cannot be written, so that spending cannot be counted.
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
        """Return one verdict per pair, in order; see :class:`rvpo.rewards.pairs.PairJudge`.

        Raises:
            ConfigError: see :meth:`check_pairs`.
            JudgeError: see :meth:`judge`.
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
        """Check that ``verdict`` and ``ask`` fit a comparison of replies.

        Raises:
            ConfigError: they do not.
        """
        pairs.refuse_options(self._verdict, self._ask)

    def check_criteria(self, criteria: Sequence[Criterion]) -> None:
        """Refuse criteria that another judge should decide. :class:`rvpo.judges.MixedJudge` sends each to its judge.

        Raises:
            ConfigError: a criterion has a rule or names a judge, or has a scale with ``ask=healthbench``.
        """
        refuse_routed(criteria)
        if self._ask == healthbench.ASK:
            for criterion in criteria:
                healthbench.refuse_scale(criterion)

    def identity(self) -> dict[str, Any]:
        """Return everything that decides a verdict, as plain JSON for records, without server, key, limits and cache.

        ``extra_body``, which could contain anything, is replaced by its digest.
        """
        decisive = {
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
        return decisive | ({"extra_body": _digest(b"", [self._extra]).hex()} if self._extra else {})

    async def check(self) -> None:
        """List the server's models, and ask one small question. The next time, the cache answers it.

        If the server is down, this takes at most 10 s, or ``timeout`` if that is less.

        Raises:
            JudgeError: the key is absent or rejected, the server does not answer, it does not have the model, or it
                does not return logprobs although they are needed.
        """
        names: list[str] = []
        patience = min(self._timeout, _CHECK_SECONDS)
        async with aclosing(Chat.open(self._base_url, self._api_key_env, patience)) as owner:
            chat = await anext(owner)
            try:
                names = await chat.models()
            except TransportError as failure:
                if failure.status in (401, 403):
                    raise JudgeError(f"{chat.url}: {failure.detail}. Export the right key") from None
                if failure.ends:
                    raise JudgeError(f"{chat.url}: {failure.detail}. Add credit, or choose another server") from None
                if failure.reason in ("connection", "timeout"):
                    step = "Start the server, or correct base_url"
                    raise JudgeError(f"no judge at {chat.url}: {failure.detail}. {step}") from None
                # Other servers may have no such list, or be busy. The question below shows it.
        # Some gateways serve models that they do not list. For these, the question is new each time.
        completion = "Paris." if self._model in names else f"Paris. {secrets.token_hex(4)}"
        criterion = Criterion("check", "The reply names Paris.")
        calls = self._usage.totals()["calls"]
        [[verdict]] = await self.judge([Question("What is the capital of France?", completion, (criterion,))])
        if verdict.reason is not None:
            self._explain_check(verdict, chat.url, names, self._usage.totals()["calls"] > calls)

    def usage(self) -> dict[str, float]:
        """Return totals since construction, and under ``all/…`` totals of everything paid for through the cache file.

        The keys are those of :data:`rvpo.judges.usage.COUNTS`, ``missing/{reason}`` for each reason, and ``cost``. With
        a file, there are also ``all/calls``, ``all/prompt_tokens``, ``all/completion_tokens`` and ``all/cost``.
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
        points = self._ask == healthbench.ASK  # whether the judge sees the points
        keys = [_digest(base, [c.text, c.scale, *[c.points] * points]) for c in question.criteria]
        wanted = dict(zip(keys, question.criteria, strict=True))  # equal criteria are asked once
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
        """Return the verdict under each key: from the store, from another question's call in flight, or by a call."""
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
                if verdict := await asyncio.shield(future):  # None if their task was cancelled: then ask here
                    found[key] = verdict
                    self._usage.add(cache_hits=verdict.value is not None)
        return found

    async def _own(
        self, lane: _Lane, inquiry: Callable[[tuple[T, ...]], Inquiry], mine: Mapping[bytes, T]
    ) -> dict[bytes, Verdict]:
        verdicts: dict[bytes, Verdict] = {}
        try:
            verdicts = await self._claimed(lane, inquiry, mine)
        finally:
            for key in mine:
                lane.pending.pop(key).set_result(verdicts.get(key))
        return verdicts

    async def _claimed(
        self, lane: _Lane, inquiry: Callable[[tuple[T, ...]], Inquiry], mine: Mapping[bytes, T]
    ) -> dict[bytes, Verdict]:
        """Ask what no other process is asking at this moment, and wait for the verdicts that another one asks for."""
        verdicts: dict[bytes, Verdict] = {}
        wait, longest = _LOOK
        while open_keys := [key for key in mine if key not in verdicts]:
            claimed = self._store.claim(open_keys, lane.name)
            if claimed:
                if lane.renewal is None or lane.renewal.done():
                    lane.renewal = asyncio.create_task(self._renew(lane))
                try:
                    verdicts |= await self._ask_until(
                        lane, inquiry(tuple(mine[key] for key in claimed)), tuple(claimed)
                    )
                finally:
                    self._store.release(claimed, lane.name)
                continue
            known = {key: verdict for key in open_keys if (verdict := self._store.get(key))}
            self._usage.add(cache_hits=len(known))
            verdicts |= known
            if not known:
                await asyncio.sleep(wait)
                wait = min(2 * wait, longest)
        return verdicts

    async def _renew(self, lane: _Lane) -> None:
        """Keep the claims of this loop from lapsing while anything is being asked."""
        with suppress(JudgeError):  # the next use of the file raises it where somebody waits
            while lane.pending:
                self._store.renew(lane.name)
                await asyncio.sleep(RENEWAL)

    def _inquiry(
        self, question: Question, criteria: tuple[Criterion, ...], shown: Callable[[], str] | None = None
    ) -> Inquiry:
        """Return the call about criteria. ``shown`` returns the beginning of the prompt, if it exists already."""
        if self._ask == healthbench.ASK:
            return healthbench.ask_item(question.prompt, question.completion, criteria[0])
        begin = material(question.prompt, question.completion) if shown is None else shown()
        if self._ask == "rubric":
            return ask_rubric(begin, question.completion, criteria, verdict=self._verdict)
        return ask_one(begin, question.completion, criteria[0], verdict=self._verdict, explain=self._explain)

    async def _ask_until(self, lane: _Lane, inquiry: Inquiry, keys: tuple[bytes, ...]) -> dict[bytes, Verdict]:
        """Ask until an answer comes. If all attempts fail, all verdicts are missing, with the last reason."""
        temperature, form = self._temperature, 0
        for attempt in range(self._retries + 1):
            try:
                return await self._call(lane, inquiry, keys, temperature, form)
            except TransportError as error:
                failure = error
            except MalformedError as error:  # a higher temperature may give another answer, but not other logprobs
                failure = TransportError("malformed", str(error), again=not inquiry.by_logprobs)
                temperature = None if temperature is None else max(temperature, _WARMER)
            wait = limits.backoff(attempt)
            if failure.wait is not None or failure.reason == "rate_limit":
                self._pace.pause(wait if failure.wait is None else failure.wait)
            if not failure.again or attempt == self._retries:
                break
            if attempt > 0 and self._may_be_the_form(failure, inquiry, form):  # after two: a 500 has many causes
                form += 1
            await limits.sleep(wait)
            self._usage.add(retries=1)
        if failure.reason not in self._warned:
            self._warned.add(failure.reason)
            logger.warning(
                "judge %s: a verdict is missing (%s, warned once): %s", self._model, failure.reason, failure.detail
            )
        return dict.fromkeys(keys, Verdict.missing(failure.reason, failure.detail))

    async def _call(
        self, lane: _Lane, inquiry: Inquiry, keys: tuple[bytes, ...], temperature: float | None, form: int
    ) -> dict[bytes, Verdict]:
        """Ask once, in the best form of answer that the server supports, and store the verdicts.

        Args:
            lane: lane of the running loop.
            inquiry: the call.
            keys: keys of the verdicts.
            temperature: sampling temperature; None leaves it to the server.
            form: index of the first form of answer to try. If it answers, an earlier form was the cause of failures.
        """
        estimate = sum(len(message["content"]) for message in inquiry.messages) // 4  # four characters per token
        while True:
            sent: dict[str, Any] = {}
            try:
                async with lane.slots:
                    await self._pace.start(estimate)
                    form = max(form, self._form)  # as late as possible, because other calls may have learned it
                    sent = self._dialect.spelled(self._body(inquiry, self._forms[form], temperature))
                    answer = await self._paid(lane.chat, sent)
            except TransportError as failure:
                if sent and self._dialect.learns(failure, sent):
                    continue
                has_next = form + 1 < len(self._forms) and not inquiry.by_logprobs
                if has_next and about_response_format(failure):
                    form = self._form = max(self._form, form + 1)  # one step, even if many calls fail at once
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
        """Return whether to try the next form, because no answer has ever come in this one."""
        has_next = form + 1 < len(self._forms) and not inquiry.by_logprobs
        return has_next and not self._form_answers and perhaps_about_response_format(failure)

    def _read(
        self, chat: Chat, inquiry: Inquiry, keys: tuple[bytes, ...], answer: ServerReply, estimate: int, form: int
    ) -> dict[bytes, Verdict] | None:
        """Count an answer and store its verdicts.

        Return None if the answer is empty, perhaps because of its form, and another form is left.

        Raises:
            TransportError: the model declined.
            MalformedError: the answer contains no verdict.
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
                    raise MalformedError("no answer after the model's thoughts; raise max_output_tokens")
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
        """Make one call within the budget. It is counted before it is made, so that a killed process loses no call."""
        if not self._store.begin_call(*self._budget):
            spent = self._store.spent()
            tokens = spent.prompt_tokens + spent.completion_tokens
            raise TransportError(
                "budget", f"{spent.calls} calls and {tokens} tokens are spent; raise max_calls or max_tokens"
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
        """Raise the error that explains a failed check. If the model answered, it may be chance, so only warn."""
        seen = f"judge {self._model!r} at {url}: {verdict.reason}: {verdict.detail}"
        if verdict.reason == "rejected" and names and self._model not in names:
            raise JudgeError(f"{seen}; expected one of the models that the server has: {', '.join(names[:20])}")
        if self._verdict == "probability" and verdict.reason in ("rejected", "malformed"):
            raise JudgeError(
                f"{seen}; a probability needs yes or no as the first token, with logprobs. Use verdict='boolean'"
            )
        if verdict.reason in ("rate_limit", "server", "timeout", "connection"):
            raise JudgeError(
                f"{seen}; expected an answer. Repeat the command when the server is less busy, or raise retries"
            )
        if verdict.reason not in ("malformed", "refused", "budget") or not (answered or verdict.reason == "budget"):
            raise JudgeError(f"{seen}. Try the same request by hand, or choose another model or server")
        logger.warning("%s. If this happens often, choose another model or another value of structured", seen)


def _without_key(verdict: Verdict, chat: Chat) -> Verdict:
    """Return a verdict without the key in its explanation, which is stored."""
    return verdict if verdict.detail is None else replace(verdict, detail=chat.scrubbed(verdict.detail))


def _digest(base: bytes, values: list[Any]) -> bytes:
    return hashlib.sha256(base + json.dumps(values, sort_keys=True).encode()).digest()


def _first(error: Exception) -> Exception:
    """Return the first exception that is not a group. Nested tasks wrap their exceptions several times."""
    while isinstance(error, ExceptionGroup):
        error = error.exceptions[0]
    return error
