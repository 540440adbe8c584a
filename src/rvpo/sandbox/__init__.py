"""Sandboxes run programs of a policy against tests without harm to the machine.

:func:`open_sandbox` returns a sandbox. It takes :class:`Test` and :class:`Limits`, and returns :class:`Outcome`.
"""

from __future__ import annotations

from rvpo.sandbox.open import open_sandbox
from rvpo.sandbox.outcomes import REASONS, Limits, Outcome, Sandbox, Test

__all__ = ["REASONS", "Limits", "Outcome", "Sandbox", "Test", "open_sandbox"]
