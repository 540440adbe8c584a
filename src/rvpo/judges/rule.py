r"""Decide criteria by program. Rules are free, instant and deterministic.

A criterion's ``rule`` maps checks to values. It is met if every check holds::

    {"max_words": 80}
    {"contains_any": ["call 911", "emergency"], "contains_none": "guaranteed", "min_sentences": 2}
    {"regex": "(?m)^Dose: \\d+ mg$"}
    {"json_schema": {"type": "object", "required": ["dose"]}}

=========================================  ============================================================================
``contains_any``, ``_all``, ``_none``      text or texts of which any, all or none occur in the completion. They match
                                           whole words ("cat" is not in "category"), separated by any white space, in
                                           any case unless ``case_sensitive`` is true.
``regex``                                  pattern or patterns that must all be found; ``(?i)`` ignores case.
``min_``, ``max_`` + ``chars``             characters, without white space at the ends.
``min_``, ``max_`` + ``words``             pieces between white space with a letter or digit.
``min_``, ``max_`` + ``sentences``         pieces with a word, between line breaks and ``.``, ``!``, ``?``, ``…`` before
                                           white space; so "e.g. this" counts as two.
``min_``, ``max_`` + ``lines``             lines that are not blank.
``json_schema``                            the completion, bare or in a code fence, is JSON that fits the schema (draft
                                           2020-12; references only within the schema).
=========================================  ============================================================================

Completions are hostile, and patterns and schemas come from the data. So the work of each verdict is bounded
(:mod:`rvpo.judges.rule_limits`). Beyond the bound, the verdict is missing (``"rule"``). Patterns run in the ``regex``
engine, because it has Python's syntax and a time limit. A linear-time engine would not need a limit, but it does not
support look-around and back-references, which rubrics use.
"""

from __future__ import annotations

import asyncio
import functools
import json
import math
import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import regex

from rvpo.errors import ConfigError
from rvpo.judges.rule_limits import Work
from rvpo.judges.rule_schema import compile_schema, pattern_of
from rvpo.rewards.rubric.criteria import Criterion
from rvpo.rewards.rubric.verdict import Question, Verdict
from rvpo.text.suggest import did_you_mean

REGEX_SECONDS = 0.04  # CPU time of this thread for all patterns of one rule; reasonable ones need milliseconds
MAX_CHARS = 1_000_000  # maximum length of a completion; the verdict on a longer one is missing

Check = Callable[[str, Work], bool]

# Sorting the marks on one letter takes quadratic time, and readers do not see more than 30 (Unicode's Stream-Safe
# Text). The two characters that are not marks become marks in NFKC.
_LONG_MARKS = regex.compile(r"([\p{M}\uFF9E\uFF9F]{30})[\p{M}\uFF9E\uFF9F]+")
_INVISIBLE = regex.compile(r"\p{Cf}+")
_WORD_CHARACTER, _NO_WORD_CHARACTER = regex.compile(r"\w"), regex.compile(r"\W")
_SENTENCE_END = re.compile(r"""(?<![.!?…])[.!?…]++["'”’)\]]*+(?=\s|$)|[。！？\n]""")
_COUNTS: dict[str, Callable[[str], int]] = {
    "chars": lambda text: len(text.strip()),
    "words": lambda text: sum(map(_has_word, text.split())),
    "sentences": lambda text: sum(map(_has_word, _SENTENCE_END.split(text))),
    "lines": lambda text: sum(not line.isspace() and line != "" for line in text.splitlines()),
}
_CONTAINS: dict[str, Callable[[Iterable[bool]], bool]] = {
    "contains_any": any,
    "contains_all": all,
    "contains_none": lambda found: not any(found),
}
_LIMITS = tuple(f"{side}_{unit}" for unit in _COUNTS for side in ("min", "max"))
KEYS = (*_CONTAINS, "case_sensitive", "regex", *_LIMITS, "json_schema")
"""Keys of a rule."""


class RuleJudge:
    """Decides criteria that have a ``rule``. It does not read the prompt and the criterion's text."""

    reads_pictures = True
    """Prompts may have pictures, because rules do not read prompts."""

    def __init__(self) -> None:
        """Start with all totals at 0."""
        self._totals = Counter({"verdicts": 0, "missing": 0, "missing/rule": 0})

    async def judge(self, questions: Sequence[Question]) -> list[list[Verdict]]:
        """Return 1.0 (met) or 0.0 per criterion. It is missing (``"rule"``) if a check needs too much work.

        Raises:
            ConfigError: a criterion has no rule, or :func:`check_rules` refuses its rule.
        """
        for question in questions:
            _require_rules(question.criteria)
        # In a thread, so that slow patterns do not delay the calls of other judges.
        verdicts = await asyncio.to_thread(
            lambda: [
                [_decide(criterion, question.completion) for criterion in question.criteria] for question in questions
            ]
        )
        for verdict in (verdict for row in verdicts for verdict in row):
            missing = verdict.value is None
            self._totals.update({"verdicts": not missing, "missing": missing, "missing/rule": missing})
        return verdicts

    def check_criteria(self, criteria: Sequence[Criterion]) -> None:
        """Check a prompt's criteria before training.

        Raises:
            ConfigError: as in :meth:`judge`.
        """
        _require_rules(criteria)
        check_rules(criteria)

    async def check(self) -> None:
        """Return at once, because rules need no server."""

    def usage(self) -> dict[str, float]:
        """Return the numbers of ``verdicts``, of ``missing`` ones, and of missing ones by reason (``missing/rule``)."""
        return {key: float(total) for key, total in self._totals.items()}


def _require_rules(criteria: Iterable[Criterion]) -> None:
    for criterion in criteria:
        if criterion.rule is None:
            raise ConfigError(
                f"criterion {criterion.id!r} has no rule, so the rule judge cannot decide it. Give it a rule, or send "
                "it to another judge with judge: NAME"
            )


def check_rules(criteria: Iterable[Criterion]) -> None:
    """Refuse rules that cannot work, before training begins. Criteria without a rule are skipped.

    Raises:
        ConfigError: a check is unknown, a value is wrong, a pattern does not compile, or a schema is invalid. The
            message names the criterion.
    """
    for criterion in criteria:
        if criterion.rule is not None:
            _checks(criterion)


def _decide(criterion: Criterion, completion: str) -> Verdict:
    checks, work = _checks(criterion), Work(REGEX_SECONDS)
    if len(completion) > MAX_CHARS:
        return Verdict.missing("rule", f"{len(completion)} characters; expected at most {MAX_CHARS}")
    for name, holds in checks:
        try:
            if not holds(completion, work):
                return Verdict(0.0, detail=f"{name} does not hold")
        except (TimeoutError, MemoryError) as error:
            return Verdict.missing("rule", f"{name}: {type(error).__name__} {error}".rstrip())
    return Verdict(1.0)


def _checks(criterion: Criterion) -> tuple[tuple[str, Check], ...]:
    try:
        return _compile(json.dumps(criterion.rule, allow_nan=False))
    except (ConfigError, TypeError, ValueError, RecursionError) as error:
        raise ConfigError(f"criterion {criterion.id!r}: {error}") from error


@functools.lru_cache(maxsize=4096)
def _compile(rule_json: str) -> tuple[tuple[str, Check], ...]:
    """Return name and function of each check of a rule, the cheap ones first."""
    rule: dict[str, Any] = json.loads(rule_json)
    for key in rule:
        if key not in KEYS:
            raise ConfigError(
                f"rule has the unknown check {key!r}{did_you_mean(key, KEYS)}; expected one of {', '.join(KEYS)}"
            )
    case_sensitive = rule.pop("case_sensitive", False)
    if not isinstance(case_sensitive, bool) or not rule:
        raise ConfigError(
            f"rule has case_sensitive={case_sensitive!r} and the checks {list(rule)}; expected true or false and at "
            "least one check"
        )
    for unit in _COUNTS:
        if (low := _limit(rule, f"min_{unit}", 0)) > (high := _limit(rule, f"max_{unit}", math.inf)):
            raise ConfigError(f"rule has min_{unit}={low}, max_{unit}={high}, which no text can meet. Correct one")
    make = {"regex": _regex_check, "json_schema": compile_schema}
    checks: list[tuple[str, Check]] = []
    for key in sorted(rule, key=KEYS.index):
        if key in _CONTAINS:
            checks.append((key, _contains_check(key, rule[key], case_sensitive)))
        elif key in make:
            checks.append((key, make[key](rule[key])))
        else:
            checks.append((key, _limit_check(key, rule[key])))
    return tuple(checks)


def _limit(rule: Mapping[str, Any], key: str, default: float) -> float:
    limit: float = rule.get(key, default)
    if key in rule and (type(limit) is not int or limit < 0):
        raise ConfigError(f"rule has {key}={limit!r}; expected a whole number of at least 0")
    return limit


def _limit_check(key: str, limit: int) -> Check:
    side, _, unit = key.partition("_")
    count = _COUNTS[unit]
    return (lambda text, _: count(text) >= limit) if side == "min" else (lambda text, _: count(text) <= limit)


def _has_word(piece: str) -> bool:
    return any(map(str.isalnum, piece))


def _contains_check(key: str, value: object, case_sensitive: bool) -> Check:
    def fold(text: str) -> str:
        # As a reader sees the text: full-width letters are letters, and invisible characters do not split a word.
        plain = _INVISIBLE.sub("", unicodedata.normalize("NFKC", _LONG_MARKS.sub(r"\1", text)))
        return " ".join((plain if case_sensitive else plain.casefold()).split())

    phrases = [fold(text) for text in _texts(key, value)]
    quantifier = _CONTAINS[key]

    def holds(text: str, _: Work) -> bool:
        folded = fold(text)
        return quantifier(_has_phrase(folded, phrase) for phrase in phrases)

    return holds


def _has_phrase(text: str, phrase: str) -> bool:
    """Return whether a text contains a phrase as whole words.

    It takes linear time, even if a policy writes only beginnings of the phrase, so it needs no limit.
    """
    starts_word, ends_word = phrase[0].isalnum(), phrase[-1].isalnum()
    at = text.find(phrase)
    while at >= 0:
        end = at + len(phrase)
        inside_word = starts_word and _WORD_CHARACTER.match(text[at - 1 : at])
        goes_on = ends_word and _WORD_CHARACTER.match(text[end : end + 1])
        if not inside_word and not goes_on:
            return True
        following = at + 1
        if starts_word:  # the next match cannot begin before the next word
            gap = _NO_WORD_CHARACTER.search(text, at)
            if gap is None:
                return False
            following = gap.end()
        at = text.find(phrase, following)
    return False


def _regex_check(value: object) -> Check:
    patterns = [pattern_of("regex", text) for text in _texts("regex", value)]
    return lambda text, work: all(work.found(pattern, text) for pattern in patterns)


def _texts(key: str, value: object) -> list[str]:
    texts = [value] if isinstance(value, str) else value
    if not isinstance(texts, list) or not texts or not all(isinstance(text, str) and text.strip() for text in texts):
        raise ConfigError(f"rule has {key}={value!r}; expected a text or a list of texts that are not blank")
    return texts
