"""The log line that reports how the rubrics of a file were read."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

from rvpo.data.records import Place


@dataclass
class Reading:
    """Counts of how rubrics were read, for the log line.

    Attributes:
        keys: kind of value (text, weight or label) -> how often each key held it.
        unread: keys of criteria that were not read.
        weights: all weights.
        unweighted: place and path of each criterion without a weight.
        rubrics: number of rubrics.
        criteria: number of criteria.
        all_bad: number of rubrics whose weights are all negative.
        repeated: number of criteria that repeat the text of another criterion of their rubric.
        made_ids: number of rubrics whose criteria got new ids.
        rules: function of verl -> number of its criteria that a rule of rvpo decides.
        left_to_judge: function of verl -> number of its criteria that are left to the judge.
    """

    keys: dict[str, Counter[str]] = field(default_factory=dict)
    unread: Counter[str] = field(default_factory=Counter)
    weights: list[float] = field(default_factory=list)
    unweighted: list[tuple[Place, str]] = field(default_factory=list)
    rubrics: int = 0
    criteria: int = 0
    all_bad: int = 0
    repeated: int = 0
    made_ids: int = 0
    rules: Counter[str] = field(default_factory=Counter)
    left_to_judge: Counter[str] = field(default_factory=Counter)

    def note(self, kind: str, key: str) -> None:
        """Count one value of a kind, found under a key."""
        self.keys.setdefault(kind, Counter())[key] += 1

    def names(self, kind: str) -> str:
        """Return the keys of a kind as text, the most frequent first; "" without keys."""
        return ", ".join(key for key, _ in self.keys.get(kind, Counter()).most_common())

    def line(self, path: str) -> str:
        """Return the log line for rubrics that were found at a path."""
        parts = [f"rubric = {path} ({self.criteria} criteria for {self.rubrics} prompts)"]
        parts.append(f"text = {self.names('text')}")
        bad = sum(weight < 0 for weight in self.weights)
        if self.weights:
            span = f"weight = {self.names('weight')}, {min(self.weights):g} to {max(self.weights):g}"
            parts.append(span + (f", {bad} negative: meeting those is bad" if bad else ""))
        else:
            parts.append("weight = 1 each")
        parts.append(f"labels = {self.names('label') or 'none'}")
        notes = (
            ("new ids for the criteria of {} rubrics", self.made_ids),
            ("{} rubrics have only negative weights", self.all_bad),
            ("{} criteria repeat the text of another criterion of their rubric", self.repeated),
        )
        parts += [text.format(count) for text, count in notes if count]
        parts += [f"{count} decided by rule ({name})" for name, count in self.rules.items()]
        parts += [
            f"{count} with the rule {name!r}, which rvpo does not have, are left to the judge"
            for name, count in self.left_to_judge.items()
        ]
        if self.unread:
            parts.append(f"fields of criteria not read: {', '.join(self.unread)}")
        return "; ".join(parts)
