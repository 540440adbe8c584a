"""A page in a browser, and what it said."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from playwright.sync_api import Page


@dataclass
class Opened:
    """A page, and what it said and asked for while it was open."""

    page: Page
    said: list[str] = field(default_factory=list)
    asked: list[str] = field(default_factory=list)

    def text(self, selector: str) -> str:
        return self.page.locator(selector).inner_text()

    def settle(self) -> None:
        """Let what waits for the next frames happen, such as plotly's drawing."""
        self.page.evaluate(
            "new Promise(done => requestAnimationFrame(() => requestAnimationFrame(() => setTimeout(done))))"
        )

    def until(self, holds: Callable[[], bool]) -> None:
        """Look again until it holds. Playwright's own waiting evaluates a text, which the page's policy forbids."""
        for _ in range(3000):
            if holds():
                return
            self.page.wait_for_timeout(100)
        pytest.fail("what was waited for did not happen within five minutes")

    def js(self, expression: str, argument: Any = None) -> Any:
        return self.page.evaluate(expression, argument)
