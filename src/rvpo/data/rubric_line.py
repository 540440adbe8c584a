"""The line that says what was read as what of the rubrics of a file."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

from rvpo.data.records import Place


@dataclass
class Reading:
    """What was read as what, for the line that says so."""

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
        """Count that a value of this kind was under this key."""
        self.keys.setdefault(kind, Counter())[key] += 1

    def names(self, kind: str) -> str:
        """Return the keys of a kind, the most frequent first; "" if none."""
        return ", ".join(key for key, _ in self.keys.get(kind, Counter()).most_common())

    def line(self, path: str) -> str:
        """Return what was read as what."""
        parts = [f"rubric = {path} ({self.criteria} criteria of {self.rubrics} prompts)"]
        parts.append(f"text = {self.names('text')}")
        bad = sum(weight < 0 for weight in self.weights)
        if self.weights:
            span = f"weight = {self.names('weight')}, {min(self.weights):g} to {max(self.weights):g}"
            parts.append(span + (f", {bad} negative: meeting those is bad" if bad else ""))
        else:
            parts.append("weight = 1 each")
        parts.append(f"labels = {self.names('label') or 'none'}")
        notes = (
            ("ids made for {} rubrics", self.made_ids),
            ("{} rubrics have negative weights alone", self.all_bad),
            ("{} criteria repeat the text of another of their rubric", self.repeated),
        )
        parts += [text.format(count) for text, count in notes if count]
        parts += [f"{count} decided by rule ({name})" for name, count in self.rules.items()]
        parts += [
            f"{count} for the rule {name!r}, which rvpo does not have: left to the judge"
            for name, count in self.left_to_judge.items()
        ]
        if self.unread:
            parts.append(f"not read of a criterion: {', '.join(self.unread)}")
        return "; ".join(parts)
