"""BFCL, the Berkeley Function Calling Leaderboard: its single-turn categories, judged by its own checker.

Source: Patil et al., *The Berkeley Function Calling Leaderboard*, ICML 2025; data and checker come from the package
``bfcl-eval`` (:mod:`rvpo.evals.bfcl_package`). Every score is 0 or 1. An unreadable reply is wrong; where the question
is whether a call is made, it counts as "no call". A score is missing only if there is no reply. Metrics:

- ``accuracy``: share of right replies among all questions asked, each with the same weight. The RVPO paper does not
  say how its "BFCL-v3" number is computed; state the categories when you compare.
- ``category:NAME``: the same share within one category.
- ``simple``, ``non_live``, ``live``, ``irrelevance``, ``relevance``: the leaderboard's aggregates, as weighted means::

      simple       mean of the accuracies of simple_python, simple_java and simple_javascript
      non_live     mean of simple and the accuracies of multiple, parallel and parallel_multiple
      live         share of right replies in live_simple, live_multiple, live_parallel, live_parallel_multiple
      irrelevance  mean of the accuracies of irrelevance and live_irrelevance
      relevance    accuracy of live_relevance

  The leaderboard counts a category that was not evaluated as 0. Here an aggregate exists only if all its categories are
  evaluated. With ``limit`` it estimates the leaderboard's value: categories keep the weights of their full sizes. If
  some questions of a category have no reply, the others keep the category's weight; if none has one, there is no mean.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, Final

from rvpo.errors import ConfigError
from rvpo.evals.bfcl_package import Entry, load_package
from rvpo.evals.items import Generation, Item, Reply, Scored
from rvpo.evals.tool_formats import OWN_WORDS, own_calls, read_template, rlla_calls, rlla_prompt

NON_LIVE: Final = (
    "simple_python",
    "simple_java",
    "simple_javascript",
    "multiple",
    "parallel",
    "parallel_multiple",
    "irrelevance",
)
LIVE: Final = (
    "live_simple",
    "live_multiple",
    "live_parallel",
    "live_parallel_multiple",
    "live_irrelevance",
    "live_relevance",
)
GROUPS: Final[Mapping[str, tuple[str, ...]]] = {"all": NON_LIVE + LIVE, "non_live": NON_LIVE, "live": LIVE}
PROMPTINGS: Final = ("own", "rlla")

_AST_LIVE = LIVE[:4]
# Weight of each category in an aggregate; None: in proportion to its number of questions.
_SHARES: Final[Mapping[str, Mapping[str, float] | None]] = {
    "simple": dict.fromkeys(NON_LIVE[:3], 1 / 3),
    "non_live": dict.fromkeys(NON_LIVE[:3], 1 / 12) | dict.fromkeys(NON_LIVE[3:6], 1 / 4),
    "live": None,
    "irrelevance": {"irrelevance": 1 / 2, "live_irrelevance": 1 / 2},
    "relevance": {"live_relevance": 1.0},
}
# The leaderboard's tables: name of a cell -> aggregate or category.
_TABLES: Final[Mapping[str, Mapping[str, str]]] = {
    "non_live": {
        "Non-Live Overall Acc": "non_live",
        "AST Summary": "non_live",
        "Simple AST": "simple",
        "Python Simple AST": "category:simple_python",
        "Java Simple AST": "category:simple_java",
        "JavaScript Simple AST": "category:simple_javascript",
        "Multiple AST": "category:multiple",
        "Parallel AST": "category:parallel",
        "Parallel Multiple AST": "category:parallel_multiple",
        "Irrelevance Detection": "category:irrelevance",
    },
    "live": {
        "Live Overall Acc": "live",
        "AST Summary": "live",
        "Python Simple AST": "category:live_simple",
        "Python Multiple AST": "category:live_multiple",
        "Python Parallel AST": "category:live_parallel",
        "Python Parallel Multiple AST": "category:live_parallel_multiple",
        "Irrelevance Detection": "category:live_irrelevance",
        "Relevance Detection": "relevance",
    },
    "overall": {
        "Non-Live AST Acc": "non_live",
        "Non-Live Simple AST": "simple",
        "Non-Live Multiple AST": "category:multiple",
        "Non-Live Parallel AST": "category:parallel",
        "Non-Live Parallel Multiple AST": "category:parallel_multiple",
        "Live Acc": "live",
        "Live Simple AST": "category:live_simple",
        "Live Multiple AST": "category:live_multiple",
        "Live Parallel AST": "category:live_parallel",
        "Live Parallel Multiple AST": "category:live_parallel_multiple",
        "Relevance Detection": "relevance",
        "Irrelevance Detection": "irrelevance",
    },
}
_MAX_ERROR_CHARS = 500  # kept of the checker's message in the records; it repeats values of any length


class BFCL:
    """The benchmark as ``rvpo eval bfcl`` runs it.

    Args:
        categories: names of categories, or of the groups ``"all"``, ``"non_live"`` and ``"live"``; several names as a
            sequence, or separated by commas.
        prompting: ``"own"``: the model's own tool format, with "." in function names replaced by "_" as in the official
            function-calling handlers; ``"rlla"``: the format of RLLA, for models trained on it.
        limit: largest number of questions of each category, sampled with ``seed``; None asks all.
        seed: seed of the sample.
        template: a file of RLLA data, JSON or parquet, whose first record gives the fixed sentences of the prompt;
            None uses our own sentences. Only with ``prompting="rlla"``.

    Raises:
        ConfigError: an option has a value that cannot work.
        DataError: the template does not have RLLA's layout.
    """

    name = "bfcl"
    primary = "accuracy"
    generation = Generation(max_tokens=4096)

    def __init__(
        self,
        categories: Sequence[str] | str = "all",
        *,
        prompting: str = "own",
        limit: int | None = None,
        seed: int = 0,
        template: str | Path | None = None,
    ) -> None:
        """Check the options; see the class for their meaning."""
        if prompting not in PROMPTINGS:
            raise ConfigError(
                f"prompting={prompting!r}; expected one of {', '.join(PROMPTINGS)}; next step: choose one"
            )
        if limit is not None and limit < 1:
            raise ConfigError(f"limit={limit}; expected 1 or more; next step: leave it out to ask all questions")
        if template is not None and prompting != "rlla":
            raise ConfigError(
                f"template={str(template)!r} with prompting={prompting!r}; expected prompting='rlla' with a template; "
                "next step: set it, or leave out the template"
            )
        self._categories = _named(categories.split(",") if isinstance(categories, str) else categories)
        self._prompting = prompting
        self._limit = limit
        self._seed = seed
        self._template = read_template(Path(template)) if template is not None else OWN_WORDS

    def settings(self) -> dict[str, Any]:
        """Return categories, sample, prompting, version of the checker and digests of the data."""
        package = load_package()
        settings = {
            "categories": list(self._categories),
            "limit": self._limit,
            "seed": self._seed,
            "prompting": self._prompting,
            "bfcl_eval": package.version,
            "data": {category: package.digest(category) for category in self._categories},
        }
        return settings | ({"template": self._template.digest} if self._prompting == "rlla" else {})

    def items(self) -> list[Item]:
        """Return the questions: categories in the leaderboard's order, questions in the order of their file.

        Raises:
            ConfigError: ``bfcl-eval`` is not installed.
            DataError: one of its files cannot be read.
        """
        return [self._item(entry) for entry in self._asked.values()]

    def metrics(self, item: Item) -> Sequence[str]:
        """Return ``accuracy``, the item's category and the aggregates that it counts in."""
        return ["accuracy", f"category:{item.labels['category']}", *self._weights[item.labels["category"]]]

    async def score(self, replied: Sequence[tuple[Item, Reply]]) -> list[Scored]:
        """Score replies with the official checker: 1 is right, 0 is wrong."""
        return [self._score(item, reply) for item, reply in replied]

    def summary(self, scored: Sequence[tuple[Item, Scored]]) -> dict[str, Any]:
        """Return the leaderboard's tables, as far as the categories allow: table -> cell -> accuracy in [0, 1].

        ``left_out`` names the missing aggregates, each with the categories that it lacks.
        """
        scores: dict[str, list[float]] = {}
        for item, result in scored:
            if (score := result.scores["accuracy"]) is not None:
                scores.setdefault(item.labels["category"], []).append(score)
        accuracy = {category: sum(values) / len(values) for category, values in scores.items()}
        cells = {f"category:{category}": value for category, value in accuracy.items()}
        left_out = {}
        for name, shares in self._shares.items():
            if absent := [category for category in shares if category not in accuracy]:
                left_out[name] = absent
            else:
                cells[name] = sum(share * accuracy[category] for category, share in shares.items())
        tables = {
            table: {cell: cells[source] for cell, source in row.items() if source in cells}
            for table, row in _TABLES.items()
        }
        notes = [f"{name} is left out: no score for {', '.join(absent)}" for name, absent in left_out.items()]
        return {"leaderboard": tables, "left_out": left_out, "notes": notes}

    @cached_property
    def _all(self) -> dict[str, list[Entry]]:
        return {category: load_package().entries(category) for category in self._categories}

    @cached_property
    def _asked(self) -> dict[str, Entry]:
        """The questions that are asked, by id."""
        asked: dict[str, Entry] = {}
        for category, entries in self._all.items():
            if self._limit is not None and self._limit < len(entries):
                chosen = random.Random(f"{self._seed} {category}").sample(range(len(entries)), self._limit)
                entries = [entries[index] for index in sorted(chosen)]
            asked |= {entry.id: entry for entry in entries}
        return asked

    @cached_property
    def _shares(self) -> dict[str, dict[str, float]]:
        """Aggregate -> category -> weight of its accuracy; if all categories are evaluated, the weights sum to 1."""
        sizes = {category: len(self._all.get(category, ())) for category in _AST_LIVE}
        by_size = {category: size / (sum(sizes.values()) or 1) for category, size in sizes.items()}
        return {name: dict(by_size if shares is None else shares) for name, shares in _SHARES.items()}

    @cached_property
    def _weights(self) -> dict[str, dict[str, float]]:
        """Category -> aggregate that can be computed -> weight of each question of the category, if none is missing."""
        asked = [entry.category for entry in self._asked.values()]
        had = {name: shares for name, shares in self._shares.items() if shares.keys() <= set(self._categories)}
        return {
            category: {
                name: shares[category] / asked.count(category) for name, shares in had.items() if category in shares
            }
            for category in self._categories
        }

    def _item(self, entry: Entry) -> Item:
        labels = {"category": entry.category, "group": "live" if entry.category in LIVE else "non_live"}
        if self._prompting == "rlla":
            return Item(entry.id, rlla_prompt(self._template, entry.messages, entry.described), labels=labels)
        return Item(entry.id, entry.messages, tools=load_package().tools(entry), labels=labels)

    def _score(self, item: Item, reply: Reply) -> Scored:
        rlla = self._prompting == "rlla"
        calls = rlla_calls(reply) if rlla else own_calls(reply)
        verdict = load_package().check(self._asked[item.id], calls, dots=rlla)
        details = {} if verdict.right else {"error_type": verdict.error_type, "error": verdict.error[:_MAX_ERROR_CHARS]}
        scores = dict.fromkeys(self.metrics(item), float(verdict.right))
        return Scored(scores, weights=self._weights[item.labels["category"]], details=details)


def _named(names: Sequence[str]) -> tuple[str, ...]:
    """Return the categories in the leaderboard's order; each group is replaced by its categories."""
    known = GROUPS["all"]
    chosen = {category for name in names for category in GROUPS.get(name, (name,))}
    if not chosen or chosen - set(known):
        seen = f"categories={list(names)}"
        raise ConfigError(
            f"{seen}; expected one or more of {', '.join((*GROUPS, *known))}; next step: correct the names"
        )
    return tuple(category for category in known if category in chosen)
