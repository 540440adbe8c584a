"""The data and the checker of the Berkeley Function Calling Leaderboard, from its package ``bfcl-eval``.

Nothing is copied: questions, answers, the hints in function descriptions, the conversion to OpenAI's tools and the
checker all come from the installed package. Only its model handlers are not loaded, because their dependencies (pinned
clients of a dozen vendors) would break this environment. While the checker is imported, stand-ins replace the few
modules that need these dependencies; afterwards ``sys.modules`` is as it was before.
"""

from __future__ import annotations

import copy
import hashlib
import importlib
import importlib.metadata
import importlib.util
import json
import logging
import re
import sys
import types
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Final

from rvpo.errors import ConfigError, DataError
from rvpo.evals.tool_formats import Call

logger = logging.getLogger(__name__)

TESTED: Final = "2026.3.23"
INSTALL: Final = f"pip install --no-deps bfcl-eval=={TESTED}"

# In the checker's converters for Java and JavaScript, the time of some regular expressions grows with the fifth power
# of white space, and exponentially with brackets. No answer of the benchmark comes near these limits.
MAX_CODE_CHARS: Final = 512
MAX_CODE_BRACKETS: Final = 16
MAX_CODE_SPACE: Final = 16
_LONG_SPACE = re.compile(rf"\s{{{MAX_CODE_SPACE + 1}}}")

Function = Mapping[str, Any]
"""A function as the benchmark describes it: ``name``, ``description``, ``parameters``."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One question of the benchmark.

    Attributes:
        id: unique over all categories.
        category: such as ``live_multiple``.
        messages: the chat.
        functions: the functions as the checker needs them.
        described: the functions as models see them: with hints about the language, and for Java and JavaScript with
            every parameter as a string that holds code.
        answers: the right calls, with the accepted values of each parameter; None in the categories of (ir)relevance.
    """

    id: str
    category: str
    messages: tuple[Mapping[str, str], ...]
    functions: list[dict[str, Any]]
    described: list[dict[str, Any]]
    answers: list[Any] | None


@dataclass(frozen=True, slots=True)
class CheckerVerdict:
    """The checker's verdict on a reply: right or not, and if not, the checker's own explanation."""

    right: bool
    error_type: str = ""
    error: str = ""


@dataclass(frozen=True, slots=True)
class _Model:
    """The part of a model's configuration that the checker reads: whether "." in function names became "_"."""

    underscore_to_dot: bool


_MODELS = {"dots": _Model(False), "underscores": _Model(True)}


class _StandIn(types.ModuleType):
    """A module in which every public name is None."""

    def __getattr__(self, name: str) -> None:
        if name.startswith("__"):
            raise AttributeError(name)


_STAND_INS = (
    "bfcl_eval.constants.model_config",  # imports the handlers of all vendors
    "bfcl_eval.constants.eval_config",  # makes folders next to the installed package
    "bfcl_eval.model_handler.parser.java_parser",  # these two need tree-sitter; they read code, which is never passed
    "bfcl_eval.model_handler.parser.js_parser",
    "tenacity",  # retries of requests to vendors
)


class Package:
    """The installed ``bfcl-eval``.

    Attributes:
        version: version of the distribution.
    """

    def __init__(self, version: str, folder: Path) -> None:
        """Import the checker; use :func:`load_package` to get an instance."""
        self.version = version
        self._data = folder / "data"
        with _stand_ins():
            self._ast = importlib.import_module("bfcl_eval.eval_checker.ast_eval.ast_checker")
            self._utils = importlib.import_module("bfcl_eval.utils")
            self._handlers = importlib.import_module("bfcl_eval.model_handler.utils")
            self._enums = importlib.import_module("bfcl_eval.constants.enums")
            self._types = importlib.import_module("bfcl_eval.constants.type_mappings")
            self._prefix = importlib.import_module("bfcl_eval.constants.category_mapping").VERSION_PREFIX

    def entries(self, category: str) -> list[Entry]:
        """Return the questions of a category, in the order of its file.

        Raises:
            DataError: the package lacks the file, or the file cannot be read.
        """
        questions, answers = self._files(category)
        raw = _read(questions)
        # By position, as in the official runner, because the ids of some answers are written differently.
        truths = [row["ground_truth"] for row in _read(answers)] if answers else [None] * len(raw)
        if len(truths) != len(raw):
            seen = f"{len(truths)} answers in {answers}, {len(raw)} questions in {questions}"
            raise DataError(f"{seen}; expected one each; next step: {INSTALL} --force-reinstall")
        described = self._utils.add_language_specific_hint_to_function_doc(copy.deepcopy(raw))
        return [
            Entry(row["id"], category, tuple(row["question"][0]), row["function"], hinted["function"], truth)
            for row, hinted, truth in zip(raw, described, truths, strict=True)
        ]

    def digest(self, category: str) -> str:
        """Return the SHA-256 of a category's files."""
        files = [path for path in self._files(category) if path]
        return hashlib.sha256(b"".join(path.read_bytes() for path in files)).hexdigest()

    def tools(self, entry: Entry) -> tuple[Mapping[str, Any], ...]:
        """Return the functions in OpenAI's form, "." in their names replaced by "_", as the official handlers do."""
        style = self._enums.ModelStyle.OPENAI_COMPLETIONS
        return tuple(self._handlers.convert_to_tool(entry.described, self._types.GORILLA_TO_OPENAPI, style))

    def check(self, entry: Entry, calls: list[Call] | None, *, dots: bool) -> CheckerVerdict:
        """Decide whether the calls of a reply are right, as the official runner does.

        Where the checker itself fails on a reply, the official runner would stop; here such a reply is wrong. Code for
        Java or JavaScript beyond the limits of this module is wrong, too. Values of these two languages are strings
        that hold code.

        Args:
            entry: the question.
            calls: the calls of the model; None if the reply cannot be read. Such a reply is wrong, or counts as "no
                call" in the categories of (ir)relevance.
            dots: whether function names keep their dots; if not, the model saw "_" instead and must write it.
        """
        if entry.answers is None:
            called = calls is not None and not self._utils.is_empty_output(calls)
            if called == ("irrelevance" not in entry.category):
                return CheckerVerdict(True)
            return CheckerVerdict(
                False, "irrelevance_error:decoder_success" if called else "relevance_error:decoder_failed"
            )
        if calls is None:
            return CheckerVerdict(False, "ast_decoder:decoder_failed")
        if not self._utils.is_function_calling_format_output(calls):
            return CheckerVerdict(False, "ast_decoder:decoder_wrong_output_format")
        language = self._language(entry.category)
        if language is not self._enums.Language.PYTHON and not _cheap(calls):
            return CheckerVerdict(False, "rvpo:code_beyond_limits")
        model = "dots" if dots else "underscores"
        try:
            result = self._ast.ast_checker(entry.functions, calls, entry.answers, language, entry.category, model)
        except Exception as error:  # any: the checker expects values of the right shape, and a policy wrote them
            return CheckerVerdict(False, "rvpo:checker_failed", f"{type(error).__name__}: {error}")
        if result["valid"]:
            return CheckerVerdict(True)
        return CheckerVerdict(False, str(result["error_type"]), str(result["error"]))

    def _language(self, category: str) -> Any:
        if self._utils.is_java(category):
            return self._enums.Language.JAVA
        return self._enums.Language.JAVASCRIPT if self._utils.is_js(category) else self._enums.Language.PYTHON

    def _files(self, category: str) -> tuple[Path, Path | None]:
        name = f"{self._prefix}_{category}.json"
        answers = None if self._utils.is_relevance_or_irrelevance(category) else self._data / "possible_answer" / name
        return self._data / name, answers


@cache
def load_package() -> Package:
    """Return the installed ``bfcl-eval``; warn if its version is not the tested one.

    Raises:
        ConfigError: the package is not installed, or its checker cannot be imported.
    """
    spec = importlib.util.find_spec("bfcl_eval")
    if spec is None or not spec.submodule_search_locations:
        raise ConfigError(
            f"the benchmark bfcl needs the package bfcl-eval, which is not installed; next step: {INSTALL} (without "
            "its dependencies: they pin versions that break this environment, and its checker needs none of them)"
        )
    version = importlib.metadata.version("bfcl-eval")
    if version != TESTED:
        message = "bfcl-eval is %s, tested with %s: scores may differ from `bfcl evaluate`; next step: %s"
        logger.warning(message, version, TESTED, INSTALL)
    try:
        return Package(version, Path(spec.submodule_search_locations[0]))
    except (ImportError, AttributeError) as error:
        seen = f"the checker of bfcl-eval {version} cannot be imported ({error})"
        raise ConfigError(f"{seen}; expected version {TESTED}; next step: {INSTALL}") from error


@contextmanager
def _stand_ins() -> Iterator[None]:
    """Import ``bfcl_eval`` anew with the stand-ins in place; restore ``sys.modules`` on leaving."""

    def ours(name: str) -> bool:
        return name.partition(".")[0] == "bfcl_eval" or name in _STAND_INS

    before = {name: sys.modules.pop(name) for name in list(sys.modules) if ours(name)}
    for name in _STAND_INS:
        sys.modules[name] = _StandIn(name)
    vars(sys.modules["bfcl_eval.constants.model_config"])["MODEL_CONFIG_MAPPING"] = _MODELS
    try:
        yield
    finally:
        for name in [name for name in sys.modules if ours(name)]:
            del sys.modules[name]
        sys.modules.update(before)


def _read(path: Path) -> list[dict[str, Any]]:
    try:
        return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines() if line]
    except (OSError, ValueError) as error:
        expected = "one JSON object per line, as in the released bfcl-eval"
        raise DataError(f"{path}: saw {error}; expected {expected}; next step: {INSTALL} --force-reinstall") from error


def _cheap(calls: Sequence[Call]) -> bool:
    """Return whether the checker's converters need only a moment to read all code in the calls."""
    texts = [value for call in calls for values in call.values() for value in values.values() if isinstance(value, str)]
    return all(
        len(text) <= MAX_CODE_CHARS and text.count("[") <= MAX_CODE_BRACKETS and not _LONG_SPACE.search(text)
        for text in texts
    )
