"""``rvpo report --live``: the page of a run that still trains, served on this machine and made anew as logs come."""

from __future__ import annotations

import html
import logging
import socket
import threading
from collections.abc import Callable, Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from rvpo.errors import ConfigError, RVPOError

logger = logging.getLogger(__name__)

SECONDS = 5  # between two looks of a page that waits
CONNECTIONS = 16  # at a time; a browser opens about six
PATIENCE = 10.0  # seconds for a request to arrive, and for an answer to be taken
_HEADERS = {
    "Cache-Control": "no-store",
    # Beside the page's own policy: these work in a header alone, or before the page is read.
    "Content-Security-Policy": "frame-ancestors 'none'",
    "X-Frame-Options": "DENY",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
}
_WAITING = (
    '<!doctype html><html lang="en"><meta charset="utf-8"><meta http-equiv="refresh" content="{seconds}">'
    "<title>rvpo report</title><body><h1>Nothing to show yet</h1><p>{reason}</p><p>This page looks again every "
    "{seconds} seconds.</p></body></html>"
)


class LivePage:
    """The newest page, made again only when the logs have changed.

    Attributes:
        paths: of the logs.
    """

    def __init__(self, paths: Sequence[Path], make: Callable[[], str]) -> None:
        """Keep ``make``, which reads the logs and returns the page."""
        self.paths = list(paths)
        self._make, self._lock = make, threading.Lock()
        self._state: object = None
        self._text: str | None = None

    def text(self) -> str:
        """Return the page; the last good one while a file is being written, and a word of patience before the first."""
        with self._lock:
            state = self._look()
            if self._text is None or state != self._state:
                try:
                    self._text, self._state = self._make(), state
                except Exception as error:  # a page that is there must not be lost, whatever the logs hold
                    known = isinstance(error, RVPOError)
                    logger.log(logging.INFO if known else logging.WARNING, "no new page: %s", error, exc_info=not known)
                    if self._text is None:
                        return _WAITING.format(seconds=SECONDS, reason=html.escape(str(error)))
            return self._text

    def _look(self) -> object:
        """Return what changes with the logs: names, sizes and times of their files."""
        found = [file for path in self.paths for file in (path.rglob("*") if path.is_dir() else [path])]
        logs = [file for file in found if file.suffix in (".parquet", ".jsonl")]
        state = []
        for file in sorted(logs):
            try:
                stat = file.stat()
            except OSError:  # removed meanwhile
                continue
            state.append((str(file), stat.st_size, stat.st_mtime_ns))
        return state


def server(page: LivePage, host: str, port: int) -> ThreadingHTTPServer:
    """Return a server of the page; the caller runs and closes it.

    On an address of this machine alone, only requests that name it are answered, so that no other web page can read the
    run through the reader's browser. No other page may show it in a frame. At most :data:`CONNECTIONS` are served at a
    time, and one that is silent for :data:`PATIENCE` seconds is closed.

    Raises:
        ConfigError: the port is taken, or the host is not this machine's.
    """
    local = {"localhost", "127.0.0.1", "::1"}

    class Handler(BaseHTTPRequestHandler):
        timeout = PATIENCE
        server_version, sys_version = "rvpo", ""

        def do_GET(self) -> None:
            try:
                name = urlsplit(f"//{self.headers.get('Host', '')}").hostname
            except ValueError:
                return self._answer(400, "the header Host is no name")
            if host in local and name not in local:
                return self._answer(403, "this name is not this machine's")
            if self.path.partition("?")[0] not in ("/", "/index.html"):
                return self._answer(404, "there is one page, /")
            return self._answer(200, page.text(), "text/html")

        def _answer(self, code: int, text: str, kind: str = "text/plain") -> None:
            body = text.encode("utf-8", "replace")
            self.send_response(code)
            self.send_header("Content-Type", f"{kind}; charset=utf-8")
            self.send_header("Content-Length", str(len(body)))
            for header, value in _HEADERS.items():
                self.send_header(header, value)
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(body)

        def send_error(self, code: int, message: str | None = None, explain: str | None = None) -> None:
            """Answer what is no request that is known: a line of text instead of the base class's page."""
            self.close_connection = True
            self._answer(code, "expected GET / of HTTP")

        do_HEAD = do_GET  # noqa: N815 (the base class's name)

        def log_message(self, format: str, *args: Any) -> None:
            logger.debug(format, *args)

    class Server(ThreadingHTTPServer):
        address_family = socket.AF_INET6 if ":" in host else socket.AF_INET
        daemon_threads = True
        free = threading.BoundedSemaphore(CONNECTIONS)

        def process_request(self, request: Any, client_address: Any) -> None:
            if self.free.acquire(blocking=False):
                try:
                    super().process_request(request, client_address)
                except BaseException:  # no thread could be started
                    self.free.release()
                    raise
            else:
                self.shutdown_request(request)

        def process_request_thread(self, request: Any, client_address: Any) -> None:
            try:
                super().process_request_thread(request, client_address)
            finally:
                self.free.release()

        def handle_error(self, request: Any, client_address: Any) -> None:
            """Note what became of a connection, such as one that was closed meanwhile; nobody can do anything."""
            logger.debug("a connection from %s ended early", client_address, exc_info=True)

    try:
        return Server((host, port), Handler)
    except OSError as error:
        raise ConfigError(
            f"{host}:{port} cannot be served ({error.strerror}): choose another --port, or 0 for any that is free"
        ) from error
