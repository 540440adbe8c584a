"""Sandboxes: programs that a policy wrote, run against tests where they can do no harm.

:func:`open_sandbox` returns one; :class:`Test`, :class:`Limits` and :class:`Outcome` are what goes in and comes out.
"""

from __future__ import annotations

from rvpo.sandbox.open import open_sandbox
from rvpo.sandbox.outcomes import REASONS, Limits, Outcome, Sandbox, Test

__all__ = ["REASONS", "Limits", "Outcome", "Sandbox", "Test", "open_sandbox"]
