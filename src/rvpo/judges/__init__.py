"""Judges decide whether a completion meets a criterion.

A judge is any object with the three methods of :class:`Judge`. These judges are built in:

- :class:`EndpointJudge` asks an OpenAI-compatible server, with retries, limits, a budget and a cache on disk.
- :class:`LocalJudge` asks a model on this machine. All criteria of a completion share its key-value cache.
- :class:`RuleJudge` decides by program: contains, regex, length, JSON schema.
- :class:`MixedJudge` sends each criterion to the judge that should decide it.

If a judge returns no verdict, the verdict is missing, with a reason. It never becomes a reward.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

from rvpo.extras import needs_extra

if TYPE_CHECKING:
    from rvpo.judges.build import load_judge
    from rvpo.judges.endpoint import EndpointJudge
    from rvpo.judges.local import LocalJudge
    from rvpo.judges.mixed import MixedJudge
    from rvpo.judges.rule import RuleJudge
    from rvpo.rewards.rubric.verdict import Judge, Question, Verdict

_HOME = {
    "EndpointJudge": "rvpo.judges.endpoint",
    "Judge": "rvpo.rewards.rubric.verdict",
    "LocalJudge": "rvpo.judges.local",
    "MixedJudge": "rvpo.judges.mixed",
    "Question": "rvpo.rewards.rubric.verdict",
    "RuleJudge": "rvpo.judges.rule",
    "Verdict": "rvpo.rewards.rubric.verdict",
    "load_judge": "rvpo.judges.build",
}

__all__ = [
    "EndpointJudge",
    "Judge",
    "LocalJudge",
    "MixedJudge",
    "Question",
    "RuleJudge",
    "Verdict",
    "load_judge",
]


def __getattr__(name: str) -> object:
    """Load a judge on first use: aiohttp and transformers are heavy."""
    if name in _HOME:
        with needs_extra("trl" if name == "LocalJudge" else "judge", "judges"):
            return getattr(importlib.import_module(_HOME[name]), name)
    raise AttributeError(f"module 'rvpo.judges' has no attribute {name!r}; public names are {', '.join(__all__)}")
