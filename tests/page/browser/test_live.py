"""A page that is served while a run goes on reads itself anew, and leaves its reader where he is."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from opened_page import Opened
from report_data import report, run

from rvpo.page import render

Open = Callable[..., Opened]
EVERY_MS = 5000
NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)


class Served:
    """A server of one page that can be exchanged."""

    def __init__(self) -> None:
        self.text, self.status = "", 200
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                body = outer.text.encode()
                self.send_response(outer.status)
                self.send_header("Content-Type", "text/html; charset=utf-8")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                with suppress(ConnectionError):  # the page reads as far as its data
                    self.wfile.write(body)

            def log_message(self, *_: Any) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}/"


@pytest.fixture
def served() -> Iterator[Served]:
    one = Served()
    thread = threading.Thread(target=one.server.serve_forever, daemon=True)
    thread.start()
    yield one
    one.server.shutdown()
    one.server.server_close()
    thread.join()


def data(points: int, **changes: Any) -> dict[str, Any]:
    runs = [run("a", points=points), run("b", points=points, seed=1)]
    return report(live=True, generated=f"point {points}", runs=runs) | changes


def opened_live(open_url: Open, served: Served) -> Opened:
    """Open the page with a clock that only the test turns, however busy the machine is."""
    served.text = render(data(10))
    opened = open_url("about:blank")
    opened.page.clock.install(time=NOON)
    opened.page.clock.pause_at(NOON + timedelta(hours=1))
    opened.page.goto(served.url)
    return opened


def turn(opened: Opened, generated: str) -> None:
    """Let five seconds pass and wait for the answer."""
    opened.page.clock.run_for(EVERY_MS + 100)
    opened.until(lambda: generated in opened.js("document.getElementById('live-status').textContent"))


def test_it_refreshes_itself_and_keeps_what_the_reader_chose(open_url: Open, served: Served):
    opened = opened_live(open_url, served)
    page = opened.page
    page.locator("#theme").click()
    page.locator("#run").select_option("1")
    page.locator("#k-number").fill("2.5")
    page.locator("#cell-0-0").fill("0.125")
    page.locator("#curves-metric-live").check()
    page.locator("#samples-next").click()
    page.locator("#sort-correlation").focus()
    state = """() => {
      const byId = id => document.getElementById(id);
      return {
        theme: document.documentElement.dataset.theme, run: byId("run").value, k: byId("k-number").value,
        cell: byId("cell-0-0").value, live: byId("curves-metric-live").checked, focus: document.activeElement.id,
        sample: byId("samples-position").textContent, y: window.scrollY,
      };
    }"""
    before = opened.js(state)
    assert before["y"] > 0
    assert before["sample"] == "2 of 12"
    # A run that came in between changes the place of the chosen one.
    new = data(30)
    new["runs"].insert(0, run("new", points=5))
    served.text = render(new)
    turn(opened, "point 30")
    opened.until(lambda: opened.js("document.getElementById('facts').textContent").startswith("b "))
    assert "150" in opened.text("#tiles")
    after = opened.js(state)
    assert after == before | {"run": "2", "y": after["y"]}
    assert abs(after["y"] - before["y"]) < 200  # the table of all runs has one row more above
    assert opened.said == []
    assert {url for url in opened.asked if url != "about:blank"} == {served.url}


def test_it_can_be_paused_and_says_when_nobody_answers(open_url: Open, served: Served):
    opened = opened_live(open_url, served)
    asked = len(opened.asked)
    opened.page.locator("#live-pause").press("Enter")
    served.text = render(data(20))
    opened.page.clock.run_for(4 * EVERY_MS)
    assert len(opened.asked) == asked
    assert "50" in opened.text("#tiles")
    opened.page.locator("#live-pause").press("Enter")
    opened.until(lambda: "100" in opened.js("document.getElementById('tiles').textContent"))
    served.status = 503
    turn(opened, "not live: the server answers 503")


def test_it_stops_when_the_run_has_ended(open_url: Open, served: Served):
    opened = opened_live(open_url, served)
    served.text = render(data(20, live=False))
    turn(opened, "finished")
    asked = len(opened.asked)
    opened.page.clock.run_for(4 * EVERY_MS)
    assert len(opened.asked) == asked


def test_a_page_that_is_not_live_asks_for_nothing_even_when_served(open_url: Open, served: Served):
    served.text = render(report(live=False))
    opened = open_url("about:blank")
    opened.page.clock.install()
    opened.page.goto(served.url)
    opened.page.clock.run_for(4 * EVERY_MS)
    assert [url for url in opened.asked if url != "about:blank"] == [served.url]
    assert opened.page.locator("#live-control").is_hidden()
