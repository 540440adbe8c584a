r"""Escape control tokens of chat templates in texts of a policy, a prompt or a rubric.

Many servers treat a control token such as ``<|im_end|>`` as the end of a turn, wherever it occurs. There are thousands
of such tokens, and each family of models has new ones. So not a list of tokens is escaped, but their shapes: a
zero-width space after the first character breaks the token, and readers do not see it.

=================================  =========================================================================
shape                              families, for example
=================================  =========================================================================
``<|…``, ``…|>``, ``</|…``         ChatML, Llama 3 and 4, Phi, Qwen, Gemma 4; full-width bars: DeepSeek
``<word>``, ``</word>``            Gemma, Llama 2, Seed (``<seed:bos>``), Command-R, thoughts and tool calls
``<word=…>``, ``<[word]>``         calls of functions; Seed
``[WORD]``, ``[/WORD]``            Mistral, BERT, Kimi (``[start_header_id]``), GLM (``[gMASK]``)
``[|…``, ``]~b]``, ``]<]…[>[``     EXAONE; MiniMax
``>>WORD<<``, ``|||WORD|||``       Falcon; OLMo; Fuyu (``|WORD|``)
``/nothink``, ``◁think▷``          GLM, Qwen; Kimi
=================================  =========================================================================

Names of HTML elements and of types in programs (``<div>``, ``vector<int>``) are not changed, unless a template uses
them, such as ``<s>``. HealthBench's placeholders, lists (``[1]``), links, comparisons (``a<b``) and tags with
attributes are not changed either.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from rvpo.files import sound

ZERO_WIDTH_SPACE = "\u200b"

_HTML = (
    "a abbr article aside b big blockquote body br button caption center cite code col dd del details div dl dt em "
    "fieldset figure figcaption font footer form h1 h2 h3 h4 h5 h6 head header hr html i iframe input ins kbd label "
    "legend li link main math meta nav ol option p pre script section select small span strike strong style sub "
    "summary sup svg table tbody td textarea tfoot th thead title tr tt u ul var"
)
_TYPES = (
    "int float double char bool string str void long short unsigned byte auto size_t vector map set pair iostream "
    "algorithm cmath stdio.h stdlib.h string.h math.h Integer String Double Float Boolean Long Object T K V E"
)
_PLACEHOLDERS = "rubric_item conversation"  # in HealthBench's template; its judge must see them unchanged
_ORDINARY = frozenset([*_HTML.split(), *_TYPES.split(), *_PLACEHOLDERS.split()])
_BAR = "|｜∣│¦"
_NAME = r"(?!\d+>)[\w▁][\w▁:.+-]{0,79}"  # "<0>" is not a token
_TAG = re.compile(rf"<(?=/?({_NAME})>)")
_SHAPES = re.compile(
    rf"<[{_BAR}](?![A-Z_]{{4,40}}[{_BAR}])[\w▁]{{1,60}}[{_BAR}]>"  # the whole token, so its end gets no second space
    rf"|<(?=/?[{_BAR}])"
    rf"|<(?=/?{_NAME}[{_BAR}]>)"
    rf"|<(?={_NAME}=[^<>\s]{{1,80}}>)"
    r"|<(?=/?\[[^\[\]<>]{1,80}\]>)"
    rf"|[{_BAR}](?=>)"
    r"|\[(?=/?(?:[a-z]?[A-Z][A-Z0-9_]+|[A-Za-z]+(?:_[A-Za-z0-9]+)+|[a-z]{3,}\d+)\])"
    rf"|\[(?=[{_BAR}])"
    r"|[\[\]](?=[!\w]{0,4}~[!\w]{0,4}[\[\]])"
    r"|\](?=<\])|\[(?=>\[)"
    r"|>(?=>[A-Z_]{3,40}<<)"
    r"|\|(?=(?:\|\|)?[A-Z_]{4,40}\|)"
    r"|/(?=no_?think)|(?<!\S)/(?=think(?![\w-]))"
    r"|◁(?=/?\w)"
)


def harmless(text: str, tokens: re.Pattern[str] | None = None) -> str:
    """Return a text without intact control tokens.

    Args:
        text: text from any source.
        tokens: pattern of further tokens, from :func:`pattern_of`, if the tokenizer is known.

    Example:
        >>> harmless("a <|im_end|>").encode("ascii", "backslashreplace")
        b'a <\\\\u200b|im_end|>'
    """
    escaped = _SHAPES.sub(_split, sound(text))
    escaped = _TAG.sub(lambda tag: tag[0] if tag[1] in _ORDINARY else _split(tag), escaped)
    return tokens.sub(_split, escaped) if tokens else escaped


def one_line(role: str) -> str:
    """Return a role for the line that names it: short, in capitals, without line breaks, and escaped."""
    return harmless(" ".join(role.split())[:40].upper())


def pattern_of(special: Iterable[str], added: Iterable[str]) -> re.Pattern[str] | None:
    """Return a pattern for the first character of each token that :func:`harmless` leaves intact; None without any.

    Args:
        special: all special tokens of a tokenizer.
        added: other tokens that were added to its vocabulary. White space, words and HTML among them are ordinary text.
    """
    wanted = {token for token in special if len(token) > 1 and not token.isspace()}
    wanted |= {token for token in added if _looks_like_control(token)}
    whole = sorted((token for token in wanted if harmless(token) == token), key=len, reverse=True)
    if not whole:
        return None
    return re.compile("|".join(f"{re.escape(token[0])}(?={re.escape(token[1:])})" for token in whole))


def _looks_like_control(token: str) -> bool:
    plain = token.replace("▁", "")
    has_letter, has_sign = any(map(str.isalpha, plain)), any(not c.isalnum() and not c.isspace() for c in plain)
    return has_letter and has_sign and plain.strip("</>") not in _ORDINARY


def _split(found: re.Match[str]) -> str:
    return found[0][0] + ZERO_WIDTH_SPACE + found[0][1:]
