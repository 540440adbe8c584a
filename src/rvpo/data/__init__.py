"""Readers that turn files, saved datasets and hub datasets into prompt records.

A record is ``{"prompt": <text or chat messages>, "answer": <text>, ...other reference columns}``. The columns other
than ``prompt`` reach the reward functions as keyword arguments of the same names. Layouts with rubrics give ``rubric``,
the JSON of a :class:`rvpo.rewards.rubric.Rubric`, instead of an answer.

Importing this package is cheap: the ``datasets`` library is imported only when a function needs it.
"""

from rvpo.data.load import LAYOUTS, load_prompts
from rvpo.data.records import RESERVED_COLUMNS, ROLES
from rvpo.data.sft import render_sft

__all__ = ["LAYOUTS", "RESERVED_COLUMNS", "ROLES", "load_prompts", "render_sft"]
