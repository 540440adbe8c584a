"""A Chromium that is installed on the machine, and pages of reports in it.

Without a browser or playwright these tests are skipped; where the environment variable CI is set they fail instead.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import pytest
from opened_page import Opened

if TYPE_CHECKING:
    from playwright.sync_api import Browser


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Keep these tests on one worker, one after another, so that a module is open only while its own tests run."""
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.xdist_group("browser"))


BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
ARGUMENTS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)


PATIENCE = 900_000
"""Milliseconds until a test gives up, which no test may need: what a loaded machine does slowly it still does right."""


def absent(what: str) -> NoReturn:
    if os.environ.get("CI"):
        pytest.fail(what)
    pytest.skip(what)


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """Start the browser; nothing is downloaded.

    For a module and not for a session: while it is open an event loop runs in this thread, and others start theirs.
    """
    try:
        from playwright.sync_api import sync_playwright
    except ImportError:
        absent("playwright is not installed: pip install playwright (it needs no `playwright install`)")
    path = next(filter(None, map(shutil.which, BROWSERS)), None)
    if path is None:
        absent(f"no browser is installed; looked for {', '.join(BROWSERS)}")
    with sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=path, args=list(ARGUMENTS))
        yield started
        started.close()


@pytest.fixture
def open_url(browser: Browser) -> Iterator[Callable[..., Opened]]:
    """Return ``open_url(url, width=1280, height=900, scheme="light")``."""
    contexts = []

    def build(url: str, width: int = 1280, height: int = 900, scheme: Any = "light") -> Opened:
        context = browser.new_context(viewport={"width": width, "height": height}, color_scheme=scheme)
        context.set_default_timeout(PATIENCE)
        contexts.append(context)
        opened = Opened(context.new_page())
        opened.page.on("console", lambda message: opened.said.append(f"{message.type}: {message.text}"))
        opened.page.on("pageerror", lambda error: opened.said.append(f"pageerror: {error}"))
        opened.page.on("dialog", lambda dialog: (opened.said.append(f"dialog: {dialog.message}"), dialog.dismiss()))
        context.on("request", lambda request: opened.asked.append(request.url))
        opened.page.goto(url)
        return opened

    yield build
    for context in contexts:
        context.close()


@pytest.fixture
def open_report(open_url: Callable[..., Opened], tmp_path: Path) -> Callable[..., Opened]:
    """Return ``open_report(data, width=1280, ...)``: the page of these data, from the disk."""
    from rvpo.page import render

    def build(data: Mapping[str, Any], **look: Any) -> Opened:
        path = tmp_path / "report.html"
        path.write_text(render(data), encoding="utf-8")
        return open_url(path.as_uri(), **look)

    return build
